/** The store on real servers of Redis, and what happens to those: fail-over, restarts, loss, cut connections, foreign owners. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Store, WatchEvent } from '../../src/contracts/store.ts';
import { openRedisStore, type RedisStore, type RedisStoreOptions } from '../../src/store/redis/redis.ts';
import { freePort, RedisServer } from '../redis/server.ts';

const servers: RedisServer[] = [];
const stores: Store[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  for (const server of servers.splice(0)) await server.remove();
});

async function serve(settings: string[] = [], how: Parameters<typeof RedisServer.start>[1] = {}): Promise<RedisServer> {
  const server = await RedisServer.start(settings, how);
  servers.push(server);
  return server;
}

async function open(url: string, options: Partial<RedisStoreOptions> = {}): Promise<RedisStore> {
  const store = await openRedisStore({ url, clock: systemClock, ...options });
  stores.push(store);
  return store;
}

const put = (key: string, value: unknown, expect?: number) => ({ op: 'put', key, value, expect }) as const;

/** Collects what a watch tells until the test ends. */
function listen(store: Store, from: number, topic = 'cluster'): WatchEvent[] {
  const told: WatchEvent[] = [];
  const stop = new AbortController();
  stores.push({ close: async () => stop.abort() } as Store);
  void (async () => {
    for await (const event of store.watch(topic, from, stop.signal)) told.push(event);
  })().catch((error: unknown) => expect(error).toMatchObject({ code: 'store.unavailable' }));
  return told;
}
const values = (told: readonly WatchEvent[]): unknown[] =>
  told.map((event) => (event.type === 'change' ? event.change.entries[0]!.value : event.type));

async function msOfRefusal(work: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await expect(work()).rejects.toMatchObject({ code: 'store.unavailable' });
  return performance.now() - begun;
}
/** Tries until it is done, as callers do while Redis is away. */
async function eventually<T>(work: () => Promise<T>, ms = 15_000): Promise<T> {
  const until = performance.now() + ms;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until) throw error;
      await systemClock.sleep(50);
    }
  }
}

describe('Redis away', () => {
  test('a server that ends or hangs: every call fails in time, watches go on where they were', {
    timeout: 40_000,
  }, async () => {
    const server = await serve(['appendonly yes', 'appendfsync always']);
    const store = await open(server.url);
    const told = listen(store, 0);
    await store.transact([put('a', 1)]);
    const session = await store.session('n1', 60_000);
    await expect.poll(() => values(told)).toEqual([1]);
    for (const [down, up] of [
      [() => server.stop(), () => server.start()],
      [async () => server.signal('SIGSTOP'), async () => server.signal('SIGCONT')],
    ] as const) {
      await down();
      for (const work of [
        () => store.get('a'),
        () => store.list(''),
        () => store.transact([put('a', 0)]),
        () => store.session('n2', 1_000),
        () => session.renew(),
      ])
        expect(await msOfRefusal(work)).toBeLessThan(2_000);
      // Once it is known to be away nobody waits any more.
      expect(await msOfRefusal(() => store.get('a'))).toBeLessThan(200);
      expect(session.alive).toBe(true);
      await up();
      await eventually(() => store.get('a'));
    }
    // A write that was sent to a server which hung may have been done; it was never sent twice.
    await store.transact([put('a', 2)]);
    await expect.poll(() => values(told).at(-1), { timeout: 5_000 }).toBe(2);
    expect(values(told).filter((value) => value === 'relist' || value === 1)).toEqual([1]);
    await session.renew();
  });

  test('nothing there at the start: unavailable at once', async () => {
    const port = await freePort();
    expect(await msOfRefusal(() => open(`redis://127.0.0.1:${port}`))).toBeLessThan(2_000);
  });
});

