/**
 * The load generators of this folder, started where the traffic is to begin: in a namespace and a cgroup, pinned to
 * processors. They are C, so that a thousand connections a second leave the machine to what is measured.
 *
 *     const server = await startServer(backend, { ports: [80], tag: 'a' });
 *     const { rate, failed } = await connect(client, { address: '10.20.0.5', port: 80, rate: 500, seconds: 3 });
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../errors.ts';
import { projectRoot } from '../lab/daemon.ts';
import { type Background, type Place, startAt } from '../lab/place.ts';
import { slowness } from '../lab/slowness.ts';

/** A processor list for taskset: `0`, `0,2-3`. Absent: wherever the kernel likes. */
export interface Pinned {
  readonly cpus?: string;
}

export interface Target extends Pinned {
  /** IP address. */
  readonly address: string;
  readonly port: number;
  /** Addresses to come from, in turn; they must be the place's own. Default: the kernel's choice. */
  readonly sources?: readonly string[];
  /** Milliseconds after which an attempt that is not answered has failed. */
  readonly timeoutMs?: number;
}

export interface ConnectOptions extends Target {
  /** Attempts a second, evenly spaced. Absent: the next begins as soon as one of `concurrency` has ended. */
  readonly rate?: number;
  /** Under way at most. Default 16. */
  readonly concurrency?: number;
  /** Seconds; 0 runs until it is stopped. Default 3. */
  readonly seconds?: number;
  /** Seconds before those, in which only failures count. Default 0. */
  readonly warmup?: number;
  /** Who closes first. `server` (default) leaves no TIME_WAIT at the client, `reset` none at all. */
  readonly close?: 'server' | 'client' | 'reset';
}

export interface HoldOptions extends Target {
  /** Connections held open. Default 100. */
  readonly connections?: number;
  /** Each is asked something so often, in milliseconds. Default 100. */
  readonly intervalMs?: number;
  /** Seconds; 0 (default) runs until it is stopped. */
  readonly seconds?: number;
}

export interface UdpOptions extends Target {
  /** One connected socket instead of an unconnected one. */
  readonly connected?: boolean;
  /** Datagrams under way at most. Default 32. */
  readonly window?: number;
  /** Datagrams a second. Absent: as many as the window lets through. */
  readonly rate?: number;
  /** Bytes of a datagram, from 9. Default 64. */
  readonly size?: number;
  readonly seconds?: number;
  readonly warmup?: number;
}

