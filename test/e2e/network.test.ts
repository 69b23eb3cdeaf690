import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FAR } from '../../src/lab/lab.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { FAMILIES, inside, sandbox } from './traffic.ts';

interface NetworkView {
  name: string;
  spec: { driver: string; subnets: { cidr: string; gateway?: string }[] };
  status: { conditions: { type: string; active: boolean; message: string }[]; detail: { ifname: string; mtu: number } };
}

let host: TestHost;
beforeAll(async () => {
  host = await openHost({ name: 'net' });
});
afterAll(() => host.close());

describe('networks', () => {
  test('bridge, host and none exist at start and cannot be removed', async () => {
    const names = (await host.json<NetworkView[]>('network', 'ls')).map(({ name }) => name);
    expect(names).toEqual(expect.arrayContaining(['bridge', 'host', 'none']));
    for (const name of ['bridge', 'host', 'none'])
      expect((await host.sluice(['network', 'rm', name])).stderr).toContain('network.builtin');
  });

  test('automatic subnets avoid each other and the routes of the host', async () => {
    await host.must('ip route add 172.18.0.0/16 dev lo');
    await host.cli('network', 'create', 'auto1');
    await host.cli('network', 'create', 'auto2');
    const networks = await host.json<NetworkView[]>('network', 'ls');
    const subnets = networks.flatMap(({ spec }) => spec.subnets.map(({ cidr }) => cidr));
    expect(new Set(subnets).size).toBe(subnets.length);
    expect(subnets).not.toContain('172.18.0.0/16');
    await host.cli('network', 'rm', 'auto1', 'auto2');
    await host.must('ip route del 172.18.0.0/16 dev lo');
  });

  test.each([
    ['a subnet that overlaps', ['--subnet', '10.77.0.0/25'], 'network.overlap'],
    ['a malformed subnet', ['--subnet', '10.0.0.0/33'], 'request.invalid'],
    ['a gateway outside', ['--subnet', '10.78.0.0/24', '--gateway', '10.79.0.1'], 'address.outside'],
    ['an unknown driver', ['--driver', 'carrier-pigeon'], 'driver.unknown'],
    ['an unknown option', ['-o', 'color=red'], 'request.invalid'],
    ['a name that exists', [], 'object.exists'],
  ])('%s is refused with its code, and leaves nothing', async (what, flags, code) => {
    if (!(await host.json<NetworkView[]>('network', 'ls')).some(({ name }) => name === 'taken'))
      await host.cli('network', 'create', 'taken', '--subnet', '10.77.0.0/24');
    const before = await host.must('ip -o link');
    const result = await host.sluice(['network', 'create', what.includes('exists') ? 'taken' : 'refused', ...flags]);
    expect(result.code).toBe(1);
    expect(result.stderr).toContain(code);
    expect(await host.must('ip -o link')).toBe(before);
  });

  test('a network in use is not removed, and its endpoints are named', async () => {
    await host.cli('network', 'create', 'busy', '--subnet', '10.80.0.0/29');
    await host.cli('sandbox', 'create', 'user', '--network', 'busy');
    const refused = await host.sluice(['network', 'rm', 'busy']);
    expect(refused.stderr).toContain('object.inuse');
    expect(refused.stderr).toContain('user');
    await host.cli('sandbox', 'rm', 'user');
    await host.cli('network', 'rm', 'busy');
  });

  test('an exhausted pool and an address in use', async () => {
    await host.cli('network', 'create', 'tiny', '--subnet', '10.81.0.0/30');
    await host.cli('sandbox', 'create', 't1', '--network', 'tiny');
    expect((await host.sluice(['sandbox', 'create', 't2', '--network', 'tiny'])).stderr).toContain('address.exhausted');
    expect((await host.sluice(['sandbox', 'create', 't3', '--network', 'tiny', '--ip', '10.81.0.2'])).stderr).toContain(
      'address.inuse',
    );
    await host.cli('sandbox', 'rm', 't1');
    await host.cli('network', 'rm', 'tiny');
  });

  test('MTU, labels, address range and reserved addresses', async () => {
    await host.cli(
      'network',
      'create',
      'fine',
      '--subnet',
      '10.82.0.0/24',
      '--ip-range',
      '10.82.0.128/25',
      '--aux-address',
      'router=10.82.0.129',
      '--mtu',
      '1400',
      '--label',
      'tier=web',
    );
    const [network] = await host.json<[NetworkView & { labels: Record<string, string> }]>('network', 'inspect', 'fine');
    expect(network.labels).toEqual({ tier: 'web' });
    const box = await sandbox(host, 'ranged', '--network', 'fine');
    expect(box.ipv4).toMatch(/^10\.82\.0\.1[3-9]\d$/);
    expect((await box.exec('ip -o link show eth0')).stdout).toContain('mtu 1400');
    await host.cli('sandbox', 'rm', 'ranged');
    await host.cli('network', 'rm', 'fine');
  });
});

