/**
 * The default IPAM driver: pools and leases on the store. A lease is a key that only one can create, written before the address is used.
 * Several daemons on one store agree by that alone: what is kept in memory only says where to look first.
 */
import type { Clock } from '../clock.ts';
import type { AddressRequest, IpamDriver, Lease, Pool, PoolRequest } from '../contracts/driver.ts';
import type { Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { canonicalAddress, contains, familyOf, formatAddress, formatCidr, parseCidr, tryParse } from '../model/ip.ts';
import { leaseKey, leasePrefix, poolKey } from '../model/keys.ts';
import { candidates, usable } from './choose.ts';

export interface PoolBase {
  /** `172.17.0.0/12` */
  readonly base: string;
  /** Prefix length of the subnets that it is cut into. */
  readonly size: number;
}

export interface IpamOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Automatic pools, tried in order. */
  readonly pools: readonly PoolBase[];
  /** A lease whose owner is missing is freed when it still is after this long. Default 30,000 ms. */
  readonly graceMs?: number;
}

interface StoredPool {
  readonly id: string;
  readonly cidr: string;
  readonly owner: string;
  readonly space: string;
}

/** What this process believes of a pool; the store decides. */
interface Index {
  readonly taken: Set<bigint>;
  /** Last address given, so that one that was just freed is not the next. */
  cursor: bigint;
}

/** Attempts against other allocators before the pool is read anew. */
const ATTEMPTS_MAX = 64;

export interface CollectingIpam extends IpamDriver {
  /** Frees leases whose owner is not among the living, in two passes at least `graceMs` apart. Returns how many were freed. */
  collect(live: ReadonlySet<string>): Promise<number>;
}

export function createIpam(options: IpamOptions): CollectingIpam {
  return new StoreIpam(options);
}

class StoreIpam implements CollectingIpam {
  readonly name = 'default';
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #bases: readonly PoolBase[];
  readonly #graceMs: number;
  readonly #indexes = new Map<string, Index>();
  /** Leases without an owner → when that was first seen (monotonic milliseconds). */
  readonly #orphans = new Map<string, number>();

  constructor({ store, clock, pools, graceMs = 30_000 }: IpamOptions) {
    this.#store = store;
    this.#clock = clock;
    this.#bases = pools;
    this.#graceMs = graceMs;
  }

