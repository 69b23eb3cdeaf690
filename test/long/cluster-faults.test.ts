/** What happens to the daemons of a cluster and to the Redis that they share, under load: no connection fails, nothing is doubled or lost. */
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import type { TestHost } from '../e2e/harness.ts';
import { eventually } from '../e2e/harness.ts';
import { cutOff, gone, type Remains, remains } from '../e2e/remains.ts';
import { sandbox } from '../e2e/traffic.ts';
import { LongBed, type Tally } from './cluster-bed.ts';

const SECOND = 1_000;
const WORKERS = 50;
/** Of each worker at least; they go on until daemons have been killed often enough. */
const CYCLES = 3;
const KILLS = 9;

let bed: LongBed | undefined;
afterEach(async () => {
  const left = await bed?.close();
  bed = undefined;
  expect(left).toEqual([]);
}, 60 * SECOND);

function expectUnharmed(tallies: readonly Tally[], least: number): void {
  for (const tally of tallies) {
    expect(tally.errors).toEqual({});
    expect(tally.bad).toBe(0);
    expect(tally.ok).toBeGreaterThan(least);
  }
}

type NodeView = { name: string; session: { state: string } };
const statesAt = async (host: TestHost): Promise<Map<string, string>> =>
  new Map((await host.json<NodeView[]>('node', 'ls')).map(({ name, session }) => [name, session.state]));

test('daemons killed on every host in turn and left dead for 20 s: no connection fails, no host is lost', async () => {
  bed = await LongBed.open('turn');
  const load = bed.load();
  for (const host of bed.hosts) {
    await host.daemon.kill();
    const seen = new Set<string>();
    const until = performance.now() + 20 * SECOND;
    const watcher = bed.hosts.find((other) => other !== host)!;
    while (performance.now() < until) {
      seen.add((await statesAt(watcher)).get(host.name) ?? 'unknown');
      await sleep(500);
    }
    expect([...seen]).not.toContain('lost');
    expect([...seen]).toContain('unreachable');
    await bed.start(host);
    await eventually(async () => (await statesAt(watcher)).get(host.name) === 'ready', 10 * SECOND);
  }
  expectUnharmed(await load.end(), 1_000);
});

/** Without what counts or remembers. A program on a sandbox's lo becomes a link at leisure, where the kernel has those. */
const comparable = ({ store: _, pins = [], ...rest }: Remains): Remains => ({
  ...rest,
  pins: pins.map((pin) => pin.replace('/progs/lo-', '/links/lo-')).sort(),
});

test('50 at a time created and removed on three hosts, daemons killed at random: desired is actual, nothing is left', async () => {
  bed = await LongBed.open('churn');
  const { hosts, redis } = bed;
  const before = await Promise.all(hosts.map(async (host) => comparable(await remains(host))));
  const leases = async (): Promise<string[]> =>
    ((await redis.ask('HKEYS', '{sluice}data')) as string[]).filter((key) => key.startsWith('lease/')).sort();
  const leasedBefore = await leases();
  const load = bed.load();
  let working = true;
  let kills = 0;
  const killer = (async () => {
    while (working) {
      const host = hosts[Math.floor(Math.random() * hosts.length)]!;
      await host.daemon.kill();
      kills++;
      await sleep(Math.random() * SECOND);
      await bed!.start(host);
      await sleep(SECOND);
    }
  })();
  /** As people do whose command is cut off by a daemon that dies. */
  const insist = async (work: () => Promise<unknown>): Promise<void> => {
    for (let left = 200; ; left--) {
      try {
        await work();
        return;
      } catch (error) {
        if (left === 0 || !(cutOff(error) || /store\.conflict|request\.timeout/.test((error as { code: string }).code)))
          throw error;
        await sleep(200);
      }
    }
  };
  const kept = (n: number): boolean => n % 2 === 0;
  const boxes = async (host: TestHost): Promise<string[]> =>
    (await host.client.sandboxes.list()).map(({ name }) => name);
  await Promise.all(
    Array.from({ length: WORKERS }, async (_, n) => {
      const host = hosts[n % hosts.length]!;
      const name = `w${n}`;
      for (let cycle = 0; cycle < CYCLES || kills < KILLS; cycle++) {
        await insist(() => host.client.sandboxes.put(name, { networks: [{ network: 'mesh' }] }));
        await insist(gone(() => host.client.sandboxes.remove(name, { force: true })));
        // The name is free at once; the one before may still be going.
      }
      if (kept(n)) await insist(() => host.client.sandboxes.put(name, { networks: [{ network: 'mesh' }] }));
    }),
  );
  working = false;
  await killer;
  expect(kills).toBeGreaterThanOrEqual(KILLS);

  // Everything that is desired is there, and nothing else, on every host and in every other host's tables.
  const wanted = Array.from({ length: WORKERS }, (_, n) => n).filter(kept);
  for (const [at, host] of hosts.entries()) {
    const own = wanted.filter((n) => n % hosts.length === at).map((n) => `w${n}`);
    const all = [...own, `client-${host.name}`, `server-${host.name}`];
    await eventually(async () => {
      expect((await boxes(host)).filter((name) => name.startsWith('w')).length).toBe(wanted.length);
      const endpoints = await host.client.endpoints.list();
      const mine = endpoints.filter(({ owner }) => owner === host.name);
      expect(mine.map(({ status }) => status?.state)).toEqual(all.map(() => 'ready'));
      expect((await host.must('ip -o link')).match(/: sv[0-9a-f]{12}@/g)?.length).toBe(all.length);
      type Peers = { peers: { differences: unknown[]; items: unknown[] } };
      const [{ peers }] = await host.json<[Peers]>('network', 'inspect', '--peers', 'mesh');
      expect(peers.differences).toEqual([]);
      return true;
    }, 30 * SECOND);
  }
  const addresses = (await hosts[0]!.client.endpoints.list()).flatMap(({ spec }) => spec.addresses);
  expect(new Set(addresses).size).toBe(addresses.length);
  expectUnharmed(await load.end(), 500);

  for (const n of wanted) await hosts[n % hosts.length]!.client.sandboxes.remove(`w${n}`, { force: true });
  for (const [at, host] of hosts.entries())
    await eventually(
      async () => {
        expect(comparable(await remains(host))).toEqual(before[at]);
        return true;
      },
      60 * SECOND,
      500,
    );
  // What was leased to somebody who was cut off is seen within half a minute and an audit, and collected as long after that.
  await eventually(async () => (await leases()).join() === leasedBefore.join(), 90 * SECOND, 500);
});

