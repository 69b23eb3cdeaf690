/** What runs outlives the daemon, however it ends; how it ended meanwhile is known. */
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { type ContainerHost, openContainerHost } from './container-host.ts';
import { eventually } from './harness.ts';

let host: ContainerHost;
beforeAll(async () => {
  host = await openContainerHost('survive');
  await host.cli('network', 'create', '--subnet', '10.20.0.0/24', 'web');
});
afterAll(() => host.close());

const cli = (...words: string[]) =>
  host.spawn([`${projectRoot()}/bin/sluice`, ...words], {
    env: { SLUICE_HOST: `unix://${host.socket}` },
  });

/** Runs until it is told, by a signal from the host, and ends with that status. */
const ending = (status: number): string => `trap "exit ${status}" TERM; while :; do sleep 0.1; done`;
const PATIENCE_MS = 20_000 * slowness();
const start = (env: NodeJS.ProcessEnv = {}) => host.daemon.start({ env, readyTimeoutMs: PATIENCE_MS });

test('kill -9 of the daemon: processes, logs and exit codes survive, policies go on', async () => {
  const ticking = 'n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done';
  await host.cli('run', '-d', '--name', 'tick', '--network', 'web', 'busybox', 'sh', '-c', ticking);
  await host.cli('run', '-d', '--name', 'ends', '--network', 'web', 'busybox', 'sh', '-c', ending(23));
  await host.cli(
    'run',
    '-d',
    '--name',
    'ever',
    '--network',
    'web',
    '--restart',
    'always',
    'busybox',
    'sh',
    '-c',
    ending(1),
  );
  await host.cli(
    'run',
    '-d',
    '--name',
    'rest',
    '--network',
    'web',
    '--restart',
    'unless-stopped',
    'busybox',
    'sleep',
    '100',
  );
  await host.cli('stop', '-t', '0s', 'rest');
  const attached = cli('run', '--rm', '--name', 'told', '--network', 'web', 'busybox', 'sh', '-c', ending(19));
  await eventually(async () => (await host.detail('told')).phase === 'running', PATIENCE_MS);
  const pid = (await host.detail('tick')).pid;
  const told = await Promise.all(['ends', 'ever', 'told'].map(async (name) => (await host.detail(name)).pid!));
  await host.daemon.kill('SIGKILL');
  const diedAt = Date.now();
  await sleep(1_000);
  for (const each of told) process.kill(each, 'SIGTERM');
  await sleep(1_000);
  await start();
  const backAt = Date.now();
  await eventually(async () => (await host.detail('ends')).phase === 'exited', PATIENCE_MS);
  const ends = await host.detail('ends');
  expect(ends).toMatchObject({ exitCode: 23 });
  // When it was, not when it was noticed.
  expect(Date.parse(ends.finishedAt!)).toBeGreaterThan(diedAt);
  expect(Date.parse(ends.finishedAt!)).toBeLessThan(backAt);
  expect(await host.detail('tick')).toMatchObject({ phase: 'running', pid });
  const lines = (await host.cli('logs', 'tick')).split('\n').map(Number);
  expect(lines).toEqual(lines.map((_, n) => n + 1));
  expect(lines.length).toBeGreaterThan(10);
  await eventually(async () => ((await host.detail('ever')).restarts ?? 0) >= 1, PATIENCE_MS);
  expect((await host.detail('rest')).phase).toBe('exited');
  expect(await attached.exited).toBe(19);
  await eventually(async () => !(await host.cli('ps', '-a')).includes('told'), PATIENCE_MS);
  await host.cli('rm', '-f', 'tick', 'ends', 'ever', 'rest');
});

test('kill -9 of the monitor: its container ends, its policy starts it again, and nothing of the first is left', async () => {
  const monitorOf = async (name: string): Promise<number> => {
    const { pid } = await host.detail(name);
    return Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
  };
  const words = ['--network', 'web', 'busybox', 'sleep', '1000'];
  await host.cli('run', '-d', '--name', 'ever', '--restart', 'always', ...words);
  const before = await host.detail('ever');
  process.kill(await monitorOf('ever'), 'SIGKILL');
  await eventually(async () => ((await host.detail('ever')).restarts ?? 0) >= 1, PATIENCE_MS);
  await eventually(async () => (await host.detail('ever')).phase === 'running', PATIENCE_MS);
  expect((await host.detail('ever')).pid).not.toBe(before.pid);
  // Process 1 has taken it over by then, and looks after its dead in its own time.
  await eventually(() => !existsSync(`/proc/${before.pid}`), PATIENCE_MS);
  expect((await host.sluice(['exec', 'ever', 'true'])).code).toBe(0);
  const attached = cli('run', '--rm', '--name', 'once', ...words);
  await eventually(async () => (await host.detail('once')).phase === 'running', PATIENCE_MS);
  process.kill(await monitorOf('once'), 'SIGKILL');
  expect(await attached.exited).toBe(137);
  // Also while no daemon sees it.
  await host.cli('run', '-d', '--name', 'unseen', ...words);
  const monitor = await monitorOf('unseen');
  await host.daemon.kill('SIGKILL');
  process.kill(monitor, 'SIGKILL');
  await start();
  await eventually(async () => (await host.detail('unseen')).phase === 'exited', PATIENCE_MS);
  expect((await host.detail('unseen')).exitCode).toBe(137);
  await host.cli('rm', '-f', 'ever', 'unseen');
  await eventually(async () => (await host.cli('sandbox', 'ls', '-q')) === '', PATIENCE_MS);
  expect(await host.cli('ps', '-aq')).toBe('');
});

test('a clean restart in the middle of a start or a stop ends where it was to', async () => {
  await host.cli(
    'run',
    '-d',
    '--name',
    'deaf',
    '--network',
    'web',
    'busybox',
    'sh',
    '-c',
    'trap "" TERM; while :; do sleep 0.1; done',
  );
  await sleep(200);
  await host.cli('stop', '--detach', '-t', '2s', 'deaf');
  await host.daemon.stop();
  await start();
  await eventually(async () => (await host.detail('deaf')).phase === 'exited', 15_000);
  expect((await host.detail('deaf')).exitCode).toBe(137);
  await host.cli('rm', 'deaf');
});

test.each([
  'container.stored',
  'container.mounted',
  'container.created',
  'container.published',
  'container.started',
  'container.deleted',
  'container.released',
])('the daemon dies at %s: what was asked for is so after the next start, and nothing is left over', async (point) => {
  await host.daemon.stop();
  const { exited: ended } = await start({ SLUICE_FAULT: point });
  await host.sluice(['run', '-d', '--name', 'fault', '--network', 'web', 'busybox', 'sleep', '100']);
  if (/deleted|released/.test(point)) await host.sluice(['rm', '-f', 'fault']);
  await ended;
  await start();
  if (/deleted|released/.test(point)) await eventually(async () => (await host.cli('ps', '-aq')) === '', PATIENCE_MS);
  else {
    await eventually(async () => (await host.detail('fault')).phase === 'running', PATIENCE_MS);
    expect((await host.sluice(['exec', 'fault', 'true'])).code).toBe(0);
    await host.cli('rm', '-f', 'fault');
  }
  await eventually(async () => (await host.cli('sandbox', 'ls', '-q')) === '', PATIENCE_MS);
  expect(await host.cli('ps', '-aq')).toBe('');
});
