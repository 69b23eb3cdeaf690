/**
 * What a node puts back into a shared store that was emptied, or that an older copy took the place of: pure. Nodes do so one after the other,
 * each what it has; of several copies of a record the newest one wins, and what was written or deleted in the new incarnation stays so.
 */
import type { Entry, Op } from '../../contracts/store.ts';
import { isKnownToAll, restoreOriginKey, restorePrefix } from './concern.ts';

/** Written by the first node that restores. */
export interface Origin {
  readonly from: string;
  readonly to: string;
  /** Revision of the store when it was found: what is there with at most this one is of the old incarnation. */
  readonly base: number;
  /** Revision of the old incarnation up to which the first node had heard of everything that all nodes hear of. */
  readonly followed: number;
  readonly node: string;
}

/** Which revisions the records that were restored together with this one had before. */
export interface Mark {
  readonly to: string;
  readonly revisions: Readonly<Record<string, number>>;
}

export interface Mine {
  readonly node: string;
  /** Incarnation that the copies are of, and up to which revision of it. */
  readonly incarnation: string;
  readonly revision: number;
  readonly copies: readonly Entry[];
}

export interface Restored {
  readonly origin: Origin;
  /** The origin is to be written, and marks of earlier restorings deleted. */
  readonly first: boolean;
  readonly outdated: readonly Op[];
  /** With the revision that the record had. */
  readonly puts: readonly {
    readonly key: string;
    readonly value: unknown;
    readonly expect: number;
    readonly was: number;
  }[];
  readonly deletes: readonly { readonly key: string; readonly expect: number }[];
}

/** `items`: everything that is in the store at `revision` of the incarnation `to`. */
export function planRestore(mine: Mine, to: string, items: readonly Entry[], revision: number): Restored {
  const known = items.find(({ key }) => key === restoreOriginKey)?.value as Origin | undefined;
  const first = known?.to !== to;
  const origin: Origin = first
    ? { from: mine.incarnation, to, base: revision, followed: mine.revision, node: mine.node }
    : known!;
  const marks = new Map<string, { readonly was: number; readonly at: number }>();
  const outdated: Op[] = [];
  for (const { key, value, revision: at } of items) {
    if (!key.startsWith(restorePrefix) || key === restoreOriginKey) continue;
    const mark = value as Mark;
    if (mark.to === to) for (const [which, was] of Object.entries(mark.revisions)) marks.set(which, { was, at });
    else outdated.push({ op: 'delete', key, expect: at });
  }
  const there = new Map(items.filter(({ key }) => !key.startsWith(restorePrefix)).map((item) => [item.key, item]));
  const sameOrigin = origin.from === mine.incarnation;
  const puts: { key: string; value: unknown; expect: number; was: number }[] = [];
  for (const { key, value, revision: was } of mine.copies) {
    const found = there.get(key);
    const mark = marks.get(key);
    if (found) {
      const before =
        mark?.at === found.revision ? mark.was : found.revision <= origin.base ? found.revision : undefined;
      if (sameOrigin && before !== undefined && was > before) puts.push({ key, value, expect: found.revision, was });
    } else if (!mark && !(isKnownToAll(key, value) && (!sameOrigin || (!first && was <= origin.followed))))
      puts.push({ key, value, expect: 0, was });
  }
  const copied = new Set(mine.copies.map(({ key }) => key));
  const deletes: { key: string; expect: number }[] = [];
  if (first)
    for (const { key, value, revision: at } of there.values())
      if (at <= mine.revision && isKnownToAll(key, value) && !copied.has(key)) deletes.push({ key, expect: at });
  return { origin, first, outdated, puts, deletes };
}
