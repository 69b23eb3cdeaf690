/** A clock that stands still until it is told to go on, and whose chance is the same in every run. */
import type { Clock, Timer } from '../src/clock.ts';

export interface ManualClock extends Clock {
  /** Lets `ms` pass; what falls due on the way runs in order. */
  advance(ms: number): void;
}

export function createManualClock(seed = 1): ManualClock {
  let passed = 0;
  let state = seed >>> 0 || 1;
  const timers = new Set<{ readonly at: number; readonly fn: () => void }>();
  const after = (ms: number, fn: () => void): Timer => {
    const timer = { at: passed + ms, fn };
    timers.add(timer);
    return { cancel: () => timers.delete(timer) };
  };
  return {
    now: () => Date.UTC(2026, 0, 1) + passed,
    monotonic: () => passed,
    after,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const timer = after(ms, resolve);
        signal?.addEventListener('abort', () => {
          timer.cancel();
          reject(signal.reason);
        });
      }),
    turn: () => Promise.resolve(),
    // xorshift32 (Marsaglia 2003).
    random: (n) =>
      Uint8Array.from({ length: n }, () => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        state >>>= 0;
        return state & 0xff;
      }),
    advance(ms) {
      const until = passed + ms;
      for (;;) {
        const next = [...timers].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        timers.delete(next);
        passed = Math.max(passed, next.at);
        next.fn();
      }
      passed = until;
    },
  };
}
