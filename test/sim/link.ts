/**
 * The way from one life of a daemon to the store. Messages take their time, some a long one; they are lost in a partition, and an answer may
 * be lost after its request was served. A request that is under way is served though whoever sent it has died.
 */
import { SluiceError } from '../../src/errors.ts';
import type { LifeClock, SimTime } from './clock.ts';

export interface Weather {
  /** Nothing gets through. */
  cut: boolean;
  /** Part of the messages that take long, and how long that is at most, milliseconds. */
  lateRate: number;
  lateMs: number;
  /** Part of the answers that are lost. */
  lossRate: number;
}

/** When a client gives up waiting for an answer. */
const TIMEOUT_MS = 2_000;
const USUAL_MS = 3;
const NEVER = new Promise<never>(() => undefined);

/** Serves `work` at the other end; what it answers. */
export type Ask = <T>(work: () => T) => Promise<T>;

export function linkOf({ time, clock, weather }: { time: SimTime; clock: LifeClock; weather: Weather }): Ask {
  const delay = (): number => {
    const { lateRate, lateMs } = weather;
    if (lateRate > 0 && time.chance() < lateRate) return time.between(0, lateMs);
    return time.between(0, USUAL_MS);
  };
  return async (work) => {
    if (!clock.alive) return NEVER;
    await time.sleep(delay());
    if (weather.cut) {
      await clock.sleep(TIMEOUT_MS);
      throw unavailable('no answer');
    }
    const answer = work();
    const lost = weather.cut || (weather.lossRate > 0 && time.chance() < weather.lossRate);
    // The dead hear nothing, and who sleeps hears it when he wakes.
    if (!clock.alive) return NEVER;
    if (lost || clock.pausedMs > 0) await clock.sleep(lost ? TIMEOUT_MS : 0);
    if (lost) throw unavailable('the answer was lost');
    return answer;
  };
}

const unavailable = (why: string): SluiceError => new SluiceError('store.unavailable', `the store: ${why}`);
