/** Addresses after the shared store changed hands: said again by every node before one is given. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { claimsOf, type HeldLease, judge } from '../../src/cluster/replica/assertion.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Entry, Store } from '../../src/contracts/store.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { Obj } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { openSimClient } from '../sim/client.ts';
import { SimServer } from '../sim/server.ts';

const SILENT_MS = 400;

const entry = <T>(key: string, value: T, revision: number): Entry<T> => ({ key, value, revision });
const object = (kind: string, id: string, owner: string | null, spec: unknown = {}): Obj =>
  ({ kind, id, name: `${kind}-${id}`, revision: 0, schema: 1, owner, labels: {}, createdAt: '', spec }) as Obj;
const lease = (address: string, owner: string, more: Partial<HeldLease> = {}): HeldLease => ({
  pool: 'p',
  address,
  owner,
  purpose: 'endpoint',
  ...more,
});

describe('whose an address is', () => {
  const copies = [
    entry('endpoint/e1', object('endpoint', 'e1', 'a'), 3),
    entry('endpoint/e2', object('endpoint', 'e2', 'b'), 3),
    entry('service/s1', object('service', 's1', null), 3),
    entry('lease/p/10.0.0.2', lease('10.0.0.2', 'e1'), 5),
    entry('lease/p/10.0.0.3', lease('10.0.0.3', 'e2'), 6),
    entry('lease/p/10.0.0.4', lease('10.0.0.4', 's1', { since: 2 }), 7),
    entry('lease/p/10.0.0.5', lease('10.0.0.5', 'nobody'), 8),
  ];
  const [mine] = claimsOf(copies, 'a');
  const own = entry('endpoint/e1', object('endpoint', 'e1', 'a'), 3) as Entry<Obj>;
  const other = entry('endpoint/e9', object('endpoint', 'e9', 'b', { network: 'n' }), 4) as Entry<Obj>;

  test('a node speaks for its own endpoints and for what every node has, with the age of each lease', () => {
    expect(claimsOf(copies, 'a').map(({ lease }) => [lease.address, lease.since])).toEqual([
      ['10.0.0.2', 5],
      ['10.0.0.4', 2],
    ]);
  });

  test('the older lease stays, also one that was said again since', () => {
    const younger = judge(mine!, entry(mine!.key, lease('10.0.0.2', 'e9'), 90), own, other);
    expect(younger?.ops).toMatchObject([
      { op: 'put', key: 'lease/p/10.0.0.2', value: { owner: 'e1', since: 5 }, expect: 90 },
      {
        op: 'put',
        key: 'endpoint/e9',
        value: { spec: { contested: { address: '10.0.0.2', by: 'endpoint endpoint-e1' } } },
      },
    ]);
    expect(younger?.topics).toEqual(['node/b', 'network/n']);
    const older = judge(mine!, entry(mine!.key, lease('10.0.0.2', 'e9', { since: 4 }), 90), own, other);
    expect(older?.ops).toMatchObject([
      { op: 'check', key: 'lease/p/10.0.0.2', expect: 90 },
      { op: 'put', key: 'endpoint/e1', value: { spec: { contested: { by: 'endpoint endpoint-e9' } } }, expect: 3 },
    ]);
  });

  test('what every node has is no endpoint’s; what nobody has is taken', () => {
    const service = entry('service/s1', object('service', 's1', null), 3) as Entry<Obj>;
    expect(judge(mine!, entry(mine!.key, lease('10.0.0.2', 's1'), 90), own, service)?.loser?.id).toBe('e1');
    expect(judge(mine!, entry(mine!.key, lease('10.0.0.2', 'gone'), 90), own, undefined)?.ops).toMatchObject([
      { op: 'put', value: { owner: 'e1' }, expect: 90 },
    ]);
  });

  test('of two services the younger gives way, whoever asks and whatever is known of the leases’ age', () => {
    const made = (id: string, createdAt: string, more: object = {}): Entry<Obj> =>
      entry(
        `service/${id}`,
        { ...object('service', id, null, { network: 'n', vips: ['10.0.0.9'], ...more }), createdAt },
        9,
      );
    const [older, younger] = [made('s2', '2026-01-01T00:00:00.000Z'), made('s1', '2026-01-02T00:00:00.000Z')];
    const key = 'lease/p/10.0.0.9';
    const contested = { address: '10.0.0.9', by: 'service service-s2' };
    for (const [at, since] of [
      [3, 90],
      [90, 3],
    ]) {
      const claim = (owner: Entry<Obj>) => ({
        key,
        lease: lease('10.0.0.9', owner.value.id, { since }),
        owner: owner.value,
      });
      const held = (owner: Entry<Obj>) => entry(key, lease('10.0.0.9', owner.value.id), at!);
      const mark = { op: 'put', key: 'service/s1', value: { spec: { contested, network: 'n' } }, expect: 9 };
      const gives = judge(claim(younger), held(older), younger, older);
      expect(gives?.ops).toMatchObject([{ op: 'check', key, expect: at }, mark]);
      const takes = judge(claim(older), held(younger), older, younger);
      expect(takes?.ops).toMatchObject([{ op: 'put', key, value: { owner: 's2' }, expect: at }, mark]);
      expect(takes?.topics).toEqual(['cluster', 'network/n']);
    }
    const network = entry('network/n', object('network', 'n', null), 3) as Entry<Obj>;
    const gateway = { key, lease: lease('10.0.0.9', 'n'), owner: network.value };
    expect(judge(gateway, entry(key, lease('10.0.0.9', 's1'), 4), network, younger)?.loser?.id).toBe('s1');
    expect(judge(gateway, entry(key, lease('10.0.0.9', 'm'), 4), network, network)).toBeNull();
    // One that has given way claims nothing any more.
    const subnets = { subnets: [{ cidr: '10.0.0.0/24', pool: 'p' }] };
    const all = [entry('network/n', object('network', 'n', null, subnets), 3), older, made('s1', '', { contested })];
    expect(claimsOf(all, 'a').map(({ lease }) => lease.owner)).toEqual(['s2']);
  });
});

describe('an allocation', () => {
  let server: SimServer;
  const open = new Set<Store>();
  const locals = new Map<string, Store>();

  beforeEach(() => {
    server = new SimServer({ clock: systemClock });
    locals.clear();
  });
  afterEach(async () => {
    for (const store of open) await store.close();
    open.clear();
  });

  async function join(node: string): Promise<Store> {
    const local = locals.get(node) ?? createMemoryStore({ clock: systemClock });
    // Kept for another life of the node.
    const kept = new Proxy(local, {
      get: (target, key) =>
        key === 'close' ? async () => undefined : (Reflect.get(target, key) as () => unknown)?.bind?.(target),
    });
    locals.set(node, local);
    const store = await openReplica({
      connect: (seen, onTerm) => openSimClient(server, { clock: systemClock, seen, onTerm }),
      local: kept,
      node,
      clock: systemClock,
      lockMs: SILENT_MS,
    });
    open.add(store);
    if ((await store.get(`node/${node}`)) === null)
      await store.transact([{ op: 'put', key: `node/${node}`, value: { ...object('node', node, null), name: node } }]);
    return store;
  }
  const leave = async (store: Store): Promise<void> => {
    open.delete(store);
    await store.close();
  };
  const take = (store: Store, address: string, owner: string): Promise<number> =>
    store.transact([{ op: 'put', key: `lease/p/${address}`, value: lease(address, owner), expect: 0 }], { topics: [] });
  const store = async (at: Store, id: string, node: string): Promise<number> =>
    at.transact([{ op: 'put', key: `endpoint/${id}`, value: object('endpoint', id, node, { network: 'n' }) }], {
      topics: [`node/${node}`, 'network/n'],
    });
  const settled = (at: Store, node: string): Promise<unknown> =>
    expect.poll(() => at.get(`settlement/node/${node}`), { timeout: 2_000 }).not.toBeNull();
  const endpoint = async (at: Store, id: string): Promise<Endpoint | undefined> =>
    (await at.get<Endpoint>(`endpoint/${id}`))?.value;

  test('after a fail-over that lost a lease finds it put back by whose it is', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await take(a, '10.0.0.2', 'e1');
    await store(a, 'e1', 'a');
    await settled(a, 'b');
    server.failOver(2);
    // Nobody is asked for anything: b is the first to come.
    await expect(take(b, '10.0.0.2', 'e2')).rejects.toMatchObject({ code: /^store\.(?:conflict|unavailable)$/ });
    await expect
      .poll(async () => (await b.get<HeldLease>('lease/p/10.0.0.2'))?.value.owner, { timeout: 3_000 })
      .toBe('e1');
    await expect.poll(() => take(b, '10.0.0.3', 'e2').catch(() => 0), { timeout: 3_000 }).toBeGreaterThan(0);
    expect(await take(b, '10.0.0.2', 'e2').catch(({ code }) => code)).toBe('store.conflict');
  });

  test('waits for a node that gives signs of life and has not spoken, and says so in time', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await settled(a, 'b');
    await leave(b);
    server.failOver(0);
    let beating = true;
    const beat = (async () => {
      for (let n = 0; beating; n++) {
        await a.transact([{ op: 'put', key: 'alive/b', value: n }], { topics: [] });
        await systemClock.sleep(50);
      }
    })();
    const begun = performance.now();
    await expect(take(a, '10.0.0.2', 'e1')).rejects.toMatchObject({
      code: 'address.unsettled',
      details: { nodes: ['b'] },
    });
    expect(performance.now() - begun).toBeGreaterThan(2 * SILENT_MS);
    const taking = take(a, '10.0.0.2', 'e1');
    await join('b');
    expect(await taking).toBeGreaterThan(0);
    beating = false;
    await beat;
  });

  test('does not wait longer than a session for who is silent, nor at all for who has a pool to himself', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await settled(a, 'b');
    await a.transact([{ op: 'put', key: 'pool/mine', value: { id: 'mine', space: 'local', node: 'a', owner: 'n' } }]);
    await leave(b);
    server.failOver(0);
    const begun = performance.now();
    await a.transact([
      { op: 'put', key: 'lease/mine/10.1.0.2', value: { ...lease('10.1.0.2', 'e1'), pool: 'mine' }, expect: 0 },
    ]);
    expect(performance.now() - begun).toBeLessThan(SILENT_MS);
    await take(a, '10.0.0.2', 'e1');
    expect(performance.now() - begun).toBeGreaterThanOrEqual(SILENT_MS);
    // Once for all that come after, of this node and of others.
    const [later, c] = [performance.now(), await join('c')];
    await take(a, '10.0.0.3', 'e1');
    await take(c, '10.0.0.4', 'e3');
    expect(performance.now() - later).toBeLessThan(SILENT_MS);
  });

  test('spares the address of an endpoint that others have put back for a silent node', async () => {
    const [a, b] = [await join('a'), await join('b')];
    const network = {
      id: 'n',
      name: 'n',
      owner: null,
      spec: { scope: 'global', subnets: [{ cidr: '10.0.0.0/24', pool: 'p' }] },
    };
    await a.transact([{ op: 'put', key: 'network/n', value: network }]);
    await take(b, '10.0.0.2', 'e2');
    const spec = { network: 'n', addresses: ['10.0.0.2/24'] };
    await b.transact([{ op: 'put', key: 'endpoint/e2', value: object('endpoint', 'e2', 'b', spec) }]);
    await expect.poll(() => a.get('endpoint/e2')).not.toBeNull();
    await leave(b);
    // The lease is lost, the endpoint is not.
    const bare = await openSimClient(server, { clock: systemClock });
    await bare.transact([{ op: 'delete', key: 'lease/p/10.0.0.2' }]);
    server.failOver(0);
    await take(a, '10.0.0.3', 'e1');
    expect((await a.get<HeldLease>('lease/p/10.0.0.2'))?.value).toMatchObject({ owner: 'e2', pool: 'p' });
  });

  test('of one VIP for two services that were put back marks the younger, on every node', async () => {
    const [a, b] = [await join('a'), await join('b')];
    const subnets = [{ cidr: '10.0.0.0/24', pool: 'p' }];
    const put = (key: string, value: object) => ({ op: 'put' as const, key, value });
    const service = (id: string, day: number) => ({
      ...object('service', id, null, { network: 'n', vips: ['10.0.0.9'] }),
      createdAt: `2026-01-0${day}T00:00:00.000Z`,
    });
    await a.transact(
      [
        put('network/n', object('network', 'n', null, { scope: 'global', subnets })),
        put('service/old', service('old', 1)),
        put('service/young', service('young', 2)),
        put('lease/p/10.0.0.9', lease('10.0.0.9', 'young')),
      ],
      { topics: ['cluster'] },
    );
    await expect.poll(() => b.get('service/young')).not.toBeNull();
    server.empty();
    const seen = async (at: Store) => (await at.get<Endpoint>('service/young'))?.value.spec.contested;
    for (const at of [a, b])
      await expect.poll(() => seen(at), { timeout: 3_000 }).toEqual({ address: '10.0.0.9', by: 'service service-old' });
    expect((await b.get<HeldLease>('lease/p/10.0.0.9'))?.value.owner).toBe('old');
    expect((await a.get<Endpoint>('service/old'))?.value.spec.contested).toBeUndefined();
  });

  test('made while a node was silent gives way to the older lease of that node', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await take(b, '10.0.0.2', 'old');
    await store(b, 'old', 'b');
    await leave(b);
    server.failOver(2);
    await expect.poll(() => take(a, '10.0.0.2', 'young').catch(() => 0), { timeout: 4_000 }).toBeGreaterThan(0);
    await store(a, 'young', 'a');
    const again = await join('b');
    await expect
      .poll(async () => (await endpoint(a, 'young'))?.spec.contested, { timeout: 3_000 })
      .toEqual({ address: '10.0.0.2', by: 'endpoint endpoint-old' });
    expect((await again.get<HeldLease>('lease/p/10.0.0.2'))?.value).toMatchObject({ owner: 'old' });
    expect((await endpoint(again, 'old'))?.spec.contested).toBeUndefined();
    // Also when everything is lost once more.
    server.empty();
    await expect.poll(async () => (await a.get<HeldLease>('lease/p/10.0.0.2'))?.value.owner).toBe('old');
    await expect.poll(() => take(again, '10.0.0.9', 'next').catch(() => 0), { timeout: 3_000 }).toBeGreaterThan(0);
    expect((await again.get<HeldLease>('lease/p/10.0.0.2'))?.value.owner).toBe('old');
  });
});
