import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nodeBinary, projectRoot, startDaemon } from '../../src/lab/daemon.ts';
import { createLab, FAR, type Lab } from '../../src/lab/lab.ts';
import {
  cgroupMount,
  deadLabs,
  killGroup,
  labTraces,
  mountsBelow,
  processStart,
  sweepLab,
} from '../../src/lab/owner.ts';
import { runAt } from '../../src/lab/place.ts';
import { until } from './kernel-bed.ts';

describe('a lab of two hosts', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await createLab({ name: 'labtest', hosts: ['a', 'b'], mtu: 1400 });
  });
  afterAll(async () => {
    expect(await lab.close()).toEqual([]);
  });

  test('hosts reach each other and the outside, over IPv4 and IPv6', async () => {
    const [a, b] = lab.hosts;
    for (const target of [b!.address, b!.address6, lab.outside.address, FAR.ipv4, FAR.ipv6]) {
      expect((await a!.exec(['busybox', 'ping', '-c1', '-W2', target])).code, target).toBe(0);
    }
  });

  test('the underlay has the MTU that was asked for', async () => {
    expect(await lab.host('a').must('ip -o link show eth0')).toContain('mtu 1400');
  });

  test('a program runs in its host`s namespace and cgroup', async () => {
    const cgroup = await lab.host('a').must('cat /proc/self/cgroup');
    expect(cgroup).toContain(lab.host('a').cgroup.slice(cgroupMount().length));
    expect(await lab.host('a').must('ip -o -4 addr show eth0')).toContain('198.18.0.11/24');
  });

  test('hosts have instance marks of their own, of at most eight characters', () => {
    const marks = lab.hosts.map((host) => host.instance);
    expect(new Set(marks).size).toBe(2);
    for (const mark of marks) expect(mark).toMatch(/^[a-z0-9]{1,8}$/);
  });

  test('a program that does not end is killed with its children, and the error says so', async () => {
    const run = lab.host('a').exec('sleep 77 & wait', { timeoutMs: 150 });
    await expect(run).rejects.toMatchObject({ code: 'wait.timeout' });
    // A killed process leaves the list some instants after it has closed its pipes.
    const procs = (): string => readFileSync(join(lab.host('a').cgroup, 'cgroup.procs'), 'utf8').trim();
    await until('the host is empty', () => procs() === '');
  });

  test('a failing program`s status and words come back', async () => {
    const result = await lab.host('b').exec('echo to-out; echo to-err >&2; exit 7');
    expect(result).toEqual({ code: 7, stdout: 'to-out\n', stderr: 'to-err\n' });
    await expect(lab.host('b').must('exit 3')).rejects.toThrow('on b: exit 3: status 3');
  });

  test('input reaches a program, and one that does not read it is no error', async () => {
    expect((await lab.host('b').exec(['cat'], { input: 'words' })).stdout).toBe('words');
    expect((await lab.host('b').exec(['true'], { input: 'x'.repeat(1 << 20) })).code).toBe(0);
  });

  test('a background program that has ended has said all that it says; one that left a child behind is not waited for', async () => {
    const late = lab.host('a').spawn('(sleep 0.2; echo last words) & exit 3');
    expect(await late.exited).toBe(3);
    expect(late.output()).toBe('last words\n');
    const left = lab.host('a').spawn('sleep 60 & exit 4');
    expect(await left.exited).toBe(4);
    await left.stop();
  });

  test('a background program is stopped with its output kept', async () => {
    const program = lab.host('a').spawn('echo started; sleep 60');
    while (!program.output().includes('started')) await sleep(5);
    expect(await program.stop('SIGTERM')).toBe(128 + 15);
  });
});

