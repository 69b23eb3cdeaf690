/** Past the bridge: what stays within a network that spans hosts reaches its end although nothing may pass the bridges. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { NUMBER, STATION, STATION_KEY } from '../../src/balancer/maps/layout.ts';
import { closeFd, mapDelete, mapUpdate, objectGet } from '../../src/kernel/bpf/bpf.ts';
import { hostName } from '../../src/kernel/port/port.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { type Box, network, OverlayBed, type OverlayHost } from './overlay-bed.ts';

const net = network(1);
/** Somebody's filter of bridged frames: neighbours find each other, and that is all. */
const WALL = `table bridge wall {
  chain forward { type filter hook forward priority 0; meta l4proto { tcp, udp, icmp } drop; }
}
`;

let bed: OverlayBed;
let hosts: readonly [OverlayHost, OverlayHost];
let near: Box;
let neighbour: Box;
let far: Box;
const boxes = new Map<Box, OverlayHost>();

beforeAll(async () => {
  bed = await OverlayBed.open('ovlcut', 2, { guarded: true });
  hosts = bed.hosts as unknown as typeof hosts;
  const [a, b] = hosts;
  for (const host of hosts)
    host.guard.ensure({ underlay: host.underlay, vteps: hosts.map((each) => each.underlay.address), bridges: [] });
  [near, neighbour, far] = [await a.box(net, 10), await a.box(net, 11), await b.box(net, 20)];
  boxes.set(near, a).set(neighbour, a).set(far, b);
  await bed.connect(net, boxes);
  for (const host of hosts) {
    using nft = host.kernel.nft();
    nft.apply(WALL);
  }
});
afterAll(() => bed.close());

/** A TCP connection that carries more than one segment at a time, and a datagram. */
const echo = (box: Box) =>
  box.spawn([
    '/usr/bin/python3',
    '-uc',
    `import socket,threading
t=socket.socket(socket.AF_INET6); t.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); t.bind(('::',7000)); t.listen(50)
u=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); u.bind(('::',7000))
def datagrams():
    while True: d,a=u.recvfrom(2000); u.sendto(d,a)
threading.Thread(target=datagrams,daemon=True).start()
while True:
    c,a=t.accept(); n=0
    while n<1000000: n+=len(c.recv(65536))
    c.sendall(b'got it'); c.close()`,
  ]);
/** Seconds. */
const WAIT_S = Math.min(5, slowness());
const ask = async (from: Box, to: string): Promise<string> => {
  const family = to.includes(':') ? 'AF_INET6' : 'AF_INET';
  const { stdout } = await from.run([
    '/usr/bin/python3',
    '-c',
    `import socket
def attempt(what):
    try: return what()
    except OSError: return 'nothing'
def stream():
    s=socket.socket(socket.${family}); s.settimeout(${WAIT_S}); s.connect(('${to}',7000)); s.sendall(b'x'*1000000); return s.recv(10).decode()
def datagram():
    s=socket.socket(socket.${family},socket.SOCK_DGRAM); s.settimeout(${WAIT_S}); s.sendto(b'word',('${to}',7000)); return s.recv(10).decode()
print(attempt(stream), '+', attempt(datagram))`,
  ]);
  return stdout.trim();
};
const addressesOf = ({ ip, ip6 }: Box): [string, string][] => [
  ['ipv4', ip],
  ['ipv6', ip6],
];
/** While frames go past the bridges, or do not. */
async function while_<T>(direct: boolean, look: () => Promise<T>): Promise<T> {
  for (const host of hosts) host.direct(net, direct);
  try {
    return await look();
  } finally {
    for (const host of hosts) host.direct(net, true);
  }
}

