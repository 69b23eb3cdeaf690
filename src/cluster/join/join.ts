/** Takes a single host's records along into the store of a cluster. */
import type { Op, Store } from '../../contracts/store.ts';
import { SluiceError } from '../../errors.ts';
import { clusterTopic, networkTopic } from '../../model/keys.ts';
import { networkOf, ownerTopic } from '../replica/concern.ts';
import { joinedKey, planJoin } from './plan.ts';

/** Records in one transaction. */
const RECORDS_MAX = 100;
/** Attempts at records that somebody goes on writing. */
const ROUNDS_MAX = 10;

/** Written into the host's own store when everything is in the cluster's. */
export interface Joined {
  /** Where the cluster's store is, without a password. */
  readonly store: string;
  /** The name under which the records are the host's. */
  readonly node: string;
}

/**
 * Copies every record of `local` to `remote`, and marks `local`, in which nothing may be written from then on. Rejects with `cluster.conflict`
 * (details: `conflicts`) before anything is written where both have something of the same name. An attempt that was cut off may be made
 * again. Resolves to the number of records.
 */
export async function join(local: Store, remote: Store, joined: Joined): Promise<number> {
  let written = 0;
  for (let round = 0; round < ROUNDS_MAX; round++) {
    const [mine, theirs] = [await local.list(''), await remote.list('')];
    const { puts, conflicts } = planJoin(mine.items, theirs.items);
    if (conflicts.length > 0) {
      const list =
        conflicts.slice(0, 20).join(', ') + (conflicts.length > 20 ? ` and ${conflicts.length - 20} more` : '');
      throw new SluiceError(
        'cluster.conflict',
        `both this host and the cluster have: ${list}; nothing was taken along`,
        {
          conflicts,
        },
      );
    }
    for (let at = 0; at < puts.length; at += RECORDS_MAX) {
      const some = puts.slice(at, at + RECORDS_MAX);
      const networks = some.flatMap(({ value }) => networkOf(value) ?? []).map(networkTopic);
      const topics = [...new Set([clusterTopic, ...networks, ...some.flatMap(({ value }) => ownerTopic(value))])];
      await remote.transact(some, { topics });
    }
    written += puts.length;
    // Whatever was written meanwhile is taken along in another round.
    if ((await local.transact([])) === mine.revision) {
      const mark: Op = { op: 'put', key: joinedKey, value: joined };
      await local.transact([mark], { topics: [] });
      return written;
    }
  }
  throw new SluiceError('store.conflict', 'this host goes on changing; once it is at rest it may be tried again');
}
