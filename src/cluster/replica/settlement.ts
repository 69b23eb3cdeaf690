/**
 * Addresses after the shared store may have lost something, as when another server took over: every node says again which are its own, before
 * anyone allocates. A *place* is what that holds for: a term of the store, and what was put back into it last.
 *
 *     turn ─► the node's leases that are missing are put back, those that are another's judged ─► settlement/node/NAME = place
 *     new lease ─► waits until all nodes with a session have said so (settlement/all = place) ─► written only if the place still is that
 */
import type { Clock } from '../../clock.ts';
import type { Entry, Op, Store, TransactOptions } from '../../contracts/store.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import {
  beatPrefix,
  leasePrefix,
  objectKey,
  objectPrefix,
  poolKey,
  settledKey,
  settledNodeKey,
  settledNodePrefix,
} from '../../model/keys.ts';
import type { Network } from '../../model/network.ts';
import type { Obj } from '../../model/object.ts';
import { type Claim, claimsOf, type HeldLease, HOLDERS, judge, leasesOfObjects } from './assertion.ts';
import { restoreOriginKey } from './concern.ts';
import type { Copies, Written } from './copies.ts';

/** Pause before the store is looked at again, milliseconds. */
const AGAIN_MS = 100;
/** Leases put back in one transaction. */
const LEASES_MAX = 100;
/** An allocation waits this many times a session's time: whoever is silent is not waited for after one. */
const WAIT_SESSIONS = 3;

export interface SettlementOptions {
  readonly remote: Store;
  readonly copies: Copies;
  readonly node: string;
  readonly clock: Clock;
  readonly logger?: Logger;
  /** A node that gives no sign of life for so long is not waited for, milliseconds. */
  readonly silentMs: number;
  /** Whether the shared store has what the copies have. */
  readonly isWhole: () => boolean;
  readonly signal: AbortSignal;
}

interface Place {
  readonly term: string;
  /** Revision of the record of the last restoring; 0: there was none. */
  readonly origin: number;
}

const nameOf = ({ term, origin }: Place): string => `${term}@${origin}`;

export class Settlement {
  readonly #options: SettlementOptions;
  /** For which this node has said what is its own. */
  #said: Place | undefined;
  /** Others were told, too. */
  #isTold = false;
  /** For which every node has. */
  #open: Place | undefined;
  #working: Promise<void> = Promise.resolve();
  #isWorking = false;
  #again = false;
  /** Signs of life of the others, and since when each is as it is, monotonic milliseconds. */
  #signs = new Map<string, { readonly sign: string; readonly at: number }>();
  #awaited: readonly string[] = [];

  constructor(options: SettlementOptions) {
    this.#options = options;
  }

