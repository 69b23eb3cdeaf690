/** A single host that becomes part of a cluster: its objects come along, what runs keeps running, and no setting alone takes it down. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, type TestHost, testHost } from './harness.ts';

const LIMIT_MS = 60_000;
let redis: RedisServer;
let lab: Lab;
let a: TestHost;
let b: TestHost;

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'join', hosts: ['a', 'b'] });
  [a, b] = lab.hosts.map((host) => testHost(lab, host)) as [TestHost, TestHost];
  await a.daemon.start({ settings: { advertise: a.address } });
  await a.cli('network', 'create', '--driver', 'overlay', 'mesh');
  await a.cli('network', 'create', '--subnet', '10.31.0.0/24', 'web');
  await a.cli('sandbox', 'create', '--network', 'web', 'one');
  await a.cli('service', 'create', '--name', 'shop', '--network', 'web', '--ip', '10.31.0.99', '--backend', 'one');
  await b.daemon.start({ settings: { store: redis.url, advertise: b.address } });
  await b.cli('network', 'create', '--driver', 'overlay', 'mesh');
}, LIMIT_MS);
afterAll(async () => {
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

const shared = () => ({ settings: { store: redis.url, advertise: a.address } });
/** Where the sandbox's cable is plugged in, and what it is called there. */
const wiring = () => a.must('ip -o link show type veth | cut -d: -f1,2');

test('a daemon that would find nothing of what runs does not start', async () => {
  await a.daemon.stop();
  await expect(a.daemon.start(shared())).rejects.toThrow(
    /4 objects that the cluster does not know \(.*network web.*cluster join/s,
  );
  await a.daemon.start();
  expect(await a.cli('sandbox', 'ls', '--format', '{{.Name}}')).toBe('one');
});

test('what both have is listed, and nothing is taken along', async () => {
  await expect(a.cli('cluster', 'join', redis.url)).rejects.toThrow(
    /both this host and the cluster have: .*network mesh.*; nothing was taken along/,
  );
  expect(await b.cli('sandbox', 'ls', '--format', '{{.Name}}')).toBe('');
  await expect(b.cli('cluster', 'join', redis.url)).rejects.toThrow('cluster.member');
  await a.cli('network', 'rm', 'mesh');
});

test('everything comes along, and what runs is not touched', { timeout: LIMIT_MS }, async () => {
  const before = await wiring();
  expect(await a.cli('cluster', 'join', redis.url)).toMatch(/This host, node a, is in the cluster at .*: \d+ records/);
  await eventually(async () => a.daemon.current === null);
  expect(await wiring()).toBe(before);
  await expect(a.daemon.start()).rejects.toThrow(/objects went to the cluster at/);
  await expect(a.daemon.start({ settings: { ...shared().settings, node: 'other' } })).rejects.toThrow(
    'start it with --node a',
  );
  await a.daemon.start(shared());
  await eventually(async () => (await a.cli('status')).includes('ok'));
  expect(await wiring()).toBe(before);
  for (const host of [a, b]) {
    expect(await host.cli('sandbox', 'ls', '--format', '{{.Name}}')).toBe('one');
    expect(await host.cli('service', 'ls', '--format', '{{.Name}}')).toBe('shop');
    expect(await host.cli('network', 'ls', '--format', '{{.Name}} {{.Driver}}')).toContain('mesh overlay');
  }
  expect(JSON.parse(await a.cli('service', 'inspect', 'shop'))).toMatchObject([{ status: { state: 'ready' } }]);
  expect(await a.cli('sandbox', 'exec', 'one', 'busybox', 'nslookup', 'shop', '127.0.0.11')).toContain('10.31.0.99');
});

test('a host of a cluster is not started alone by accident either', async () => {
  await b.daemon.stop();
  await expect(b.daemon.start()).rejects.toThrow(/this host is part of a cluster/);
  await b.daemon.start({ settings: { store: redis.url, advertise: b.address } });
});
