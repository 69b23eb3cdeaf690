/** One daemon of a lab host, of a test or of a bench: started with settings of its own, awaited, killed, looked at. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../errors.ts';
import { argvAt } from './place.ts';
import { slowness } from './slowness.ts';

export interface DaemonOptions {
  /** Mark of everything this daemon makes: `[a-z0-9]{1,8}`. */
  readonly instance: string;
  readonly stateDir: string;
  readonly runDir: string;
  /** Cgroup v2 directory that the daemon manages; made when absent. The daemon itself runs in its child `daemon`. */
  readonly cgroupRoot: string;
  /** Namespace that is the daemon's host; absent: the caller's. */
  readonly netnsPath?: string;
  /** Further settings by their names in src/config.ts. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** Added to the environment, `SLUICE_FAULT` for example; the caller's own SLUICE_* are not passed on. */
  readonly env?: NodeJS.ProcessEnv;
  /** Further command-line arguments of the daemon. */
  readonly flags?: readonly string[];
  /** It goes on when this process ends, and does not keep it from ending. */
  readonly outlives?: boolean;
  /** Time limit of the start, in milliseconds. Default 5,000, times SLUICE_LAB_SLOWNESS (an emulated machine sets it). */
  readonly readyTimeoutMs?: number;
}

export interface Daemon {
  readonly pid: number;
  /** Path of the API's socket. */
  readonly socket: string;
  /** Milliseconds from the start to the first answer. */
  readonly readyMs: number;
  /** Resolves when it has ended, with its exit status or signal. */
  readonly exited: Promise<number | NodeJS.Signals>;
  /** What this life wrote: pino's JSON lines, and what Node itself had to say. */
  log(): string;
  /** Default SIGKILL. Resolves when the process is gone. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** SIGTERM; fails with `wait.timeout` when it has not ended after 10 s, and kills it. */
  stop(): Promise<void>;
}

/** The repository's root: the folder of package.json above this file, compiled or not. */
export function projectRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new SluiceError('internal', `no package.json above ${import.meta.dirname}`);
    folder = parent;
  }
  return folder;
}

/** Node 24 as the npm package brings it; the running one where that is not installed. */
export function nodeBinary(): string {
  const installed = join(projectRoot(), 'node_modules/node/bin/node');
  return existsSync(installed) ? installed : process.execPath;
}

/** Status of `GET path` on the API's socket, or null when nobody answers there. */
export function probe(socket: string, path: string, timeoutMs = 1_000): Promise<number | null> {
  return new Promise((resolve) => {
    const call = request({ socketPath: socket, path, timeout: timeoutMs }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? null));
      response.on('error', () => resolve(null));
    });
    call.on('timeout', () => call.destroy());
    call.on('error', () => resolve(null));
    call.end();
  });
}

/** Those of bin/sluiced: with others V8 could not use what is kept of the compiled code. */
const NODE_FLAGS = ['--disable-warning=ExperimentalWarning', '--expose-gc'];

/** Starts the compiled daemon and waits until `/v1/version` answers. Fails with the end of its log when it does not. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const main = join(projectRoot(), 'dist/src/main.cjs');
  if (!existsSync(main)) {
    throw new SluiceError('internal', `there is no compiled daemon at ${main}; \`npm run setup\` makes it`);
  }
  const socket = String(options.settings?.socket ?? join(options.runDir, 'sluice.sock'));
  mkdirSync(options.stateDir, { recursive: true });
  mkdirSync(options.runDir, { recursive: true });
  const cgroup = join(options.cgroupRoot, 'daemon');
  mkdirSync(cgroup, { recursive: true });
  // A file of its own: the machine's /etc/sluice/sluiced.json must not reach into a lab.
  const settingsFile = join(options.runDir, 'sluiced.json');
  const { instance, stateDir, runDir, cgroupRoot, settings } = options;
  writeFileSync(settingsFile, JSON.stringify({ instance, stateDir, runDir, cgroupRoot, ...settings }));
  const own = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLUICE_')));

  const logFile = join(runDir, 'daemon.log');
  const log = openSync(logFile, 'a');
  const logStart = statSync(logFile).size;
  const argv = [nodeBinary(), ...NODE_FLAGS, main, ...(options.flags ?? [])];
  const [file, ...args] = argvAt({ netnsPath: options.netnsPath, cgroup }, argv);
  const startedAt = performance.now();
  const child = spawn(file, args, {
    cwd: '/',
    env: { ...own, SLUICE_CONFIG: settingsFile, ...options.env },
    stdio: ['ignore', log, log],
    detached: true,
  });
  closeSync(log);
  if (options.outlives) child.unref();
  const exited = new Promise<number | NodeJS.Signals>((resolve) => {
    child.on('error', () => resolve(127));
    child.on('exit', (code, signal) => resolve(code ?? signal ?? 'SIGKILL'));
  });
  let ended: number | NodeJS.Signals | null = null;
  exited.then((how) => {
    ended = how;
  });
  const readLog = (): string => readFrom(logFile, logStart);
  const kill = async (signal: NodeJS.Signals = 'SIGKILL'): Promise<void> => {
    if (ended === null) child.kill(signal);
    await exited;
  };

  const limitMs = options.readyTimeoutMs ?? 5_000 * slowness();
  while ((await probe(socket, '/v1/version')) !== 200) {
    if (ended !== null) {
      throw new SluiceError('internal', `the daemon ended at its start (${ended}): ${readLog().slice(-3000)}`);
    }
    if (performance.now() - startedAt > limitMs) {
      await kill();
      throw new SluiceError('wait.timeout', `the daemon was not ready after ${limitMs} ms: ${readLog().slice(-3000)}`);
    }
    await sleep(5);
  }
  return {
    pid: child.pid!,
    socket,
    readyMs: performance.now() - startedAt,
    exited,
    log: readLog,
    kill,
    async stop() {
      if (ended === null) child.kill('SIGTERM');
      const late = Symbol('late');
      const abort = new AbortController();
      const limit = sleep(10_000 * slowness(), late, { signal: abort.signal }).catch(() => late);
      const first = await Promise.race([exited, limit]);
      abort.abort();
      if (first !== late) return;
      await kill();
      throw new SluiceError('wait.timeout', `the daemon did not end on SIGTERM: ${readLog().slice(-3000)}`);
    },
  };
}

/** A log file from an offset on, at most the last 4 MiB. */
function readFrom(file: string, start: number): string {
  const { size } = statSync(file);
  const from = Math.max(start, size - (4 << 20));
  const bytes = Buffer.alloc(Math.max(0, size - from));
  const fd = openSync(file, 'r');
  try {
    return bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, from));
  } finally {
    closeSync(fd);
  }
}
