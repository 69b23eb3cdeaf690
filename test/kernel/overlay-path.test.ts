import { existsSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { chooseSlot, ensurePath, removePath } from '../../src/controller/firewall/path.ts';
import { renderPolicy } from '../../src/controller/firewall/policy.ts';
import { FAR } from '../../src/lab/lab.ts';
import { until } from './kernel-bed.ts';
import { type Box, network, OverlayBed, type OverlayHost } from './overlay-bed.ts';

/** Debian's own. */
const PYTHON = '/usr/bin/python3';
let bed: OverlayBed;
afterEach(() => bed?.close());

const ECHO: readonly [string, ...string[]] = [
  PYTHON,
  '-uc',
  `import socket,threading
def serve(family,address):
    s=socket.socket(family,socket.SOCK_STREAM); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)
    s.bind((address,7000)); s.listen(50)
    while True:
        c,a=s.accept(); c.sendall(c.recv(100)); c.close()
t=threading.Thread(target=serve,args=(socket.AF_INET6,"::"),daemon=False); t.start()
print("ready")`,
];
/** One connection from a fixed source port: two of them from one address differ in nothing that plain conntrack looks at. */
const ask = (to: string, what: string): readonly [string, ...string[]] => [
  PYTHON,
  '-c',
  `import socket
s=socket.socket(socket.${to.includes(':') ? 'AF_INET6' : 'AF_INET'},socket.SOCK_STREAM); s.settimeout(3)
s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(("",40000))
s.connect(("${to}",7000)); s.sendall(b"${what}"); print(s.recv(100).decode()); print(s.getsockopt(socket.IPPROTO_TCP,socket.TCP_MAXSEG))`,
];

describe('two overlays with one subnet on one host', () => {
  test('both reach the world and their gateway, at once, from one address and port; neither reaches the other', async () => {
    bed = await OverlayBed.open('ovlsame', 1);
    const [host] = bed.hosts as [OverlayHost];
    const { netlink } = host.kernel.host;
    const nets = [network(1), network(2)];
    const boxes: Box[] = [];
    for (const [n, net] of nets.entries()) {
      boxes.push(await host.box(net, 10));
      if (n === 0) boxes.push(await host.box(net, 11));
    }
    const [one, neighbour, two] = boxes as [Box, Box, Box];
    const table = (slots: readonly number[]) =>
      renderPolicy(
        host.lab.instance,
        nets.map((net, n) => ({
          ifname: `sl${net.id.slice(0, 12)}`,
          internal: false,
          masquerade: true,
          subnets: net.subnets,
          tunnelled: true,
          slot: slots[n],
        })),
      );
    const nft = host.kernel.nft();
    host.kernel.host.setSysctl('net.ipv4.ip_forward', '1');
    host.kernel.host.setSysctl('net.ipv6.conf.all.forwarding', '1');
    // Strict, as some hosts have it.
    host.kernel.host.setSysctl('net.ipv4.conf.all.rp_filter', '1');
    const slots: number[] = [];
    for (const net of nets) {
      const slot = chooseSlot(netlink, new Set(slots))!;
      slots.push(slot);
      const link = netlink.link(`sl${net.id.slice(0, 12)}`)!.ifindex;
      const subnets = net.subnets.map(({ cidr, gateway }) => ({ cidr, gateway, pool: '' }));
      expect(ensurePath(netlink, { slot, link, subnets })).toHaveLength(4);
      expect(ensurePath(netlink, { slot, link, subnets })).toEqual([]);
    }
    expect(slots).toEqual([1, 2]);
    nft.apply(table(slots));
    const echo = bed.lab.outside.spawn(ECHO);
    await until('the world listens', () => echo.output().includes('ready'), 5_000);
    for (const far of [FAR.ipv4, FAR.ipv6]) {
      const answers = await Promise.all([one.run(ask(far, 'first')), two.run(ask(far, 'second'))]);
      expect(answers.map(({ stdout, stderr }) => stdout.split('\n')[0] || stderr)).toEqual(['first', 'second']);
      // 1450, less IP and TCP headers and time stamps.
      const mss = far.includes(':') ? 1450 - 60 - 12 : 1450 - 40 - 12;
      expect(answers.map(({ stdout }) => Number(stdout.split('\n')[1]))).toEqual([mss, mss]);
    }
    for (const box of [one, two]) {
      expect(await box.pings('10.50.0.1')).toBe(true);
      expect(await box.pings('fd00:50::1')).toBe(true);
    }
    expect(await one.pings(neighbour.ip)).toBe(true);
    // The other network has nobody of that address.
    expect(await two.pings(neighbour.ip)).toBe(false);

    // Without ways of their own only one of them is answered.
    nft.apply(table([]));
    for (const slot of slots) removePath(netlink, slot);
    expect(netlink.rules()).toEqual([]);
    const plain = [await one.run(ask(FAR.ipv4, 'first')), await two.run(ask(FAR.ipv4, 'second'))];
    expect(plain.filter(({ code }) => code === 0)).toHaveLength(1);
    nft[Symbol.dispose]();
  });
});

describe('what stays within a network', () => {
  test('is tracked on neither host, nor is the tunnel; what leaves it is, and all of it where somebody asks for that', async () => {
    bed = await OverlayBed.open('ovltrack', 2);
    const net = network(1);
    const boxes = new Map<Box, OverlayHost>();
    for (const [n, host] of bed.hosts.entries()) boxes.set(await host.box(net, 10 + n), host);
    await bed.connect(net, boxes);
    const [[one, a], [two]] = [...boxes] as [[Box, OverlayHost], [Box, OverlayHost]];
    const ifname = `sl${net.id.slice(0, 12)}`;
    const { netlink } = a.kernel.host;
    const subnets = net.subnets.map(({ cidr, gateway }) => ({ cidr, gateway, pool: '' }));
    // Without br_netfilter nothing bridged comes to the host's hooks.
    const bridged = existsSync('/proc/sys/net/bridge');
    for (const host of bed.hosts) {
      host.kernel.host.setSysctl('net.ipv4.ip_forward', '1');
      if (bridged) host.kernel.host.setSysctl('net.bridge.bridge-nf-call-iptables', '1');
      const link = host.kernel.host.netlink.link(ifname)!.ifindex;
      ensurePath(host.kernel.host.netlink, { slot: 1, link, subnets });
      const vteps = bed.hosts.filter((other) => other !== host).map(({ underlay }) => underlay.address);
      host.guard.ensure({ underlay: host.underlay, vteps, bridges: [ifname] });
    }
    const write = (tracked: boolean): void => {
      for (const host of bed.hosts) {
        const nft = host.kernel.nft();
        const all = {
          ifname,
          internal: false,
          masquerade: true,
          subnets: net.subnets,
          tunnelled: true,
          slot: 1,
          tracked,
        };
        nft.apply(renderPolicy(host.lab.instance, [all]));
        nft[Symbol.dispose]();
      }
    };
    const tracked = async (address: string): Promise<number[]> => {
      const lists = await Promise.all(bed.hosts.map(({ lab }) => lab.must(['conntrack', '-L', '-d', address])));
      return lists.map((list) => list.split('\n').filter(Boolean).length);
    };
    write(false);
    expect(await one.pings(two.ip)).toBe(true);
    expect(await two.pings(one.ip)).toBe(true);
    expect(await one.pings(FAR.ipv4)).toBe(true);
    expect(await one.pings('10.50.0.1')).toBe(true);
    expect(await tracked(two.ip)).toEqual([0, 0]);
    for (const { underlay } of bed.hosts) expect(await tracked(underlay.address)).toEqual([0, 0]);
    expect(await tracked(FAR.ipv4)).toEqual([1, 0]);
    expect(await tracked('10.50.0.1')).toEqual([1, 0]);
    write(true);
    expect(await one.pings(two.ip)).toBe(true);
    expect(await tracked(two.ip)).toEqual(bridged ? [1, 1] : [0, 0]);
    expect(netlink.rules()).toHaveLength(2);
  });
});
