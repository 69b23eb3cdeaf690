/**
 * Copies of the shared store's records in a store of this node alone, each with the revision that it has there. They belong to one incarnation
 * of the shared store, and are complete, as far as they concern the node, up to one revision of it.
 */
import type { Clock } from '../../clock.ts';
import type { Change, Entry, Op, Store } from '../../contracts/store.ts';
import { concerns, isMomentary, type Known, knownOf, ownNetworkOf, restorePrefix } from './concern.ts';

const PREFIX = 'copy/';
/** Of the shared store that the copies are of; absent: there are none yet. */
export const PLACE = 'place';
/** Operations of one local transaction. */
const OPS_MAX = 500;
/** How far the kept place lags behind while news are none of this node's, milliseconds: a restart takes them again from the log. */
const PLACE_MS = 1_000;

interface Copy {
  readonly value: unknown;
  readonly revision: number;
}

/** How far the copies go; `incarnation` is empty where there are none yet. */
export interface Place {
  readonly incarnation: string;
  readonly revision: number;
}

/** Who writes a lease or a name knows of the object that it is for. */
const WRITER: Known = { knows: () => true, networks: new Set() };

const isKept = ({ key }: { readonly key: string }): boolean => !key.startsWith(restorePrefix) && !isMomentary(key);

export type Written = Pick<Entry, 'key' | 'revision'> & { readonly value: unknown | null };

export class Copies {
  readonly #local: Store;
  readonly #node: string;
  readonly #known = new Map<string, Copy>();
  /** Keys that were deleted while a list was under way, which may still have them. */
  #deleted: Map<string, number> | undefined;
  #place: Place;
  /** The place as it is kept, and when that was written. */
  #keptPlace: Place;
  #keptAtMs = Number.NEGATIVE_INFINITY;
  /** The node's own endpoints by network. */
  readonly #endpoints = new Map<string, number>();
  readonly #clock: Clock;

  private constructor(local: Store, node: string, clock: Clock, place: Place, items: readonly Entry<Copy>[]) {
    this.#local = local;
    this.#node = node;
    this.#clock = clock;
    this.#place = place;
    this.#keptPlace = place;
    for (const { key, value } of items) this.#set(key.slice(PREFIX.length), value);
  }

  static async open(local: Store, node: string, clock: Clock): Promise<Copies> {
    const place = (await local.get<Place>(PLACE))?.value ?? { incarnation: '', revision: 0 };
    return new Copies(local, node, clock, place, (await local.list<Copy>(PREFIX)).items);
  }

  get place(): Place {
    return this.#place;
  }

  /** Newest revision that is known of: the place lags behind, also what this node wrote itself, and a crash leaves it there. */
  get newest(): number {
    let newest = this.#place.revision;
    for (const { revision } of this.#known.values()) newest = Math.max(newest, revision);
    return newest;
  }

  /** Networks on which the node has an endpoint. */
  networks(): string[] {
    return [...this.#endpoints.keys()].sort();
  }

  get<T>(key: string): Entry<T> | null {
    const copy = this.#known.get(key);
    // A copy of the copy: nobody changes what is kept through a reference.
    return copy ? { key, value: structuredClone(copy.value) as T, revision: copy.revision } : null;
  }

  list<T>(prefix: string): Entry<T>[] {
    const keys = [...this.#known.keys()].filter((key) => key.startsWith(prefix)).sort();
    return keys.map((key) => this.get<T>(key)!);
  }

  /** What the node itself wrote. */
  async wrote(entries: readonly Written[]): Promise<void> {
    await this.#take(
      entries.filter(
        ({ key, value }) => value === null || this.#known.has(key) || concerns(key, value, this.#node, WRITER),
      ),
    );
  }

  /** A change on one of the topics that the node follows. */
  async heard({ revision, entries }: Change): Promise<void> {
    const place = { incarnation: this.#place.incarnation, revision: Math.max(revision, this.#place.revision) };
    await this.#take(entries.filter(isKept), place);
  }

  /**
   * The same before the place has come there: somebody here is about to act upon it, and a daemon that is killed then and starts while the store
   * is away must not take that back.
   */
  async heardAhead({ revision, entries }: Change): Promise<void> {
    if (revision > this.#place.revision) await this.#take(entries.filter(isKept));
  }

  /** Replaces everything by what `list` answers, but for what was written meanwhile. */
  async replace(
    list: () => Promise<{ readonly items: readonly Entry[]; readonly revision: number }>,
    incarnationOf: () => string,
  ): Promise<void> {
    const deleted = new Map<string, number>();
    this.#deleted = deleted;
    try {
      const { items, revision } = await list();
      const incarnation = incarnationOf();
      const isOther = incarnation !== this.#place.incarnation;
      const known = knownOf(items, this.#node);
      const now = items.filter(({ key, value }) => concerns(key, value, this.#node, known));
      const keys = new Set(now.map(({ key }) => key));
      const entries: Written[] = now.filter(
        ({ key, revision: at }) =>
          (deleted.get(key) ?? 0) < at && (isOther || at > (this.#known.get(key)?.revision ?? 0)),
      );
      for (const [key, copy] of this.#known)
        if (!keys.has(key) && (isOther || copy.revision <= revision)) entries.push({ key, value: null, revision });
      await this.#write(entries, { incarnation, revision });
    } finally {
      this.#deleted = undefined;
    }
  }

  #set(key: string, copy: Copy | undefined): void {
    if (key.startsWith('endpoint/')) {
      for (const [value, by] of [
        [this.#known.get(key)?.value, -1],
        [copy?.value, 1],
      ] as const) {
        const network = ownNetworkOf(value, this.#node);
        if (network === undefined) continue;
        const count = (this.#endpoints.get(network) ?? 0) + by;
        if (count > 0) this.#endpoints.set(network, count);
        else this.#endpoints.delete(network);
      }
    }
    if (copy) this.#known.set(key, copy);
    else this.#known.delete(key);
  }

  async #take(entries: readonly Written[], place = this.#place): Promise<void> {
    for (const { key, value, revision } of entries) if (value === null) this.#deleted?.set(key, revision);
    const news = entries.filter(({ key, revision }) => revision > (this.#known.get(key)?.revision ?? 0));
    if (news.length > 0 || place !== this.#place) await this.#write(news, place);
  }

  async #write(entries: readonly Written[], place: Place): Promise<void> {
    for (const { key, value, revision } of entries) this.#set(key, value === null ? undefined : { value, revision });
    this.#place = place;
    const now = this.#clock.monotonic();
    if (entries.length === 0 && place.incarnation === this.#keptPlace.incarnation && now - this.#keptAtMs < PLACE_MS)
      return;
    const ops = entries.map(
      ({ key, value, revision }): Op =>
        value === null
          ? { op: 'delete', key: PREFIX + key }
          : { op: 'put', key: PREFIX + key, value: { value, revision } satisfies Copy },
    );
    // The place last: copies that a crash left half written are listed anew, or taken again from the log.
    if (place !== this.#keptPlace) ops.push({ op: 'put', key: PLACE, value: place });
    [this.#keptPlace, this.#keptAtMs] = [place, now];
    for (let at = 0; at < ops.length; at += OPS_MAX)
      await this.#local.transact(ops.slice(at, at + OPS_MAX), { topics: [] });
  }
}
