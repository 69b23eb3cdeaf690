/** What every kernel does, the real one and the one in memory. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { Kernel, LinkEvent, Namespace } from '../../src/contracts/kernel.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { OFFLOAD_CASES } from './kernel-offload.ts';

export interface KernelUnderTest {
  /** Its `host` is a namespace of this case alone. */
  readonly kernel: Kernel;
  /** Path for a namespace of that name. */
  readonly path: (name: string) => string;
  /** A cgroup of this case alone, not made yet. */
  readonly cgroup: string;
  close(): Promise<void>;
}

const MAC = '02:42:0a:01:00:01';
const PEER_MAC = '02:42:0a:01:00:02';
const MAIN = 254;

function code(fn: () => unknown): ErrorCode | 'no error' {
  try {
    fn();
    return 'no error';
  } catch (error) {
    return (error as { code: ErrorCode }).code;
  }
}

async function until(what: string, fn: () => boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (fn()) return;
    await sleep(5);
  }
  throw new Error(`not within 2 s: ${what}`);
}

const bridge = (on: Namespace, name = 'br0', alias = 'mark') =>
  on.netlink.ensureBridge(name, { mac: MAC, mtu: 1400, alias });

const veth = (on: Namespace, name = 'v0', far?: Namespace, peer = 'p0') =>
  on.netlink.ensureVeth(name, {
    mtu: 1400,
    alias: 'mark',
    peer: { name: peer, mac: PEER_MAC, mtu: 1400, netnsFd: far?.fd },
  });

/** A veth whose ends are up, with addresses of both families on the near one. */
function wired(on: Namespace): { near: number; far: number } {
  const link = veth(on);
  on.netlink.ensureAddress(link.ifindex, '10.1.0.1/24', {});
  on.netlink.ensureAddress(link.ifindex, 'fd00:1::1/64', { nodad: true });
  on.netlink.setLink(link.peer, { up: true });
  on.netlink.setLink(link.ifindex, { up: true });
  return { near: link.ifindex, far: link.peer };
}

const routesTo = (on: Namespace, dst: string) =>
  on.netlink.routes().filter((route) => route.dst === dst && route.table === MAIN);

