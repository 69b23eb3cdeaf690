import { afterEach, describe, expect, test } from 'vitest';
import { until } from './kernel-bed.ts';
import { type Box, network, OverlayBed, type OverlayHost } from './overlay-bed.ts';

/** Debian's own. */
const PYTHON = '/usr/bin/python3';
let bed: OverlayBed;
afterEach(() => bed?.close());

/** A frame of UDP to port 9999 of the box, as VXLAN to a tunnel end point, the inner source a neighbour's. */
const injection = (vtep: string, vni: number, to: Box, what: string): readonly [string, ...string[]] => [
  PYTHON,
  '-c',
  `import socket,struct
def csum(b):
    s=sum(struct.unpack("!%dH"%(len(b)//2),b)); s=(s>>16)+(s&0xffff); s+=s>>16; return ~s&0xffff
data=b"${what}"
udp=struct.pack("!HHHH",1,9999,8+len(data),0)+data
ip=struct.pack("!BBHHHBBH4s4s",0x45,0,20+len(udp),1,0,64,17,0,socket.inet_aton("10.50.0.200"),socket.inet_aton("${to.ip}"))
ip=ip[:10]+struct.pack("!H",csum(ip))+ip[12:]
mac=bytes.fromhex("${to.endpoint.mac.replaceAll(':', '')}")
frame=mac+bytes.fromhex("02420a3200c8")+b"\\x08\\x00"+ip+udp
vx=struct.pack("!II",0x08000000,${vni}<<8)
v6=":" in "${vtep}"
s=socket.socket(socket.AF_INET6 if v6 else socket.AF_INET,socket.SOCK_DGRAM)
s.sendto(vx+frame,("${vtep}",4789))`,
];
const LISTEN: readonly [string, ...string[]] = [
  PYTHON,
  '-uc',
  `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)
s.bind(("0.0.0.0",9999))
print("ready")
while True: print(s.recv(2000).decode())`,
];

describe.each([4, 6] as const)('VXLAN that somebody injects, over IPv%s', (family) => {
  test('reaches a sandbox without the guard, and nothing with it; registered hosts go on', async () => {
    bed = await OverlayBed.open(`ovlinj${family}`, 3, { family });
    const [a, b, stranger] = bed.hosts as [OverlayHost, OverlayHost, OverlayHost];
    const net = network(1);
    const [one, two] = [await a.box(net, 10), await b.box(net, 11)];
    const other = await a.box({ ...net, id: network(2).id, vni: 7002 }, 30);
    const boxes = new Map([
      [one, a],
      [two, b],
    ]);
    await bed.connect(net, boxes);
    for (const host of [a, b]) host.kernel.host.setSysctl('net.ipv4.ip_forward', '1');
    for (const host of [a, b]) host.kernel.host.setSysctl('net.ipv6.conf.all.forwarding', '1');
    // Answers go home as masquerading would bring them; datagrams alone are sent here.
    const ear = one.spawn(LISTEN);
    await until('it listens', () => ear.output().includes('ready'));
    const { address } = a.underlay;

    await stranger.lab.must(injection(address, 7001, one, 'from a stranger'));
    await until('without a guard a stranger gets in', () => ear.output().includes('from a stranger'));
    // Towards its own host by the gateway, and from the neighbouring host's sandbox across the underlay.
    await other.run(injection(address, 7001, one, 'from the next sandbox'));
    await until('without a guard a sandbox gets in', () => ear.output().includes('from the next sandbox'));

    const bridges = [`sl${net.id.slice(0, 12)}`, `sl${other.network.id.slice(0, 12)}`];
    for (const [host, peer] of [
      [a, b],
      [b, a],
    ] as const)
      host.guard.ensure({ underlay: host.underlay, vteps: [peer.underlay.address], bridges });
    await stranger.lab.must(injection(address, 7001, one, 'again a stranger'));
    await other.run(injection(address, 7001, one, 'again the next sandbox'));
    await two.run(injection(address, 7001, one, 'a sandbox of the other host'));
    // From a registered host it comes in: the last word, after which the others would have been there.
    await b.lab.must(injection(address, 7001, one, 'from a registered host'));
    await until('the registered host gets in', () => ear.output().includes('from a registered host'));
    expect(ear.output()).not.toMatch(/again|a sandbox of/);
    expect(await one.pings(two.ip)).toBe(true);
    expect(await one.pings(two.ip6)).toBe(true);

    // Removed by hand it is written anew, and is gone when nobody listens any more.
    await a.lab.must(['nft', 'delete', 'table', 'inet', `sluice-${a.lab.instance}-vxlan`]);
    expect(a.guard.audit()).toHaveLength(1);
    expect(a.guard.audit()).toEqual([]);
    a.guard.remove();
    expect(a.guard.stands).toBe(false);
  });
});
