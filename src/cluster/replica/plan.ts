/**
 * What a node puts back into a shared store that was emptied, or that an older copy took the place of: pure. Nodes do so one after the other,
 * each what it has; of several copies of a record the newest one wins, and what was written or deleted in the new incarnation stays so.
 */
import type { Entry, Op } from '../../contracts/store.ts';
import { objectPrefix, poolKey, referenceKey } from '../../model/keys.ts';
import type { Network } from '../../model/network.ts';
import type { Obj } from '../../model/object.ts';
import { aged } from './assertion.ts';
import {
  isKnownToAll,
  isOfObject,
  isOwnObject,
  isOwnRecord,
  networkOf,
  restoreDonePrefix,
  restoreOriginKey,
  restorePrefix,
  writerOf,
} from './concern.ts';

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
  /** What every node would know, or this node alone writes, and it does not know. */
  readonly deletes: readonly { readonly key: string; readonly value: unknown; readonly expect: number }[];
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
  const done = new Set<string>();
  for (const { key, value, revision: at } of items) {
    if (!key.startsWith(restorePrefix) || key === restoreOriginKey) continue;
    const mark = value as Mark;
    if (mark.to === to && key.startsWith(restoreDonePrefix)) done.add(key.slice(restoreDonePrefix.length));
    if (mark.to === to) for (const [which, was] of Object.entries(mark.revisions)) marks.set(which, { was, at });
    else outdated.push({ op: 'delete', key, expect: at });
  }
  const there = new Map(items.filter(({ key }) => !key.startsWith(restorePrefix)).map((item) => [item.key, item]));
  const sameOrigin = origin.from === mine.incarnation;
  /** Revision that what is there had in the old incarnation; undefined: it was written in this one. */
  const before = ({ key, revision: at }: Entry): number | undefined => {
    const mark = marks.get(key);
    if (mark?.at === at) return mark.was;
    return at <= origin.base ? at : undefined;
  };
  /** Whether nobody else writes it: then the copy here is the newest there is, whatever became of the store meanwhile. */
  const isMine = (key: string, value: unknown): boolean =>
    isOwnObject(key, value, mine.node) || isOwnRecord(key, mine.node);
  // Of what only one node writes that one's word counts, once it has put back what it had: the others' copies may be of what it deleted.
  const settled = mine.copies.filter(({ key, value }) => done.has(writerOf(key, value) ?? '') && !there.has(key));
  const past = new Set(settled.map(({ value }) => (value as Obj).id));
  // Where a node has endpoints on a network, nobody can have removed that: it goes back with them, whoever else forgot it.
  const needed = usedNetworks(mine.copies, (node) => node === mine.node);
  const kept = usedNetworks([...there.values()], (node) => done.has(node ?? ''));
  const puts: { key: string; value: unknown; expect: number; was: number }[] = [];
  for (const { key, value, revision: was } of mine.copies) {
    const found = there.get(key);
    const mark = marks.get(key);
    if (found) {
      const at = before(found);
      const isNewer = isMine(key, value)
        ? !same(found.value, value)
        : sameOrigin && was > (at ?? Number.POSITIVE_INFINITY);
      if (at !== undefined && isNewer) puts.push({ key, value: aged(key, value, was), expect: found.revision, was });
    } else if (
      !mark &&
      !isOfObject(key, value, past) &&
      (needed(key, value) || !(isKnownToAll(key, value) && (!sameOrigin || (!first && was <= origin.followed))))
    )
      puts.push({ key, value: aged(key, value, was), expect: 0, was });
  }
  const copied = new Set(mine.copies.map(({ key }) => key));
  const gone = [...there.values()].filter((entry) => !copied.has(entry.key) && before(entry) !== undefined);
  /** Whether all nodes had heard of it at this one's place: then it was deleted since, though an earlier one that knew less put it back. */
  const wasDeleted = (entry: Entry): boolean =>
    sameOrigin &&
    before(entry)! <= mine.revision &&
    isKnownToAll(entry.key, entry.value) &&
    !kept(entry.key, entry.value);
  const own = gone.filter(({ key, value }) => isOwnObject(key, value, mine.node));
  const ids = new Set(own.map(({ value }) => (value as Obj).id));
  const deletes = gone.filter(
    (entry) => wasDeleted(entry) || isMine(entry.key, entry.value) || isOfObject(entry.key, entry.value, ids),
  );
  // Of networks that get users again that is written anew, with them.
  const referred = new Set(puts.flatMap(({ key, value }) => referencesOf(key, value)));
  return {
    origin,
    first,
    outdated,
    puts: puts.filter(({ key }) => !referred.has(key)),
    deletes: deletes.map(({ key, value, revision: expect }) => ({ key, value, expect })),
  };
}

/**
 * What is written along with a record that is put back: a removal of its network that looked for users before finds by it that there are some
 * (see `referenceKey`).
 */
export function referencesOf(key: string, value: unknown): string[] {
  const isUser = key.startsWith(objectPrefix('endpoint')) || key.startsWith(objectPrefix('service'));
  const network = isUser ? networkOf(value) : undefined;
  return network === undefined ? [] : [referenceKey('network', network)];
}

/** Whether a record is of a network that is in use: itself, its name, its number, one of its pools. */
type Used = (key: string, value: unknown) => boolean;

/** Networks on which there are endpoints of a node whose word counts. */
function usedNetworks(entries: readonly Entry[], counts: (node: string | undefined) => boolean): Used {
  const ids = new Set<string>();
  for (const { key, value } of entries) {
    const network =
      key.startsWith(objectPrefix('endpoint')) && counts(writerOf(key, value)) ? networkOf(value) : undefined;
    if (network !== undefined) ids.add(network);
  }
  const pools = new Set<string>();
  for (const { key, value } of entries)
    if (key.startsWith(objectPrefix('network')) && ids.has((value as Network).id))
      for (const { pool } of (value as Network).spec?.subnets ?? []) pools.add(poolKey(pool));
  return (key, value) => isOfObject(key, value, ids) || pools.has(key);
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
