/** cgroup v2, also where v1 controllers stand beside it. By hand: `mkdir`, `rmdir`, `cat cgroup.procs`. */
import { mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import type { Cgroups } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { kernelError } from './libc.ts';

/** A killed process is gone after this long, or something holds it. */
const KILL_MS_MAX = 2_000;
const KILL_STEP_MS = 5;

/** Mount point of cgroup v2 in the text of /proc/self/mountinfo; null when there is none. Octal escapes are undone. */
export function findCgroup2(mountinfo: string): string | null {
  for (const line of mountinfo.split('\n')) {
    const [left, right] = line.split(' - ');
    if (!left || right?.split(' ')[0] !== 'cgroup2') continue;
    const [, , , root, point] = left.split(' ');
    // A bind mount of a part of it is not the root that programs attach to.
    if (root === '/' || root?.startsWith('/..'))
      return point!.replace(/\\(\d{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
  }
  return null;
}

export class KernelCgroups implements Cgroups {
  readonly #clock: Clock;
  #mount: string | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get mount(): string {
    this.#mount ??= findCgroup2(readFileSync('/proc/self/mountinfo', 'utf8')) ?? undefined;
    const found = this.#mount;
    if (!found)
      throw new SluiceError(
        'kernel.missing',
        'no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup (or /sys/fs/cgroup/unified beside v1)',
      );
    return found;
  }

  ensure(path: string): bigint {
    try {
      mkdirSync(path, { recursive: true });
    } catch (error) {
      throw kernelError(Math.abs((error as NodeJS.ErrnoException).errno ?? 0), `make cgroup ${path}`);
    }
    return this.id(path) ?? 0n;
  }

  id(path: string): bigint | null {
    return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? null;
  }

  processes(path: string): number[] {
    return [path, ...this.#below(path)].flatMap((dir) => {
      try {
        return readFileSync(join(dir, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
      } catch (error) {
        if (['ENOENT', 'ENODEV', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
        throw error;
      }
    });
  }

  async remove(path: string, options: { readonly kill?: boolean } = {}): Promise<void> {
    if (this.id(path) === null) return;
    if (options.kill) await this.#kill(path);
    else if (this.processes(path).length > 0)
      throw new SluiceError('object.inuse', `cgroup ${path} has processes: ${this.processes(path).join(', ')}`, {
        path,
      });
    const until = this.#clock.monotonic() + KILL_MS_MAX;
    for (const dir of [...this.#below(path), path]) {
      while (!tryRemove(dir)) {
        if (this.#clock.monotonic() > until)
          throw new SluiceError('kernel.failed', `cgroup ${dir} stays busy`, {
            path: dir,
            processes: this.processes(path),
          });
        await this.#clock.sleep(KILL_STEP_MS);
      }
    }
  }

  async #kill(path: string): Promise<void> {
    const until = this.#clock.monotonic() + KILL_MS_MAX;
    while (this.processes(path).length > 0) {
      if (this.#clock.monotonic() > until)
        throw new SluiceError(
          'kernel.failed',
          `processes of cgroup ${path} do not end: ${this.processes(path).join(', ')}`,
          { path },
        );
      // cgroup.kill takes forks of the moment with it (Linux 5.14).
      writeFileSync(join(path, 'cgroup.kill'), '1');
      await this.#clock.sleep(KILL_STEP_MS);
    }
  }

  /** Descendants, deepest first. */
  #below(path: string): string[] {
    let entries: string[];
    try {
      entries = readdirSync(path, { withFileTypes: true })
        .filter((entry) => entry.isDirectory())
        .map(({ name }) => join(path, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
      throw error;
    }
    return entries.flatMap((dir) => [...this.#below(dir), dir]);
  }
}

function tryRemove(dir: string): boolean {
  try {
    rmdirSync(dir);
    return true;
  } catch (error) {
    const { code, errno } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return true;
    if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
    throw kernelError(Math.abs(errno ?? 0), `remove cgroup ${dir}`);
  }
}
