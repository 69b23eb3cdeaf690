/**
 * What is left where a monitor or an OCI runtime was killed in the middle of making a container: nobody wrote down its numbers, so it is found by
 * the container's id, in command lines, in the runtime's books and in the names of cgroups.
 */
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
import { readText } from './half.ts';
import { signalOf, signalProcess, startOf } from './process.ts';
import { foldersBelow, processesIn } from './usage.ts';

export interface StrayPlace {
  readonly id: string;
  /** Where the OCI runtime keeps a folder for each container. */
  readonly books: string;
  /** Folders of the container's own cgroups, one a hierarchy. */
  readonly cgroups: readonly string[];
}

const KILL = signalOf('KILL');
const KILL_MS_MAX = 10_000;
const STEP_MS = 10;

/** Whether the OCI runtime knows of it. */
export const isInBooks = ({ id, books }: Pick<StrayPlace, 'id' | 'books'>): boolean => existsSync(join(books, id));

/** Monitors and runtimes that still make it: of all processes those that were given our books and the id. */
function makersOf({ id, books }: StrayPlace): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      const words = readText(`/proc/${pid}/cmdline`).split('\0');
      return words.includes(id) && words.includes(books);
    });
}

/** Ends all of them, makers first, so that nothing new comes. `runtime.failed` when something does not die. */
export async function killStrays(clock: Clock, place: StrayPlace): Promise<void> {
  const until = clock.monotonic() + KILL_MS_MAX;
  for (;;) {
    const pids = [...makersOf(place), ...place.cgroups.flatMap(processesIn)].filter((pid) => startOf(pid) !== null);
    if (pids.length === 0) return;
    if (clock.monotonic() > until)
      throw new SluiceError('runtime.failed', `process ${pids[0]} of container ${place.id} cannot be killed`, {
        pid: pids[0],
      });
    for (const pid of pids) signalProcess(pid, startOf(pid) ?? '', KILL);
    await clock.sleep(STEP_MS);
  }
}

/** Takes it out of the books, and its cgroups, when nothing runs of it any more. */
export function clearStrays({ id, books, cgroups }: StrayPlace): void {
  rmSync(join(books, id), { recursive: true, force: true });
  for (const cgroup of cgroups) {
    if (!existsSync(cgroup)) continue;
    for (const folder of [...foldersBelow(cgroup).reverse(), cgroup]) removeCgroup(folder);
  }
}

function removeCgroup(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return;
    if (code !== 'EBUSY') throw error;
    throw new SluiceError('runtime.failed', `cgroup ${folder} is in use still`, { folder }, error);
  }
}
