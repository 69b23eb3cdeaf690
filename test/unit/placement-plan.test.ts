import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type PlacementNode, planPlacement } from '../../src/cluster/placement/plan.ts';
import { planTurns, type TurnNode } from '../../src/cluster/placement/turn.ts';
import { readConstraint, satisfies } from '../../src/model/service/placement.ts';

const node = (name: string, more: Partial<PlacementNode> = {}): PlacementNode => ({
  id: `id-${name}`,
  name,
  labels: {},
  state: 'ready',
  givenUp: false,
  drained: false,
  load: 0,
  ...more,
});
const counts = (plan: { readonly counts: ReadonlyMap<string, number> }) => Object.fromEntries(plan.counts);
const plan = (
  ask: Parameters<typeof planPlacement>[0],
  nodes: readonly PlacementNode[],
  current: Record<string, number> = {},
) => {
  const { counts: made, missing } = planPlacement(
    ask,
    nodes.map((one) => ({ ...one, load: one.load + (current[one.name] ?? 0) })),
    new Map(Object.entries(current)),
  );
  return { ...counts({ counts: made }), ...(missing > 0 && { missing }) };
};

describe('planPlacement', () => {
  const three = [node('a'), node('b'), node('c')];

  test('spreads evenly, and over those that have less of all', () => {
    expect(plan({ count: 7 }, three)).toEqual({ a: 3, b: 2, c: 2 });
    expect(plan({ count: 1 }, [node('a', { load: 5 }), node('b')])).toEqual({ b: 1 });
    expect(plan({ count: 0 }, three)).toEqual({});
  });

  test('moves nobody who may stay', () => {
    expect(plan({ count: 4 }, three, { a: 4 })).toEqual({ a: 4 });
    expect(plan({ count: 5 }, three, { a: 4 })).toEqual({ a: 4, b: 1 });
    expect(plan({ count: 3 }, three, { a: 4, b: 1 })).toEqual({ a: 2, b: 1 });
  });

  test('a node that is silent keeps what it has and gets nothing', () => {
    for (const state of ['unreachable', 'lost'] as const)
      expect(plan({ count: 4 }, [node('a', { state }), node('b')], { a: 2 })).toEqual({ a: 2, b: 2 });
    expect(plan({ count: 1 }, [node('a', { state: 'lost' }), node('b')], { a: 1, b: 1 })).toEqual({ b: 1 });
  });

  test('of a node that is given up the replicas start elsewhere; without a place they wait for it', () => {
    const lost = node('a', { state: 'lost', givenUp: true });
    expect(plan({ count: 3 }, [lost, node('b'), node('c')], { a: 2, b: 1 })).toEqual({ b: 2, c: 1 });
    expect(plan({ count: 3, perNodeMax: 1 }, [lost, node('b')], { a: 1, b: 1 })).toEqual({ a: 1, b: 1, missing: 2 });
    expect(plan({ count: 3 }, three, { b: 1, c: 2 })).toEqual({ b: 1, c: 2 });
  });

  test('nothing stays on a node that is drained, gone, or fits no more', () => {
    expect(plan({ count: 2 }, [node('a', { drained: true }), node('b')], { a: 2 })).toEqual({ b: 2 });
    expect(plan({ count: 2 }, [node('a', { drained: true })], { a: 2 })).toEqual({ missing: 2 });
    expect(plan({ count: 2 }, [node('b')], { a: 2 })).toEqual({ b: 2 });
    const zones = [node('a', { labels: { zone: 'a' } }), node('b', { labels: { zone: 'b' } })];
    expect(plan({ count: 2, constraints: ['node.labels.zone==b'] }, zones, { a: 2 })).toEqual({ b: 2 });
    expect(plan({ count: 1, constraints: ['node.labels.zone==c'] }, zones)).toEqual({ missing: 1 });
  });

  test('global: one on every node that fits, whatever the count', () => {
    const nodes = [...three, node('d', { drained: true }), node('e', { state: 'lost' })];
    expect(plan({ mode: 'global', count: 1 }, nodes)).toEqual({ a: 1, b: 1, c: 1 });
    expect(plan({ mode: 'global', count: 1 }, nodes, { a: 3, d: 1, e: 1 })).toEqual({ a: 1, b: 1, c: 1, e: 1 });
  });

  test('whatever there is: limits hold, nobody moves without need, and a second look changes nothing', () => {
    const nodes = fc.uniqueArray(
      fc.record({
        name: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
        zone: fc.constantFrom('x', 'y'),
        state: fc.constantFrom('ready' as const, 'unreachable' as const, 'lost' as const),
        over: fc.boolean(),
        drained: fc.boolean(),
        count: fc.nat(5),
        others: fc.nat(9),
      }),
      { selector: ({ name }) => name },
    );
    const ask = fc.record({
      count: fc.nat(20),
      perNodeMax: fc.option(fc.integer({ min: 1, max: 6 }), { nil: undefined }),
      constraints: fc.constantFrom([], ['node.labels.zone==x'], ['node.labels.zone!=x', 'node.name!=b']),
      mode: fc.constantFrom(undefined, 'global' as const),
    });
    fc.assert(
      fc.property(nodes, ask, (given, asked) => {
        const facts = given.map(({ name, zone, state, over, drained, count, others }) =>
          node(name, { labels: { zone }, state, givenUp: state === 'lost' && over, drained, load: count + others }),
        );
        const current = new Map<string, number>(given.map(({ name, count }) => [name, count]));
        const max = asked.mode === 'global' ? 1 : (asked.perNodeMax ?? Number.POSITIVE_INFINITY);
        const { counts: made, missing } = planPlacement(asked, facts, current);
        let answering = 0;
        for (const [name, count] of made) {
          const one = facts.find((each) => each.name === name)!;
          expect(count).toBeGreaterThan(0);
          expect(count).toBeLessThanOrEqual(max);
          expect(one.drained).toBe(false);
          expect(satisfies(one, asked.constraints)).toBe(true);
          if (one.state !== 'ready') expect(count).toBeLessThanOrEqual(current.get(name) ?? 0);
          if (!one.givenUp) answering += count;
        }
        if (asked.mode !== 'global') {
          expect(answering + missing).toBe(asked.count);
          const stays = facts
            .filter((one) => !one.drained && !one.givenUp && satisfies(one, asked.constraints))
            .map(({ name }) => ({ name, held: Math.min(current.get(name) ?? 0, max) }));
          const held = stays.reduce((sum, each) => sum + each.held, 0);
          // As many go as are too many, and where there are too few nobody does.
          const gone = stays.reduce((sum, each) => sum + Math.max(0, each.held - (made.get(each.name) ?? 0)), 0);
          expect(gone).toBe(Math.max(0, held - asked.count));
          if (missing > 0)
            for (const { name } of stays.filter(
              (each) => facts.find((one) => one.name === each.name)!.state === 'ready',
            ))
              expect(made.get(name)).toBe(max);
        }
        const moved = facts.map((one) => ({
          ...one,
          load: one.load - (current.get(one.name) ?? 0) + (made.get(one.name) ?? 0),
        }));
        expect(counts(planPlacement(asked, moved, made))).toEqual(counts({ counts: made }));
      }),
      { numRuns: 500 },
    );
  });
});

