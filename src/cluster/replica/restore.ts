/** Puts a node's copies back into a shared store that lost them, under a lock; what is to be put back plan.ts says. */
import type { Clock } from '../../clock.ts';
import type { Op, Session, Store } from '../../contracts/store.ts';
import { isSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { clusterTopic, networkTopic } from '../../model/keys.ts';
import { networkOf, ownerTopic, restoreDonePrefix, restoreMarkPrefix, restoreOriginKey } from './concern.ts';
import { type Mark, type Mine, planRestore, referencesOf } from './plan.ts';

/** Name of the lock, a session. */
const LOCK = 'restore';
/** Pause before the lock is asked for again, milliseconds. */
const AGAIN_MS = 50;
/** Records in one transaction. */
const RECORDS_MAX = 100;

export interface RestoreOptions {
  readonly remote: Store;
  readonly clock: Clock;
  readonly logger?: Logger;
  readonly mine: Mine;
  /** Time of the lock after its last renewal, milliseconds. */
  readonly lockMs: number;
  readonly signal: AbortSignal;
}

/** Rejects when the store goes away or changes again meanwhile: what was put back stays, and another attempt goes on. */
export async function restore({ remote, clock, logger, mine, lockMs, signal }: RestoreOptions): Promise<void> {
  const startedAt = clock.monotonic();
  const lock = await take(remote, clock, lockMs, signal);
  try {
    const to = remote.incarnation;
    const { items, revision } = await remote.list('');
    const plan = planRestore(mine, to, items, revision);
    const { origin, first, outdated, puts, deletes } = plan;
    const ops = deletes.map(({ key, expect }): Op => ({ op: 'delete', key, expect }));
    // What all know is deleted by the first: whoever comes later takes it for theirs.
    if (first) ops.push({ op: 'put', key: restoreOriginKey, value: origin }, ...outdated);
    await remote.transact(ops, { session: lock, topics: topicsFor(deletes) });
    for (let at = 0; at < puts.length; at += RECORDS_MAX) {
      const some = puts.slice(at, at + RECORDS_MAX);
      const mark: Mark = { to, revisions: Object.fromEntries(some.map(({ key, was }) => [key, was])) };
      const ops = some.map(({ key, value, expect }): Op => ({ op: 'put', key, value, expect }));
      for (const key of new Set(some.flatMap(({ key, value }) => referencesOf(key, value))))
        ops.push({ op: 'put', key, value: {} });
      // A mark is written with what it marks: its own revision is theirs.
      ops.push({ op: 'put', key: `${restoreMarkPrefix}${mine.node}/${revision}-${at}`, value: mark });
      await remote.transact(ops, { session: lock, topics: topicsFor(some) });
      await lock.renew();
    }
    const done: Mark = { to, revisions: {} };
    await remote.transact([{ op: 'put', key: restoreDonePrefix + mine.node, value: done }], {
      session: lock,
      topics: [],
    });
    const ms = Math.round(clock.monotonic() - startedAt);
    const counts = { restored: puts.length, deleted: deletes.length, ms };
    logger?.warn(
      { incarnation: to, before: mine.incarnation, first, ...counts },
      'store restored from the copies here',
    );
  } finally {
    // Where it cannot be given back it ends by itself.
    await lock
      .end()
      .catch((error: unknown) => logger?.warn({ err: error }, 'the lock of the restoring was not given back'));
  }
}

function topicsFor(records: readonly { readonly value: unknown }[]): string[] {
  const networks = records.flatMap(({ value }) => networkOf(value) ?? []).map(networkTopic);
  return [...new Set([clusterTopic, ...networks, ...records.flatMap(({ value }) => ownerTopic(value))])];
}

async function take(remote: Store, clock: Clock, lockMs: number, signal: AbortSignal): Promise<Session> {
  for (;;) {
    try {
      return await remote.session(LOCK, lockMs);
    } catch (error) {
      if (!isSluiceError(error, 'store.conflict')) throw error;
      await clock.sleep(AGAIN_MS, signal);
    }
  }
}
