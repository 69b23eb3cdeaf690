/** What of a single host's records goes into a cluster's store, and what stands in the way. */
import { describe, expect, test } from 'vitest';
import { systemClock as clock } from '../../src/clock.ts';
import { join } from '../../src/cluster/join/join.ts';
import { joinedKey, planJoin } from '../../src/cluster/join/plan.ts';
import { Sealable } from '../../src/cluster/join/seal.ts';
import type { Entry, Op, Store } from '../../src/contracts/store.ts';
import { createMemoryStore } from '../../src/store/memory.ts';

const entry = (key: string, value: unknown, revision = 1): Entry => ({ key, value, revision });
const put = (key: string, value: unknown): Op => ({ op: 'put', key, value });

describe('the plan', () => {
  test('takes everything along but signs of life and what is of a store itself', () => {
    const mine = [
      'network/1',
      'lease/p/10.0.0.2',
      'local/a/number/view/1',
      'new/kind',
      'alive/a',
      'restore/origin',
      joinedKey,
    ];
    const { puts, conflicts } = planJoin(
      mine.map((key) => entry(key, { key })),
      [],
    );
    expect(puts.map(({ key, expect: at }) => [key, at])).toEqual([
      ['network/1', 0],
      ['lease/p/10.0.0.2', 0],
      ['local/a/number/view/1', 0],
      ['new/kind', 0],
    ]);
    expect(conflicts).toEqual([]);
  });

  test('names what both have: cluster-wide names, the node, VXLAN identifiers', () => {
    const mine = [
      entry('name/service/*/shop', { id: '1' }),
      entry('name/node/*/a', { id: '2' }),
      entry('vni/256', { id: '3' }),
      entry('name/network/a/bridge', { id: '4' }),
    ];
    const theirs = [
      entry('name/service/*/shop', { id: '9' }),
      entry('name/node/*/a', { id: '8' }),
      entry('vni/256', { id: '7' }),
      entry('name/network/b/bridge', { id: '6' }),
    ];
    expect(planJoin(mine, theirs).conflicts).toEqual(['service shop', 'node a', 'VXLAN network identifier 256']);
  });

  test('an attempt that was cut off is gone on with: what is there is left, what changed since is written again', () => {
    const mine = [
      entry('service/1', { v: 2 }),
      entry('name/service/*/s', { id: '1' }),
      entry('poolspace/all', { a: 1 }),
    ];
    const theirs = [
      entry('service/1', { v: 1 }, 70),
      entry('name/service/*/s', { id: '1' }, 71),
      entry('poolspace/all', { a: 2 }, 72),
    ];
    const { puts, conflicts } = planJoin(mine, theirs);
    expect(conflicts).toEqual([]);
    expect(puts).toEqual([
      { op: 'put', key: 'service/1', value: { v: 2 }, expect: 70 },
      { op: 'put', key: 'poolspace/all', value: { a: 1 } },
    ]);
  });
});

describe('joining', () => {
  const stores = (): [Sealable, Store] => [new Sealable(createMemoryStore({ clock })), createMemoryStore({ clock })];
  const joined = { store: '127.0.0.1:6379', node: 'a' };

  test('brings hundreds of records over and marks the host’s own store last', async () => {
    const [local, remote] = stores();
    for (let n = 0; n < 350; n++) await local.transact([put(`sandbox/${n}`, { owner: 'a', id: `${n}` })]);
    expect(await join(local, remote, joined)).toBe(350);
    expect((await remote.list('sandbox/')).items).toHaveLength(350);
    expect((await local.get(joinedKey))?.value).toEqual(joined);
    expect(await remote.get(joinedKey)).toBeNull();
  });

  test('writes nothing where something is in the way', async () => {
    const [local, remote] = stores();
    await local.transact([put('name/service/*/shop', { id: '1' }), put('service/1', {})]);
    await remote.transact([put('name/service/*/shop', { id: '2' })]);
    await expect(join(local, remote, joined)).rejects.toMatchObject({
      code: 'cluster.conflict',
      details: { conflicts: ['service shop'] },
    });
    expect((await remote.list('')).items).toHaveLength(1);
    expect(await local.get(joinedKey)).toBeNull();
    await local.transact([put('service/3', {})]);
  });

  test('takes along what is written meanwhile, and refuses what would come too late', async () => {
    const [again, other] = stores();
    await again.transact([put('sandbox/1', {})]);
    let writes = 0;
    const [accepted, refused]: [string[], string[]] = [[], []];
    const restless: Store = {
      ...other,
      incarnation: '',
      get: (key) => other.get(key),
      list: (prefix) => other.list(prefix),
      async transact(ops) {
        const key = `sandbox/late-${writes++}`;
        await again.transact([put(key, {})]).then(
          () => accepted.push(key),
          ({ code }) => refused.push(code),
        );
        return other.transact(ops);
      },
    };
    await join(again, restless, joined);
    const keys = async (at: Store) => (await at.list('sandbox/')).items.map(({ key }) => key);
    expect(await keys(other)).toEqual(['sandbox/1', ...accepted].sort());
    expect(await keys(again)).toEqual(await keys(other));
    expect(refused).toEqual(['store.unavailable']);
    // For as long as the daemon runs.
    await expect(again.transact([put('sandbox/2', {})])).rejects.toMatchObject({ code: 'store.unavailable' });
    expect(await again.transact([])).toBeGreaterThan(0);
  });
});
