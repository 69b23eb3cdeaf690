/**
 * The desired state's keeper. Implementations: an SQLite file (one host), Redis (many hosts), memory (simulation).
 * Values are JSON. One monotone revision an incarnation: an entry's revision is that of its last write, and is also the
 * id of that write in the change log. All calls fail with `store.unavailable` when the store cannot be reached.
 */
export interface Entry<T = unknown> {
  readonly key: string;
  readonly value: T;
  readonly revision: number;
}

export type Op =
  /** `expect`: absent = whatever is there, 0 = must not exist, n = must be at that revision. */
  | { readonly op: 'put'; readonly key: string; readonly value: unknown; readonly expect?: number }
  | { readonly op: 'delete'; readonly key: string; readonly expect?: number }
  | { readonly op: 'check'; readonly key: string; readonly expect: number };

export interface ListOptions {
  /** Fails with `store.unavailable` rather than leave out what this node has no copy of: for who decides upon what is not there. */
  readonly whole?: boolean;
  /** Only what was written last at that revision or before. */
  readonly upTo?: number;
  /** The caller needs what concerns that node: what other nodes have for themselves may be left out. */
  readonly concerning?: string;
}

export interface TransactOptions {
  /** Streams that the change is announced on: `cluster`, `network/ID`, `node/NAME`; none: nobody is told. Default: `cluster`. */
  readonly topics?: readonly string[];
  /** Fencing: the write fails with `store.fenced` unless this session is alive, whoever holds it. */
  readonly session?: Pick<Session, 'name' | 'epoch'>;
  /** The write fails with `store.conflict` (details: `key` `term`) unless the store is at this `term`. */
  readonly term?: string;
  /** Who asked, for the change log: `uid:0 pid:4242`. */
  readonly actor?: string;
}

export interface Change {
  readonly revision: number;
  /** One entry a touched key, in the order of the operations; a deleted key has `value: null`. */
  readonly entries: readonly { readonly key: string; readonly value: unknown | null; readonly revision: number }[];
  readonly actor?: string;
}

export type WatchEvent =
  | { readonly type: 'change'; readonly change: Change }
  | { readonly type: 'relist'; readonly revision: number };

export interface Session {
  readonly name: string;
  /** Greater than that of any earlier session of the same name. */
  readonly epoch: number;
  /** False once it has ended; a store that cannot be reached leaves it as it was. */
  readonly alive: boolean;
  /** Prolongs it by its ttl; rejects with `store.fenced` when it has ended or another took the name. */
  renew(): Promise<void>;
  end(): Promise<void>;
}

export interface Store {
  /** Changes when the store was emptied or replaced; qualifies revisions and epochs. */
  readonly incarnation: string;
  /**
   * Of a store whose servers take over from each other, as this one heard last: changes with the incarnation, and whenever a server took over that may
   * lack what the one before it had answered. Absent: the incarnation says it all.
   */
  readonly term?: string;
  get<T = unknown>(key: string): Promise<Entry<T> | null>;
  /** Entries whose key starts with `prefix`, by key, and the revision at which that is true. */
  list<T = unknown>(
    prefix: string,
    options?: ListOptions,
  ): Promise<{ readonly items: readonly Entry<T>[]; readonly revision: number }>;
  /**
   * All or nothing. Rejects with `store.conflict` (details: `key`, `expected`, `actual`) when an expectation fails; expectations look at what
   * was before. A key is written once at most. Resolves to the new revision; where nothing is written (no operations, checks alone, deletions
   * of what is absent) to the present one.
   */
  transact(ops: readonly Op[], options?: TransactOptions): Promise<number>;
  /**
   * Changes after `from` on the topic, in order, none lost, until the signal aborts (then it ends without an error).
   * When the log was trimmed past `from`, or does not reach it (another store's, a newer copy's), the first event is `relist`, and changes
   * follow from its revision; so also later, for a reader that fell behind. Nothing is queued for a slow one. Closing the store ends it with
   * `store.unavailable`.
   * Several topics are one stream in the order of revisions, a change that several of them announce told once: only so
   * can a reader that saw revision n resume from n.
   */
  watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncIterable<WatchEvent>;
  /** Begins a session that ends `ttlMs` after its last renewal. Rejects with `store.conflict` while another holds the name. */
  session(name: string, ttlMs: number): Promise<Session>;
  close(): Promise<void>;
}
