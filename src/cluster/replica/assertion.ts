/**
 * What a node says again after the shared store may have lost something: the addresses that are its own. Pure. Every node does so before
 * anyone allocates. Where an address is another's by then, the older lease stays.
 */
import type { Lease } from '../../contracts/driver.ts';
import type { Entry, Op } from '../../contracts/store.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import { contains, parseCidr } from '../../model/ip.ts';
import { leaseKey, leasePrefix, topicsOf } from '../../model/keys.ts';
import type { Network } from '../../model/network.ts';
import type { Obj } from '../../model/object.ts';
import type { Service } from '../../model/service.ts';

/** A lease as it is stored once it was said again: since which revision it is held. */
export interface HeldLease extends Lease {
  readonly since?: number;
}

/** What may have addresses. */
export const HOLDERS = ['endpoint', 'service', 'network'] as const;

export interface Claim {
  readonly key: string;
  readonly lease: HeldLease;
  readonly owner: Obj;
}

/** Revision since which the lease is held. */
export const since = ({ value, revision }: Entry<HeldLease>): number => value.since ?? revision;

/** A record that is written anew keeps its age, where that is one of its matters. */
export const aged = (key: string, value: unknown, revision: number): unknown =>
  key.startsWith(leasePrefix()) ? { ...(value as HeldLease), since: (value as HeldLease).since ?? revision } : value;

/** Addresses that the object has, and what for. */
function addressesOf(object: Obj): { readonly address: string; readonly purpose: string }[] {
  // One without what it needs, as of a version to come, has none that are known here.
  if (object.removing || !object.spec) return [];
  if (object.kind === 'endpoint') {
    const { addresses = [], contested } = (object as Endpoint).spec;
    return contested ? [] : addresses.map((text) => ({ address: text.split('/')[0]!, purpose: 'endpoint' }));
  }
  if (object.kind === 'service') {
    const { vips = [], contested } = (object as Service).spec;
    return contested ? [] : vips.map((address) => ({ address, purpose: 'vip' }));
  }
  return ((object as Network).spec.subnets ?? []).flatMap(({ gateway, aux = {} }) => [
    ...(gateway === undefined ? [] : [{ address: gateway, purpose: 'gateway' }]),
    ...Object.values(aux).map((address) => ({ address, purpose: 'aux' })),
  ]);
}

/** The leases that these objects have to have, by what their networks are. */
export function leasesOfObjects(objects: readonly Entry<Obj>[], networks: readonly Entry<Network>[]): Claim[] {
  const known = new Map(networks.map(({ value }) => [value.id, value.spec?.subnets ?? []]));
  return objects.flatMap(({ value: owner, revision }) =>
    addressesOf(owner).flatMap(({ address, purpose }): Claim[] => {
      const network = owner.kind === 'network' ? owner.id : (owner as Endpoint | Service).spec.network;
      const subnets = known.get(network);
      const pool = subnets?.find(({ cidr }) => contains(parseCidr(cidr), address))?.pool;
      if (pool === undefined) return [];
      const lease = { pool, address, owner: owner.id, purpose, since: revision };
      return [{ key: leaseKey(pool, address), lease, owner }];
    }),
  );
}

/** The leases of a node, by its copies: those of its own endpoints, and of the networks and services that every node has. */
export function claimsOf(copies: readonly Entry[], node: string): Claim[] {
  const owners = new Map<string, Entry<Obj>>();
  const networks: Entry<Network>[] = [];
  for (const copy of copies) {
    const object = copy.value as Obj;
    if (HOLDERS.some((kind) => copy.key.startsWith(`${kind}/`)) && (object.owner === node || object.owner === null))
      owners.set(object.id, copy as Entry<Obj>);
    if (copy.key.startsWith('network/')) networks.push(copy as Entry<Network>);
  }
  // By whom, too: an address may have been given twice.
  const claims = new Map<string, Claim>();
  const add = (claim: Claim): unknown => claims.set(`${claim.key} ${claim.lease.owner}`, claim);
  // A lease that another node took for a service is known by the service alone.
  for (const claim of leasesOfObjects([...owners.values()], networks)) add(claim);
  for (const copy of copies) {
    if (!copy.key.startsWith(leasePrefix())) continue;
    const lease = aged(copy.key, copy.value, copy.revision) as HeldLease;
    const owner = owners.get(lease.owner)?.value;
    if (owner) add({ key: copy.key, lease, owner });
  }
  return [...claims.values()];
}

export interface Verdict {
  readonly ops: readonly Op[];
  readonly topics: readonly string[];
  /** Whose address it is no longer; absent: it was nobody's, and who is stored later finds its lease gone. */
  readonly loser?: Obj;
}

/** Who gives way to whom, whatever their age: what is a service's is on every node, and a network's before there is anything on it. */
const RANK: readonly string[] = ['endpoint', 'service', 'network'];

/**
 * Whether `own` gives way to `holder`. Between endpoints the age of their leases decides; of a service every node speaks, and not each has heard when
 * its lease was taken: there the age of the records does, which is the same everywhere.
 */
function givesWay(mine: Claim, there: Entry<HeldLease>, own: Obj, holder: Obj): boolean {
  const [a, b] = [own, holder].map(({ kind }) => RANK.indexOf(kind)) as [number, number];
  if (a !== b) return a < b;
  if (own.kind === 'endpoint') return (mine.lease.since ?? 0) > since(there);
  return own.createdAt === holder.createdAt ? own.id > holder.id : own.createdAt > holder.createdAt;
}

/**
 * Whose the address is that `mine` claims and `there` has: the older one's of two endpoints or two services; else the network's, then the service's.
 * `own`: the record of `mine`'s owner; `holder`: that of the other's. Null: neither can let go, as between two networks.
 */
export function judge(
  mine: Claim,
  there: Entry<HeldLease>,
  own: Entry<Obj>,
  holder: Entry<Obj> | undefined,
): Verdict | null {
  const take: Op = { op: 'put', key: mine.key, value: mine.lease, expect: there.revision };
  if (!holder) return { ops: [take], topics: [] };
  if (own.value.kind === 'network' && holder.value.kind === 'network') return null;
  const loses = givesWay(mine, there, own.value, holder.value);
  const [loser, winner] = loses ? [own, holder] : [holder, own];
  const { spec } = loser.value as Endpoint | Service;
  const contested = { address: mine.lease.address, by: `${winner.value.kind} ${winner.value.name}` };
  const ops: Op[] = [loses ? { op: 'check', key: mine.key, expect: there.revision } : take];
  if (JSON.stringify(spec.contested) !== JSON.stringify(contested))
    ops.push({
      op: 'put',
      key: loser.key,
      value: { ...loser.value, spec: { ...spec, contested } },
      expect: loser.revision,
    });
  return { ops, topics: topicsOf(loser.value, spec.network), loser: loser.value };
}
