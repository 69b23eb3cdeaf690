/**
 * The store of a node in a cluster: the shared one, and copies of what concerns this node. While the shared one is away, reads come from the
 * copies, watches wait and writes fail with `store.unavailable`. When it comes back empty, or older than it was, nobody here sees that: reads
 * and watches stay with the copies until they are put back. Then `incarnation` changes, and watchers list again.
 */
import type { Clock } from '../../clock.ts';
import type { Entry, ListOptions, Op, Session, Store, TransactOptions, WatchEvent } from '../../contracts/store.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { clusterTopic, networkTopic, nodeTopic, objectPrefix } from '../../model/keys.ts';
import { isMomentary, restoreOriginKey } from './concern.ts';
import { Copies, type Place, type Written } from './copies.ts';
import { restore } from './restore.ts';
import { Settlement, waitsForAll } from './settlement.ts';

/** Pause before the shared store is asked again, milliseconds. */
const AGAIN_MS = 200;
const LOCK_MS = 3_000;
/**
 * A node that has no copies yet has nothing to begin with: so long it waits until the shared store answers, which may be coming up as well, and
 * as long again until it is read. Milliseconds.
 */
const FIRST_MS_MAX = 20_000;

export interface ReplicaOptions {
  /**
   * Connects to the shared store, whose incarnation changes when it was emptied or replaced. `seen`: what the copies are of; then it succeeds
   * also while the store is away. `onTerm` is to be called when its `term` has changed.
   */
  readonly connect: (seen: Place | undefined, onTerm: () => void) => Promise<Store>;
  /** Keeps the copies; this node's alone. It is closed with this store. */
  readonly local: Store;
  readonly node: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  /**
   * Time after which the lock of a node that died while it restored is another's, and a silent node is not waited for, milliseconds. Default 3,000.
   */
  readonly lockMs?: number;
}

/** Fails with `store.unavailable` when the shared store is away, goes on being so for a while, and there is no copy yet. */
export async function openReplica(options: ReplicaOptions): Promise<Store> {
  const copies = await Copies.open(options.local, options.node, options.clock);
  const { place } = copies;
  let replica: Replica | undefined;
  // A store that lacks it has lost something.
  const seen = place.incarnation === '' ? undefined : { ...place, revision: copies.newest };
  const connect = () => options.connect(seen, () => replica?.turned());
  replica = new Replica(options, await (seen ? connect() : patiently(options, connect)), copies);
  try {
    await replica.start();
  } catch (error) {
    await replica.close();
    throw error;
  }
  return replica;
}

/** Does it again while the shared store is away and this node has nothing to start from. */
async function patiently<T>(
  { clock, logger }: Pick<ReplicaOptions, 'clock' | 'logger'>,
  work: () => Promise<T>,
): Promise<T> {
  const until = clock.monotonic() + FIRST_MS_MAX;
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isSluiceError(error, 'store.unavailable') || clock.monotonic() >= until) throw error;
      if (attempt === 1) logger?.warn({ err: error.message }, 'the store is away, and there is nothing to start from');
      await clock.sleep(AGAIN_MS);
    }
  }
}

class Replica implements Store {
  readonly #options: ReplicaOptions;
  readonly #remote: Store;
  readonly #copies: Copies;
  readonly #closing = new AbortController();
  readonly #settlement: Settlement;
  #incarnation: string;
  /** Settles when the copies are put back next. */
  #restored = Promise.withResolvers<void>();
  #following: Promise<void> = Promise.resolve();

  constructor(options: ReplicaOptions, remote: Store, copies: Copies) {
    this.#options = options;
    this.#remote = remote;
    this.#copies = copies;
    this.#incarnation = copies.place.incarnation;
    const { node, clock, logger, lockMs: silentMs = LOCK_MS } = options;
    const { signal } = this.#closing;
    const isWhole = (): boolean => this.#isWhole();
    this.#settlement = new Settlement({ remote, copies, node, clock, logger, silentMs, isWhole, signal });
  }

  /** Another server of the shared store may have taken over. */
  turned(): void {
    this.#settlement.turned();
  }

  get incarnation(): string {
    return this.#incarnation;
  }

  get term(): string | undefined {
    return this.#remote.term;
  }