test.each([
  ['with everything it had', false],
  ['as an old snapshot', true],
])('Redis away for 60 s, a daemon killed and started meanwhile, and back %s', async (_, isOld) => {
  bed = await LongBed.open(isOld ? 'old' : 'away', isOld ? [] : ['appendonly yes']);
  const { hosts, redis } = bed;
  const [a, b, c] = hosts as [TestHost, TestHost, TestHost];
  if (isOld) {
    await redis.ask('SAVE');
    cpSync(join(redis.folder, 'dump.rdb'), join(redis.folder, 'old.rdb'));
  }
  await a.cli('sandbox', 'create', 'since', '--network', 'mesh');
  await b.cli('sandbox', 'rm', '--force', 'client-b');
  bed.clients.splice(1, 1);
  const links = (): Promise<string[]> =>
    Promise.all(hosts.map((host) => host.must('ip -o link | grep -o " sv[^@]*" | sort')));
  await eventually(
    async () => !(await b.json<{ name: string }[]>('sandbox', 'ls')).some(({ name }) => name === 'client-b'),
  );
  const before = { links: await links(), boxes: (await a.client.sandboxes.list()).map(({ name }) => name).sort() };
  const load = bed.load();
  await sleep(SECOND);
  await redis.stop(isOld ? 'SIGKILL' : 'SIGTERM');
  const until = performance.now() + 60 * SECOND;
  await sleep(5 * SECOND);
  await b.daemon.kill();
  await sleep(5 * SECOND);
  await bed.start(b);
  while (performance.now() < until) {
    const begun = performance.now();
    const { code, stderr } = await c.sluice(['sandbox', 'create', 'refused', '--network', 'mesh']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('(store.unavailable)')]);
    expect(performance.now() - begun).toBeLessThan(4 * SECOND);
    await sleep(3 * SECOND);
  }
  expect(await links()).toEqual(before.links);
  if (isOld) cpSync(join(redis.folder, 'old.rdb'), join(redis.folder, 'dump.rdb'));
  await redis.start();
  const back = performance.now();
  await eventually(async () => (await c.sluice(['network', 'create', 'late'])).code === 0, 10 * SECOND, 50);
  expect(performance.now() - back).toBeLessThan(3 * SECOND);
  const late = await sandbox(c, 'late', '--network', 'mesh');
  for (const client of bed.clients) await eventually(() => client.ping(late.ipv4!));
  await c.cli('sandbox', 'rm', 'late');
  // Longer than two audits: nothing is withdrawn, nothing comes back that was removed.
  await sleep(6 * SECOND);
  expect(await links()).toEqual(before.links);
  for (const host of hosts)
    expect((await host.client.sandboxes.list()).map(({ name }) => name).sort()).toEqual(before.boxes);
  const addresses = (await a.client.endpoints.list()).flatMap(({ spec }) => spec.addresses);
  expect(new Set(addresses).size).toBe(addresses.length);
  expectUnharmed(await load.end(), 1_000);
});
