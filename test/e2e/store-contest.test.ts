/** What two were given while the store was lost: a VIP, a name. Users see whose it is and what to do; the other goes on as before. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock as clock } from '../../src/clock.ts';
import type { Op } from '../../src/contracts/store.ts';
import { clusterTopic, leaseKey, nameKey, networkTopic } from '../../src/model/keys.ts';
import type { Network } from '../../src/model/network.ts';
import type { Status } from '../../src/model/object.ts';
import type { Service } from '../../src/model/service.ts';
import { openRedisStore, type RedisStore } from '../../src/store/redis/redis.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000;
let redis: RedisServer;
/** Another node, as far as the store is concerned. */
let other: RedisStore;
let host: TestHost;
let client: Inside;

beforeAll(async () => {
  redis = await RedisServer.start();
  host = await openHost({ name: 'contest', settings: { store: redis.url, auditSeconds: 1 }, readyTimeoutMs: 20_000 });
  other = await openRedisStore({ url: redis.url, clock });
  await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.70.0.0/24', 'mesh');
  for (const name of ['one', 'two']) await (await sandbox(host, name, '--network', 'mesh')).serve(80);
  client = await sandbox(host, 'client', '--network', 'mesh');
}, LIMIT_MS);
afterAll(async () => {
  await other?.close();
  await host?.close();
  await redis?.remove();
}, LIMIT_MS);

type Seen<O> = O & { readonly status: Status };
const inspect = async <O>(kind: string, ref: string): Promise<Seen<O>> =>
  (await host.json<[Seen<O>]>(kind, 'inspect', ref))[0];
const put = (key: string, value: unknown): Op => ({ op: 'put', key, value });
const resolved = async (name: string): Promise<string> =>
  (await client.exec(`dig +short +tries=1 +time=2 @127.0.0.11 ${name}`)).stdout.trim();

test('of two services with one VIP the younger is in error and answers nowhere; the older serves', {
  timeout: LIMIT_MS,
}, async () => {
  for (const [name, backend] of [
    ['old', 'one'],
    ['young', 'two'],
  ])
    await host.cli('service', 'create', '--name', name!, '--network', 'mesh', '--port', '80', '--backend', backend!);
  const [old, young] = [await inspect<Service>('service', 'old'), await inspect<Service>('service', 'young')];
  const mesh = await inspect<Network>('network', 'mesh');
  const [vip, own] = [old.spec.vips[0]!, young.spec.vips[0]!];
  const { status: _, ...record } = young;
  const { pool } = mesh.spec.subnets[0]!;
  // As another node had it, that gave the young one the VIP while it knew nothing of the old one.
  await other.transact(
    [
      put(`service/${young.id}`, { ...record, spec: { ...young.spec, vips: [vip] } }),
      put(leaseKey(pool, vip), { pool, address: vip, owner: young.id, purpose: 'vip' }),
      { op: 'delete', key: leaseKey(pool, own) },
    ],
    { topics: [clusterTopic, networkTopic(mesh.id)] },
  );
  await eventually(async () => (await resolved('young')) === vip);
  await redis.ask('FLUSHALL');
  await eventually(async () => (await inspect('service', 'young')).status.state === 'error', 15_000);
  expect((await inspect<Service>('service', 'young')).status.error).toMatchObject({
    code: 'address.contested',
    message: expect.stringMatching(new RegExp(`${vip} was given twice, and service old is older: .* made anew`)),
  });
  expect(await host.cli('service', 'ls')).toMatch(/young .*error \(address\.contested\)/);
  await eventually(async () => expect(await client.ask(vip, 80)).toBe(`one hello ${vip}`));
  await eventually(async () => (await resolved('young')) === '');
  expect(await resolved('old')).toBe(vip);
  expect((await inspect('service', 'old')).status).toMatchObject({ state: 'ready' });
  // An audit changes nothing of it, nor does its end, which takes nothing of the other's along.
  await clock.sleep(1_500);
  expect(await client.ask(vip, 80)).toBe(`one hello ${vip}`);
  await host.cli('service', 'rm', 'young');
  expect(await client.ask(vip, 80)).toBe(`one hello ${vip}`);
  await host.cli('service', 'create', '--name', 'young', '--network', 'mesh', '--port', '80', '--backend', 'two');
  const again = (await inspect<Service>('service', 'young')).spec.vips[0]!;
  expect(again).not.toBe(vip);
  expect(await client.ask(again, 80)).toBe(`two hello ${again}`);
  for (const at of await other.list<{ owner: string }>('lease/').then(({ items }) => items))
    if (at.key === leaseKey(pool, vip)) expect(at.value.owner).toBe(old.id);
});

test('a network whose name was taken says so, works, and has it again when it is free', {
  timeout: LIMIT_MS,
}, async () => {
  const mesh = await inspect<Network>('network', 'mesh');
  const { status: _, ...record } = mesh;
  const id = 'a'.repeat(64);
  const key = nameKey('network', null, 'mesh');
  const spec = { ...mesh.spec, vni: 5_000, subnets: [] };
  await other.transact([put(`network/${id}`, { ...record, id, spec }), put(key, { id })], { topics: [clusterTopic] });
  const condition = async () =>
    (await inspect<Network>('network', mesh.id)).status.conditions.find(({ type }) => type === 'NameTaken');
  await eventually(async () => (await condition())?.active, 10_000);
  expect((await condition())?.message).toContain(
    `mesh is network ${id.slice(0, 12)} since the store was lost: this one works as before and answers to its id, ${mesh.id.slice(0, 12)}`,
  );
  expect(await host.cli('network', 'ls')).toMatch(/mesh .*ready \(NameTaken\)/);
  expect((await inspect<Network>('network', 'mesh')).id).toBe(id);
  expect(await resolved('one')).not.toBe('');
  await host.cli('network', 'rm', 'mesh');
  await eventually(async () => (await other.get<{ id: string }>(key))?.value.id === mesh.id, 10_000);
  await eventually(async () => (await condition())?.active === false, 10_000);
  expect((await inspect<Network>('network', 'mesh')).id).toBe(mesh.id);
});

test('one that goes without its name leaves that to whose it is', { timeout: LIMIT_MS }, async () => {
  await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.71.0.0/24', 'spare');
  const { status: _, ...spare } = await inspect<Network>('network', 'spare');
  const id = 'b'.repeat(64);
  const key = nameKey('network', null, 'spare');
  const spec = { ...spare.spec, vni: 5_001, subnets: [] };
  await other.transact([put(`network/${id}`, { ...spare, id, spec }), put(key, { id })], { topics: [clusterTopic] });
  await eventually(async () => (await inspect<Network>('network', 'spare')).id === id);
  await host.cli('network', 'rm', spare.id);
  expect((await other.get<{ id: string }>(key))?.value.id).toBe(id);
  expect((await inspect<Network>('network', 'spare')).id).toBe(id);
  await host.cli('network', 'rm', 'spare');
});
