/** Two daemons on one Redis, and every link of the way between two sandboxes broken by hand: trace names that very thing first. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import type { DiffAnswer } from '../../src/model/diagnosis/diff.ts';
import type { TraceAnswer } from '../../src/model/diagnosis/trace.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, testHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000 * slowness();
let redis: RedisServer;
let lab: Lab;
let [a, b]: ReturnType<typeof testHost>[] = [];
let [client, server, near]: Inside[] = [];
let vni = '';

/** No audit repairs anything while the tests look. */
const settings = (host: LabHost) => ({ store: redis.url, advertise: host.address, auditSeconds: 3_600 });

async function trace(to: string, from = 'client'): Promise<TraceAnswer> {
  const { stdout, stderr, code } = await a!.sluice(['trace', from, to, '--format', 'json']);
  if (code > 1) throw new Error(`trace: ${stderr}`);
  const answer = JSON.parse(stdout) as TraceAnswer;
  expect(code).toBe(answer.reachable ? 0 : 1);
  return answer;
}
/** `step node: reason` of what is wrong first. */
const wrong = async (to: string): Promise<string | undefined> => {
  const found = (await trace(to)).wrong;
  return found && `${found.step} ${found.node}: ${found.reason}`;
};

/** Keys of everything in the store. */
const records = async (): Promise<string[]> => {
  const keys = (await redis.ask('KEYS', '*data')) as string[];
  expect(keys).toHaveLength(1);
  return (await redis.ask('HKEYS', keys[0]!)) as string[];
};
const isQuestion = (key: string): boolean => /^(question|answer)\//.test(key);

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'trace', hosts: ['a', 'b'] });
  [a, b] = lab.hosts.map((host) => testHost(lab, host));
  for (const host of [a!, b!]) await host.daemon.start({ settings: settings(host) });
  await a!.cli('network', 'create', '--driver', 'overlay', 'mesh');
  await a!.cli('network', 'create', '--subnet', '10.77.0.0/24', 'web');
  const [network] = await a!.json<[{ id: string }]>('network', 'inspect', 'mesh');
  vni = network.id.slice(0, 12);
  client = await sandbox(a!, 'client', '--network', 'mesh');
  near = await sandbox(a!, 'near', '--network', 'mesh');
  await sandbox(a!, 'apart', '--network', 'web');
  server = await sandbox(b!, 'server', '--network', 'mesh');
  await server.serve(80);
  await near.serve(80);
  await a!.cli('service', 'create', '--name', 'shop', '--network', 'mesh', '--port', '80', '--backend', 'near');
  await eventually(async () => (await trace('server:80')).reachable);
}, LIMIT_MS);
afterAll(async () => {
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

const macOf = async (box: Inside): Promise<string> =>
  /link\/ether (\S+)/.exec((await box.exec('ip -o link show eth0')).stdout)![1]!;

describe('a whole way', { timeout: LIMIT_MS }, () => {
  test('by name, address and service, to this host and the other, passes every step', async () => {
    const { steps, wrong } = await trace('server:80');
    expect(wrong).toBeUndefined();
    expect(steps.map(({ step, node, state }) => `${step} ${node} ${state}`)).toEqual([
      'name a ok',
      'source a ok',
      'route a ok',
      'neighbour a ok',
      'forwarding a ok',
      'tunnel a ok',
      'host a ok',
      'answer b ok',
      'tunnel b ok',
      'forwarding b ok',
      'sandbox b ok',
      'port b ok',
    ]);
    expect((await trace(server!.ipv4!)).reachable).toBe(true);
    const shop = await trace('shop:80');
    expect(shop.steps.map(({ step, state }) => `${step} ${state}`)).toEqual([
      'name ok',
      'service ok',
      'source ok',
      'route ok',
      'neighbour unasked',
      'sandbox ok',
      'port ok',
    ]);
  });

  test('the other host answers within two seconds, and no record of it stays', async () => {
    const before = performance.now();
    expect((await trace('server')).steps.some(({ step, state }) => step === 'answer' && state === 'ok')).toBe(true);
    expect(performance.now() - before).toBeLessThan(2_000 + 1_500);
    expect(await records()).toContainEqual(expect.stringMatching(/^node\//));
    expect((await records()).filter(isQuestion)).toEqual([]);
  });

  test('what is wrong by intent is said: a name elsewhere, another network, a port that nobody serves', async () => {
    expect(await wrong('apart')).toMatch(/^name a: sandbox apart is on web, and client is not/);
    expect(await wrong('nowhere.example')).toBeUndefined();
    expect(await wrong('shop:81')).toMatch(/^service a: service shop has no such port: it has 80\/tcp/);
    expect(await wrong('server:81')).toMatch(/^port b: nobody in server listens on port 81/);
    expect((await a!.sluice(['trace', 'server', 'client'])).stderr).toMatch(/sandbox server is on node b/);
  });
});

describe('a link of the way broken by hand', { timeout: LIMIT_MS }, () => {
  const bridge = (): string => `sl${vni}`;
  const device = (): string => `sx${vni}`;
  const vethOf = async (host: typeof a, name: string): Promise<string> => {
    const [endpoint] = await host!.json<[{ id: string }]>('endpoint', 'inspect', `${name}.mesh`);
    return `sv${endpoint.id.slice(0, 12)}`;
  };
  /** Breaks, looks, mends; the way is whole again afterwards. */
  const broken = async (
    to: string,
    harm: () => Promise<unknown>,
    // The command that trace gives does what it says.
    mend: (answer: TraceAnswer) => Promise<unknown> = ({ wrong }) => a!.must(wrong!.command!),
  ): Promise<TraceAnswer> => {
    await harm();
    const answer = await trace(to);
    await mend(answer);
    expect(await wrong(to)).toBeUndefined();
    return answer;
  };

  test('the forwarding entry', async () => {
    const mac = await macOf(server!);
    const answer = await broken('server', () =>
      a!.must(`bridge fdb del ${mac} dev ${device()} dst ${b!.address} self`),
    );
    expect(answer.wrong).toMatchObject({ step: 'forwarding', node: 'a', reason: expect.stringContaining(mac) });
  });

  test('the neighbour', async () => {
    const answer = await broken('server', () => a!.must(`ip neigh del ${server!.ipv4} dev ${bridge()}`));
    expect(answer.wrong).toMatchObject({
      step: 'neighbour',
      node: 'a',
      reason: `neighbour ${server!.ipv4} on ${bridge()} is missing (${await macOf(server!)})`,
    });
  });

  test('the VXLAN device', async () => {
    const answer = await broken('server', () => a!.must(`ip link set ${device()} down`));
    expect(answer.wrong).toMatchObject({
      step: 'tunnel',
      node: 'a',
      reason: expect.stringContaining(`link ${device()} should be up and is down`),
    });
  });

  test('a backend in the map', async () => {
    const pins = `${a!.bpffs}/${a!.instance}`;
    const generation = (await a!.must(`ls ${pins}`)).trim().split('\n')[0];
    const map = `${pins}/${generation}/maps/backends`;
    const [entry] = JSON.parse(await a!.must(`bpftool -j map dump pinned ${map}`)) as {
      key: string[];
      value: string[];
    }[];
    const hex = (bytes: string[]): string => bytes.map((byte) => byte.replace('0x', '')).join(' ');
    const answer = await broken(
      'shop:80',
      () => a!.must(`bpftool map delete pinned ${map} key hex ${hex(entry!.key)}`),
      () => a!.must(`bpftool map update pinned ${map} key hex ${hex(entry!.key)} value hex ${hex(entry!.value)}`),
    );
    expect(answer.wrong).toMatchObject({
      step: 'service',
      node: 'a',
      reason: expect.stringContaining(`backend ${near!.ipv4}:80`),
    });
  });

  test('the last backend taken off the service', async () => {
    await a!.cli('service', 'update', 'shop', '--backend-rm', 'near');
    expect(await wrong('shop:80')).toMatch(/^service a: service shop has no backend that serves/);
    await a!.cli('service', 'update', 'shop', '--backend-add', 'near');
    expect(await wrong('shop:80')).toBeUndefined();
  });

  test("the route in the source's namespace", async () => {
    const route = (await client!.exec('ip route show dev eth0 proto kernel')).stdout.trim();
    const subnet = route.split(' ')[0]!;
    const answer = await broken(
      'server',
      () => client!.exec(`ip route del ${subnet} dev eth0`),
      () => client!.exec(`ip route add ${subnet} dev eth0`),
    );
    expect(answer.wrong).toMatchObject({ step: 'route', node: 'a', reason: `route ${subnet} dev eth0 is missing` });
  });

  test('the veth on the other host', async () => {
    const veth = await vethOf(b, 'server');
    const answer = await broken(
      'server:80',
      () => b!.must(`ip link set ${veth} down`),
      () => b!.must(`ip link set ${veth} up`),
    );
    expect(answer.wrong).toMatchObject({
      step: 'sandbox',
      node: 'b',
      reason: expect.stringContaining(`link ${veth} should be up and is down`),
    });
    expect(answer.wrong!.command).toBe(`ip link set ${veth} up`);
  });

  test("the other host's way back", async () => {
    const mac = await macOf(client!);
    const answer = await broken(
      'server',
      () => b!.must(`bridge fdb replace ${mac} dev ${device()} dst 198.18.0.99 self static`),
      () => b!.must(`bridge fdb replace ${mac} dev ${device()} dst ${a!.address} self static`),
    );
    expect(answer.wrong).toMatchObject({
      step: 'forwarding',
      node: 'b',
      reason: expect.stringContaining('198.18.0.99'),
    });
  });

  test('diff names the peer entry, too, and repairs nothing', async () => {
    const look = async (): Promise<DiffAnswer> =>
      JSON.parse((await a!.sluice(['diff', 'network', 'mesh', '--format', 'json'])).stdout);
    expect((await look()).items).toEqual([]);
    await a!.must(`ip neigh del ${server!.ipv4} dev ${bridge()}`);
    for (let n = 0; n < 2; n++)
      expect((await look()).items[0]?.differences).toMatchObject([
        { what: `neighbour ${server!.ipv4} on ${bridge()}` },
      ]);
    await a!.must((await look()).items[0]!.differences[0]!.command!);
    expect((await look()).items).toEqual([]);
  });

  test('a daemon that is dead is not asked for long; its kernel and what it runs are no fault', async () => {
    await b!.daemon.kill();
    const answer = await trace('server:80');
    expect(answer.wrong).toBeUndefined();
    expect(answer.steps.find(({ step }) => step === 'answer')).toMatchObject({
      state: 'unasked',
      reason: expect.stringContaining('did not answer within 2 s'),
    });
    expect((await records()).filter(isQuestion)).toEqual([]);
    await b!.daemon.start({ settings: settings(b!) });
    await eventually(
      async () => (await trace('server:80')).steps.some(({ step, state }) => step === 'port' && state === 'ok'),
      10_000,
    );
  });
});
