/** Addresses of endpoints and services: asked of the network's IPAM driver, given back, and errors with a name to them. */
import type { AddressRequest, IpamDriver, Lease } from '../contracts/driver.ts';
import type { Op, Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { contains, parseCidr } from '../model/ip.ts';
import { leaseKey, objectKey } from '../model/keys.ts';
import type { Network, SubnetSpec } from '../model/network.ts';
import type { Obj } from '../model/object.ts';
import type { Parts } from './records.ts';
import type { Undo } from './turn.ts';

export function ipamOf({ ipams }: Pick<Parts, 'ipams'>, name: string): IpamDriver {
  const ipam = ipams.get(name);
  if (!ipam)
    throw new SluiceError(
      'driver.unknown',
      `there is no IPAM driver ${name} (known: ${[...ipams.keys()].join(', ')})`,
      {
        ipam: name,
      },
    );
  return ipam;
}

export const subnetOf = (network: Network, address: string): SubnetSpec | undefined =>
  network.spec.subnets.find(({ cidr }) => contains(parseCidr(cidr), address));

/**
 * Leases from the first of the subnets that has room. `undo` gives it back. Fails as the last of them did. `standing`: checks, for the transaction that
 * stores the owner, that the lease was not lost or another's by then.
 */
export async function leaseFrom(
  parts: Pick<Parts, 'ipams' | 'store'>,
  network: Network,
  subnets: readonly SubnetSpec[],
  request: (subnet: SubnetSpec) => Omit<AddressRequest, 'pool'>,
  undo: Undo,
): Promise<{ readonly subnet: SubnetSpec; readonly address: string; readonly standing: readonly Op[] }> {
  const ipam = ipamOf(parts, network.spec.ipam);
  let full: unknown;
  for (const subnet of subnets) {
    try {
      const lease = await lend(parts.store, ipam, { ...request(subnet), pool: subnet.pool });
      undo(() => ipam.releaseAddress(lease.pool, lease.address, lease.owner));
      return { subnet, address: lease.address, standing: standingOf(lease) };
    } catch (error) {
      if (!isSluiceError(error, 'address.exhausted')) throw error;
      full = new SluiceError(error.code, `network ${network.name}: ${error.message}`, { ...error.details }, error);
    }
  }
  throw full;
}

const standingOf = ({ pool, address, revision }: Lease): Op[] =>
  revision === undefined ? [] : [{ op: 'check', key: leaseKey(pool, address), expect: revision }];

/** Gives addresses back; those whose network is gone went with its pools. */
export async function releaseAll(
  parts: Pick<Parts, 'ipams'>,
  network: Network | null,
  addresses: readonly string[],
  owner: string,
): Promise<void> {
  if (!network) return;
  const ipam = ipamOf(parts, network.spec.ipam);
  for (const text of addresses) {
    const address = text.split('/')[0]!;
    const subnet = subnetOf(network, address);
    if (subnet) await ipam.releaseAddress(subnet.pool, address, owner);
  }
}

/** A lease; where somebody has the address, the error says who by name. */
export async function lend(store: Store, ipam: IpamDriver, request: AddressRequest): Promise<Lease> {
  try {
    return await ipam.requestAddress(request);
  } catch (error) {
    if (!isSluiceError(error, 'address.inuse') || typeof error.details.owner !== 'string') throw error;
    const { owner, purpose } = error.details;
    const holder = await holderOf(store, owner);
    if (!holder) throw error;
    const as = holder.kind === 'network' ? ` (${purpose === 'aux' ? 'reserved' : purpose})` : '';
    throw new SluiceError(
      'address.inuse',
      `${request.address} belongs to ${holder.kind} ${holder.name}${as}`,
      { ...error.details, kind: holder.kind, name: holder.name },
      error,
    );
  }
}

async function holderOf(store: Store, id: string): Promise<Obj | null> {
  for (const kind of ['endpoint', 'service', 'network'] as const) {
    const entry = await store.get<Obj>(objectKey(kind, id));
    if (entry) return entry.value;
  }
  return null;
}
