import { afterEach, beforeEach, expect, test } from 'vitest';
import { Numbers } from '../../src/desired/numbers.ts';
import { Turns, undoing } from '../../src/desired/turn.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Status } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { makeWorld, NODE, type World } from './desired-world.ts';

let world: World;
let numbers: Numbers;
beforeEach(async () => {
  world = await makeWorld();
  numbers = world.desired.numbers;
});
afterEach(() => world.close());

test('numbers rise, stay with their key, and are never used again', async () => {
  expect(await numbers.allocate('view', 'a')).toBe(1);
  expect(await numbers.allocate('view', 'b')).toBe(2);
  expect(await numbers.allocate('view', 'a')).toBe(1);
  expect(await numbers.allocate('set', 'a')).toBe(1);
  expect([await numbers.get('view', 'b'), await numbers.get('view', 'none')]).toEqual([2, null]);
  await numbers.release('view', 'a');
  await numbers.release('view', 'a');
  expect(await numbers.get('view', 'a')).toBeNull();
  expect(await numbers.allocate('view', 'a')).toBe(3);
  await numbers.release('view', 'a');
  const later = new Numbers(world.store, NODE);
  expect(await later.allocate('view', 'c')).toBe(4);
  expect(await later.get('view', 'b')).toBe(2);
  expect([...(await later.all('view'))].sort()).toEqual([
    ['b', 2],
    ['c', 4],
  ]);
  expect(await new Numbers(world.store, 'node-2').allocate('view', 'x')).toBe(1);
});

test('a floor lifts what comes and lowers nothing', async () => {
  await numbers.allocate('backend', 'a');
  await numbers.floor('backend', 100);
  await numbers.floor('backend', 50);
  expect(await numbers.allocate('backend', 'b')).toBe(100);
  expect(await numbers.allocate('backend', 'a')).toBe(1);
  await numbers.floor('backend', 4_294_967_295);
  expect(await numbers.allocate('backend', 'c')).toBe(4_294_967_295);
  await expect(numbers.allocate('backend', 'd')).rejects.toMatchObject({
    code: 'internal',
    message: expect.stringContaining('backend'),
  });
});

test('many at once get one number a key, on two daemons', async () => {
  const second = new Numbers(world.store, NODE);
  const given = await Promise.all(
    Array.from({ length: 100 }, (_, n) => (n % 2 ? numbers : second).allocate('attachment', `k${n % 25}`)),
  );
  for (let n = 0; n < 100; n++) expect(given[n]).toBe(given[n % 25]);
  expect(new Set(given).size).toBe(25);
});

test('a number is stored before it is given', async () => {
  const number = await numbers.allocate('view', 'a');
  expect((await world.store.get(`local/${NODE}/number/view/a`))?.value).toBe(number);
  await world.store.close();
  expect(await numbers.allocate('view', 'a')).toBe(number);
  await expect(numbers.allocate('view', 'b')).rejects.toMatchObject({ code: 'store.unavailable' });
});

test('numbers of what is made come with it, or not at all', async () => {
  const { store } = world;
  const make = (keys: string[], expect?: number) =>
    numbers.allocateWith('attachment', keys, (ops) =>
      store.transact([{ op: 'put', key: 'made/it', value: keys, expect }, ...ops]),
    );
  const revision = await make(['a', 'b'], 0);
  expect((await store.get(`local/${NODE}/number/attachment/b`))?.revision).toBe(revision);
  await expect(make(['c'], 0)).rejects.toMatchObject({ code: 'store.conflict' });
  expect(await numbers.get('attachment', 'c')).toBeNull();
  expect(await numbers.allocate('attachment', 'd')).toBe(3);
  expect(await Promise.all(['a', 'b', 'd'].map((key) => numbers.get('attachment', key)))).toEqual([1, 2, 3]);
  // In another store than the object's each has its own, at its first use.
  const apart = new Numbers(store, NODE, true);
  expect(await apart.allocateWith('attachment', ['e'], async (ops) => ops)).toEqual([]);
  expect(await apart.get('attachment', 'e')).toBeNull();
});

