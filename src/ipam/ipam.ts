/**
 * The default IPAM driver: pools and leases on the store. A lease is a key that only one can create, written before the address is used.
 * Several daemons on one store agree by that alone: what is kept in memory only says where to look first.
 */
import type { Clock } from '../clock.ts';
import type { AddressRequest, IpamDriver, Lease, Pool, PoolRequest } from '../contracts/driver.ts';
import type { Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import {
  type Cidr,
  canonicalAddress,
  contains,
  formatAddress,
  formatCidr,
  parseAddress,
  parseCidr,
} from '../model/ip.ts';
import { leaseKey, leasePrefix, poolKey } from '../model/keys.ts';
import { isStranger } from '../model/object.ts';
import { nextAddress, type PoolBase, usable } from './choose.ts';
import { Occupancy } from './occupancy.ts';
import { Pools } from './pool.ts';

export type { PoolBase } from './choose.ts';

export interface IpamOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Automatic pools, tried in order. */
  readonly pools: readonly PoolBase[];
  /** Whose the pools of local networks are. */
  readonly node?: string;
  /** A lease or pool whose owner is missing is freed when it still is after this long. Default 30,000 ms. */
  readonly graceMs?: number;
}

export interface CollectingIpam extends IpamDriver {
  /**
   * Frees leases and pools whose owner is not among the living, when it was not at an earlier call `graceMs` ago either: an owner is stored
   * after its addresses. Returns how many were freed.
   */
  collect(live: ReadonlySet<string>): Promise<number>;
}

/** What this process believes of a pool; the store decides. */
interface Index {
  readonly cidr: Cidr;
  /** The pool's own revision: a lease is written only while it stands. */
  readonly revision: number;
  readonly taken: Occupancy;
  cursor: bigint;
}

/** Addresses that others were faster at, in one request, before it is given up. */
const CONFLICTS_MAX = 1_000;
/** As many in a row, and the pool is read anew. */
const STALE_AFTER = 4;

export const createIpam = (options: IpamOptions): CollectingIpam => new StoreIpam(options);

class StoreIpam implements CollectingIpam {
  readonly name = 'default';
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #graceMs: number;
  readonly #pools: Pools;
  readonly #indexes = new Map<string, Promise<Index>>();
  /** Keys and revisions of what has no owner → when that was first seen, monotonic milliseconds. */
  #orphans: ReadonlyMap<string, number> = new Map();

  constructor({ store, clock, pools, node, graceMs = 30_000 }: IpamOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#graceMs = graceMs;
    this.#pools = new Pools(store, pools, node);
  }

  requestPool(request: PoolRequest): Promise<Pool> {
    return this.#pools.request(request);
  }

  async releasePool(poolId: string): Promise<void> {
    await this.#pools.release(poolId);
    this.#indexes.delete(poolId);
  }

  async requestAddress(request: AddressRequest): Promise<Lease> {
    for (let attempt = 0; ; attempt++) {
      const index = await this.#index(request.pool);
      try {
        return request.address === undefined
          ? await this.#any(index, request)
          : await this.#exactly(index, request, canonicalAddress(request.address));
      } catch (error) {
        // Not the address but the pool changed under us: it was released, and perhaps given again.
        const stale = isSluiceError(error, 'store.conflict') && error.details.key === poolKey(request.pool);
        if (!stale || attempt > 0) throw error;
        this.#indexes.delete(request.pool);
      }
    }
  }

  async releaseAddress(poolId: string, address: string, owner: string): Promise<void> {
    const key = leaseKey(poolId, canonicalAddress(address));
    const entry = await this.#store.get<Lease>(key);
    if (entry?.value.owner === owner) await this.#free(poolId, entry.value.address, entry.revision);
  }

  async leases(poolId: string): Promise<Lease[]> {
    const { items } = await this.#store.list<Lease>(leasePrefix(poolId));
    return items.map(({ value, revision }) => ({ ...value, revision }));
  }

