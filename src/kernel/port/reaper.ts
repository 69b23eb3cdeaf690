/**
 * Deletes links in groups. One veth alone blocks the caller for 15 ms and more in the kernel; 32 in one request by group take 27. So
 * doomed links are moved to a group of their own and the group is deleted once no more come, or when the first has waited long.
 */
import type { Clock, Timer } from '../../clock.ts';
import type { Netlink } from '../../contracts/kernel.ts';

/** IFLA_GROUP of links about to be deleted; any number but 0 that nobody else uses. */
const DOOMED_GROUP = 0x5c1d;
/** How long a deletion waits for company after the last that came, and after the first, milliseconds. */
const GATHER_MS = 15;
const WAIT_MS_MAX = 400;
/** Links in one request: about 40 ms of blocked event loop. */
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
      const now = this.#clock.monotonic();
      if (this.#waiting.length === 0) this.#since = now;
      this.#waiting.push({ links, resolve, reject });
      this.#schedule(Math.min(GATHER_MS, this.#since + WAIT_MS_MAX - now));
    });
  }

  #schedule(ms: number): void {
    this.#timer?.cancel();
    this.#timer = this.#clock.after(Math.max(0, ms), () => this.#flush());
  }

  #flush(): void {
    this.#timer = undefined;
    const batch: Removal[] = [];
    let size = 0;
    while (this.#waiting[0] && (size === 0 || size + this.#waiting[0].links.length <= BATCH_MAX)) {
      const next = this.#waiting.shift()!;
      batch.push(next);
      size += next.links.length;
    }
    try {
      const links = batch.flatMap((entry) => entry.links);
      if (links.length === 1) {
        this.#netlink.removeLink(links[0]!);
      } else {
        for (const link of links) if (this.#netlink.link(link)) this.#netlink.setLink(link, { group: DOOMED_GROUP });
        this.#netlink.removeGroup(DOOMED_GROUP);
      }
      for (const { resolve } of batch) resolve();
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
    if (this.#waiting.length > 0) this.#schedule(0);
  }
}