/** Microseconds. */
export interface Latency {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** What came of the attempts. Times are CLOCK_MONOTONIC in milliseconds (`process.hrtime`), those at which attempts began. */
export interface Tally {
  readonly failed: number;
  /** By errno name; `closed` for a peer that closed instead of answering, `wrong` for what nobody asked for. */
  readonly errors: Readonly<Record<string, number>>;
  readonly failures: { readonly firstMs: number; readonly lastMs: number } | null;
  /** By the tag of the server that answered. */
  readonly answers: Readonly<
    Record<string, { readonly count: number; readonly firstMs: number; readonly lastMs: number }>
  >;
  readonly latencyUs: Latency | null;
}

export interface ConnectResult extends Tally {
  /** Length of the window that `rate` speaks of. */
  readonly seconds: number;
  readonly opened: number;
  readonly completed: number;
  /** Answered connections a second within the window. */
  readonly rate: number;
}

export interface HoldResult extends Tally {
  readonly seconds: number;
  readonly connections: number;
  readonly opened: number;
  /** Open at the end. */
  readonly open: number;
  /** Opened, and then lost: reset, closed, or no longer answering. */
  readonly broken: number;
  readonly pings: number;
  readonly answered: number;
}

export interface UdpResult extends Tally {
  readonly seconds: number;
  readonly sent: number;
  readonly received: number;
  /** Answered after their time limit; they count as failed. */
  readonly late: number;
  /** Answered datagrams a second within the window. */
  readonly rate: number;
}

export interface ServerOptions extends Pinned {
  /** Each serves TCP and UDP. */
  readonly ports: readonly number[];
  /** Default: all, of both families. */
  readonly address?: string;
  /** One printable character that names the server in its answers. Default `a`. */
  readonly tag?: string;
  readonly threads?: number;
  /** Bytes of an HTTP answer's body. Default 16. */
  readonly body?: number;
}

export interface ServerResult {
  readonly accepted: number;
  readonly pings: number;
  readonly requests: number;
  readonly datagrams: number;
  /** Connections that the client reset. */
  readonly aborted: number;
}

/** Runs and nanoseconds of one program at one cgroup hook. */
export interface HookCost {
  readonly id: number;
  /** `connect4`, `sendmsg6`, `sock_release` … */
  readonly hook: string;
  readonly name: string;
  readonly runs: number;
  readonly ns: number;
}

/** A generator that runs beside the caller. */
export interface Running<T> {
  readonly pid: number;
  /** Waits for its end; fails with `internal` and its words when that was no good one, with `wait.timeout` after `limitMs`. */
  done(limitMs?: number): Promise<T>;
  /** SIGTERM: it begins nothing new, ends what is under way and says its result. */
  stop(): Promise<T>;
}

const STOP_MS_MAX = 10_000;

/** `taskset -c CPUS PROGRAM …` */
export const pinned = ({ cpus }: Pinned, argv: readonly string[]): readonly string[] =>
  cpus === undefined ? argv : ['taskset', '-c', cpus, ...argv];

/** `--timeout-ms 200` of `{ timeoutMs: 200 }`; what is undefined is left out, a list is joined by commas. */
export function words(options: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(options).flatMap(([key, value]) => {
    if (value === undefined) return [];
    const text = Array.isArray(value) ? value.join(',') : String(typeof value === 'boolean' ? Number(value) : value);
    return [`--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, text];
  });
}

function binary(name: string): string {
  const path = join(projectRoot(), 'dist/load', name);
  if (existsSync(path)) return path;
  throw new SluiceError('internal', `there is no load generator at ${path}; \`npm run setup\` makes it`);
}

const said = (program: Background): string => program.output().slice(-2_000);

/** Waits until a started program has said `word`. Kills it, and fails with its words, when it ends before or takes too long. */
export async function untilSaid(program: Background, word: string, limitMs = 5_000): Promise<void> {
  let ended = false;
  program.exited.then(() => {
    ended = true;
  });
  const until = performance.now() + limitMs * slowness();
  while (!program.output().includes(word)) {
    if (ended) throw new SluiceError('internal', `a load generator ended at its start: ${said(program)}`);
    if (performance.now() > until) {
      await program.stop();
      throw new SluiceError(
        'wait.timeout',
        `a load generator did not say "${word}" in ${limitMs} ms: ${said(program)}`,
      );
    }
    await sleep(2);
  }
}

/** Resolves to the exit status; kills the program and fails with `wait.timeout` after the limit. */
export async function untilExit(program: Background, limitMs: number): Promise<number> {
  const limit = new AbortController();
  const late = sleep(limitMs * slowness(), null, { signal: limit.signal }).catch(() => null);
  const code = await Promise.race([program.exited, late]);
  limit.abort();
  if (code !== null) return code;
  await program.stop();
  throw new SluiceError('wait.timeout', `a load generator did not end in ${limitMs} ms: ${said(program)}`);
}

async function start<T>(
  place: Place,
  name: string,
  args: readonly string[],
  options: Pinned & { readonly readyMs?: number },
): Promise<Running<T>> {
  const program = startAt(place, pinned(options, [binary(name), ...args]));
  await untilSaid(program, 'ready', options.readyMs);
  const done = async (limitMs = 3_600_000): Promise<T> => {
    const code = await untilExit(program, limitMs);
    const line = /^\{.*\}$/m.exec(program.output());
    if (code === 0 && line) return JSON.parse(line[0]) as T;
    throw new SluiceError('internal', `${name} ${args.join(' ')}: status ${code}: ${said(program)}`);
  };
  return {
    pid: program.pid,
    done,
    stop() {
      program.stop('SIGTERM');
      return done(STOP_MS_MAX);
    },
  };
}

/** Milliseconds within which a run of so many seconds must have ended. */
const limitOf = ({ seconds = 3, warmup = 0, timeoutMs = 3_000 }: ConnectOptions | UdpOptions): number =>
  (seconds + warmup) * 1_000 + timeoutMs + STOP_MS_MAX;

/** New connections, each of which asks one thing, hears the answer and ends. */
export function startConnect(place: Place, { cpus, ...options }: ConnectOptions): Promise<Running<ConnectResult>> {
  return start(place, 'connector', ['new', ...words({ ...options })], { cpus });
}
export async function connect(place: Place, options: ConnectOptions): Promise<ConnectResult> {
  return (await startConnect(place, options)).done(limitOf(options));
}

/** Connections that stay open; resolves when each has answered once, or failed to. */
export function startHold(place: Place, { cpus, ...options }: HoldOptions): Promise<Running<HoldResult>> {
  const { intervalMs = 100, timeoutMs = 3_000 } = options;
  return start(place, 'connector', ['hold', ...words({ ...options })], {
    cpus,
    readyMs: 2 * intervalMs + 2 * timeoutMs + 5_000,
  });
}

/** Datagrams to an echo server through one socket. */
export function startUdp(place: Place, { cpus, ...options }: UdpOptions): Promise<Running<UdpResult>> {
  return start(place, 'connector', ['udp', ...words({ ...options })], { cpus });
}
export async function udp(place: Place, options: UdpOptions): Promise<UdpResult> {
  return (await startUdp(place, options)).done(limitOf(options));
}

/** The other side of all of these, and an HTTP server for wrk. */
export function startServer(place: Place, { cpus, ...options }: ServerOptions): Promise<Running<ServerResult>> {
  return start(place, 'server', words({ ...options }), { cpus });
}

/** Counts what the programs attached to a cgroup (not to its ancestors) cost until it is stopped. BPF statistics are on meanwhile, and cost a little themselves. */
export async function startHookCost(cgroup: string, place: Place = {}): Promise<Running<readonly HookCost[]>> {
  const running = await start<{ programs: HookCost[] }>(place, 'hooks', words({ cgroup }), {});
  const { pid } = running;
  return {
    pid,
    done: async (limitMs) => (await running.done(limitMs)).programs,
    stop: async () => (await running.stop()).programs,
  };
}
