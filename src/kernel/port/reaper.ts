/**
 * Deletes links in groups: the kernel takes little longer for many than for one. A doomed link waits a moment for company; what comes
 * while a group is being deleted is the next one.
 */
import type { Clock, Timer } from '../../clock.ts';
import type { Netlink } from '../../contracts/kernel.ts';

/** How long a deletion waits for company after the last that came, and after the first, milliseconds. */
const GATHER_MS = 15;
const WAIT_MS_MAX = 400;
/** Links in one request: the lock on links is held for some 20 ms. */
const BATCH_MAX = 64;

interface Removal {
  readonly links: readonly number[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Reaper {
  readonly #netlink: Netlink;
  readonly #clock: Clock;
  readonly #waiting: Removal[] = [];
  #timer: Timer | undefined;
  #busy = false;
  /** Monotonic milliseconds at which the first of those that wait came. */
  #since = 0;

  constructor(netlink: Netlink, clock: Clock) {
    this.#netlink = netlink;
    this.#clock = clock;
  }

  /** Resolves when the links are gone. */
  remove(links: readonly number[]): Promise<void> {
    if (links.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      if (this.#waiting.length === 0) this.#since = this.#clock.monotonic();
      this.#waiting.push({ links, resolve, reject });
      this.#schedule(GATHER_MS);
    });
  }

  #schedule(ms: number): void {
    if (this.#busy) return;
    const rest = this.#since + WAIT_MS_MAX - this.#clock.monotonic();
    this.#timer?.cancel();
    this.#timer = this.#clock.after(Math.max(0, Math.min(ms, rest)), () => void this.#flush());
  }

  async #flush(): Promise<void> {
    const batch: Removal[] = [];
    let size = 0;
    while (this.#waiting[0] && (size === 0 || size + this.#waiting[0].links.length <= BATCH_MAX)) {
      const next = this.#waiting.shift()!;
      batch.push(next);
      size += next.links.length;
    }
    this.#busy = true;
    try {
      await this.#netlink.removeLinks(batch.flatMap(({ links }) => links));
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    } finally {
      this.#busy = false;
    }
    if (this.#waiting.length > 0) this.#schedule(GATHER_MS);
  }
}
