import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { BackendRequest, ServiceRequest } from '../../src/model/request.ts';
import { makeWorld, NODE, refused, type World } from './desired-world.ts';

describe.each(['memory', 'sqlite'] as const)('services, on %s', (kind) => {
  let world: World;
  let services: World['desired']['services'];
  const ids: Record<string, string> = {};
  beforeEach(async () => {
    world = await makeWorld(kind);
    services = world.desired.services;
    await world.desired.networks.ensureBuiltin();
    await world.desired.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }, { cidr: 'fd20::/64' }] });
    await world.desired.networks.put('db', { subnets: [{ cidr: '10.30.0.0/24' }] });
    for (const name of ['a', 'b', 'c'])
      ids[name] = (await world.desired.sandboxes.put(name, { networks: [{ network: 'web' }] })).object.id;
    ids.far = (await world.desired.sandboxes.put('far', { networks: [{ network: 'db' }] })).object.id;
  });
  afterEach(async () => {
    await world.check();
    await world.close();
  });
  const make = async (name: string, request: Partial<ServiceRequest> = {}) =>
    (await services.put(name, { network: 'web', ...request })).object;

  test('is stored whole, with a VIP of each family of the network', async () => {
    const shop = await make('shop', {
      ports: [
        { name: 'http', port: 80, target: 8080 },
        { port: 53, protocol: 'udp' },
      ],
      backends: [
        { sandbox: 'a' },
        { sandbox: ids.b!, port: 81 },
        { address: '::ffff:192.0.2.7' },
        { address: 'FD99::1' },
      ],
      aliases: ['store', 'store'],
      labels: { team: 'x' },
    });
    expect(shop).toMatchObject({
      kind: 'service',
      owner: NODE,
      labels: { team: 'x' },
      spec: {
        network: (await world.desired.networks.get('web')).id,
        vips: ['10.20.0.254', 'fd20::ffff:ffff:ffff:ffff'],
        ports: [
          { name: 'http', port: 80, target: 8080, protocol: 'tcp' },
          { port: 53, target: 53, protocol: 'udp' },
        ],
        backends: [{ sandbox: ids.a }, { sandbox: ids.b, port: 81 }, { address: '192.0.2.7' }, { address: 'fd99::1' }],
        aliases: ['store'],
      },
    });
    expect(await services.get('shop')).toEqual(shop);
    expect((await make('second')).spec).toMatchObject({
      vips: ['10.20.0.253', 'fd20::ffff:ffff:ffff:fffe'],
      ports: [],
    });
    expect((await make('other', { network: 'db' })).spec.vips).toEqual(['10.30.0.254']);
  });

  test('VIPs that are asked for say which families there are', async () => {
    expect((await make('four', { ips: ['10.20.0.99'] })).spec.vips).toEqual(['10.20.0.99']);
    expect((await make('six', { ips: ['FD20:0::99'] })).spec.vips).toEqual(['fd20::99']);
    expect((await make('both', { ips: ['fd20::98', '10.20.0.98'] })).spec.vips).toEqual(['10.20.0.98', 'fd20::98']);
  });

  test.each<[string, Partial<ServiceRequest>, string, string]>([
    ['an unknown network', { network: 'nope' }, 'object.notfound', 'nope'],
    ['a network without addresses', { network: 'none' }, 'request.invalid', 'none'],
    ['a VIP outside', { ips: ['10.21.0.9'] }, 'address.outside', '10.21.0.9'],
    ['two VIPs of a family', { ips: ['10.20.0.9', '10.20.0.10'] }, 'request.invalid', 'IPv4'],
    ['the gateway as VIP', { ips: ['10.20.0.1'] }, 'address.inuse', 'network web (gateway)'],
    ['an endpoint’s address as VIP', { ips: ['10.20.0.2'] }, 'address.inuse', 'endpoint a.web'],
    ['a VIP half in use', { ips: ['10.20.0.77', 'fd20::2'] }, 'address.inuse', 'a.web'],
    ['port 0', { ports: [{ port: 0 }] }, 'request.invalid', '0'],
    ['port 65536', { ports: [{ port: 65_536 }] }, 'request.invalid', '65536'],
    ['a target that is none', { ports: [{ port: 80, target: 1.5 }] }, 'request.invalid', '1.5'],
    ['a port twice', { ports: [{ port: 80 }, { port: 80, target: 81 }] }, 'request.invalid', '80/tcp'],
    [
      'a port name twice',
      {
        ports: [
          { name: 'x', port: 80 },
          { name: 'x', port: 81 },
        ],
      },
      'request.invalid',
      'x',
    ],
    ['a port name that is none', { ports: [{ name: 'X Y', port: 80 }] }, 'request.invalid', 'X Y'],
    ['another protocol', { ports: [{ port: 80, protocol: 'sctp' as 'tcp' }] }, 'request.invalid', 'sctp'],
    ['too many ports', { ports: Array.from({ length: 65 }, (_, n) => ({ port: n + 1 })) }, 'request.invalid', '64'],
    ['an unknown sandbox', { backends: [{ sandbox: 'nope' }] }, 'object.notfound', 'nope'],
    ['a sandbox elsewhere', { backends: [{ sandbox: 'far' }] }, 'service.backend', 'far'],
    ['multicast', { backends: [{ address: '224.0.0.1' }] }, 'service.backend', '224.0.0.1'],
    ['everybody', { backends: [{ address: '255.255.255.255' }] }, 'service.backend', '255.255.255.255'],
    ['nobody', { backends: [{ address: '::' }] }, 'service.backend', '::'],
    ['no address', { backends: [{ address: 'x.y' }] }, 'request.invalid', 'x.y'],
    ['a backend port that is none', { backends: [{ sandbox: 'a', port: 70_000 }] }, 'request.invalid', '70000'],
    ['a family without VIP', { network: 'db', backends: [{ address: 'fd20::9' }] }, 'service.backend', 'IPv6'],
    [
      'a family that was not asked for',
      { ips: ['10.20.0.9'], backends: [{ address: 'fd99::1' }] },
      'service.backend',
      'IPv6',
    ],
    ['itself', { ips: ['10.20.0.9'], backends: [{ address: '10.20.0.9' }] }, 'service.backend', 'itself'],
    ['an alias that is none', { aliases: ['a b'] }, 'request.invalid', 'a b'],
    [
      'too many backends',
      { backends: Array.from({ length: 1_025 }, (_, n) => ({ address: '192.0.2.1', port: n + 1 })) },
      'request.invalid',
      '1024',
    ],
  ])('refuses %s, and leaves nothing', async (_, request, code, words) => {
    const before = await world.keys();
    const error = await refused(make('shop', request));
    expect(error).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(await world.keys()).toEqual(before);
  });

  test('the same port of tcp and udp, and the same name of both, are fine', async () => {
    const ports = [
      { name: 'dns', port: 53 },
      { name: 'dns', port: 53, protocol: 'udp' as const },
    ];
    expect((await make('dns', { ports })).spec.ports).toHaveLength(2);
  });

  test('put again: the same changes nothing, ports, backends, aliases and labels follow', async () => {
    const request = { ports: [{ port: 80 }], backends: [{ sandbox: 'a' }], labels: { x: '1', y: '2' }, aliases: ['s'] };
    const first = await make('shop', request);
    expect(await make('shop', { ...request, labels: { y: '2', x: '1' } })).toEqual(first);
    expect(
      await make('shop', { ...request, ips: first.spec.vips, ports: [{ port: 80, target: 80, protocol: 'tcp' }] }),
    ).toEqual(first);
    const changed = await make('shop', { ports: [{ port: 81 }], backends: [{ sandbox: 'b' }] });
    expect(changed).toMatchObject({
      id: first.id,
      labels: {},
      spec: { vips: first.spec.vips, ports: [{ port: 81 }], backends: [{ sandbox: ids.b }], aliases: [] },
    });
    expect(changed.revision).toBeGreaterThan(first.revision);
    for (const other of [{ network: 'db' }, { ips: ['10.20.0.9'] }, { ips: [first.spec.vips[0]!] }])
      expect((await refused(make('shop', { ...other, backends: [] }))).code).toBe('object.exists');
    expect((await refused(services.put('shop', { network: 'web' }, { create: true }))).code).toBe('object.exists');
    for (const bad of [
      { aliases: ['a b'] },
      { ports: [{ port: 0 }] },
      { backends: [{ address: first.spec.vips[0]! }] },
    ])
      await refused(make('shop', bad));
    expect(await services.get('shop')).toEqual(changed);
  });

  test('update: additions first, then removals; twice changes nothing', async () => {
    await make('shop', { backends: [{ sandbox: 'a' }, { sandbox: 'a', port: 81 }, { address: '192.0.2.1' }] });
    const update = async (add: BackendRequest[], remove: BackendRequest[]) =>
      services.update('shop', { addBackends: add, removeBackends: remove });
    const grown = await update([{ sandbox: 'b' }, { sandbox: 'b' }, { sandbox: 'a' }], []);
    expect(grown.spec.backends).toEqual([
      { sandbox: ids.a },
      { sandbox: ids.a, port: 81 },
      { address: '192.0.2.1' },
      { sandbox: ids.b },
    ]);
    expect(await update([{ sandbox: 'b' }], [])).toEqual(grown);
    expect(await update([], [])).toEqual(grown);
    expect((await update([], [{ sandbox: 'a', port: 81 }])).spec.backends).toHaveLength(3);
    // Without a port: whatever its port.
    await update([{ sandbox: 'a', port: 82 }], []);
    expect((await update([], [{ sandbox: ids.a! }])).spec.backends).toEqual([
      { address: '192.0.2.1' },
      { sandbox: ids.b },
    ]);
    expect((await update([{ sandbox: 'c' }], [{ sandbox: 'c' }, { sandbox: 'b' }])).spec.backends).toEqual([
      { address: '192.0.2.1' },
    ]);
    for (const [add, remove, code, words] of [
      [[], [{ sandbox: 'c' }], 'service.backend', 'c is not a backend of service shop'],
      [[], [{ address: '192.0.2.1', port: 9 }], 'service.backend', '192.0.2.1 port 9'],
      [[], [{ sandbox: 'nope' }], 'object.notfound', 'nope'],
      [[{ sandbox: 'far' }], [], 'service.backend', 'far'],
    ] as [BackendRequest[], BackendRequest[], string, string][])
      expect(await refused(update(add, remove))).toMatchObject({ code, message: expect.stringContaining(words) });
    expect((await refused(services.update('nope', {}))).code).toBe('object.notfound');
    // One that has left the network can still be taken out.
    await update([{ sandbox: 'b' }], []);
    await world.desired.endpoints.disconnect('b', 'web');
    expect((await update([], [{ sandbox: 'b' }])).spec.backends).toEqual([{ address: '192.0.2.1' }]);
    await refused(update([{ sandbox: 'b' }], []));
  });

  test('50 updates at once are all in, also from two daemons', async () => {
    await make('shop');
    await Promise.all(
      Array.from({ length: 50 }, (_, n) => services.update('shop', { addBackends: [{ address: `192.0.2.${n + 1}` }] })),
    );
    await Promise.all(
      [services, world.other.services].map((each, n) =>
        each.update('shop', { addBackends: [{ address: `198.51.100.${n + 1}` }] }),
      ),
    );
    expect((await services.get('shop')).spec.backends).toHaveLength(52);
  });

  test('removal frees its name at once, its VIPs when it is forgotten', async () => {
    const shop = await make('shop', { backends: [{ sandbox: 'a' }] });
    const removing = await services.remove('shop');
    expect(removing).toMatchObject({ id: shop.id, removing: true });
    expect(await services.remove(shop.id)).toEqual(removing);
    expect((await refused(services.update(shop.id, {}))).code).toBe('object.removing');
    expect((await refused(make('next', { ips: ['10.20.0.254'] }))).message).toContain('service shop');
    await world.check();
    await services.forget(removing);
    await services.forget(removing);
    expect((await make('next', { ips: ['10.20.0.254'] })).spec.vips).toEqual(['10.20.0.254']);
    expect((await refused(services.get('shop'))).code).toBe('object.notfound');
  });

  test('a service and a sandbox of one name are two things', async () => {
    expect((await make('a')).name).toBe('a');
    expect((await world.desired.sandboxes.get('a')).id).toBe(ids.a);
  });
});