  async start(): Promise<void> {
    const isFirst = this.#incarnation === '';
    try {
      await (isFirst ? patiently(this.#options, () => this.#catchUp()) : this.#catchUp());
    } catch (error) {
      if (isFirst || !isSluiceError(error, 'store.unavailable')) throw error;
      this.#options.logger?.warn(
        { err: error, ...this.#copies.place },
        'the store is away: starting from the copies here',
      );
    }
    this.#following = this.#follow();
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    return this.#read(
      isMomentary(key),
      () => this.#remote.get<T>(key),
      () => this.#copies.get<T>(key),
    );
  }

  async list<T>(
    prefix: string,
    options: ListOptions = {},
  ): Promise<{ readonly items: readonly Entry<T>[]; readonly revision: number }> {
    const { whole = false, concerning, upTo } = options;
    const copies = () => ({ items: this.#copies.list<T>(prefix), revision: this.#copies.place.revision });
    // Of what concerns this node the copies have all; whoever follows the log from their revision misses nothing.
    const isOwn = !whole && concerning === this.#options.node && upTo === undefined && !isMomentary(prefix);
    if (isOwn && this.#isWhole() && !this.#closing.signal.aborted) return copies();
    return this.#read(whole || isMomentary(prefix), () => this.#remote.list<T>(prefix, options), copies);
  }

  async transact(ops: readonly Op[], options?: TransactOptions): Promise<number> {
    this.#ensureWhole();
    const incarnation = this.#incarnation;
    const revision = waitsForAll(ops)
      ? await this.#settlement.write(ops, options)
      : await this.#remote.transact(ops, options);
    if (this.#remote.incarnation === incarnation) {
      const entries = ops.flatMap((op): Written[] =>
        op.op === 'check' ? [] : [{ key: op.key, value: op.op === 'put' ? op.value : null, revision }],
      );
      await this.#copies.wrote(entries);
      if (entries.some(({ key }) => key.startsWith(objectPrefix('node')))) this.#settlement.turned();
    }
    return revision;
  }

  async *watch(
    topics: string | readonly string[],
    from: number,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent, void, undefined> {
    const incarnation = this.#incarnation;
    await this.#settled(signal);
    if (signal.aborted) return;
    let place = from;
    if (this.#incarnation !== incarnation) {
      place = this.#copies.place.revision;
      yield { type: 'relist', revision: place };
    }
    for await (const event of this.#remote.watch(topics, place, signal)) {
      if (this.#remote.incarnation !== this.#incarnation) await this.#settled(signal);
      if (signal.aborted) return;
      if (event.type === 'change' && this.#follows(topics)) await this.#copies.heardAhead(event.change);
      yield event;
    }
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    this.#ensureWhole();
    return this.#remote.session(name, ttlMs);
  }

  async close(): Promise<void> {
    this.#closing.abort(closed());
    this.#restored.resolve();
    await this.#remote.close();
    await this.#following;
    await this.#settlement.stop();
    await this.#options.local.close();
  }

  /** From the shared store, or, unless `noCopy`, from the copies while it is away or lacks what they have. */
  async #read<T>(noCopy: boolean, remote: () => Promise<T>, copies: () => T): Promise<T> {
    if (this.#closing.signal.aborted) throw closed();
    if (noCopy) {
      this.#ensureWhole();
      return remote();
    }
    if (this.#isWhole()) {
      try {
        const found = await remote();
        if (this.#isWhole()) return found;
      } catch (error) {
        if (!isSluiceError(error, 'store.unavailable') || this.#closing.signal.aborted) throw error;
      }
    }
    return copies();
  }

  /** Whether the shared store has what the copies have. */
  #isWhole(): boolean {
    return this.#remote.incarnation === this.#incarnation;
  }

  #ensureWhole(): void {
    if (this.#closing.signal.aborted) throw closed();
    if (!this.#isWhole())
      throw new SluiceError('store.unavailable', 'the store lost what it had and is being restored; what runs goes on');
  }

  /** Of what the copies are kept up. */
  #topics(): string[] {
    return [clusterTopic, nodeTopic(this.#options.node), ...this.#copies.networks().map(networkTopic)];
  }

  #follows(topics: string | readonly string[]): boolean {
    const own = this.#topics();
    return [topics].flat().every((topic) => own.includes(topic));
  }

  /** Waits until the shared store has what the copies have. */
  async #settled(signal: AbortSignal): Promise<void> {
    const aborted = Promise.withResolvers<void>();
    const abort = (): void => aborted.resolve();
    signal.addEventListener('abort', abort, { once: true });
    try {
      while (!signal.aborted && !this.#isWhole()) {
        if (this.#closing.signal.aborted) throw closed();
        await Promise.race([this.#restored.promise, aborted.promise]);
      }
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closing;
    const { clock, logger } = this.#options;
    let isCurrent = this.#copies.place.incarnation === this.#remote.incarnation;
    while (!signal.aborted) {
      try {
        if (!isCurrent) await this.#catchUp();
        isCurrent = false;
        const networks = this.#copies.networks();
        for await (const event of this.#remote.watch(this.#topics(), this.#copies.place.revision, signal)) {
          if (!this.#isWhole() || event.type === 'relist') break;
          await this.#copies.heard(event.change);
          if (event.change.entries.some(({ key }) => key === restoreOriginKey)) this.#settlement.turned();
          if (event.change.entries.some(({ key }) => key.startsWith('endpoint/')))
            if (this.#copies.networks().join() !== networks.join()) break;
        }
      } catch (error) {
        if (signal.aborted) break;
        if (!isSluiceError(error, 'store.unavailable'))
          logger?.warn({ err: toSluiceError(error) }, 'the copies of the store are not kept up, beginning anew');
        await clock.sleep(AGAIN_MS, signal).catch(() => undefined);
      }
    }
  }

  /** Puts the copies back where the shared store lost them, then takes over what is there. */
  async #catchUp(): Promise<void> {
    const { clock, logger, node, lockMs = LOCK_MS } = this.#options;
    const { remote, signal } = { remote: this.#remote, signal: this.#closing.signal };
    // Only an answer says which incarnation it is.
    await remote.get(restoreOriginKey);
    const { incarnation, revision } = this.#copies.place;
    if (incarnation !== '' && remote.incarnation !== incarnation) {
      const mine = { node, incarnation, revision, copies: this.#copies.list('') };
      await restore({ remote, clock, logger, lockMs, signal, mine });
      await this.#settlement.assert();
    }
    const to = remote.incarnation;
    await this.#copies.replace(
      () => remote.list('', { concerning: node }),
      () => {
        // It changed again meanwhile: the copies are still needed.
        if (remote.incarnation !== to) throw new SluiceError('store.unavailable', 'the store was replaced again');
        return to;
      },
    );
    if (this.#incarnation !== to) {
      this.#incarnation = to;
      this.#restored.resolve();
      this.#restored = Promise.withResolvers<void>();
    }
    this.#settlement.turned();
  }
}

const closed = (): SluiceError => new SluiceError('store.unavailable', 'the store is closed');
