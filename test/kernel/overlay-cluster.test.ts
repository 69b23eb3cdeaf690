import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { ClusterBed, type ClusterBox, type ClusterNode } from './cluster-bed.ts';
import { SLOWNESS, until } from './kernel-bed.ts';

let bed: ClusterBed;
afterEach(() => bed?.close());

type Three = [ClusterNode, ClusterNode, ClusterNode];
type Boxes = [ClusterBox, ClusterBox, ClusterBox];

async function reach(from: ClusterBox, address: string): Promise<void> {
  const end = performance.now() + 5_000 * SLOWNESS;
  while (!(await from.pings(address)))
    if (performance.now() > end) throw new Error(`${from.name} does not reach ${address}`);
}

const entries = (node: ClusterNode, networkId: string) =>
  node.kernel.host.netlink
    .fdb(node.device('sx', networkId)!.ifindex)
    .filter(({ table, dst }) => table === 'self' && dst);

describe('a network made on one node', () => {
  test.each([4, 6] as const)('is on all three over IPv%s: everybody reaches and resolves everybody', async (family) => {
    bed = await ClusterBed.open(`cl${family}`, 3, { family });
    const [a, b, c] = bed.nodes as Three;
    const { object: mesh } = await a.desired.networks.put('mesh', {
      driver: 'overlay',
      ipv6: true,
      subnets: [{ cidr: 'fd00:50::/64' }],
    });
    const boxes: Boxes = [await a.box('one', 'mesh'), await b.box('two', 'mesh'), await c.box('three', 'mesh')];
    for (const from of boxes) for (const to of boxes) for (const address of to.addresses) await reach(from, address);
    for (const node of [a, b, c])
      for (const box of boxes) await until(`${box.name} is known`, () => node.resolves(box.name).length === 2);
    expect([...a.resolves('three.mesh')].sort()).toEqual([...boxes[2].addresses].sort());
    // Two remote endpoints and two hosts to flood; nobody is registered but the others.
    expect(entries(a, mesh.id)).toHaveLength(4);
    const guard = await a.host.must(`nft list table inet sluice-${a.host.instance}-vxlan`);
    for (const { host } of [b, c]) expect(guard).toContain(family === 4 ? host.address : host.address6);
    // Its own address is none of a peer's.
    expect(guard).not.toMatch(new RegExp(`elements = \\{[^}]*\\b${a.host.address}[ ,]`));

    // With its last endpoint a host leaves, and the others forget it.
    await c.remove(boxes[2]);
    await until('the devices are gone', () => c.device('sx', mesh.id) === null && c.device('sl', mesh.id) === null);
    await until('the others forget it', () => entries(a, mesh.id).length === 2);
    expect(c.world.peersOfNetwork(mesh.id).size).toBe(0);
    await until('its name is gone', () => a.resolves('three').length === 0);
  });
});

