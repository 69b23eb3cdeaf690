/**
 * New HTTP connections to one address at a steady rate, without retries, from inside a sandbox; one line of JSON to a file for
 * each that ended. Stopped by SIGTERM, after what is in flight has ended.
 *
 *     node test/demo/load.ts ADDRESS PORT RATE FILE
 */
import { appendFileSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';

/** One connection. Times are CLOCK_MONOTONIC in milliseconds, so that another process can compare. */
export interface Shot {
  readonly start: number;
  readonly end: number;
  /** Who answered. */
  readonly by?: string;
  /** Why nobody did. */
  readonly error?: string;
}

/** Connections under way at most: a backend that hangs must not use up the client. */
const IN_FLIGHT_MAX = 400;
/** A connection that has not ended after so long has failed. */
const LIMIT_MS = 3_000;

/** CLOCK_MONOTONIC, milliseconds. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

export function readShots(file: string): Shot[] {
  const lines = readFileSync(file, 'utf8').split('\n');
  // The last element is what follows the last line break: nothing, or a line that is being written.
  return lines.slice(0, -1).map((line) => JSON.parse(line) as Shot);
}

function shoot(address: string, port: number, done: (shot: Shot) => void): void {
  const start = monotonicMs();
  const socket = connect({ host: address, port });
  let answer = '';
  let error: string | undefined;
  socket.setTimeout(LIMIT_MS, () => socket.destroy(new Error('ETIMEDOUT')));
  socket.on('connect', () => socket.write(`GET / HTTP/1.0\r\nHost: ${address}\r\n\r\n`));
  socket.on('data', (chunk) => {
    answer += chunk;
  });
  socket.on('error', (failure: NodeJS.ErrnoException) => {
    error = failure.code ?? failure.message;
  });
  socket.on('close', () => {
    const by = /\r\n\r\n(\S+)/.exec(answer)?.[1];
    done({ start, end: monotonicMs(), ...(by ? { by } : { error: error ?? 'EEMPTY' }) });
  });
}

function main([address, port, rate, file]: readonly string[]): void {
  if (!address || !port || !rate || !file) throw new Error('usage: load.ts ADDRESS PORT RATE FILE');
  const perMs = Number(rate) / 1_000;
  const from = monotonicMs();
  let [sent, inFlight] = [0, 0];
  let lines = '';
  const flush = (): void => {
    if (lines !== '') appendFileSync(file, lines);
    lines = '';
  };
  const tick = setInterval(() => {
    const due = Math.floor((monotonicMs() - from) * perMs);
    for (; sent < due; sent++) {
      if (inFlight >= IN_FLIGHT_MAX) continue;
      inFlight++;
      shoot(address, Number(port), (shot) => {
        inFlight--;
        lines += `${JSON.stringify(shot)}\n`;
      });
    }
  }, 2);
  const flushing = setInterval(flush, 20);
  process.on('SIGTERM', () => {
    clearInterval(tick);
    const waiting = setInterval(() => {
      if (inFlight > 0) return;
      clearInterval(waiting);
      clearInterval(flushing);
      flush();
    }, 5);
  });
}

if (import.meta.main) main(process.argv.slice(2));
