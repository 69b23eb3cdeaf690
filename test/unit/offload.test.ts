import { afterEach, describe, expect, test } from 'vitest';
import type { RefusalProber } from '../../src/contracts/prober.ts';
import type { Context } from '../../src/controller/context.ts';
import { OffloadController } from '../../src/controller/offload/offload.ts';
import { describeSpoilt, judge, PROBE_PORT, probeAddress, probeMac } from '../../src/controller/offload/plan.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { createLogger } from '../../src/log.ts';
import type { Condition } from '../../src/model/object.ts';
import { createManualClock } from '../clock.ts';

const [A, B, C] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'];
const UNDERLAY = { address: A, port: 4789, ifname: 'eth0', mtu: 1500 };

/** What becomes of a connection, by what the probe does with checksums. */
type Way = (offload: boolean) => boolean;
const well: Way = () => true;
const spoilt: Way = (offload) => !offload;
const silent: Way = () => false;

function bed(ways: Record<string, Way>) {
  const kernel = createFakeKernel();
  const { netlink } = kernel.host;
  const clock = createManualClock();
  const asked: string[] = [];
  const mesh = netlink.ensureVxlan('sxmesh', {
    vni: 7,
    port: 4789,
    local: A,
    mtu: 1450,
    mac: '02:43:00:00:00:01',
    alias: 'x',
  });
  const networks = new Map<string, { name: string; spec: { vni: number } }>([
    ['mesh', { name: 'mesh', spec: { vni: 7 } }],
  ]);
  const node = (name: string, vtep: string) => ({ name, spec: { vtep } });
  const world = {
    networks,
    nodes: new Map(Object.entries({ a: node('a', A), b: node('b', B), c: node('c', C) })),
    joined: () => ['mesh'],
    // Nobody has an endpoint on host c.
    peersOfNetwork: () => new Map([['e', { owner: 'b' }]]),
  };
  const sink = { set: async () => true, keep: () => undefined, forget: () => undefined };
  const life = () => {
    const tracker = new Tracker({ sink, clock, node: 'a' });
    const prober: RefusalProber = {
      refused: async (from, to, port) => {
        expect([from, port]).toEqual([probeAddress(A, 4789), PROBE_PORT]);
        const name = to === probeAddress(B, 4789) ? 'b' : 'c';
        const offload = netlink.txChecksum(netlink.link('sxprobet')!.ifindex);
        asked.push(`${name} ${offload ? 'on' : 'off'}`);
        return ways[name]!(offload);
      },
    };
    const parts = { instance: 't', node: 'a', kernel, world, tracker, clock, logger: createLogger('silent') };
    return { tracker, offload: new OffloadController(parts as unknown as Context, prober) };
  };
  let { tracker, offload } = life();
  const onDevice = (name: string): boolean | undefined => {
    const link = netlink.link(name);
    return link ? netlink.txChecksum(link.ifindex) : undefined;
  };
  const detail = () =>
    tracker.ready({ kind: 'network', id: 'mesh', revision: 1 } as never, { tunnel: { ifindex: mesh.ifindex } });
  return {
    ...{ kernel, netlink, asked, networks, mesh, ways, onDevice },
    get offload() {
      return offload;
    },
    said: (type: Condition['type'], kind: 'node' | 'network' = 'node'): string | undefined =>
      tracker.get(kind, kind === 'node' ? 'a' : 'mesh')?.conditions.find((each) => each.type === type && each.active)
        ?.message,
    ensure: (vteps: string[] = [B, C]) => offload.ensure(UNDERLAY, vteps),
    async test() {
      await detail();
      asked.length = 0;
      await offload.test();
    },
    async restart() {
      await offload.stop();
      const known = [tracker.get('node', 'a'), tracker.get('network', 'mesh')].filter((status) => status !== undefined);
      ({ tracker, offload } = life());
      tracker.load(known);
    },
  };
}

let on: ReturnType<typeof bed>;
afterEach(() => on?.offload.stop());

