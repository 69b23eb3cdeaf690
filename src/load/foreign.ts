/** Load generators that others wrote: wrk, iperf3 and dnsperf, with their answers as numbers. */
import { SluiceError } from '../errors.ts';
import { type Background, type Place, runAt, startAt } from '../lab/place.ts';
import { type Pinned, pinned, untilSaid } from './load.ts';

/** Milliseconds that a program may take beyond what it was told to. */
const SLACK_MS = 15_000;

async function output(place: Place, pin: Pinned, argv: readonly string[], seconds: number): Promise<string> {
  const result = await runAt(place, pinned(pin, argv), { timeoutMs: seconds * 1_000 + SLACK_MS });
  if (result.code === 0) return result.stdout;
  throw new SluiceError(
    'internal',
    `${argv.join(' ')}: status ${result.code}: ${(result.stderr || result.stdout).slice(-2_000)}`,
  );
}

function number(text: string, pattern: RegExp, what: string): number {
  const found = pattern.exec(text)?.[1];
  if (found === undefined) throw new SluiceError('internal', `${what} is not in: ${text.slice(-2_000)}`);
  return Number(found);
}

// ---- wrk --------------------------------------------------------------------------------------------------------------------

export interface WrkOptions extends Pinned {
  readonly url: string;
  readonly seconds: number;
  /** Default 32. */
  readonly connections?: number;
  /** Default 1. */
  readonly threads?: number;
  /** `Connection: close` makes each request a connection of its own. */
  readonly headers?: readonly string[];
}
export interface WrkResult {
  readonly requests: number;
  /** Requests a second. */
  readonly rate: number;
  /** Microseconds. */
  readonly latencyUs: { readonly p50: number; readonly p90: number; readonly p99: number };
  /** Socket errors of all kinds, and answers that are no success. */
  readonly failed: number;
  readonly errors: Readonly<Record<string, number>>;
}

const MICROSECONDS: Readonly<Record<string, number>> = { us: 1, ms: 1e3, s: 1e6, m: 6e7 };

/** What `wrk --latency` printed. */
export function parseWrk(text: string): WrkResult {
  const latency = (share: number): number => {
    const match = new RegExp(`^\\s*${share}%\\s+([\\d.]+)(us|ms|s|m)$`, 'm').exec(text);
    if (!match) throw new SluiceError('internal', `no ${share} % latency in: ${text.slice(-2_000)}`);
    return Number(match[1]) * MICROSECONDS[match[2]!]!;
  };
  const errors: Record<string, number> = {};
  const socket = /Socket errors: (.*)$/m.exec(text)?.[1] ?? '';
  for (const [, kind, count] of socket.matchAll(/(\w+) (\d+)/g)) if (Number(count) > 0) errors[kind!] = Number(count);
  const status = /Non-2xx or 3xx responses: (\d+)/.exec(text)?.[1];
  if (status) errors.status = Number(status);
  return {
    requests: number(text, /^\s*(\d+) requests in /m, 'the count of requests'),
    rate: number(text, /^Requests\/sec:\s+([\d.]+)/m, 'the rate'),
    latencyUs: { p50: latency(50), p90: latency(90), p99: latency(99) },
    failed: Object.values(errors).reduce((sum, count) => sum + count, 0),
    errors,
  };
}

export async function wrk(place: Place, options: WrkOptions): Promise<WrkResult> {
  const { url, seconds, connections = 32, threads = 1, headers = [] } = options;
  const flags = [`-t${threads}`, `-c${connections}`, `-d${seconds}s`, '--latency', '--timeout', '3s'];
  const argv = ['wrk', ...flags, ...headers.flatMap((header) => ['-H', header]), url];
  return parseWrk(await output(place, options, argv, seconds));
}

// ---- iperf3 -----------------------------------------------------------------------------------------------------------------