test('a status is written while its object is there, in one step while that is as it was', async () => {
  const { statuses, networks } = world.desired;
  const network = (await networks.put('web', { driver: 'none' })).object;
  expect(await statuses.get('network', network.id)).toBeNull();
  expect(await statuses.view(network)).toEqual({ ...network, status: null });
  const status: Status = {
    kind: 'network',
    id: network.id,
    node: NODE,
    state: 'ready',
    observed: network.revision,
    conditions: [],
    detail: { ifname: 'x', mtu: 1500 },
  };
  await statuses.set(status);
  // Found when the object was another: it is asked for anew.
  await statuses.set({ ...status, observed: network.revision - 1 });
  expect((await statuses.get('network', network.id))?.observed).toBe(network.revision - 1);
  await statuses.set({ ...status, state: 'error', error: { code: 'driver.failed', message: 'no' } });
  expect(await statuses.view(network)).toMatchObject({
    name: 'web',
    status: { state: 'error', error: { message: 'no' } },
  });
  // Somebody else's is not shown, and a status is no change of its object.
  await world.store.transact([
    { op: 'put', key: `status/network/${network.id}/node-2`, value: { ...status, node: 'node-2' } },
  ]);
  expect((await statuses.get('network', network.id))?.node).toBe(NODE);
  expect((await networks.get('web')).revision).toBe(network.revision);
  await networks.forget(await networks.remove('web'));
  await statuses.set(status);
  expect(await world.keys('status/')).toEqual([]);
  await statuses.set({ ...status, kind: 'node', id: NODE });
  expect(await world.keys('status/')).toEqual([`status/node/${NODE}/${NODE}`]);
});

test("a status that is kept is shown and told, is in nobody's store, and gives way to one that is written", async () => {
  const { statuses, networks } = world.desired;
  const network = (await networks.put('web', { driver: 'none' })).object;
  const { kind, id, revision: observed } = network;
  const status: Status = { kind, id, node: NODE, state: 'ready', observed, conditions: [], detail: {} };
  const told: Status[] = [];
  statuses.onKept((key, one) => key === `status/network/${id}/${NODE}` && told.push(one));
  statuses.keep(status);
  expect(told).toEqual([status]);
  expect(await world.keys('status/')).toEqual([]);
  expect((await statuses.view(network)).status).toEqual(status);
  await statuses.set({ ...status, detail: { mtu: 1500 } });
  expect(statuses.kept.size).toBe(0);
  expect((await statuses.get(kind, id))?.detail).toEqual({ mtu: 1500 });
  statuses.keep(status);
  statuses.forget(kind, id);
  expect(statuses.kept.size).toBe(0);
});

test('turns are taken in the order of asking, a failure ends only its own', async () => {
  const turns = new Turns();
  const said: string[] = [];
  const speak = (word: string, fails = false) =>
    turns.take('k', async () => {
      said.push(`${word} begins`);
      await null;
      said.push(`${word} ends`);
      if (fails) throw new Error(word);
      return word;
    });
  const outcomes = await Promise.allSettled([
    speak('a'),
    speak('b', true),
    speak('c'),
    turns.take('other', async () => said.push('other')),
  ]);
  expect(said).toEqual(['a begins', 'other', 'a ends', 'b begins', 'b ends', 'c begins', 'c ends']);
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'fulfilled']);
});

test('where the store went away nothing is given back that may be in use', async () => {
  const undone: string[] = [];
  const failing = (error: Error) =>
    undoing(async (undo) => {
      undo(async () => void undone.push('first'));
      undo(async () => {
        throw new Error('cannot');
      });
      undo(async () => void undone.push('last'));
      throw error;
    });
  await expect(failing(new SluiceError('store.unavailable', 'gone'))).rejects.toMatchObject({
    code: 'store.unavailable',
  });
  expect(undone).toEqual([]);
  await expect(failing(new SluiceError('address.inuse', 'taken', { a: 1 }))).rejects.toMatchObject({
    code: 'address.inuse',
    message: 'taken',
    details: { a: 1, undo: ['Error: cannot'] },
  });
  expect(undone).toEqual(['last', 'first']);
});

test('apart from the objects: forgotten first, released then, and what a crash left is collected', async () => {
  const local = createMemoryStore({ clock: world.clock });
  const apart = new Numbers(local, NODE, true);
  for (const key of ['a', 'b', 'c']) await apart.allocate('attachment', key);
  await expect(
    apart.releaseWith('attachment', 'a', async () => {
      throw new SluiceError('store.unavailable', 'away');
    }),
  ).rejects.toMatchObject({ code: 'store.unavailable' });
  expect(await apart.get('attachment', 'a')).toBe(1);
  const asked: number[] = [];
  await apart.releaseWith('attachment', 'a', async (ops) => asked.push(ops.length));
  expect(asked).toEqual([0]);
  expect(await apart.get('attachment', 'a')).toBeNull();
  await new Numbers(local, NODE, true).collect('attachment', (key) => key === 'c');
  expect([...(await new Numbers(local, NODE, true).all('attachment')).keys()]).toEqual(['c']);
  expect((await world.store.list('local/')).items).toEqual([]);
});
