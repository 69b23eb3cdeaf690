/** Replicas over two daemons that share a Redis, on an overlay: placed, reached from both, moved by a drain, gone. */
import { Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createImages } from '../../runtime/image/images.ts';
import { systemClock as clock } from '../../src/clock.ts';
import { busyboxArchive } from '../../src/lab/busybox.ts';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { createLogger } from '../../src/log.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, type TestHost, testHost } from './harness.ts';

const LIMIT_MS = 60_000;
let redis: RedisServer;
let lab: Lab;
let a: TestHost;
let b: TestHost;

const settings = (host: LabHost) => ({ store: redis.url, advertise: host.address, auditSeconds: 2 });

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'repc', hosts: ['a', 'b'] });
  const archive = await busyboxArchive('busybox:latest');
  for (const host of lab.hosts) {
    // Before a daemon has it: an image store has one owner at a time.
    const images = createImages({ dir: `${host.stateDir}/images`, clock, logger: createLogger('silent') });
    await images.load(Readable.from([archive]), { signal: AbortSignal.timeout(20_000) });
    await images.close();
  }
  [a, b] = lab.hosts.map((host) => testHost(lab, host)) as [TestHost, TestHost];
  for (const host of [a, b]) await host.daemon.start({ settings: settings(host) });
  await a.cli('network', 'create', '--driver', 'overlay', 'mesh');
}, LIMIT_MS);
afterAll(async () => {
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

const SERVE = 'mkdir /www; hostname >/www/index.html; httpd -f -p 80 -h /www & trap "sleep 0.3; exit" TERM; wait';
const answers = async (host: TestHost): Promise<number> => {
  const ask = 'for i in $(seq 20); do timeout 3 wget -qO- http://shop/; done';
  const all = await host.cli('exec', `client-${host.name}`, 'sh', '-c', ask);
  const lines = all.split('\n').filter(Boolean);
  expect(lines).toHaveLength(20);
  return new Set(lines).size;
};
const placed = async (): Promise<Record<string, number>> => {
  const nodes = (await a.cli('service', 'ps', '--format', '{{.Node}}', 'shop')).split('\n').filter(Boolean);
  return Object.fromEntries([...new Set(nodes)].sort().map((node) => [node, nodes.filter((n) => n === node).length]));
};

describe('a service over two hosts', () => {
  test('runs on both, and is reached from both', { timeout: LIMIT_MS }, async () => {
    for (const host of [a, b])
      await host.cli(
        'run',
        '-d',
        '--init',
        '--name',
        `client-${host.name}`,
        '--network',
        'mesh',
        'busybox',
        'sleep',
        '600',
      );
    const flags = ['--name', 'shop', '--network', 'mesh', '--port', '80', '--replicas', '4'];
    expect(await a.cli('service', 'create', ...flags, 'busybox', 'sh', '-c', SERVE)).toBe('shop');
    expect(Object.values(await placed())).toEqual([2, 2]);
    for (const host of [a, b]) await eventually(async () => (await answers(host)) === 4, 10_000);
  });

  test('follows drains and labels, told by either host', { timeout: LIMIT_MS }, async () => {
    const [, node] = Object.keys(await placed());
    await b.cli('node', 'drain', node!);
    await eventually(async () => Object.values(await placed()).join() === '4', 20_000);
    for (const host of [a, b]) await eventually(async () => (await answers(host)) === 4, 10_000);
    await a.cli('node', 'undrain', node!);
    await b.cli('service', 'scale', '--detach', 'shop=6');
    await eventually(async () => Object.values(await placed()).join() === '4,2', 20_000);
  });

  test('goes from both, and leaves nothing', { timeout: LIMIT_MS }, async () => {
    await b.cli('service', 'rm', 'shop');
    await eventually(async () => (await a.cli('ps', '-aq')).split('\n').filter(Boolean).length === 2, 20_000);
    for (const host of [a, b]) await host.cli('rm', '-f', `client-${host.name}`);
  });
});
