import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import { SluiceError } from '../../src/errors.ts';
import { kernelErrors, kernelOps } from '../../src/metrics.ts';
import { inside, KernelBed, script, until } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

const MAC = '02:42:0a:01:00:01';
const mac = (n: number): string =>
  ['02', '00', '00', '00', (n >> 8).toString(16).padStart(2, '0'), (n & 255).toString(16).padStart(2, '0')].join(':');

let space: Namespace;
beforeEach(() => {
  space?.[Symbol.dispose]();
  space = bed.namespace();
});
afterAll(() => space?.[Symbol.dispose]());

function veth(name = 'v0', peer = 'p0') {
  const link = space.netlink.ensureVeth(name, { mtu: 1500, alias: '', peer: { name: peer, mac: MAC, mtu: 1500 } });
  space.netlink.setLink(link.peer, { up: true });
  space.netlink.setLink(link.ifindex, { up: true });
  return link;
}

function refusal(fn: () => unknown): SluiceError {
  try {
    fn();
  } catch (error) {
    if (error instanceof SluiceError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

/** How often an operation was timed or failed. */
async function counted(
  metric: { get(): Promise<{ values: { labels: object; value: number; metricName?: string }[] }> },
  op: string,
) {
  const { values } = await metric.get();
  const fits = ({ labels, metricName }: { labels: object; metricName?: string }) =>
    (labels as { subsystem?: string; op?: string }).subsystem === 'netlink' &&
    (labels as { op?: string }).op === op &&
    (metricName === undefined || metricName.endsWith('_count'));
  return values.filter(fits).reduce((sum, { value }) => sum + value, 0);
}

describe('batches', () => {
  test('of 1,000 forwarding entries go in a few sends, and are all there', async () => {
    const options = { vni: 7, port: 4789, local: '127.0.0.1', mtu: 1450, mac: MAC, alias: '' };
    const link = space.netlink.ensureVxlan('vx0', options).ifindex;
    const entries = Array.from({ length: 1000 }, (_, i) => ({
      link,
      mac: mac(i),
      dst: `192.0.2.${i % 250}`,
      table: 'self' as const,
    }));
    const before = await counted(kernelOps, 'batch');
    space.netlink.ensureFdb(entries);
    expect((await counted(kernelOps, 'batch')) - before).toBeLessThanOrEqual(2);
    const found = space.netlink.fdb(link).filter((entry) => entry.dst);
    expect(found.map((one) => `${one.mac} ${one.dst}`).sort()).toEqual(
      entries.map((one) => `${one.mac} ${one.dst}`).sort(),
    );
    space.netlink.ensureFdb(entries);
    space.netlink.removeFdb(entries);
    space.netlink.removeFdb(entries);
    expect(space.netlink.fdb(link).filter((entry) => entry.dst)).toEqual([]);
  });

  test('of 3,000 neighbours of both families are all there', () => {
    const link = veth().ifindex;
    const entries = Array.from({ length: 3000 }, (_, i) => ({
      link,
      ip: i % 2 ? `fd00::${i.toString(16)}` : `10.${i >> 8}.${i & 255}.1`,
      mac: mac(i),
    }));
    space.netlink.ensureNeighbours(entries);
    const found = new Map(space.netlink.neighbours(link).map((one) => [one.ip, one]));
    for (const { ip, mac: expected } of entries) expect(found.get(ip)).toMatchObject({ mac: expected, state: 0x80 });
    space.netlink.removeNeighbours(entries);
    expect(space.netlink.neighbours(link).filter(({ state }) => state === 0x80)).toEqual([]);
  });

  test('say which entry was refused, and how many', () => {
    const link = veth().ifindex;
    const entries = [link, 4711, link, 4712].map((one, i) => ({ link: one, ip: `10.0.0.${i + 1}`, mac: mac(i) }));
    const error = refusal(() => space.netlink.ensureNeighbours(entries));
    expect(error.message).toBe('set neighbour 10.0.0.2 on link 4711: ENODEV; 2 of 4 were refused');
    expect(error.details).toMatchObject({ name: 'ENODEV', refused: 2 });
  });
});

describe('errors', () => {
  test('carry what was tried and the kernel`s own words', async () => {
    const link = veth();
    const before = await counted(kernelErrors, 'change');
    const vxlan = { vni: 7, port: 4789, local: '127.0.0.1', mtu: 1450, mac: MAC, alias: '' };
    space.netlink.ensureVxlan('vx0', vxlan);
    expect(refusal(() => space.netlink.ensureVxlan('vx1', vxlan))).toMatchObject({
      code: 'kernel.exists',
      message: 'add vxlan vx1: A VXLAN device with the specified VNI already exists (EEXIST)',
      details: { errno: 17, name: 'EEXIST', message: 'A VXLAN device with the specified VNI already exists' },
    });
    expect(refusal(() => space.netlink.ensureRoute({ dst: '10.9.0.0/16', via: '172.31.0.1' }))).toMatchObject({
      code: 'kernel.failed',
      message: 'set route 10.9.0.0/16 via 172.31.0.1: Nexthop has invalid gateway (ENETUNREACH)',
    });
    expect(refusal(() => space.netlink.setLink(link.ifindex, { mtu: 10 })).message).toMatch(
      /^change link \d+ \{"mtu":10\}: mtu (less than|below) .*\(EINVAL\)$/i,
    );
    expect(refusal(() => space.netlink.setLink(link.ifindex, { master: link.peer })).message).toContain('EOPNOTSUPP');
    expect(refusal(() => space.netlink.setLink(link.ifindex, { name: 'much-too-long-a-name' })).code).toBe(
      'kernel.failed',
    );
    expect((await counted(kernelErrors, 'change')) - before).toBe(5);
    space.netlink.removeLink(4711);
    expect((await counted(kernelErrors, 'change')) - before).toBe(5);
  });
});

describe('dumps', () => {
  test('are whole although links come and go meanwhile', async () => {
    const stable = Array.from({ length: 60 }, (_, i) => [`s${i}`, `t${i}`]);
    for (const [near, far] of stable) veth(near, far);
    const wanted = stable.flat();
    const churn = script(`
      const { createKernel } = await import('./src/kernel/kernel.ts');
      using kernel = createKernel({ host: '${space.path}' });
      const { netlink } = kernel.host;
      console.log('begun');
      for (let i = 0; i < 60; i++) {
        const link = netlink.ensureBridge('churn', { mac: '${MAC}', mtu: 1500, alias: '' });
        netlink.removeLink(link.ifindex);
      }`);
    let over = false;
    void churn.finally(() => {
      over = true;
    });
    let dumps = 0;
    let churned = 0;
    await until(
      'the churn is over',
      () => {
        for (let i = 0; i < 20; i++) {
          const names = new Set(space.netlink.links().map(({ name }) => name));
          dumps++;
          if (names.has('churn')) churned++;
          for (const name of wanted) expect(names.has(name), name).toBe(true);
        }
        return over;
      },
      20_000,
    );
    expect((await churn).stdout).toBe('begun\n');
    expect(dumps).toBeGreaterThan(20);
    expect(churned).toBeGreaterThan(0);
  });

  test('of a link that is not there are empty', () => {
    expect(space.netlink.addresses(4711)).toEqual([]);
    expect(space.netlink.fdb(4711)).toEqual([]);
    expect(space.netlink.neighbours(4711)).toEqual([]);
  });

  test('show gateways of the other family, and routes with several', () => {
    const { ifindex } = veth();
    space.netlink.ensureAddress(ifindex, '10.0.0.1/24');
    inside(space, 'ip', 'route', 'add', '10.9.0.0/16', 'via', 'inet6', 'fe80::1', 'dev', 'v0');
    inside(space, 'ip', 'route', 'add', '10.8.0.0/16', 'nexthop', 'via', '10.0.0.2', 'nexthop', 'via', '10.0.0.3');
    inside(space, 'ip', 'route', 'add', 'blackhole', '10.7.0.0/16');
    const to = (dst: string) => space.netlink.routes().find((route) => route.dst === dst);
    expect(to('10.9.0.0/16')).toMatchObject({ via: 'fe80::1', ifindex });
    expect(to('10.8.0.0/16')).toMatchObject({ via: undefined, ifindex: 0, type: 1 });
    expect(to('10.7.0.0/16')).toMatchObject({ type: 6 });
  });
});

describe('what iproute2 sees', () => {
  const json = (...command: string[]): Record<string, unknown>[] =>
    JSON.parse(inside(space, ...command)) as Record<string, unknown>[];

  test('is what we see: links, addresses, routes, neighbours, forwarding entries', () => {
    const { netlink } = space;
    const bridge = netlink.ensureBridge('br0', { mac: MAC, mtu: 1400, alias: 'sluice:x:network:y' }).ifindex;
    const link = veth();
    netlink.setLink(link.ifindex, { master: bridge, port: { learning: false, isolated: true }, group: 12 });
    netlink.ensureVxlan('vx0', { vni: 7, port: 4789, local: '127.0.0.1', mtu: 1450, mac: mac(1), alias: 'm' });
    netlink.ensureAddress(link.peer, '10.1.0.1/24');
    netlink.ensureAddress(link.peer, 'fd00:1::1/64', { nodad: true });
    netlink.ensureRoute({ dst: '10.9.0.0/16', via: '10.1.0.9', metric: 7 });
    netlink.ensureRoute({ dst: '::/0', via: 'fd00:1::9' });
    netlink.ensureNeighbours([{ link: link.peer, ip: '10.1.0.9', mac: mac(9) }]);
    netlink.ensureFdb([{ link: link.ifindex, mac: mac(5), table: 'master' }]);

    const links = netlink.links();
    const nameOf = (index: number) => links.find(({ ifindex }) => ifindex === index)?.name;
    expect(
      links.map(({ ifindex, name, mac: address, mtu, up, master, alias, kind }) => ({
        ifindex,
        name,
        address,
        mtu,
        up,
        alias,
        master: nameOf(master),
        kind,
      })),
    ).toEqual(
      json('ip', '-j', '-d', 'link').map((one) => ({
        ifindex: one.ifindex,
        name: one.ifname,
        address: one.address,
        mtu: one.mtu,
        up: (one.flags as string[]).includes('UP'),
        alias: one.ifalias ?? '',
        master: one.master,
        kind: (one.linkinfo as { info_kind?: string } | undefined)?.info_kind ?? 'loopback',
      })),
    );

    expect(
      netlink
        .addresses()
        .map(({ ifindex, cidr }) => `${nameOf(ifindex)} ${cidr}`)
        .sort(),
    ).toEqual(
      json('ip', '-j', 'addr')
        .flatMap((one) =>
          (one.addr_info as { local: string; prefixlen: number }[]).map(
            ({ local, prefixlen }) => `${one.ifname} ${local}/${prefixlen}`,
          ),
        )
        .sort(),
    );

    const default4 = (dst: unknown, any: string) => (dst === 'default' ? any : String(dst).includes('/') ? dst : null);
    const theirs = [
      ...json('ip', '-j', 'route').map((one) => [
        default4(one.dst, '0.0.0.0/0'),
        one.gateway,
        one.dev,
        one.metric ?? 0,
      ]),
      ...json('ip', '-j', '-6', 'route').map((one) => [
        default4(one.dst, '::/0'),
        one.gateway,
        one.dev,
        one.metric ?? 0,
      ]),
    ];
    const ours = netlink
      .routes()
      .filter(({ table }) => table === 254)
      .map(({ dst, via, ifindex, metric }) => [dst, via, nameOf(ifindex), metric]);
    expect(ours.sort()).toEqual(theirs.sort());

    const permanent = netlink.neighbours().filter(({ state }) => state === 0x80);
    expect(permanent.map(({ ip, mac: lladdr }) => ({ dst: ip, lladdr }))).toEqual(
      json('ip', '-j', 'neigh', 'show', 'nud', 'permanent').map(({ dst, lladdr }) => ({ dst, lladdr })),
    );

    const forwarding = (list: (string | undefined)[][]) => list.map((row) => row.join(' ')).sort();
    expect(
      forwarding(
        netlink.fdb().map((one) => [nameOf(one.ifindex), one.mac, one.table === 'master' ? 'br0' : undefined]),
      ),
    ).toEqual(
      forwarding(
        json('bridge', '-j', 'fdb').map((one) => [
          one.ifname as string,
          one.mac as string,
          one.master as string | undefined,
        ]),
      ),
    );
  });

  test('may be changed by it, and is put right', () => {
    const { netlink } = space;
    const made = netlink.ensureBridge('br0', { mac: MAC, mtu: 1400, alias: 'mark' });
    inside(space, 'ip', 'link', 'set', 'br0', 'mtu', '1300', 'alias', 'other', 'down');
    expect(netlink.ensureBridge('br0', { mac: MAC.toUpperCase(), mtu: 1400, alias: 'mark' })).toEqual(made);
    inside(space, 'ip', 'addr', 'add', '10.0.0.1/24', 'dev', 'br0');
    netlink.ensureAddress(made.ifindex, '10.0.0.1/24');
    inside(space, 'ip', 'route', 'add', '10.9.0.0/16', 'via', '10.0.0.7');
    netlink.ensureRoute({ dst: '10.9.0.0/16', via: '10.0.0.8' });
    expect(inside(space, 'ip', 'route', 'show', '10.9.0.0/16').trim().split('\n')).toEqual([
      expect.stringContaining('via 10.0.0.8'),
    ]);
  });
});
