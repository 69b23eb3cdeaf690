import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, openHost, type TestHost } from './harness.ts';
import { FAMILIES, inside, PYTHON, sandbox } from './traffic.ts';

let host: TestHost;
beforeAll(async () => {
  // An audit gives an endpoint its own MAC and address back, between two commands on a slow machine.
  host = await openHost({ name: 'box', settings: { auditSeconds: 600 } });
});
afterAll(() => host.close());

interface EndpointView {
  id: string;
  name: string;
  spec: { mac: string };
  drops?: Record<string, number>;
  status: { detail: { drops?: Record<string, number> } };
}
const drops = async (name: string): Promise<Record<string, number>> => {
  const [endpoint] = await host.json<[EndpointView]>('endpoint', 'inspect', name);
  return endpoint.status.detail.drops ?? {};
};

describe('sandboxes', () => {
  test('exec runs a host program inside, with our resolv.conf and the exit status of the program', async () => {
    await host.cli('network', 'create', 'web', '--subnet', '10.20.0.0/24');
    await host.cli('sandbox', 'create', 'box', '--network', 'web', '--hostname', 'box');
    expect(await host.cli('sandbox', 'exec', 'box', 'ip', '-4', '-o', 'addr', 'show', 'eth0')).toContain('10.20.0.');
    expect(await host.cli('sandbox', 'exec', 'box', 'cat', '/etc/resolv.conf')).toMatch(/^nameserver 127\.0\.0\.11$/m);
    expect((await host.exec('cat /etc/resolv.conf')).stdout).not.toContain('127.0.0.11');
    expect((await host.sluice(['sandbox', 'exec', 'box', 'sh', '-c', 'exit 42'])).code).toBe(42);
    expect((await host.sluice(['sandbox', 'exec', 'box', 'no-such-program'])).code).toBe(127);
    expect((await host.sluice(['sandbox', 'exec', 'nobox', 'true'])).code).toBe(125);
    await host.cli('sandbox', 'rm', 'box');
  });

  test('ports below 1024 need no privilege', async () => {
    await host.cli('sandbox', 'create', 'low', '--network', 'web');
    const code = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 80)); print('bound')";
    expect(
      await host.cli(
        'sandbox',
        'exec',
        'low',
        'setpriv',
        '--reuid=65534',
        '--clear-groups',
        '--inh-caps=-all',
        '--bounding-set=-all',
        PYTHON,
        '-c',
        code,
      ),
    ).toBe('bound');
    await host.cli('sandbox', 'rm', 'low');
  });

  test('a namespace that somebody else made is taken in, keeps its default route and its files, and is let go', async () => {
    const path = `/run/netns/${host.instance}x`;
    await host.must(`ip netns add ${host.instance}x && ip -n ${host.instance}x link set lo up`);
    try {
      await host.must(
        `ip -n ${host.instance}x link add veth9 type veth peer name veth8 && ip -n ${host.instance}x addr add 192.0.2.9/24 dev veth9 && ip -n ${host.instance}x link set veth9 up && ip -n ${host.instance}x route add default via 192.0.2.1`,
      );
      await host.cli('sandbox', 'attach', '--name', 'guest', '--network', 'web', path);
      const peer = await sandbox(host, 'peer', '--network', 'web');
      const guest = await inside(host, 'guest');
      expect(await peer.ping(guest.ipv4!)).toBe(true);
      expect((await host.exec(`ip -n ${host.instance}x route show default`)).stdout.trim()).toMatch(
        /^default via 192\.0\.2\.1 dev veth9/,
      );
      await host.cli('sandbox', 'rm', 'guest', 'peer');
      expect((await host.exec(`ip -n ${host.instance}x -o link`)).stdout).not.toContain('eth0');
      expect((await host.exec(`ip -n ${host.instance}x link show veth9`)).code).toBe(0);
    } finally {
      await host.exec(`ip netns del ${host.instance}x`);
    }
  });

  test('the none network has a loopback only, the host network is the host', async () => {
    await host.cli('sandbox', 'create', 'alone', '--network', 'none');
    expect((await host.cli('sandbox', 'exec', 'alone', 'ip', '-o', 'link')).split('\n')).toHaveLength(1);
    await host.cli('sandbox', 'create', 'same', '--network', 'host');
    expect(await host.cli('sandbox', 'exec', 'same', 'readlink', '/proc/self/ns/net')).toBe(
      (await host.must('readlink /proc/self/ns/net')).trim(),
    );
    await host.cli('sandbox', 'rm', 'alone', 'same');
  });

  test('removal ends what runs inside and leaves nothing', async () => {
    const box = await sandbox(host, 'doomed', '--network', 'web');
    const server = await box.serve(80);
    await host.cli('sandbox', 'rm', '--force', 'doomed');
    await server.exited;
    expect((await host.exec(`test -e ${box.netnsPath}`)).code).toBe(1);
    expect((await host.must('ip -o link show type veth')).includes('sv')).toBe(false);
  });
});