  /** The store may have lost something, or has its copies back, or this node was registered: says again what is this node's, in the background. */
  turned(): void {
    this.#again = true;
    if (this.#isWorking) return;
    this.#isWorking = true;
    this.#working = this.#work();
  }

  async stop(): Promise<void> {
    await this.#working;
  }

  /**
   * Writes what is decided upon what others do not have: once every node has said what is its own. `address.unsettled` where some node does not do so in
   * time. What only this node uses waits for no other.
   */
  async write(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    const { remote, clock, silentMs, copies } = this.#options;
    const until = clock.monotonic() + WAIT_SESSIONS * silentMs;
    const isOwn =
      leasesOf(ops).every(({ pool }) => copies.get<{ space?: string }>(poolKey(pool))?.value.space === 'local') &&
      endsOf(ops).every((key) => (copies.get<Obj>(key)?.value.owner ?? null) !== null);
    for (;;) {
      try {
        const { term, origin } = await this.#settled(isOwn, until);
        const standing: Op = { op: 'check', key: restoreOriginKey, expect: origin };
        return await remote.transact([...ops, standing], { ...options, term });
      } catch (error) {
        const moved =
          isSluiceError(error, 'store.conflict') &&
          (error.details.key === 'term' || error.details.key === restoreOriginKey);
        if (!moved) throw error;
        this.#said = undefined;
        this.turned();
      }
    }
  }

  async #settled(isOwn: boolean, until: number): Promise<Place> {
    const { remote, clock, signal, isWhole } = this.#options;
    for (;;) {
      const said = this.#said;
      if (said && said.term === termOf(remote) && isWhole()) {
        if (isOwn || this.#open === said || (await this.#allSaid(said))) return said;
      } else {
        // Where it is away this fails at once.
        await remote.get(restoreOriginKey);
        this.#awaited = [];
      }
      if (clock.monotonic() >= until) {
        const who = this.#awaited.length > 0 ? `by ${this.#awaited.slice(0, 5).join(', ')}` : 'here';
        throw new SluiceError(
          'address.unsettled',
          `no address is given: the store changed hands, and it has not been said again ${who} which ones are in use`,
          { nodes: this.#awaited },
        );
      }
      await clock.sleep(AGAIN_MS, signal);
    }
  }

  /** Whether every node with a session has said what is its own; the first to find that so writes it down for all. */
  async #allSaid(place: Place): Promise<boolean> {
    const { remote, copies, node, clock, silentMs, logger } = this.#options;
    const name = nameOf(place);
    if ((await remote.get<string>(settledKey))?.value !== name) {
      const [nodes, beats, said] = await Promise.all([
        remote.list<Obj>(objectPrefix('node')),
        remote.list<unknown>(beatPrefix),
        remote.list<string>(settledNodePrefix),
      ]);
      const known = [...nodes.items, ...copies.list<Obj>(objectPrefix('node'))].map(({ value }) => value.name);
      const done = new Set(said.items.filter(({ value }) => value === name).map(({ key }) => key));
      const now = clock.monotonic();
      const lives = (which: string): boolean => {
        const beat = beats.items.find(({ key }) => key === beatPrefix + which);
        const sign = `${beat?.revision}`;
        const seen = this.#signs.get(which);
        if (seen?.sign !== sign) this.#signs.set(which, { sign, at: now });
        return seen === undefined || seen.sign !== sign || now - seen.at < silentMs;
      };
      this.#awaited = [...new Set(known)].filter(
        (which) => which !== node && !done.has(settledNodeKey(which)) && lives(which),
      );
      if (this.#awaited.length > 0) return false;
      await this.#speakFor(place);
      await this.#write(place, settledKey);
      logger?.info({ nodes: done.size, known: new Set(known).size }, 'addresses are settled');
    }
    this.#open = place;
    return true;
  }

  /** Endpoints of nodes that are silent, and that others have put back, keep their addresses: what runs there still uses them. */
  async #speakFor({ term }: Place): Promise<void> {
    const { remote, logger } = this.#options;
    const [endpoints, networks, leases] = await Promise.all([
      remote.list<Endpoint>(objectPrefix('endpoint')),
      remote.list<Network>(objectPrefix('network')),
      remote.list(leasePrefix()),
    ]);
    const there = new Set(leases.items.map(({ key }) => key));
    const missing = leasesOfObjects(endpoints.items, networks.items)
      .filter(({ key }) => !there.has(key))
      .map(({ key, lease: value }): Op => ({ op: 'put', key, value, expect: 0 }));
    for (let at = 0; at < missing.length; at += LEASES_MAX)
      await remote.transact(missing.slice(at, at + LEASES_MAX), { topics: [], term });
    if (missing.length > 0) logger?.warn({ missing: missing.length }, 'addresses of silent nodes said for them');
  }

