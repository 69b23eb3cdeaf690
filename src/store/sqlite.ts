/**
 * The store of one host: an SQLite file (node:sqlite). WAL with synchronous NORMAL, forced to the disk a second after a change at the
 * latest: a crash of the daemon loses nothing, a power loss at most that second, and it takes the namespaces with it anyway. The change log is a table; watchers are told in process.
 * One process writes the file at a time: lock.ts sees to it. By hand, also while the daemon runs:
 *
 *     sqlite3 -readonly sluice.db 'SELECT key, revision FROM entries'
 */
import { open } from 'node:fs/promises';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import type { Clock, Timer } from '../clock.ts';
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
import type { Logger } from '../log.ts';
import { hexId } from '../model/id.ts';
import { clusterTopic } from '../model/keys.ts';
import { guard } from './failure.ts';
import { Followers, LOG_MAX, type Log, trimTo } from './follow.ts';
import { Sessions } from './session.ts';
import { entriesText, expectRevision, expectTerm, textOf, writesOf } from './write.ts';

/** Version of the tables; a file with a higher one is not touched. */
const SCHEMA = 1;
/** A WAL that a burst of writes made longer is cut to this. */
const WAL_BYTES_MAX = 16 * 1024 * 1024;
/** A change is forced to the disk so long after it was made, milliseconds: what a power loss may take, and the moment that the disk needs. */
const DURABLE_MS = 1_000;
/** Pages in the WAL at which they are written to where they belong: most are of the same few, so that seldom is cheaper. */
const CHECKPOINT_PAGES = 3_000;
/** Newest changes kept in memory: those who watch read them there. */
const TAIL_MAX = 64;
/** How long somebody who reads the file by hand may hold a write up. */
const BUSY_MS_MAX = 2_000;

const TABLES = `
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY, entries TEXT NOT NULL, actor TEXT);
  CREATE TABLE IF NOT EXISTS topics (topic TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (topic, revision)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS epochs (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`;

export interface SqliteStoreOptions {
  /** File; its folder exists. `:memory:` keeps nothing. */
  readonly path: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  /** Changes kept in the log. Default 10,000. */
  readonly logMax?: number;
}

interface Logged {
  readonly revision: number;
  readonly topics: readonly string[];
  /** JSON. */
  readonly entries: string;
  readonly actor: string | null;
}

interface Row {
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

const STATEMENTS = {
  begin: 'BEGIN IMMEDIATE',
  commit: 'COMMIT',
  get: 'SELECT key, value, revision FROM entries WHERE key = ?',
  revision: 'SELECT revision FROM entries WHERE key = ?',
  list: 'SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key',
  put: 'INSERT INTO entries (key, value, revision) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision',
  delete: 'DELETE FROM entries WHERE key = ?',
  log: 'INSERT INTO changes (revision, entries, actor) VALUES (?, ?, ?)',
  topic: 'INSERT INTO topics (topic, revision) VALUES (?, ?)',
  trim: 'DELETE FROM changes WHERE revision <= ?',
  trimTopics: 'DELETE FROM topics WHERE revision <= ?',
  epoch:
    'INSERT INTO epochs (name, epoch) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET epoch = epoch + 1 RETURNING epoch',
} as const;

/**
 * Opens the file, makes it when it is not there. Fails with `store.damaged`, `store.newer`, `store.full` or `store.unavailable`; a file
 * that it refuses is left as it is.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  return guard(options.path, () => new SqliteStore(options));
}

class SqliteStore implements Store, Log {
  readonly incarnation: string;
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #logMax: number;
  readonly #statements: Readonly<Record<keyof typeof STATEMENTS, StatementSync>>;
  /** The newest changes, the oldest of them first. */
  readonly #tail: Logged[] = [];
  /** Readers of the log by number of topics. */
  readonly #readers = new Map<number, StatementSync>();
  readonly #followers = new Followers(this);
  readonly #sessions: Sessions;
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  /** The WAL is about to be forced to the disk. */
  #flush: Timer | undefined;
  revision: number;
  trimmed: number;