/** The cases by name, so that a test can run them against a broken kernel and see which complain. */
export const KERNEL_CASES: Readonly<Record<string, (on: KernelUnderTest) => void | Promise<void>>> = {
  ...OFFLOAD_CASES,
  'a new namespace has its loopback up, and an identity and a cookie of its own'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    using b = kernel.namespaces.ensure(path('b'));
    expect(a.netlink.links()).toMatchObject([{ ifindex: 1, name: 'lo', kind: 'loopback', up: true }]);
    expect(a.netlink.addresses(1).map(({ cidr }) => cidr)).toContain('127.0.0.1/8');
    expect(new Set([a.identity, b.identity, kernel.host.identity]).size).toBe(3);
    expect(new Set([a.cookie, b.cookie, kernel.host.cookie]).size).toBe(3);
    expect(a.identity).toMatch(/^\d+:\d+$/);
  },
  'ensure adopts a namespace that is there, open opens it, exists tells'({ kernel, path }) {
    expect(kernel.namespaces.exists(path('a'))).toBe(false);
    using a = kernel.namespaces.ensure(path('a'));
    bridge(a);
    using again = kernel.namespaces.ensure(path('a'));
    using opened = kernel.namespaces.open(path('a'));
    expect([again.identity, opened.identity]).toEqual([a.identity, a.identity]);
    expect(again.cookie).toBe(a.cookie);
    expect(opened.netlink.link('br0')).toMatchObject({ name: 'br0' });
    expect(kernel.namespaces.exists(path('a'))).toBe(true);
    again.netlink.setLink(1, { up: false });
    using third = kernel.namespaces.ensure(path('a'));
    expect(third.netlink.link('lo')?.up).toBe(true);
  },
  'removing a namespace twice succeeds, opening an absent one is kernel.notfound'({ kernel, path }) {
    kernel.namespaces.ensure(path('a'))[Symbol.dispose]();
    kernel.namespaces.remove(path('a'));
    kernel.namespaces.remove(path('a'));
    expect(kernel.namespaces.exists(path('a'))).toBe(false);
    expect(code(() => kernel.namespaces.open(path('a')))).toBe('kernel.notfound');
  },
  async 'a removed namespace takes its links along, once its last descriptor is closed'({ kernel, path }) {
    const a = kernel.namespaces.ensure(path('a'));
    veth(kernel.host, 'v0', a);
    kernel.namespaces.remove(path('a'));
    expect(a.netlink.link('p0')).not.toBeNull();
    expect(kernel.host.netlink.link('v0')).not.toBeNull();
    a[Symbol.dispose]();
    await until('the other end is gone', () => kernel.host.netlink.link('v0') === null);
  },
  'a visit returns what it computes, passes errors on, and is refused to promises'({ kernel, path }) {
    const a = kernel.namespaces.ensure(path('a'));
    expect(a.run(() => 7)).toBe(7);
    expect(() =>
      a.run(() => {
        throw new RangeError('mine');
      }),
    ).toThrow(RangeError);
    expect(() => a.run(() => Promise.resolve(1))).toThrow(TypeError);
    expect(() => a.run(async () => 1)).toThrow(TypeError);
    a[Symbol.dispose]();
    a[Symbol.dispose]();
    expect(code(() => a.run(() => 1))).toBe('kernel.failed');
  },
  'a netlink client stays good however many others are used meanwhile'({ kernel, path }) {
    const spaces = Array.from({ length: 70 }, (_, i) => kernel.namespaces.ensure(path(`n${i}`)));
    const clients = spaces.map(({ netlink }) => netlink);
    for (const [i, client] of clients.entries()) client.ensureBridge(`br${i}`, { mac: MAC, mtu: 1500, alias: '' });
    for (const [i, client] of clients.entries())
      expect(client.links().map(({ name }) => name)).toEqual(['lo', `br${i}`]);
    for (const space of spaces) space[Symbol.dispose]();
  },
  'settings belong to a namespace; an unknown one is kernel.notfound, a foreign one request.invalid'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    using b = kernel.namespaces.ensure(path('b'));
    a.setSysctl('net.ipv4.ip_forward', '1');
    b.setSysctl('net.ipv4.ip_forward', '0');
    expect([a.getSysctl('net.ipv4.ip_forward'), b.getSysctl('net.ipv4.ip_forward')]).toEqual(['1', '0']);
    bridge(a, 'br0.100');
    a.setSysctl('net.ipv4.conf.br0.100.forwarding', '0');
    expect(a.getSysctl('net.ipv4.conf.br0.100.forwarding')).toBe('0');
    expect(code(() => a.getSysctl('net.ipv4.conf.br1.forwarding'))).toBe('kernel.notfound');
    expect(code(() => a.setSysctl('net.nowhere.nothing', '1'))).toBe('kernel.notfound');
    for (const bad of ['kernel.pid_max', 'net', 'net.ipv4..x', 'net.ipv4/ip_forward'])
      expect(
        code(() => a.getSysctl(bad)),
        bad,
      ).toBe('request.invalid');
  },

  'a bridge is made up, marked and with its MAC; made again it is the same, put right'({ kernel: { host } }) {
    const made = bridge(host);
    expect(made).toMatchObject({
      name: 'br0',
      kind: 'bridge',
      mac: MAC,
      mtu: 1400,
      up: true,
      alias: 'mark',
      master: 0,
    });
    expect(bridge(host)).toEqual(made);
    host.netlink.setLink(made.ifindex, { up: false, mtu: 1300, mac: PEER_MAC, alias: 'other' });
    expect(bridge(host)).toEqual(made);
    expect(host.netlink.link(made.ifindex)).toEqual(made);
  },
  'a link of another kind under the name is kernel.exists and stays'({ kernel: { host } }) {
    const made = bridge(host);
    expect(code(() => veth(host, 'br0'))).toBe('kernel.exists');
    veth(host, 'v0');
    expect(code(() => bridge(host, 'v0'))).toBe('kernel.exists');
    expect(host.netlink.link('br0')).toEqual(made);
  },
  'a veth has two ends that know each other, down, in one namespace or two'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    const link = veth(kernel.host, 'v0', a);
    expect(link).toMatchObject({ name: 'v0', kind: 'veth', mtu: 1400, alias: 'mark', up: false });
    const peer = a.netlink.link('p0');
    expect(peer).toMatchObject({ ifindex: link.peer, peer: link.ifindex, mac: PEER_MAC, mtu: 1400, up: false });
    expect(kernel.host.netlink.link('p0')).toBeNull();
    const near = veth(kernel.host, 'v1', undefined, 'p1');
    expect(kernel.host.netlink.link('p1')).toMatchObject({ ifindex: near.peer, peer: near.ifindex });
    expect(veth(kernel.host, 'v0', a)).toEqual(link);
    expect(
      kernel.host.netlink
        .links()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['lo', 'p1', 'v0', 'v1']);
  },
  'a veth is made with the MAC and group asked for'({ kernel: { host } }) {
    const peer = { name: 'p0', mac: PEER_MAC, mtu: 1500 };
    const options = { mac: '02:AA:00:00:00:01', mtu: 1500, alias: '', group: 77, peer };
    const link = host.netlink.ensureVeth('v0', options);
    expect(link).toMatchObject({ mac: '02:aa:00:00:00:01', group: 77 });
    expect(host.netlink.ensureVeth('v0', options)).toEqual(link);
  },
  'removing one end removes the other; removing the absent succeeds'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    const link = veth(kernel.host, 'v0', a);
    a.netlink.removeLink(link.peer);
    expect(kernel.host.netlink.link('v0')).toBeNull();
    kernel.host.netlink.removeLink(link.ifindex);
    expect(kernel.host.netlink.link('')).toBeNull();
    expect(kernel.host.netlink.link(0)).toBeNull();
    expect(kernel.host.netlink.link('a-name-that-is-too-long')).toBeNull();
  },
  'a link changes its name, MAC, MTU, mark, group and state'({ kernel: { host } }) {
    const { ifindex } = veth(host);
    host.netlink.setLink(ifindex, { name: 'eth7', mac: '02:00:00:00:00:0A', mtu: 1280, alias: 'new', group: 5 });
    const now = { ifindex, name: 'eth7', mac: '02:00:00:00:00:0a', mtu: 1280, alias: 'new', group: 5 };
    expect(host.netlink.link('eth7')).toMatchObject({ ...now, up: false });
    host.netlink.setLink(ifindex, { up: true });
    expect(host.netlink.link(ifindex)).toMatchObject({ ...now, up: true });
    host.netlink.setLink(ifindex, { up: false });
    expect(host.netlink.link('v0')).toBeNull();
  },
  'what cannot be changed is refused by code'({ kernel: { host } }) {
    const link = veth(host);
    expect(code(() => host.netlink.setLink(4711, { up: true }))).toBe('kernel.notfound');
    expect(code(() => host.netlink.setLink(link.ifindex, { name: 'p0' }))).toBe('kernel.exists');
    expect(code(() => host.netlink.setLink(link.ifindex, { port: { learning: false } }))).toBe('kernel.missing');
    expect(code(() => host.netlink.setLink(link.ifindex, { master: link.peer }))).toBe('kernel.missing');
    expect(code(() => host.netlink.removeLink(1))).toBe('kernel.missing');
    expect(code(() => host.netlink.setLink(link.ifindex, { netnsFd: 1_000_000_000 }))).not.toBe('no error');
  },
  'a bridge port takes its flags in the request that makes it one, and loses them when it is released'({
    kernel: { host },
  }) {
    const master = bridge(host).ifindex;
    const { ifindex } = veth(host);
    expect(host.netlink.link(ifindex)?.port).toBeUndefined();
    const flags = { learning: false, neighSuppress: true, isolated: true, hairpin: true, unicastFlood: false };
    host.netlink.setLink(ifindex, { master, port: flags, up: true });
    expect(host.netlink.link(ifindex)).toMatchObject({ master, up: true, port: flags });
    host.netlink.setLink(ifindex, { port: { isolated: false } });
    expect(host.netlink.link(ifindex)?.port).toEqual({ ...flags, isolated: false });
    host.netlink.setLink(ifindex, { master: 0 });
    expect(host.netlink.link(ifindex)).toMatchObject({ master: 0 });
    expect(host.netlink.link(ifindex)?.port).toBeUndefined();
  },
  'a link that moves to another namespace arrives down, without addresses, and knows its other end'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    const { near, far } = wired(kernel.host);
    kernel.host.netlink.setLink(near, { netnsFd: a.fd });
    expect(kernel.host.netlink.link('v0')).toBeNull();
    expect(routesTo(kernel.host, '10.1.0.0/24')).toEqual([]);
    const moved = a.netlink.link('v0');
    expect(moved).toMatchObject({ up: false, peer: far });
    expect(a.netlink.addresses(moved!.ifindex)).toEqual([]);
    expect(kernel.host.netlink.link(far)?.peer).toBe(moved!.ifindex);
  },
  async 'many links are removed in one go, those alone, and the absent among them succeed'({ kernel: { host } }) {
    const doomed = [0, 1, 2].map((i) => veth(host, `v${i}`, undefined, `p${i}`).ifindex);
    host.netlink.setLink(doomed.pop()!, { group: 9 });
    await host.netlink.removeLinks([...doomed, 4711]);
    await host.netlink.removeLinks(doomed);
    await host.netlink.removeLinks([]);
    expect(
      host.netlink
        .links()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(['lo', 'p2', 'v2']);
  },
  'a rule by mark is set once and removed once, and rules of others are left alone'({ kernel: { host } }) {
    const rules = ([4, 6] as const).map((family) => ({
      family,
      mark: 0x100000,
      mask: 0x3ff00000,
      table: 5_100_001,
      priority: 90,
    }));
    for (const rule of rules) {
      expect(host.netlink.ensureRule(rule)).toBe(true);
      expect(host.netlink.ensureRule(rule)).toBe(false);
    }
    expect(host.netlink.rules()).toEqual(rules);
    for (let i = 0; i < 2; i++) host.netlink.removeRule({ ...rules[0]!, mark: 0x200000 });
    expect(host.netlink.rules()).toHaveLength(2);
    for (let i = 0; i < 2; i++) host.netlink.removeRule(rules[0]!);
    expect(host.netlink.rules()).toEqual([rules[1]]);
  },
  'a VXLAN device does not learn, is made anew for another VNI, and a VNI is taken once'({ kernel: { host } }) {
    const outer = { ttl: 64, df: 'inherit' } as const;
    const options = { vni: 42, port: 4789, local: '10.9.0.1', mtu: 1400, mac: MAC, alias: 'mark', ...outer };
    const made = host.netlink.ensureVxlan('vx0', options);
    const vxlan = { vni: 42, port: 4789, local: '10.9.0.1', learning: false, ...outer };
    expect(made).toMatchObject({ kind: 'vxlan', mac: MAC, mtu: 1400, alias: 'mark', vxlan });
    expect(host.netlink.ensureVxlan('vx0', options)).toEqual(made);
    expect(code(() => host.netlink.ensureVxlan('vx1', options))).toBe('kernel.exists');
    const other = host.netlink.ensureVxlan('vx0', { ...options, vni: 43 });
    expect(other.vxlan?.vni).toBe(43);
    expect(other.ifindex).not.toBe(made.ifindex);
    expect(host.netlink.ensureVxlan('vx0', { ...options, vni: 43, ttl: undefined, df: undefined }).vxlan).toMatchObject(
      {
        ttl: 0,
        df: 'unset',
      },
    );
    expect(code(() => host.netlink.ensureVxlan('vx0', { ...options, vni: 44, alias: 'thief' }))).toBe('kernel.exists');
    const six = host.netlink.ensureVxlan('vx6', { ...options, vni: 46, local: 'FD00:9:0::1' });
    expect(six.vxlan?.local).toBe('fd00:9::1');
  },

  'an address is set once, in canonical text, and removed once'({ kernel: { host } }) {
    const { ifindex } = bridge(host);
    for (let i = 0; i < 2; i++) {
      host.netlink.ensureAddress(ifindex, '10.1.0.1/24');
      host.netlink.ensureAddress(ifindex, 'FD00:1:0:0::1/64', { nodad: true });
    }
    const global = () => host.netlink.addresses(ifindex).filter(({ scope }) => scope === 0);
    expect(global().map(({ cidr }) => cidr)).toEqual(['10.1.0.1/24', 'fd00:1::1/64']);
    expect(global()[1]!.flags & 0x42).toBe(0x02);
    expect(host.netlink.addresses().some((one) => one.ifindex === 1)).toBe(true);
    for (let i = 0; i < 2; i++) {
      host.netlink.removeAddress(ifindex, '10.1.0.1/24');
      host.netlink.removeAddress(ifindex, 'fd00:1::1/64');
    }
    expect(global()).toEqual([]);
    expect(code(() => host.netlink.ensureAddress(4711, '10.1.0.1/24'))).toBe('kernel.notfound');
    host.netlink.removeAddress(4711, '10.1.0.1/24');
    expect(code(() => host.netlink.ensureAddress(ifindex, '10.1.0.1'))).toBe('request.invalid');
  },
  'an address on a link that is up brings its route, and takes it along'({ kernel: { host } }) {
    const { near } = wired(host);
    expect(routesTo(host, '10.1.0.0/24')).toMatchObject([{ ifindex: near, protocol: 2 }]);
    expect(routesTo(host, 'fd00:1::/64')).toMatchObject([{ ifindex: near, protocol: 2 }]);
    host.netlink.removeAddress(near, '10.1.0.1/24');
    expect(routesTo(host, '10.1.0.0/24')).toEqual([]);
  },
  'a link that goes down keeps its IPv4 addresses alone, and no routes'({ kernel: { host } }) {
    const { near } = wired(host);
    host.netlink.ensureRoute({ dst: '10.7.0.0/16', via: '10.1.0.9' });
    host.netlink.setLink(near, { up: false });
    expect(host.netlink.addresses(near).map(({ cidr }) => cidr)).toEqual(['10.1.0.1/24']);
    expect([...routesTo(host, '10.7.0.0/16'), ...routesTo(host, '10.1.0.0/24')]).toEqual([]);
    host.netlink.setLink(near, { up: true });
    expect(routesTo(host, '10.1.0.0/24')).toHaveLength(1);
  },

  'a route is set once; another gateway replaces it; it is removed once'({ kernel: { host } }) {
    const { near } = wired(host);
    for (const [dst, via, other] of [
      ['0.0.0.0/0', '10.1.0.9', '10.1.0.8'],
      ['::/0', 'fd00:1::9', 'fd00:1::8'],
      ['10.8.0.0/16', '10.1.0.9', '10.1.0.8'],
      ['fd00:8::/32', 'fd00:1::9', 'fd00:1::8'],
    ] as const) {
      host.netlink.ensureRoute({ dst, via });
      host.netlink.ensureRoute({ dst, via, link: near });
      expect(routesTo(host, dst)).toMatchObject([{ via, ifindex: near, type: 1 }]);
      host.netlink.ensureRoute({ dst, via: other });
      expect(routesTo(host, dst)).toMatchObject([{ via: other }]);
      host.netlink.removeRoute({ dst });
      host.netlink.removeRoute({ dst });
      expect(routesTo(host, dst)).toEqual([]);
    }
  },
  'routes differ by metric and by table, and host bits are masked'({ kernel: { host } }) {
    const { near } = wired(host);
    host.netlink.ensureRoute({ dst: '10.8.1.2/16', link: near });
    host.netlink.ensureRoute({ dst: '10.8.0.0/16', link: near, metric: 50 });
    host.netlink.ensureRoute({ dst: '10.8.0.0/16', link: near, table: 7000 });
    expect(
      routesTo(host, '10.8.0.0/16')
        .map(({ metric }) => metric)
        .sort(),
    ).toEqual([0, 50]);
    const seven = () => host.netlink.routes(7000);
    expect(seven()).toMatchObject([{ dst: '10.8.0.0/16', ifindex: near }]);
    host.netlink.removeRoute({ dst: '10.8.0.0/16', table: 7000 });
    host.netlink.removeRoute({ dst: '10.8.0.0/16', metric: 50 });
    expect(seven()).toEqual([]);
    expect(routesTo(host, '10.8.0.0/16')).toMatchObject([{ metric: 0 }]);
  },
  'a gateway that nobody can reach is refused, unless it is called on-link'({ kernel: { host } }) {
    const { near } = wired(host);
    expect(code(() => host.netlink.ensureRoute({ dst: '10.8.0.0/16', via: '172.31.0.1' }))).toBe('kernel.failed');
    host.netlink.ensureRoute({ dst: '10.8.0.0/16', via: '172.31.0.1', link: near, onlink: true });
    expect(routesTo(host, '10.8.0.0/16')).toMatchObject([{ via: '172.31.0.1', ifindex: near }]);
    expect(code(() => host.netlink.ensureRoute({ dst: '10.8.0.0/16', link: 4711 }))).toBe('kernel.notfound');
    expect(code(() => host.netlink.ensureRoute({ dst: 'nonsense', link: near }))).toBe('request.invalid');
  },

  'neighbours are permanent, replaced by address, removed once'({ kernel: { host } }) {
    const { near } = wired(host);
    const entries = [
      { link: near, ip: '10.1.0.5', mac: '02:00:00:00:00:05' },
      { link: near, ip: 'FD00:1::5', mac: '02:00:00:00:00:0B' },
    ];
    host.netlink.ensureNeighbours(entries);
    host.netlink.ensureNeighbours([{ ...entries[0]!, mac: '02:00:00:00:00:06' }]);
    const list = () =>
      host.netlink
        .neighbours(near)
        .filter(({ ip }) => /5$/.test(ip))
        .sort((a, b) => (a.ip < b.ip ? -1 : 1));
    expect(list()).toEqual([
      { ifindex: near, ip: '10.1.0.5', mac: '02:00:00:00:00:06', state: 0x80 },
      { ifindex: near, ip: 'fd00:1::5', mac: '02:00:00:00:00:0b', state: 0x80 },
    ]);
    for (let i = 0; i < 2; i++) host.netlink.removeNeighbours(entries);
    expect(list()).toEqual([]);
    host.netlink.ensureNeighbours([]);
  },
  'one entry that is refused does not keep the others out'({ kernel: { host } }) {
    const { near } = wired(host);
    const mac = '02:00:00:00:00:05';
    expect(
      code(() =>
        host.netlink.ensureNeighbours([
          { link: near, ip: '10.1.0.5', mac },
          { link: 4711, ip: '10.1.0.6', mac },
          { link: near, ip: '10.1.0.7', mac },
        ]),
      ),
    ).toBe('kernel.notfound');
    expect(host.netlink.neighbours(near).filter((one) => one.mac === mac)).toHaveLength(2);
    const port = veth(host, 'v1', undefined, 'p1').ifindex;
    host.netlink.setLink(port, { master: bridge(host).ifindex });
    const entries = [4711, port].map((link) => ({ link, mac, table: 'master' as const }));
    expect(code(() => host.netlink.ensureFdb(entries))).toBe('kernel.notfound');
    expect(host.netlink.fdb(port).some((one) => one.mac === mac)).toBe(true);
  },
  'a bridge knows a MAC at one port, as static; a port`s own is permanent'({ kernel: { host } }) {
    const { ifindex: master } = bridge(host);
    const [a, b] = ['a', 'b'].map((name) => {
      const { ifindex } = veth(host, `v${name}`, undefined, `p${name}`);
      host.netlink.setLink(ifindex, { master, up: true });
      return ifindex;
    }) as [number, number];
    const mac = '02:00:00:00:00:aa';
    const at = (port: number) => host.netlink.fdb(port).filter((entry) => entry.mac === mac);
    for (let i = 0; i < 2; i++) host.netlink.ensureFdb([{ link: a, mac: mac.toUpperCase(), table: 'master' }]);
    expect(at(a)).toMatchObject([{ ifindex: a, mac, table: 'master', permanent: false }]);
    host.netlink.ensureFdb([{ link: b, mac, table: 'master' }]);
    expect([at(a), at(b).length]).toEqual([[], 1]);
    for (let i = 0; i < 2; i++) host.netlink.removeFdb([{ link: b, mac, table: 'master' }]);
    expect(at(b)).toEqual([]);
    const own = host.netlink.link(a)!.mac;
    expect(host.netlink.fdb(a)).toContainEqual(expect.objectContaining({ mac: own, permanent: true, table: 'master' }));
    host.netlink.ensureFdb([{ link: a, mac, table: 'master' }]);
    host.netlink.setLink(a, { master: 0 });
    expect(at(a)).toEqual([]);
  },
  'a VXLAN device knows one VTEP a MAC, and a list of them under the all-zero one'({ kernel: { host } }) {
    const { ifindex: link } = host.netlink.ensureVxlan('vx0', {
      vni: 42,
      port: 4789,
      local: '127.0.0.1',
      mtu: 1400,
      mac: MAC,
      alias: '',
    });
    const at = (mac: string) =>
      host.netlink
        .fdb(link)
        .filter((entry) => entry.mac === mac && entry.table === 'self' && entry.dst)
        .map(({ dst }) => dst)
        .sort();
    const zero = '00:00:00:00:00:00';
    const self = (mac: string, dst: string) => ({ link, mac, dst, table: 'self' as const });
    host.netlink.ensureFdb([self(PEER_MAC, '192.0.2.1')]);
    host.netlink.ensureFdb([self(PEER_MAC, '192.0.2.2')]);
    expect(at(PEER_MAC)).toEqual(['192.0.2.2']);
    for (let i = 0; i < 2; i++) host.netlink.ensureFdb([self(zero, '192.0.2.1'), self(zero, '192.0.2.2')]);
    expect(at(zero)).toEqual(['192.0.2.1', '192.0.2.2']);
    for (let i = 0; i < 2; i++) host.netlink.removeFdb([self(zero, '192.0.2.1')]);
    expect(at(zero)).toEqual(['192.0.2.2']);
  },
  'a MAC behind a VXLAN port is set in both tables by neighbouring entries, and moves with its VTEP'({
    kernel: { host },
  }) {
    const { ifindex: master } = bridge(host);
    const device = { vni: 43, port: 4790, local: '192.0.2.9', mtu: 1450, mac: MAC, alias: '' };
    const { ifindex: link } = host.netlink.ensureVxlan('vx0', device);
    host.netlink.setLink(link, { master });
    const seen = () =>
      host.netlink
        .fdb(link)
        .filter((one) => one.mac === PEER_MAC)
        .map(({ table, dst }) => `${table} ${dst ?? ''}`.trim())
        .sort();
    const both = (dst: string) =>
      [
        { link, mac: PEER_MAC, dst, table: 'self' } as const,
        { link, mac: PEER_MAC, table: 'master' } as const,
      ] as const;
    for (const dst of ['192.0.2.1', '192.0.2.2']) {
      host.netlink.ensureFdb(both(dst));
      expect(seen()).toEqual(['master', `self ${dst}`]);
    }
    host.netlink.removeFdb(both('192.0.2.2'));
    expect(seen()).toEqual([]);
  },

  'nft tables are applied, listed and deleted; an absent one lists as null'({ kernel }) {
    using nft = kernel.nft();
    expect(nft.tables()).toEqual([]);
    nft.apply(`
      table inet test {
        map backends { type inet_service : ipv4_addr; elements = { 80 : 10.0.0.1 }; }
        chain forward { type filter hook forward priority 0; policy accept; ip saddr 10.0.0.1 drop; }
      }`);
    expect(nft.tables()).toEqual(['inet test']);
    const objects = nft.list('table inet test') ?? [];
    expect(objects.map((object) => Object.keys(object)[0])).toEqual(['table', 'map', 'chain', 'rule']);
    expect(objects[2]).toMatchObject({ chain: { name: 'forward', hook: 'forward', type: 'filter', policy: 'accept' } });
    expect(nft.list('table inet absent')).toBeNull();
    nft.apply('add element inet test backends { 81 : 10.0.0.2 }');
    const [listed] = nft.list('map inet test backends') ?? [];
    expect((nft.list('map inet test backends') ?? []).length).toBe(1);
    expect((listed as { map: { elem: unknown[] } }).map.elem).toHaveLength(2);
    nft.apply('delete table inet test');
    expect(nft.list('table inet test')).toBeNull();
    expect(nft.list('ruleset')).toEqual([]);
  },
  'an nft transaction is done whole or not at all, and its error says why'({ kernel }) {
    using nft = kernel.nft();
    nft.apply('table inet test {\n chain c { accept; }\n}');
    const before = nft.list('table inet test');
    expect(code(() => nft.apply('add rule inet test c drop\nadd rule inet absent c drop'))).toBe('kernel.notfound');
    expect(code(() => nft.apply('delete table inet test; add rule inet test c drop'))).toBe('kernel.notfound');
    expect(code(() => nft.apply('this is no rule'))).toBe('kernel.failed');
    expect(code(() => nft.apply('create table inet test'))).toBe('kernel.exists');
    expect(nft.list('table inet test')).toEqual(before);
    expect(() => nft.apply('delete table inet absent')).toThrow(/No such file or directory/);
    nft.apply('add table inet test; delete table inet test; table inet test {\n chain d { drop; }\n}');
    expect(JSON.stringify(nft.list('table inet test'))).not.toContain('accept');
  },
  'nft belongs to a namespace'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    using inside = kernel.nft(a);
    using outside = kernel.nft();
    inside.apply('add table inet inside');
    expect([inside.tables(), outside.tables()]).toEqual([['inet inside'], []]);
  },

  async 'a monitor tells of changes in its namespace and of no other, by type, until it is closed'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    const seen: LinkEvent[] = [];
    const links: LinkEvent[] = [];
    const all: LinkEvent['type'][] = ['link', 'address', 'route', 'neighbour', 'nft'];
    const monitor = kernel.monitor(
      kernel.host,
      all,
      (event) => seen.push(event),
      () => undefined,
    );
    using only = kernel.monitor(
      kernel.host,
      ['link'],
      (event) => links.push(event),
      () => undefined,
    );
    bridge(a);
    const { near } = wired(kernel.host);
    kernel.host.netlink.ensureNeighbours([{ link: near, ip: '10.1.0.5', mac: PEER_MAC }]);
    kernel.host.netlink.ensureRoute({ dst: '10.8.0.0/16', via: '10.1.0.5' });
    kernel.host.netlink.removeAddress(near, '10.1.0.1/24');
    using nft = kernel.nft();
    nft.apply('add table inet test');
    expect(seen).toEqual([]);
    const told = (type: LinkEvent['type'], removed: boolean) =>
      seen.some(
        (event) => event.type === type && event.removed === removed && (type === 'nft' || event.ifindex === near),
      );
    await until('link', () => told('link', false));
    await until('address', () => told('address', false) && told('address', true));
    await until('route', () => told('route', false));
    await until('neighbour', () => told('neighbour', false));
    await until('nft', () => told('nft', false));
    kernel.host.netlink.removeLink(near);
    await until('removal', () => told('link', true));
    expect(new Set(links.map(({ type }) => type))).toEqual(new Set(['link']));
    expect([monitor.losses, only.losses]).toEqual([0, 0]);
    monitor[Symbol.dispose]();
    const count = seen.length;
    const before = links.length;
    bridge(kernel.host, 'br9');
    await until('the other monitor', () => links.length > before);
    expect(seen).toHaveLength(count);
  },

  async 'a cgroup keeps its number, has none when it is absent, and goes with what is below it'({ kernel, cgroup }) {
    const { cgroups } = kernel;
    expect(cgroups.id(cgroup)).toBeNull();
    const id = cgroups.ensure(`${cgroup}/a/b`);
    expect(id).toBeGreaterThan(0n);
    expect(cgroups.ensure(`${cgroup}/a/b`)).toBe(id);
    expect(cgroups.id(`${cgroup}/a/b`)).toBe(id);
    expect(cgroups.id(`${cgroup}/a`)).not.toBe(id);
    expect(cgroups.processes(cgroup)).toEqual([]);
    await cgroups.remove(cgroup);
    await cgroups.remove(cgroup);
    expect(cgroups.id(`${cgroup}/a/b`)).toBeNull();
    expect(cgroups.processes(cgroup)).toEqual([]);
    expect(cgroup.startsWith(cgroups.mount)).toBe(true);
  },
  'what is no cgroup is not taken for one'({ kernel }) {
    expect(code(() => kernel.cgroups.ensure('/proc/self'))).toBe('kernel.failed');
  },

  'a namespace without sockets lists none, and a socket that is gone is not destroyed'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    for (const protocol of ['tcp', 'udp'] as const) {
      expect(kernel.sockets.list(a, { protocol })).toEqual([]);
      const gone = {
        family: 4 as const,
        protocol,
        state: 1,
        local: '127.0.0.1',
        localPort: 1,
        remote: '127.0.0.1',
        remotePort: 2,
        cookie: 77n,
        inode: 0,
        uid: 0,
      };
      expect(kernel.sockets.destroy(a, gone)).toBe(false);
    }
  },
  "a port that is held is nobody else's, until it is let go of"({ kernel }) {
    const hold = (protocol: 'tcp' | 'udp', address: string) => kernel.ports.hold(protocol, address, 8093);
    const held = hold('tcp', '0.0.0.0');
    expect(held).not.toBeNull();
    expect(code(() => hold('tcp', '0.0.0.0'))).toBe('port.inuse');
    for (const other of [hold('udp', '0.0.0.0'), hold('tcp', '::')]) other?.[Symbol.dispose]();
    held?.[Symbol.dispose]();
    hold('tcp', '0.0.0.0')?.[Symbol.dispose]();
  },
  'where nothing is tracked, nothing is forgotten'({ kernel, path }) {
    using a = kernel.namespaces.ensure(path('a'));
    const addresses = new Set(['127.0.0.1']);
    for (const protocol of ['tcp', 'udp'] as const)
      expect(kernel.conntrack.remove(a, { protocol, addresses, port: 8093 })).toBe(0);
  },
  'every feature is known'({ kernel }) {
    const { release, ...features } = { ...kernel.features, release: kernel.features.release };
    expect(release).toMatch(/^\d+\.\d+/);
    for (const [name, value] of Object.entries(features)) expect(typeof value, name).toBe('boolean');
  },
};

export function kernelConformance(name: string, make: () => Promise<KernelUnderTest>): void {
  describe(`kernel: ${name}`, () => {
    test.each(Object.keys(KERNEL_CASES))('%s', async (which) => {
      const on = await make();
      try {
        await KERNEL_CASES[which]!(on);
      } finally {
        await on.close();
      }
    });
  });
}
