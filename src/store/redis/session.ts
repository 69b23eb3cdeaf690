/** A session that Redis keeps. Its time is Redis's own; this side only reckons how long it surely lasts, from before it asked. */
import type { Clock } from '../../clock.ts';
import type { Session } from '../../contracts/store.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { RedisStore } from './redis.ts';
import { SCRIPTS } from './script.ts';

interface Begun {
  readonly name: string;
  readonly epoch: number;
  readonly ttlMs: number;
  /** Monotonic time before Redis was asked. */
  readonly askedAt: number;
}

export class RedisSession implements Session {
  readonly name: string;
  readonly epoch: number;
  readonly #store: RedisStore;
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #incarnation: string;
  #until: number;
  #ended = false;

  constructor(store: RedisStore, clock: Clock, { name, epoch, ttlMs, askedAt }: Begun) {
    this.name = name;
    this.epoch = epoch;
    this.#store = store;
    this.#clock = clock;
    this.#ttlMs = ttlMs;
    this.#incarnation = store.incarnation;
    this.#until = askedAt + ttlMs;
  }

  get alive(): boolean {
    if (this.#ended || this.#store.incarnation !== this.#incarnation) return false;
    // While Redis is away nobody can take the name either.
    return this.#clock.monotonic() < this.#until || !this.#store.isUp;
  }

  async renew(): Promise<void> {
    const askedAt = this.#clock.monotonic();
    const args = [this.name, String(this.epoch), String(Math.ceil(this.#ttlMs))];
    try {
      const [status] = await this.#store.call(SCRIPTS.renewSession, [], args, { bound: true });
      if (!this.#ended && status !== 'FENCED' && this.#store.incarnation === this.#incarnation) {
        this.#until = Math.max(this.#until, askedAt + this.#ttlMs);
        return;
      }
    } catch (error) {
      // Sessions end with their incarnation.
      if (!isSluiceError(error, 'store.conflict')) throw error;
    }
    this.#ended = true;
    throw new SluiceError('store.fenced', `session ${this.name} (epoch ${this.epoch}) has ended`, {
      session: this.name,
      epoch: this.epoch,
    });
  }

  async end(): Promise<void> {
    this.#ended = true;
    if (this.#store.incarnation !== this.#incarnation) return;
    await this.#store.call(SCRIPTS.endSession, [], [this.name, String(this.epoch)]);
  }
}
