/** How the demo waits and measures. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConnectResult } from '../../src/load/load.ts';
import { BrokenPromise } from './stage.ts';

/** CLOCK_MONOTONIC in milliseconds, as the load generators tell it. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** How many failed, and of what. */
export function told({ failed, errors }: ConnectResult): string {
  const kinds = Object.entries(errors).map(([kind, count]) => `${kind} ×${count}`);
  return kinds.length > 0 ? `${failed} (${kinds.join(', ')})` : String(failed);
}

/** Looks again and again until `what` is so; breaks the demo when it is not within the limit. */
export async function until(what: string, look: () => Promise<boolean>, limitMs = 5_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!(await look())) {
    if (performance.now() > end) throw new BrokenPromise(`${what}: not within ${limitMs / 1_000} s`);
    await sleep(20);
  }
}
