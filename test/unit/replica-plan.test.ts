import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planReplicas, type ReplicaFacts } from '../../src/controller/replica/plan.ts';

const replica = (slot: number, more: Partial<ReplicaFacts> = {}): ReplicaFacts => ({
  id: `r${slot}`,
  slot,
  version: 1,
  serving: true,
  leaving: false,
  ended: false,
  ...more,
});
const many = (count: number, more: Partial<ReplicaFacts> = {}): ReplicaFacts[] =>
  Array.from({ length: count }, (_, n) => replica(n + 1, more));

/** What the plan brings about: whoever is told to end has ended at the next look, whoever was made serves then. */
function step(count: number, version: number, before: readonly ReplicaFacts[], serves: boolean): ReplicaFacts[] {
  const plan = planReplicas(count, version, before);
  const next = before
    .filter(({ id }) => !plan.remove.includes(id))
    .map((each) =>
      plan.leave.includes(each.id) || each.leaving
        ? { ...each, leaving: true, ended: true, serving: false }
        : { ...each, serving: each.version === version ? serves : each.serving },
    );
  return [...next, ...plan.create.map((slot) => replica(slot, { id: `v${version}-${slot}`, version, serving: false }))];
}

describe('planReplicas', () => {
  test('what is missing comes in the lowest free slots', () => {
    expect(planReplicas(3, 1, [])).toEqual({ create: [1, 2, 3], leave: [], remove: [] });
    expect(planReplicas(3, 1, [replica(2)])).toEqual({ create: [1, 3], leave: [], remove: [] });
    expect(planReplicas(3, 1, many(3))).toEqual({ create: [], leave: [], remove: [] });
  });

  test('of too many, those go that do not serve, then the highest slots', () => {
    expect(planReplicas(1, 1, many(3)).leave).toEqual(['r3', 'r2']);
    expect(planReplicas(2, 1, [replica(1, { serving: false }), replica(2), replica(3)]).leave).toEqual(['r1']);
    expect(planReplicas(0, 1, many(2)).leave).toEqual(['r2', 'r1']);
  });

  test('one that was told to end is made up for at once, its name once it is gone', () => {
    const leaving = replica(2, { leaving: true });
    expect(planReplicas(2, 1, [replica(1), leaving])).toEqual({ create: [3], leave: [], remove: [] });
    expect(planReplicas(2, 1, [replica(1), { ...leaving, ended: true }]).remove).toEqual(['r2']);
  });

  test('of an earlier image none goes while it is another node`s turn, but what is missing is made and what is too much goes', () => {
    const plan = (count: number, replicas: readonly ReplicaFacts[]) => planReplicas(count, 2, replicas, false);
    expect(plan(3, many(3))).toEqual({ create: [], leave: [], remove: [] });
    expect(plan(3, many(2))).toEqual({ create: [3], leave: [], remove: [] });
    expect(plan(2, [replica(1), replica(2, { version: 2 }), replica(3)]).leave).toEqual(['r3']);
    expect(plan(1, [replica(1), replica(2, { serving: false })]).leave).toEqual(['r2']);
  });

  test('of an earlier image one goes for each new one that serves', () => {
    const old = many(3);
    expect(planReplicas(3, 2, old)).toEqual({ create: [4], leave: [], remove: [] });
    const fresh = replica(4, { version: 2, serving: false });
    expect(planReplicas(3, 2, [...old, fresh])).toEqual({ create: [], leave: [], remove: [] });
    expect(planReplicas(3, 2, [...old, { ...fresh, serving: true }])).toEqual({
      create: [],
      leave: ['r1'],
      remove: [],
    });
  });

  test('an image that never serves takes nobody away', () => {
    let now = many(3);
    for (let n = 0; n < 10; n++) now = step(3, 2, now, false);
    expect(now.filter(({ version, serving }) => version === 1 && serving)).toHaveLength(3);
    expect(now).toHaveLength(4);
  });

  test('whatever there is, it comes to rest with the wanted number, and as many serve on the way as did', () => {
    const facts = fc
      .uniqueArray(
        fc.record({
          slot: fc.integer({ min: 1, max: 12 }),
          version: fc.integer({ min: 1, max: 3 }),
          serving: fc.boolean(),
          leaving: fc.boolean(),
          ended: fc.boolean(),
        }),
        { selector: ({ slot }) => slot, maxLength: 12 },
      )
      .map((list) => list.map((each) => ({ ...each, id: `r${each.slot}`, serving: each.serving && !each.leaving })));
    fc.assert(
      fc.property(facts, fc.integer({ min: 0, max: 8 }), (begin, count) => {
        const served = (list: readonly ReplicaFacts[]) => list.filter(({ serving }) => serving).length;
        const least = Math.min(count, served(begin));
        let now: readonly ReplicaFacts[] = begin;
        for (let n = 0; n < 60; n++) {
          now = step(count, 3, now, true);
          expect(served(now)).toBeGreaterThanOrEqual(least);
          expect(new Set(now.map(({ slot }) => slot)).size).toBe(now.length);
        }
        expect(now).toHaveLength(count);
        expect(now.every(({ version, serving }) => version === 3 && serving)).toBe(true);
      }),
    );
  });
});
