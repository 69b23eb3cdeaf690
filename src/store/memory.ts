/** The store in memory: for tests and the simulation of a cluster, whose nodes share one. It ends with the process. */
import type { Clock } from '../clock.ts';
import type {
  Change,
  Entry,
  ListOptions,
  Op,
  Session,
  Store,
  TransactOptions,
  WatchEvent,
} from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { hexId } from '../model/id.ts';
import { clusterTopic } from '../model/keys.ts';
import { Followers, LOG_MAX, type Log, trimTo } from './follow.ts';
import { Sessions } from './session.ts';
import { entriesText, expectRevision, expectTerm, textOf, writesOf } from './write.ts';

export interface MemoryStoreOptions {
  readonly clock: Clock;
  /** Default: a random one. */
  readonly incarnation?: string;
  /** Changes kept in the log. Default 10,000. */
  readonly logMax?: number;
}

export const createMemoryStore = (options: MemoryStoreOptions): Store => new MemoryStore(options);

/** Values are kept as text, so that nobody changes what is stored through a reference. */
interface Record {
  readonly text: string;
  readonly revision: number;
}

interface Logged {
  readonly revision: number;
  readonly entries: string;
  readonly topics: readonly string[];
  readonly actor?: string;
}

class MemoryStore implements Store, Log {
  readonly incarnation: string;
  readonly #logMax: number;
  readonly #records = new Map<string, Record>();
  /** The keys of `#records` in order. */
  readonly #keys: string[] = [];
  readonly #log: Logged[] = [];
  readonly #followers = new Followers(this);
  readonly #sessions: Sessions;
  #open = true;
  revision = 0;
  trimmed = 0;

  constructor({ clock, incarnation = hexId(clock.random(16)), logMax = LOG_MAX }: MemoryStoreOptions) {
    this.incarnation = incarnation;
    this.#logMax = logMax;
    const epochs = new Map<string, number>();
    this.#sessions = new Sessions(clock, (name) => {
      const epoch = (epochs.get(name) ?? 0) + 1;
      epochs.set(name, epoch);
      return epoch;
    });
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    this.#ensureOpen();
    const record = this.#records.get(key);
    return record ? entryOf<T>(key, record) : null;
  }

  async list<T>(
    prefix: string,
    { upTo = Number.POSITIVE_INFINITY }: ListOptions = {},
  ): Promise<{ items: Entry<T>[]; revision: number }> {
    this.#ensureOpen();
    const items: Entry<T>[] = [];
    for (let at = this.#place(prefix); this.#keys[at]?.startsWith(prefix); at++) {
      const key = this.#keys[at]!;
      const record = this.#records.get(key)!;
      if (record.revision <= upTo) items.push(entryOf<T>(key, record));
    }
    return { items, revision: this.revision };
  }

  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const { topics = [clusterTopic], session, actor, term } = options;
    this.#ensureOpen();
    expectTerm(term, this.incarnation);
    if (session) this.#sessions.check(session);
    const writes = writesOf(ops);
    for (const op of ops) expectRevision(op, this.#records.get(op.key)?.revision ?? 0);
    // All text is made before anything is changed: a value that is none leaves nothing half done.
    const entries = writes
      .map((op) => ({ key: op.key, text: op.op === 'put' ? textOf(op.key, op.value) : null }))
      .filter(({ key, text }) => text !== null || this.#records.has(key));
    if (entries.length === 0) return this.revision;
    const revision = ++this.revision;
    for (const { key, text } of entries) this.#set(key, text === null ? null : { text, revision });
    this.#log.push({ revision, entries: entriesText(entries, revision), topics, actor });
    const trim = trimTo(revision, this.trimmed, this.#logMax);
    this.#log.splice(0, trim - this.trimmed);
    this.trimmed = trim;
    this.#followers.tell(revision, topics);
    return revision;
  }

  watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    return this.#followers.follow(typeof topics === 'string' ? [topics] : topics, from, signal);
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    this.#ensureOpen();
    return this.#sessions.begin(name, ttlMs);
  }

  async close(): Promise<void> {
    this.#open = false;
    this.#followers.end();
  }

  /** For the followers: see `Log`. */
  read(topics: readonly string[], after: number, max: number): Change[] {
    this.#ensureOpen();
    const found: Change[] = [];
    for (let at = after - this.trimmed; at < this.#log.length && found.length < max; at++) {
      const { revision, entries, topics: announced, actor } = this.#log[at]!;
      if (announced.some((topic) => topics.includes(topic)))
        found.push({ revision, entries: JSON.parse(entries) as Change['entries'], actor });
    }
    return found;
  }

  #set(key: string, record: Record | null): void {
    const at = this.#place(key);
    const there = this.#keys[at] === key;
    if (!record) {
      this.#records.delete(key);
      if (there) this.#keys.splice(at, 1);
      return;
    }
    this.#records.set(key, record);
    if (!there) this.#keys.splice(at, 0, key);
  }

  /** Index of the first key that is not below the given one. */
  #place(key: string): number {
    let [low, high] = [0, this.#keys.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#keys[middle]! < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #ensureOpen(): void {
    if (!this.#open) throw new SluiceError('store.unavailable', 'the store in memory is closed');
  }
}

const entryOf = <T>(key: string, { text, revision }: Record): Entry<T> => ({
  key,
  value: JSON.parse(text) as T,
  revision,
});
