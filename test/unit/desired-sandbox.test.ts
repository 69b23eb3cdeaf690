import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { AttachmentRequest, SandboxRequest } from '../../src/model/request.ts';
import { ACTOR, makeWorld, NODE, refused, type World } from './desired-world.ts';

describe.each(['memory', 'sqlite'] as const)('sandboxes and endpoints, on %s', (kind) => {
  let world: World;
  let sandboxes: World['desired']['sandboxes'];
  let endpoints: World['desired']['endpoints'];
  let networks: World['desired']['networks'];
  beforeEach(async () => {
    world = await makeWorld(kind);
    ({ sandboxes, endpoints, networks } = world.desired);
    await networks.ensureBuiltin();
    await networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }, { cidr: 'fd20::/64' }] });
    await networks.put('db', { subnets: [{ cidr: '10.30.0.0/24', range: '10.30.0.64/26' }] });
    await networks.put('six', { ipv4: false, subnets: [{ cidr: 'fd66::/64' }] });
  });
  afterEach(async () => {
    await world.check();
    await world.close();
  });
  const on = (...list: (string | AttachmentRequest)[]): SandboxRequest => ({
    networks: list.map((one) => (typeof one === 'string' ? { network: one } : one)),
  });
  const make = async (name: string, request: SandboxRequest = {}) => (await sandboxes.put(name, request)).object;
  const placesOf = async (sandbox: string) =>
    (await endpoints.list({ sandbox })).map(({ name, spec }) => [name, ...spec.addresses]).sort();

  test('a sandbox and its endpoints are one transaction, by whom it was asked', async () => {
    const { object, created } = await sandboxes.put(
      'box',
      {
        ...on({ network: 'web', aliases: ['api', 'api'], allow: ['10.9.8.7/24'], ifname: 'lan0', gwPriority: 5 }, 'db'),
        hostname: 'boxy',
        sysctls: { 'net.ipv4.ip_forward': '1' },
        dns: { servers: ['9.9.9.9'] },
        labels: { a: 'b' },
      },
      { actor: ACTOR },
    );
    expect(created).toBe(true);
    expect(object).toMatchObject({
      kind: 'sandbox',
      owner: NODE,
      labels: { a: 'b' },
      spec: { origin: 'own', hostname: 'boxy', sysctls: { 'net.ipv4.ip_forward': '1' }, dns: { servers: ['9.9.9.9'] } },
    });
    const [db, web] = (await endpoints.list()).sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(web).toMatchObject({
      name: 'box.web',
      owner: NODE,
      revision: object.revision,
      spec: {
        sandbox: object.id,
        network: (await networks.get('web')).id,
        addresses: ['10.20.0.2/24', 'fd20::2/64'],
        mac: '02:42:0a:14:00:02',
        aliases: ['api'],
        allow: ['10.9.8.0/24'],
        ifname: 'lan0',
        gwPriority: 5,
      },
    });
    expect(db).toMatchObject({ name: 'box.db', revision: object.revision, spec: { addresses: ['10.30.0.65/24'] } });
    for (const topic of [`node/${NODE}`, `network/${web!.spec.network}`, `network/${db!.spec.network}`]) {
      const events = world.store.watch(topic, object.revision - 1, new AbortController().signal);
      const { value } = await events[Symbol.asyncIterator]().next();
      expect(value).toMatchObject({ type: 'change', change: { revision: object.revision, actor: ACTOR } });
    }
  });

  test('without networks it is on bridge; attached ones are on none; none and host have no endpoint', async () => {
    await make('plain');
    expect(await placesOf('plain')).toEqual([['plain.bridge', '172.17.0.2/16']]);
    expect((await make('foreign', { attach: '/run/netns/x' })).spec).toMatchObject({
      origin: 'attached',
      netns: '/run/netns/x',
    });
    expect((await make('alone', on('none'))).spec.origin).toBe('own');
    expect((await make('empty', { networks: [] })).spec.origin).toBe('own');
    expect((await make('host', on('host'))).spec.origin).toBe('host');
    for (const name of ['foreign', 'alone', 'empty', 'host']) expect(await placesOf(name)).toEqual([]);
    await make('both', { attach: '/run/netns/y', ...on('web') });
    expect(await placesOf('both')).toHaveLength(1);
  });

  test('a MAC is derived from the address, or the id of an endpoint that has only IPv6, or given', async () => {
    await make('a', on({ network: 'six' }));
    await make('b', on({ network: 'web', ip: '10.20.0.77', ip6: 'FD20::0:77', mac: '02:AA:bb:00:00:01' }));
    const [a] = await endpoints.list({ sandbox: 'a' });
    expect(a!.spec.mac).toBe(`02:43:${a!.id.slice(0, 8).match(/../g)!.join(':')}`);
    const [b] = await endpoints.list({ sandbox: 'b' });
    expect(b!.spec).toMatchObject({ addresses: ['10.20.0.77/24', 'fd20::77/64'], mac: '02:aa:bb:00:00:01' });
    expect(await refused(sandboxes.put('c', on({ network: 'web', mac: '02:aa:bb:00:00:01' })))).toMatchObject({
      code: 'address.inuse',
      message: expect.stringContaining('b.web'),
    });
  });

  test.each<[string, SandboxRequest, string, string]>([
    ['an unknown network', on('nope'), 'object.notfound', 'nope'],
    ['a network twice', on('web', 'web'), 'request.invalid', 'web'],
    ['host beside others', on('host', 'web'), 'request.invalid', 'host'],
    ['none beside others', on('web', 'none'), 'request.invalid', 'none'],
    ['host for somebody else’s namespace', { attach: '/x', ...on('host') }, 'request.invalid', '/x'],
    ['an address on none', on({ network: 'none', ip: '10.0.0.1' }), 'request.invalid', 'ip'],
    ['an address outside', on({ network: 'web', ip: '10.21.0.1' }), 'address.outside', '10.21.0.1'],
    ['an IPv6 address outside', on({ network: 'db', ip6: 'fd20::9' }), 'address.outside', 'fd20::9'],
    ['IPv6 where IPv4 belongs', on({ network: 'web', ip: 'fd20::9' }), 'request.invalid', 'fd20::9'],
    ['IPv4 where IPv6 belongs', on({ network: 'web', ip6: '10.20.0.9' }), 'request.invalid', '10.20.0.9'],
    ['the gateway’s address', on({ network: 'web', ip: '10.20.0.1' }), 'address.inuse', 'network web (gateway)'],
    ['the broadcast address', on({ network: 'web', ip: '10.20.0.255' }), 'address.outside', 'broadcast'],
    ['no MAC address', on({ network: 'web', mac: '02:42' }), 'request.invalid', '02:42'],
    ['a multicast MAC address', on({ network: 'web', mac: '03:42:00:00:00:01' }), 'request.invalid', '03:42'],
    ['nobody’s MAC address', on({ network: 'web', mac: '00:00:00:00:00:00' }), 'request.invalid', '00:00'],
    ['a long interface name', on({ network: 'web', ifname: 'x'.repeat(16) }), 'request.invalid', 'xxx'],
    ['the loopback’s name', on({ network: 'web', ifname: 'lo' }), 'request.invalid', '"lo"'],
    [
      'two interfaces of one name',
      on({ network: 'web', ifname: 'a' }, { network: 'db', ifname: 'a' }),
      'request.invalid',
      'a',
    ],
    ['a prefix that is none', on({ network: 'web', allow: ['10.0.0.0'] }), 'request.invalid', '10.0.0.0'],
    ['an alias that is none', on({ network: 'web', aliases: ['a b'] }), 'request.invalid', 'a b'],
    [
      'too many networks',
      { networks: Array.from({ length: 65 }, () => ({ network: 'web' })) },
      'request.invalid',
      '64',
    ],
    ['a relative path', { attach: 'run/x' }, 'request.invalid', 'run/x'],
    ['a sysctl of the host', { sysctls: { 'kernel.panic': '1' } }, 'request.invalid', 'kernel.panic'],
    ['a sysctl that climbs', { sysctls: { 'net.../../kernel': '1' } }, 'request.invalid', 'net...'],
  ])('refuses %s, and leaves nothing', async (_, request, code, words) => {
    const before = await world.keys();
    const error = await refused(sandboxes.put('box', request));
    expect(error).toMatchObject({ code, message: expect.stringContaining(words) });
    expect(await world.keys()).toEqual(before);
  });

  test('networks that overlap cannot be told apart', async () => {
    await networks.put('mesh', { driver: 'wide', subnets: [{ cidr: '10.77.1.0/24' }] });
    await networks.put('wide', { driver: 'wide', subnets: [{ cidr: '10.77.0.0/16' }] });
    const error = await refused(sandboxes.put('box', on('mesh', 'wide')));
    expect(error).toMatchObject({ code: 'network.overlap', message: expect.stringMatching(/wide.*mesh/) });
    await make('box', on('mesh'));
    expect((await refused(endpoints.connect('box', { network: 'wide' }))).code).toBe('network.overlap');
    // Off the first it may be on the second.
    await endpoints.disconnect('box', 'mesh');
    await endpoints.connect('box', { network: 'wide' });
  });

  test('put again is the same, and whatever differs is refused', async () => {
    const request: SandboxRequest = {
      ...on({ network: 'web', ip: '10.20.0.9', aliases: ['b', 'a'], allow: ['10.1.0.0/16'] }, 'db'),
      hostname: 'h',
      sysctls: { 'net.a': '1', 'net.b': '2' },
      labels: { x: 'y' },
      dns: { servers: ['1.1.1.1'], search: ['s'] },
    };
    const first = await make('box', request);
    const same: SandboxRequest[] = [
      request,
      { ...request, networks: undefined },
      { ...request, sysctls: { 'net.b': '2', 'net.a': '1' } },
      { ...request, ...on({ network: 'web', aliases: ['a', 'b', 'a'], allow: ['10.1.2.3/16'] }) },
    ];
    for (const again of same) expect(await sandboxes.put('box', again)).toEqual({ object: first, created: false });
    await endpoints.connect('box', { network: 'bridge' });
    expect((await sandboxes.put('box', request)).created).toBe(false);
    const others: SandboxRequest[] = [
      { ...request, hostname: 'i' },
      { ...request, sysctls: {} },
      { ...request, labels: {} },
      { ...request, dns: { servers: ['1.1.1.1'] } },
      { ...request, attach: '/run/netns/x' },
      { ...request, ...on({ network: 'web', ip: '10.20.0.8', aliases: ['a', 'b'], allow: ['10.1.0.0/16'] }) },
      { ...request, ...on({ network: 'web', aliases: ['a'], allow: ['10.1.0.0/16'] }) },
      { ...request, ...on({ network: 'web', aliases: ['a', 'b'] }) },
      { ...request, ...on({ network: 'db', gwPriority: 1 }) },
      { ...request, ...on({ network: 'db', mac: '02:00:00:00:00:09' }) },
      { ...request, ...on({ network: 'db', ifname: 'x' }) },
      { ...request, ...on('six') },
      { ...request, ...on('host') },
    ];
    for (const other of others)
      expect(await refused(sandboxes.put('box', other)), JSON.stringify(other)).toMatchObject({
        code: 'object.exists',
        message: expect.stringContaining('box'),
      });
    expect((await refused(sandboxes.put('box', { ...request, ...on('nope') }))).code).toBe('object.notfound');
    expect((await refused(sandboxes.put('box', request, { create: true }))).code).toBe('object.exists');
    expect((await sandboxes.get('box')).revision).toBe(first.revision);
  });

  test('an address in use names the endpoint, and a full network itself', async () => {
    await networks.put('tiny', { subnets: [{ cidr: '10.81.0.0/30' }] });
    await make('first', on({ network: 'tiny' }));
    expect(await refused(sandboxes.put('second', on({ network: 'tiny', ip: '10.81.0.2' })))).toMatchObject({
      code: 'address.inuse',
      message: expect.stringContaining('endpoint first.tiny'),
      details: { name: 'first.tiny' },
    });
    expect(await refused(sandboxes.put('second', on('tiny')))).toMatchObject({
      code: 'address.exhausted',
      message: expect.stringContaining('tiny'),
    });
    // What it had leased on its way through web is given back.
    expect((await refused(sandboxes.put('second', on('web', 'tiny')))).code).toBe('address.exhausted');
    await world.check();
    await sandboxes.remove('first');
    await world.settle();
    await make('second', on('web', 'tiny'));
  });

  test('connect and disconnect', async () => {
    const box = await make('box', on('web'));
    const { object, created } = await endpoints.connect('box', { network: 'db', ip: '10.30.0.5', aliases: ['store'] });
    expect(created).toBe(true);
    expect(object).toMatchObject({ name: 'box.db', spec: { addresses: ['10.30.0.5/24'], aliases: ['store'] } });
    expect(await endpoints.connect(box.id, { network: 'db', aliases: ['store'] })).toEqual({ object, created: false });
    for (const other of [{ ip: '10.30.0.6' }, { aliases: ['x'] }, { aliases: ['store'], gwPriority: 3 }])
      expect(await refused(endpoints.connect('box', { network: 'db', ...other }))).toMatchObject({
        code: 'object.exists',
        message: expect.stringMatching(/box.*db/),
      });
    expect((await refused(endpoints.connect('box', { network: 'six', ifname: 'lo' }))).code).toBe('request.invalid');
    const gone = await endpoints.disconnect('box', 'db');
    expect(gone).toMatchObject({ id: object.id, removing: true });
    expect(gone.revision).toBeGreaterThan(object.revision);
    expect(await refused(endpoints.disconnect('box', 'db'))).toMatchObject({
      code: 'object.notfound',
      message: 'sandbox box is not on network db',
    });
    // Its place is free, its address not before the link is gone.
    expect((await refused(endpoints.connect('box', { network: 'db', ip: '10.30.0.5' }))).message).toContain('box.db');
    const again = await endpoints.connect('box', { network: 'db' });
    expect(again.created).toBe(true);
    await world.check();
    await world.settle();
    await endpoints.forget(gone);
    expect((await endpoints.get('box/db')).id).toBe(again.object.id);
    expect(await placesOf('box')).toEqual([
      ['box.db', '10.30.0.65/24'],
      ['box.web', '10.20.0.2/24', 'fd20::2/64'],
    ]);
  });

  test('what is the host cannot be connected, nor anything to host or none', async () => {
    await make('host', on('host'));
    await make('box', on('none'));
    expect(await refused(endpoints.connect('host', { network: 'web' }))).toMatchObject({ code: 'request.invalid' });
    for (const network of ['host', 'none'])
      expect(await refused(endpoints.connect('box', { network }))).toMatchObject({ code: 'request.invalid' });
    await endpoints.connect('box', { network: 'web' });
  });

  test('an endpoint is found by sandbox and network, name, id and the beginning of an id', async () => {
    await networks.put('b.c', { subnets: [{ cidr: '10.40.0.0/24' }] });
    await networks.put('c', { subnets: [{ cidr: '10.41.0.0/24' }] });
    await make('a', on('b.c'));
    await make('a.b', on('c'));
    const [one, two] = await Promise.all([endpoints.get('a/b.c'), endpoints.get('a.b/c')]);
    // Two with the same name, each with its own place.
    expect(one!.name).toBe(two!.name);
    expect(one!.id).not.toBe(two!.id);
    expect([one!.id, two!.id]).toContain((await endpoints.get('a.b.c')).id);
    expect((await endpoints.get(one!.id.slice(0, 12))).id).toBe(one!.id);
    expect(await endpoints.list({ network: 'c' })).toEqual([two]);
    expect(await endpoints.list({ sandbox: 'a', network: 'c' })).toEqual([]);
    for (const ref of ['a/c', 'a.x', 'nope', '', '/', 'f'.repeat(64)])
      expect((await refused(endpoints.get(ref))).code).toBe('object.notfound');
    expect((await refused(endpoints.list({ sandbox: 'nope' }))).code).toBe('object.notfound');
  });

  test('removal marks it and its endpoints, and forgetting frees all', async () => {
    const box = await make('box', on('web', 'db'));
    const removing = await sandboxes.remove('box');
    expect(removing).toMatchObject({ id: box.id, removing: true });
    expect(removing.revision).toBeGreaterThan(box.revision);
    expect((await endpoints.list()).map((one) => [one.removing, one.revision])).toEqual([
      [true, removing.revision],
      [true, removing.revision],
    ]);
    expect(await sandboxes.remove(box.id)).toEqual(removing);
    for (const work of [
      endpoints.connect(box.id, { network: 'six' }),
      world.desired.services.put('shop', { network: 'web', backends: [{ sandbox: box.id }] }),
    ])
      expect(await refused(work)).toMatchObject({ code: 'object.removing', message: expect.stringContaining('box') });
    const successor = await make('box', on('web'));
    await world.check();
    await world.settle();
    expect(await sandboxes.list()).toEqual([successor]);
    await sandboxes.forget(removing);
    await world.check();
    expect((await sandboxes.get('box')).id).toBe(successor.id);
  });

  test('a backend is not removed, and with force leaves its services in the same moment', async () => {
    await make('one', on('web'));
    await make('two', on('web'));
    const { services } = world.desired;
    const backends = [{ sandbox: 'one', port: 81 }, { sandbox: 'one' }, { sandbox: 'two' }, { address: '10.9.9.9' }];
    await services.put('shop', { network: 'web', backends });
    await services.put('bank', { network: 'web', backends: [{ sandbox: 'one' }] });
    await services.put('none', { network: 'web' });
    const untouched = await services.get('none');
    expect(await refused(sandboxes.remove('one'))).toMatchObject({
      code: 'object.inuse',
      message: expect.stringMatching(/one is a backend of (shop, bank|bank, shop)/),
    });
    const { id, revision } = await sandboxes.remove('one', { force: true, actor: ACTOR });
    const two = await sandboxes.get('two');
    expect((await services.get('shop')).spec.backends).toEqual([{ sandbox: two.id }, { address: '10.9.9.9' }]);
    expect((await services.get('bank')).spec.backends).toEqual([]);
    expect((await services.get('shop')).revision).toBe(revision);
    expect((await endpoints.list({ sandbox: id }))[0]!.revision).toBe(revision);
    expect(await services.get('none')).toEqual(untouched);
    // A service that is being removed holds nobody.
    await services.put('late', { network: 'web', backends: [{ sandbox: 'two' }] });
    await services.update('shop', { removeBackends: [{ sandbox: 'two' }] });
    await services.remove('late');
    await sandboxes.remove('two');
  });

  test('40 removals by force of one service’s backends at once', async () => {
    const names = Array.from({ length: 40 }, (_, n) => `b${n}`);
    await Promise.all(names.map((name) => make(name, on('web'))));
    const { services } = world.desired;
    await services.put('shop', { network: 'web', backends: names.map((sandbox) => ({ sandbox })) });
    await Promise.all(names.map((name) => sandboxes.remove(name, { force: true })));
    expect((await services.get('shop')).spec.backends).toEqual([]);
    await world.settle();
    expect(await sandboxes.list()).toEqual([]);
  });

  test('many at once under one name make one, on two daemons', async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 40 }, (_, n) => (n % 2 ? world.desired : world.other).sandboxes.put('box', on('web', 'db'))),
    );
    expect(new Set(outcomes.map(({ object }) => object.id)).size).toBe(1);
    expect(outcomes.filter(({ created }) => created)).toHaveLength(1);
    const places = await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        (n % 2 ? world.desired : world.other).endpoints.connect('box', { network: 'six' }),
      ),
    );
    expect(new Set(places.map(({ object }) => object.id)).size).toBe(1);
  });
});
