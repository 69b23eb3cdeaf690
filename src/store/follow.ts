/**
 * Watches over a log that lies in this process. A watcher holds its place in the log and one page of it, never a queue: one that is slow
 * costs nothing, and one that falls behind what the log keeps is told to list again.
 */
import type { Change, WatchEvent } from '../contracts/store.ts';

export interface Log {
  /** That of the last change. */
  readonly revision: number;
  /** Changes up to this one are no longer kept. */
  readonly trimmed: number;
  /** Changes after `after` that are announced on one of the topics, each once, the oldest first. */
  read(topics: readonly string[], after: number, max: number): readonly Change[];
}

/** Changes kept in a log: a watcher that is further behind lists again. */
export const LOG_MAX = 10_000;
/** Writes between two trimmings, so that a log is that much longer at most. */
const TRIM_EVERY = 1_000;

/** Up to which change a log that keeps `max` is trimmed once `revision` is written; `trimmed`: not now. */
export const trimTo = (revision: number, trimmed: number, max: number): number =>
  revision % TRIM_EVERY === 0 ? Math.max(trimmed, revision - max) : trimmed;

/** Changes that a watcher reads at once. */
const PAGE = 256;

interface Follower {
  readonly topics: ReadonlySet<string>;
  /** Everything up to here was told or does not concern it. */
  at: number;
  /** It has read all there is and waits. */
  idle: boolean;
  wake(): void;
}

export class Followers {
  readonly #log: Log;
  readonly #all = new Set<Follower>();

  constructor(log: Log) {
    this.#log = log;
  }

  get count(): number {
    return this.#all.size;
  }

  /** A change was written. */
  tell(revision: number, topics: readonly string[]): void {
    for (const follower of this.#all) {
      // One that has read everything and is not concerned moves on in the log without being woken.
      if (follower.idle && !topics.some((topic) => follower.topics.has(topic))) follower.at = revision;
      else follower.wake();
    }
  }

  /** The store was closed: reading the log says so to each. */
  end(): void {
    for (const follower of this.#all) follower.wake();
  }

  async *follow(topics: readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    let news = Promise.withResolvers<void>();
    const follower: Follower = {
      topics: new Set(topics),
      at: from,
      idle: false,
      wake: () => {
        // Now, not when it runs: else what is written in between, and is none of its concern, would carry it past what it was woken for.
        follower.idle = false;
        news.resolve();
      },
    };
    this.#all.add(follower);
    signal.addEventListener('abort', follower.wake, { once: true });
    try {
      while (!signal.aborted) {
        // Ahead of the log: the place is from another store, or from a newer copy of this one.
        if (follower.at < this.#log.trimmed || follower.at > this.#log.revision) {
          follower.at = this.#log.revision;
          yield { type: 'relist', revision: follower.at };
          continue;
        }
        const seen = this.#log.revision;
        const changes = this.#log.read(topics, follower.at, PAGE);
        for (const change of changes) {
          if (signal.aborted) return;
          follower.at = change.revision;
          yield { type: 'change', change };
        }
        if (changes.length === PAGE) continue;
        follower.at = Math.max(follower.at, seen);
        if (this.#log.revision !== seen || signal.aborted) continue;
        news = Promise.withResolvers<void>();
        follower.idle = true;
        await news.promise;
      }
    } finally {
      this.#all.delete(follower);
      signal.removeEventListener('abort', follower.wake);
    }
  }
}
