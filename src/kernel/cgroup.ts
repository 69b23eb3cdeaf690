/** cgroup v2, also where v1 controllers stand beside it. By hand: `mkdir`, `rmdir`, `cat cgroup.procs`. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../clock.ts';
import type { Cgroups } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { timed } from '../metrics.ts';
import { fsError, kernelError } from './libc.ts';
import { CGROUP2_MAGIC, fileSystem } from './mount.ts';

/** A killed process is gone after this long, or something holds it. */
const KILL_MS_MAX = 2_000;
const KILL_STEP_MS = 5;
const ENOENT = 2;

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
    return timed('cgroup', 'ensure', () => {
      try {
        mkdirSync(path, { recursive: true });
      } catch (error) {
        throw fsError(error, `make cgroup ${path}`);
      }
      const id = this.id(path);
      if (id === null) throw kernelError(ENOENT, `make cgroup ${path}`, 'somebody removed it at once');
      return id;
    });
  }

  id(path: string): bigint | null {
    const found = statSync(path, { bigint: true, throwIfNoEntry: false });
    if (!found) return null;
    // Anywhere else it would be a plain folder, to which nothing can be attached and which limits nobody.
    if (fileSystem(path) !== CGROUP2_MAGIC)
      throw new SluiceError('kernel.failed', `${path} is not below a cgroup v2 mount`, { path });
    return found.ino;
  }

  processes(path: string): number[] {
    return [path, ...this.#below(path)].flatMap((dir) => {
      try {
        return readFileSync(join(dir, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
      } catch (error) {
        if (['ENOENT', 'ENODEV', 'EOPNOTSUPP'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
        throw fsError(error, `read the processes of cgroup ${dir}`);
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
    for (let left = this.processes(path); left.length > 0; left = this.processes(path)) {
      if (left.includes(process.pid))
        throw new SluiceError('object.inuse', `cgroup ${path} holds this process itself`, { path });
      if (this.#clock.monotonic() > until)
        throw new SluiceError('kernel.failed', `processes of cgroup ${path} do not end: ${left.join(', ')}`, { path });
      signal(path, left);
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
      throw fsError(error, `read cgroup ${path}`);
    }
    return entries.flatMap((dir) => [...this.#below(dir), dir]);
  }
}

/** cgroup.kill takes forks of the moment with it (Linux 5.14); without it those of the moment are killed one by one. */
function signal(path: string, pids: readonly number[]): void {
  const file = join(path, 'cgroup.kill');
  try {
    if (existsSync(file)) writeFileSync(file, '1');
    // A process of a foreign PID namespace shows as 0, which would mean our own group.
    else for (const pid of pids) if (pid > 0) process.kill(pid, 'SIGKILL');
  } catch (error) {
    // What ended meanwhile, a process or the whole cgroup, needs no signal.
    if (!['ESRCH', 'ENOENT', 'ENODEV'].includes((error as NodeJS.ErrnoException).code ?? ''))
      throw fsError(error, `kill the processes of cgroup ${path}`);
  }
}

/** False while something is in it. */
const tryRemove = (dir: string): boolean =>
  timed('cgroup', 'remove', () => {
    try {
      rmdirSync(dir);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT') return true;
      if (code === 'EBUSY' || code === 'ENOTEMPTY') return false;
      throw fsError(error, `remove cgroup ${dir}`);
    }
  });