describe('Redis loses', () => {
  test('a restart from its log keeps the incarnation, and no revision is used twice', { timeout: 20_000 }, async () => {
    const server = await serve(['appendonly yes', 'appendfsync always']);
    const store = await open(server.url);
    const first = await store.transact([put('a', 1)]);
    const { incarnation } = store;
    const { epoch } = await store.session('n1', 60_000);
    await server.stop();
    await server.start();
    expect(await eventually(() => store.get('a'))).toEqual({ key: 'a', value: 1, revision: first });
    expect(store.incarnation).toBe(incarnation);
    expect(await store.transact([put('a', 2, first)])).toBeGreaterThan(first + 1_000);
    await expect(store.session('n1', 60_000)).rejects.toMatchObject({ code: 'store.conflict', details: { epoch } });
  });

  test('a restart gives every session its whole time again', { timeout: 20_000 }, async () => {
    const server = await serve(['appendonly yes', 'appendfsync always']);
    const store = await open(server.url);
    const session = await store.session('n1', 1_500);
    await server.stop();
    await systemClock.sleep(2_000);
    await server.start();
    await eventually(() => store.list(''));
    await expect(store.session('n1', 1_500)).rejects.toMatchObject({ code: 'store.conflict' });
    await session.renew();
  });

  test('restarted empty: another incarnation, watchers list again, sessions are over', {
    timeout: 20_000,
  }, async () => {
    const server = await serve();
    const [store, other] = [await open(server.url), await open(server.url)];
    const revision = await store.transact([put('a', 1)]);
    const session = await store.session('n1', 60_000);
    const told = listen(other, 0);
    await expect.poll(() => values(told)).toEqual([1]);
    const { incarnation } = store;
    await server.stop();
    await server.start();
    await expect(eventually(() => store.transact([put('a', 2, revision)]), 0)).rejects.toBeDefined();
    expect(await eventually(() => store.list(''))).toEqual({ items: [], revision });
    expect(store.incarnation).not.toBe(incarnation);
    expect(session.alive).toBe(false);
    await expect(session.renew()).rejects.toMatchObject({ code: 'store.fenced' });
    const next = await store.session('n1', 60_000);
    expect(next.epoch).toBeGreaterThan(session.epoch);
    await expect(store.transact([put('b', 1)], { session })).rejects.toMatchObject({ code: 'store.fenced' });
    await expect.poll(() => values(told), { timeout: 5_000 }).toEqual([1, 'relist']);
    await store.transact([put('c', 3)]);
    await expect.poll(() => values(told), { timeout: 5_000 }).toEqual([1, 'relist', 3]);
    expect(other.incarnation).toBe(store.incarnation);
  });

  test('an expectation from before is not taken for one of the new incarnation', { timeout: 20_000 }, async () => {
    const server = await serve();
    const [store, other] = [await open(server.url), await open(server.url)];
    const revision = await store.transact([put('a', 'old')]);
    await server.ask('FLUSHALL');
    expect(await eventually(() => other.transact([put('a', 'new')]))).toBe(revision);
    await expect(store.transact([put('a', 'overwritten', revision)])).rejects.toMatchObject({ code: 'store.conflict' });
    expect(await store.get('a')).toMatchObject({ value: 'new' });
  });

  test('an older snapshot of itself is another incarnation for who saw more', { timeout: 20_000 }, async () => {
    const server = await serve();
    const store = await open(server.url);
    const early = await store.transact([put('a', 1)]);
    await server.ask('SAVE');
    cpSync(join(server.folder, 'dump.rdb'), join(server.folder, 'kept.rdb'));
    const late = await store.transact([put('a', 2)]);
    const told = listen(store, late);
    const { incarnation } = store;
    // One that was away all the time and saw nothing of what is lost.
    const seen = { incarnation, revision: early };
    await server.stop();
    cpSync(join(server.folder, 'kept.rdb'), join(server.folder, 'dump.rdb'));
    await server.start();
    expect((await eventually(() => store.get('a')))?.value).toBe(1);
    expect(store.incarnation).not.toBe(incarnation);
    await expect.poll(() => values(told), { timeout: 5_000 }).toEqual(['relist']);
    const away = await open(server.url, { seen });
    expect(away.incarnation).toBe(store.incarnation);
    // A later life that knows what the first one saw notices, too.
    const again = await open(server.url, { seen: { incarnation: store.incarnation, revision: 10 ** 9 } });
    expect(again.incarnation).not.toBe(away.incarnation);
  });

  test('streams that were trimmed while one was away: list again, and go on', { timeout: 30_000 }, async () => {
    const server = await serve();
    const [store, other] = [await open(server.url, { logMax: 20 }), await open(server.url, { logMax: 20 })];
    const first = await store.transact([put('a', 0)]);
    for (let n = 0; n < 1_100; n++) await other.transact([put('a', n)]);
    const told = listen(store, first);
    await expect.poll(() => values(told)).toEqual(['relist']);
    await other.transact([put('a', 'next')]);
    await expect.poll(() => values(told)).toEqual(['relist', 'next']);
    expect(await server.ask('XLEN', '{sluice}log:cluster')).toBeLessThan(1_100);
  });
});

describe('whose Redis', () => {
  test('one of another cluster is refused, and left as it is', async () => {
    const server = await serve();
    const store = await open(server.url, { clusterId: 'blue' });
    await store.transact([put('a', 1)]);
    await expect(open(server.url, { clusterId: 'green' })).rejects.toMatchObject({ code: 'store.foreign' });
    expect((await store.get('a'))?.value).toBe(1);
    await open(server.url, { clusterId: 'blue' });
  });

  test('a password is asked for, and a wrong one is said to be', async () => {
    const server = await serve();
    await server.ask('CONFIG', 'SET', 'requirepass', 'right');
    const url = (password: string) => server.url.replace('://', `://:${password}@`);
    await expect(open(url('wrong'))).rejects.toMatchObject({ code: 'store.unavailable', message: /WRONGPASS/ });
    await expect(open(server.url)).rejects.toMatchObject({ code: 'store.unavailable', message: /NOAUTH/ });
    await (await open(url('right'))).transact([put('a', 1)]);
  });
});

