/** Namespaces and cgroups of one test process, with nothing left of them afterwards, nor of processes that died. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Kernel, Namespace } from '../../src/contracts/kernel.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { libc } from '../../src/kernel/libc.ts';

const RUN = '/run';
const OURS = /^sluice-kernel-test-(\d+)$/;
const MNT_DETACH = 2;

const alive = (pid: string): boolean => existsSync(`/proc/${pid}/stat`);

/** Mount points below a path, the deepest first. */
const mountsBelow = (path: string): string[] =>
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
    const { cgroups, namespaces } = this.kernel;
    for (const name of readdirSync(cgroups.mount)) {
      const pid = OURS.exec(name)?.[1];
      if (pid && doomed(pid)) await cgroups.remove(join(cgroups.mount, name), { kill: true });
    }
    for (const folder of readdirSync(RUN)) {
      const pid = OURS.exec(folder)?.[1];
      if (!pid || !doomed(pid)) continue;
      const dir = join(RUN, folder);
      for (const name of readdirSync(dir)) namespaces.remove(join(dir, name));
      for (const point of mountsBelow(dir)) libc.umount2(point, MNT_DETACH);
      rmdirSync(dir);
    }
  }
}