describe.each(FAMILIES)('traffic over $family', ({ flags, v4, v6, family }) => {
  const tag = family.replace(/\W/g, '').toLowerCase();
  const web = `web${tag}`;

  beforeAll(async () => {
    await host.cli('network', 'create', web, ...flags);
  });
  afterAll(async () => {
    await host.cli('network', 'rm', web);
  });

  test('sandboxes of a network reach each other and the world outside, which sees the host', async () => {
    const a = await sandbox(host, `a${tag}`, '--network', web);
    const b = await sandbox(host, `b${tag}`, '--network', web);
    const server = await b.serve(80);
    for (const address of b.addresses) expect(await a.ask(address, 80)).toBe(`b${tag} hello ${address}`);
    expect([Boolean(a.ipv4), Boolean(a.ipv6)]).toEqual([v4, v6]);
    if (v4) expect(await a.ping(FAR.ipv4)).toBe(true);
    if (v6) expect(await a.ping(FAR.ipv6)).toBe(true);
    await server.stop();
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
  });

  test('another network is not reached, nor its gateway, and nobody comes in from outside unasked', async () => {
    const subnets = flags.flatMap((flag, i) =>
      flags[i - 1] === '--subnet'
        ? ['--subnet', flag.replace('10.20.', '10.21.').replace('fd00:20:', 'fd00:21:')]
        : flag === '--subnet'
          ? []
          : [flag],
    );
    await host.cli('network', 'create', `far${tag}`, ...subnets);
    const a = await sandbox(host, `a${tag}`, '--network', web);
    const b = await sandbox(host, `b${tag}`, '--network', `far${tag}`);
    const server = await b.serve(80);
    const gateways = (await host.json<[NetworkView]>('network', 'inspect', `far${tag}`))[0].spec.subnets.map(
      ({ gateway }) => gateway!,
    );
    for (const address of b.addresses)
      expect(await a.ask(address, 80)).toMatch(/^error: (timeout|EHOSTUNREACH|ENETUNREACH)$/);
    for (const gateway of gateways) expect(await a.ping(gateway)).toBe(false);
    // The host itself reaches them.
    for (const address of b.addresses) expect((await host.exec(['ping', '-c1', '-W1', address])).code).toBe(0);
    await host.outside.must(
      `ip route add 10.21.0.0/24 via ${host.address}; ip -6 route add fd00:21::/64 via ${host.address6}`,
    );
    for (const address of b.addresses)
      expect((await host.outside.exec(['ping', '-c1', '-W1', address])).code).not.toBe(0);
    await host.outside.must('ip route del 10.21.0.0/24; ip -6 route del fd00:21::/64');
    await server.stop();
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
    await host.cli('network', 'rm', `far${tag}`);
  });

  test('an internal network has no way out', async () => {
    const subnets = flags.map((flag) => flag.replace('10.20.', '10.22.').replace('fd00:20:', 'fd00:22:'));
    await host.cli('network', 'create', `int${tag}`, '--internal', ...subnets);
    const a = await sandbox(host, `a${tag}`, '--network', `int${tag}`);
    const b = await sandbox(host, `b${tag}`, '--network', `int${tag}`);
    for (const address of b.addresses) expect(await a.ping(address)).toBe(true);
    for (const far of [v4 && FAR.ipv4, v6 && FAR.ipv6]) {
      if (!far) continue;
      expect(await a.ping(far)).toBe(false);
      // Not even with a route of its own.
      const gateway = (await host.json<[NetworkView]>('network', 'inspect', `int${tag}`))[0].spec.subnets
        .map((subnet) => subnet.gateway)
        .find((one) => one?.includes(':') === far.includes(':'));
      if (gateway) await a.exec(`ip route replace default via ${gateway}`);
      expect(await a.ping(far)).toBe(false);
      expect(await a.ping(far.includes(':') ? host.address6 : host.address)).toBe(false);
    }
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
    await host.cli('network', 'rm', `int${tag}`);
  });

  test('connect and disconnect', async () => {
    const subnets = flags.map((flag) => flag.replace('10.20.', '10.23.').replace('fd00:20:', 'fd00:23:'));
    await host.cli('network', 'create', `two${tag}`, ...subnets);
    await host.cli('sandbox', 'create', `a${tag}`, '--network', web);
    await host.cli('network', 'connect', `two${tag}`, `a${tag}`, '--network-alias', 'second');
    const b = await sandbox(host, `b${tag}`, '--network', `two${tag}`);
    const a = await inside(host, `a${tag}`);
    for (const address of b.addresses) expect(await a.ping(address)).toBe(true);
    expect((await a.exec('ip -o link')).stdout).toContain('eth1');
    await host.cli('network', 'disconnect', `two${tag}`, `a${tag}`);
    expect((await a.exec('ip -o link')).stdout).not.toContain('eth1');
    for (const address of b.addresses) expect(await a.ping(address)).toBe(false);
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
    await host.cli('network', 'rm', `two${tag}`);
  });
});

