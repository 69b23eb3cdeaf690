/**
 * A daemon of this version in a cluster with one of the next, whose objects have schema 2, fields and choices that nobody here knows, and which keeps kinds of
 * its own. It is played by what it writes into Redis; both work, and what one does not know it keeps.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock as clock } from '../../src/clock.ts';
import type { Op } from '../../src/contracts/store.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import {
  beatKey,
  clusterTopic,
  leaseKey,
  nameKey,
  networkTopic,
  nodeTopic,
  settledNodeKey,
} from '../../src/model/keys.ts';
import type { Network } from '../../src/model/network.ts';
import type { Obj } from '../../src/model/object.ts';
import type { Service } from '../../src/model/service.ts';
import { openRedisStore, type RedisStore } from '../../src/store/redis/redis.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, type TestHost, testHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000;
const NEXT = 'next';
/** What the next version has more, on every level. */
const later = { text: 'of the next version', list: [1, { deep: true }] };
const idOf = (digit: string): string => digit.repeat(64);
const gateway = idOf('9');
const far = { id: idOf('e'), sandbox: idOf('5'), address: '10.60.0.200' };

let redis: RedisServer;
let next: RedisStore;
let lab: Lab;
let host: TestHost;
let mesh: Network;
let shop: Service;
let client: Inside;
let beating: NodeJS.Timeout;

const settings = () => ({ store: redis.url, advertise: host.address, auditSeconds: 1 });
const inNext = async <O extends Obj>(kind: string, id: string): Promise<O> =>
  (await next.get<O>(`${kind}/${id}`))!.value;
