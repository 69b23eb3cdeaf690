/**
 * Sessions of a store that lives in one process: whoever holds one dies with it, so that only epochs outlive it. Time is the monotonic
 * clock's: a wall clock that jumps ends nobody's session.
 */
import type { Clock } from '../clock.ts';
import type { Session } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';

interface Held {
  readonly epoch: number;
  /** Monotonic milliseconds. */
  until: number;
}

export class Sessions {
  readonly #clock: Clock;
  readonly #nextEpoch: (name: string) => number;
  readonly #held = new Map<string, Held>();

  /** `nextEpoch` gives a number greater than any it gave for the name before, and keeps it for later lives. */
  constructor(clock: Clock, nextEpoch: (name: string) => number) {
    this.#clock = clock;
    this.#nextEpoch = nextEpoch;
  }

  begin(name: string, ttlMs: number): Session {
    const holder = this.#held.get(name);
    if (holder && holder.until > this.#clock.monotonic())
      throw new SluiceError('store.conflict', `session ${name} is held by another (epoch ${holder.epoch})`, {
        key: name,
        epoch: holder.epoch,
      });
    const held: Held = { epoch: this.#nextEpoch(name), until: this.#clock.monotonic() + ttlMs };
    this.#held.set(name, held);
    const isAlive = (): boolean => this.#isAlive(name, held.epoch);
    return {
      name,
      epoch: held.epoch,
      get alive() {
        return isAlive();
      },
      renew: async () => {
        this.check({ name, epoch: held.epoch });
        held.until = this.#clock.monotonic() + ttlMs;
      },
      end: async () => {
        if (this.#held.get(name) === held) this.#held.delete(name);
      },
    };
  }

  /** Fails with `store.fenced` unless it is this session that holds the name now. */
  check({ name, epoch }: Pick<Session, 'name' | 'epoch'>): void {
    if (!this.#isAlive(name, epoch))
      throw new SluiceError('store.fenced', `session ${name} (epoch ${epoch}) has ended`, { session: name, epoch });
  }

  #isAlive(name: string, epoch: number): boolean {
    const held = this.#held.get(name);
    return held?.epoch === epoch && held.until > this.#clock.monotonic();
  }
}
