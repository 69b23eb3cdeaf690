import { afterAll, beforeAll } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Store } from '../../src/contracts/store.ts';
import { openRedisStore } from '../../src/store/redis/redis.ts';
import { Authority } from '../redis/authority.ts';
import { RedisCluster } from '../redis/cluster.ts';
import { freePort, RedisServer } from '../redis/server.ts';
import { type StoreUnderTest, storeConformance } from './store.ts';

const LOG_MAX = 50;
/** Time is Redis's own and cannot be turned: it passes this much slower, so that a busy machine does not end a session early. */
const SLOWER = 3;

let single: RedisServer;
let authority: Authority;
let guarded: RedisServer;
let cluster: RedisCluster;

beforeAll(async () => {
  single = await RedisServer.start();
  authority = new Authority();
  const tls = { ca: authority.ca, server: authority.issue('redis'), client: authority.issue('sluiced') };
  guarded = await RedisServer.start([], { port: await freePort(), tls, password: 'p@ss:word/1' });
  cluster = await RedisCluster.start();
}, 60_000);
afterAll(async () => {
  await single?.remove();
  await guarded?.remove();
  await cluster?.remove();
  authority?.remove();
});

const slower = (store: Store): Store =>
  new Proxy(store, {
    get(target, name) {
      if (name === 'session') return (which: string, ttlMs: number) => target.session(which, ttlMs * SLOWER);
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

async function onRedis(server: RedisServer, url = server.url): Promise<StoreUnderTest> {
  await server.ask('FLUSHALL');
  const open = () => openRedisStore({ url, clock: systemClock, logMax: LOG_MAX });
  const stores = [await open(), await open()];
  return {
    store: slower(stores[0]!),
    other: slower(stores[1]!),
    logMax: LOG_MAX,
    advance: (ms) => systemClock.sleep(ms * SLOWER),
    async reopen() {
      await stores.at(-1)!.close();
      const store = await open();
      stores.push(store);
      // A session outlives who held it; here it is ended by hand, as the end of its time would.
      await server.ask('DEL', '{sluice}sessions');
      return store;
    },
    async close() {
      for (const store of stores) await store.close();
    },
  };
}

storeConformance('redis', () => onRedis(single));
storeConformance('redis, by TLS and password', () => onRedis(guarded));
storeConformance('redis cluster of three', async () => onRedis(await cluster.holder(), cluster.url));
