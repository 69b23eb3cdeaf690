/**
 * Time, timers and randomness by injection, so that a whole cluster can be simulated.
 * Nothing outside this file calls `Date.now`, `setTimeout`, `setInterval` or `Math.random` for decisions.
 */
import { setTimeout as sleep } from 'node:timers/promises';

export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Wall time in milliseconds since the epoch: for people and records, never for measuring. */
  now(): number;
  /** Monotonic milliseconds. */
  monotonic(): number;
  /** Runs `fn` once after `ms`; does not keep the process alive. */
  after(ms: number, fn: () => void): Timer;
  /** Resolves after `ms`, or rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Resolves in the next turn of the event loop: what is ready to be sent goes out first. */
  turn(): Promise<void>;
  /** `n` random bytes. */
  random(n: number): Uint8Array;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, fn) {
    const timer = setTimeout(fn, ms);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
  sleep: (ms, signal) => sleep(ms, undefined, { signal }),
  turn: () => new Promise((resolve) => setImmediate(resolve)),
  // Loaded when it is needed: node:crypto costs the CLI's start 8 ms.
  random: (n) => process.getBuiltinModule('node:crypto').randomBytes(n),
};

/** Rejects with `error()` when `work` has not settled after `ms`. The work itself is not cancelled. */
export function withTimeLimit<T>(clock: Clock, ms: number, work: Promise<T>, error: () => Error): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = clock.after(ms, () => reject(error()));
    work.then(
      (value) => {
        timer.cancel();
        resolve(value);
      },
      (reason) => {
        timer.cancel();
        reject(reason);
      },
    );
  });
}
