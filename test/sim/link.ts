/**
 * The way from one life of a daemon to the store. Messages take their time, some a long one; they are lost in a partition, and an answer may
 * be lost after its request was served. A request that is under way is served though whoever sent it has died.
 */
import type { Op, Session, Store, TransactOptions, WatchEvent } from '../../src/contracts/store.ts';
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

export class StoreLink implements Store {
  readonly #store: Store;
  readonly #time: SimTime;
  readonly #clock: LifeClock;
  readonly #weather: Weather;
  readonly #sessions = new WeakMap<Session, Session>();
  readonly #end = new AbortController();

  constructor(options: { store: Store; time: SimTime; clock: LifeClock; weather: Weather }) {
    this.#store = options.store;
    this.#time = options.time;
    this.#clock = options.clock;
    this.#weather = options.weather;
  }

  get incarnation(): string {
    return this.#store.incarnation;
  }

  get<T>(key: string) {
    return this.#ask(() => this.#store.get<T>(key));
  }
  list<T>(prefix: string) {
    return this.#ask(() => this.#store.list<T>(prefix));
  }
  transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const session = options.session && this.#sessions.get(options.session);
    return this.#ask(() => this.#store.transact(ops, { ...options, session }));
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    const real = await this.#ask(() => this.#store.session(name, ttlMs));
    const link: Session = {
      name,
      epoch: real.epoch,
      get alive() {
        return real.alive;
      },
      renew: () => this.#ask(() => real.renew()),
      end: () => this.#ask(() => real.end()),
    };
    this.#sessions.set(link, real);
    return link;
  }

  async *watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncIterable<WatchEvent> {
    const both = AbortSignal.any([signal, this.#end.signal]);
    if (this.#weather.cut) throw unavailable('the connection is refused');
    for await (const event of this.#store.watch(topics, from, both)) {
      await this.#clock.sleep(this.#delay());
      if (this.#weather.cut) throw unavailable('the connection broke');
      yield event;
    }
    // The dead do not even see the end.
    if (!this.#clock.alive) await NEVER;
  }

  /** Of this life alone: the store stays. */
  async close(): Promise<void> {
    this.#end.abort();
  }

  async #ask<T>(work: () => Promise<T>): Promise<T> {
    await this.#time.sleep(this.#delay());
    if (this.#weather.cut) {
      await this.#clock.sleep(TIMEOUT_MS);
      throw unavailable('no answer');
    }
    const outcome = await work().then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
    const { lossRate } = this.#weather;
    const lost = this.#weather.cut || (lossRate > 0 && this.#time.chance() < lossRate);
    // The dead hear nothing, and who sleeps hears it when he wakes.
    if (!this.#clock.alive) return NEVER;
    if (lost || this.#clock.pausedMs > 0) await this.#clock.sleep(lost ? TIMEOUT_MS : 0);
    if (lost) throw unavailable('the answer was lost');
    if ('error' in outcome) throw outcome.error;
    return outcome.value;
  }

  #delay(): number {
    const { lateRate, lateMs } = this.#weather;
    if (lateRate > 0 && this.#time.chance() < lateRate) return this.#time.between(0, lateMs);
    return this.#time.between(0, USUAL_MS);
  }
}

const unavailable = (why: string): SluiceError => new SluiceError('store.unavailable', `the store: ${why}`);
