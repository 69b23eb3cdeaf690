/** Processes by /proc. */
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import type { Clock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
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

/** `TERM`, `SIGTERM`, `15`, `SIGRTMIN+3` as its number; `runtime.spec` for what is none. */
export function signalOf(name: string): number {
  const word = name.toUpperCase().replace(/^SIG/, '');
  const real = /^RTM(?:IN\+(\d+)|AX-(\d+)|IN|AX)$/.exec(word);
  const number = real
    ? word.startsWith('RTMIN')
      ? RTMIN + Number(real[1] ?? 0)
      : RTMAX - Number(real[2] ?? 0)
    : /^\d+$/.test(word)
      ? Number(word)
      : (constants.signals[`SIG${word}` as NodeJS.Signals] ?? 0);
  if (number >= 1 && number <= RTMAX) return number;
  throw new SluiceError('runtime.spec', `there is no signal ${name}`, { signal: name });
}

const RTMIN = 34;
const RTMAX = 64;

/** Sends a signal to the process that began then; false when it is gone. */
export function signalProcess(pid: number, start: string, signal: NodeJS.Signals | number): boolean {
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
