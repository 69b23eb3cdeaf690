/** Processes by /proc. */
import { readFileSync } from 'node:fs';
import type { Clock } from '../../src/clock.ts';
import { runTool, type Tools } from './tool.ts';

/** Ticks after boot at which it began: with the number it names one process for ever. Null when it is gone or a zombie. */
export function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command, in brackets, may hold anything; field 22 is the 20th after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' || fields[0] === 'X' ? null : fields[19]!;
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** Names this life of the machine. */
export const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();

/** Sends a signal to the process that began then; false when it is gone. */
export function signalProcess(pid: number, start: string, signal: NodeJS.Signals): boolean {
  if (startOf(pid) !== start) return false;
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

const PS_MS_MAX = 10_000;

/** Owner and command line of each, as the host sees them; those that ended meanwhile are left out. */
export async function describeProcesses(clock: Clock, { env }: Tools, pids: readonly number[]) {
  const { stdout } = await runTool(clock, ['/bin/ps', '-o', 'pid=,user=,args=', '-p', pids.join(',')], {
    env: { PATH: env.PATH!, LC_ALL: 'C' },
    limitMs: PS_MS_MAX,
  });
  return [...stdout.matchAll(/^\s*(\d+)\s+(\S+)\s+(.*)$/gm)].map(([, pid, user, command]) => ({
    pid: Number(pid),
    user: user!,
    command: command!,
  }));
}
