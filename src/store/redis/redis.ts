/**
 * The store of many hosts: a Redis, alone, under Sentinels or in a Cluster. Data and the change log are written by one script; all keys lie
 * in one slot. Watchers read the streams of their topics. By hand:
 *
 *     redis-cli HGETALL '{sluice}meta'            # incarnation, cluster, revision
 *     redis-cli HGET '{sluice}data' network/ID    # REVISION:JSON
 *     redis-cli XREVRANGE '{sluice}log:cluster' + - COUNT 5
 */
import type { Clock } from '../../clock.ts';
import type { Entry, ListOptions, Op, Session, Store, TransactOptions, WatchEvent } from '../../contracts/store.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { hexId } from '../../model/id.ts';
import { clusterTopic, leasePrefix } from '../../model/keys.ts';
import { LOG_MAX } from '../follow.ts';
import { expectTerm, textOf, writesOf } from '../write.ts';
import { Connection, LIST_MS_MAX } from './connection.ts';
import { FIXED_KEYS, SCRIPTS, type Script } from './script.ts';
import { RedisSession } from './session.ts';
import { ensureGuarded, parseRedisUrl } from './url.ts';
import { follow } from './watch.ts';

/** Time that replicas have to acknowledge a lease, milliseconds. */
const ACKNOWLEDGE_MS_MAX = 700;
/** Whose Redis it is may change that often during one call: more is a fault of Redis. */
const ROUNDS_MAX = 5;

const TAG = '{sluice}';
const FIXED = FIXED_KEYS.map((name) => TAG + name);
export const streamKey = (topic: string): string => `${TAG}log:${topic}`;

export interface RedisStoreOptions {
  readonly url: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  /** A Redis that belongs to another cluster is refused. Default `sluice`. */
  readonly clusterId?: string;
  /** Without TLS and password also off this machine. */
  readonly insecure?: boolean;
  /** Changes kept in the log of a topic. Default 10,000. */
  readonly logMax?: number;
  /** What was seen of this store in an earlier life, so that a loss meanwhile is noticed. */
  readonly seen?: { readonly incarnation: string; readonly revision: number };
  /** Told when `term` has changed. */
  readonly onTerm?: () => void;
}

/** `OK`, the revision and the term, and more; or what stands in the way. */
type Answer = readonly [status: string, revision: string, ...rest: unknown[]];

/**
 * Connects; makes the store when Redis is empty. Fails with `config.invalid`, with `store.foreign` when Redis is another cluster's, or with
 * `store.unavailable`; that not where an earlier life has `seen` the store: it is there for whoever can wait.
 */
export async function openRedisStore(options: RedisStoreOptions): Promise<RedisStore> {
  const store = new RedisStore(options);
  try {
    await store.hello();
  } catch (error) {
    if (options.seen && isSluiceError(error, 'store.unavailable')) return store;
    await store.close();
    throw error;
  }
  return store;
}

export class RedisStore implements Store {
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  readonly #cluster: string;
  readonly #logMax: number;
  readonly #replicas: number;
  readonly #connection: Connection;
  /** Leases wait for replicas on one of their own, which holds nobody else up. */
  #leases: Connection | undefined;
  readonly #closing = new AbortController();
  #incarnation: string;
  /** The newest revision of this incarnation that was seen. */
  #seen: number;
  /** Of the server that answered last. */
  #term = '';
  readonly #onTerm: () => void;

  constructor({
    url,
    clock,
    logger,
    clusterId = 'sluice',
    insecure = false,
    logMax = LOG_MAX,
    seen,
    onTerm = () => undefined,
  }: RedisStoreOptions) {
    const place = parseRedisUrl(url);
    ensureGuarded(place, insecure);
    this.#clock = clock;
    this.#logger = logger;
    this.#cluster = clusterId;
    this.#logMax = Math.max(1, logMax);
    this.#replicas = place.replicas;
    this.#incarnation = seen?.incarnation ?? '';
    this.#seen = seen?.revision ?? 0;
    this.#onTerm = onTerm;
    this.#connection = new Connection(place, clock, logger);
  }

