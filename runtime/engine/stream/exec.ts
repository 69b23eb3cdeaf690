/** A further process in a container: the OCI runtime's `exec`, as a child of the daemon. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ReadStream } from 'node:tty';
import type { Clock } from '../../../src/clock.ts';
import type { ExecProcess } from '../../../src/contracts/runtime.ts';
import { SluiceError } from '../../../src/errors.ts';
import { openPty, resizePty } from '../../../src/kernel/stream/pty.ts';
import { signalOf, signalProcess, startOf } from '../process.ts';
import type { Process } from '../spec/spec.ts';
import { ended, ociError, type Tools } from '../tool.ts';
import { Output } from './output.ts';

const BEGIN_MS_MAX = 10_000;
const STEP_MS = 5;

export interface ExecOptions {
  readonly clock: Clock;
  readonly tools: Tools;
  /** Arguments of the OCI runtime before its verb. */
  readonly runtime: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly id: string;
  readonly process: Process;
  readonly stdin: boolean;
  /** Folder and beginning of names for what lives as long as the call. */
  readonly scratch: string;
}

/** Rejects with `runtime.*` when it does not begin; its own exit status is the answer's otherwise. */
export function startExec(options: ExecOptions): ExecProcess {
  const { clock, tools, runtime, env, id, process: spec, stdin, scratch } = options;
  const files = { spec: `${scratch}.json`, pid: `${scratch}.pid`, log: `${scratch}.log` };
  writeFileSync(files.spec, JSON.stringify(spec), { mode: 0o600 });
  const pty = spec.terminal ? openPty() : null;
  const argv = [...runtime, '--log', files.log, 'exec', '--process', files.spec, '--pid-file', files.pid];
  let child: ChildProcess;
  try {
    child = spawn(tools.oci, [...argv, ...(spec.terminal ? ['--tty'] : []), id], {
      env,
      cwd: '/',
      stdio: pty ? [pty.slave, pty.slave, pty.slave] : [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    });
  } finally {
    if (pty) closeSync(pty.slave);
  }
  const terminal = pty ? new ReadStream(pty.master) : null;
  const output = new Output(() => undefined);
  const feed = (stream: 'stdout' | 'stderr', source: NodeJS.ReadableStream | null | undefined): Promise<void> =>
    new Promise((resolve) => {
      if (!source) return resolve();
      source.on('data', (data: Buffer) => {
        if (output.push({ stream, data })) return;
        source.pause();
        output.onRoom(() => source.resume());
      });
      // The terminal's other end is closed: EIO is how that reads.
      source.on('error', () => resolve());
      source.on('close', () => resolve());
    });
  const read = terminal ? [feed('stdout', terminal)] : [feed('stdout', child.stdout), feed('stderr', child.stderr)];
  // A process that ends before it has read everything is judged by its exit status.
  child.stdin?.on('error', () => child.stdin?.destroy());
  const finish = async (): Promise<number> => {
    try {
      const code = await ended(child);
      terminal?.destroy();
      await Promise.all(read);
      const words = textOf(files.log);
      if (code === 0 || words === '') return code;
      const error = ociError(words, `exec ${spec.args[0] ?? ''}`);
      output.push({ stream: 'stderr', data: Buffer.from(`${error.message}\n`) });
      return error.code === 'runtime.notfound' ? 127 : error.code === 'runtime.notexecutable' ? 126 : code;
    } finally {
      output.end();
      for (const file of Object.values(files)) rmSync(file, { force: true });
    }
  };
  /** The runtime drops what was typed before it took the terminal over; it writes the process's number after that. */
  const begun = async (): Promise<void> => {
    const until = clock.monotonic() + BEGIN_MS_MAX;
    while (
      textOf(files.pid) === '' &&
      child.exitCode === null &&
      child.signalCode === null &&
      clock.monotonic() < until
    )
      await clock.sleep(STEP_MS);
  };
  return {
    output,
    exit: finish(),
    async write(data) {
      if (terminal) await begun();
      await new Promise<void>((resolve, reject) => {
        const told = (error?: Error | null): void =>
          error ? reject(new SluiceError('runtime.failed', `its input is closed: ${error.message}`)) : resolve();
        if (terminal) terminal.write?.(data, told);
        else if (child.stdin) child.stdin.write(data, told);
        else reject(new SluiceError('runtime.failed', 'the process was started without an input'));
      });
    },
    closeInput: () => void child.stdin?.end(),
    resize(columns, rows) {
      if (!pty || child.exitCode !== null || child.signalCode !== null) return;
      resizePty(pty.master, columns, rows);
      child.kill('SIGWINCH');
    },
    kill(signal) {
      const number = signalOf(signal);
      void begun().then(() => {
        const pid = Number(textOf(files.pid));
        const start = pid > 0 ? startOf(pid) : null;
        if (start !== null) signalProcess(pid, start, number);
      });
    },
    detach: () => output.end(),
  };
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** Where an exec of a container keeps its files; `name` is used once. */
export const scratchOf = (folder: string, name: string): string => join(folder, `exec-${name}`);