describe('constraints', () => {
  const host = { id: 'f00', name: 'host-1', labels: { zone: 'a', 'disk.type': 'ssd' } };

  test.each([
    ['node.labels.zone==a', true],
    ['node.labels.zone == a', true],
    ['node.labels.zone!=a', false],
    ['node.labels.rack!=7', true],
    ['node.labels.rack==7', false],
    ['node.labels.disk.type==ssd', true],
    ['node.name==host-1', true],
    ['node.hostname!=host-1', false],
    ['node.id==f00', true],
  ])('%s: %s', (text, fits) => {
    expect(readConstraint(text)!(host)).toBe(fits);
  });

  test.each(['', 'zone==a', 'node.zone==a', 'node.labels.zone=a', 'node.labels.==a', 'node.labels.zone=='])(
    '"%s" is none, and nobody satisfies it',
    (text) => {
      expect(readConstraint(text)).toBeNull();
      expect(satisfies(host, [text])).toBe(false);
    },
  );
});

describe('planTurns', () => {
  const node = (name: string, more: Partial<TurnNode> = {}): TurnNode => ({
    name,
    state: 'ready',
    stale: 2,
    mayRenew: false,
    ...more,
  });
  const begin = (nodes: readonly TurnNode[], parallelism?: number) => planTurns(nodes, parallelism).begin;

  test('one node after another, or so many at once as are allowed', () => {
    expect(planTurns([node('b'), node('a'), node('c')])).toEqual({ begin: ['a'], underWay: true });
    expect(begin([node('a', { mayRenew: true }), node('b')])).toEqual([]);
    expect(begin([node('a', { mayRenew: true, stale: 0 }), node('b'), node('c')])).toEqual(['b']);
    expect(begin([node('a', { mayRenew: true }), node('b'), node('c'), node('d')], 3)).toEqual(['b', 'c']);
    expect(planTurns([node('a', { stale: 0 }), node('b', { stale: 0, mayRenew: true })])).toEqual({
      begin: [],
      underWay: false,
    });
  });

  test('who is silent gets no turn; who is lost in the middle of it does not hold up the others', () => {
    expect(begin([node('a', { state: 'unreachable' }), node('b', { state: 'lost' }), node('c')])).toEqual(['c']);
    expect(begin([node('a', { mayRenew: true, state: 'unreachable' }), node('b')])).toEqual([]);
    expect(begin([node('a', { mayRenew: true, state: 'lost' }), node('b')])).toEqual(['b']);
    expect(planTurns([node('a', { state: 'lost' })])).toEqual({ begin: [], underWay: false });
  });
});
