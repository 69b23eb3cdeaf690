/** Schedulers of several nodes over one store, under a clock that is told to go on. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Scheduler } from '../../src/cluster/placement/scheduler.ts';
import type { Session, Store } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { clusterTopic, objectKey, placementTopic } from '../../src/model/keys.ts';
import type { NodeState } from '../../src/model/node.ts';
import type { Assignment, PlacementSpec } from '../../src/model/service/placement.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock, type ManualClock } from '../clock.ts';

const TTL = 3_000;
const GRACE = 30_000;
const NODES = ['a', 'b', 'c'];

describe('schedulers', () => {
  let clock: ManualClock;
  let store: Store;
  let states: Map<string, NodeState>;
  let cutOff: Set<string>;
  let schedulers: Map<string, Scheduler>;

  const reached = (node: string): Store =>
    new Proxy(store, {
      get: (target, key) => {
        const method = Reflect.get(target, key);
        if (typeof method !== 'function') return method;
        if (key === 'watch') return method.bind(target);
        return async (...words: unknown[]) => {
          if (cutOff.has(node)) throw new SluiceError('store.unavailable', 'cut off');
          const answer = await method.apply(target, words);
          return key === 'session' ? reachedSession(node, answer as Session) : answer;
        };
      },
    });
  const reachedSession = (node: string, session: Session): Session => {
    const sent = async (work: () => Promise<void>): Promise<void> => {
      if (cutOff.has(node)) throw new SluiceError('store.unavailable', 'cut off');
      await work();
    };
    return {
      name: session.name,
      epoch: session.epoch,
      get alive() {
        return session.alive;
      },
      renew: () => sent(() => session.renew()),
      end: () => sent(() => session.end()),
    };
  };
  const start = (node: string): Scheduler => {
    const scheduler = new Scheduler({
      store: reached(node),
      clock,
      logger: createLogger('silent'),
      node,
      ttlMs: TTL,
      graceMs: GRACE,
      stateOf: (name) => states.get(name) ?? 'ready',
    });
    schedulers.set(node, scheduler);
    scheduler.start();
    return scheduler;
  };
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 50) {
      clock.advance(50);
      for (let n = 0; n < 8; n++) await new Promise(setImmediate);
    }
  };
  const put = (kind: 'node' | 'service', id: string, value: object): Promise<number> => {
    const topics = kind === 'node' ? [clusterTopic] : [placementTopic];
    const object = { kind, id, name: id, labels: {}, owner: null, ...value };
    return store.transact([{ op: 'put', key: objectKey(kind, id), value: object }], { topics });
  };
  const node = (id: string, spec: object = {}, labels = {}): Promise<number> =>
    put('node', id, { labels, owner: id, spec: { address: id, vtep: id, ...spec } });
  const service = (id: string, count: number, placement?: PlacementSpec, more: object = {}): Promise<number> =>
    put('service', id, { spec: { replicas: { count, placement } }, ...more });
  const placed = async (id: string): Promise<Record<string, number>> => {
    const all = (await store.list<Assignment>('assignment/')).items.map(({ value }) => value);
    const its = all.filter(({ spec }) => spec.service === id);
    expect(new Set(its.map(({ owner }) => owner)).size).toBe(its.length);
    return Object.fromEntries(its.map(({ owner, spec }) => [owner, spec.count]));
  };
  const leaders = (): string[] => [...schedulers].filter(([, { leads }]) => leads).map(([name]) => name);

  beforeEach(async () => {
    clock = createManualClock();
    store = createMemoryStore({ clock });
    states = new Map();
    cutOff = new Set();
    schedulers = new Map();
    for (const name of NODES) await node(name);
  });
  afterEach(async () => {
    for (const scheduler of schedulers.values()) {
      const stopping = scheduler.stop();
      await pass(100);
      await stopping;
    }
    await store.close();
  });

  test('of three one decides; a change is met at once', async () => {
    for (const name of NODES) start(name);
    await pass(200);
    expect(leaders()).toHaveLength(1);
    await service('shop', 3);
    await pass(50);
    expect(await placed('shop')).toEqual({ a: 1, b: 1, c: 1 });
    await service('shop', 5);
    await pass(50);
    expect(await placed('shop')).toEqual({ a: 2, b: 2, c: 1 });
    await service('shop', 5, undefined, { removing: true });
    await pass(50);
    expect(await placed('shop')).toEqual({});
  });

  test('a leader that is cut off is followed by another, and what it decides late is refused', async () => {
    start('a');
    await pass(200);
    start('b');
    await pass(200);
    expect(leaders()).toEqual(['a']);
    cutOff.add('a');
    await pass(2 * TTL);
    expect(leaders()).toEqual(['b']);
    await service('shop', 3);
    await pass(100);
    expect(await placed('shop')).toEqual({ a: 1, b: 1, c: 1 });
    cutOff.clear();
    await pass(2 * TTL);
    expect(leaders()).toEqual(['b']);
  });

  test('one that ends lets another decide without delay', async () => {
    const first = start('a');
    await pass(200);
    start('b');
    const stopping = first.stop();
    await pass(100);
    await stopping;
    await pass(TTL / 3);
    expect(leaders()).toEqual(['b']);
  });

  test('of a lost node replicas start elsewhere after the grace time, and not again on its return', async () => {
    start('a');
    await service('shop', 3);
    await pass(200);
    states.set('c', 'lost');
    await pass(GRACE - 2_000);
    expect(await placed('shop')).toEqual({ a: 1, b: 1, c: 1 });
    await pass(4_000);
    expect(await placed('shop')).toEqual({ a: 2, b: 1 });
    states.set('c', 'ready');
    await pass(2_000);
    expect(await placed('shop')).toEqual({ a: 2, b: 1 });
  });

  test('one that is unreachable, or lost for less, keeps what it has', async () => {
    start('a');
    await service('shop', 3);
    await pass(200);
    states.set('c', 'unreachable');
    await pass(3 * GRACE);
    states.set('c', 'lost');
    await pass(GRACE - 2_000);
    states.set('c', 'ready');
    await pass(1_000);
    states.set('c', 'lost');
    await pass(GRACE - 2_000);
    expect(await placed('shop')).toEqual({ a: 1, b: 1, c: 1 });
  });

  test('drained nodes, labels, limits and modes are followed', async () => {
    start('a');
    await node('c', {}, { zone: 'z' });
    await service('shop', 2, { constraints: ['node.labels.zone==z'], perNodeMax: 1 });
    await service('watch', 1, { mode: 'global' });
    await service('local', 2, undefined, { owner: 'b' });
    await pass(200);
    expect(await placed('shop')).toEqual({ c: 1 });
    expect(await placed('watch')).toEqual({ a: 1, b: 1, c: 1 });
    expect(await placed('local')).toEqual({ b: 2 });
    await node('b', {}, { zone: 'z' });
    await node('c', { availability: 'drained' }, { zone: 'z' });
    await pass(50);
    expect(await placed('shop')).toEqual({ b: 1 });
    expect(await placed('watch')).toEqual({ a: 1, b: 1 });
    await node('d', { vtep: undefined });
    await pass(50);
    expect(await placed('watch')).toEqual({ a: 1, b: 1 });
  });
});
