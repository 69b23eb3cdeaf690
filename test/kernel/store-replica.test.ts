/** Nodes with copies of their own on a real Redis that goes away, comes back empty, or older than it was. */
import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Op, Store, WatchEvent } from '../../src/contracts/store.ts';
import { openRedisStore } from '../../src/store/redis/redis.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { makeFolder } from '../folder.ts';
import { RedisServer } from '../redis/server.ts';

let redis: RedisServer;
let folder: string;
const stores = new Set<Store>();

beforeEach(async () => {
  folder = makeFolder('replica');
  redis = await RedisServer.start();
});
afterEach(async () => {
  for (const store of stores) await store.close();
  stores.clear();
  await redis.remove();
  rmSync(folder, { recursive: true });
});

async function open(node: string): Promise<Store> {
  const local = await openSqliteStore({ path: join(folder, `${node}.db`), clock: systemClock });
  const store = await openReplica({
    connect: (seen) => openRedisStore({ url: redis.url, clock: systemClock, seen }),
    local,
    node,
    clock: systemClock,
  });
  stores.add(store);
  return store;
}

async function close(store: Store): Promise<void> {
  stores.delete(store);
  await store.close();
}

const put = (key: string, value: unknown): Op => ({ op: 'put', key, value });
const network = (id: string) => put(`network/${id}`, { id, owner: null, spec: { scope: 'global' } });
const endpoint = (id: string, owner: string, on = 'n1') => put(`endpoint/${id}`, { id, owner, spec: { network: on } });
const refer = (id: string) => put(`reference/network/${id}`, {});
const keys = async (store: Store, prefix = ''): Promise<string[]> =>
  (await store.list(prefix)).items.map(({ key }) => key).filter((key) => !/^(?:restore|settlement)\//.test(key));

/** A network with an endpoint of a and one of b, an endpoint of b on another network, and what belongs to them. */
async function fill(a: Store, b: Store): Promise<void> {
  await fillFrom(a);
  await fillBeside(b);
}
async function fillFrom(a: Store): Promise<void> {
  await a.transact([network('n1'), network('n2'), put('name/network/*/web', { id: 'n1' })]);
  await a.transact([put('pool/p1', { id: 'p1', owner: 'n1', space: 'global' })], { topics: ['cluster'] });
  await a.transact([put('lease/p1/10.0.0.2', { owner: 'e1' })], { topics: [] });
  await a.transact([endpoint('e1', 'a'), refer('n1')], { topics: ['node/a', 'network/n1'] });
}
async function fillBeside(b: Store): Promise<void> {
  await b.transact([put('lease/p1/10.0.0.3', { owner: 'e2' })], { topics: [] });
  await b.transact([endpoint('e2', 'b'), refer('n1')], { topics: ['node/b', 'network/n1'] });
  await b.transact([endpoint('e3', 'b', 'n2'), refer('n2')], { topics: ['node/b', 'network/n2'] });
  await b.transact([put('local/b/counter/view', 4)], { topics: ['node/b'] });
}
const ALL = [
  'endpoint/e1',
  'endpoint/e2',
  'endpoint/e3',
  'lease/p1/10.0.0.2',
  'lease/p1/10.0.0.3',
  'local/b/counter/view',
  'name/network/*/web',
  'network/n1',
  'network/n2',
  'pool/p1',
  'reference/network/n1',
  'reference/network/n2',
];

test('a node that starts while Redis is away serves what concerns it; writes fail; it goes on when Redis is back', {
  timeout: 30_000,
}, async () => {
  await redis.stop();
  await redis.remove();
  redis = await RedisServer.start(['appendonly yes', 'appendfsync always']);
  const b = await open('b');
  const first = await open('a');
  await fillFrom(first);
  await close(first);
  // It lists once, before b writes: what it knows of b it heard, and what it did not hear it does not know.
  const a = await open('a');
  await fillBeside(b);
  await expect.poll(async () => (await b.list('')).items.length).toBe(ALL.length);
  const copied = async () => {
    const local = await openSqliteStore({ path: join(folder, 'a.db'), clock: systemClock });
    const found = (await local.list('copy/')).items.map(({ key }) => key);
    await local.close();
    return found;
  };
  await expect.poll(copied, { timeout: 5_000 }).toContain('copy/endpoint/e2');
  await close(a);
  await redis.stop();
  const begun = performance.now();
  const again = await open('a');
  expect(performance.now() - begun).toBeLessThan(3_000);
  // Everything that concerns it, and nothing that does not.
  const ours = ALL.filter((key) => !/e3|local\/b|reference.*n2|lease.*0\.3/.test(key));
  expect(await keys(again)).toEqual(ours);
  expect((await again.get<{ owner: string }>('endpoint/e2'))?.value.owner).toBe('b');
  const { revision } = await again.list('');
  const told: WatchEvent[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of again.watch('cluster', revision, stop.signal)) told.push(event);
  })();
  const asked = performance.now();
  await expect(again.transact([network('n3')])).rejects.toMatchObject({ code: 'store.unavailable' });
  expect(performance.now() - asked).toBeLessThan(1_500);
  await redis.start();
  await expect.poll(() => again.transact([network('n4')]).catch(() => 0), { timeout: 10_000 }).toBeGreaterThan(0);
  await expect.poll(() => told.length, { timeout: 5_000 }).toBe(1);
  expect(told[0]).toMatchObject({ type: 'change', change: { entries: [{ key: 'network/n4' }] } });
  expect(await keys(again)).toEqual([...ALL, 'network/n4'].sort());
  stop.abort();
  await watching;
});

