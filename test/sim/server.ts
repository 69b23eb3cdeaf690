/**
 * The shared store of a simulated cluster: a server in memory that may lose what it had, and says so as the scripts in Redis do
 * (src/store/redis/script.ts) to clients that know the newest revision that they saw.
 */
import type { Clock } from '../../src/clock.ts';
import type { Change, Entry, Op, Session, TransactOptions } from '../../src/contracts/store.ts';
import { hexId } from '../../src/model/id.ts';
import { clusterTopic } from '../../src/model/keys.ts';
import { Sessions } from '../../src/store/session.ts';
import { entriesText, expectRevision, expectTerm, textOf, writesOf } from '../../src/store/write.ts';

/** As in Redis: revisions that a server may have written and taken with it. */
const HOLE = 2 ** 20;
/** As in Redis: the log is trimmed when it is this much too long. */
const TRIM_SLACK = 1_000;

interface Record {
  readonly text: string;
  readonly revision: number;
}
interface Logged {
  readonly revision: number;
  readonly entries: string;
  readonly topics: readonly string[];
  readonly actor?: string;
  /** What was there before. */
  readonly undo: readonly (readonly [key: string, record: Record | undefined])[];
}
interface Waiting {
  readonly topics: readonly string[];
  at: number;
  readonly wake: () => void;
}

export type Answer<T> =
  | { readonly status: 'ok'; readonly revision: number; readonly term: number; readonly value: T }
  | { readonly status: 'ok'; readonly revision: number; readonly term: number; readonly error: unknown }
  | { readonly status: 'other'; readonly incarnation: string };

export class SimServer {
  readonly clock: Clock;
  readonly #logMax: number;
  readonly #records = new Map<string, Record>();
  #log: Logged[] = [];
  #trimmed = 0;
  #holes: (readonly [number, number])[] = [];
  readonly #epochs = new Map<string, number>();
  readonly #waiting = new Set<Waiting>();
  sessions: Sessions;
  /** Empty: there is no store. */
  incarnation = '';
  revision = 0;
  /** Which server it is, in the order of taking over. */
  term = 1;
  /** Told of what it took. */
  onWrite: (ops: readonly Op[]) => void = () => undefined;

  constructor({ clock, logMax = 2_000 }: { readonly clock: Clock; readonly logMax?: number }) {
    this.clock = clock;
    this.#logMax = logMax;
    this.sessions = this.#noSessions();
  }

  /** Another server takes over, which lacks the newest `tail` writes; returns how many those are. */
  failOver(tail: number): number {
    const lost = this.#log.splice(Math.max(0, this.#log.length - tail)).reverse();
    for (const { undo } of lost)
      for (const [key, record] of undo) {
        if (record) this.#records.set(key, record);
        else this.#records.delete(key);
      }
    this.revision = lost.length > 0 ? lost.at(-1)!.revision - 1 : this.revision;
    // What it did not hear of takeovers it does not know, either.
    this.#holes = this.#holes.filter(([low]) => low < this.revision);
    this.#holes.push([this.revision, this.revision + HOLE]);
    this.revision += HOLE;
    this.#anew();
    return lost.length;
  }