describe('past the bridge', () => {
  beforeAll(() => {
    for (const box of [neighbour, far]) echo(box);
  });

  test.each(addressesOf({ ip: '4', ip6: '6' } as Box).map(([family]) => family))(
    'streams and datagrams, on one host and across: %s',
    async (family) => {
      const at = family === 'ipv4' ? 0 : 1;
      for (const box of [neighbour, far]) {
        const [, address] = addressesOf(box)[at]!;
        await expect.poll(() => ask(near, address), { timeout: 5_000 * slowness() }).toBe('got it + word');
        expect(await while_(false, () => ask(near, address))).toBe('nothing + nothing');
      }
    },
  );

  test('nobody sends from an address that is not its own', async () => {
    const dropped = (): number => {
      const { drops } = hosts[0].dataplane.endpointCounters(near.endpoint.id);
      return drops['source-ip']! + drops.arp!;
    };
    const before = dropped();
    near.namespace.netlink.ensureAddress(near.namespace.netlink.link('eth0')!.ifindex, '10.50.0.99/20');
    expect(await near.pings(far.ip, '-I', '10.50.0.99')).toBe(false);
    expect(dropped()).toBeGreaterThan(before);
  });

  test('a station that is not there is the bridge`s affair, in both directions', async () => {
    const [a, b] = hosts;
    const tunnel = a.direct(net, true);
    a.dataplane.changeStations(tunnel, { come: [], gone: [far.endpoint.mac] });
    expect(await near.pings(far.ip)).toBe(false);
    for (const host of hosts) {
      using nft = host.kernel.nft();
      nft.apply('delete table bridge wall');
    }
    expect(await near.pings(far.ip)).toBe(true);
    a.dataplane.syncStations(tunnel, new Set([far.endpoint.mac]));
    for (const host of [a, b]) {
      using nft = host.kernel.nft();
      nft.apply(WALL);
    }
    expect(await near.pings(far.ip)).toBe(true);
  });

  test('what is larger than the network`s packets is dropped, as by the bridge', async () => {
    const { ifindex } = near.namespace.netlink.link('eth0')!;
    near.namespace.netlink.setLink(ifindex, { mtu: 1500 });
    expect(await near.pings(far.ip, '-M', 'do', '-s', '1422')).toBe(true);
    expect(await near.pings(far.ip, '-M', 'do', '-s', '1423')).toBe(false);
    near.namespace.netlink.setLink(ifindex, { mtu: 1450 });
  });

  test('a queueing discipline at the host`s end is passed', async () => {
    const [a] = hosts;
    const ifname = hostName(neighbour.endpoint.id);
    const sent = async (): Promise<number> =>
      Number(
        /Sent \d+ bytes (\d+) pkt/.exec(
          (await a.lab.exec(['tc', '-s', 'qdisc', 'show', 'dev', ifname, 'root'])).stdout,
        )?.[1],
      );
    const place = () =>
      a.driver.createEndpoint(net, neighbour.endpoint, neighbour.namespace.path).then(({ link }) => {
        a.guardAs(net, neighbour.endpoint, link!);
        return link!.hostQueued;
      });
    expect(await place()).toBe(false);
    await a.lab.exec(['tc', 'qdisc', 'add', 'dev', ifname, 'root', 'pfifo']);
    expect(await near.pings(neighbour.ip)).toBe(true);
    const before = await sent();
    expect(await place()).toBe(true);
    for (let n = 0; n < 3; n++) expect(await near.pings(neighbour.ip)).toBe(true);
    expect((await sent()) - before).toBeGreaterThanOrEqual(3);
    await a.lab.exec(['tc', 'qdisc', 'del', 'dev', ifname, 'root']);
    expect(await place()).toBe(false);
  });

  test('an endpoint that moves to the other host is followed by its station', async () => {
    const [a, b] = hosts;
    const tunnel = { a: a.direct(net, true), b: b.direct(net, true) };
    expect([...a.dataplane.stations(tunnel.a)]).toEqual([far.endpoint.mac]);
    await b.remove(far);
    boxes.delete(far);
    const moved = await a.box(net, 20);
    boxes.set(moved, a);
    await bed.connect(net, boxes);
    await b.table(net).sync([bed.member(moved, a, b), bed.member(near, a, b)], new Set());
    expect([...a.dataplane.stations(tunnel.a)]).toEqual([]);
    expect(b.dataplane.stations(tunnel.b)).toEqual(new Set([moved.endpoint.mac, near.endpoint.mac]));
    echo(moved);
    await expect.poll(() => ask(near, moved.ip), { timeout: 5_000 * slowness() }).toBe('got it + word');
  });

  test('what somebody takes away or falsifies is found, and put back', async () => {
    const [a] = hosts;
    const tunnel = a.direct(net, true);
    expect(a.dataplane.compare()).toEqual([]);
    const pin = (map: string): string => join(a.lab.bpffs, a.lab.instance, 'v1/maps', map);
    const stations = objectGet(pin('stations'))!;
    const segments = objectGet(pin('segments'))!;
    try {
      mapUpdate(
        stations,
        STATION_KEY.encode({ tunnel, mac: near.endpoint.mac }),
        STATION.encode({ ifindex: 1, flags: 1 }),
      );
      mapDelete(segments, NUMBER.encode({ number: tunnel }));
      await a.lab.exec(['tc', 'filter', 'del', 'dev', `sx${net.id.slice(0, 12)}`, 'ingress']);
      expect(a.dataplane.compare().map(({ what }) => what)).toEqual([
        'its shortcut past the bridge',
        `where frames for ${near.endpoint.mac} leave`,
        'the tc program at ingress of its tunnel',
      ]);
    } finally {
      closeFd(stations);
      closeFd(segments);
    }
    expect(a.dataplane.audit().map(({ object, id }) => [object, id])).toEqual([
      ['network', net.id],
      ['network', net.id],
      ['network', net.id],
    ]);
    expect(a.dataplane.compare()).toEqual([]);
  });
});