const object = (kind: string, id: string, name: string, owner: string | null, spec: object): object => ({
  ...{ kind, id, name, revision: 0, schema: 2, owner, labels: {}, createdAt: new Date().toISOString(), later },
  spec: { ...spec, later },
});
const put = (key: string, value: unknown): Op => ({ op: 'put', key, value });
/** An object of this version, as the next one writes it with the first change. */
async function upgrade<O extends Obj>({ kind, id }: O, change: (spec: O['spec']) => object): Promise<void> {
  const value = await inNext<O>(kind, id);
  const spec = { ...change(value.spec), later };
  await next.transact([put(`${kind}/${id}`, { ...value, schema: 2, later, spec })], { topics: [clusterTopic] });
}

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'newer', hosts: ['a'] });
  host = testHost(lab);
  await host.daemon.start({ settings: settings() });
  next = await openRedisStore({ url: redis.url, clock });

  // The node of the next version comes, and gives signs of life.
  const spec = { address: '198.18.0.99', vtep: '198.18.0.99', port: 4789, hostRoutes: [], availability: 'resting' };
  const node = idOf('d');
  await next.transact(
    [put(`node/${node}`, object('node', node, NEXT, NEXT, spec)), put(nameKey('node', null, NEXT), { id: node })],
    { topics: [clusterTopic] },
  );
  let count = 0;
  /** Its signs of life, and that its addresses are its own, as it says for each place that the other one speaks of. */
  const beat = async (): Promise<void> => {
    const said = (await next.get(settledNodeKey(host.name)))?.value;
    const settled = said === undefined ? [] : [put(settledNodeKey(NEXT), said)];
    await next.transact([put(beatKey(NEXT), { epoch: 1, count: ++count, later }), ...settled], { topics: [] });
  };
  await beat();
  beating = setInterval(() => void beat().catch(() => undefined), 300);

  await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.60.0.0/24', 'mesh');
  await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.61.0.0/24', 'spare');
  await (await sandbox(host, 'server', '--network', 'mesh')).serve(80, 81);
  client = await sandbox(host, 'client', '--network', 'mesh');
  await host.cli('service', 'create', '--name', 'shop', '--network', 'mesh', '--port', '80', '--backend', 'server');
  [mesh] = await host.json<[Network]>('network', 'inspect', 'mesh');
  [shop] = await host.json<[Service]>('service', 'inspect', 'shop');
}, LIMIT_MS);
afterAll(async () => {
  clearInterval(beating);
  await next?.close();
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

const vip = () => shop.spec.vips[0]!;
const served = async (port = 80): Promise<void> => expect(await client.ask(vip(), port)).toBe(`server hello ${vip()}`);
const resolved = async (name: string): Promise<string> =>
  (await client.exec(`dig +short +tries=1 +time=2 @127.0.0.11 ${name}`)).stdout.trim();

test('both work: what the next one writes is read, served and shown', { timeout: LIMIT_MS }, async () => {
  await upgrade(mesh, (spec) => ({ ...spec, subnets: [{ ...spec.subnets[0], later }] }));
  await upgrade(shop, (spec) => ({
    ...spec,
    ports: [
      { port: 9, target: 9, protocol: 'sctp' },
      { ...spec.ports[0], later },
      { port: 81, target: 81, protocol: 'tcp' },
    ],
    backends: [{ queue: 'orders' }, { ...spec.backends[0], later }],
  }));
  const endpoint = {
    ...{ network: mesh.id, sandbox: far.sandbox, addresses: [`${far.address}/24`], mac: '02:42:0a:3c:00:c8' },
    ...{ aliases: ['remote'], allow: [], gwPriority: 0 },
  };
  const { pool } = mesh.spec.subnets[0]!;
  const lease = { pool, purpose: 'endpoint', later };
  await next.transact(
    [
      put(`endpoint/${far.id}`, object('endpoint', far.id, 'far.mesh', NEXT, endpoint)),
      put(`gateway/${gateway}`, object('gateway', gateway, 'out', null, { network: mesh.id })),
      put(nameKey('gateway' as Obj['kind'], null, 'out'), { id: gateway }),
      put(leaseKey(pool, far.address), { ...lease, address: far.address, owner: far.id }),
      put(leaseKey(pool, '10.60.0.201'), { ...lease, address: '10.60.0.201', owner: gateway, purpose: 'gateway' }),
      put('ruleset/all', { later }),
    ],
    { topics: [clusterTopic, nodeTopic(NEXT), networkTopic(mesh.id)] },
  );
  await eventually(() => served(81));
  await served();
  await eventually(async () => expect(await resolved('far')).toBe(far.address));
  expect(await resolved('remote')).toBe(far.address);
  expect(await resolved('shop')).toBe(vip());
  for (const noun of ['network', 'sandbox', 'endpoint', 'service', 'node', 'container', 'volume'])
    await host.cli(noun, 'ls');
  for (const words of [['status'], ['diff'], ['network', 'inspect', 'mesh', '--peers'], ['service', 'ps', 'shop']])
    await host.cli(...words);
  expect(await host.cli('node', 'inspect', NEXT)).toContain('resting');
  expect(await host.json('service', 'inspect', 'shop')).toMatchObject([
    { schema: 2, later, spec: { later }, status: { state: 'ready' } },
  ]);
});

test('what this one changes keeps what it does not know', { timeout: LIMIT_MS }, async () => {
  await host.cli('service', 'update', '--backend-add', '192.0.2.7:80', 'shop');
  await host.cli('service', 'update', '--backend-rm', '192.0.2.7:80', 'shop');
  await host.cli('node', 'label', '--add', 'zone=a', NEXT);
  const service = await inNext<Service>('service', shop.id);
  expect(service).toMatchObject({ schema: 2, later, spec: { later } });
  expect(service.spec.backends).toMatchObject([{ queue: 'orders' }, { later }]);
  expect(service.spec.ports).toMatchObject([{ protocol: 'sctp' }, { port: 80, later }, { port: 81 }]);
  expect(await inNext('node', idOf('d'))).toMatchObject({
    labels: { zone: 'a' },
    schema: 2,
    later,
    spec: { availability: 'resting', later },
  });
  // What has an address on the network is a user of it.
  await expect(host.cli('network', 'rm', 'mesh')).rejects.toThrow('object.inuse');
  expect(await inNext('network', mesh.id)).toMatchObject({ later, spec: { later, subnets: [{ later }] } });
  await served();
});

test('a store that is lost has all of it again', { timeout: LIMIT_MS }, async () => {
  const whole = async () =>
    new Map(
      (await next.list('')).items
        .filter(({ key }) => !/^(?:alive|restore|settlement|status|reference|local|question|answer)\//.test(key))
        .map(({ key, value }) => [key, value as { since?: number }]),
    );
  // Longer than the lag of the copies behind news that are not the node's own.
  await clock.sleep(2_000);
  const before = await whole();
  await redis.ask('FLUSHALL');
  await eventually(async () => expect([...(await whole()).keys()].sort()).toEqual([...before.keys()].sort()), 15_000);
  for (const [key, value] of await whole()) {
    const { since: _, ...rest } = value;
    expect(rest, key).toEqual(typeof value === 'object' ? { ...before.get(key) } : {});
  }
  await served();
});

test('another life of the daemon takes nothing of it away', { timeout: LIMIT_MS }, async () => {
  await host.daemon.stop();
  await host.daemon.start({ settings: settings() });
  await eventually(served);
  // Two audits.
  await clock.sleep(2_500);
  for (const key of [`gateway/${gateway}`, 'ruleset/all', `service/${shop.id}`, `endpoint/${far.id}`])
    expect((await next.get(key))?.value, key).toMatchObject({ later });
  await host.cli('service', 'rm', 'shop');
  await next.transact([
    { op: 'delete', key: `gateway/${gateway}` },
    { op: 'delete', key: leaseKey(mesh.spec.subnets[0]!.pool, '10.60.0.201') },
  ]);
  await host.cli('network', 'rm', 'spare');
});
