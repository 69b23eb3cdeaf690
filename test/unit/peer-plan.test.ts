import { describe, expect, test } from 'vitest';
import { createFakeDataplane } from '../../src/balancer/fake.ts';
import {
  describeChanges,
  differencesOf,
  diffPeers,
  type Member,
  planPeers,
  readPeers,
} from '../../src/controller/peer/plan.ts';
import { PeerTable } from '../../src/controller/peer/table.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';

const member = (n: number, vtep?: string, id = `e${n}`, revision = 1): Member => ({
  id,
  revision,
  mac: `02:42:0a:32:00:${n.toString(16).padStart(2, '0')}`,
  addresses: [`10.50.0.${n}`, `fd00:50::${n}`],
  vtep,
});
const mac = (n: number): string => member(n).mac;
const [A, B] = ['192.0.2.1', '192.0.2.2'];

describe('plan of peers', () => {
  test('those of other hosts are behind the tunnel, all are neighbours, each host is flooded once', () => {
    const plan = planPeers([member(2), member(3, A), member(4, A), member(5, B)]);
    expect([...plan.remote]).toEqual([
      [mac(3), A],
      [mac(4), A],
      [mac(5), B],
    ]);
    expect([...plan.flood].sort()).toEqual([A, B]);
    expect(plan.neighbours.size).toBe(8);
    expect(plan.neighbours.get('fd00:50::2')).toBe(mac(2));
  });

  test('of two with one address the later has it', () => {
    const plan = planPeers([member(3, A, 'old'), member(3, B, 'new')]);
    expect(plan.remote.get(mac(3))).toBe(B);
    expect(planPeers([member(3, A, 'old'), member(3, undefined, 'new')]).remote.size).toBe(0);
  });

  test('what a dump shows of others, of the port itself and of learned neighbours is not ours', () => {
    const at = { ifindex: 7, vni: 1 };
    const state = readPeers(
      [
        { ...at, mac: mac(3), dst: A, table: 'self', permanent: true },
        { ...at, mac: mac(3), table: 'master', permanent: false },
        { ...at, mac: '02:43:00:00:00:01', table: 'master', permanent: true },
        { ...at, mac: '33:33:00:00:00:01', table: 'self', permanent: true },
        { ...at, mac: '00:00:00:00:00:00', dst: B, table: 'self', permanent: true },
      ],
      [
        { ifindex: 6, ip: '10.50.0.3', mac: mac(3), state: 0x80 },
        { ifindex: 6, ip: '10.50.0.9', mac: mac(9), state: 0x02 },
        { ifindex: 6, ip: 'ff02::1', mac: '33:33:00:00:00:01', state: 0x40 },
      ],
    );
    expect(state).toEqual({
      remote: new Map([[mac(3), A]]),
      behind: new Set([mac(3)]),
      flood: new Set([B]),
      neighbours: new Map([['10.50.0.3', mac(3)]]),
    });
  });

  test('from equal to equal nothing changes; what is falsified is set, what is too much goes', () => {
    const plan = planPeers([member(3, A), member(4, B)]);
    expect(describeChanges(diffPeers(plan, plan))).toEqual([]);
    const actual = planPeers([member(3, B), member(9, '192.0.2.9')]);
    const changes = diffPeers(actual, plan);
    expect(changes.remote).toEqual({
      set: [
        [mac(3), A],
        [mac(4), B],
      ],
      remove: [mac(9)],
    });
    expect(changes.flood).toEqual({ set: [A], remove: ['192.0.2.9'] });
    expect(changes.neighbours.remove).toEqual(['10.50.0.9', 'fd00:50::9']);
  });

  test('each difference is named: missing, surplus, other than it should be', () => {
    const plan = planPeers([member(3, A), member(4, B), member(5)]);
    const actual = planPeers([member(3, B), member(5), member(9, '192.0.2.9')]);
    const found = differencesOf(actual, diffPeers(actual, plan));
    const of = (table: string) =>
      found.filter((each) => each.table === table).map(({ key, want, have }) => [key, want, have]);
    expect(of('forwarding')).toEqual([
      [mac(3), A, B],
      [mac(4), B, undefined],
      [mac(9), undefined, '192.0.2.9'],
    ]);
    expect(of('bridge')).toEqual([
      [mac(4), 'listed', undefined],
      [mac(9), undefined, 'listed'],
    ]);
    expect(of('broadcast')).toEqual([
      [A, 'listed', undefined],
      ['192.0.2.9', undefined, 'listed'],
    ]);
    expect(of('neighbour')).toEqual([
      ['10.50.0.4', mac(4), undefined],
      ['fd00:50::4', mac(4), undefined],
      ['10.50.0.9', undefined, mac(9)],
      ['fd00:50::9', undefined, mac(9)],
    ]);
    expect(differencesOf(plan, diffPeers(plan, plan))).toEqual([]);
  });

  test('of somebody of whom it is not known where he is everything stays', () => {
    const actual = planPeers([member(9, '192.0.2.9')]);
    const changes = diffPeers(actual, planPeers([]), new Set([mac(9)]));
    expect(describeChanges(changes)).toEqual([]);
  });
});

