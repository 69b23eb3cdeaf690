import { defineConfig } from 'vitest/config';

const project = (name: string, testTimeout: number) => ({
  test: { name, include: [`test/${name}/**/*.test.ts`], pool: 'forks' as const, testTimeout, hookTimeout: testTimeout },
});

export default defineConfig({
  test: {
    projects: [
      project('unit', 10_000),
      project('conformance', 20_000),
      project('kernel', 30_000),
      project('e2e', 60_000),
      project('long', 900_000),
    ],
  },
});