  get incarnation(): string {
    return this.#incarnation;
  }

  get term(): string {
    return `${this.#incarnation}:${this.#term}`;
  }

  /** Whether Redis answered when last heard of. */
  get isUp(): boolean {
    return this.#connection.isUp;
  }

  /** A watch has read up to there. */
  saw(incarnation: string, revision: number): void {
    if (incarnation === this.#incarnation) this.#seen = Math.max(this.#seen, revision);
  }

  /** Learns which incarnation it is. */
  async hello(): Promise<void> {
    const [, , incarnation] = await this.call(SCRIPTS.hello, []);
    if (this.#incarnation === incarnation) return;
    this.#incarnation = incarnation as string;
    this.#onTerm();
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    const [, , found] = await this.call(SCRIPTS.get, [], [key]);
    return found === null ? null : entryOf<T>(key, found as string);
  }

  async list<T>(
    prefix: string,
    { upTo, concerning = '' }: ListOptions = {},
  ): Promise<{ items: Entry<T>[]; revision: number }> {
    const [, revision, found] = await this.call(SCRIPTS.list, [], [prefix, String(upTo ?? ''), concerning], {
      ms: LIST_MS_MAX,
    });
    const flat = found as string[];
    const items: Entry<T>[] = [];
    for (let at = 0; at < flat.length; at += 2) items.push(entryOf<T>(flat[at]!, flat[at + 1]!));
    return { items, revision: Number(revision) };
  }

  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const { session, actor = '' } = options;
    const writes = writesOf(ops);
    const streams = [...new Set(options.topics ?? [clusterTopic])].map(streamKey);
    const flat = ops.flatMap((op) => [
      op.op,
      op.key,
      op.expect === undefined ? '' : String(op.expect),
      op.op === 'put' ? textOf(op.key, op.value) : '',
    ]);
    const fence = session ? [session.name, String(session.epoch)] : ['', ''];
    if (options.term !== undefined) expectTerm(options.term, this.term);
    const term = options.term === undefined ? '' : this.#term;
    const isLease = this.#replicas > 0 && writes.some(({ op, key }) => op === 'put' && key.startsWith(leasePrefix()));
    if (isLease) this.#leases ??= this.#connection.another();
    const connection = (isLease && this.#leases) || this.#connection;
    // Whoever writes decided upon what the incarnation was that it knows.
    const args = [...fence, actor, String(this.#logMax), term, ...flat];
    const [status, revision, ...rest] = await this.call(SCRIPTS.transact, streams, args, {
      connection,
      bound: ops.length > 0,
    });
    if (status === 'TERM') expectTerm(options.term, '');
    if (status === 'FENCED')
      throw new SluiceError('store.fenced', `session ${session!.name} (epoch ${session!.epoch}) has ended`, {
        session: session!.name,
        epoch: session!.epoch,
      });
    if (status === 'CONFLICT') {
      const [key, expected, actual] = rest as [string, string, string];
      throw new SluiceError('store.conflict', `${key} is at revision ${actual}, not ${expected}`, {
        key,
        expected: Number(expected),
        actual: Number(actual),
      });
    }
    if (isLease) await this.#acknowledged(connection, Number(revision));
    return Number(revision);
  }

  watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const list = typeof topics === 'string' ? [topics] : topics;
    return follow(this, list, from, signal, this.#closing.signal, { clock: this.#clock, connection: this.#connection });
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    const askedAt = this.#clock.monotonic();
    const [status, , epoch] = await this.call(SCRIPTS.beginSession, [], [name, String(Math.ceil(ttlMs))]);
    if (status === 'HELD')
      throw new SluiceError('store.conflict', `session ${name} is held by another (epoch ${epoch})`, {
        key: name,
        epoch: Number(epoch),
      });
    return new RedisSession(this, this.#clock, { name, epoch: Number(epoch), ttlMs, askedAt });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#leases?.close();
    this.#connection.close();
  }

  /**
   * Runs a script on the store that is there. Where Redis was emptied, makes a store; where it lacks what was seen of it, begins a new incarnation.
   * `ms`: until when its answer is to be here. `bound`: fails with `store.conflict` rather than run in another incarnation than it was asked in.
   */
  async call(
    script: Script,
    streams: readonly string[],
    args: readonly string[] = [],
    how: { readonly connection?: Connection; readonly bound?: boolean; readonly ms?: number } = {},
  ): Promise<Answer> {
    const asked = this.#incarnation;
    const connection = how.connection ?? this.#connection;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const incarnation = this.#incarnation;
      const head = [incarnation, String(this.#seen), this.#cluster];
      const answer = (await connection.run(script, [...FIXED, ...streams], [...head, ...args], how.ms)) as Answer;
      switch (answer[0]) {
        case 'EMPTY':
          await this.#become(await this.#begin(SCRIPTS.init, []), incarnation, 'it was empty');
          break;
        case 'BEHIND':
          await this.#become(
            await this.#begin(SCRIPTS.renewIncarnation, [incarnation]),
            incarnation,
            'it lacks what it had',
          );
          break;
        case 'OTHER':
          await this.#become(answer[1], incarnation, 'another node found it so');
          break;
        case 'FOREIGN':
          throw foreign(answer[1], this.#cluster);
        default:
          return this.#heard(answer, incarnation);
      }
      if (how.bound && asked !== '' && this.#incarnation !== asked)
        throw new SluiceError('store.conflict', 'the store was emptied or replaced since this was read', {
          key: 'incarnation',
        });
    }
    throw new SluiceError('store.unavailable', 'Redis is emptied or replaced again and again');
  }

  /** Takes note of revision and term; the answer with the revision alone. */
  #heard([status, place, ...rest]: Answer, incarnation: string): Answer {
    const [revision, term] = place.split(':') as [string, string];
    // An answer that comes late speaks of an incarnation that is gone.
    if (incarnation === this.#incarnation) {
      this.#seen = Math.max(this.#seen, Number(revision));
      if (term !== this.#term) {
        this.#term = term;
        this.#onTerm();
      }
    }
    return [status, revision, ...rest];
  }

  /** Makes an incarnation, or takes the one that another node made first. */
  async #begin(script: Script, args: readonly string[]): Promise<string> {
    const made = hexId(this.#clock.random(16));
    const answer = (await this.#connection.run(script, FIXED, [
      '',
      String(this.#seen),
      this.#cluster,
      ...args,
      made,
    ])) as Answer;
    if (answer[0] === 'FOREIGN') throw foreign(answer[1], this.#cluster);
    return answer[0] === 'OK' ? (answer[2] as string) : '';
  }

  async #become(incarnation: string, before: string, why: string): Promise<void> {
    // Several calls find out at once: the first one counts.
    if (this.#incarnation !== before || incarnation === before) return;
    this.#logger?.[before === '' ? 'info' : 'warn']({ incarnation, before, why }, 'store incarnation');
    this.#incarnation = incarnation;
    this.#seen = 0;
    this.#term = '';
    this.#onTerm();
  }

  /** The lease is written but may be lost with the primary: it does not count, and is collected as one that nobody uses. */
  async #acknowledged(connection: Connection, revision: number): Promise<void> {
    const count = await connection.acknowledgements(this.#replicas, ACKNOWLEDGE_MS_MAX, 'leases');
    if (count < this.#replicas)
      throw new SluiceError(
        'store.unavailable',
        `${count} of ${this.#replicas} replicas of Redis have the lease: it does not count`,
        { replicas: this.#replicas, acknowledged: count, revision },
      );
  }
}

const foreign = (theirs: string, ours: string): SluiceError =>
  new SluiceError('store.foreign', `this Redis belongs to the cluster ${theirs}, not to ${ours}`, { theirs, ours });

function entryOf<T>(key: string, stored: string): Entry<T> {
  const colon = stored.indexOf(':');
  return { key, value: JSON.parse(stored.slice(colon + 1)) as T, revision: Number(stored.slice(0, colon)) };
}