describe('table of peers', () => {
  async function setUp() {
    const { netlink } = createFakeKernel().host;
    const dataplane = createFakeDataplane();
    await dataplane.start();
    const bridge = netlink.ensureBridge('sl0', { mac: '02:42:0a:32:00:01', mtu: 1450, alias: '' }).ifindex;
    const vxlan = { vni: 7, port: 4789, local: '192.0.2.100', mtu: 1450, mac: '02:43:00:00:00:07', alias: '' };
    const tunnel = netlink.ensureVxlan('sx0', vxlan).ifindex;
    netlink.setLink(tunnel, { master: bridge, port: { learning: false, neighSuppress: true }, up: true });
    const table = new PeerTable({ bridge, tunnel }, { netlink, dataplane }, async () => undefined);
    const actual = () => readPeers(netlink.fdb(tunnel), netlink.neighbours(bridge));
    return { netlink, dataplane, bridge, tunnel, table, actual };
  }
  const none = new Set<string>();

  test('a sync brings the kernel to exactly the members, and repairs what was changed since', async () => {
    const { netlink, bridge, tunnel, table, actual } = await setUp();
    netlink.ensureFdb([{ link: tunnel, mac: mac(99), dst: A, table: 'self' }]);
    const members = [member(2), member(3, A), member(4, B)];
    await table.sync(members, none);
    expect(actual()).toEqual(planPeers(members));
    expect(await table.sync(members, none)).toEqual([]);
    netlink.removeFdb([{ link: tunnel, mac: mac(3), table: 'self' }]);
    netlink.ensureNeighbours([{ link: bridge, ip: '10.50.0.4', mac: mac(66) }]);
    expect(await table.sync(members, none)).toEqual(['1 forwarding entries set', '1 neighbours set']);
    expect(actual()).toEqual(planPeers(members));
  });

  test('following any order of news ends where a sync would', async () => {
    const { table, actual } = await setUp();
    let seed = 7;
    const random = (n: number) => {
      seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
      return seed % n;
    };
    const live = new Map<string, Member>();
    await table.sync([], none);
    for (let step = 0; step < 400; step++) {
      const news = new Map<string, Member | null>();
      for (let n = random(4); n >= 0; n--) {
        const which = random(18);
        const id = `e${which}`;
        // Twelve addresses: some are given to two at a time, and the older of them may be heard of last.
        const revision = random(1_000) * 10_000 + step * 10 + n;
        const next = random(3) === 0 ? null : member(2 + (which % 12), [undefined, A, B][random(3)], id, revision);
        news.set(id, next);
        if (next) live.set(id, next);
        else live.delete(id);
      }
      await table.follow(news);
      const inOrder = [...live.values()].sort((a, b) => a.revision - b.revision);
      expect(actual(), `step ${step}`).toEqual(planPeers(inOrder));
    }
  });

  test('an address that moves is where it came to, whether the old or the new place is heard of first', async () => {
    for (const order of ['gone first', 'come first', 'together'] as const) {
      const { table, actual } = await setUp();
      await table.sync([member(3, A, 'old'), member(4, B)], none);
      const come = new Map([['new', member(3, B, 'new')]]);
      const gone = new Map([['old', null]]);
      if (order === 'together') await table.follow(new Map<string, Member | null>([...come, ...gone]));
      else for (const news of order === 'gone first' ? [gone, come] : [come, gone]) await table.follow(news);
      expect(actual(), order).toEqual(planPeers([member(3, B), member(4, B)]));
    }
  });

  test('an address that comes to this host is behind the tunnel no longer', async () => {
    const { table, actual } = await setUp();
    await table.sync([member(3, A, 'old')], none);
    await table.follow(new Map([['new', member(3, undefined, 'new')]]));
    await table.follow(new Map([['old', null]]));
    expect(actual()).toEqual(planPeers([member(3)]));
  });

  test('who had an address before, put back late and removed again, takes nothing along', async () => {
    const { table, actual } = await setUp();
    const now = member(3, A, 'now', 9);
    await table.sync([now], none);
    await table.follow(new Map([['before', member(3, B, 'before', 5)]]));
    expect(actual().remote.get(mac(3))).toBe(A);
    await table.follow(new Map([['before', null]]));
    expect(actual()).toEqual(planPeers([now]));
  });
});
