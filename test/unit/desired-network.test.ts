import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { VNI_AUTOMATIC } from '../../src/model/network.ts';
import type { NetworkRequest } from '../../src/model/request.ts';
import { ACTOR, makeWorld, NODE, refused, type World } from './desired-world.ts';

describe.each(['memory', 'sqlite'] as const)('networks, on %s', (kind) => {
  let world: World;
  let networks: World['desired']['networks'];
  beforeEach(async () => {
    world = await makeWorld(kind);
    networks = world.desired.networks;
  });
  afterEach(async () => {
    await world.check();
    await world.close();
  });
  const make = async (name: string, request: NetworkRequest = {}) => (await networks.put(name, request)).object;

  test('one whose name is another’s by now takes nothing of it along, and has it again once it is free', async () => {
    const first = await make('mesh', { driver: 'wide', subnets: [{ cidr: '10.50.0.0/24' }] });
    const key = 'name/network/*/mesh';
    const second = { ...first, id: 'f'.repeat(64), spec: { ...first.spec, vni: 5_000, subnets: [] } };
    await world.store.transact([
      { op: 'put', key: `network/${second.id}`, value: second },
      { op: 'put', key, value: { id: second.id } },
    ]);
    expect(await networks.records.nameless(await networks.get(first.id))).toBe(second.id);
    expect(await networks.records.nameless(await networks.get(second.id))).toBeNull();
    await networks.remove(second.id);
    await networks.forget(await networks.get(second.id));
    expect(await world.keys(key)).toEqual([]);
    const stale = { ...first, revision: first.revision - 1 };
    expect((await refused(networks.records.nameless(stale))).code).toBe('store.conflict');
    expect(await networks.records.nameless(await networks.get(first.id))).toBeNull();
    expect((await networks.get('mesh')).id).toBe(first.id);
    // And the other way round.
    await world.store.transact([
      { op: 'put', key: `network/${second.id}`, value: second },
      { op: 'put', key, value: { id: second.id } },
    ]);
    await networks.remove(first.id);
    await networks.forget(await networks.get(first.id));
    expect((await networks.get('mesh')).id).toBe(second.id);
  });

  test('bridge, host and none are there from the start, once', async () => {
    await networks.ensureBuiltin();
    await networks.ensureBuiltin();
    const list = await networks.list();
    expect(list.map(({ name }) => name).sort()).toEqual(['bridge', 'host', 'none']);
    const [bridge, host] = ['bridge', 'host'].map((name) => list.find((one) => one.name === name)!);
    expect(bridge!.spec).toMatchObject({
      driver: 'bridge',
      scope: 'local',
      ipv6: false,
      subnets: [{ cidr: '172.17.0.0/16', gateway: '172.17.0.1' }],
    });
    expect(host!.spec.subnets).toEqual([]);
    for (const name of ['bridge', 'host', 'none']) {
      expect((await refused(networks.remove(name))).code).toBe('network.builtin');
      expect((await refused(networks.put(name, { driver: name, mtu: 1400 }))).code).toBe('network.builtin');
      expect((await refused(networks.put(name, { driver: name }, { create: true }))).code).toBe('object.exists');
      expect((await networks.put(name, { driver: name })).created).toBe(false);
    }
    expect(await networks.prune()).toEqual([]);
  });

  test('is stored whole: object, name, gateway, reserved addresses', async () => {
    const { object, created } = await networks.put(
      'web',
      {
        subnets: [
          {
            cidr: '10.20.0.0/24',
            range: '10.20.0.128/25',
            gateway: '10.20.0.254',
            aux: { router: '10.20.0.9', printer: '10.20.0.130' },
          },
          { cidr: 'FD20:0:0:0::/64' },
        ],
        internal: true,
        mtu: 1400,
        options: { spoof: 'allow' },
        labels: { team: 'shop' },
      },
      { actor: ACTOR },
    );
    expect(created).toBe(true);
    expect(object).toMatchObject({
      kind: 'network',
      name: 'web',
      owner: NODE,
      schema: 1,
      labels: { team: 'shop' },
      createdAt: '2026-01-01T00:00:00.000Z',
      spec: {
        driver: 'bridge',
        ipam: 'default',
        ipv4: true,
        ipv6: true,
        internal: true,
        mtu: 1400,
        options: { spoof: 'allow' },
        subnets: [
          {
            cidr: '10.20.0.0/24',
            gateway: '10.20.0.254',
            range: '10.20.0.128/25',
            aux: { router: '10.20.0.9', printer: '10.20.0.130' },
          },
          { cidr: 'fd20::/64', gateway: 'fd20::1' },
        ],
      },
    });
    expect(object.id).toMatch(/^[0-9a-f]{64}$/);
    expect(await networks.get('web')).toEqual(object);
    expect(await networks.get(object.id)).toEqual(object);
    expect(await networks.get(object.id.slice(0, 4))).toEqual(object);
    const { value } = (await world.store
      .watch(`node/${NODE}`, object.revision - 1, new AbortController().signal)
      [Symbol.asyncIterator]()
      .next()) as { value: { change: { actor: string; entries: { key: string }[] } } };
    expect(value.change.actor).toBe(ACTOR);
    expect(value.change.entries.map(({ key }) => key)).toEqual([`network/${object.id}`, `name/network/${NODE}/web`]);
  });

  test('an automatic gateway keeps clear of reserved addresses, and stays in the range', async () => {
    const aux = { first: '10.20.0.1', second: '10.20.0.129' };
    expect((await make('a', { subnets: [{ cidr: '10.20.0.0/24', aux }] })).spec.subnets[0]!.gateway).toBe('10.20.0.2');
    const ranged = await make('b', { subnets: [{ cidr: '10.21.0.0/24', range: '10.21.0.128/25' }] });
    expect(ranged.spec.subnets[0]!.gateway).toBe('10.21.0.128');
  });

  test('automatic subnets: one for each family asked for, clear of routes and each other', async () => {
    world.routes.push('172.17.0.0/16', '172.18.4.0/24', 'fdb5:1ce0::/64');
    expect((await make('a')).spec.subnets.map(({ cidr }) => cidr)).toEqual(['172.19.0.0/16']);
    expect((await make('b', { ipv6: true })).spec.subnets.map(({ cidr }) => cidr)).toEqual([
      '172.20.0.0/16',
      'fdb5:1ce0:0:1::/64',
    ]);
    expect((await make('c', { ipv4: false, ipv6: true })).spec.subnets.map(({ cidr }) => cidr)).toEqual([
      'fdb5:1ce0:0:2::/64',
    ]);
    expect((await make('d', { subnets: [{ cidr: '10.1.0.0/24' }], ipv6: true })).spec.subnets).toHaveLength(2);
    expect((await make('e', { subnets: [{}, {}], ipv6: true })).spec.subnets.map(({ cidr }) => cidr)).toEqual([
      '172.21.0.0/16',
      'fdb5:1ce0:0:4::/64',
    ]);
    for (let n = 22; n < 32; n++) await make(`n${n}`);
    expect(await refused(networks.put('full', {}))).toMatchObject({ code: 'pool.exhausted' });
  });

  test('put again is the same, and whatever differs is refused', async () => {
    const request: NetworkRequest = {
      subnets: [{ cidr: '10.20.0.0/24', gateway: '10.20.0.1' }],
      options: { spoof: 'allow' },
      labels: { a: '1', b: '2' },
    };
    const first = await make('web', request);
    const again: NetworkRequest[] = [
      request,
      { ...request, driver: 'bridge', ipam: 'default', ipv4: true, ipv6: false, internal: false },
      { ...request, labels: { b: '2', a: '1' } },
      { ...request, subnets: [{ cidr: '10.20.0.0/24' }] },
      { ...request, subnets: [{}] },
      { ...request, subnets: undefined },
    ];
    for (const same of again) expect(await networks.put('web', same)).toEqual({ object: first, created: false });
    const others: NetworkRequest[] = [
      { ...request, driver: 'none' },
      { ...request, internal: true },
      { ...request, mtu: 1400 },
      { ...request, ipv6: true },
      { ...request, options: {} },
      { ...request, labels: { a: '1' } },
      { ...request, subnets: [{ cidr: '10.20.0.0/25' }] },
      { ...request, subnets: [{ cidr: '10.20.0.0/24', gateway: '10.20.0.2' }] },
      { ...request, subnets: [{ cidr: '10.20.0.0/24', range: '10.20.0.0/25' }] },
      { ...request, subnets: [{ cidr: '10.20.0.0/24', aux: { x: '10.20.0.9' } }] },
      { ...request, subnets: [{ cidr: '10.20.0.0/24' }, { cidr: 'fd20::/64' }] },
    ];
    for (const other of others)
      expect(await refused(networks.put('web', other)), JSON.stringify(other)).toMatchObject({
        code: 'object.exists',
        message: expect.stringContaining('web'),
      });
    expect(await refused(networks.put('web', request, { create: true }))).toMatchObject({ code: 'object.exists' });
    expect((await networks.get('web')).revision).toBe(first.revision);
  });

  const subnets = (...list: NonNullable<NetworkRequest['subnets']>): NetworkRequest => ({ subnets: list });
  test.each<[string, NetworkRequest, string, string]>([
    ['an unknown driver', { driver: 'nope' }, 'driver.unknown', 'nope'],
    ['an unknown IPAM driver', { ipam: 'nope' }, 'driver.unknown', 'nope'],
    ['an unknown option', { options: { sproof: 'x' } }, 'request.invalid', 'sproof'],
    ['neither family', { ipv4: false }, 'request.invalid', 'neither'],
    ['an MTU too small for IPv6', { ipv6: true, mtu: 1279 }, 'request.invalid', '1279'],
    ['an MTU that is none', { mtu: 100_000 }, 'request.invalid', '100000'],
    ['half an MTU', { mtu: 1400.5 }, 'request.invalid', '1400.5'],
    ['bits outside the prefix', subnets({ cidr: '10.20.0.1/24' }), 'request.invalid', '10.20.0.0/24'],
    ['a prefix too long', subnets({ cidr: '10.20.0.0/33' }), 'request.invalid', '10.20.0.0/33'],
    ['no prefix', subnets({ cidr: '10.20.0.0' }), 'request.invalid', '10.20.0.0'],
    ['a host route', subnets({ cidr: '10.20.0.0/32' }), 'request.invalid', 'no room'],
    ['a host route of IPv6', subnets({ cidr: 'fd20::/128' }), 'request.invalid', 'no room'],
    ['loopback', subnets({ cidr: '127.1.0.0/16' }), 'request.invalid', '127.1.0.0/16'],
    ['what covers loopback', subnets({ cidr: '126.0.0.0/7' }), 'request.invalid', '126.0.0.0/7'],
    ['everything', subnets({ cidr: '0.0.0.0/0' }), 'request.invalid', '0.0.0.0/0'],
    ['multicast', subnets({ cidr: '239.1.0.0/16' }), 'request.invalid', 'multicast'],
    ['multicast of IPv6', subnets({ cidr: 'ff05::/64' }), 'request.invalid', 'multicast'],
    ['link-local', subnets({ cidr: 'fe80::/64' }), 'request.invalid', 'link-local'],
    ['IPv4 in IPv6', subnets({ cidr: '::ffff:10.1.0.0/112' }), 'request.invalid', '::ffff'],
    ['a gateway outside', subnets({ cidr: '10.20.0.0/24', gateway: '10.21.0.1' }), 'address.outside', '10.21.0.1'],
    [
      'a gateway that is the network',
      subnets({ cidr: '10.20.0.0/24', gateway: '10.20.0.0' }),
      'address.outside',
      'network address',
    ],
    ['a gateway that is no address', subnets({ cidr: '10.20.0.0/24', gateway: 'x' }), 'request.invalid', 'x'],
    ['a range outside', subnets({ cidr: '10.20.0.0/24', range: '10.20.0.0/23' }), 'address.outside', '10.20.0.0/23'],
    [
      'a range of the other family',
      subnets({ cidr: '10.20.0.0/24', range: 'fd20::/64' }),
      'address.outside',
      'fd20::/64',
    ],
    ['reserved outside', subnets({ cidr: '10.20.0.0/24', aux: { nas: '10.30.0.1' } }), 'address.outside', 'nas'],
    [
      'gateway and reserved the same',
      subnets({ cidr: '10.20.0.0/24', gateway: '10.20.0.9', aux: { nas: '10.20.0.9' } }),
      'request.invalid',
      'nas',
    ],
    ['a gateway that no automatic subnet has', subnets({ gateway: '10.20.0.1' }), 'address.outside', '10.20.0.1'],
    ['an IPv6 subnet without IPv6', { ...subnets({ cidr: 'fd20::/64' }), ipv6: false }, 'request.invalid', 'IPv6'],
    [
      'an IPv4 subnet without IPv4',
      { ...subnets({ cidr: '10.2.0.0/24' }), ipv4: false, ipv6: true },
      'request.invalid',
      'IPv4',
    ],
    [
      'two that overlap',
      subnets({ cidr: '10.20.0.0/24' }, { cidr: '10.20.0.128/25' }),
      'network.overlap',
      '10.20.0.128/25',
    ],
    [
      'subnets where there are none',
      { driver: 'none', ...subnets({ cidr: '10.2.0.0/24' }) },
      'request.invalid',
      'none',
    ],
  ])('refuses %s, and leaves nothing', async (_, request, code, words) => {
    const error = await refused(networks.put('web', request));
    expect(error).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(await world.keys('network/')).toEqual([]);
    expect(await world.keys('lease/')).toEqual([]);
    expect(await world.keys('pool/')).toEqual([]);
  });

  test.each(['', '-x', 'a b', 'a/b', 'ü', 'x'.repeat(64)])('refuses the name %j', async (name) => {
    expect((await refused(networks.put(name, {}))).code).toBe('request.invalid');
  });

  test('a subnet that overlaps names the network or the route', async () => {
    await make('web', subnets({ cidr: '10.20.0.0/24' }));
    expect(await refused(networks.put('shop', subnets({ cidr: '10.20.0.128/25' })))).toMatchObject({
      code: 'network.overlap',
      message: expect.stringMatching(/10\.20\.0\.128\/25.*10\.20\.0\.0\/24.*network web/),
      details: { name: 'web' },
    });
    world.routes.push('10.30.0.0/16');
    expect(await refused(networks.put('shop', subnets({ cidr: '10.30.4.0/24' })))).toMatchObject({
      code: 'network.overlap',
      message: expect.stringContaining('10.30.0.0/16'),
    });
    await networks.remove('web');
    expect((await refused(networks.put('shop', subnets({ cidr: '10.20.0.0/24' })))).message).toContain('being removed');
    await world.settle();
    await make('shop', subnets({ cidr: '10.20.0.0/24' }));
  });

  test('a failure half-way gives back what was leased', async () => {
    const two = subnets({ cidr: '10.20.0.0/24' }, { cidr: 'fd20::/64' });
    await make('six', { ipv4: false, ...subnets({ cidr: 'fd20::/48' }) });
    expect((await refused(networks.put('web', two))).code).toBe('network.overlap');
    expect(await world.keys('pool/')).toHaveLength(1);
    // The store fails where the object would be written.
    world.before('network/', () => Promise.reject(new Error('power cut')));
    await expect(networks.put('web', subnets({ cidr: '10.20.0.0/24' }))).rejects.toThrow('power cut');
    expect(await world.keys('pool/')).toHaveLength(1);
    expect(await world.keys('lease/')).toHaveLength(1);
  });

  test('found by name, id and the beginning of an id; one that fits several is ambiguous', async () => {
    const all = [];
    for (let n = 0; n < 12; n++) all.push(await make(`n${n}`, { driver: 'none' }));
    expect(await refused(networks.get('nothing'))).toMatchObject({
      code: 'object.notfound',
      message: expect.stringContaining('nothing'),
    });
    expect((await refused(networks.get(all[0]!.id.slice(0, 3)))).code).toBe('object.notfound');
    const id = `${all[0]!.id.slice(0, 6)}${'0'.repeat(58)}`;
    await world.store.transact([
      { op: 'put', key: `network/${id}`, value: { ...all[0], id, name: 'twin' } },
      { op: 'put', key: `name/network/${NODE}/twin`, value: { id } },
    ]);
    const error = await refused(networks.get(all[0]!.id.slice(0, 6)));
    expect(error).toMatchObject({
      code: 'object.ambiguous',
      details: { ids: expect.arrayContaining([id, all[0]!.id]) },
    });
    expect(error.message).toMatch(/twin/);
    // A name that reads like the beginning of an id is a name first.
    const named = await make(all[5]!.id.slice(0, 8), { driver: 'none' });
    expect((await networks.get(all[5]!.id.slice(0, 8))).id).toBe(named.id);
    expect((await networks.get(all[5]!.id)).id).toBe(all[5]!.id);
  });

  test('removal: the name is free at once, addresses when it is forgotten, twice is fine', async () => {
    const web = await make('web', subnets({ cidr: '10.20.0.0/24' }));
    await world.desired.statuses.set({
      kind: 'network',
      id: web.id,
      node: NODE,
      state: 'ready',
      observed: web.revision,
      conditions: [],
      detail: {},
    });
    const removing = await networks.remove('web');
    expect(removing).toMatchObject({ id: web.id, removing: true });
    expect(removing.revision).toBeGreaterThan(web.revision);
    expect(await networks.remove(web.id)).toEqual(removing);
    expect((await refused(networks.get('web'))).code).toBe('object.notfound');
    expect((await networks.get(web.id)).removing).toBe(true);
    const successor = await make('web', { driver: 'none' });
    await networks.forget(removing);
    await networks.forget(removing);
    expect(await networks.list()).toEqual([successor]);
    expect(await world.keys('status/')).toEqual([]);
    // One who forgets what was never marked takes its name along.
    await networks.forget(successor);
    expect(await world.keys('name/')).toEqual([]);
  });

  test('one in use is not removed, and names its users', async () => {
    await make('web', subnets({ cidr: '10.20.0.0/24' }));
    await world.desired.sandboxes.put('box', { networks: [{ network: 'web' }] });
    await world.desired.services.put('shop', { network: 'web' });
    expect(await refused(networks.remove('web'))).toMatchObject({
      code: 'object.inuse',
      message: 'network web is used by endpoint box.web, service shop',
      details: { users: ['endpoint box.web', 'service shop'] },
    });
    await make('idle', { driver: 'none' });
    expect((await networks.prune()).map(({ name }) => name)).toEqual(['idle']);
    await world.desired.services.remove('shop');
    await world.desired.sandboxes.remove('box');
    expect((await refused(networks.remove('web'))).code).toBe('object.inuse');
    await world.settle();
    expect((await networks.prune()).map(({ name }) => name)).toEqual(['web']);
    await world.settle();
    expect(await world.keys('network/')).toEqual([]);
  });

  test('many at once under one name make one; two daemons too', async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, (_, n) => (n % 2 ? world.desired : world.other).networks.put('web', {})),
    );
    expect(new Set(outcomes.map(({ object }) => object.id)).size).toBe(1);
    expect(outcomes.filter(({ created }) => created)).toHaveLength(1);
    await Promise.all(Array.from({ length: 10 }, (_, n) => networks.put(`n${n}`, {})));
    expect(new Set((await networks.list()).map(({ spec }) => spec.subnets[0]!.cidr)).size).toBe(11);
  });

  test('a global one belongs to the cluster', async () => {
    const wide = await make('mesh', { driver: 'wide' });
    expect(wide.owner).toBeNull();
    expect((await networks.get('mesh')).id).toBe(wide.id);
    expect(await world.keys('name/')).toEqual(['name/network/*/mesh']);
  });

  test('a global one has a VNI that no other has, and its subnets keep a part for VIPs', async () => {
    const mesh = await make('mesh', { driver: 'wide', ipv6: true });
    const { vni, subnets } = mesh.spec;
    expect(vni).toBeGreaterThanOrEqual(4096);
    expect(subnets).toMatchObject([
      { cidr: '172.17.0.0/20', vips: '172.17.15.0/24' },
      { cidr: 'fdb5:1ce0::/64', vips: 'fdb5:1ce0::ffff:ffff:ffff:0/112' },
    ]);
    const taken = await refused(networks.put('other', { driver: 'wide', vni }));
    expect(taken).toMatchObject({ code: 'network.vni', message: expect.stringContaining('mesh') });
    expect(await world.keys('vni/')).toEqual([`vni/${vni}`]);
    // The hosts' own.
    const kept = await refused(networks.put('kept', { driver: 'wide', vni: 0xffffff }));
    expect(kept).toMatchObject({ code: 'network.vni', message: expect.stringContaining('16777215 is kept') });
    expect(VNI_AUTOMATIC.max).toBeLessThan(0xffffff);
    const chosen = await make('chosen', { driver: 'wide', vni: 42 });
    expect(chosen.spec.vni).toBe(42);
    expect((await networks.put('chosen', { driver: 'wide', vni: 42 })).created).toBe(false);
    expect((await refused(networks.put('chosen', { driver: 'wide', vni: 43 }))).code).toBe('object.exists');
    expect((await refused(networks.put('local', { vni: 7 }))).code).toBe('request.invalid');
    await networks.remove('mesh');
    await world.settle();
    expect(await world.keys('vni/')).toEqual(['vni/42']);
    expect((await make('again', { driver: 'wide', vni })).spec.vni).toBe(vni);
  });

  test('a global one that fills up gets further subnets, and keeps what it has', async () => {
    const add = [{ cidr: '10.51.0.0/24' }];
    const mesh = await make('mesh', { driver: 'wide', subnets: [{ cidr: '10.50.0.0/30' }] });
    await world.desired.sandboxes.put('a', { networks: [{ network: 'mesh' }] });
    const full = await refused(world.desired.sandboxes.put('b', { networks: [{ network: 'mesh' }] }));
    expect(full.code).toBe('address.exhausted');
    const more = await networks.addSubnets('mesh', add);
    expect(more.spec.subnets).toMatchObject([{ cidr: '10.50.0.0/30' }, { cidr: '10.51.0.0/24', gateway: '10.51.0.1' }]);
    expect((await networks.addSubnets('mesh', add)).revision).toBe(more.revision);
    const box = await world.desired.sandboxes.put('b', { networks: [{ network: 'mesh' }] });
    const [endpoint] = await world.desired.endpoints.list({ sandbox: box.object.id });
    expect(endpoint!.spec.addresses).toEqual(['10.51.0.2/24']);
    expect((await refused(networks.addSubnets('mesh', [{ cidr: '10.51.0.128/25' }]))).code).toBe('network.overlap');
    expect((await refused(networks.addSubnets('mesh', [{}]))).code).toBe('request.invalid');
    expect((await refused(networks.addSubnets('mesh', [{ cidr: 'fd00:9::/64' }]))).code).toBe('request.invalid');
    await make('web');
    expect((await refused(networks.addSubnets('web', add))).code).toBe('request.invalid');
    expect((await networks.get(mesh.id)).spec.subnets).toHaveLength(2);
  });

  test('of many at once each has a VNI of its own; two daemons too', async () => {
    const asked = Array.from({ length: 20 }, (_, n) =>
      (n % 2 ? world.desired : world.other).networks.put(`n${n}`, { driver: 'wide', vni: n < 4 ? 99 : undefined }),
    );
    const outcomes = await Promise.allSettled(asked);
    const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value.object] : []));
    expect(made).toHaveLength(17);
    expect(new Set(made.map(({ spec }) => spec.vni)).size).toBe(17);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'network.vni' });
  });

  test('two global ones may have one subnet when asked for; a local one never has that of another', async () => {
    const subnets = [{ cidr: '10.50.0.0/20' }];
    await make('one', { driver: 'wide', subnets });
    await make('two', { driver: 'wide', subnets });
    const clash = await refused(networks.put('web', { subnets: [{ cidr: '10.50.1.0/24' }] }));
    expect(clash).toMatchObject({ code: 'network.overlap', message: expect.stringMatching(/one|two/) });
    await make('local', { subnets: [{ cidr: '10.60.0.0/24' }] });
    const other = await refused(networks.put('three', { driver: 'wide', subnets: [{ cidr: '10.60.0.0/16' }] }));
    expect(other).toMatchObject({ code: 'network.overlap', message: expect.stringContaining('local') });
    const automatic = await make('free', { driver: 'wide' });
    expect(automatic.spec.subnets[0]!.cidr).toBe('172.17.0.0/20');
  });
});
