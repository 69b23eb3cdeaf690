/**
 * Small numbers that BPF maps use instead of ids. Persisted on the node before use, ever rising, never used again for something else: a
 * pinned map may outlive the thing.
 */
import type { Store } from '../contracts/store.ts';
import { counterKey, type NumberSpace, nodeTopic, numberKey, numberPrefix } from '../model/keys.ts';
import { retrying } from './records.ts';

export class Numbers {
  readonly #store: Store;
  readonly #node: string;
  readonly #known = new Map<string, number>();
  readonly #pending = new Map<string, Promise<number>>();

  constructor(store: Store, node: string) {
    this.#store = store;
    this.#node = node;
  }

  /** The number of the key, given at its first use. */
  async allocate(space: NumberSpace, key: string): Promise<number> {
    const path = numberKey(this.#node, space, key);
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const pending =
      this.#pending.get(path) ?? retrying(() => this.#give(space, path)).finally(() => this.#pending.delete(path));
    this.#pending.set(path, pending);
    const number = await pending;
    this.#known.set(path, number);
    return number;
  }

  async release(space: NumberSpace, key: string): Promise<void> {
    const path = numberKey(this.#node, space, key);
    this.#known.delete(path);
    if (await this.#store.get(path))
      await this.#store.transact([{ op: 'delete', key: path }], { topics: [nodeTopic(this.#node)] });
  }

  async all(space: NumberSpace): Promise<Map<string, number>> {
    const prefix = numberPrefix(this.#node, space);
    return new Map(
      (await this.#store.list<number>(prefix)).items.map(({ key, value }) => [key.slice(prefix.length), value]),
    );
  }

  /** From now on numbers are at least `least`. */
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
    const key = counterKey(this.#node, space);
    const counter = await this.#store.get<number>(key);
    const number = counter?.value ?? 1;
    await this.#store.transact(
      [
        { op: 'put', key, value: number + 1, expect: counter?.revision ?? 0 },
        { op: 'put', key: path, value: number, expect: 0 },
      ],
      { topics: [nodeTopic(this.#node)] },
    );
    return number;
  }
}
