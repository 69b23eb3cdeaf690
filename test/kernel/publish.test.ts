/** Published ports as clients see them: a host, a container behind its bridge, and a client on another host. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import type { Kernel, Namespace } from '../../src/contracts/kernel.ts';
import type { PublishedPort, Publisher } from '../../src/contracts/publisher.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { inside, KernelBed } from './kernel-bed.ts';

/** Debian's own: a wrapper before it may take longer than the question. */
const PYTHON = '/usr/bin/python3';
const bed = new KernelBed();
let host: Namespace;
let box: Namespace;
let beside: Namespace;
let client: Namespace;
let kernel: Kernel;
let publisher: Publisher;
const children: ChildProcess[] = [];

/** Says to every client, over TCP and UDP, which address it came from. */
const SERVER = `
import socket, threading, sys
def tcp():
    s = socket.socket(socket.AF_INET6); s.setsockopt(1, 2, 1); s.setsockopt(41, 26, 0); s.bind(('::', 80)); s.listen(64)
    print('ready', flush=True)
    while True:
        c, a = s.accept(); c.sendall(a[0].encode()); c.close()
u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.setsockopt(41, 26, 0); u.bind(('::', 80))
threading.Thread(target=tcp, daemon=True).start()
while True:
    d, a = u.recvfrom(100); u.sendto(a[0].encode(), a)
`;
const ASK = `
import socket, sys
kind, address, port, local = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
# Neighbours of a link that has just come up may take a second to be found.
s.settimeout(2.5)
try:
    if local: s.bind(('', local))
    s.connect((address, port))
    if kind == 'udp': s.send(b'x')
    print(s.recv(100).decode().replace('::ffff:', ''))
except OSError as error:
    print('refused' if isinstance(error, ConnectionRefusedError) else 'nothing')
`;
/** A kernel without br_netfilter never shows them. */
const showBridged = (value: string): string =>
  inside(
    host,
    'sh',
    '-c',
    `for key in iptables ip6tables; do sysctl -qw net.bridge.bridge-nf-call-$key=${value} || :; done 2>&1`,
  );
const ask = (from: Namespace, kind: 'tcp' | 'udp', address: string, port: number, local = 0): string =>
  inside(from, PYTHON, '-S', '-c', ASK, kind, address, String(port), String(local)).trim();

beforeAll(async () => {
  await bed.open();
  [host, box, beside, client] = ['host', 'box', 'beside', 'client'].map((name) => bed.namespace(name)) as [
    Namespace,
    Namespace,
    Namespace,
    Namespace,
  ];
  kernel = createKernel({ host: host.path });
  inside(
    host,
    'sh',
    '-ec',
    `ip link add br0 type bridge && ip link set br0 up
     ip addr add 10.77.0.1/24 dev br0 && ip addr add fd77::1/64 dev br0 nodad
     ip link add veth0 type veth peer name up0 && ip link set veth0 master br0 up
     ip link add veth1 type veth peer name be0 && ip link set veth1 master br0 up
     ip link add up1 type veth peer name cl0 && ip link set up1 up
     ip addr add 198.18.7.1/24 dev up1 && ip addr add fd78::1/64 dev up1 nodad
     sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.br0.route_localnet=1`,
  );
  host.netlink.setLink(host.netlink.link('up0')!.ifindex, { netnsFd: box.fd });
  host.netlink.setLink(host.netlink.link('be0')!.ifindex, { netnsFd: beside.fd });
  host.netlink.setLink(host.netlink.link('cl0')!.ifindex, { netnsFd: client.fd });
  inside(
    box,
    'sh',
    '-ec',
    `ip link set up0 up && ip addr add 10.77.0.2/24 dev up0 && ip addr add fd77::2/64 dev up0 nodad
     ip route add default via 10.77.0.1 && ip -6 route add default via fd77::1`,
  );
  inside(
    beside,
    'sh',
    '-ec',
    `ip link set be0 up && ip addr add 10.77.0.3/24 dev be0 && ip addr add fd77::3/64 dev be0 nodad
     ip route add default via 10.77.0.1 && ip -6 route add default via fd77::1`,
  );
  inside(
    client,
    'sh',
    '-ec',
    'ip link set cl0 up && ip addr add 198.18.7.2/24 dev cl0 && ip addr add fd78::2/64 dev cl0 nodad',
  );
  const server = spawn('nsenter', [`--net=${box.path}`, PYTHON, '-c', SERVER], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(server);
  await new Promise<void>((resolve) => createInterface({ input: server.stdout! }).once('line', () => resolve()));
  publisher = createNftPublisher({ kernel, instance: 'ptest', runDir: bed.dir });
});
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL');
  publisher?.close();
  kernel?.[Symbol.dispose]();
  for (const namespace of [host, box, beside, client]) namespace?.[Symbol.dispose]();
  await bed.close();
});

const V4 = { address: '10.77.0.2', port: 80, ifname: 'br0', subnet: '10.77.0.0/24' };
const V6 = { address: 'fd77::2', port: 80, ifname: 'br0', subnet: 'fd77::/64' };
const published = (changes: Partial<PublishedPort> = {}): PublishedPort[] =>
  (['tcp', 'udp'] as const).flatMap((protocol) => [
    { address: '0.0.0.0', port: 8080, protocol, from: 'any' as const, backends: [V4], ...changes },
    { address: '::', port: 8080, protocol, from: 'any' as const, backends: [V6], ...changes },
  ]);

