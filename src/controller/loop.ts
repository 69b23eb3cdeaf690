/**
 * The generic level-triggered loop: a set of keys to look at, each reconciled by one call at a time. A trigger while a key is
 * in work makes it run once more; a failure is retried with doubling delays; one bad key never blocks the others.
 */
import type { Clock, Timer } from '../clock.ts';
import type { SluiceError } from '../errors.ts';
import { toSluiceError } from '../errors.ts';
import { reconcileSeconds, reconciles } from '../metrics.ts';
import type { ComponentHealth } from '../model/answer.ts';

export interface LoopOptions {
  /** Kind of object, for metrics. */
  readonly name: string;
  readonly clock: Clock;
  /** Brings one key's actual state to the desired one. A rejection is retried. */
  readonly reconcile: (key: string) => Promise<void>;
  /** Told of each failure and when it is tried again (milliseconds from now). */
  readonly onError: (key: string, error: SluiceError, retryMs: number) => void;
  /** Keys in work at once. */
  readonly concurrency?: number;
}

/** First delay after a failure and its cap, in milliseconds. */
export const RETRY_MS_MIN = 200;
export const RETRY_MS_MAX = 30_000;

export const retryDelay = (failures: number): number => Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** (failures - 1));

export class Loop {
  readonly #options: LoopOptions;
  readonly #queue = new Set<string>();
  readonly #working = new Set<string>();
  readonly #again = new Set<string>();
  readonly #failures = new Map<string, { count: number; timer: Timer }>();
  readonly #waiting = new Map<string, (() => void)[]>();
  #idle: (() => void)[] = [];
  #stopped = false;
  #lastSuccessMs = 0;
  #lastError: SluiceError | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** Look at this key soon. A key that is waiting to be retried is looked at now. */
  trigger(key: string): void {
    if (this.#stopped) return;
    this.#failures.get(key)?.timer.cancel();
    if (this.#working.has(key)) this.#again.add(key);
    else this.#queue.add(key);
    this.#pump();
  }

  /** Like `trigger`, for a key that is wanted otherwise than before: earlier failures do not count against it. */
  renew(key: string): void {
    this.#failures.get(key)?.timer.cancel();
    this.#failures.delete(key);
    this.trigger(key);
  }

  /** Looks at the key now; resolves when that look has ended, well or not. */
  settle(key: string): Promise<void> {
    if (this.#stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(key);
      if (waiting) waiting.push(resolve);
      else this.#waiting.set(key, [resolve]);
      this.trigger(key);
    });
  }

  /** True while `key` waits after a failure. */
  failing(key: string): boolean {
    return this.#failures.has(key);
  }

  /** For `sluice status`: what waits, how many fail, when a look last ended well (wall milliseconds, 0 for never). */
  get health(): {
    readonly queued: number;
    readonly failing: number;
    readonly lastSuccessMs: number;
    readonly lastError: SluiceError | undefined;
  } {
    return {
      queued: this.#queue.size + this.#working.size,
      failing: this.#failures.size,
      lastSuccessMs: this.#lastSuccessMs,
      lastError: this.#lastError,
    };
  }

  /** Forgets failures of a key that no longer exists. */
  forget(key: string): void {
    this.#failures.get(key)?.timer.cancel();
    this.#failures.delete(key);
    this.#queue.delete(key);
    this.#again.delete(key);
    for (const resolve of this.#waiting.get(key) ?? []) resolve();
    this.#waiting.delete(key);
  }

  /** Resolves when nothing is queued or in work; keys that wait for a retry do not count. */
  idle(): Promise<void> {
    if (this.#queue.size + this.#working.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  /** No further key is begun; resolves when those in work have ended. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const resolve of [...this.#waiting.values()].flat()) resolve();
    this.#waiting.clear();
    this.#queue.clear();
    this.#again.clear();
    for (const { timer } of this.#failures.values()) timer.cancel();
    await this.idle();
  }

  #pump(): void {
    for (const key of this.#queue) {
      if (this.#working.size >= (this.#options.concurrency ?? 8)) return;
      this.#queue.delete(key);
      this.#working.add(key);
      void this.#run(key);
    }
  }

  async #run(key: string): Promise<void> {
    const { name, clock, reconcile, onError } = this.#options;
    const start = clock.monotonic();
    const waiting = this.#waiting.get(key) ?? [];
    this.#waiting.delete(key);
    try {
      // Off the caller's stack: a trigger never runs a reconciliation inside itself, and whoever asked for it has its answer first.
      await clock.turn();
      await reconcile(key);
      this.#failures.get(key)?.timer.cancel();
      this.#failures.delete(key);
      reconciles.inc({ kind: name, result: 'ok' });
      this.#lastSuccessMs = clock.now();
    } catch (error) {
      const count = (this.#failures.get(key)?.count ?? 0) + 1;
      const delay = retryDelay(count);
      reconciles.inc({ kind: name, result: 'error' });
      if (!this.#stopped) this.#failures.set(key, { count, timer: clock.after(delay, () => this.trigger(key)) });
      this.#lastError = toSluiceError(error);
      onError(key, this.#lastError, delay);
    } finally {
      reconcileSeconds.observe({ kind: name }, (clock.monotonic() - start) / 1000);
      this.#working.delete(key);
      for (const resolve of waiting) resolve();
      if (this.#again.delete(key)) this.#queue.add(key);
      this.#pump();
      if (this.#queue.size + this.#working.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    }
  }
}

/** One line a loop, for `sluice status`. */
export const healthOf = (loops: Readonly<Record<string, Loop>>, synced: boolean): ComponentHealth[] =>
  Object.entries(loops).map(([name, loop]) => {
    const { queued, failing, lastSuccessMs, lastError } = loop.health;
    return {
      name,
      state: failing > 0 ? 'failing' : synced ? 'ok' : 'starting',
      lastSuccess: lastSuccessMs ? new Date(lastSuccessMs).toISOString() : undefined,
      queued,
      error: failing > 0 && lastError ? { code: lastError.code, message: lastError.message } : undefined,
    };
  });
