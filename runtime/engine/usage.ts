/** What a container uses, from its cgroups: v2's files, or v1's where that has the controllers. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerStats } from '../../src/contracts/runtime.ts';

export interface CgroupMount {
  readonly path: string;
  /** Of v1; empty for v2. */
  readonly controllers: readonly string[];
}

/** The cgroup mounts in the text of /proc/self/mountinfo. */
export function cgroupMounts(mountinfo: string): CgroupMount[] {
  return mountinfo.split('\n').flatMap((line) => {
    const [left, right] = line.split(' - ');
    const [type, , options = ''] = right?.split(' ') ?? [];
    if (type !== 'cgroup' && type !== 'cgroup2') return [];
    return [{ path: left!.split(' ')[4]!, controllers: type === 'cgroup' ? options.split(',') : [] }];
  });
}

/** Directory of a process's cgroup for a controller: in v1 when that has it, else in v2. Null when the process is gone. */
export function cgroupOf(pid: number, controller: string, mounts: readonly CgroupMount[]): string | null {
  const text = read(`/proc/${pid}/cgroup`);
  if (text === null) return null;
  const lines = text.split('\n').map((line) => line.split(':'));
  const v1 = mounts.find(({ controllers }) => controllers.includes(controller));
  const line = lines.find(([id, names]) => (v1 ? names!.split(',').includes(controller) : id === '0'));
  const mount = v1 ?? mounts.find(({ controllers }) => controllers.length === 0);
  return line && mount ? join(mount.path, line.slice(2).join(':')) : null;
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'ENODEV', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

const number = (path: string): number => Number(read(path)?.trim() || 0);

/** Value of `key` in lines of `key value`. */
const field = (text: string | null, key: string): number =>
  Number(new RegExp(`^${key} (\\d+)$`, 'm').exec(text ?? '')?.[1] ?? 0);

/** Sum of `word=value` (v2) or `DEVICE Word value` (v1) over all devices. */
const sum = (text: string | null, pattern: RegExp): number =>
  [...(text ?? '').matchAll(pattern)].reduce((total, [, value]) => total + Number(value), 0);

/** Memory without what the kernel could drop at once, as Docker shows it. */
export function usageOf(pid: number, mounts: readonly CgroupMount[]): ContainerStats | null {
  const at = (controller: string): string | null => cgroupOf(pid, controller, mounts);
  const [cpu, memory, pids, io] = [at('cpuacct'), at('memory'), at('pids'), at('blkio')];
  if (cpu === null || memory === null || pids === null) return null;
  const v1 = (controller: string): boolean => mounts.some(({ controllers }) => controllers.includes(controller));
  const used = number(join(memory, v1('memory') ? 'memory.usage_in_bytes' : 'memory.current'));
  const inactive = field(read(join(memory, 'memory.stat')), v1('memory') ? 'total_inactive_file' : 'inactive_file');
  const limit = number(join(memory, v1('memory') ? 'memory.limit_in_bytes' : 'memory.max'));
  const blocks = io ? read(join(io, v1('blkio') ? 'blkio.throttle.io_service_bytes' : 'io.stat')) : null;
  return {
    cpuNs: v1('cpuacct')
      ? number(join(cpu, 'cpuacct.usage'))
      : field(read(join(cpu, 'cpu.stat')), 'usage_usec') * 1_000,
    memoryBytes: Math.max(0, used - inactive),
    // "max", and v1's nearly endless number.
    ...(limit > 0 && limit < 2 ** 60 && { memoryLimit: limit }),
    pids: number(join(pids, 'pids.current')),
    readBytes: sum(blocks, v1('blkio') ? / Read (\d+)/g : /rbytes=(\d+)/g),
    writeBytes: sum(blocks, v1('blkio') ? / Write (\d+)/g : /wbytes=(\d+)/g),
  };
}

/** The cgroups that the engine gives to containers: v1's have the container's id, v2's lie in the sandbox's. */
const OWN = /\/(sluice-[0-9a-f]{64}|container)$/;

/**
 * Numbers of all processes in the container's cgroup and below, as the host counts them. A process that is about to end is shown in the root of
 * the hierarchy already, where everything else of the machine is: none of that is ours.
 */
export function processesOf(pid: number, mounts: readonly CgroupMount[]): number[] {
  const root = cgroupOf(pid, 'pids', mounts);
  if (root === null || !OWN.test(root)) return [];
  return processesIn(root);
}

/** In the cgroup and below; none in one that is not there. */
export const processesIn = (root: string): number[] =>
  [root, ...foldersBelow(root)].flatMap((folder) =>
    (read(join(folder, 'cgroup.procs')) ?? '').split('\n').filter(Boolean).map(Number),
  );

/** Folders before those in them. */
export function foldersBelow(root: string): string[] {
  try {
    return readdirSync(root, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/**
 * Kills everything in the container's cgroup and below in one step, `echo 1 > cgroup.kill`. False where the kernel cannot: beside v1, whose
 * hierarchy holds the processes, and before 5.14.
 */
export function killCgroup(pid: number, mounts: readonly CgroupMount[]): boolean {
  if (mounts.some(({ controllers }) => controllers.includes('pids'))) return false;
  const root = cgroupOf(pid, 'pids', mounts);
  if (root === null || !OWN.test(root)) return false;
  try {
    // Never made anew: a kernel without the file has none.
    writeFileSync(join(root, 'cgroup.kill'), '1', { flag: 'r+' });
    return true;
  } catch (error) {
    if (['ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}