test('Redis restarted empty: restored whole from both nodes, nobody sees it empty, a new incarnation', {
  timeout: 30_000,
}, async () => {
  const [a, b] = [await open('a'), await open('b')];
  await fill(a, b);
  await b.transact([{ op: 'delete', key: 'network/gone' }, network('n5')]);
  await a.transact([{ op: 'delete', key: 'network/n5' }]);
  await expect.poll(async () => (await keys(b)).length).toBe(ALL.length);
  const { incarnation } = a;
  const { revision } = await a.list('');
  const told: WatchEvent[] = [];
  const seen: number[] = [];
  const stop = new AbortController();
  const watching = (async () => {
    for await (const event of a.watch(['cluster', 'network/n1'], revision, stop.signal)) told.push(event);
  })();
  await systemClock.sleep(300);
  await redis.stop();
  const looking = (async () => {
    while (!stop.signal.aborted) {
      seen.push((await keys(a, 'network/')).length);
      await systemClock.sleep(5);
    }
  })();
  await redis.start();
  await expect.poll(() => a.incarnation, { timeout: 10_000 }).not.toBe(incarnation);
  await expect.poll(() => b.incarnation, { timeout: 10_000 }).toBe(a.incarnation);
  await expect.poll(() => keys(b), { timeout: 5_000 }).toEqual(ALL);
  expect(await keys(a)).toEqual(ALL);
  await expect.poll(() => told.map(({ type }) => type)).toContain('relist');
  stop.abort();
  await watching;
  await looking;
  expect(Math.min(...seen)).toBe(2);
  expect(Math.max(...seen)).toBe(2);
  await a.transact([network('n6')]);
  expect((await b.get('network/n6'))?.value).toBeTruthy();
});

test('a node that was down when Redis was emptied adds its own later, and brings back nothing that was deleted', {
  timeout: 30_000,
}, async () => {
  const [a, b] = [await open('a'), await open('b')];
  await fill(a, b);
  await a.transact([network('n8')]);
  await systemClock.sleep(300);
  await close(b);
  await a.transact([{ op: 'delete', key: 'network/n8' }, put('network/n1', { id: 'n1', owner: null, changed: true })]);
  await systemClock.sleep(300);
  await redis.stop();
  await redis.start();
  const { incarnation } = a;
  await expect.poll(() => a.incarnation, { timeout: 10_000 }).not.toBe(incarnation);
  await a.transact([{ op: 'delete', key: 'endpoint/e2' }], { topics: ['network/n1', 'node/b'] });
  const again = await open('b');
  expect(await keys(again)).toEqual(ALL.filter((key) => !/e2/.test(key)));
  expect((await again.get('network/n1'))?.value).toMatchObject({ changed: true });
  expect(again.incarnation).toBe(a.incarnation);
});

test('an older snapshot: the newest copies win, what was deleted since stays deleted', {
  timeout: 30_000,
}, async () => {
  const [a, b] = [await open('a'), await open('b')];
  await fill(a, b);
  await redis.ask('SAVE');
  cpSync(join(redis.folder, 'dump.rdb'), join(redis.folder, 'kept.rdb'));
  await a.transact([put('network/n1', { id: 'n1', owner: null, changed: true }), network('n7')]);
  await a.transact([{ op: 'delete', key: 'network/n2' }]);
  await b.transact([endpoint('e8', 'b')], { topics: ['node/b', 'network/n1'] });
  await systemClock.sleep(500);
  const { incarnation } = a;
  await redis.stop();
  cpSync(join(redis.folder, 'kept.rdb'), join(redis.folder, 'dump.rdb'));
  await redis.start();
  await expect.poll(() => a.incarnation, { timeout: 10_000 }).not.toBe(incarnation);
  await expect.poll(() => b.incarnation, { timeout: 10_000 }).toBe(a.incarnation);
  expect(await keys(a)).toEqual([...ALL.filter((key) => key !== 'network/n2'), 'endpoint/e8', 'network/n7'].sort());
  expect((await b.get('network/n1'))?.value).toMatchObject({ changed: true });
});

test('signs of life are of the moment: none is answered from a copy', { timeout: 20_000 }, async () => {
  const store = await open('a');
  await store.transact([put('alive/a', { count: 1 }), network('n1')]);
  expect(await keys(store, 'alive/')).toEqual(['alive/a']);
  await redis.stop();
  expect(await keys(store)).toEqual(['network/n1']);
  await expect(store.list('alive/')).rejects.toMatchObject({ code: 'store.unavailable' });
  await expect(store.get('alive/a')).rejects.toMatchObject({ code: 'store.unavailable' });
  await redis.start();
  await expect.poll(() => keys(store, 'network/').catch(() => []), { timeout: 10_000 }).toEqual(['network/n1']);
  await expect.poll(() => keys(store, 'alive/').catch(() => ['away']), { timeout: 10_000 }).toEqual([]);
});
