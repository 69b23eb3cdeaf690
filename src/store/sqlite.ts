/**
 * The store of one host: an SQLite file (node:sqlite). WAL with synchronous NORMAL: a crash of the daemon loses nothing, a power loss at
 * most the last moments, and it takes the namespaces with it anyway. The change log is a table; watchers are told in process.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import type { Clock } from '../clock.ts';
import type { Change, Entry, Op, Session, Store, TransactOptions, WatchEvent } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';

/** Version of the tables; a file with a higher one is not touched. */
const SCHEMA = 1;
/** Changes kept in the log: a watcher that is further behind lists again. */
export const LOG_MAX = 10_000;
/** Writes between two trimmings of the log. */
const TRIM_EVERY = 1_000;
/** Changes that a watch reads at once. */
const READ_MAX = 256;

const TABLES = `
  CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY, entries TEXT NOT NULL, actor TEXT);
  CREATE TABLE IF NOT EXISTS topics (topic TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (topic, revision)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS sessions (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`;

export interface SqliteOptions {
  /** File, or `:memory:`. */
  readonly path: string;
  readonly clock: Clock;
  /** Changes kept in the log. */
  readonly logMax?: number;
}

interface Row {
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

type Statement =
  | 'get'
  | 'list'
  | 'put'
  | 'delete'
  | 'log'
  | 'topic'
  | 'trim'
  | 'trimTopics'
  | 'session'
  | 'setSession'
  | 'oldest';

const STATEMENTS: Readonly<Record<Statement, string>> = {
  get: 'SELECT key, value, revision FROM entries WHERE key = ?',
  list: 'SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key',
  put: 'INSERT INTO entries (key, value, revision) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision',
  delete: 'DELETE FROM entries WHERE key = ?',
  log: 'INSERT INTO changes (revision, entries, actor) VALUES (?, ?, ?)',
  topic: 'INSERT OR IGNORE INTO topics (topic, revision) VALUES (?, ?)',
  trim: 'DELETE FROM changes WHERE revision <= ?',
  trimTopics: 'DELETE FROM topics WHERE revision <= ?',
  session: 'SELECT epoch, until FROM sessions WHERE name = ?',
  setSession:
    'INSERT INTO sessions (name, epoch, until) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch, until = excluded.until',
  oldest: "SELECT value FROM meta WHERE name = 'trimmed'",
};

/** Fails with `store.damaged`, `store.newer`, `store.full` or `store.unavailable`. */
export async function openSqliteStore(options: SqliteOptions): Promise<Store> {
  return guard(options.path, () => new SqliteStore(options));
}

/** The same store in memory, for tests and the simulation. */
export const createMemoryStore = (options: { readonly clock: Clock; readonly logMax?: number }): Store =>
  new SqliteStore({ path: ':memory:', ...options });

class SqliteStore implements Store {
  readonly incarnation: string;
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #clock: Clock;
  readonly #logMax: number;
  readonly #statements: Readonly<Record<Statement, StatementSync>>;
  readonly #watchers = new Set<() => void>();
  #revision: number;
  #trimmed: number;

