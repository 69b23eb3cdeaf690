import { afterAll, beforeAll } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Store } from '../../src/contracts/store.ts';
import { openRedisStore } from '../../src/store/redis/redis.ts';
import { freePort, RedisServer } from '../redis/server.ts';
import { type StoreUnderTest, storeConformance } from './store.ts';

const LOG_MAX = 50;
/** Time is Redis's own and cannot be turned: it passes this much slower, so that a busy machine does not end a session early. */
const SLOWER = 3;

let single: RedisServer;
let cluster: RedisServer;

beforeAll(async () => {
  single = await RedisServer.start();
  cluster = await RedisServer.start(['cluster-enabled yes', 'cluster-announce-ip 127.0.0.1'], {
    port: await clusterPort(),
  });
  await cluster.ask('CLUSTER', 'ADDSLOTSRANGE', 0, 16_383);
  while (!String(await cluster.ask('CLUSTER', 'INFO')).includes('cluster_state:ok')) await systemClock.sleep(50);
}, 30_000);
afterAll(async () => {
  await single?.remove();
  await cluster?.remove();
});

/** A node of a Cluster also listens 10,000 higher. */
async function clusterPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port < 55_000) return port;
  }
}

const slower = (store: Store): Store =>
  new Proxy(store, {
    get(target, name) {
      if (name === 'session') return (which: string, ttlMs: number) => target.session(which, ttlMs * SLOWER);
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

async function onRedis(server: RedisServer, query = ''): Promise<StoreUnderTest> {
  await server.ask('FLUSHALL');
  const open = () => openRedisStore({ url: `${server.url}${query}`, clock: systemClock, logMax: LOG_MAX });
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
storeConformance('redis cluster', () => onRedis(cluster, '?cluster'));