  constructor({ path, clock, logger, logMax = LOG_MAX }: SqliteStoreOptions) {
    const startedAt = clock.monotonic();
    this.#path = path;
    this.#clock = clock;
    this.#logger = logger;
    this.#logMax = Math.max(1, logMax);
    const db = new DatabaseSync(path);
    this.#db = db;
    try {
      this.#prepareFile();
      this.#statements = Object.fromEntries(
        Object.entries(STATEMENTS).map(([name, sql]) => [name, db.prepare(sql)]),
      ) as Record<keyof typeof STATEMENTS, StatementSync>;
      this.incarnation = this.#incarnation(clock);
      // Revisions have no gaps, and the log keeps the last one always.
      const { oldest, newest } = db
        .prepare('SELECT min(revision) AS oldest, max(revision) AS newest FROM changes')
        .get() as {
        oldest: number | null;
        newest: number | null;
      };
      this.revision = newest ?? 0;
      this.trimmed = (oldest ?? 1) - 1;
    } catch (error) {
      db.close();
      throw error;
    }
    this.#sessions = new Sessions(clock, (name) => (this.#statements.epoch.get(name) as { epoch: number }).epoch);
    const ms = Math.round(clock.monotonic() - startedAt);
    logger?.info({ path, revision: this.revision, incarnation: this.incarnation, ms }, 'store open');
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    return guard(this.#path, () => {
      const row = this.#statements.get.get(key) as Row | undefined;
      return row ? entryOf<T>(row) : null;
    });
  }

  async list<T>(
    prefix: string,
    { upTo = Number.POSITIVE_INFINITY }: ListOptions = {},
  ): Promise<{ items: Entry<T>[]; revision: number }> {
    return guard(this.#path, () => {
      // Nothing that starts with the prefix sorts after it and the last of all characters.
      const rows = this.#statements.list.all(prefix, `${prefix}\u{10ffff}`) as unknown as Row[];
      const found = rows.filter(({ revision }) => revision <= upTo);
      return { items: found.map((row) => entryOf<T>(row)), revision: this.revision };
    });
  }

  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const topics = [...new Set(options.topics ?? [clusterTopic])];
    const before = this.revision;
    expectTerm(options.term, this.incarnation);
    guard(this.#path, () => this.#transact(ops, topics, options));
    if (this.revision !== before) {
      this.#flush ??= this.#clock.after(DURABLE_MS, () => this.#force());
      this.#followers.tell(this.revision, topics);
    }
    return this.revision;
  }

  watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    return this.#followers.follow(typeof topics === 'string' ? [topics] : topics, from, signal);
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    return guard(this.#path, () => this.#sessions.begin(name, ttlMs));
  }

  async close(): Promise<void> {
    this.#flush?.cancel();
    if (this.#db.isOpen) this.#db.close();
    this.#followers.end();
  }

  /** For the followers: see `Log`. */
  read(topics: readonly string[], after: number, max: number): Change[] {
    return guard(this.#path, () => {
      // What is still in memory would be answered although nothing more will come.
      if (!this.#db.isOpen)
        throw new SluiceError('store.unavailable', `${this.#path} was closed`, { path: this.#path });
      const oldest = this.#tail[0]?.revision ?? Number.POSITIVE_INFINITY;
      const rows: readonly Pick<Logged, 'revision' | 'entries' | 'actor'>[] =
        after + 1 >= oldest
          ? this.#tail
              .filter((logged) => logged.revision > after && logged.topics.some((topic) => topics.includes(topic)))
              .slice(0, max)
          : (this.#reader(topics.length).all(...topics, after, max) as unknown as Logged[]);
      return rows.map(({ revision, entries, actor }) => ({
        revision,
        entries: JSON.parse(entries) as Change['entries'],
        actor: actor ?? undefined,
      }));
    });
  }

  /**
   * Aside, in a thread: whoever writes does not wait for the disk. By a descriptor of its own, which SQLite's locks allow for the WAL, and for
   * the database itself not: closing it would end them.
   */
  async #force(): Promise<void> {
    this.#flush = undefined;
    if (this.#path === ':memory:') return;
    try {
      await using file = await open(`${this.#path}-wal`);
      await file.datasync();
    } catch (error) {
      // Closed meanwhile, which has taken the WAL into the file.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.#logger?.error(
          { path: this.#path, err: (error as Error).message },
          'changes could not be forced to the disk',
        );
    }
  }

  /** Preparing it takes longer than running it. */
  #reader(topics: number): StatementSync {
    const known = this.#readers.get(topics);
    if (known) return known;
    const marks = Array.from({ length: topics }, () => '?').join(', ');
    const made = this.#db.prepare(
      `SELECT DISTINCT c.revision, c.entries, c.actor FROM topics t JOIN changes c ON c.revision = t.revision
       WHERE t.topic IN (${marks}) AND t.revision > ? ORDER BY c.revision LIMIT ?`,
    );
    this.#readers.set(topics, made);
    return made;
  }

  #transact(ops: readonly Op[], topics: readonly string[], { session, actor }: TransactOptions): void {
    if (session) this.#sessions.check(session);
    if (ops.length === 0) return;
    const writes = writesOf(ops);
    const revision = this.revision + 1;
    this.#statements.begin.run();
    try {
      for (const op of ops) {
        if (op.expect === undefined) continue;
        expectRevision(op, (this.#statements.revision.get(op.key) as { revision: number } | undefined)?.revision ?? 0);
      }
      const entries: { key: string; text: string | null }[] = [];
      for (const op of writes) {
        if (op.op === 'put') {
          const text = textOf(op.key, op.value);
          this.#statements.put.run(op.key, text, revision);
          entries.push({ key: op.key, text });
        } else if (this.#statements.delete.run(op.key).changes > 0) entries.push({ key: op.key, text: null });
      }
      if (entries.length === 0) {
        this.#db.exec('ROLLBACK');
        return;
      }
      const text = entriesText(entries, revision);
      this.#statements.log.run(revision, text, actor ?? null);
      for (const topic of topics) this.#statements.topic.run(topic, revision);
      const trim = trimTo(revision, this.trimmed, this.#logMax);
      if (trim > this.trimmed) {
        this.#statements.trim.run(trim);
        this.#statements.trimTopics.run(trim);
      }
      this.#statements.commit.run();
      this.revision = revision;
      this.trimmed = trim;
      this.#tail.push({ revision, topics, entries: text, actor: actor ?? null });
      if (this.#tail.length > TAIL_MAX) this.#tail.shift();
    } catch (error) {
      // A full disk or a damaged page has SQLite roll back by itself.
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  /** Refuses what it should not touch before it writes a byte. */
  #prepareFile(): void {
    const db = this.#db;
    db.exec(`PRAGMA busy_timeout = ${BUSY_MS_MAX}`);
    const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
    if (version > SCHEMA)
      throw new SluiceError(
        'store.newer',
        `${this.#path} was written by a newer Sluice (layout ${version}, this one knows ${SCHEMA})`,
        { path: this.#path, version },
      );
    const { tables } = db.prepare('SELECT count(*) AS tables FROM sqlite_schema').get() as { tables: number };
    if (version === 0 && tables > 0)
      throw new SluiceError('store.damaged', `${this.#path} is an SQLite file, but not a store of Sluice`, {
        path: this.#path,
      });
    const { quick_check: check } = db.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
    if (check !== 'ok')
      throw new SluiceError('store.damaged', `${this.#path} is damaged: ${check}`, { path: this.#path });
    db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;');
    db.exec(`PRAGMA journal_size_limit = ${WAL_BYTES_MAX}; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
    db.exec(`BEGIN IMMEDIATE; ${TABLES} PRAGMA user_version = ${SCHEMA}; COMMIT;`);
  }

  #incarnation(clock: Clock): string {
    const made = hexId(clock.random(16));
    this.#db.prepare("INSERT OR IGNORE INTO meta (name, value) VALUES ('incarnation', ?)").run(made);
    return (this.#db.prepare("SELECT value FROM meta WHERE name = 'incarnation'").get() as { value: string }).value;
  }
}

const entryOf = <T>({ key, value, revision }: Row): Entry<T> => ({ key, value: JSON.parse(value) as T, revision });