describe('beside other firewalls', () => {
  test("Docker's FORWARD chain is named with the fix, which lifts the condition", async () => {
    await host.must(
      [
        'iptables -w -N DOCKER-USER',
        'iptables -w -P FORWARD DROP',
        'iptables -w -A FORWARD -j DOCKER-USER',
        'iptables -w -A DOCKER-USER -j RETURN',
        'echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || true',
      ].join(' && '),
    );
    const created = await host.sluice(['network', 'create', 'blocked', '--subnet', '10.90.0.0/24']);
    expect(created.code).toBe(0);
    expect(created.stderr).toContain('ForwardBlocked');
    expect(created.stderr).toContain('FORWARD');
    expect(created.stderr).toContain('ip filter');
    const fix = /(iptables -I DOCKER-USER -i \S+ -j ACCEPT; iptables -I DOCKER-USER -o \S+ -j ACCEPT)/.exec(
      created.stderr,
    )?.[1];
    expect(fix).toBeDefined();
    const a = await sandbox(host, 'ba', '--network', 'blocked');
    expect(await a.ping(FAR.ipv4)).toBe(false);
    await host.must(fix!);
    expect(await a.ping(FAR.ipv4)).toBe(true);
    const cleared = async () =>
      (await host.json<[NetworkView]>('network', 'inspect', 'blocked'))[0].status.conditions.find(
        ({ type }) => type === 'ForwardBlocked',
      )?.active === false;
    await eventually(cleared, 10_000);
    await host.must(
      'iptables -w -P FORWARD ACCEPT; iptables -w -F FORWARD; iptables -w -F DOCKER-USER; iptables -w -X DOCKER-USER',
    );
    await host.cli('sandbox', 'rm', 'ba');
    await host.cli('network', 'rm', 'blocked');
  });

  test("nobody else's table is touched", async () => {
    await host.must(
      'nft add table inet foreign && nft add chain inet foreign c && nft add rule inet foreign c counter',
    );
    const before = await host.must('nft list table inet foreign');
    await host.cli('network', 'create', 'n1');
    await host.cli('network', 'rm', 'n1');
    expect(await host.must('nft list table inet foreign')).toBe(before);
  });
});
