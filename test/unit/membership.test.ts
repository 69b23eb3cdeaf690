import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Beat } from '../../src/cluster/judgement.ts';
import { Membership } from '../../src/cluster/membership.ts';
import type { Store } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { beatKey } from '../../src/model/keys.ts';
import type { Node, NodeState } from '../../src/model/node.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock, type ManualClock } from '../clock.ts';

const TTL = 3_000;
const NODES = ['a', 'b', 'c'];

describe('nodes that share a store', () => {
  let clock: ManualClock;
  let store: Store;
  /** Whose kernel answers. */
  let answering: Set<string>;
  /** Who cannot reach the store. */
  let cutOff: Set<string>;
  let members: Map<string, Membership>;
  let states: Map<string, ReadonlyMap<string, NodeState>>;

  const reached = (node: string): Store =>
    new Proxy(store, {
      get: (target, key) => {
        const method = Reflect.get(target, key);
        if (typeof method !== 'function') return method;
        return async (...words: unknown[]) => {
          if (cutOff.has(node)) throw new SluiceError('store.unavailable', 'cut off');
          return method.apply(target, words);
        };
      },
    });
  const join = (node: string): Membership => {
    const member = new Membership({
      store: reached(node),
      clock,
      logger: createLogger('silent'),
      node,
      ttlMs: TTL,
      prober: { answers: async (address) => answering.has(address) },
      nodes: () => NODES.map((name) => ({ name, spec: { address: name } }) as Node),
      applied: () => 7,
      onStates: (now) => states.set(node, now),
    });
    members.set(node, member);
    member.start();
    return member;
  };
  /** Lets time pass in steps short enough for every timer and what it began. */
  const pass = async (ms: number, clocks = [clock]): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 50) {
      for (const each of clocks) each.advance(50);
      await new Promise(setImmediate);
    }
  };
  beforeEach(() => {
    clock = createManualClock();
    store = createMemoryStore({ clock });
    answering = new Set(NODES);
    cutOff = new Set();
    members = new Map();
    states = new Map();
    for (const node of NODES) join(node);
  });
  afterEach(async () => {
    for (const member of members.values()) await member.stop();
    await store.close();
  });

  test('see each other, their epochs and how far they have read', async () => {
    await pass(10_000);
    expect(states.size).toBe(0);
    expect(members.get('a')!.sessionOf('b')).toMatchObject({ state: 'ready', epoch: 1, applied: 7 });
    expect(members.get('a')!.sessionOf('a')).toEqual({ state: 'ready', epoch: 1, silentMs: 0, applied: 7 });
  });

  test('tell one whose daemon is dead from one whose host is lost', async () => {
    await pass(5_000);
    await members.get('b')!.stop();
    await pass(4_000);
    expect(states.get('a')?.get('b')).toBe('unreachable');
    answering.delete('b');
    await pass(1_600);
    expect(states.get('a')?.get('b')).toBe('lost');
    expect(states.get('c')?.get('b')).toBe('lost');
    answering.add('b');
    join('b');
    await pass(1_500);
    expect(states.get('a')?.get('b')).toBe('ready');
    await members.get('a')!.refresh();
    expect(members.get('a')!.sessionOf('b').epoch).toBe(2);
  });

  test('learn of a lost host within four seconds of its last sign of life', async () => {
    await pass(5_000);
    cutOff.add('b');
    answering.delete('b');
    await pass(2_000);
    expect(states.size).toBe(0);
    await pass(2_000);
    expect(states.get('a')?.get('b')).toBe('lost');
  });

  test('ask for nobody while all are well, for one that is silent, and for everybody while its kernel does not answer', async () => {
    await pass(10_000);
    const list = store.list.bind(store);
    const answers: number[] = [];
    store.list = async (...words) => {
      const found = await list<never>(...words);
      answers.push(found.items.length);
      return found;
    };
    await pass(10_000);
    expect(answers.length).toBeGreaterThan(50);
    expect(answers.every((count) => count === 0)).toBe(true);
    cutOff.add('b');
    await pass(10_000);
    expect(states.get('a')?.get('b')).toBe('unreachable');
    expect(new Set(answers.slice(-20))).toEqual(new Set([1]));
    answering.delete('b');
    await pass(1_000);
    expect(answers.at(-1)).toBe(NODES.length);
    await pass(5_000);
    expect(states.get('a')?.get('b')).toBe('lost');
    expect(answers.slice(-20).filter((count) => count === 1).length).toBeGreaterThan(10);
    answering.add('b');
    cutOff.delete('b');
    await pass(2_000);
    expect(states.get('a')?.get('b')).toBe('ready');
    expect(answers.at(-1)).toBe(0);
    // What they say of themselves is for who asks.
    await members.get('a')!.refresh();
    expect(members.get('a')!.sessionOf('c')).toMatchObject({ state: 'ready', applied: 7 });
  });

  test('judge two that fall silent one after the other each by its own last sign of life', async () => {
    await pass(5_000);
    cutOff.add('b');
    answering.clear();
    await pass(1_500);
    cutOff.add('c');
    await pass(2_500);
    expect(Object.fromEntries(states.get('a')!)).toEqual({ b: 'lost', c: 'ready' });
    await pass(1_600);
    expect(Object.fromEntries(states.get('a')!)).toEqual({ b: 'lost', c: 'lost' });
  });

  describe('when there are many', () => {
    const crowd = Array.from({ length: 500 }, (_, at) => `x${String(at).padStart(3, '0')}`);
    /** How many signs of life each look was told of. */
    let looks: number[];
    let alive: Set<string>;
    let answering: Set<string>;
    let one: Membership;
    let found: ReadonlyMap<string, NodeState>;
    /** The clock by which the one lives. */
    let own: ManualClock;
    const beat = async (seconds: number, clocks = [clock, own]): Promise<void> => {
      for (let second = 0; second < seconds; second++) {
        const count = Math.round(clock.monotonic() / 1_000) + 1;
        const ops = [...alive].map((node) => {
          const value: Beat = { epoch: 1, count, applied: 0, hears: [] };
          return { op: 'put', key: beatKey(node), value } as const;
        });
        await store.transact(ops, { topics: [] });
        await pass(1_000, clocks);
      }
    };
    beforeEach(async () => {
      for (const member of members.values()) await member.stop();
      own = createManualClock();
      [looks, found, alive, answering] = [[], new Map(), new Set(crowd), new Set(crowd)];
      const counted: Store = new Proxy(store, {
        get(target, key) {
          const method = Reflect.get(target, key);
          if (typeof method !== 'function') return method;
          return async (...words: unknown[]) => {
            const answer = await method.apply(target, words);
            if (key === 'list') looks.push(answer.items.length);
            return answer;
          };
        },
      });
      one = new Membership({
        store: counted,
        clock: own,
        logger: createLogger('silent'),
        node: 'one',
        ttlMs: TTL,
        prober: { answers: async (address) => answering.has(address) },
        nodes: () => crowd.map((name) => ({ name, spec: { address: name } }) as Node),
        applied: () => 7,
        onStates: (now) => {
          found = now;
        },
      });
      one.start();
      members.set('one', one);
    });

    test('look less often, and judge nobody too soon for that', async () => {
      await beat(60);
      expect(looks.length).toBeLessThanOrEqual(42);
      expect(looks.length).toBeGreaterThanOrEqual(38);
      expect(found.size).toBe(0);
      // Signs of life are given as often as ever.
      expect((await store.get<Beat>(beatKey('one')))!.value.count).toBeGreaterThanOrEqual(55);
    });

    test('ask for those alone who are late, and answer', async () => {
      await beat(20);
      looks = [];
      for (const [at, name] of crowd.slice(0, 10).entries()) {
        alive.delete(name);
        await beat(2 + (at % 3));
        alive.add(name);
        await beat(1);
      }
      expect(looks.length).toBeGreaterThan(20);
      expect(Math.max(...looks)).toBe(1);
      expect(found.size).toBe(0);
    });

    test('ask for the silent alone, too, when a look comes late', async () => {
      await beat(20);
      looks = [];
      for (let late = 0; late < 5; late++) {
        await beat(5, [clock]);
        own.advance(5_000);
        await beat(3);
      }
      expect(looks).toHaveLength(10);
      // Itself: it has given no sign of life either.
      expect(Math.max(...looks)).toBe(1);
      expect(found.size).toBe(0);
      // Who fell silent meanwhile is given up all the same, and not at once.
      alive.delete('x007');
      answering.delete('x007');
      await beat(5, [clock]);
      own.advance(5_000);
      await beat(2);
      expect(found.size).toBe(0);
      await beat(7);
      expect([...found].filter(([, state]) => state !== 'ready')).toEqual([['x007', 'lost']]);
    });

    test('learn of a lost host after three looks', async () => {
      await beat(20);
      alive.delete('x007');
      answering.delete('x007');
      await beat(3);
      expect(found.size).toBe(0);
      await beat(6);
      expect([...found].filter(([, state]) => state !== 'ready')).toEqual([['x007', 'lost']]);
      alive.add('x007');
      answering.add('x007');
      await beat(2);
      expect(found.get('x007')).toBe('ready');
    });
  });

  test('judge nobody while the store is away, nor within a session of its return', async () => {
    await pass(5_000);
    for (const node of NODES) cutOff.add(node);
    answering.clear();
    await pass(60_000);
    expect(states.size).toBe(0);
    cutOff.delete('a');
    await pass(2_500);
    expect(states.size).toBe(0);
    cutOff.delete('b');
    await pass(3_000);
    expect([...states.get('a')!]).toEqual([
      ['b', 'ready'],
      ['c', 'lost'],
    ]);
  });

  test('give signs of life under a session that nobody else holds', async () => {
    await pass(5_000);
    // A second daemon of the same name: its signs of life are refused as long as the first lives.
    const twin = new Membership({
      store,
      clock,
      logger: createLogger('silent'),
      node: 'a',
      ttlMs: TTL,
      prober: { answers: async () => true },
      nodes: () => [],
      applied: () => 9,
      onStates: () => undefined,
    });
    twin.start();
    await pass(10_000);
    expect((await store.get<Beat>(beatKey('a')))?.value).toMatchObject({ epoch: 1, applied: 7 });
    expect(twin.sessionOf('a').epoch).toBeUndefined();
    await members.get('a')!.stop();
    await pass(2_000);
    expect((await store.get<Beat>(beatKey('a')))?.value).toMatchObject({ epoch: 2, applied: 9 });
    await twin.stop();
  });
});
