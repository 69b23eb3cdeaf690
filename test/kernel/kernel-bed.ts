/** Namespaces and cgroups of one test process, with nothing left of them afterwards, nor of processes that died. */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kernel, Namespace } from '../../src/contracts/kernel.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { libc } from '../../src/kernel/libc.ts';

const RUN = '/run';
const OURS = /^sluice-kernel-test-(\d+)$/;
const MNT_DETACH = 2;

const alive = (pid: string): boolean => existsSync(`/proc/${pid}/stat`);

/** Emulated machines are that many times slower. */
export const SLOWNESS = Number(process.env.SLUICE_LAB_SLOWNESS ?? 1);

/** Fails when `fn` is not true within `ms`. */
export async function until(what: string, fn: () => boolean, ms = 3_000): Promise<void> {
  const end = performance.now() + ms * SLOWNESS;
  while (!fn()) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(5);
  }
}

/** Runs a program inside a namespace; its output. */
export const inside = (namespace: Namespace, ...command: string[]): string =>
  execFileSync('nsenter', [`--net=${namespace.path}`, '--', ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 10_000 * SLOWNESS,
  });

/** A TypeScript program of ours, by its text: what it printed, how it ended. */
export function script(
  text: string,
): Promise<{ stdout: string; stderr: string; status: number | null; signal: string | null }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', text], {
      cwd: join(import.meta.dirname, '../..'),
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 20_000 * SLOWNESS,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (status, signal) => resolve({ stdout, stderr, status, signal }));
  });
}

/** Mount points below a path, the deepest first. */
export const mountsBelow = (path: string): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((point) => point === path || point.startsWith(`${path}/`))
    .sort((a, b) => b.length - a.length);

export class KernelBed {
  readonly kernel: Kernel = createKernel();
  readonly dir = join(RUN, `sluice-kernel-test-${process.pid}`);
  readonly cgroup = join(this.kernel.cgroups.mount, `sluice-kernel-test-${process.pid}`);
  #count = 0;

  /** Takes away what dead test processes left, and makes the place. */
  async open(): Promise<void> {
    await this.#sweep((pid) => !alive(pid));
    mkdirSync(this.dir, { recursive: true });
  }

  /** A path for a namespace that nobody has. */
  path(name = 'ns'): string {
    return join(this.dir, `${this.#count++}-${name}`);
  }

  namespace(name?: string): Namespace {
    return this.kernel.namespaces.ensure(this.path(name));
  }

  async close(): Promise<void> {
    await this.#sweep((pid) => pid === String(process.pid));
    this.kernel[Symbol.dispose]();
  }

  async #sweep(doomed: (pid: string) => boolean): Promise<void> {
    const { cgroups } = this.kernel;
    for (const name of readdirSync(cgroups.mount)) {
      const pid = OURS.exec(name)?.[1];
      if (pid && doomed(pid)) await cgroups.remove(join(cgroups.mount, name), { kill: true });
    }
    for (const folder of readdirSync(RUN)) {
      const pid = OURS.exec(folder)?.[1];
      if (!pid || !doomed(pid)) continue;
      const dir = join(RUN, folder);
      for (const point of mountsBelow(dir)) libc.umount2(point, MNT_DETACH);
      if (mountsBelow(dir).length > 0) throw new Error(`mounts are left below ${dir}`);
      rmSync(dir, { recursive: true });
    }
  }
}
