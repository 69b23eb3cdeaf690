/** Takes a single host's records along into the store of a cluster. */
import type { Store } from '../../contracts/store.ts';
import { SluiceError } from '../../errors.ts';
import { clusterTopic, networkTopic } from '../../model/keys.ts';
import { networkOf, ownerTopic } from '../replica/concern.ts';
import { joinedKey, planJoin } from './plan.ts';
import type { Sealable } from './seal.ts';

/** Records in one transaction. */
const RECORDS_MAX = 100;
/** Rounds in which what was written meanwhile is taken along, before writing ends. */
const ROUNDS_MAX = 10;

/** Written into the host's own store when everything is in the cluster's. */
export interface Joined {
  /** Where the cluster's store is, without a password. */
  readonly store: string;
  /** The name under which the records are the host's. */
  readonly node: string;
}

/**
 * Copies every record of `local` to `remote`, and marks `local`, to which nothing can be written from the last copy on. Rejects with
 * `cluster.conflict` (details: `conflicts`) before anything is written where both have something of the same name; then, and when `remote` fails,
 * `local` takes writes again. An attempt that was cut off may be made again. Resolves to the number of records.
 */
export async function join(local: Sealable, remote: Store, joined: Joined): Promise<number> {
  let written = 0;
  try {
    for (let round = 1, sealed = false; ; round++) {
      const count = await copy(local, remote);
      written += count;
      if (sealed) break;
      // Little is left: the last round, in which nobody writes, is short.
      if (count <= RECORDS_MAX || round === ROUNDS_MAX) {
        local.seal();
        sealed = true;
      }
    }
    await local.mark({ op: 'put', key: joinedKey, value: joined });
    return written;
  } catch (error) {
    local.unseal();
    throw error;
  }
}

/** Writes what `remote` lacks of `local`; how many records. */
async function copy(local: Store, remote: Store): Promise<number> {
  const [mine, theirs] = [await local.list(''), await remote.list('')];
  const { puts, conflicts } = planJoin(mine.items, theirs.items);
  if (conflicts.length > 0) {
    const list =
      conflicts.slice(0, 20).join(', ') + (conflicts.length > 20 ? ` and ${conflicts.length - 20} more` : '');
    throw new SluiceError('cluster.conflict', `both this host and the cluster have: ${list}; nothing was taken along`, {
      conflicts,
    });
  }
  for (let at = 0; at < puts.length; at += RECORDS_MAX) {
    const some = puts.slice(at, at + RECORDS_MAX);
    const networks = some.flatMap(({ value }) => networkOf(value) ?? []).map(networkTopic);
    const topics = [...new Set([clusterTopic, ...networks, ...some.flatMap(({ value }) => ownerTopic(value))])];
    await remote.transact(some, { topics });
  }
  return puts.length;
}
