import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/order.ts';

/** An emulated machine stretches every time limit. */
const slowness = Math.max(1, Number(process.env.SLUICE_LAB_SLOWNESS ?? 1));

const project = (name: string, limitMs: number) => ({
  test: {
    name,
    include: [`test/${name}/**/*.test.ts`],
    pool: 'forks' as const,
    // Files that start no programs share a process, and what they import is loaded once; where many are started a small process forks faster.
    isolate: !['unit', 'conformance', 'sim'].includes(name),
    testTimeout: limitMs * slowness,
    hookTimeout: limitMs * slowness,
    // What was compiled is run as it is.
    server: { deps: { external: [/\/dist\/src\//] } },
  },
});

export default defineConfig({
  test: {
    sequence: { sequencer: LongestFirst },
    projects: [
      project('unit', 10_000),
      project('conformance', 20_000),
      project('sim', 120_000),
      project('kernel', 30_000),
      project('e2e', 60_000),
      project('long', 900_000),
    ],
  },
});