  async requestPool(request: PoolRequest): Promise<Pool> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const existing = await this.#storedPools();
      const own = existing.find(
        (pool) =>
          pool.owner === request.owner &&
          familyOf(pool.cidr) === request.family &&
          (!request.cidr || sameCidr(pool.cidr, request.cidr)),
      );
      if (own) return { id: own.id, cidr: own.cidr };
      const cidr = request.cidr ? this.#explicit(request, existing) : this.#automatic(request, existing);
      // The prefix is part of the id: two that choose the same one at the same time meet here.
      const id = `${request.space}-${cidr.replace(/[/:]/g, '_')}`;
      try {
        await this.#store.transact([
          {
            op: 'put',
            key: poolKey(id),
            value: { id, cidr, owner: request.owner, space: request.space } satisfies StoredPool,
            expect: 0,
          },
        ]);
        return { id, cidr };
      } catch (error) {
        if (!isSluiceError(error, 'store.conflict')) throw error;
      }
    }
    throw new SluiceError('store.conflict', 'the pools changed too often while one was chosen');
  }

  async releasePool(poolId: string): Promise<void> {
    const { items } = await this.#store.list(leasePrefix(poolId));
    await this.#store.transact([
      ...items.map(({ key }) => ({ op: 'delete', key }) as const),
      { op: 'delete', key: poolKey(poolId) },
    ]);
    this.#indexes.delete(poolId);
  }

  async requestAddress(request: AddressRequest): Promise<Lease> {
    const pool = (await this.#store.get<StoredPool>(poolKey(request.pool)))?.value;
    if (!pool)
      throw new SluiceError('object.notfound', `there is no address pool ${request.pool}`, { pool: request.pool });
    return request.address ? this.#exactly(pool, request, canonicalAddress(request.address)) : this.#any(pool, request);
  }

  async releaseAddress(poolId: string, address: string, owner: string): Promise<void> {
    const key = leaseKey(poolId, canonicalAddress(address));
    const entry = await this.#store.get<Lease>(key);
    if (entry?.value.owner !== owner) return;
    try {
      await this.#store.transact([{ op: 'delete', key, expect: entry.revision }]);
    } catch (error) {
      // Somebody released it first, or it is another's by now.
      if (!isSluiceError(error, 'store.conflict')) throw error;
    }
    this.#indexes.get(poolId)?.taken.delete(tryParse(address) ?? -1n);
  }

  async leases(poolId: string): Promise<Lease[]> {
    return (await this.#store.list<Lease>(leasePrefix(poolId))).items.map(({ value }) => value);
  }

  async pools(): Promise<(Pool & { owner: string })[]> {
    return (await this.#storedPools()).map(({ id, cidr, owner }) => ({ id, cidr, owner }));
  }

  async collect(live: ReadonlySet<string>): Promise<number> {
    const now = this.#clock.monotonic();
    const seen = new Set<string>();
    let freed = 0;
    const { items } = await this.#store.list<Lease>('lease/');
    const pools = (await this.#store.list<StoredPool>('pool/')).items.filter(({ value }) => !live.has(value.owner));
    for (const { key, value } of [...items.filter((item) => !live.has(item.value.owner)), ...pools]) {
      seen.add(key);
      const since = this.#orphans.get(key);
      if (since === undefined) this.#orphans.set(key, now);
      else if (now - since >= this.#graceMs) {
        if ('address' in value) await this.releaseAddress(value.pool, value.address, value.owner);
        else await this.releasePool(value.id);
        freed++;
      }
    }
    for (const key of this.#orphans.keys()) if (!seen.has(key)) this.#orphans.delete(key);
    return freed;
  }

  async #storedPools(): Promise<StoredPool[]> {
    return (await this.#store.list<StoredPool>('pool/')).items.map(({ value }) => value);
  }

  #explicit({ cidr, avoid, space }: PoolRequest, existing: readonly StoredPool[]): string {
    const wanted = parseCidr(cidr!, { strict: true });
    const other = existing.find((pool) => pool.space === space && overlapping(pool.cidr, cidr!));
    if (other)
      throw new SluiceError('network.overlap', `${cidr} overlaps ${other.cidr} of another network`, {
        cidr,
        other: other.cidr,
        owner: other.owner,
      });
    const route = avoid.find((prefix) => overlapping(prefix, cidr!));
    if (route)
      throw new SluiceError('network.overlap', `${cidr} overlaps ${route}, to which the host has a route`, {
        cidr,
        other: route,
      });
    return formatCidr(wanted);
  }

  #automatic({ family, avoid }: PoolRequest, existing: readonly StoredPool[]): string {
    const taken = [...avoid, ...existing.map(({ cidr }) => cidr)].filter((cidr) => familyOf(cidr) === family);
    for (const { base, size } of this.#bases) {
      if (familyOf(base) !== family) continue;
      const whole = parseCidr(base);
      const step = 1n << BigInt((family === 4 ? 32 : 128) - size);
      // The base's own address may lie inside it, as Docker's 172.17.0.0/12: subnets count from there.
      const start = tryParse(base.split('/')[0]!)!;
      const end = whole.base + (1n << BigInt((family === 4 ? 32 : 128) - whole.prefix));
      for (let at = start, tries = 0; at + step <= end && tries < 65_536; at += step, tries++) {
        const cidr = formatCidr({ family, base: at, prefix: size });
        if (!taken.some((other) => overlapping(other, cidr))) return cidr;
      }
    }
    throw new SluiceError(
      'pool.exhausted',
      `no automatic IPv${family} subnet is left that overlaps neither a network nor a route of the host`,
      { family },
    );
  }

  async #exactly(pool: StoredPool, { owner, purpose }: AddressRequest, address: string): Promise<Lease> {
    const cidr = parseCidr(pool.cidr);
    const value = tryParse(address)!;
    const { first, last } = usable(cidr);
    if (!contains(cidr, address))
      throw new SluiceError('address.outside', `${address} is not in ${pool.cidr}`, { address, cidr: pool.cidr });
    if (value < first || value > last)
      throw new SluiceError('address.outside', `${address} is the network or broadcast address of ${pool.cidr}`, {
        address,
        cidr: pool.cidr,
      });
    const lease: Lease = { pool: pool.id, address, owner, purpose: purpose ?? 'endpoint' };
    if (await this.#claim(lease)) return lease;
    const holder = (await this.#store.get<Lease>(leaseKey(pool.id, address)))?.value;
    if (holder?.owner === owner) return holder;
    throw new SluiceError('address.inuse', `${address} is leased already`, {
      address,
      owner: holder?.owner,
      purpose: holder?.purpose,
    });
  }

  async #any(pool: StoredPool, { owner, range, purpose = 'endpoint' }: AddressRequest): Promise<Lease> {
    const cidr = parseCidr(pool.cidr);
    for (const fresh of [false, true]) {
      const index = await this.#index(pool.id, fresh);
      let attempts = 0;
      for (const value of candidates(
        cidr,
        range ? parseCidr(range) : undefined,
        purpose === 'vip',
        index.cursor,
        index.taken,
      )) {
        const lease: Lease = { pool: pool.id, address: formatAddress(cidr.family, value), owner, purpose };
        if (await this.#claim(lease)) {
          if (purpose !== 'vip') index.cursor = value;
          return lease;
        }
        // Another allocator was faster: too often means that this index is stale.
        if (++attempts >= ATTEMPTS_MAX && !fresh) break;
      }
    }
    throw new SluiceError('address.exhausted', `${range ?? pool.cidr} has no free address left`, {
      cidr: pool.cidr,
      range,
    });
  }

  async #claim(lease: Lease): Promise<boolean> {
    const taken = (await this.#index(lease.pool)).taken;
    try {
      await this.#store.transact([
        { op: 'put', key: leaseKey(lease.pool, lease.address), value: lease, expect: 0 },
        { op: 'check', key: poolKey(lease.pool), expect: (await this.#store.get(poolKey(lease.pool)))?.revision ?? -1 },
      ]);
      taken.add(tryParse(lease.address)!);
      return true;
    } catch (error) {
      if (!isSluiceError(error, 'store.conflict')) throw error;
      taken.add(tryParse(lease.address)!);
      return false;
    }
  }

  async #index(poolId: string, fresh = false): Promise<Index> {
    const known = this.#indexes.get(poolId);
    if (known && !fresh) return known;
    const leases = await this.leases(poolId);
    const taken = new Set(leases.map(({ address }) => tryParse(address)!));
    const given = leases.filter(({ purpose }) => purpose === 'endpoint').map(({ address }) => tryParse(address)!);
    const index: Index = {
      taken,
      cursor: known?.cursor ?? given.sort((a, b) => (a < b ? -1 : 1)).at(-1) ?? -1n,
    };
    this.#indexes.set(poolId, index);
    return index;
  }
}

const overlapping = (a: string, b: string): boolean => {
  const [x, y] = [parseCidr(a), parseCidr(b)];
  if (x.family !== y.family) return false;
  const size = (cidr: typeof x): bigint => 1n << BigInt((cidr.family === 4 ? 32 : 128) - cidr.prefix);
  return x.base < y.base + size(y) && y.base < x.base + size(x);
};

const sameCidr = (a: string, b: string): boolean => formatCidr(parseCidr(a)) === formatCidr(parseCidr(b));