  async pools(): Promise<(Pool & { owner: string })[]> {
    return (await this.#pools.list()).items.map(({ value: { id, cidr, owner } }) => ({ id, cidr, owner }));
  }

  async collect(live: ReadonlySet<string>): Promise<number> {
    const now = this.#clock.monotonic();
    const orphans = new Map<string, number>();
    let freed = 0;
    const due = ({ key, revision }: { readonly key: string; readonly revision: number }): boolean => {
      // With the revision: the same address leased anew is another lease.
      const mark = `${key}@${revision}`;
      const since = this.#orphans.get(mark) ?? now;
      if (now - since >= this.#graceMs && this.#orphans.has(mark)) return true;
      orphans.set(mark, since);
      return false;
    };
    const leases = (await this.#store.list<Lease>(leasePrefix())).items.filter(
      (entry) => !live.has(entry.value.owner) && due(entry),
    );
    const pools = (await this.#pools.list()).items.filter((entry) => !live.has(entry.value.owner) && due(entry));
    // Seldom any: only then everything is gone through.
    const spared = leases.length + pools.length > 0 ? await this.#strangers() : new Set<string>();
    for (const entry of leases) {
      if (spared.has(entry.value.owner)) continue;
      if (await this.#free(entry.value.pool, entry.value.address, entry.revision)) freed++;
    }
    for (const entry of pools) {
      if (spared.has(entry.value.owner)) continue;
      if (await this.#pools.release(entry.value.id, entry.revision)) freed++;
      this.#indexes.delete(entry.value.id);
    }
    this.#orphans = orphans;
    return freed;
  }

  /** Ids of objects of a newer version's kinds, of which no caller knows whether they live. */
  async #strangers(): Promise<Set<string>> {
    const { items } = await this.#store.list('');
    return new Set(items.flatMap(({ key, value }) => (isStranger(key, value) ? [value.id] : [])));
  }

  async #any(index: Index, { pool, owner, range, except, purpose = 'endpoint' }: AddressRequest): Promise<Lease> {
    const part = range === undefined ? undefined : parseCidr(range);
    const spared = except === undefined ? undefined : parseCidr(except);
    const fromTop = purpose === 'vip';
    for (let conflicts = 0, isFresh = false; conflicts < CONFLICTS_MAX; ) {
      const { cidr, taken, cursor } = index;
      const value = nextAddress({ cidr, range: part, except: spared, taken, cursor, fromTop });
      if (value === null && isFresh)
        throw new SluiceError('address.exhausted', `${range ?? formatCidr(cidr)} has no free address left`, {
          cidr: formatCidr(cidr),
          range,
        });
      // Others may have released what is believed to be taken, or taken what is believed to be free.
      if (value === null || (conflicts > 0 && conflicts % STALE_AFTER === 0 && !isFresh)) {
        this.#indexes.delete(pool);
        index = await this.#index(pool);
        isFresh = true;
        continue;
      }
      const lease: Lease = { pool, address: formatAddress(cidr.family, value), owner, purpose };
      const revision = await this.#claim(index, lease, value);
      if (revision !== null) {
        if (!fromTop) index.cursor = value;
        return { ...lease, revision };
      }
      conflicts++;
      isFresh = false;
    }
    const cidr = formatCidr(index.cidr);
    throw new SluiceError('store.conflict', `${CONFLICTS_MAX} addresses of ${cidr} were taken by others meanwhile`, {
      cidr,
    });
  }

  async #exactly(index: Index, { pool, owner, purpose }: AddressRequest, address: string): Promise<Lease> {
    const { family, value } = parseAddress(address);
    const { low, high } = usable(index.cidr);
    const cidr = formatCidr(index.cidr);
    if (!contains(index.cidr, address))
      throw new SluiceError('address.outside', `${address} is not in ${cidr}`, { address, cidr });
    if (value < low || value > high) {
      const what = family === 6 ? 'subnet-router anycast' : value < low ? 'network' : 'broadcast';
      throw new SluiceError('address.outside', `${address} is the ${what} address of ${cidr}`, { address, cidr });
    }
    const lease: Lease = { pool, address, owner, purpose: purpose ?? 'endpoint' };
    const revision = await this.#claim(index, lease, value);
    if (revision !== null) return { ...lease, revision };
    const found = await this.#store.get<Lease>(leaseKey(pool, address));
    const holder = found?.value;
    if (found && holder?.owner === owner) return { ...holder, revision: found.revision };
    throw new SluiceError('address.inuse', `${address} is leased to ${holder?.owner.slice(0, 12) ?? 'another'}`, {
      address,
      owner: holder?.owner,
      purpose: holder?.purpose,
    });
  }

  /** Writes the lease; its revision, or null: somebody has the address. */
  async #claim({ taken, revision }: Index, lease: Lease, value: bigint): Promise<number | null> {
    const wasFree = !taken.has(value);
    // At once, so that the next request of this process looks elsewhere.
    taken.add(value);
    try {
      return await this.#store.transact(
        [
          { op: 'check', key: poolKey(lease.pool), expect: revision },
          { op: 'put', key: leaseKey(lease.pool, lease.address), value: lease, expect: 0 },
        ],
        { topics: [] },
      );
    } catch (error) {
      if (isSluiceError(error, 'store.conflict') && error.details.key !== poolKey(lease.pool)) return null;
      if (wasFree) taken.delete(value);
      throw error;
    }
  }

  /** Deletes the lease while it is at the revision; false: it is not. */
  async #free(poolId: string, address: string, revision: number): Promise<boolean> {
    try {
      await this.#store.transact([{ op: 'delete', key: leaseKey(poolId, address), expect: revision }], { topics: [] });
    } catch (error) {
      // Somebody released it first, and it may be another's by now.
      if (isSluiceError(error, 'store.conflict')) return false;
      throw error;
    }
    const index = await this.#indexes.get(poolId);
    index?.taken.delete(parseAddress(address).value);
    return true;
  }

  #index(poolId: string): Promise<Index> {
    const known = this.#indexes.get(poolId);
    if (known) return known;
    const reading = this.#read(poolId);
    this.#indexes.set(poolId, reading);
    // What could not be read is read again by the next who asks.
    reading.catch(() => {
      if (this.#indexes.get(poolId) === reading) this.#indexes.delete(poolId);
    });
    return reading;
  }

  async #read(poolId: string): Promise<Index> {
    const pool = await this.#pools.get(poolId);
    if (!pool) throw new SluiceError('object.notfound', `there is no address pool ${poolId}`, { pool: poolId });
    const { items } = await this.#store.list<Lease>(leasePrefix(poolId));
    const leases = items.map(({ value: { address, purpose }, revision }) => ({
      value: parseAddress(address).value,
      purpose,
      revision,
    }));
    // The search goes on behind the endpoint's address that was given last, also in another life of the daemon.
    const newest = leases
      .filter(({ purpose }) => purpose === 'endpoint')
      .reduce((last, lease) => (lease.revision > last.revision ? lease : last), { value: -1n, revision: 0 });
    return {
      cidr: parseCidr(pool.value.cidr),
      revision: pool.revision,
      taken: new Occupancy(leases.map(({ value }) => value)),
      cursor: newest.value,
    };
  }
}