  constructor({ path, clock, logMax = LOG_MAX }: SqliteOptions) {
    this.#path = path;
    this.#clock = clock;
    this.#logMax = logMax;
    const db = new DatabaseSync(path);
    this.#db = db;
    try {
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 2000;');
      const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
      if (version > SCHEMA)
        throw new SluiceError(
          'store.newer',
          `${path} was written by a newer Sluice (layout ${version}, this one knows ${SCHEMA})`,
          { path, version },
        );
      const { quick_check: check } = db.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
      if (check !== 'ok') throw new SluiceError('store.damaged', `${path} is damaged: ${check}`, { path });
      db.exec(`${TABLES} PRAGMA user_version = ${SCHEMA};`);
      this.#statements = Object.fromEntries(
        Object.entries(STATEMENTS).map(([name, sql]) => [name, db.prepare(sql)]),
      ) as Record<Statement, StatementSync>;
      this.incarnation = this.#meta('incarnation', () => Buffer.from(clock.random(16)).toString('hex'));
      this.#trimmed = Number(this.#meta('trimmed', () => '0'));
      this.#revision = Number(
        (
          db
            .prepare(
              'SELECT max(revision) AS top FROM (SELECT max(revision) AS revision FROM changes UNION SELECT max(revision) FROM entries)',
            )
            .get() as { top: number | null }
        ).top ?? 0,
      );
      this.#revision = Math.max(this.#revision, this.#trimmed);
    } catch (error) {
      db.close();
      throw error;
    }
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    return this.#guard(() => {
      const row = this.#statements.get.get(key) as Row | undefined;
      return row ? entryOf<T>(row) : null;
    });
  }

  async list<T>(prefix: string): Promise<{ items: Entry<T>[]; revision: number }> {
    return this.#guard(() => {
      // The first key after all that start with the prefix: keys are ASCII, and U+FFFF sorts after it.
      const rows = this.#statements.list.all(prefix, `${prefix}\uffff`) as unknown as Row[];
      return { items: rows.map((row) => entryOf<T>(row)), revision: this.#revision };
    });
  }

  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const wrote = this.#guard(() => this.#transact(ops, options));
    if (wrote) for (const wake of this.#watchers) wake();
    return this.#revision;
  }

  async *watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const wanted = typeof topics === 'string' ? [topics] : [...topics];
    const marks = wanted.map(() => '?').join(', ');
    const read = this.#db.prepare(
      `SELECT DISTINCT c.revision, c.entries, c.actor FROM topics t JOIN changes c ON c.revision = t.revision WHERE t.topic IN (${marks}) AND t.revision > ? ORDER BY c.revision LIMIT ${READ_MAX}`,
    );
    let at = from;
    let news = Promise.withResolvers<void>();
    const wake = (): void => news.resolve();
    this.#watchers.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    try {
      while (!signal.aborted) {
        news = Promise.withResolvers<void>();
        const seen = this.#revision;
        if (at < this.#trimmed) {
          at = seen;
          yield { type: 'relist', revision: at };
          continue;
        }
        const rows = this.#guard(() => read.all(...wanted, at)) as unknown as {
          revision: number;
          entries: string;
          actor: string | null;
        }[];
        for (const row of rows) {
          if (signal.aborted) return;
          at = row.revision;
          yield {
            type: 'change',
            change: {
              revision: row.revision,
              entries: JSON.parse(row.entries) as Change['entries'],
              actor: row.actor ?? undefined,
            },
          };
        }
        if (rows.length === READ_MAX) continue;
        at = Math.max(at, seen);
        if (this.#revision === seen) await news.promise;
      }
    } finally {
      this.#watchers.delete(wake);
      signal.removeEventListener('abort', wake);
    }
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    return this.#guard(() => {
      const held = this.#statements.session.get(name) as { epoch: number; until: number } | undefined;
      if (held && held.until > this.#clock.now())
        throw new SluiceError('store.conflict', `session ${name} is held by another`, { key: name, epoch: held.epoch });
      const epoch = (held?.epoch ?? 0) + 1;
      this.#statements.setSession.run(name, epoch, this.#clock.now() + ttlMs);
      const alive = (): boolean => {
        const now = this.#statements.session.get(name) as { epoch: number; until: number } | undefined;
        return now?.epoch === epoch && now.until > this.#clock.now();
      };
      return {
        name,
        epoch,
        get alive() {
          return alive();
        },
        renew: async () => {
          this.#guard(() => {
            if (!alive())
              throw new SluiceError('store.fenced', `session ${name} (epoch ${epoch}) has ended`, {
                session: name,
                epoch,
              });
            this.#statements.setSession.run(name, epoch, this.#clock.now() + ttlMs);
          });
        },
        end: async () => {
          this.#guard(() => {
            if (alive()) this.#statements.setSession.run(name, epoch, 0);
          });
        },
      };
    });
  }

  async close(): Promise<void> {
    for (const wake of this.#watchers) wake();
    if (this.#db.isOpen) this.#db.close();
  }

  #transact(ops: readonly Op[], { topics = ['cluster'], session, actor }: TransactOptions): boolean {
    if (session && !session.alive)
      throw new SluiceError('store.fenced', `session ${session.name} (epoch ${session.epoch}) has ended`, {
        session: session.name,
        epoch: session.epoch,
      });
    for (const op of ops) this.#expect(op);
    const writes = ops.filter((op) => op.op !== 'check');
    if (writes.length === 0) return false;
    const revision = this.#revision + 1;
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      const entries: { key: string; value: unknown; revision: number }[] = [];
      for (const op of writes) {
        if (op.op === 'put') this.#statements.put.run(op.key, JSON.stringify(op.value), revision);
        else this.#statements.delete.run(op.key);
        entries.push({ key: op.key, value: op.op === 'put' ? op.value : null, revision });
      }
      this.#statements.log.run(revision, JSON.stringify(entries), actor ?? null);
      for (const topic of new Set(topics)) this.#statements.topic.run(topic, revision);
      const trim =
        revision % TRIM_EVERY === 0 || revision - this.#trimmed > this.#logMax + TRIM_EVERY
          ? revision - this.#logMax
          : 0;
      if (trim > this.#trimmed) this.#trim(trim);
      this.#db.exec('COMMIT');
      this.#revision = revision;
      if (trim > this.#trimmed) this.#trimmed = trim;
      return true;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  #expect(op: Op): void {
    if (op.expect === undefined) return;
    const actual = (this.#statements.get.get(op.key) as Row | undefined)?.revision ?? 0;
    if (actual === op.expect) return;
    throw new SluiceError('store.conflict', `${op.key} is at revision ${actual}, not ${op.expect}`, {
      key: op.key,
      expected: op.expect,
      actual,
    });
  }

  #trim(upTo: number): void {
    this.#statements.trim.run(upTo);
    this.#statements.trimTopics.run(upTo);
    this.#db.prepare("UPDATE meta SET value = ? WHERE name = 'trimmed'").run(String(upTo));
  }

  #meta(name: string, make: () => string): string {
    const row = this.#db.prepare('SELECT value FROM meta WHERE name = ?').get(name) as { value: string } | undefined;
    if (row) return row.value;
    const value = make();
    this.#db.prepare('INSERT INTO meta (name, value) VALUES (?, ?)').run(name, value);
    return value;
  }

  #guard<T>(fn: () => T): T {
    return guard(this.#path, fn);
  }
}

function entryOf<T>({ key, value, revision }: Row): Entry<T> {
  return { key, value: JSON.parse(value) as T, revision };
}

/** SQLite's result codes (primary): CORRUPT 11, FULL 13, CANTOPEN 14, NOTADB 26, IOERR 10. */
function guard<T>(path: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    const { errcode = 0, message } = error as Error & { errcode?: number };
    const primary = errcode & 0xff;
    if (primary === 11 || primary === 26)
      throw new SluiceError('store.damaged', `${path} is damaged: ${message}`, { path }, error);
    if (primary === 13)
      throw new SluiceError('store.full', `${path}: the disk is full; what runs goes on`, { path }, error);
    throw new SluiceError('store.unavailable', `${path}: ${message}`, { path, errcode }, error);
  }
}
