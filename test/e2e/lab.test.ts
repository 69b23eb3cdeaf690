/** `sluice lab` as a person uses it, and what a cluster keeps to while hosts of it are cut off and lost. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import type { Lab } from '../../src/lab/lab.ts';
import { labTraces } from '../../src/lab/owner.ts';
import { type RunResult, runAt } from '../../src/lab/place.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { standingLab, takeDown } from '../../src/lab/standing.ts';
import { eventually, type TestHost, testHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000;
const CLI = [join(projectRoot(), 'bin/sluice')];
/** A lost host is out of names and balancing this long after its last sign of life. */
const LOST_MS_MAX = 4_000;

const lab = (...args: string[]): Promise<RunResult> => runAt({}, [...CLI, 'lab', ...args], { timeoutMs: LIMIT_MS });

async function must(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await lab(...args);
  expect(`${code} ${stderr}`, `lab ${args.join(' ')}`).toBe('0 ');
  return stdout.trim();
}

const pings = (from: number, to: number): Promise<boolean> => boxes[from - 1]!.ping(boxes[to - 1]!.ipv4!);
const resolves = async (from: number, name: string): Promise<string> =>
  (await boxes[from - 1]!.exec(`dig +short +tries=1 +time=1 @127.0.0.11 ${name}`)).stdout.trim();

async function states(from: number): Promise<Record<string, string>> {
  const lines = (await hosts[from - 1]!.cli('node', 'ls', '--format', '{{.Name}} {{.State}}')).split('\n');
  return Object.fromEntries(lines.map((line) => line.split(' ') as [string, string]));
}

let hosts: TestHost[];
let boxes: Inside[];

beforeAll(async () => {
  expect(await must('up', '--hosts', '3', '--rate', '1gbit')).toBe('h1\nh2\nh3');
  const whole: Lab = { id: 'standing', ...standingLab(), close: takeDown };
  hosts = whole.hosts.map((host) => testHost(whole, host));
  await hosts[0]!.cli('network', 'create', '--driver', 'overlay', 'mesh');
  boxes = [];
  for (const [i, host] of hosts.entries()) boxes.push(await sandbox(host, `box${i + 1}`, '--network', 'mesh'));
  await eventually(() => pings(1, 3));
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
  expect(await must('exec', 'h2', 'sluice', 'node', 'ls', '--quiet')).toMatch(/^\S+\n\S+\n\S+$/);
});

test('hosts that are cut off from each other, or lose packets, do; healed, they do not', {
  timeout: LIMIT_MS,
}, async () => {
  await must('partition', 'h1', '--from', 'h3');
  expect(await pings(1, 3)).toBe(false);
  expect(await pings(1, 2)).toBe(true);
  await must('loss', 'h2', '100%');
  expect(await pings(1, 2)).toBe(false);
  await must('loss', 'h2', '0%');
  expect(await pings(1, 2)).toBe(true);
  await must('heal');
  expect(await pings(1, 3)).toBe(true);
});

test('a host cut off from Redis alone is unreachable, not lost: its endpoints and their names go on', {
  timeout: LIMIT_MS,
}, async () => {
  await must('partition', 'h3', '--from', 'redis');
  await eventually(async () => (await states(1)).h3 === 'unreachable', 15_000 * slowness());
  expect(await must('ls')).toMatch(/h3 .* ready +partition/);
  expect(await pings(1, 3)).toBe(true);
  expect(await pings(3, 2)).toBe(true);
  expect(await resolves(1, 'box3')).toBe(boxes[2]!.ipv4);
  await expect(hosts[2]!.cli('network', 'create', 'other')).rejects.toThrow('(store.unavailable)');
  await must('heal');
  await eventually(async () => (await states(1)).h3 === 'ready', 15_000 * slowness());
});

test('daemons killed on every host in turn: no connection fails and no host is lost', {
  timeout: LIMIT_MS,
}, async () => {
  for (const n of [1, 2]) await boxes[n]!.serve(80);
  await hosts[0]!.cli(
    ...['service', 'create', '--name', 'shop', '--network', 'mesh', '--port', '80'],
    ...['--backend', `${boxes[1]!.ipv4}:80`, '--backend', `${boxes[2]!.ipv4}:80`],
  );
  const vip = (await hosts[0]!.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop'))[0].spec.vips[0]!;
  await eventually(async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => boxes[0]!.ask(vip, 80)));
    return ['box2', 'box3'].every((name) => answers.some((answer) => answer.startsWith(name)));
  });
  const load = boxes[0]!.python(`import socket,time
good=bad=0
end=time.time()+300
while time.time()<end:
    try: socket.create_connection(("${vip}",80),2).close(); good+=1
    except OSError: bad+=1
    print(good,bad,flush=True)
    time.sleep(0.005)`);
  const lost: string[] = [];
  for (const [i, host] of hosts.entries()) {
    const pid = Number(readFileSync(join(host.cgroupRoot, 'daemon/cgroup.procs'), 'utf8').split('\n')[0]);
    process.kill(pid, 'SIGKILL');
    lost.push(...Object.values(await states(i === 0 ? 2 : 1)).filter((state) => state === 'lost'));
    await must('heal');
  }
  lost.push(...Object.values(await states(1)).filter((state) => state === 'lost'));
  await load.stop();
  const [good, bad] = load.output().trim().split('\n').at(-1)!.split(' ').map(Number);
  expect(lost).toEqual([]);
  expect(bad).toBe(0);
  expect(good).toBeGreaterThan(100);
  await hosts[0]!.cli('service', 'rm', 'shop');
});

test('a lost host is out of names on the others within its time; it returns', { timeout: LIMIT_MS }, async () => {
  const gone = (n: number) =>
    boxes[n - 1]!.exec('while dig +short +time=1 @127.0.0.11 box3 | grep -q .; do sleep 0.1; done', LIMIT_MS);
  const watches = [1, 2].map(async (n) => ({ ...(await gone(n)), at: performance.now() }));
  await must('kill', 'h3');
  const died = performance.now();
  for (const { code, at } of await Promise.all(watches)) {
    expect(code).toBe(0);
    expect(at - died).toBeLessThan(LOST_MS_MAX * slowness());
    // Not before it was lost.
    expect(at - died).toBeGreaterThan(0);
  }
  expect((await states(2)).h3).toBe('lost');
  expect(await pings(1, 2)).toBe(true);
  await must('heal');
  await eventually(async () => (await states(1)).h3 === 'ready', 15_000 * slowness());
  await eventually(async () => (await resolves(1, 'box3')) === boxes[2]!.ipv4, 15_000 * slowness());
  await eventually(() => pings(1, 3), 15_000 * slowness());
});