describe('what happens to endpoints and entries', () => {
  test('an endpoint that moves to another node with its address is reached within 100 ms of its new node', async () => {
    bed = await ClusterBed.open('clmove', 3, { auditMs: 60_000 });
    const [a, b, c] = bed.nodes as Three;
    await a.desired.networks.put('mesh', { driver: 'overlay', subnets: [{ cidr: '10.50.0.0/20' }] });
    const one = await a.box('one', 'mesh');
    await c.box('three', 'mesh');
    const two = await b.box('two', 'mesh', '10.50.0.77');
    await reach(one, '10.50.0.77');
    await b.remove(two);
    // The same kernel runs all hosts: its monotonic clock is everybody's.
    const program = [
      '/usr/bin/python3',
      '-uc',
      `import socket,time
s=socket.socket(socket.AF_INET,socket.SOCK_STREAM)
end=time.time()+10
while time.time()<end:
    s=socket.socket(socket.AF_INET,socket.SOCK_STREAM); s.settimeout(0.02)
    try:
        s.connect(("10.50.0.77",9))
    except ConnectionRefusedError:
        print(time.clock_gettime(time.CLOCK_MONOTONIC)*1000); break
    except OSError: pass`,
    ] as const;
    const asking = one.run(program);
    await sleep(200);
    let committed = 0;
    const moved = c.box('two', 'mesh', '10.50.0.77');
    await until('it is ready at its new node', () => {
      const [endpoint] = [...c.world.endpoints.values()].filter(({ spec }) => spec.addresses[0] === '10.50.0.77/20');
      const ready = endpoint !== undefined && c.tracker.isReady('endpoint', endpoint.id);
      if (ready) committed = Number(process.hrtime.bigint() / 1_000n) / 1_000;
      return ready;
    });
    await moved;
    const answered = Number((await asking).stdout.trim());
    expect(answered).toBeGreaterThan(0);
    expect(answered - committed).toBeLessThan(100 * SLOWNESS);
  });

  test('entries that are deleted or falsified by hand are repaired within an audit, and counted', async () => {
    bed = await ClusterBed.open('clfix', 2, { auditMs: 500 });
    const [a, b] = bed.nodes as Three;
    const { object: mesh } = await a.desired.networks.put('mesh', {
      driver: 'overlay',
      subnets: [{ cidr: '10.50.0.0/20' }],
    });
    const [one, two] = [await a.box('one', 'mesh'), await b.box('two', 'mesh')];
    const [address] = two.addresses;
    await reach(one, address!);
    const [sx, sl] = [`sx${mesh.id.slice(0, 12)}`, `sl${mesh.id.slice(0, 12)}`];
    for (const harm of [
      `bridge fdb del ${two.mac} dev ${sx} self`,
      `bridge fdb del ${two.mac} dev ${sx} master`,
      `bridge fdb replace ${two.mac} dev ${sx} dst 198.18.0.99 self static`,
      `ip neigh del ${address} dev ${sl}`,
      `ip neigh replace ${address} lladdr 02:00:00:00:00:99 dev ${sl} nud permanent`,
      `bridge fdb append 00:00:00:00:00:00 dev ${sx} dst 198.18.0.99 self permanent`,
    ]) {
      const counted = () =>
        a.tracker.get('network', mesh.id)?.conditions.find(({ type }) => type === 'Repaired')?.count ?? 0;
      const before = counted();
      await a.host.must(harm);
      await until(`repaired: ${harm}`, () => counted() > before, 5_000);
      expect(await one.pings(address!), harm).toBe(true);
    }
  });

  test('a node that is started anew takes up what is there, and what changed meanwhile', async () => {
    bed = await ClusterBed.open('clnew', 2);
    const [a, b] = bed.nodes as Three;
    const { object: mesh } = await a.desired.networks.put('mesh', {
      driver: 'overlay',
      subnets: [{ cidr: '10.50.0.0/20' }],
    });
    const one = await a.box('one', 'mesh');
    const two = await b.box('two', 'mesh');
    await reach(one, two.addresses[0]!);
    const device = a.device('sx', mesh.id)!.ifindex;
    await a.stop();
    // What a dead daemon has programmed goes on.
    expect(await one.pings(two.addresses[0]!)).toBe(true);
    await b.remove(two);
    const four = await b.box('four', 'mesh');
    await a.start();
    await reach(one, four.addresses[0]!);
    expect(a.device('sx', mesh.id)!.ifindex).toBe(device);
    await until('the one that went is pruned', () => entries(a, mesh.id).every(({ mac }) => mac !== two.mac));
  });

  test('the MTU is what the narrowest host takes, and follows when one comes', async () => {
    bed = await ClusterBed.open('clmtu', 2);
    const [a, b] = bed.nodes as Three;
    await b.stop();
    const { object: mesh } = await a.desired.networks.put('mesh', { driver: 'overlay' });
    const one = await a.box('one', 'mesh');
    const mtu = async () => /mtu (\d+)/.exec((await one.run('ip -o link show eth0')).stdout)?.[1];
    expect(await mtu()).toBe('1450');
    await b.host.must('ip link set eth0 mtu 1400');
    await b.start();
    const two = await b.box('two', 'mesh');
    const narrow = async () => (await mtu()) === '1350';
    const end = performance.now() + 5_000 * SLOWNESS;
    while (!(await narrow())) if (performance.now() > end) throw new Error('the MTU did not follow');
    expect(a.device('sl', mesh.id)).toMatchObject({ mtu: 1350 });
    expect(a.device('sx', mesh.id)).toMatchObject({ mtu: 1350 });
    await reach(one, two.addresses[0]!);
    // 1350, less the headers of IPv4 and ICMP.
    const full = await one.run(['ping', '-c', '1', '-W', '1', '-M', 'do', '-s', '1322', two.addresses[0]!]);
    expect(full.code).toBe(0);
  });

  test("automatic subnets overlap no route of any node, and names and VNIs are the cluster's", async () => {
    bed = await ClusterBed.open('clnet', 2);
    const [a, b] = bed.nodes as Three;
    await b.stop();
    await b.host.must('ip route add 10.96.0.0/20 via 198.18.0.1');
    await b.start();
    const { object: mesh } = await a.desired.networks.put('mesh', { driver: 'overlay' });
    expect(mesh.spec.subnets[0]!.cidr).toBe('10.96.16.0/20');
    expect((await b.desired.networks.put('mesh', { driver: 'overlay' })).created).toBe(false);
    await expect(b.desired.networks.put('other', { driver: 'overlay', vni: mesh.spec.vni })).rejects.toMatchObject({
      code: 'network.vni',
    });
  });
});
