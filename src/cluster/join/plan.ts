/** What of a single host's records goes into a cluster's store, and what stands in the way: pure. */
import type { Entry, Op } from '../../contracts/store.ts';
import { beatPrefix, poolGuardKey } from '../../model/keys.ts';
import { isForeign, restorePrefix } from '../replica/concern.ts';

/** Says in a host's own store which cluster its records went to. */
export const joinedKey = 'joined';

export interface Joining {
  /** Every record, as it is to be in the cluster. */
  readonly puts: readonly (Op & { readonly op: 'put' })[];
  /** In words: names and numbers that are the cluster's already. */
  readonly conflicts: readonly string[];
}

interface Claim {
  readonly id?: string;
}

/** `name/service/host-1/shop` → `service shop`; null: the record is no claim that only one can have. */
function claimOf(key: string): string | null {
  const [area, kind = '', , ...name] = key.split('/');
  if (area === 'vni') return `VXLAN network identifier ${kind}`;
  return area === 'name' ? `${kind} ${name.join('/')}` : null;
}

/**
 * `mine`: all records of the host; `theirs`: all of the cluster. Ids are drawn from 256 bits, so that only claims (names, VXLAN identifiers)
 * can be two things at once. What an attempt before this one brought over is there already, and written again where it has changed since. Of records
 * that only a newer version knows the cluster's stay: nothing here has changed the host's since.
 */
export function planJoin(mine: readonly Entry[], theirs: readonly Entry[]): Joining {
  const there = new Map(theirs.map((entry) => [entry.key, entry]));
  const puts: (Op & { op: 'put' })[] = [];
  const conflicts: string[] = [];
  for (const { key, value } of mine) {
    if (key === joinedKey || key.startsWith(beatPrefix) || key.startsWith(restorePrefix)) continue;
    const found = there.get(key);
    const claim = claimOf(key);
    if (found && claim !== null && (found.value as Claim).id !== (value as Claim).id) conflicts.push(claim);
    if (found && (isForeign(key) || JSON.stringify(found.value) === JSON.stringify(value))) continue;
    puts.push(
      key === poolGuardKey ? { op: 'put', key, value } : { op: 'put', key, value, expect: found?.revision ?? 0 },
    );
  }
  return { puts, conflicts };
}
