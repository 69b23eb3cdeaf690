/**
 * Small numbers that BPF maps use instead of ids. Persisted on the node before use, ever rising, never used again for something else: a
 * pinned map may outlive the thing.
 */
import type { Op, Store } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { counterKey, type NumberSpace, nodeTopic, numberKey, numberPrefix } from '../model/keys.ts';
import { retrying, Turns } from './turn.ts';

/** They are 32 bits wide in the maps; 0 is nobody's. */
const NUMBER_MAX = 0xffff_ffff;

export class Numbers {
  readonly #store: Store;
  readonly #node: string;
  /** What was read or given before: numbers do not change. */
  readonly #known = new Map<string, number>();
  readonly #turns = new Turns();
  readonly #isApart: boolean;

  /** `isApart`: the objects are in another store. */
  constructor(store: Store, node: string, isApart = false) {
    this.#store = store;
    this.#node = node;
    this.#isApart = isApart;
  }

  /** The number of the key, given at its first use. */
  async allocate(space: NumberSpace, key: string): Promise<number> {
    const path = numberKey(this.#node, space, key);
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    return this.#turns.take(space, async () => {
      const number = await retrying(() => this.#give(space, path));
      this.#known.set(path, number);
      return number;
    });
  }

  /**
   * Numbers of what `write` makes, given in the same transaction; where that is another store's, each has its own at its first use. When `write` fails
   * none is given.
   */
  async allocateWith<T>(space: NumberSpace, keys: readonly string[], write: (ops: Op[]) => Promise<T>): Promise<T> {
    if (this.#isApart || keys.length === 0) return write([]);
    return this.#turns.take(space, async () => {
      const { first, ops } = await this.#next(space, keys.length);
      const numbered = keys.map((key, at) => ({ path: numberKey(this.#node, space, key), number: first + at }));
      const written = await write([...ops, ...numbered.map(({ path, number }) => given(path, number))]);
      for (const { path, number } of numbered) this.#known.set(path, number);
      return written;
    });
  }

  /** The number of the key, null: it has none. */
  async get(space: NumberSpace, key: string): Promise<number | null> {
    const path = numberKey(this.#node, space, key);
    return this.#known.get(path) ?? (await this.#store.get<number>(path))?.value ?? null;
  }

  /** The key's next number will be another one. Absent succeeds. */
  async release(space: NumberSpace, key: string): Promise<void> {
    const path = numberKey(this.#node, space, key);
    await this.#turns.take(space, async () => {
      await this.#store.transact([{ op: 'delete', key: path }], { topics: [nodeTopic(this.#node)] });
      this.#known.delete(path);
    });
  }

  /** Releases those of a space whose key is not among the living. To be called while nobody allocates. */
  async collect(space: NumberSpace, isLiving: (key: string) => boolean): Promise<void> {
    for (const key of (await this.all(space)).keys()) if (!isLiving(key)) await this.release(space, key);
  }

  /**
   * The same as part of the transaction by which `write` forgets the object; where that is another store's, after it. A number that a crash leaves then
   * is found by `collect`.
   */
  async releaseWith(space: NumberSpace, key: string, write: (ops: Op[]) => Promise<unknown>): Promise<void> {
    if (this.#isApart) {
      await write([]);
      await this.release(space, key);
      return;
    }
    const path = numberKey(this.#node, space, key);
    await this.#turns.take(space, async () => {
      await write([{ op: 'delete', key: path }]);
      this.#known.delete(path);
    });
  }

  async all(space: NumberSpace): Promise<Map<string, number>> {
    const prefix = numberPrefix(this.#node, space);
    return new Map(
      (await this.#store.list<number>(prefix)).items.map(({ key, value }) => [key.slice(prefix.length), value]),
    );
  }

  /** From now on numbers are at least `least`: above what a pinned map holds although the store is new. */
  async floor(space: NumberSpace, least: number): Promise<void> {
    await retrying(async () => {
      const key = counterKey(this.#node, space);
      const counter = await this.#store.get<number>(key);
      if ((counter?.value ?? 1) >= least) return;
      await this.#store.transact([{ op: 'put', key, value: least, expect: counter?.revision ?? 0 }], {
        topics: [nodeTopic(this.#node)],
      });
    });
  }

  async #give(space: NumberSpace, path: string): Promise<number> {
    const there = await this.#store.get<number>(path);
    if (there) return there.value;
    const { first, ops } = await this.#next(space, 1);
    await this.#store.transact([...ops, given(path, first)], { topics: [nodeTopic(this.#node)] });
    return first;
  }

  /** The next numbers, and the writes that take them. */
  async #next(space: NumberSpace, count: number): Promise<{ readonly first: number; readonly ops: readonly Op[] }> {
    const key = counterKey(this.#node, space);
    const counter = await this.#store.get<number>(key);
    const first = counter?.value ?? 1;
    if (first + count - 1 > NUMBER_MAX)
      throw new SluiceError('internal', `the ${space} numbers of this node are used up`, { space });
    return { first, ops: [{ op: 'put', key, value: first + count, expect: counter?.revision ?? 0 }] };
  }
}

const given = (path: string, number: number): Op => ({ op: 'put', key: path, value: number, expect: 0 });
