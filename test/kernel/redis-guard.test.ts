/** Who may speak to Redis: passwords, certificates, and a Cluster of three masters one of which is away. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { openRedisStore, type RedisStore } from '../../src/store/redis/redis.ts';
import { Authority } from '../redis/authority.ts';
import { RedisCluster } from '../redis/cluster.ts';
import { freePort, RedisServer } from '../redis/server.ts';

const PASSWORD = 'p@ss:word/1';
let authority: Authority;
let redis: RedisServer;
let file: string;
const stores: RedisStore[] = [];

beforeAll(async () => {
  authority = new Authority();
  file = join(authority.folder, 'password');
  writeFileSync(file, `${PASSWORD}\n`);
  const tls = { ca: authority.ca, server: authority.issue('redis'), client: authority.issue('sluiced') };
  redis = await RedisServer.start([], { port: await freePort(), tls, password: PASSWORD });
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
});
afterAll(async () => {
  await redis?.remove();
  authority?.remove();
});

async function open(url: string): Promise<RedisStore> {
  const store = await openRedisStore({ url, clock: systemClock });
  stores.push(store);
  return store;
}
const put = (key: string, value: unknown) => ({ op: 'put', key, value }) as const;
const parameters = (): string => redis.url.slice(redis.url.indexOf('?'));

test('TLS, a certificate of its own and a password, in the URL or in a file', async () => {
  const store = await open(redis.url);
  await store.transact([put('a', 1)]);
  const other = await open(`rediss://127.0.0.1:${redis.port}${parameters()}&passwordFile=${file}`);
  expect((await other.get('a'))?.value).toBe(1);
  // A watch has a connection of its own, which is guarded alike.
  const stop = new AbortController();
  const events = other.watch('cluster', 1, stop.signal);
  const next = events.next();
  await store.transact([put('a', 2)]);
  expect((await next).value).toMatchObject({ type: 'change', change: { entries: [{ key: 'a', value: 2 }] } });
  stop.abort();
});

test.each([
  ['a wrong password', () => `rediss://:wrong@127.0.0.1:${redis.port}${parameters()}`, /WRONGPASS|invalid/i],
  ['no password', () => `rediss://127.0.0.1:${redis.port}${parameters()}`, /NOAUTH|auth/i],
  ['no certificate', () => `rediss://:${encodeURIComponent(PASSWORD)}@127.0.0.1:${redis.port}?ca=${authority.ca}`, /./],
  [
    'an authority that it does not trust',
    () => `rediss://:${encodeURIComponent(PASSWORD)}@127.0.0.1:${redis.port}`,
    /cert/i,
  ],
  ['no TLS', () => `redis://:${encodeURIComponent(PASSWORD)}@127.0.0.1:${redis.port}`, /./],
])('with %s it is refused within seconds, and the password is in no message', async (_, url, reason) => {
  const begun = performance.now();
  const refusal = await open(url()).catch((error: unknown) => error as Error & { code: string });
  expect(refusal).toMatchObject({ code: 'store.unavailable', message: expect.stringMatching(reason) });
  expect(JSON.stringify(refusal) + (refusal as Error).stack).not.toMatch(/p@ss|p%40ss/);
  expect(performance.now() - begun).toBeLessThan(3_000);
});

test('a Cluster: away with the master that has the store, there again with it; no other master matters', {
  timeout: 60_000,
}, async () => {
  const cluster = await RedisCluster.start(['appendonly yes', 'appendfsync always']);
  try {
    const store = await open(cluster.url);
    const { term } = store;
    await store.transact([put('a', 1)]);
    const holder = await cluster.holder();
    const bystander = cluster.masters.find((master) => master !== holder)!;
    await bystander.stop();
    await store.transact([put('a', 2)]);
    await holder.stop();
    const begun = performance.now();
    await expect(store.transact([put('a', 3)])).rejects.toMatchObject({ code: 'store.unavailable' });
    expect(performance.now() - begun).toBeLessThan(2_500);
    await holder.start();
    await expect.poll(() => store.transact([put('b', 1)]).catch(() => 0), { timeout: 30_000 }).toBeGreaterThan(0);
    expect((await store.get('a'))?.value).toBe(2);
    expect(store.term).not.toBe(term);
  } finally {
    await cluster.remove();
  }
});
