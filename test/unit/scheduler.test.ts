/** Schedulers of several nodes over one store, under a clock that is told to go on. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Scheduler } from '../../src/cluster/placement/scheduler.ts';
import type { Session, Store } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { clusterTopic, objectKey, placementTopic } from '../../src/model/keys.ts';
import type { NodeState } from '../../src/model/node.ts';
import type { Assignment, PlacementSpec, Unplaced } from '../../src/model/service/placement.ts';
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
  /** Nodes that the cluster seems to have. */
  let count: number;
  /** Who asked for the session, in turn. */
  let asked: string[];

  const reached = (node: string): Store =>
    new Proxy(store, {
      get: (target, key) => {
        const method = Reflect.get(target, key);
        if (typeof method !== 'function') return method;
        if (key === 'watch') return method.bind(target);
        return async (...words: unknown[]) => {
          if (cutOff.has(node)) throw new SluiceError('store.unavailable', 'cut off');
          if (key === 'session') asked.push(node);
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
      count: () => count,
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
    put('service', id, { spec: { replicas: { count, placement, version: 1 } }, ...more });
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
    [count, asked] = [NODES.length, []];
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

  test('what a scheduler of the next version wrote stays: fields, and assignments by rules of its own', async () => {
    await service('shop', 2);
    await put('service', 'batch', { schema: 2, spec: { jobs: 5 } });
    await put('service', 'plain', { spec: {} });
    const write = (id: string, owner: string, spec: object): Promise<number> => {
      const value = { kind: 'assignment', id, name: id, owner, schema: 2, labels: {}, spec, later: 1 };
      return store.transact([{ op: 'put', key: objectKey('assignment', id), value }]);
    };
    await write('1', 'a', { service: 'shop', count: 1, later: 2 });
    await write('2', 'b', { service: 'batch', count: 5 });
    await write('3', 'b', { job: 'nightly' });
    await write('4', 'c', { service: 'gone', count: 1 });
    start('a');
    await pass(200);
    await service('shop', 4);
    await pass(50);
    const all = (await store.list<Assignment>('assignment/')).items.map(({ value }) => value);
    const by = (id: string): unknown => all.find((one) => one.id === id);
    expect(await placed('shop')).toEqual({ a: 2, b: 1, c: 1 });
    expect(by('1')).toMatchObject({ schema: 2, later: 1, spec: { count: 2, later: 2 } });
    expect(by('2')).toMatchObject({ spec: { service: 'batch', count: 5 } });
    expect(by('3')).toMatchObject({ spec: { job: 'nightly' } });
    // Its service is no more, whatever the version.
    expect(by('4')).toBeUndefined();
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

  test('candidates ask at every turn, and more rarely the more there are', async () => {
    for (const name of NODES) start(name);
    await pass(30_000);
    const few = asked.length;
    expect(few).toBeGreaterThan(100);
    count = 50;
    await pass(1_000);
    asked = [];
    await pass(30_000);
    expect(asked.length).toBeGreaterThan(few / 6);
    expect(asked.length).toBeLessThan(few / 4);
    // A thousand do not wait a minute.
    count = 1_000;
    await pass(5_000);
    cutOff.add(leaders()[0]!);
    await pass(TTL + 6_000);
    expect(leaders().filter((name) => !cutOff.has(name))).toHaveLength(1);
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

  test('what has no place is said, with the reason of each node, until it has one', async () => {
    const unplaced = async () =>
      Object.fromEntries(
        (await store.list<Unplaced>('unplaced/')).items.map(({ value }) => [value.service, value.message]),
      );
    start('a');
    await node('b', { availability: 'drained' });
    await node('c', {}, { zone: 'z' });
    await service('shop', 3, { constraints: ['node.labels.zone==z'], perNodeMax: 1 });
    await service('watch', 1, { mode: 'global', constraints: ['node.name==d'] });
    await service('fine', 2);
    await pass(200);
    expect(await unplaced()).toEqual({
      shop: '2 of 3 have no place: a does not satisfy node.labels.zone==z, b is drained, c runs 1, as many as it may',
      watch: 'none runs: a does not satisfy node.name==d, b is drained, c does not satisfy node.name==d',
    });
    const since = (await store.list<Unplaced>('unplaced/')).items[0]!.value.since;
    await node('a', {}, { zone: 'z' });
    await pass(50);
    const { items } = await store.list<Unplaced>('unplaced/');
    expect(items.map(({ value }) => value)).toContainEqual({
      service: 'shop',
      message: '1 of 3 has no place: a runs 1, as many as it may, b is drained, c runs 1, as many as it may',
      since,
    });
    await service('shop', 2, { constraints: ['node.labels.zone==z'], perNodeMax: 1 });
    await service('watch', 1, { mode: 'global' }, { removing: true });
    await pass(50);
    expect(await unplaced()).toEqual({});
  });

  test('of another image the nodes take turns, as many at once as the service says', async () => {
    const renewing = async (id: string): Promise<string[]> => {
      const all = (await store.list<Assignment>('assignment/')).items.map(({ value }) => value);
      const { value } = (await store.get<{ spec: { replicas: { version: number } } }>(objectKey('service', id)))!;
      const { version } = value.spec.replicas;
      return all
        .filter(({ spec }) => spec.service === id && spec.renew === version)
        .map(({ owner }) => owner!)
        .sort();
    };
    const shop = (version: number, placement?: PlacementSpec) =>
      put('service', 'shop', { spec: { replicas: { count: 6, placement, version } } });
    /** The node's containers of the service are of that version by now. */
    const renewed = async (owner: string, version: number): Promise<void> => {
      for (const slot of [1, 2]) {
        const id = `${owner}${slot}`;
        const spec = { wanted: 'running', replica: { service: 'shop', slot, version } };
        await store.transact([
          { op: 'put', key: objectKey('container', id), value: { kind: 'container', id, owner, spec } },
        ]);
      }
    };
    start('a');
    await shop(1);
    for (const name of NODES) await renewed(name, 1);
    await pass(200);
    expect(await renewing('shop')).toEqual(NODES);
    await shop(2);
    await pass(50);
    expect(await renewing('shop')).toEqual(['a']);
    await pass(2_000);
    expect(await renewing('shop')).toEqual(['a']);
    await renewed('a', 2);
    await pass(400);
    expect(await renewing('shop')).toEqual(['a', 'b']);
    // One that is lost in its turn holds up nobody, and one that is silent before it waits.
    states.set('b', 'lost');
    await pass(600);
    expect(await renewing('shop')).toEqual(['a', 'b', 'c']);
    for (const name of ['b', 'c']) await renewed(name, 2);
    states.set('b', 'ready');
    await pass(600);
    await shop(3, { updateParallelism: 2 });
    await pass(50);
    expect(await renewing('shop')).toEqual(['a', 'b']);
    await service('local', 2, undefined, { owner: 'b' });
    await pass(50);
    expect(await placed('local')).toEqual({ b: 2 });
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
