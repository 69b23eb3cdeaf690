/** Which store a daemon works on, and which starts are refused because they would take down what runs. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Clock, systemClock as clock } from '../../src/clock.ts';
import { joinCluster, openHome, type Stores } from '../../src/cluster/home.ts';
import { Sealable } from '../../src/cluster/join/seal.ts';
import { loadConfig } from '../../src/config.ts';
import type { Store } from '../../src/contracts/store.ts';
import { Numbers } from '../../src/desired/numbers.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { makeFolder } from '../folder.ts';

const REDIS = 'redis://127.0.0.1';
let folder: string;
let redis: Store;
let away: boolean;
/** Also while it is away. */
let connects: boolean;
const stores: Stores = {
  memory: () => createMemoryStore({ clock }),
  own: (path) => openSqliteStore({ path, clock }),
  async shared(_, seen) {
    const unavailable = new SluiceError('store.unavailable', 'away');
    if (away && !seen && !connects) throw unavailable;
    return new Proxy(redis, {
      get(target, key) {
        if (key === 'close') return async () => undefined;
        if (away && ['get', 'list', 'transact'].includes(key as string))
          return async () => {
            throw unavailable;
          };
        const member = Reflect.get(target, key);
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
  },
  nameOf: () => '127.0.0.1:6379',
};
/** A hundred times as fast: a store that is away is waited for by it. */
const fast: Clock = {
  ...clock,
  monotonic: () => clock.monotonic() * 100,
  sleep: (ms, signal) => clock.sleep(ms / 100, signal),
};
const open = (store: string, node = 'a') =>
  openHome(loadConfig({ stateDir: folder, store, node }, {}, join(folder, 'none.json')), {
    stores,
    clock: fast,
    logger: createLogger('silent'),
  });
const once = async (
  store: string,
  work: (store: Store, local: Store) => Promise<unknown> = async () => undefined,
  node = 'a',
) => {
  const home = await open(store, node);
  try {
    await work(home.store, home.local);
  } finally {
    await home.store.close();
  }
};
const network = (name: string) => (store: Store) =>
  store.transact([{ op: 'put', key: `network/${name}`, value: { id: name, kind: 'network', name, owner: 'a' } }]);

beforeEach(() => {
  folder = makeFolder('home');
  redis = createMemoryStore({ clock });
  away = false;
  connects = false;
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a host that had nothing of a user may go to a cluster, and not back by a setting', async () => {
  await once('sqlite', network('bridge'));
  await once(REDIS);
  await expect(open('sqlite')).rejects.toThrow('this host is part of a cluster');
  await once(REDIS);
});

test('a cluster whose store was not there was never joined', async () => {
  await once('sqlite', network('bridge'));
  away = true;
  await expect(open(REDIS)).rejects.toMatchObject({ code: 'store.unavailable' });
  await once('sqlite', network('web'));
  away = false;
  await expect(open(REDIS)).rejects.toThrow(/1 objects that the cluster does not know \(network web\)/);
});

test.each([
  ['comes up a little later than the host', false],
  ['goes away again before it has told what there is', true],
])('a store that %s is waited for', async (_, connected) => {
  away = true;
  connects = connected;
  const opening = once(REDIS, network('web'));
  await clock.sleep(50);
  away = false;
  await opening;
  expect((await redis.list('network/')).items.map(({ key }) => key)).toEqual(['network/web']);
});

test('a host whose objects went along starts with the cluster`s store, under its name, only', async () => {
  const config = { node: 'a', clusterId: 'sluice' };
  await once('sqlite', async (store) => {
    await network('web')(store);
    expect(await joinCluster(new Sealable(store), { store: REDIS }, config, stores)).toMatchObject({
      node: 'a',
      records: 1,
    });
  });
  await expect(open('sqlite')).rejects.toThrow('objects went to the cluster at 127.0.0.1:6379');
  await expect(open(REDIS, 'b')).rejects.toThrow('start it with --node a');
  await once(REDIS, async (store) => expect(await store.get('network/web')).not.toBeNull());
  await expect(joinCluster(undefined, { store: REDIS }, config, stores)).rejects.toMatchObject({
    code: 'cluster.member',
  });
});

test('the numbers of a host that joined come home, and are given on while the cluster`s store is away', async () => {
  const config = { node: 'a', clusterId: 'sluice' };
  await once('sqlite', async (store) => {
    const numbers = new Numbers(store, 'a');
    for (const key of ['x', 'y', 'z']) await numbers.allocate('attachment', key);
    await numbers.release('attachment', 'y');
    await joinCluster(new Sealable(store), { store: REDIS }, config, stores);
  });
  expect((await redis.list('local/')).items).not.toEqual([]);
  const numbersOf = (local: Store): Numbers => new Numbers(local, 'a', true);
  await once(REDIS, async (_, local) => {
    expect(await numbersOf(local).allocate('attachment', 'z')).toBe(3);
    expect(await numbersOf(local).allocate('attachment', 'w')).toBe(4);
    expect((await redis.list('local/')).items).toEqual([]);
  });
  away = true;
  await once(REDIS, async (_, local) => {
    const numbers = numbersOf(local);
    expect([...(await numbers.all('attachment'))].sort()).toEqual([
      ['w', 4],
      ['x', 1],
      ['z', 3],
    ]);
    expect(await numbers.allocate('attachment', 'v')).toBe(5);
    await numbers.release('attachment', 'w');
  });
  away = false;
  await once(REDIS, async (_, local) => {
    expect(await numbersOf(local).allocate('attachment', 'u')).toBe(6);
    expect(await numbersOf(local).get('attachment', 'w')).toBeNull();
  });
});