describe('addresses', () => {
  test('follow from the end point and the port', () => {
    expect(probeAddress('198.18.0.11', 4789)).toBe('fd73:6c75:6963:12b5::c612:b');
    expect(probeAddress('198.18.0.11', 8472)).toBe('fd73:6c75:6963:2118::c612:b');
    expect(probeMac('198.18.0.11')).toBe('02:42:c6:12:00:0b');
    const six = probeAddress('2001:db8::1', 4789);
    expect(six).toMatch(/^fd73:6c75:6963:12b5:/);
    expect(six).toBe(probeAddress('2001:DB8:0::1', 4789));
    expect(six).not.toBe(probeAddress('2001:db8::2', 4789));
    expect(probeMac('2001:db8::1')).toMatch(/^02:43(:[0-9a-f]{2}){4}$/);
    expect(probeMac('2001:db8::1')).not.toBe(probeMac('2001:db8::2'));
  });
});

describe('the verdict', () => {
  test('blames the offload where it alone makes the difference', () => {
    expect(judge(['b', 'c', 'd'], new Set(['b']), new Set(['c']))).toEqual({ spoilt: ['c'], doubtful: ['d'] });
    expect(describeSpoilt(['b (192.0.2.2)', 'c (192.0.2.3)'], 'sxprobet', 'x')).toMatch(
      /^TCP to nodes b .*, c .*sxprobet/,
    );
  });
});

describe('the test', () => {
  test('asks those with whom a network is shared, off and on, and leaves all as it is', async () => {
    on = bed({ b: well });
    await on.ensure();
    await on.test();
    expect(on.asked).toEqual(['b off', 'b on']);
    expect([on.onDevice('sxprobet'), on.onDevice('sxmesh')]).toEqual([false, true]);
    expect(on.said('ChecksumOffload')).toBeUndefined();
    // Not again before its time.
    await on.test();
    expect(on.asked).toEqual([]);
  });

  test('finds what is spoilt, twice over, and switches it off on the networks', async () => {
    on = bed({ b: spoilt });
    await on.ensure();
    await on.test();
    const round = ['b on', 'b on', 'b on', 'b off'];
    expect(on.asked).toEqual(['b off', ...round, ...round]);
    expect([on.onDevice('sxprobet'), on.onDevice('sxmesh')]).toEqual([false, false]);
    expect(on.said('ChecksumOffload')).toContain(`TCP to node b (${B})`);
    expect(on.said('ChecksumOffload', 'network')).toContain('(here: sxmesh)');
    // Level: whoever switches it on is corrected, and it is said.
    on.netlink.setTxChecksum(on.mesh.ifindex, true);
    const tunnel = { ifindex: on.mesh.ifindex, address: A, port: 4789 };
    expect(await on.offload.settle('mesh', tunnel)).toEqual(['tx checksum offload of sxmesh switched off']);
    expect(await on.offload.settle('mesh', tunnel)).toEqual([]);
  });

  test('says nothing of who is silent, nor of what was lost otherwise', async () => {
    on = bed({ b: silent });
    await on.ensure();
    await on.test();
    expect(on.asked).toEqual(['b off', 'b off', 'b off']);
    let questions = 0;
    // Heard once, then never more.
    on.ways.b = () => questions++ === 0;
    await on.test();
    expect(on.asked).toEqual(['b off', 'b on', 'b on', 'b on', 'b off', 'b off', 'b off']);
    expect(on.said('ChecksumOffload')).toBeUndefined();
    expect([on.onDevice('sxprobet'), on.onDevice('sxmesh')]).toEqual([false, true]);
  });

  test('one gap of a few seconds is no finding', async () => {
    on = bed({ b: well });
    await on.ensure();
    let questions = 0;
    on.ways.b = () => ![1, 2, 3].includes(questions++);
    await on.test();
    expect(on.asked.slice(0, 5)).toEqual(['b off', 'b on', 'b on', 'b on', 'b off']);
    expect(on.said('ChecksumOffload')).toBeUndefined();
    expect(on.onDevice('sxmesh')).toBe(true);
  });
});

