import { describe, expect, test } from 'vitest';
import type { HeldLease } from '../../src/cluster/replica/assertion.ts';
import type { Op, Store } from '../../src/contracts/store.ts';
import { Simulation, Violation } from './cluster.ts';

/** Cluster-hours of a plain run, over all seeds; `SLUICE_SIM_HOURS` simulates longer, `SLUICE_SIM_SEED` replays one seed alone. */
const HOURS = Number(process.env.SLUICE_SIM_HOURS ?? 108);
const SEEDS = process.env.SLUICE_SIM_SEED ? [Number(process.env.SLUICE_SIM_SEED)] : [1, 2, 3, 4];

async function simulate(seed: number, hours: number, plant?: (store: Store) => Store): Promise<Simulation> {
  const simulation = new Simulation({ seed, plant });
  try {
    await simulation.run(hours);
  } finally {
    simulation.close();
  }
  return simulation;
}

/** Seeds one after another until a rule is broken; the seconds that took, or null. */
async function find(plant: (store: Store) => Store, secondsMax: number): Promise<Violation | null> {
  const since = performance.now();
  for (let seed = 1; performance.now() - since < secondsMax * 1_000; seed++) {
    try {
      await simulate(seed, 2, plant);
    } catch (error) {
      if (error instanceof Violation) return error;
      throw error;
    }
  }
  return null;
}

const LOSSES = ['fail-over', 'old snapshot', 'emptied'];
/** Of all seeds together: each is rare. */
const losses = new Map<string, number>();

/** A store with one method exchanged. */
const withTransact = (store: Store, transact: Store['transact']): Store =>
  new Proxy(store, {
    get(target, key) {
      if (key === 'transact') return transact;
      const value = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

describe('a cluster whose daemons, hosts, links and store fail at random', () => {
  test.each(SEEDS)('keeps its rules, seed %i', async (seed) => {
    const hours = HOURS / SEEDS.length;
    const simulation = await simulate(seed, hours);
    expect(simulation.time.now).toBeGreaterThanOrEqual(hours * 3_600_000);
    // It did something: every kind of fault and of request, many times.
    for (const step of ['crash', 'partition', 'store away', 'pause', 'late messages', 'sandbox', 'service'])
      expect(simulation.counts.get(step) ?? 0, step).toBeGreaterThan(0);
    for (const loss of LOSSES) losses.set(loss, (losses.get(loss) ?? 0) + (simulation.counts.get(loss) ?? 0));
  });

  test('whose store lost something in every way', () => {
    // One seed alone, replayed, may lack one.
    const least = SEEDS.length > 1 ? 1 : 0;
    for (const loss of LOSSES) expect(losses.get(loss) ?? 0, loss).toBeGreaterThanOrEqual(least);
  });

  test('does the same again from the same seed', async () => {
    const [first, again] = [await simulate(77, 3), await simulate(77, 3)];
    expect([again.time.events, again.time.now, [...again.counts]]).toEqual([
      first.time.events,
      first.time.now,
      [...first.counts],
    ]);
    expect(again.server.list('')).toEqual(first.server.list(''));
  });
});

describe('faults that were planted are found within a minute', () => {
  test('a store that takes writes of sessions that have ended', async () => {
    const found = await find(
      (store) => withTransact(store, (ops, options) => store.transact(ops, { ...options, session: undefined })),
      60,
    );
    expect(found?.message).toMatch(/a sign of life of epoch/);
  });

  test('a store that loses the addresses that nodes say again', async () => {
    const found = await find(
      (store) =>
        withTransact(store, (ops, options) => {
          const saidAgain = (op: Op): boolean => op.op === 'put' && (op.value as HeldLease).since !== undefined;
          const kept = ops.filter((op) => !(op.key.startsWith('lease/') && saidAgain(op)));
          return store.transact(kept, options);
        }),
      60,
    );
    expect(found?.message).toMatch(/is held twice|is not leased to it/);
  });

  test('a store that gives an address to whoever asks last', async () => {
    const found = await find(
      (store) =>
        withTransact(store, (ops, options) =>
          store.transact(
            ops.map((op) => (op.op === 'put' && op.key.startsWith('lease/') ? { ...op, expect: undefined } : op)),
            options,
          ),
        ),
      60,
    );
    expect(found?.message).toMatch(/is held twice|is not leased to it/);
  });
});
