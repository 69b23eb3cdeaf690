/** What a node puts back into a store that lost it, and what it deletes there again. */
import { expect, test } from 'vitest';
import { type Mine, type Origin, planRestore, referencesOf } from '../../src/cluster/replica/plan.ts';
import type { Entry } from '../../src/contracts/store.ts';

const entry = (key: string, value: unknown, revision: number): Entry => ({ key, value, revision });
const endpoint = (id: string, owner: string, revision: number, more: object = {}): Entry =>
  entry(`endpoint/${id}`, { id, owner, spec: { network: 'n', ...more } }, revision);
const mine = (node: string, copies: Entry[], more: Partial<Mine> = {}): Mine => ({
  node,
  incarnation: 'old',
  revision: 90,
  copies,
  ...more,
});
const origin = (more: Partial<Origin> = {}): Entry =>
  entry('restore/origin', { from: 'old', to: 'new', base: 100, followed: 90, node: 'b', ...more }, 101);
const done = (node: string, revision: number): Entry =>
  entry(`restore/done/${node}`, { to: 'new', revisions: {} }, revision);

test('what the node deleted and an older copy still has goes again, with all that is of it; other nodes’ things stay', () => {
  const there = [
    endpoint('e1', 'a', 50),
    entry('name/endpoint/s1/n', { id: 'e1' }, 50),
    entry('reference/endpoint/e1', {}, 50),
    entry('lease/p/10.0.0.2', { owner: 'e1' }, 49),
    entry('status/endpoint/e1/a', {}, 51),
    entry('name/sandbox/a/one', { id: 's1' }, 50),
    endpoint('e2', 'b', 52),
    entry('lease/p/10.0.0.3', { owner: 'e2' }, 52),
    endpoint('e3', 'a', 102),
  ];
  const { deletes, first } = planRestore(mine('a', []), 'new', [origin(), ...there], 110);
  expect(first).toBe(false);
  expect(deletes.map(({ key }) => key)).toEqual(there.slice(0, 6).map(({ key }) => key));
});

test('a neighbour’s stale copy is put back only until the owner has spoken, and goes when the owner comes later', () => {
  const copies = [endpoint('e1', 'a', 40), entry('lease/p/10.0.0.2', { owner: 'e1' }, 39)];
  expect(planRestore(mine('b', copies), 'new', [origin()], 110).puts.map(({ key }) => key)).toEqual(
    copies.map(({ key }) => key),
  );
  expect(planRestore(mine('b', copies), 'new', [origin(), done('a', 105)], 110).puts).toEqual([]);
  const mark = entry('restore/mark/b/101-0', { to: 'new', revisions: { 'endpoint/e1': 40 } }, 104);
  const later = planRestore(mine('a', []), 'new', [origin(), mark, endpoint('e1', 'a', 104)], 110);
  expect(later.deletes).toMatchObject([{ key: 'endpoint/e1', expect: 104 }]);
});

test('the owner’s copy wins also when it missed an incarnation; what was written in this one stays', () => {
  const copies = [endpoint('e1', 'a', 700, { changed: true })];
  const missed = mine('a', copies, { incarnation: 'older', revision: 800 });
  expect(planRestore(missed, 'new', [origin(), endpoint('e1', 'a', 60)], 110).puts).toMatchObject([
    { key: 'endpoint/e1', value: { spec: { changed: true } }, expect: 60 },
  ]);
  expect(planRestore(missed, 'new', [origin(), endpoint('e1', 'a', 108)], 110).puts).toEqual([]);
});

test('a lease that is put back keeps its age', () => {
  const copies = [endpoint('e1', 'a', 40), entry('lease/p/10.0.0.2', { owner: 'e1' }, 39)];
  expect(planRestore(mine('a', copies), 'new', [origin()], 110).puts[1]).toMatchObject({
    value: { owner: 'e1', since: 39 },
  });
});

test('what all nodes know and a node that heard more does not have goes, though one that heard less put it back', () => {
  const service = (id: string, at: number): Entry => entry(`service/${id}`, { id, owner: null }, at);
  const mark = entry('restore/mark/b/101-0', { to: 'new', revisions: { 'service/s1': 60, 'service/s2': 80 } }, 104);
  const there = [origin({ followed: 70 }), mark, service('s1', 104), service('s2', 104), service('s3', 109)];
  const later = (revision: number) =>
    planRestore(mine('a', [], { revision }), 'new', there, 110).deletes.map(({ key }) => key);
  expect(later(75)).toEqual(['service/s1']);
  expect(later(90)).toEqual(['service/s1', 'service/s2']);
  // It had not heard of it either.
  expect(later(55)).toEqual([]);
  expect(planRestore(mine('a', [], { incarnation: 'older' }), 'new', there, 110).deletes).toEqual([]);
});

test('a network goes back with the endpoints of its node, though the first to restore had never heard of it', () => {
  const network = entry('network/n', { id: 'n', owner: null, spec: { subnets: [{ pool: 'p' }] } }, 30);
  const ofNetwork = [
    network,
    entry('name/network/*/web', { id: 'n' }, 30),
    entry('vni/7', { id: 'n' }, 30),
    entry('pool/p', { space: 'global' }, 30),
  ];
  const copies = [...ofNetwork, entry('vni/8', { id: 'm' }, 30), endpoint('e1', 'a', 40)];
  const keys = [...ofNetwork.map(({ key }) => key), 'endpoint/e1'];
  const restored = (more: Partial<Mine>) => planRestore(mine('a', copies, more), 'new', [origin()], 110).puts;
  expect(restored({}).map(({ key }) => key)).toEqual(keys);
  expect(restored({ incarnation: 'older' }).map(({ key }) => key)).toEqual(keys);
  // And stays, though one that had heard more does not know it.
  const there = [origin({ followed: 20 }), network, endpoint('e1', 'a', 104)];
  const later = (...more: Entry[]) => planRestore(mine('b', []), 'new', [...there, ...more], 110).deletes;
  expect(later().map(({ key }) => key)).toEqual(['network/n']);
  expect(later(done('a', 105))).toEqual([]);
});

test('who comes back to a network is told to whoever removes it', () => {
  const copies = [endpoint('e1', 'a', 40), entry('reference/network/n', {}, 40), entry('reference/network/m', {}, 40)];
  const { puts } = planRestore(mine('a', copies), 'new', [origin()], 110);
  expect(puts.map(({ key }) => key)).toEqual(['endpoint/e1', 'reference/network/m']);
  expect(puts.flatMap(({ key, value }) => referencesOf(key, value))).toEqual(['reference/network/n']);
});