describe.each(FAMILIES)('an endpoint can send only as itself ($family)', ({ flags, v4, v6, family }) => {
  const tag = family.replace(/\W/g, '').toLowerCase();
  beforeAll(async () => {
    const subnets = flags.map((flag) => flag.replace('10.20.', '10.30.').replace('fd00:20:', 'fd00:30:'));
    await host.cli('network', 'create', `s${tag}`, ...subnets);
    await host.cli(
      'network',
      'create',
      `o${tag}`,
      '-o',
      'spoof=allow',
      ...subnets.map((flag) => flag.replace('10.30.', '10.31.').replace('fd00:30:', 'fd00:31:')),
    );
  });
  afterAll(async () => {
    await host.cli('network', 'rm', `s${tag}`, `o${tag}`);
  });

  test('a foreign address is dropped and counted; allowed ones pass', async () => {
    const a = await sandbox(host, `a${tag}`, '--network', `s${tag}`);
    const b = await sandbox(host, `b${tag}`, '--network', `s${tag}`);
    for (const [mine, foreign, net] of [
      v4 && [b.ipv4!, '10.30.0.200', '10.99.0.1/32'],
      v6 && [b.ipv6!, 'fd00:30::200', 'fd99::1/128'],
    ].filter((row) => row !== false)) {
      const prefix = foreign!.includes(':') ? 128 : 32;
      // The neighbour is known from now on: what is dropped is the packet, not the question for its MAC.
      expect(await a.ping(mine!)).toBe(true);
      await a.exec(`ip addr add ${foreign}/${prefix} dev eth0 ${prefix === 128 ? 'nodad' : ''}`);
      expect((await a.exec(['ping', '-c1', '-W1', '-I', foreign!, mine!])).code).not.toBe(0);
      await a.exec(`ip addr add ${net} dev eth0 ${prefix === 128 ? 'nodad' : ''}`);
      expect((await a.exec(['ping', '-c1', '-W1', '-I', net!.split('/')[0]!, mine!])).code).not.toBe(0);
    }
    expect((await drops(`a${tag}.s${tag}`))['source-ip']).toBeGreaterThan(0);
    // Another MAC: nothing of it arrives.
    const before = (await drops(`a${tag}.s${tag}`))['source-mac'] ?? 0;
    await a.exec('ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 up');
    expect(await a.ping((v4 ? b.ipv4 : b.ipv6)!)).toBe(false);
    await eventually(async () => ((await drops(`a${tag}.s${tag}`))['source-mac'] ?? 0) > before);
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`);
  });

  test('--allow-address and spoof=allow', async () => {
    const extra = v4 ? '10.30.0.200' : 'fd00:30::200';
    const prefix = v4 ? 32 : 128;
    const a = await sandbox(host, `a${tag}`, '--network', `s${tag}`, '--allow-address', `${extra}/${prefix}`);
    const b = await sandbox(host, `b${tag}`, '--network', `s${tag}`);
    await a.exec(`ip addr add ${extra}/${prefix} dev eth0 ${v4 ? '' : 'nodad'}`);
    expect((await a.exec(['ping', '-c1', '-W1', '-I', extra, (v4 ? b.ipv4 : b.ipv6)!])).code).toBe(0);
    const c = await sandbox(host, `c${tag}`, '--network', `o${tag}`);
    const d = await sandbox(host, `d${tag}`, '--network', `o${tag}`);
    const any = v4 ? '10.31.0.222' : 'fd00:31::222';
    await c.exec(`ip addr add ${any}/${prefix} dev eth0 ${v4 ? '' : 'nodad'}`);
    expect((await c.exec(['ping', '-c1', '-W1', '-I', any, (v4 ? d.ipv4 : d.ipv6)!])).code).toBe(0);
    await host.cli('sandbox', 'rm', `a${tag}`, `b${tag}`, `c${tag}`, `d${tag}`);
  });
});
