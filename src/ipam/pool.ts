/**
 * Pools: which prefixes are in use, and by whom. A new pool is written together with one record at the revision that was read before the pools
 * were looked at, so that of two daemons that choose prefixes which overlap only one succeeds. Local pools of different nodes have nothing to
 * do with each other; those of global networks are on every node. Two global networks may have one prefix when somebody asks for that.
 */
import type { Pool, PoolRequest } from '../contracts/driver.ts';
import type { Entry, Op, Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { familyOf, formatCidr, overlaps, parseCidr } from '../model/ip.ts';
import { clusterTopic, leasePrefix, poolGuardKey, poolKey, poolPrefix } from '../model/keys.ts';
import { nextSubnet, type PoolBase } from './choose.ts';

export interface StoredPool {
  readonly id: string;
  readonly cidr: string;
  readonly owner: string;
  readonly space: 'local' | 'global';
  /** Of a local one. */
  readonly node?: string;
}

/** Attempts against other daemons. */
const ATTEMPTS_MAX = 32;
/** Leases deleted in one transaction. */
const DELETE_MAX = 500;

export class Pools {
  readonly #store: Store;
  readonly #bases: readonly PoolBase[];
  readonly #node: string | undefined;
  /** Requests in this process take turns: they would only get in each other's way. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(store: Store, bases: readonly PoolBase[], node?: string) {
    this.#store = store;
    this.#bases = bases;
    this.#node = node;
  }

  list(): Promise<{ readonly items: readonly Entry<StoredPool>[] }> {
    return this.#store.list<StoredPool>(poolPrefix);
  }

  get(id: string): Promise<Entry<StoredPool> | null> {
    return this.#store.get<StoredPool>(poolKey(id));
  }

  request(request: PoolRequest): Promise<Pool> {
    const turn = this.#last.then(() => this.#request(request));
    // The next one's turn comes however this one ends.
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  /** Absent succeeds. With `at`, only while it is at that revision. False: it was not. */
  async release(id: string, at?: number): Promise<boolean> {
    // The pool goes first: from then on nobody leases from it. What a crash leaves of its leases has no pool, and is collected.
    const { items } = await this.#store.list(leasePrefix(id));
    const deletions = items.map(({ key }): Op => ({ op: 'delete', key }));
    try {
      const first: Op[] = [{ op: 'delete', key: poolKey(id), expect: at }, ...deletions.slice(0, DELETE_MAX)];
      await this.#store.transact(first, { topics: [clusterTopic] });
    } catch (error) {
      if (at !== undefined && isSluiceError(error, 'store.conflict')) return false;
      throw error;
    }
    for (let from = DELETE_MAX; from < deletions.length; from += DELETE_MAX)
      await this.#store.transact(deletions.slice(from, from + DELETE_MAX), { topics: [] });
    return true;
  }

  async #request(request: PoolRequest): Promise<Pool> {
    const { space, owner, family } = request;
    const wanted = request.cidr === undefined ? undefined : formatCidr(parseCidr(request.cidr, { strict: true }));
    if (wanted !== undefined && familyOf(wanted) !== family)
      throw new SluiceError('request.invalid', `${wanted} is not an IPv${family} subnet`, { cidr: wanted, family });
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const guard = await this.#store.get<number>(poolGuardKey);
      const node = space === 'local' ? this.#node : undefined;
      const pools = (await this.list()).items
        .map(({ value }) => value)
        .filter((pool) => space === 'global' || pool.space === 'global' || pool.node === node);
      const own = pools.find(
        (pool) => pool.owner === owner && familyOf(pool.cidr) === family && (!wanted || pool.cidr === wanted),
      );
      if (own) return { id: own.id, cidr: own.cidr };
      const cidr = wanted ? explicit(wanted, request, pools) : this.#automatic(request, pools);
      // The owner is part of the id: a late release by the last one who had the prefix does not hit the next.
      const id = `${cidr.replace(/[/:]/g, '_')}-${owner.slice(0, 16).replace(/\W/g, '_')}`;
      try {
        await this.#store.transact(
          [
            { op: 'put', key: poolKey(id), value: { id, cidr, owner, space, node } satisfies StoredPool, expect: 0 },
            { op: 'put', key: poolGuardKey, value: (guard?.value ?? 0) + 1, expect: guard?.revision ?? 0 },
          ],
          // Every node keeps a copy of what all have in common.
          { topics: space === 'global' ? [clusterTopic] : [] },
        );
        return { id, cidr };
      } catch (error) {
        if (!isSluiceError(error, 'store.conflict')) throw error;
      }
    }
    throw new SluiceError('store.conflict', `the ${space} pools changed ${ATTEMPTS_MAX} times while one was chosen`, {
      key: poolGuardKey,
      owner,
    });
  }

  #automatic({ family, avoid, size }: PoolRequest, pools: readonly StoredPool[]): string {
    const taken = [...avoid, ...pools.map(({ cidr }) => cidr)].map((cidr) => parseCidr(cidr));
    const cidr = nextSubnet(this.#bases, family, taken, size);
    if (cidr) return formatCidr(cidr);
    throw new SluiceError(
      'pool.exhausted',
      `no automatic IPv${family} subnet is left that overlaps neither a network nor a route of the host`,
      { family },
    );
  }
}

/** The prefix as it was asked for, unless it overlaps a pool that it could not be told apart from, or a route. */
function explicit(cidr: string, { space, avoid }: PoolRequest, pools: readonly StoredPool[]): string {
  const wanted = parseCidr(cidr);
  const other = pools.find(
    (pool) => (space === 'local' || pool.space === 'local') && overlaps(parseCidr(pool.cidr), wanted),
  );
  if (other)
    throw new SluiceError('network.overlap', `${cidr} overlaps ${other.cidr}, a pool of ${other.owner.slice(0, 12)}`, {
      cidr,
      other: other.cidr,
      owner: other.owner,
    });
  const route = avoid.find((prefix) => overlaps(parseCidr(prefix), wanted));
  if (route)
    throw new SluiceError('network.overlap', `${cidr} overlaps ${route}, to which the host has a route`, {
      cidr,
      other: route,
    });
  return cidr;
}