  /** That the place is settled, by a node or by all; `store.conflict` where it is another by now. */
  async #write(place: Place, key: string): Promise<void> {
    const standing: Op = { op: 'check', key: restoreOriginKey, expect: place.origin };
    const { term } = place;
    await this.#options.remote.transact([standing, { op: 'put', key, value: nameOf(place) }], { topics: [], term });
  }

  async #work(): Promise<void> {
    const { clock, logger, signal, isWhole } = this.#options;
    // Once the store is whole this is asked for again.
    while (this.#again && !signal.aborted && isWhole()) {
      this.#again = false;
      try {
        await this.#say();
      } catch (error) {
        this.#again = true;
        if (!signal.aborted && !isSluiceError(error, 'store.unavailable', 'store.conflict'))
          logger?.warn({ err: toSluiceError(error) }, 'the addresses of this node are not said again yet');
        await clock.sleep(AGAIN_MS, signal).catch(() => undefined);
      }
    }
    this.#isWorking = false;
  }

  async #say(): Promise<void> {
    const { remote, copies, node } = this.#options;
    const origin = (await remote.get(restoreOriginKey))?.revision ?? 0;
    const place: Place = { term: termOf(remote), origin };
    // Nobody waits for a node that is not registered, as at its very first start.
    const isKnown = copies.list<Obj>(objectPrefix('node')).some(({ value }) => value.name === node);
    if (this.#said && nameOf(this.#said) === nameOf(place) && this.#isTold === isKnown) return;
    await this.assert(place.term);
    if (isKnown) await this.#write(place, settledNodeKey(node));
    this.#isTold = isKnown;
    this.#signs = new Map();
    this.#said = place;
  }

  /**
   * Puts back what is missing of this node's leases, and has those that are another's judged. Called also before the copies make place for what the
   * store has after a restoring: by then they would know no more of a lease that somebody else was given.
   */
  async assert(term = termOf(this.#options.remote)): Promise<void> {
    const { remote, copies, node, logger } = this.#options;
    const claims = claimsOf(copies.list(''), node);
    const there = new Map<string, Entry<HeldLease>>();
    for (const pool of new Set(claims.map(({ lease }) => lease.pool)))
      for (const entry of (await remote.list<HeldLease>(leasePrefix(pool))).items) there.set(entry.key, entry);
    const open = claims.filter(({ key, lease }) => there.get(key)?.value.owner !== lease.owner);
    const missing: Claim[] = [];
    for (const claim of open) {
      const own = await remote.get<Obj>(objectKey(claim.owner.kind, claim.owner.id));
      // It was removed since, and its addresses with it.
      if (!own) continue;
      const other = there.get(claim.key);
      if (other) await this.#contest(claim, other, own, term);
      else missing.push(claim);
    }
    for (let at = 0; at < missing.length; at += LEASES_MAX) {
      const some = missing.slice(at, at + LEASES_MAX);
      const ops = some.map(({ key, lease: value }): Op => ({ op: 'put', key, value, expect: 0 }));
      const revision = await remote.transact(ops, { topics: [], term });
      await this.#wrote(some.map(({ key, lease: value }) => ({ key, value, revision })));
    }
    if (open.length > 0)
      logger?.warn({ missing: missing.length, contested: open.length - missing.length }, 'addresses said again');
  }

  async #contest(claim: Claim, there: Entry<HeldLease>, own: Entry<Obj>, term: string): Promise<void> {
    const { remote, logger } = this.#options;
    const verdict = judge(claim, there, own, await this.#object(there.value.owner));
    if (!verdict) {
      const words = { address: claim.lease.address, owner: claim.owner.name, other: there.value.owner };
      logger?.error(words, 'an address has two owners, neither of which can give way');
      return;
    }
    const { ops, topics, loser } = verdict;
    const revision = await remote.transact(ops, { topics, term });
    const isMine = ops.some(({ op, key }) => op === 'put' && key === claim.key);
    const marked = ops.flatMap((op) => (op.op === 'put' && op.key !== claim.key ? [{ ...op, revision }] : []));
    await this.#wrote([isMine ? { key: claim.key, value: claim.lease, revision } : there, ...marked]);
    logger?.warn({ address: claim.lease.address, loser: loser?.name }, 'an address was given twice: the older stays');
  }

  /** Copies of what is lost are still to be put back: revisions of now say nothing to them. */
  async #wrote(entries: readonly Written[]): Promise<void> {
    const { copies, isWhole } = this.#options;
    if (isWhole()) await copies.wrote(entries);
  }

  async #object(id: string): Promise<Entry<Obj> | undefined> {
    for (const kind of HOLDERS) {
      const found = await this.#options.remote.get<Obj>(objectKey(kind, id));
      if (found) return found;
    }
    return undefined;
  }
}

const termOf = (store: Store): string => store.term ?? store.incarnation;

/** New leases among the operations. */
const leasesOf = (ops: readonly Op[]): HeldLease[] =>
  ops.flatMap((op) =>
    op.op === 'put' && op.expect === 0 && op.key.startsWith(leasePrefix()) ? [op.value as HeldLease] : [],
  );

/** Keys of networks that are to go, or go. */
const endsOf = (ops: readonly Op[]): string[] =>
  ops.flatMap((op) => {
    if (op.op === 'check' || !op.key.startsWith(objectPrefix('network'))) return [];
    return op.op === 'delete' || (op.value as Obj).removing ? [op.key] : [];
  });

/** Whether the write is decided upon what others do not have: an address that is free, a network that nobody uses. */
export const waitsForAll = (ops: readonly Op[]): boolean => leasesOf(ops).length > 0 || endsOf(ops).length > 0;
