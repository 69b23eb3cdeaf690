import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ensureBpffs } from '../../src/kernel/mount.ts';
import { KernelBed, mountsBelow, script, until } from './kernel-bed.ts';

const bed = new KernelBed();
const { cgroups } = bed.kernel;
beforeAll(() => bed.open());
afterAll(() => bed.close());

let count = 0;
const fresh = (): string => join(bed.cgroup, String(count++));

/** A program started inside a cgroup; its children are there, too. */
function startIn(path: string, command: string) {
  const enter = `echo $$ >${join(path, 'cgroup.procs')} && exec sh -c '${command}'`;
  return spawn('sh', ['-c', enter], { stdio: 'ignore' });
}

describe('a cgroup', () => {
  test('has the number of its directory, below the v2 mount that mountinfo names', () => {
    const path = fresh();
    const id = cgroups.ensure(path);
    expect(id).toBe(statSync(path, { bigint: true }).ino);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).toContain(` ${cgroups.mount} `);
    expect(existsSync(join(path, 'cgroup.procs'))).toBe(true);
  });

  test('that is made again has another number', async () => {
    const path = fresh();
    const id = cgroups.ensure(path);
    await cgroups.remove(path);
    expect(cgroups.ensure(path)).not.toBe(id);
  });

  test('with processes is removed only when they may be killed, forks and all', async () => {
    const path = fresh();
    cgroups.ensure(join(path, 'inner'));
    startIn(join(path, 'inner'), 'while :; do sleep 60 & sleep 0.01; done');
    startIn(path, 'sleep 60');
    await until('they run', () => cgroups.processes(path).length >= 5);
    expect(cgroups.processes(join(path, 'inner')).length).toBeGreaterThanOrEqual(3);
    await expect(cgroups.remove(path)).rejects.toMatchObject({
      code: 'object.inuse',
      message: expect.stringContaining('has processes'),
    });
    expect(existsSync(path)).toBe(true);
    const pids = cgroups.processes(path);
    await cgroups.remove(path, { kill: true });
    expect(existsSync(path)).toBe(false);
    for (const pid of pids) expect(existsSync(`/proc/${pid}/root`), String(pid)).toBe(false);
  });

  test('that holds this process is not killed', async () => {
    const path = fresh();
    cgroups.ensure(path);
    const { stdout, stderr } = await script(`
      import { writeFileSync } from 'node:fs';
      const { createKernel } = await import('./src/kernel/kernel.ts');
      using kernel = createKernel();
      writeFileSync('${path}/cgroup.procs', String(process.pid));
      await kernel.cgroups.remove('${path}', { kill: true }).catch((error) => console.log(error.code));`);
    expect(stdout, stderr).toBe('object.inuse\n');
    await cgroups.remove(path, { kill: true });
  });

  test('is not made where no cgroup file system is, and a plain folder is left alone', async () => {
    const plain = join(bed.dir, 'plain');
    expect(() => cgroups.ensure(plain)).toThrow(/not below a cgroup v2 mount/);
    mkdirSync(plain, { recursive: true });
    writeFileSync(join(plain, 'file'), '');
    await expect(cgroups.remove(plain, { kill: true })).rejects.toMatchObject({ code: 'kernel.failed' });
    expect(existsSync(join(plain, 'file'))).toBe(true);
    rmSync(plain, { recursive: true });
  });
});

describe('a bpffs', () => {
  test('is mounted once, however many ask at the same time', async () => {
    const path = join(bed.dir, 'bpf');
    const askers = Array.from({ length: 3 }, () =>
      script(`
        const { createKernel } = await import('./src/kernel/kernel.ts');
        using kernel = createKernel();
        kernel.ensureBpffs('${path}');
        console.log('done');`),
    );
    for (const { stdout, stderr } of await Promise.all(askers)) expect(stdout, stderr).toBe('done\n');
    ensureBpffs(path);
    bed.kernel.ensureBpffs(path);
    expect(mountsBelow(path)).toEqual([path]);
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).toMatch(new RegExp(` ${path} .* - bpf `));
  });

  test('cannot be where a file is', () => {
    const file = join(bed.dir, 'file');
    writeFileSync(file, '');
    expect(() => bed.kernel.ensureBpffs(file)).toThrow(expect.objectContaining({ code: 'kernel.exists' }));
    rmSync(file);
  });
});
