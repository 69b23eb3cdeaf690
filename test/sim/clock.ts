/** Time of a simulated cluster: one queue of events, and for each life of a daemon a clock that runs as its host's does. */
import type { Clock, Timer } from '../../src/clock.ts';

interface Event {
  readonly at: number;
  readonly order: number;
  fn: (() => void) | undefined;
}

export class SimTime {
  #now = 0;
  #count = 0;
  #state: number;
  /** A binary heap by time, then by the order in which events were planned. */
  readonly #heap: Event[] = [];
  events = 0;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
    // Neighbouring seeds begin alike.
    for (let n = 0; n < 20; n++) this.chance();
  }

  get now(): number {
    return this.#now;
  }

  /** 0 ≤ x < 1, by xorshift32 (Marsaglia 2003). */
  chance(): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    this.#state >>>= 0;
    return this.#state / 2 ** 32;
  }

  between(low: number, high: number): number {
    return low + this.chance() * (high - low);
  }

  pick<T>(list: readonly T[]): T {
    return list[Math.floor(this.chance() * list.length)]!;
  }

  after(ms: number, fn: () => void): Timer {
    const event: Event = { at: this.#now + Math.max(0, ms), order: this.#count++, fn };
    this.#push(event);
    return {
      cancel: () => {
        event.fn = undefined;
      },
    };
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Lets time pass; after each event everything that it set going comes to rest. */
  async pass(ms: number): Promise<void> {
    const until = this.#now + ms;
    for (;;) {
      const next = this.#heap[0];
      if (!next || next.at > until) break;
      this.#pop();
      if (!next.fn) continue;
      this.#now = Math.max(this.#now, next.at);
      this.events++;
      next.fn();
      await new Promise(setImmediate);
    }
    this.#now = until;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(event, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** How a host's clocks go: their rate, and where the wall clock stands. */
export interface HostTime {
  readonly rate: number;
  readonly wallMs: number;
  /** The host does nothing until then. */
  pausedUntil: number;
}

/** The clock of one life of a daemon. With its end nothing that it had planned happens any more. */
export class LifeClock implements Clock {
  readonly #time: SimTime;
  readonly #host: HostTime;
  alive = true;

  constructor(time: SimTime, host: HostTime) {
    this.#time = time;
    this.#host = host;
  }

  now = (): number => Date.UTC(2026, 0, 1) + this.#host.wallMs + this.monotonic();
  monotonic = (): number => this.#time.now * this.#host.rate;

  after(ms: number, fn: () => void): Timer {
    return this.#time.after(ms / this.#host.rate, () => this.#run(fn));
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.after(ms, resolve);
      signal?.addEventListener('abort', () => {
        timer.cancel();
        reject(signal.reason);
      });
    });
  }

  turn = (): Promise<void> => Promise.resolve();

  /** How long the host goes on doing nothing. */
  get pausedMs(): number {
    return Math.max(0, this.#host.pausedUntil - this.#time.now);
  }

  random(n: number): Uint8Array {
    return Uint8Array.from({ length: n }, () => Math.floor(this.#time.chance() * 256));
  }

  /** Now, or when the host goes on. */
  #run(fn: () => void): void {
    if (!this.alive) return;
    const { pausedUntil } = this.#host;
    if (pausedUntil > this.#time.now) this.#time.after(pausedUntil - this.#time.now, () => this.#run(fn));
    else fn();
  }
}