describe('what was found', () => {
  test('outlives the daemon, and ends with the device', async () => {
    on = bed({ b: spoilt });
    await on.ensure();
    await on.test();
    await on.restart();
    await on.ensure();
    expect(on.said('ChecksumOffload')).toContain('node b');
    expect(on.onDevice('sxmesh')).toBe(false);
    // As after a start of the host.
    await on.restart();
    on.netlink.removeLink(on.netlink.link('sxprobet')!.ifindex);
    await on.ensure();
    expect(on.said('ChecksumOffload')).toBeUndefined();
    await on.test();
    expect(on.said('ChecksumOffload')).toContain('node b');
    on.kernel.host.netlink.removeLink(on.netlink.link('sxprobet')!.ifindex);
    await on.test();
    expect(on.asked).toEqual([]);
  });

  test('is taken back on the networks with it', async () => {
    on = bed({ b: spoilt });
    await on.ensure();
    await on.test();
    on.ways.b = well;
    on.netlink.removeLink(on.netlink.link('sxprobet')!.ifindex);
    await on.ensure();
    expect([on.onDevice('sxprobet'), on.onDevice('sxmesh')]).toEqual([false, true]);
    expect(on.said('ChecksumOffload', 'network')).toBeUndefined();
  });
});

describe('the device', () => {
  test('points at the others, follows them, and is put right', async () => {
    on = bed({ b: well });
    await on.ensure();
    const { ifindex, up, vxlan, alias } = on.netlink.link('sxprobet')!;
    expect({ up, alias, ...vxlan }).toMatchObject({
      up: true,
      vni: 16777215,
      port: 4789,
      local: A,
      learning: false,
      alias: 'sluice:t:probe',
    });
    const points = () => on.netlink.fdb(ifindex).map(({ mac, dst }) => `${mac} ${dst}`);
    expect(points()).toEqual([`02:42:c0:00:02:02 ${B}`, `02:42:c0:00:02:03 ${C}`]);
    expect(on.netlink.neighbours(ifindex).map(({ ip }) => ip)).toEqual([B, C].map((vtep) => probeAddress(vtep, 4789)));
    expect(on.netlink.addresses(ifindex)).toMatchObject([{ cidr: 'fd73:6c75:6963:12b5::c000:201/64', flags: 0xa2 }]);
    // Only those that packets of its own family reach.
    await on.ensure([C, '2001:db8::2']);
    expect(points()).toEqual([`02:42:c0:00:02:03 ${C}`]);
    expect(on.said('Repaired')).toBeUndefined();
    on.netlink.removeFdb([{ link: ifindex, mac: '02:42:c0:00:02:03', table: 'self' }]);
    on.netlink.setTxChecksum(ifindex, true);
    await on.ensure([C, '2001:db8::2']);
    expect(points()).toEqual([`02:42:c0:00:02:03 ${C}`]);
    expect(on.onDevice('sxprobet')).toBe(false);
    expect(on.said('Repaired')).toContain('1 forwarding entries set');
    expect(await on.offload.prune()).toEqual([]);
    await on.offload.remove();
    expect(on.netlink.link('sxprobet')).toBeNull();
  });

  test('is not there where there is nobody else', async () => {
    on = bed({});
    await on.ensure();
    await on.ensure([]);
    expect(on.netlink.link('sxprobet')).toBeNull();
  });

  test('gives way to whoever has the VNI, and says who', async () => {
    on = bed({ b: well });
    const foreign = { vni: 16777215, port: 4789, local: A, mtu: 1450, mac: '02:43:00:00:00:02', alias: 'theirs' };
    const { ifindex } = on.netlink.ensureVxlan('vx9', foreign);
    await on.ensure();
    expect(on.said('ChecksumUntested')).toContain('device vx9 ("theirs") of this host has it');
    await on.test();
    expect(on.asked).toEqual([]);
    on.netlink.removeLink(ifindex);
    await on.ensure();
    expect(on.said('ChecksumUntested')).toBeUndefined();
    // One of ours, of the time before the number was kept back.
    on.networks.set('old', { name: 'old', spec: { vni: 16777215 } });
    await on.ensure();
    expect(on.said('ChecksumUntested')).toContain('belongs to network old');
    expect(on.netlink.link('sxprobet')).toBeNull();
  });
});
