/** A daemon whose desired state lies in a Redis that stops, and comes back with everything, or with nothing. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { RedisServer } from '../redis/server.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const SECONDS = 1_000;
/** How fast a daemon starts is no matter here. */
const readyTimeoutMs = 20 * SECONDS;
let redis: RedisServer;
let host: TestHost;
let client: Inside;
let vip: string;

beforeEach(async () => {
  redis = await RedisServer.start();
  host = await openHost({ name: 'redis', settings: settings(), readyTimeoutMs });
  await host.cli('network', 'create', 'web');
  await (await sandbox(host, 'server', '--network', 'web')).serve(80);
  client = await sandbox(host, 'client', '--network', 'web');
  await host.cli('service', 'create', '--name', 'shop', '--network', 'web', '--port', '80', '--backend', 'server');
  vip = (await host.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop'))[0].spec.vips[0]!;
  await served();
}, 60 * SECONDS);
afterEach(async () => {
  await host?.close();
  await redis?.remove();
}, 60 * SECONDS);

const reached = async (): Promise<void> => expect(await client.ask(vip, 80)).toBe(`server hello ${vip}`);

const settings = () => ({ store: redis.url, auditSeconds: 1 });

/** Traffic and names, without a second try. */
async function served(): Promise<true> {
  await reached();
  expect((await client.exec('dig +short +tries=1 +time=2 @127.0.0.11 shop')).stdout.trim()).toBe(vip);
  return true;
}

async function refused(): Promise<void> {
  const begun = performance.now();
  const { code, stderr } = await host.sluice(['network', 'create', 'other']);
  expect(code).toBe(1);
  expect(stderr).toContain('(store.unavailable)');
  expect(performance.now() - begun).toBeLessThan(4 * SECONDS);
}

const names = async (kind: string): Promise<string[]> =>
  (await host.json<{ name: string }[]>(kind, 'ls')).map(({ name }) => name).sort();

test(
  'Redis stopped, the daemon killed and started meanwhile: traffic, names and reads go on, writes fail at once; emptied, it is restored',
  async () => {
    const before = { sandboxes: await names('sandbox'), networks: await names('network') };
    // The copies are written with each change of this node's own.
    await redis.stop();
    await served();
    await refused();
    await host.daemon.kill();
    await reached();
    await host.daemon.start({ settings: settings(), readyTimeoutMs });
    await eventually(served);
    expect(await names('sandbox')).toEqual(before.sandboxes);
    expect(await names('network')).toEqual(before.networks);
    await refused();
    // Longer than an audit: nothing is withdrawn for want of news.
    await new Promise((resolve) => setTimeout(resolve, 3 * SECONDS));
    await served();

    await redis.start();
    const startedAt = performance.now();
    let restored = false;
    const watching = (async () => {
      while (!restored) await served();
    })();
    await eventually(async () => (await host.sluice(['network', 'create', 'late'])).code === 0, 10 * SECONDS);
    expect(performance.now() - startedAt).toBeLessThan(5 * SECONDS);
    restored = true;
    await watching;
    expect(await names('sandbox')).toEqual(before.sandboxes);
    expect(await names('network')).toEqual([...before.networks, 'late'].sort());
    const extra = await sandbox(host, 'extra', '--network', 'web');
    expect(await extra.ask(vip, 80)).toBe(`server hello ${vip}`);
    await served();
    // What is in Redis is whole: a daemon without copies serves from it.
    await host.cli('sandbox', 'rm', 'extra');
    await host.daemon.stop();
    await host.must(`rm ${host.stateDir}/replica.db*`);
    await host.daemon.start({ settings: settings(), readyTimeoutMs });
    expect(await names('sandbox')).toEqual(before.sandboxes);
    await eventually(served);
  },
  120 * SECONDS,
);

test(
  'Redis emptied under a running daemon: nothing is withdrawn',
  async () => {
    const before = await names('sandbox');
    await redis.ask('FLUSHALL');
    const until = performance.now() + 4 * SECONDS;
    while (performance.now() < until) await served();
    expect(await names('sandbox')).toEqual(before);
    expect(Number(await redis.ask('HLEN', '{sluice}data'))).toBeGreaterThan(10);
    await host.cli('network', 'create', 'late');
  },
  60 * SECONDS,
);

test(
  'a Redis of another cluster, or off this machine in the clear, is refused',
  async () => {
    await host.daemon.stop();
    const refusal = async (wrong: Record<string, unknown>): Promise<string> => {
      const error = await host.daemon
        .start({ settings: { ...settings(), ...wrong }, readyTimeoutMs })
        .catch((reason: Error) => reason);
      return error instanceof Error ? error.message : 'it started';
    };
    expect(await refusal({ store: redis.url, clusterId: 'other' })).toContain('(store.foreign)');
    expect(await refusal({ store: 'redis://192.0.2.1:6379' })).toMatch(/TLS.*password.*\(config\.invalid\)/);
    await reached();
  },
  60 * SECONDS,
);
