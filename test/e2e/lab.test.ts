/** `sluice lab` as a person uses it, and what a cluster keeps to while hosts of it are cut off and lost. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { nodeBinary, projectRoot, slowness } from '../../src/lab/daemon.ts';
import { labTraces } from '../../src/lab/owner.ts';
import { type RunResult, runAt } from '../../src/lab/place.ts';
import { eventually } from './harness.ts';

const LIMIT_MS = 60_000;
const CLI = [nodeBinary(), join(projectRoot(), 'dist/src/cli/main.js')];
/** A lost host is out of names and balancing this long after its last sign of life. */
const LOST_MS_MAX = 4_000;

const lab = (...args: string[]): Promise<RunResult> => runAt({}, [...CLI, 'lab', ...args], { timeoutMs: LIMIT_MS });

async function must(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await lab(...args);
  expect(`${code} ${stderr}`, `lab ${args.join(' ')}`).toBe('0 ');
  return stdout.trim();
}

const on = (host: string, ...args: string[]): Promise<string> => must('exec', host, 'sluice', ...args);
const inBox = (n: number, ...args: string[]): Promise<RunResult> =>
  lab('exec', `h${n}`, 'sluice', 'sandbox', 'exec', `box${n}`, ...args);
const pings = async (from: number, ip: string): Promise<boolean> =>
  (await inBox(from, 'busybox', 'ping', '-c1', '-W1', ip)).code === 0;
const resolves = async (from: number, name: string): Promise<string> =>
  (await inBox(from, 'dig', '+short', '+tries=1', '+time=1', '@127.0.0.11', name)).stdout.trim();

async function states(from: string): Promise<Record<string, string>> {
  const lines = (await on(from, 'node', 'ls', '--format', '{{.Name}} {{.State}}')).split('\n');
  return Object.fromEntries(lines.map((line) => line.split(' ') as [string, string]));
}

let addresses: string[];

beforeAll(async () => {
  expect(await must('up', '--hosts', '3', '--rate', '1gbit')).toBe('h1\nh2\nh3');
  await on('h1', 'network', 'create', '--driver', 'overlay', '--subnet', '10.93.0.0/20', 'mesh');
  addresses = [];
  for (const n of [1, 2, 3]) {
    const ip = `10.93.0.${100 + n}`;
    await on(`h${n}`, 'sandbox', 'create', `box${n}`, '--network', 'mesh', '--ip', ip);
    addresses.push(ip);
  }
  await eventually(() => pings(1, addresses[2]!));
}, LIMIT_MS);
afterAll(async () => {
  await must('down');
  expect(labTraces('standing')).toEqual([]);
  expect(readdirSync('/run/netns').filter((name) => name.includes('lab-standing'))).toEqual([]);
}, LIMIT_MS);

test('a second lab, a word that is no host and a share that is none are refused', async () => {
  expect(await lab('up')).toMatchObject({ code: 1, stderr: expect.stringContaining('(object.exists)') });
  expect(await lab('kill', 'h9')).toMatchObject({ code: 1, stderr: expect.stringContaining('(object.notfound)') });
  expect(await lab('loss', 'h1', '101%')).toMatchObject({ code: 2 });
  expect((await lab('exec', 'h1', 'sh', '-c', 'exit 7')).code).toBe(7);
});

test('hosts that are cut off from each other, or lose packets, do; healed, they do not', {
  timeout: LIMIT_MS,
}, async () => {
  await must('partition', 'h1', '--from', 'h3');
  expect(await pings(1, addresses[2]!)).toBe(false);
  expect(await pings(1, addresses[1]!)).toBe(true);
  await must('loss', 'h2', '100%');
  expect(await pings(1, addresses[1]!)).toBe(false);
  await must('loss', 'h2', '0%');
  expect(await pings(1, addresses[1]!)).toBe(true);
  await must('heal');
  expect(await pings(1, addresses[2]!)).toBe(true);
});

test('a host cut off from Redis alone is unreachable, not lost: its endpoints and their names go on', {
  timeout: LIMIT_MS,
}, async () => {
  await must('partition', 'h3', '--from', 'redis');
  await eventually(async () => (await states('h1')).h3 === 'unreachable', 15_000 * slowness());
  expect(await must('ls')).toMatch(/h3 .* ready +partition/);
  expect(await pings(1, addresses[2]!)).toBe(true);
  expect(await pings(3, addresses[1]!)).toBe(true);
  expect(await resolves(1, 'box3')).toBe(addresses[2]);
  expect((await lab('exec', 'h3', 'sluice', 'network', 'create', 'other')).stderr).toContain('(store.unavailable)');
  await must('heal');
  await eventually(async () => (await states('h1')).h3 === 'ready', 15_000 * slowness());
});

test('a lost host is out of names on the others within its time; it returns', { timeout: LIMIT_MS }, async () => {
  const gone = (n: number) =>
    inBox(n, 'timeout', '30', 'sh', '-c', 'while dig +short +time=1 @127.0.0.11 box3 | grep -q .; do sleep 0.1; done');
  const watches = [1, 2].map(async (n) => ({ ...(await gone(n)), at: performance.now() }));
  await must('kill', 'h3');
  const died = performance.now();
  for (const { code, at } of await Promise.all(watches)) {
    expect(code).toBe(0);
    expect(at - died).toBeLessThan(LOST_MS_MAX * slowness());
    // Not before it was lost.
    expect(at - died).toBeGreaterThan(0);
  }
  expect((await states('h2')).h3).toBe('lost');
  expect(await pings(1, addresses[1]!)).toBe(true);
  await must('heal');
  await eventually(async () => (await states('h1')).h3 === 'ready', 15_000 * slowness());
  await eventually(async () => (await resolves(1, 'box3')) === addresses[2], 15_000 * slowness());
  await eventually(() => pings(1, addresses[2]!), 15_000 * slowness());
});
