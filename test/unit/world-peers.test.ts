import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Store } from '../../src/contracts/store.ts';
import { World } from '../../src/controller/world.ts';
import { createLogger } from '../../src/log.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { objectKey, topicsOf } from '../../src/model/keys.ts';
import type { Kind, Obj } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { until } from '../kernel/kernel-bed.ts';

const id = (n: number): string => n.toString(16).padStart(64, '0');
const [MESH, OTHER, WEB] = [id(1), id(2), id(3)];

describe('the world of a node among others', () => {
  let store: Store;
  let world: World;
  let told: string[];
  beforeEach(() => {
    store = createMemoryStore({ clock: systemClock });
    world = new World({ store, clock: systemClock, node: 'a', logger: createLogger('silent'), shared: true });
    told = [];
    world.onChange((kind, which, now) => told.push(`${kind} ${Number.parseInt(which, 16)} ${now ? 'is' : 'gone'}`));
  });
  afterEach(async () => {
    world.stop();
    await store.close();
  });

  const put = (kind: Kind, which: string, owner: string | null, spec: object) => {
    const network = (spec as { network?: string }).network;
    const value = { kind, id: which, name: `n${Number.parseInt(which, 16)}`, owner, spec, createdAt: '' };
    return store.transact([{ op: 'put', key: objectKey(kind, which), value }], {
      topics: topicsOf({ owner } as Obj, network),
    });
  };
  const remove = (which: string, owner: string, network: string) =>
    store.transact([{ op: 'delete', key: objectKey('endpoint', which) }], {
      topics: topicsOf({ owner } as Obj, network),
    });
  const endpoint = (n: number, owner: string, network: string) =>
    put('endpoint', id(n), owner, { network, sandbox: id(100 + n), addresses: [] } satisfies Partial<Endpoint['spec']>);
  const networks = async () => {
    for (const which of [MESH, OTHER]) await put('network', which, null, { scope: 'global' });
    await put('network', WEB, 'b', { scope: 'local' });
  };
  const peers = (network: string): number[] =>
    [...world.peersOfNetwork(network).keys()].map((which) => Number.parseInt(which, 16)).sort((x, y) => x - y);

  test('what other nodes have for themselves is none of its business', async () => {
    await networks();
    await put('sandbox', id(50), 'b', {});
    await put('sandbox', id(51), 'a', {});
    await endpoint(10, 'b', WEB);
    await world.start();
    expect([...world.networks.keys()]).toEqual([MESH, OTHER]);
    expect([...world.sandboxes.keys()]).toEqual([id(51)]);
    expect(world.endpoints.size).toBe(0);
    await put('sandbox', id(52), 'a', {});
    await until('the own one is there', () => world.sandboxes.has(id(52)));
    expect(world.sandboxes.size).toBe(2);
  });

  test('at start the peers of its networks are there, of others none', async () => {
    await networks();
    await endpoint(10, 'a', MESH);
    await endpoint(11, 'b', MESH);
    await endpoint(12, 'b', OTHER);
    await world.start();
    expect(world.joined()).toEqual([MESH]);
    expect(world.peerOfSandbox(MESH, id(111))?.id).toBe(id(11));
    expect([world.peerOfSandbox(MESH, id(110)), world.peerOfSandbox(OTHER, id(112))]).toEqual([undefined, undefined]);
    expect(peers(MESH)).toEqual([11]);
    expect(peers(OTHER)).toEqual([]);
    expect([...world.endpoints.keys()]).toEqual([id(10)]);
    await remove(id(11), 'b', MESH);
    await until('the peer is gone', () => peers(MESH).length === 0);
    expect(world.peerOfSandbox(MESH, id(111))).toBeUndefined();
  });

  test('what a list knew already is not told again by the watch that asked for it: its end may lie behind', async () => {
    await networks();
    const begin = Promise.withResolvers<void>();
    let watches = 0;
    const late = new Proxy(store, {
      get(target, key) {
        const value = Reflect.get(target, key);
        if (key !== 'watch') return typeof value === 'function' ? value.bind(target) : value;
        return async function* (topics: string[], from: number, signal: AbortSignal) {
          if (++watches === 1) {
            await begin.promise;
            yield { type: 'relist', revision: from };
          }
          yield* target.watch(topics, from, signal);
        };
      },
    });
    world = new World({ store: late, clock: systemClock, node: 'a', logger: createLogger('silent'), shared: true });
    await world.start();
    // The first endpoint on a network has other topics followed: from where the list was.
    await endpoint(10, 'a', MESH);
    await remove(id(10), 'a', MESH);
    begin.resolve();
    await put('sandbox', id(50), 'a', {});
    await until('the end of the log', () => world.sandboxes.has(id(50)));
    expect(world.endpoints.size).toBe(0);
    expect(world.joined()).toEqual([]);
  });

  test('with its first endpoint on a network it comes to know the peers and follows them; with its last it forgets them', async () => {
    await networks();
    await endpoint(11, 'b', MESH);
    await world.start();
    await endpoint(12, 'c', MESH);
    await endpoint(10, 'a', MESH);
    await until('peers of before are known', () => peers(MESH).length === 2);
    await endpoint(13, 'b', MESH);
    await until('a new peer is heard of', () => peers(MESH).includes(13));
    await remove(id(11), 'b', MESH);
    await until('one that went is heard of', () => !peers(MESH).includes(11));
    expect(told.filter((line) => line.startsWith('endpoint 11'))).toEqual(['endpoint 11 is', 'endpoint 11 gone']);
    await remove(id(10), 'a', MESH);
    await until('peers are forgotten', () => peers(MESH).length === 0);
    expect(told.filter((line) => line === 'endpoint 13 gone')).toHaveLength(1);
    // Nothing is followed any more.
    const before = told.length;
    await endpoint(14, 'b', MESH);
    await put('sandbox', id(60), 'a', {});
    await until('later news came', () => world.sandboxes.has(id(60)));
    expect(told.slice(before)).toEqual(['sandbox 60 is']);
  });

  test('on a store of its own everything is its own, whatever a node was called before', async () => {
    await networks();
    await endpoint(11, 'b', MESH);
    const alone = new World({ store, clock: systemClock, node: 'a', logger: createLogger('silent') });
    await alone.start();
    expect(alone.endpoints.size).toBe(1);
    expect(alone.networks.has(WEB)).toBe(true);
    alone.stop();
  });
});
