/**
 * Watches over streams of Redis. A watcher holds its place and one page; what there is it reads by a script, which says also
 * whether it lost something, and only to wait it has a connection of its own. Redis away: it waits and goes on from its place.
 */
import type { Clock } from '../../clock.ts';
import type { Change, WatchEvent } from '../../contracts/store.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { Connection } from './connection.ts';
import { type RedisStore, streamKey } from './redis.ts';
import { SCRIPTS } from './script.ts';

/** Changes of one stream that are read at once. */
const PAGE = 256;
/** Longest wait in Redis, milliseconds: then it looks whether it still is the same Redis. */
const BLOCK_MS = 2_000;
/** Pause before it asks a Redis again that is away, milliseconds. */
const AGAIN_MS = 100;

/** An entry of a stream as Redis tells it: its id and the fields `entries` and `actor`. */
type Logged = readonly [id: string, fields: readonly [string, string, string, string]];

/** See `Store.watch`. `closing` ends it with `store.unavailable`. */
export async function* follow(
  store: RedisStore,
  topics: readonly string[],
  from: number,
  signal: AbortSignal,
  closing: AbortSignal,
  { clock, connection }: { readonly clock: Clock; readonly connection: Connection },
): AsyncGenerator<WatchEvent> {
  const streams = [...new Set(topics)].map(streamKey);
  const ended = AbortSignal.any([signal, closing]);
  let incarnation = store.incarnation;
  let at = from;
  let waiter: Connection | undefined;
  const close = (): void => waiter?.close();
  ended.addEventListener('abort', close, { once: true });
  try {
    while (!ended.aborted) {
      try {
        const [, revision, relist, pages] = await store.call(SCRIPTS.read, streams, [String(at), String(PAGE)]);
        if (relist === 1 || store.incarnation !== incarnation) {
          incarnation = store.incarnation;
          at = Number(revision);
          yield { type: 'relist', revision: at };
          continue;
        }
        const { changes, whole } = merge(pages as Logged[][]);
        for (const change of changes) {
          if (ended.aborted) break;
          at = change.revision;
          yield { type: 'change', change };
        }
        if (!whole || ended.aborted) continue;
        at = Math.max(at, Number(revision));
        waiter ??= connection.another();
        await waiter.awaitStreams(streams, at, BLOCK_MS);
      } catch (error) {
        if (!isSluiceError(error, 'store.unavailable')) throw error;
        await clock.sleep(AGAIN_MS, ended).catch(() => undefined);
      }
    }
    if (!signal.aborted) throw new SluiceError('store.unavailable', 'the store is closed');
  } finally {
    ended.removeEventListener('abort', close);
    close();
  }
}

/** Pages of several streams as one, in order, each change once; not beyond the end of a page that was full. */
export function merge(pages: readonly (readonly Logged[])[], page = PAGE): { changes: Change[]; whole: boolean } {
  const revisionOf = ([id]: Logged): number => Number(id.slice(0, id.indexOf('-')));
  const ends = pages.filter((logged) => logged.length >= page).map((logged) => revisionOf(logged.at(-1)!));
  const end = Math.min(...ends, Number.POSITIVE_INFINITY);
  const found = new Map<number, Logged>();
  for (const logged of pages) for (const one of logged) if (revisionOf(one) <= end) found.set(revisionOf(one), one);
  const changes = [...found]
    .sort(([a], [b]) => a - b)
    .map(([revision, [, fields]]): Change => {
      const actor = fields[3];
      return { revision, entries: JSON.parse(fields[1]) as Change['entries'], ...(actor !== '' && { actor }) };
    });
  return { changes, whole: ends.length === 0 };
}
