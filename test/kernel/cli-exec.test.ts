/** What `sluice sandbox exec` becomes, in a namespace, a cgroup and with a resolv.conf of the test's own. */
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { execArguments } from '../../src/cli/exec.ts';
import { cgroupMount } from '../../src/lab/owner.ts';
import type { View } from '../../src/model/request.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';

const PREFIX = 'sluice-exectest-';
const folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
const netnsPath = join(folder, 'netns');
const resolvConf = join(folder, 'sandbox/resolv.conf');
const cgroupPath = join(cgroupMount(), `${PREFIX}${process.pid}`);

function sandbox(detail: Record<string, unknown>): View<Sandbox> {
  return { name: 'box', id: 'a'.repeat(64), status: { state: 'ready', detail } } as unknown as View<Sandbox>;
}
const own = { netnsPath, cgroupPath, resolvConf };

/** Runs a command as the CLI does once it knows the sandbox; `before` wraps it. */
function exec(
  line: readonly string[],
  detail: Record<string, unknown> = own,
  before: readonly string[] = [],
): SpawnSyncReturns<string> {
  const [, ...args] = execArguments(sandbox(detail), line);
  const [file, ...rest] = [...before, 'sh', ...args];
  return spawnSync(file!, rest, { encoding: 'utf8', input: '' });
}

/** What test processes that are no more left. */
function sweep(): void {
  for (const [root, remove] of [
    [tmpdir(), (path: string) => rmSync(path, { recursive: true })],
    [cgroupMount(), rmdirSync],
  ] as const) {
    for (const name of readdirSync(root)) {
      const pid = new RegExp(`^${PREFIX}(\\d+)`).exec(name)?.[1];
      if (pid && !existsSync(`/proc/${pid}`)) {
        if (root === tmpdir()) spawnSync('umount', ['-l', join(root, name, 'netns')]);
        remove(join(root, name));
      }
    }
  }
}

beforeAll(() => {
  sweep();
  mkdirSync(cgroupPath);
  mkdirSync(join(folder, 'sandbox'));
  writeFileSync(resolvConf, 'nameserver 127.0.0.11\n');
  writeFileSync(netnsPath, '');
  expect(spawnSync('unshare', [`--net=${netnsPath}`, 'true']).status).toBe(0);
});
afterAll(() => {
  spawnSync('umount', ['-l', netnsPath]);
  rmSync(folder, { recursive: true });
  rmdirSync(cgroupPath);
});

describe('sandbox exec', () => {
  test('network, cgroup and resolver are the sandbox’s, everything else the host’s', () => {
    const host = readFileSync('/etc/resolv.conf', 'utf8');
    const script = 'readlink /proc/self/ns/net; cat /proc/self/cgroup; cat /etc/resolv.conf; ls -d /etc/passwd';
    const { stdout, status } = exec(['sh', '-c', script]);
    expect(status).toBe(0);
    expect(stdout).not.toContain(spawnSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }).stdout);
    expect(stdout).toContain(`0::/${PREFIX}${process.pid}\n`);
    expect(stdout).toContain('nameserver 127.0.0.11\n/etc/passwd\n');
    expect(readFileSync('/etc/resolv.conf', 'utf8')).toBe(host);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain('/etc/resolv.conf');
  });

  test.each([
    ['its own', ['sh', '-c', 'exit 42'], 42],
    ['by a signal', ['sh', '-c', 'kill -TERM $$'], null],
    ['not found', ['no-such-program'], 127],
    ['not executable', ['/etc/passwd'], 126],
  ])('exit status: %s', (_, line, expected) => {
    expect(exec(line).status).toBe(expected);
    expect(exec(line, { netnsPath }).status).toBe(expected);
  });

  test('a program that is not there is named', () => {
    expect(exec(['no-such-program']).stderr).toBe('sluice: there is no program no-such-program on the PATH\n');
    expect(exec(['/nowhere/program'])).toMatchObject({
      status: 127,
      stderr: expect.stringContaining('/nowhere/program'),
    });
  });

  test('arguments arrive as they were', () => {
    const words = ['a b', "it's", '"$HOME"', '', '*', '--', '-n', '\\n', 'ü'];
    expect(exec(['printf', '[%s]', ...words]).stdout).toBe(words.map((word) => `[${word}]`).join(''));
  });

  test('a namespace of somebody else: no resolver, no cgroup', () => {
    const { stdout } = exec(['cat', '/etc/resolv.conf', '/proc/self/cgroup'], { netnsPath });
    expect(stdout).toBe(readFileSync('/etc/resolv.conf', 'utf8') + readFileSync('/proc/self/cgroup', 'utf8'));
  });

  test('where /etc/resolv.conf is missing or a dangling link, ours is there all the same', () => {
    // An /etc of the test's own, in a mount namespace of its own.
    const etc = join(folder, 'etc');
    mkdirSync(etc);
    const inEtc = (what: string) => [
      'unshare',
      '--mount',
      'sh',
      '-c',
      `mount --bind ${etc} /etc && ${what} && exec "$@"`,
      'sh',
    ];
    const line = ['sh', '-c', 'cat /etc/resolv.conf; ls /etc'];
    writeFileSync(join(etc, 'hosts'), '');
    expect(exec(line, own, inEtc('true'))).toMatchObject({
      status: 0,
      stdout: 'nameserver 127.0.0.11\nhosts\nresolv.conf\n',
    });
    const dangling = exec(line, own, inEtc('ln -s /nowhere/resolv.conf /etc/resolv.conf'));
    expect(dangling).toMatchObject({ status: 0, stdout: 'nameserver 127.0.0.11\nhosts\nresolv.conf\n' });
    const linked = exec(['cat', '/etc/resolv.conf'], own, inEtc('echo old >/etc/real && ln -sf real /etc/resolv.conf'));
    expect(linked).toMatchObject({ status: 0, stdout: 'nameserver 127.0.0.11\n' });
  });

  test('a failure of ours is 125 and says what', () => {
    expect(exec(['true'], { ...own, cgroupPath: '/nowhere' })).toMatchObject({
      status: 125,
      stderr: expect.stringContaining('sluice: cannot join cgroup /nowhere (kernel.failed)'),
    });
    const broken = exec(['true'], { ...own, resolvConf: '/nowhere/resolv.conf' });
    expect(broken).toMatchObject({ status: 125, stderr: expect.stringContaining('in the place of /etc/resolv.conf') });
    expect(() => execArguments(sandbox({}), ['true'])).toThrow('sandbox box has no namespace yet');
  });

  test('a namespace that is removed meanwhile goes, whatever still runs elsewhere', async () => {
    const shared = join(folder, 'shared');
    mkdirSync(shared);
    const script = `
      mount --bind ${shared} ${shared} && mount --make-shared ${shared}
      : >${shared}/other && unshare --net=${shared}/other true
      sh "$@" & wait_for=$!
      sleep 0.3; umount ${shared}/other; grep -c ${shared}/other /proc/$wait_for/mountinfo; kill $wait_for`;
    const [, ...args] = execArguments(sandbox(own), ['sleep', '30']);
    const child = spawn('unshare', ['--mount', 'sh', '-c', script, 'sh', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    for await (const chunk of child.stdout) out += chunk;
    expect(out).toBe('0\n');
  });
});