describe('replicas', () => {
  async function pair(): Promise<{ primary: RedisServer; replica: RedisServer; sentinel: RedisServer }> {
    const quick = ['repl-diskless-sync-delay 0'];
    const primary = await serve(quick, { port: await freePort() });
    const replica = await serve([...quick, `replicaof 127.0.0.1 ${primary.port}`], { port: await freePort() });
    await expect.poll(() => replica.ask('INFO', 'replication'), { timeout: 10_000 }).toContain('master_link_status:up');
    const sentinel = await serve(
      [
        `sentinel monitor main 127.0.0.1 ${primary.port} 1`,
        'sentinel down-after-milliseconds main 500',
        'sentinel failover-timeout main 3000',
      ],
      { port: await freePort(), sentinel: true },
    );
    await expect
      .poll(() => sentinel.ask('SENTINEL', 'REPLICAS', 'main'), { timeout: 15_000 })
      .toSatisfy((replicas: unknown[]) => replicas.length === 1);
    return { primary, replica, sentinel };
  }

  test('a lease counts when every replica has it', { timeout: 30_000 }, async () => {
    const { primary, replica } = await pair();
    const store = await open(`${primary.url}?replicas=1`);
    // A replica that has just come has acknowledged nothing yet.
    await eventually(() => store.transact([put('lease/p/10.0.0.1', { endpoint: 'e' })]));
    replica.signal('SIGSTOP');
    try {
      expect(await msOfRefusal(() => store.transact([put('lease/p/10.0.0.2', {}, 0)]))).toBeLessThan(1_500);
      // What is no lease waits for nobody.
      await store.transact([put('a', 1)]);
    } finally {
      replica.signal('SIGCONT');
    }
    await eventually(() => store.transact([put('lease/p/10.0.0.3', {}, 0)]));
  });

  test('Sentinel: the primary dies, the replica takes over, nothing that it had is lost', {
    timeout: 60_000,
  }, async () => {
    const { primary, replica, sentinel } = await pair();
    const store = await open(`redis://127.0.0.1:${sentinel.port}?sentinel=main&replicas=1`);
    const { incarnation } = store;
    const told = listen(store, 0);
    await eventually(() => store.transact([put('lease/p/1', 'coming')]));
    const before = await store.transact([put('lease/p/1', 'before')]);
    await expect.poll(() => values(told).at(-1)).toBe('before');
    await primary.stop();
    await expect.poll(() => replica.ask('INFO', 'replication'), { timeout: 20_000 }).toContain('role:master');
    expect(await eventually(() => store.get('lease/p/1'), 20_000)).toMatchObject({ value: 'before', revision: before });
    const after = await eventually(() => store.transact([put('b', 'after')]));
    expect(after).toBeGreaterThan(before + 1_000);
    await expect.poll(() => values(told).slice(-2), { timeout: 10_000 }).toEqual(['before', 'after']);
    expect(store.incarnation).toBe(incarnation);
  });

  test('Sentinel: what the primary took with it is noticed by who saw it', { timeout: 60_000 }, async () => {
    const { primary, replica, sentinel } = await pair();
    const store = await open(`redis://127.0.0.1:${sentinel.port}?sentinel=main`);
    await store.transact([put('a', 'kept')]);
    await expect.poll(() => replica.ask('HGET', '{sluice}data', 'a')).toBeTruthy();
    const { incarnation } = store;
    // The replica is cut off from the primary, and both from nobody else.
    await primary.ask('ACL', 'SETUSER', 'default', '-psync', '-sync');
    await primary.ask('CLIENT', 'KILL', 'TYPE', 'replica');
    const lost = await store.transact([put('a', 'lost')]);
    const told = listen(store, lost);
    await primary.stop();
    await expect.poll(() => replica.ask('INFO', 'replication'), { timeout: 20_000 }).toContain('role:master');
    expect(await eventually(() => store.get('a'), 20_000)).toMatchObject({ value: 'kept' });
    expect(store.incarnation).not.toBe(incarnation);
    await expect(store.transact([put('a', 'x', lost)])).rejects.toMatchObject({ code: 'store.conflict' });
    await expect.poll(() => values(told), { timeout: 10_000 }).toEqual(['relist']);
  });
});
