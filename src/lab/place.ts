/**
 * Where a lab's program runs: a network namespace and a cgroup. Both are entered by a shell before it executes the
 * program, so the process id stays the same and every socket of the program is born inside.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { SluiceError } from '../errors.ts';
import { slowness } from './slowness.ts';

export interface Place {
  /** Path of a namespace, `/run/netns/x`; absent: the caller's. */
  readonly netnsPath?: string;
  /** Directory of a cgroup v2 that exists; absent: the caller's. */
  readonly cgroup?: string;
}

/** A program with its arguments, or text for `sh -c`. */
export type Command = string | readonly string[];

export interface RunOptions {
  /** Milliseconds until the program and its children are killed. Default 20,000. */
  readonly timeoutMs?: number;
  /** Written to its standard input, which is then closed. */
  readonly input?: string;
  /** Added to the caller's environment; `undefined` takes one away. */
  readonly env?: NodeJS.ProcessEnv;
  readonly cwd?: string;
}

export interface RunResult {
  /** Exit status, 128 + the signal's number when one ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Background {
  readonly pid: number;
  /** Exit status as in {@link RunResult}. */
  readonly exited: Promise<number>;
  /** What it wrote to both streams so far, the last MiB of it. */
  output(): string;
  /** Ends it and its children, and resolves when it is gone. */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

/** Bytes kept of each stream of a program. */
const OUTPUT_BYTES_MAX = 1 << 20;

const SIGNAL_NUMBERS: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};

const exitStatus = (code: number | null, signal: NodeJS.Signals | null): number =>
  code ?? 128 + (SIGNAL_NUMBERS[signal ?? 'SIGKILL'] ?? 0);

/** Into the cgroup, or one in it where a container's lies in it with controllers, which lets nobody into the outer one (EBUSY). */
const JOIN = `join() { { echo $$ >"$1/cgroup.procs"; } 2>/dev/null; }
join "$0" || { mkdir "$0/exec" 2>/dev/null; join "$0/exec"; } || { echo "cannot join cgroup $0" >&2; exit 125; }
exec "$@"`;

/** The argument vector that runs `command` at `place`: `echo $$ > cgroup.procs; exec nsenter --net=… command`. */
export function argvAt(place: Place, command: Command): readonly [string, ...string[]] {
  const program = typeof command === 'string' ? ['sh', '-c', command] : command;
  // nsenter, not `ip netns exec`: that one mounts /sys anew and so hides the cgroups.
  const inside = place.netnsPath ? ['nsenter', `--net=${place.netnsPath}`, '--', ...program] : program;
  const [first, ...rest] = place.cgroup ? ['sh', '-c', JOIN, place.cgroup, ...inside] : inside;
  if (first === undefined) throw new SluiceError('request.invalid', 'a program to run has no name');
  return [first, ...rest];
}

/** The last `OUTPUT_BYTES_MAX` bytes of a stream. */
class Tail {
  #chunks: Buffer[] = [];
  #bytes = 0;

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    while (this.#bytes > OUTPUT_BYTES_MAX && this.#chunks.length > 1) this.#bytes -= this.#chunks.shift()!.length;
  }

  toString(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

/** Kills the process group that `child` leads; it may have ended by itself meanwhile. */
function killGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Runs a program to its end. A non-zero exit status is a result; a program that cannot start or runs out of time is an error. */
export function runAt(place: Place, command: Command, options: RunOptions = {}): Promise<RunResult> {
  const { input } = options;
  const timeoutMs = (options.timeoutMs ?? 20_000) * slowness();
  const [file, ...args] = argvAt(place, command);
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
    detached: true,
  });
  const out = new Tail();
  const err = new Tail();
  child.stdout?.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => err.push(chunk));
  if (input !== undefined) {
    // A program that ends before it has read everything is judged by its exit status.
    child.stdin?.on('error', () => child.stdin?.destroy());
    child.stdin?.end(input);
  }
  return new Promise((resolve, reject) => {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killGroup(child, 'SIGKILL');
    }, timeoutMs);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(new SluiceError('internal', `cannot run ${text(command)}: ${error.message}`, {}, error));
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (late) {
        const said = `${out}${err}`.slice(-2000);
        reject(new SluiceError('wait.timeout', `${text(command)} did not end within ${timeoutMs} ms: ${said}`));
      } else {
        resolve({ code: exitStatus(code, signal), stdout: out.toString(), stderr: err.toString() });
      }
    });
  });
}

/** How long an ended program's output is waited for, milliseconds: a child of its own may hold the pipes open for ever. */
const LAST_WORDS_MS = 1_000;

/** Starts a program that runs beside the caller; the caller stops it, or the lab when it closes. */
export function startAt(place: Place, command: Command, options: Omit<RunOptions, 'timeoutMs'> = {}): Background {
  const [file, ...args] = argvAt(place, command);
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  if (child.pid === undefined) throw new SluiceError('internal', `cannot run ${text(command)}`);
  const tail = new Tail();
  child.stdout.on('data', (chunk: Buffer) => tail.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => tail.push(chunk));
  const exited = new Promise<number>((resolve) => {
    child.on('exit', (code, signal) => {
      const ended = (): void => resolve(exitStatus(code, signal));
      // What it said last may still be on its way.
      const late = setTimeout(ended, LAST_WORDS_MS);
      child.once('close', () => {
        clearTimeout(late);
        ended();
      });
    });
  });
  return {
    pid: child.pid,
    exited,
    output: () => tail.toString(),
    stop(signal = 'SIGKILL') {
      killGroup(child, signal);
      return exited;
    },
  };
}

const text = (command: Command): string => (typeof command === 'string' ? command : command.join(' '));
