/**
 * Copies of the shared store's records in a store of this node alone, each with the revision that it has there. They belong to one incarnation
 * of the shared store, and are complete, as far as they concern the node, up to one revision of it.
 */
import type { Change, Entry, Op, Store } from '../../contracts/store.ts';
import { concerns, type Known, knownOf, restorePrefix } from './concern.ts';

const PREFIX = 'copy/';
/** Of the shared store that the copies are of; absent: there are none yet. */
export const PLACE = 'place';
/** Operations of one local transaction. */
const OPS_MAX = 500;

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

export type Written = Pick<Entry, 'key' | 'revision'> & { readonly value: unknown | null };

export class Copies {
  readonly #local: Store;
  readonly #node: string;
  readonly #known = new Map<string, Copy>();
  /** Keys that were deleted while a list was under way, which may still have them. */
  #deleted: Map<string, number> | undefined;
  #place: Place;

  private constructor(local: Store, node: string, place: Place, items: readonly Entry<Copy>[]) {
    this.#local = local;
    this.#node = node;
    this.#place = place;
    for (const { key, value } of items) this.#known.set(key.slice(PREFIX.length), value);
  }

  static async open(local: Store, node: string): Promise<Copies> {
    const place = (await local.get<Place>(PLACE))?.value ?? { incarnation: '', revision: 0 };
    return new Copies(local, node, place, (await local.list<Copy>(PREFIX)).items);
  }

  get place(): Place {
    return this.#place;
  }

  /** Networks on which the node has an endpoint. */
  networks(): string[] {
    return [...knownOf(this.#records(), this.#node).networks].sort();
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
    await this.#take(
      entries.filter(({ key }) => !key.startsWith(restorePrefix)),
      { incarnation: this.#place.incarnation, revision: Math.max(revision, this.#place.revision) },
    );
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

  #records(): { key: string; value: unknown }[] {
    return [...this.#known].map(([key, { value }]) => ({ key, value }));
  }

  async #take(entries: readonly Written[], place = this.#place): Promise<void> {
    for (const { key, value, revision } of entries) if (value === null) this.#deleted?.set(key, revision);
    const news = entries.filter(({ key, revision }) => revision > (this.#known.get(key)?.revision ?? 0));
    if (news.length > 0 || place !== this.#place) await this.#write(news, place);
  }

  async #write(entries: readonly Written[], place: Place): Promise<void> {
    for (const { key, value, revision } of entries) {
      if (value === null) this.#known.delete(key);
      else this.#known.set(key, { value, revision });
    }
    this.#place = place;
    const ops = entries.map(
      ({ key, value, revision }): Op =>
        value === null
          ? { op: 'delete', key: PREFIX + key }
          : { op: 'put', key: PREFIX + key, value: { value, revision } satisfies Copy },
    );
    // The place last: copies that a crash left half written are listed anew, or taken again from the log.
    for (let at = 0; at < ops.length; at += OPS_MAX)
      await this.#local.transact(ops.slice(at, at + OPS_MAX), { topics: [] });
    await this.#local.transact([{ op: 'put', key: PLACE, value: place }], { topics: [] });
  }
}
