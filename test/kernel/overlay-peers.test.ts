import { afterEach, describe, expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { SLOWNESS, until } from './kernel-bed.ts';
import { type Box, network, OverlayBed, type OverlayHost } from './overlay-bed.ts';

/** Debian's own. */
const PYTHON = '/usr/bin/python3';
let bed: OverlayBed;
afterEach(() => bed?.close());

/** Prints each datagram that arrives on a port of any address of the family. */
const listener = (port: number): readonly [string, ...string[]] => [
  PYTHON,
  '-uc',
  `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
s.bind(("0.0.0.0",${port}))
print("ready")
while True: print(s.recv(2000).decode())`,
];

async function three(family: 4 | 6, name: string): Promise<Map<Box, OverlayHost>> {
  bed = await OverlayBed.open(name, 3, { family });
  const net = network(1);
  const boxes = new Map<Box, OverlayHost>();
  for (const [n, host] of bed.hosts.entries()) boxes.set(await host.box(net, 10 + n), host);
  await bed.connect(net, boxes);
  return boxes;
}

describe.each([
  [4, 1450],
  [6, 1430],
] as const)('three hosts over an IPv%s underlay', (family, mtu) => {
  test('reach each other by both families, with packets as large as the MTU, and no larger', async () => {
    const boxes = [...(await three(family, `ovl${family}`)).keys()];
    for (const from of boxes) {
      for (const to of boxes) {
        expect(await from.pings(to.ip), `${from.ip} → ${to.ip}`).toBe(true);
        expect(await from.pings(to.ip6), `${from.ip6} → ${to.ip6}`).toBe(true);
      }
    }
    const [one, two] = boxes as [Box, Box];
    // ICMP and IPv4 headers, 28 bytes.
    expect(await one.pings(two.ip, '-M', 'do', '-s', String(mtu - 28))).toBe(true);
    expect(await one.pings(two.ip, '-M', 'do', '-s', String(mtu - 27))).toBe(false);
  });
});

describe('an overlay on the wire', () => {
  test('ARP and ND of known endpoints do not leave the host; those of nobody do', async () => {
    const [one, two] = [...(await three(4, 'ovlarp')).keys()] as [Box, Box];
    const device = `sx${one.network.id.slice(0, 12)}`;
    const dump = bed.hosts[0]!.lab.spawn(['tcpdump', '-nl', '--immediate-mode', '-i', device]);
    await until('tcpdump listens', () => dump.output().includes('listening'), 5_000);
    expect(await one.pings(two.ip)).toBe(true);
    expect(await one.pings(two.ip6)).toBe(true);
    expect(await one.pings('10.50.0.99')).toBe(false);
    await until('the question for nobody is seen', () => /who-has 10\.50\.0\.99/.test(dump.output()));
    expect(dump.output()).toMatch(/ICMP echo request/);
    expect(dump.output()).not.toMatch(/who-has 10\.50\.0\.1[01]/);
    expect(dump.output()).not.toMatch(new RegExp(`neighbor solicitation, who has ${two.ip6}`));
  });

  test('the gateway has one MAC and answers on every host, and keeps its addresses', async () => {
    const boxes = await three(4, 'ovlgw');
    for (const [box, host] of boxes) {
      expect(await box.pings('10.50.0.1')).toBe(true);
      expect(await box.pings('fd00:50::1')).toBe(true);
      const { mac, ifindex } = host.kernel.host.netlink.link(`sl${box.network.id.slice(0, 12)}`)!;
      expect(mac).toBe('02:42:0a:32:00:01');
      // Duplicate detection would have taken it from all but one: tentative 0x40, dadfailed 0x08.
      const own = host.kernel.host.netlink.addresses(ifindex).find(({ cidr }) => cidr === 'fd00:50::1/64');
      expect(own!.flags & 0x48).toBe(0);
      const [neighbour] = box.namespace.netlink.neighbours().filter(({ ip }) => ip === '10.50.0.1');
      expect(neighbour).toMatchObject({ mac, state: 0x80 });
    }
  });

  test('a broadcast reaches each host that takes part, and no other', async () => {
    bed = await OverlayBed.open('ovlbc', 3);
    const net = network(1);
    const [a, b, c] = bed.hosts as [OverlayHost, OverlayHost, OverlayHost];
    const [one, two] = [await a.box(net, 10), await b.box(net, 11)];
    const third = await c.box({ ...net, id: network(2).id, vni: 7002 }, 12);
    const boxes = new Map([
      [one, a],
      [two, b],
    ]);
    await bed.connect(net, boxes);
    const ears = [two, third].map((box) => box.spawn(listener(9999)));
    await until('both listen', () => ears.every((ear) => ear.output().includes('ready')));
    const outer = c.lab.spawn(['tcpdump', '-nl', '--immediate-mode', '-i', 'eth0', 'udp port 4789']);
    await until('tcpdump listens', () => outer.output().includes('listening'), 5_000);
    const say = `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET,socket.SO_BROADCAST,1)
s.sendto(b"hello",("10.50.15.255",9999))`;
    expect((await one.run([PYTHON, '-c', say])).code).toBe(0);
    await until('it arrived', () => ears[0]!.output().includes('hello'));
    expect(ears[1]!.output()).not.toContain('hello');
    expect(outer.output()).not.toMatch(/VXLAN/);
  });

  test('an endpoint that moves with its address is reached at its new host at once', async () => {
    const boxes = await three(4, 'ovlmove');
    const [one, two] = [...boxes.keys()] as [Box, Box];
    const [a, b, c] = bed.hosts as [OverlayHost, OverlayHost, OverlayHost];
    expect(await one.pings(two.ip)).toBe(true);
    await b.remove(two);
    const moved = await c.box(two.network, 11);
    const start = performance.now();
    const news = (told: OverlayHost) =>
      new Map([
        [two.endpoint.id, null],
        [moved.endpoint.id, bed.member(moved, c, told)],
      ]);
    for (const host of [a, b, c]) await host.table(two.network).follow(news(host));
    const programmedMs = performance.now() - start;
    expect(await one.pings(two.ip, '-i', '0.05')).toBe(true);
    expect(await one.pings(two.ip6)).toBe(true);
    expect(programmedMs).toBeLessThan(20 * SLOWNESS);
  });
});

describe('a VNI that somebody else has', () => {
  test('is refused with the name of the device, also of one that was moved away', async () => {
    bed = await OverlayBed.open('ovlvni', 1);
    const [host] = bed.hosts as [OverlayHost];
    const net = network(1);
    const foreign = ['ip', 'link', 'add', 'flannel.1', 'type', 'vxlan', 'id', '7001', 'dstport', '4789'] as const;
    await host.lab.must([...foreign, 'local', host.lab.address]);
    const refusal = async (): Promise<SluiceError> => {
      const error = await host.driver.createNetwork(net).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(SluiceError);
      return error as SluiceError;
    };
    expect(await refusal()).toMatchObject({ code: 'network.vni', message: expect.stringContaining('flannel.1') });
    // Where it cannot be seen.
    const hidden = host.kernel.namespaces.ensure(`${host.lab.netnsPath}-hidden`);
    const { ifindex } = host.kernel.host.netlink.link('flannel.1')!;
    host.kernel.host.netlink.setLink(ifindex, { netnsFd: hidden.fd });
    const away = await refusal();
    expect(away).toMatchObject({ code: 'network.vni', message: expect.stringContaining('another network namespace') });
    hidden.netlink.removeLink(hidden.netlink.link('flannel.1')!.ifindex);
    await host.driver.createNetwork(net);
    hidden[Symbol.dispose]();
    host.kernel.namespaces.remove(`${host.lab.netnsPath}-hidden`);
  });

  test('a port that something else listens on is refused', async () => {
    bed = await OverlayBed.open('ovlport', 1);
    const [host] = bed.hosts as [OverlayHost];
    const ear = host.lab.spawn(listener(4789));
    await until('it listens', () => ear.output().includes('ready'));
    const error = await host.driver.createNetwork(network(1)).catch((reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'network.underlay', message: expect.stringContaining('4789') });
  });
});

describe('many peers', () => {
  test('10,000 are programmed in a moment, one more in 2 ms, and ARP elsewhere goes on', async () => {
    bed = await OverlayBed.open('ovlmany', 2);
    const [a, b] = bed.hosts as [OverlayHost, OverlayHost];
    const net = network(1);
    const box = await a.box(net, 10);
    const peer = (n: number) => {
      const address = `10.50.${1 + (n >> 8)}.${n & 255}`;
      const mac = `02:42:0a:32:${(1 + (n >> 8)).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`;
      return { id: `p${n}`, revision: n, mac, addresses: [address], vtep: b.underlay.address };
    };
    const many = Array.from({ length: 10_000 }, (_, n) => peer(n));
    const table = a.table(net);
    const spent = process.cpuUsage();
    await table.sync(many, new Set());
    const { user, system } = process.cpuUsage(spent);
    const bridge = a.kernel.host.netlink.link(`sl${net.id.slice(0, 12)}`)!.ifindex;
    const permanent = a.kernel.host.netlink.neighbours(bridge).filter(({ state }) => state === 0x80);
    expect(permanent).toHaveLength(10_000);
    const times: number[] = [];
    for (let n = 0; n < 20; n++) {
      const begin = performance.now();
      await table.follow(new Map([[`p${10_000 + n}`, peer(10_000 + n)]]));
      times.push(performance.now() - begin);
    }
    times.sort((x, y) => x - y);
    // Neighbours in other namespaces come and go as ever: the thresholds of the one table count what can be collected.
    expect((await b.lab.exec(['ping', '-c', '1', '-W', '2', a.lab.address])).code).toBe(0);
    expect((await bed.lab.outside.exec(['ping', '-c', '1', '-W', '2', b.lab.address])).code).toBe(0);
    expect(await box.pings('10.50.0.1')).toBe(true);
    // Of processor time, the kernel's share included: the machine has other work.
    expect((user + system) / 1000).toBeLessThan(700 * SLOWNESS);
    expect(times[5]).toBeLessThan(2 * SLOWNESS);
    expect(await table.sync(many, new Set())).toEqual(['40 forwarding entries removed', '20 neighbours removed']);
  });
});