export interface Iperf3Options extends Pinned {
  readonly address: string;
  /** Default 5201. */
  readonly port?: number;
  readonly seconds: number;
  /** Whole seconds at the beginning that do not count. Default 0. */
  readonly omit?: number;
  /** Streams side by side. Default 1. */
  readonly streams?: number;
  /** The server sends. */
  readonly reverse?: boolean;
}
export interface Iperf3Result {
  /** As the receiver counted them. */
  readonly bitsPerSecond: number;
  readonly retransmits: number;
}

/** What `iperf3 --json` printed. */
export function parseIperf3(text: string): Iperf3Result {
  const { error, end } = JSON.parse(text) as {
    error?: string;
    end?: { sum_received?: { bits_per_second: number }; sum_sent?: { retransmits?: number } };
  };
  if (error || !end?.sum_received) throw new SluiceError('internal', `iperf3: ${error ?? 'no result'}`);
  return { bitsPerSecond: end.sum_received.bits_per_second, retransmits: end.sum_sent?.retransmits ?? 0 };
}

export async function iperf3(place: Place, options: Iperf3Options): Promise<Iperf3Result> {
  const { address, port = 5201, seconds, omit = 0, streams = 1, reverse = false } = options;
  const argv = ['iperf3', '--json', '-c', address, '-p', port, '-t', seconds, '-O', omit, '-P', streams].map(String);
  return parseIperf3(await output(place, options, reverse ? [...argv, '-R'] : argv, seconds + omit));
}

/** A server that listens when this resolves; stop it. */
export async function startIperf3(place: Place, { port = 5201, ...pin }: Pinned & { port?: number } = {}) {
  const server: Background = startAt(place, pinned(pin, ['iperf3', '-s', '-p', String(port), '--forceflush']));
  await untilSaid(server, 'Server listening');
  return server;
}

// ---- dnsperf ----------------------------------------------------------------------------------------------------------------

export interface DnsperfOptions extends Pinned {
  readonly address: string;
  /** Default 53. */
  readonly port?: number;
  /** File of questions, `NAME TYPE` a line. */
  readonly file: string;
  readonly seconds: number;
  /** Sockets. Default 10. */
  readonly clients?: number;
  /** Questions a second at most. */
  readonly rate?: number;
}
export interface DnsperfResult {
  readonly sent: number;
  readonly completed: number;
  readonly lost: number;
  /** Answers a second. */
  readonly rate: number;
  /** Answers by code, `NOERROR`. */
  readonly codes: Readonly<Record<string, number>>;
  /** Microseconds. */
  readonly latencyUs: { readonly mean: number; readonly min: number; readonly max: number };
}

/** What dnsperf printed. */
export function parseDnsperf(text: string): DnsperfResult {
  const codes = Object.fromEntries(
    [...(/Response codes:(.*)$/m.exec(text)?.[1] ?? '').matchAll(/(\w+) (\d+)/g)].map(([, code, count]) => [
      code!,
      Number(count),
    ]),
  );
  const latency = /Average Latency \(s\):\s+([\d.]+) \(min ([\d.]+), max ([\d.]+)\)/.exec(text);
  if (!latency) throw new SluiceError('internal', `dnsperf measured no latency: ${text.slice(-2_000)}`);
  const [mean, min, max] = latency.slice(1).map((seconds) => Number(seconds) * 1e6) as [number, number, number];
  return {
    sent: number(text, /Queries sent:\s+(\d+)/, 'the count of questions'),
    completed: number(text, /Queries completed:\s+(\d+)/, 'the count of answers'),
    lost: number(text, /Queries lost:\s+(\d+)/, 'the count of losses'),
    rate: number(text, /Queries per second:\s+([\d.]+)/, 'the rate'),
    codes,
    latencyUs: { mean, min, max },
  };
}

export async function dnsperf(place: Place, options: DnsperfOptions): Promise<DnsperfResult> {
  const { address, port = 53, file, seconds, clients = 10, rate } = options;
  const argv = ['dnsperf', '-s', address, '-p', port, '-d', file, '-l', seconds, '-c', clients].map(String);
  return parseDnsperf(await output(place, options, rate ? [...argv, '-Q', String(rate)] : argv, seconds));
}
