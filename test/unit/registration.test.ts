import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Registration } from '../../src/cluster/registration.ts';
import type { Store } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { Node, NodeSpec } from '../../src/model/node.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock, type ManualClock } from '../clock.ts';

describe("a node's record", () => {
  let store: Store;
  let clock: ManualClock;
  let spec: NodeSpec;
  beforeEach(() => {
    clock = createManualClock();
    store = createMemoryStore({ clock });
    spec = { address: '192.0.2.1', vtep: '192.0.2.1', port: 4789, hostRoutes: ['192.0.2.0/24'] };
  });
  afterEach(() => store.close());
  const registration = (node: string) =>
    new Registration({ store, clock, node, logger: createLogger('silent'), describe: () => spec });
  const nodes = async () => (await store.list<Node>('node/')).items.map(({ value }) => value);

  test('is written once, and again when something about it has changed', async () => {
    expect(await registration('a').refresh()).toBe(true);
    const [first] = await nodes();
    expect(first).toMatchObject({ kind: 'node', name: 'a', owner: 'a', spec });
    // Another life says the same.
    expect(await registration('a').refresh()).toBe(false);
    spec = { ...spec, hostRoutes: [...spec.hostRoutes, '10.0.0.0/8'] };
    expect(await registration('a').refresh()).toBe(true);
    expect(await nodes()).toEqual([{ ...first, spec }]);
  });

  test('is one a name, however many write at once', async () => {
    const written = await Promise.all(Array.from({ length: 10 }, (_, n) => registration(n % 2 ? 'a' : 'b').refresh()));
    expect(written.filter(Boolean)).toHaveLength(2);
    expect((await nodes()).map(({ name }) => name).sort()).toEqual(['a', 'b']);
  });

  test('is looked at again from time to time, until it is stopped', async () => {
    const own = registration('a');
    await own.start();
    spec = { ...spec, vtep: '192.0.2.7' };
    clock.advance(10_000);
    await expect.poll(async () => (await nodes())[0]?.spec.vtep).toBe('192.0.2.7');
    own.stop();
    spec = { ...spec, vtep: '192.0.2.8' };
    clock.advance(60_000);
    expect((await nodes())[0]?.spec.vtep).toBe('192.0.2.7');
  });

  test('waits for a store that is away at the start', async () => {
    const away = {
      ...store,
      get: () => Promise.reject(new SluiceError('store.unavailable', 'away')),
    } as unknown as Store;
    let now: Store = away;
    const turned = new Proxy(store, {
      get: (_, key) => {
        const value = Reflect.get(now, key) as unknown;
        return typeof value === 'function' ? value.bind(now) : value;
      },
    });
    const options = { store: turned, clock, node: 'a', logger: createLogger('silent'), describe: () => spec };
    const own = new Registration(options);
    await own.start();
    expect(await nodes()).toEqual([]);
    now = store;
    clock.advance(10_000);
    await expect.poll(async () => (await nodes()).length).toBe(1);
    own.stop();
  });
});