test('what a killed owner left is swept: processes, mounts, namespaces, cgroups, folder', async () => {
  const script = `
    import { mkdirSync } from 'node:fs';
    import { execFileSync } from 'node:child_process';
    const { createLab } = await import(${JSON.stringify(join(projectRoot(), 'src/lab/lab.ts'))});
    const lab = await createLab({ name: 'crash', hosts: ['a'] });
    const [host] = lab.hosts;
    mkdirSync(host.bpffs, { recursive: true });
    execFileSync('mount', ['-t', 'bpf', 'bpf', host.bpffs]);
    mkdirSync(host.cgroupRoot + '/some/deep', { recursive: true });
    const sleeper = host.spawn(['sleep', '300']);
    console.log(lab.id, sleeper.pid);
    process.kill(process.pid, 'SIGKILL');`;
  const child = spawn(nodeBinary(), ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (chunk) => {
    said += chunk;
  });
  await new Promise((resolve) => child.on('close', resolve));
  const [id, sleeper] = said.trim().split(' ') as [string, string];
  expect(processStart(Number(sleeper))).not.toBeNull();
  expect(labTraces(id).length).toBeGreaterThan(3);
  expect(deadLabs()).toContain(id);
  await sweepLab();
  expect(labTraces(id)).toEqual([]);
  expect(processStart(Number(sleeper))).toBeNull();
});

test('a killed group can be removed at once, also while threads end in it', async () => {
  const group = join(cgroupMount(), `sluice-lab-${process.pid}-threads`);
  const listed = (file: string): number => readFileSync(join(group, file), 'utf8').split('\n').length - 1;
  const threads =
    'import threading, time; [threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(60)]';
  for (let round = 0; round < 10; round++) {
    mkdirSync(group);
    const ended = runAt({ cgroup: group }, ['/usr/bin/python3', '-IS', '-c', `held = b'x' * (60 << 20); ${threads}`]);
    await until('all threads run', () => listed('cgroup.threads') > 60);
    writeFileSync(join(group, 'cgroup.kill'), '1');
    // Every other time it lists nobody some instants before the last thread has left.
    while (listed('cgroup.procs') > 0);
    await killGroup(group);
    expect(() => rmdirSync(group), `round ${round}`).not.toThrow();
    await ended;
  }
});

test('a living owner`s lab is left alone by a sweep', async () => {
  const lab = await createLab({ name: 'alive', hosts: [] });
  expect(deadLabs()).not.toContain(lab.id);
  expect(await lab.close()).toEqual([]);
});

test('a lab that cannot be built leaves nothing', async () => {
  // Its owner's alone: other labs come and go meanwhile.
  const ours = (): string[] =>
    existsSync('/run/netns') ? readdirSync('/run/netns').filter((name) => name.includes(`-${process.pid}-`)) : [];
  const before = ours();
  await expect(createLab({ name: 'twice', hosts: ['same', 'same'] })).rejects.toThrow();
  expect(ours()).toEqual(before);
  await expect(createLab({ name: 'Bad Name', hosts: [] })).rejects.toMatchObject({ code: 'request.invalid' });
});

test('the daemon is not started without a compiled one, or its own words say why it ended', async () => {
  const lab = await createLab({ name: 'nodaemon', hosts: ['a'] });
  try {
    const host = lab.host('a');
    const start = startDaemon({ ...host, settings: { bpffs: host.bpffs, logLevel: 'no-such-level' } });
    await expect(start).rejects.toThrow(/no compiled daemon|logLevel/);
    expect(host.daemon.current).toBeNull();
  } finally {
    expect(await lab.close()).toEqual([]);
  }
});

test('mount points are found below a folder, spaces and all, and not beside it', () => {
  const line = (path: string) => `36 35 0:3 / ${path} rw,relatime shared:1 - tmpfs tmpfs rw`;
  const text = [line('/run/x'), line('/run/xy'), line('/run/x/a\\040b'), line('/run/x/a\\040b')].join('\n');
  expect(mountsBelow('/run/x', text)).toEqual(['/run/x', '/run/x/a b', '/run/x/a b']);
});

test('cgroup v2 is found on a hybrid host and alone; its absence is named', () => {
  const v1 = '30 29 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu';
  const v2 = (path: string) => `40 29 0:36 / ${path} rw,relatime - cgroup2 cgroup2 rw`;
  expect(cgroupMount([v1, v2('/sys/fs/cgroup/unified')].join('\n'))).toBe('/sys/fs/cgroup/unified');
  expect(cgroupMount(v2('/sys/fs/cgroup'))).toBe('/sys/fs/cgroup');
  expect(() => cgroupMount(v1)).toThrow('no cgroup v2');
});

test('a place enters the cgroup before the namespace, and both without a shell of the caller`s', async () => {
  const result = await runAt({}, ['printf', '%s', "it's $HOME"]);
  expect(result.stdout).toBe("it's $HOME");
  expect(execFileSync('true').toString()).toBe('');
});
