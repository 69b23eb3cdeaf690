/**
 * Watches over streams of Redis. A watcher holds its place and one page; what there is it reads by a script, which says also
 * whether it lost something. To wait it has a connection of its own, and takes what that brings where each entry says that it follows what is
 * known and was written by the same server; otherwise, and every few seconds, it asks the script. Redis away: it waits and goes on from its place.
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

/** An entry of a stream as Redis tells it: its id, then the fields `entries`, `actor`, `after` and `run`, each after its name. */
type Logged = readonly [id: string, fields: readonly string[]];

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
        const checkedAt = clock.monotonic();
        const [, revision, relist, pages, run] = await store.call(SCRIPTS.read, streams, [String(at), String(PAGE)]);
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
        while (!ended.aborted && clock.monotonic() - checkedAt < BLOCK_MS) {
          const brought = (await waiter.awaitStreams(streams, at, PAGE, BLOCK_MS)) as [string, Logged[]][] | null;
          const next = (brought ?? []).map(([, logged]) => logged);
          if (next.length === 0 || !follows(next, at, run as string)) break;
          for (const change of merge(next).changes) {
            if (ended.aborted) break;
            at = change.revision;
            store.saw(incarnation, at);
            yield { type: 'change', change };
          }
        }
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

const revisionOf = ([id]: Logged): number => Number(id.slice(0, id.indexOf('-')));

/**
 * Whether the pages begin where `at` ends, without a gap, and are of the same incarnation and server. An entry says which one was before it in its
 * stream (`after`); one that an older version wrote says nothing.
 */
export function follows(pages: readonly (readonly Logged[])[], at: number, run: string): boolean {
  return pages.every((logged) => {
    let last = at;
    return logged.every((one) => {
      const [, , , , , after, , by] = one[1];
      const isNext = by === run && Number(after) <= last;
      last = revisionOf(one);
      return isNext;
    });
  });
}

/** Pages of several streams as one, in order, each change once; not beyond the end of a page that was full. */
export function merge(pages: readonly (readonly Logged[])[], page = PAGE): { changes: Change[]; whole: boolean } {
  const ends = pages.filter((logged) => logged.length >= page).map((logged) => revisionOf(logged.at(-1)!));
  const end = Math.min(...ends, Number.POSITIVE_INFINITY);
  const found = new Map<number, Logged>();
  for (const logged of pages) for (const one of logged) if (revisionOf(one) <= end) found.set(revisionOf(one), one);
  const changes = [...found]
    .sort(([a], [b]) => a - b)
    .map(([revision, [, fields]]): Change => {
      const [, entries = '', , actor] = fields;
      return { revision, entries: JSON.parse(entries) as Change['entries'], ...(actor !== '' && { actor }) };
    });
  return { changes, whole: ends.length === 0 };
}
