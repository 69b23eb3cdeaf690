/** Three daemons on one underlay that share a Redis: a network made on one, endpoints on all. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLab, FAR, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, testHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000;
let redis: RedisServer;
let lab: Lab;
let hosts: ReturnType<typeof testHost>[];
let boxes: Inside[];
let vni: string;

const settings = (host: LabHost) => ({ store: redis.url, advertise: host.address, auditSeconds: 2 });

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'ovlc', hosts: ['a', 'b', 'c'] });
  hosts = lab.hosts.map((host) => testHost(lab, host));
  for (const host of hosts) await host.daemon.start({ settings: settings(host) });
  await hosts[0]!.cli('network', 'create', '--driver', 'overlay', '--ipv6', 'mesh');
  const [network] = await hosts[1]!.json<[{ id: string }]>('network', 'inspect', 'mesh');
  vni = network.id.slice(0, 12);
  boxes = [];
  for (const [n, host] of hosts.entries()) boxes.push(await sandbox(host, `box${n}`, '--network', 'mesh'));
}, LIMIT_MS);
afterAll(async () => {
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

const resolved = async (box: Inside, name: string): Promise<string> =>
  (await box.exec(`dig +short +tries=1 +time=1 @127.0.0.11 ${name}`)).stdout.trim();

describe('three daemons on one Redis', () => {
  test('everybody reaches and resolves everybody, and the world by its own host', { timeout: LIMIT_MS }, async () => {
    for (const from of boxes) {
      for (const to of boxes) {
        await eventually(async () => (await resolved(from, to.name)) === to.ipv4);
        for (const address of to.addresses) await eventually(() => from.ping(address.split('/')[0]!));
      }
      expect(await from.ping(FAR.ipv4)).toBe(true);
    }
    const [node] = boxes;
    await boxes[2]!.serve(80);
    expect(await node!.ask(boxes[2]!.ipv4!, 80)).toMatch(/^box2/);
  });

  test('an endpoint moves to another host with its address, and is reached at once', {
    timeout: LIMIT_MS,
  }, async () => {
    const [a, b, c] = hosts as [(typeof hosts)[0], (typeof hosts)[0], (typeof hosts)[0]];
    const subnet = (await a.json<[{ spec: { subnets: { cidr: string }[] } }]>('network', 'inspect', 'mesh'))[0].spec
      .subnets[0]!.cidr;
    const ip = subnet.replace(/\.\d+\/\d+$/, '.77');
    const moving = await sandbox(b, 'moving', '--network', 'mesh', '--ip', ip);
    await eventually(() => boxes[0]!.ping(moving.ipv4!));
    await b.cli('sandbox', 'rm', 'moving');
    const asking = boxes[0]!.python(`import socket,time
end=time.time()+20
while time.time()<end:
    s=socket.socket(socket.AF_INET,socket.SOCK_STREAM); s.settimeout(0.02)
    try: s.connect(("${ip}",9))
    except ConnectionRefusedError:
        print("answered",time.clock_gettime(time.CLOCK_MONOTONIC)*1000,flush=True); break
    except OSError: pass`);
    await c.cli('sandbox', 'create', 'moving', '--network', 'mesh', '--ip', ip);
    const committed = Number(process.hrtime.bigint() / 1_000n) / 1_000;
    const answered = await eventually(() => Number(/answered (\S+)/.exec(asking.output())?.[1] ?? 0) || null);
    expect(answered - committed).toBeLessThan(100 * slowness());
    await c.cli('sandbox', 'rm', 'moving');
  });

  test('entries that somebody deletes are repaired within an audit', { timeout: LIMIT_MS }, async () => {
    const [a] = hosts;
    const mac = /link\/ether (\S+)/.exec((await boxes[1]!.exec('ip -o link show eth0')).stdout)![1]!;
    const { ipv4 } = boxes[1]!;
    type Peers = { peers: { joined: boolean; differences: { table: string }[]; items: { node: string }[] } };
    const peersOf = async () => (await a!.json<[Peers]>('network', 'inspect', '--peers', 'mesh'))[0].peers;
    await eventually(async () => (await peersOf()).differences.length === 0);
    expect((await peersOf()).items.map(({ node }) => node).sort()).toHaveLength(3);
    // Quicker than the next audit, or else once more.
    await eventually(async () => {
      await a!.must(`bridge fdb replace ${mac} dev sx${vni} dst 198.18.0.99 self static`);
      const found = (await peersOf()).differences;
      expect(found.filter(({ table }) => table !== 'forwarding')).toEqual([]);
      return found.some((each) => JSON.stringify(each).includes('198.18.0.99'));
    });
    for (const harm of [
      `bridge fdb replace ${mac} dev sx${vni} dst 198.18.0.99 self static`,
      `bridge fdb del ${mac} dev sx${vni} master`,
      `ip neigh del ${ipv4} dev sl${vni}`,
    ]) {
      await a!.must(harm);
      await eventually(async () => {
        const fdb = await a!.must(`bridge fdb show dev sx${vni}`);
        const whole = fdb.includes(`${mac} dst ${hosts[1]!.address}`) && fdb.includes(`${mac} master`);
        return whole && (await a!.must(`ip neigh show ${ipv4} dev sl${vni}`)).includes('PERMANENT');
      }, 10_000);
      expect(await boxes[0]!.ping(ipv4!), harm).toBe(true);
    }
    const repaired = (
      await a!.json<[{ status: { conditions: { type: string; count: number }[] } }]>('network', 'inspect', 'mesh')
    )[0].status.conditions.find(({ type }) => type === 'Repaired');
    expect(repaired!.count).toBeGreaterThan(0);
  });

  test('daemons killed and Redis away: what runs goes on, and follows again afterwards', {
    timeout: LIMIT_MS,
  }, async () => {
    const [a, , c] = hosts;
    await redis.stop('SIGTERM');
    await a!.daemon.kill();
    expect(await boxes[0]!.ping(boxes[2]!.ipv4!)).toBe(true);
    await a!.daemon.start({ settings: settings(a!) });
    expect(await boxes[0]!.ping(boxes[2]!.ipv4!)).toBe(true);
    await redis.start();
    const late = await eventually(() => sandbox(c!, 'late', '--network', 'mesh'), 20_000);
    await eventually(() => boxes[0]!.ping(late.ipv4!), 10_000);
    await eventually(async () => (await resolved(boxes[0]!, 'late')) === late.ipv4);
    await c!.cli('sandbox', 'rm', 'late');
  });

  test('with its last endpoint a host takes its devices down, and the others forget it', {
    timeout: LIMIT_MS,
  }, async () => {
    const [a, , c] = hosts;
    await c!.cli('sandbox', 'rm', '--force', 'box2');
    await eventually(async () => !(await c!.must('ip -o link')).includes(`sx${vni}`));
    await eventually(async () => !(await a!.must(`bridge fdb show dev sx${vni}`)).includes(c!.address));
    await eventually(async () => (await resolved(boxes[0]!, 'box2')) === '');
  });
});
