import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createFakeRuntime } from '../../runtime/fake.ts';
import { systemClock } from '../../src/clock.ts';
import type { Runtime } from '../../src/contracts/runtime.ts';
import { hexId, ID_BYTES } from '../../src/model/id.ts';
import { EngineBed, planOf, SPEC } from '../kernel/engine-bed.ts';
import { RUNTIME_CASES, type RuntimeUnderTest, runtimeConformance } from './runtime.ts';

let bed: EngineBed;
beforeAll(() => {
  bed = new EngineBed();
});
afterAll(() => bed.close());

const FOREVER = ['sleep', '1000'];

runtimeConformance('engine', async () => {
  const runtime = await bed.start();
  return {
    runtime,
    plan: ({ id, generation = 1 } = {}) => bed.plan(FOREVER, { generation }, id ? { id } : {}),
    close: async () => {
      for (const { id } of await runtime.list()) await runtime.delete(id);
    },
  };
});

const fake = async (): Promise<RuntimeUnderTest> => ({
  runtime: createFakeRuntime({ clock: systemClock }),
  plan: ({ id = hexId(systemClock.random(ID_BYTES)), generation = 1 } = {}) =>
    planOf(id, { ...SPEC, command: FOREVER, generation }),
  close: async () => undefined,
});
runtimeConformance('in memory', fake);

/** A fake that does one thing wrong. */
function broken(change: (runtime: Runtime) => Partial<Runtime>): () => Promise<RuntimeUnderTest> {
  return async () => {
    const under = await fake();
    const parts = change(under.runtime);
    return {
      ...under,
      runtime: new Proxy(under.runtime, { get: (target, key) => Reflect.get(parts, key) ?? Reflect.get(target, key) }),
    };
  };
}

const BROKEN: Readonly<Record<string, () => Promise<RuntimeUnderTest>>> = {
  'forgets the generation': broken((runtime) => ({
    create: async (plan) => ({ ...(await runtime.create(plan)), generation: 1 }),
  })),
  'starts when it creates': broken((runtime) => ({
    async create(plan) {
      await runtime.create(plan);
      return runtime.start(plan.id);
    },
  })),
  'keeps what is deleted': broken(() => ({ delete: async () => undefined })),
  'tells exits twice': broken((runtime) => ({
    onExit: (listener) =>
      runtime.onExit((state) => {
        listener(state);
        listener(state);
      }),
  })),
  'tells nobody who asks later': broken((runtime) => {
    let first = true;
    return {
      onExit(listener) {
        if (first) runtime.onExit(listener);
        first = false;
      },
    };
  }),
  'kills nobody': broken(() => ({ kill: async () => undefined })),
};

describe('the suite fails on a broken runtime', () => {
  test.each(Object.entries(BROKEN))('%s', { timeout: 30_000 }, async (_what, open) => {
    const failures = await Promise.all(
      Object.values(RUNTIME_CASES).map(async (run) => {
        const under = await open();
        return run(under).then(
          () => false,
          () => true,
        );
      }),
    );
    expect(failures).toContain(true);
  });
});