test('from other hosts with their own address, from the loopback as the gateway', () => {
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('refused');
  publisher.ensure('box', published());
  for (const kind of ['tcp', 'udp'] as const) {
    expect(ask(client, kind, '198.18.7.1', 8080)).toBe('198.18.7.2');
    expect(ask(client, kind, 'fd78::1', 8080)).toBe('fd78::2');
    expect(ask(host, kind, '127.0.0.1', 8080)).toBe('10.77.0.1');
    expect(ask(host, kind, '198.18.7.1', 8080)).toBe('198.18.7.1');
    expect(ask(host, kind, 'fd78::1', 8080)).toBe('fd78::1');
    // Its neighbour reaches it by the host's address, whether or not bridged packets are shown to the host's chains.
    for (const shown of ['1', '0']) {
      showBridged(shown);
      expect(ask(beside, kind, '198.18.7.1', 8080)).toBe('10.77.0.1');
      expect(ask(beside, kind, 'fd78::1', 8080)).toBe('fd77::1');
    }
    expect(ask(box, kind, '198.18.7.1', 8080)).toBe('10.77.0.1');
  }
  publisher.remove('box');
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('refused');
});

test('one address alone, and no way to the loopback of the host from outside', () => {
  publisher.ensure('box', [{ address: '127.0.0.1', port: 8080, protocol: 'tcp', from: 'any', backends: [V4] }]);
  expect(ask(host, 'tcp', '127.0.0.1', 8080)).toBe('10.77.0.1');
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('refused');
  inside(box, 'ip', 'route', 'replace', '127.0.0.0/8', 'via', '10.77.0.1');
  inside(box, 'sysctl', '-qw', 'net.ipv4.conf.all.route_localnet=1');
  expect(ask(box, 'tcp', '127.1.0.1', 8080)).not.toMatch(/^\d/);
  publisher.remove('box');
});

test('from= lets in whom it names, and the host itself', () => {
  publisher.ensure('box', [
    { address: '0.0.0.0', port: 8080, protocol: 'tcp', from: ['198.18.7.0/30', '198.18.7.2/32'], backends: [V4] },
    { address: '198.18.7.1', port: 8081, protocol: 'tcp', from: ['203.0.113.0/24'], backends: [V4] },
  ]);
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('198.18.7.2');
  expect(ask(client, 'tcp', '198.18.7.1', 8081)).toBe('refused');
  expect(ask(host, 'tcp', '198.18.7.1', 8081)).toBe('198.18.7.1');
  publisher.remove('box');
});

test('a UDP client that goes on sending follows what is published', () => {
  const [port] = published().filter(({ protocol, address }) => protocol === 'udp' && address === '0.0.0.0');
  expect(ask(client, 'udp', '198.18.7.1', 8080, 5_353)).toBe('refused');
  publisher.ensure('box', [port!]);
  expect(ask(client, 'udp', '198.18.7.1', 8080, 5_353)).toBe('198.18.7.2');
  publisher.remove('box');
  expect(ask(client, 'udp', '198.18.7.1', 8080, 5_353)).toBe('refused');
});

test("the administrator's rule sees it first, by the port that was asked for", () => {
  publisher.ensure('box', published());
  const nft = kernel.nft();
  nft.apply(`table inet sluice-admin {
    chain prerouting { type filter hook prerouting priority dstnat - 20; policy accept; tcp dport 8080 ip saddr 198.18.7.2 drop
    }
  }`);
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('nothing');
  nft.apply('delete table inet sluice-admin');
  expect(ask(client, 'tcp', '198.18.7.1', 8080)).toBe('198.18.7.2');
  nft[Symbol.dispose]();
  publisher.remove('box');
});

test('a port is held, and one that somebody has is refused by the name of its process', async () => {
  const first = kernel.ports.hold('tcp', '0.0.0.0', 8090);
  using v6 = kernel.ports.hold('tcp', '::', 8090);
  expect([first, v6]).not.toContain(null);
  const taken = () =>
    inside(
      host,
      PYTHON,
      '-c',
      "import socket; s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(('', 8090)); s.listen()",
    );
  expect(taken).toThrow(/Address already in use/);
  first?.[Symbol.dispose]();
  taken();
  const holder = spawn(
    'nsenter',
    [
      `--net=${host.path}`,
      PYTHON,
      '-c',
      `import socket, time
a = socket.socket(); a.bind(('127.0.0.1', 8091)); a.listen()
b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); b.bind(('0.0.0.0', 8091))
c = socket.socket(socket.AF_INET6); c.bind(('::', 8092)); c.listen()
print('ready', flush=True); time.sleep(60)`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  children.push(holder);
  await new Promise<void>((resolve) => createInterface({ input: holder.stdout! }).once('line', () => resolve()));
  const hold = (...words: Parameters<Kernel['ports']['hold']>) => {
    try {
      kernel.ports.hold(...words)?.[Symbol.dispose]();
      return null;
    } catch (error) {
      return error;
    }
  };
  const refused = {
    code: 'port.inuse',
    message: expect.stringMatching(new RegExp(`python3.* \\(process ${holder.pid}\\)`)),
  };
  expect(hold('tcp', '0.0.0.0', 8091)).toMatchObject(refused);
  expect(hold('tcp', '127.0.0.1', 8091)).toMatchObject(refused);
  expect(hold('udp', '127.0.0.1', 8091)).toMatchObject(refused);
  expect(hold('tcp', '0.0.0.0', 8092)).toMatchObject(refused);
  expect(hold('tcp', '::', 8091)).toBeNull();
  expect(hold('tcp', '203.0.113.9', 8093)).toMatchObject({ code: 'port.address' });
});