  /** It forgets everything. */
  empty(): void {
    this.#records.clear();
    [this.#log, this.#holes, this.#trimmed, this.revision, this.incarnation] = [[], [], 0, 0, ''];
    this.sessions = this.#noSessions();
    this.#anew();
  }

  lacks(at: number): boolean {
    return at > this.revision || this.#holes.some(([low, high]) => low < at && at < high);
  }

  /** Runs `work` for a client that knows this incarnation and has seen nothing that is lost; else says which one it is by now. */
  serve<T>(client: { readonly incarnation: string; readonly seen: number }, work: () => T): Answer<T> {
    if (this.incarnation === '') {
      this.incarnation = hexId(this.clock.random(16));
      [this.revision, this.#trimmed, this.#holes] = [client.seen, client.seen, []];
    }
    if (client.incarnation === this.incarnation && this.lacks(client.seen)) {
      this.incarnation = hexId(this.clock.random(16));
      this.sessions = this.#noSessions();
    }
    if (client.incarnation !== this.incarnation) return { status: 'other', incarnation: this.incarnation };
    const place = (): { revision: number; term: number } => ({ revision: this.revision, term: this.term });
    try {
      const value = work();
      return { status: 'ok', ...place(), value };
    } catch (error) {
      return { status: 'ok', ...place(), error };
    }
  }

  /** Of a session of this server: one that was lost with another has ended. */
  renew(session: Session): void {
    this.sessions.check(session);
    // The object is its own keeper's: this is done before it is asked for again.
    void session.renew();
  }

  get<T>(key: string): Entry<T> | null {
    const record = this.#records.get(key);
    return record ? entryOf<T>(key, record) : null;
  }

  list<T>(prefix: string): Entry<T>[] {
    const keys = [...this.#records.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.map((key) => entryOf<T>(key, this.#records.get(key)!));
  }

  write(ops: readonly Op[], options: TransactOptions, incarnation = this.incarnation): number {
    const { topics = [clusterTopic], actor, session, term } = options;
    expectTerm(term, `${incarnation}:${this.term}`);
    if (session) this.sessions.check(session);
    const writes = writesOf(ops);
    for (const op of ops) expectRevision(op, this.#records.get(op.key)?.revision ?? 0);
    const entries = writes
      .map((op) => ({ key: op.key, text: op.op === 'put' ? textOf(op.key, op.value) : null }))
      .filter(({ key, text }) => text !== null || this.#records.has(key));
    if (entries.length === 0) return this.revision;
    const revision = ++this.revision;
    const undo = entries.map(({ key }) => [key, this.#records.get(key)] as const);
    for (const { key, text } of entries) {
      if (text === null) this.#records.delete(key);
      else this.#records.set(key, { text, revision });
    }
    this.onWrite(ops);
    this.#log.push({ revision, entries: entriesText(entries, revision), topics, actor, undo });
    if (this.#log.length > this.#logMax + TRIM_SLACK)
      this.#trimmed = this.#log.splice(0, this.#log.length - this.#logMax).at(-1)!.revision;
    for (const waiting of this.#waiting) {
      if (topics.some((topic) => waiting.topics.includes(topic))) waiting.wake();
      else waiting.at = revision;
    }
    return revision;
  }

  /** Changes after `at`; null: list again. */
  read(topics: readonly string[], at: number): Change[] | null {
    if (this.lacks(at) || at < this.#trimmed) return null;
    const changes: Change[] = [];
    for (let n = this.#log.length - 1; n >= 0 && this.#log[n]!.revision > at; n--) {
      const { revision, entries, topics: announced, actor } = this.#log[n]!;
      if (announced.some((topic) => topics.includes(topic)))
        changes.push({ revision, entries: JSON.parse(entries) as Change['entries'], actor });
    }
    return changes.reverse();
  }

  /** Until there is something on one of the topics, or `signal`; the place up to which there was nothing. */
  wait(topics: readonly string[], at: number, signal: AbortSignal): Promise<number> {
    return new Promise((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(waiting);
        signal.removeEventListener('abort', wake);
        resolve(waiting.at);
      };
      const waiting: Waiting = { topics, at, wake };
      this.#waiting.add(waiting);
      signal.addEventListener('abort', wake);
      // What was written while the last answer was on its way.
      if (signal.aborted || (this.revision !== at && this.read(topics, at)?.length !== 0)) wake();
    });
  }

  #anew(): void {
    this.term++;
    for (const { wake } of [...this.#waiting]) wake();
  }

  #noSessions(): Sessions {
    return new Sessions(this.clock, (name) => {
      const epoch = (this.#epochs.get(name) ?? 0) + 1;
      this.#epochs.set(name, epoch);
      return epoch;
    });
  }
}

const entryOf = <T>(key: string, { text, revision }: Record): Entry<T> => ({
  key,
  value: JSON.parse(text) as T,
  revision,
});
