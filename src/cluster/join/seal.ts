/** A host's own store that can be closed to writers: what is written after it was read for a cluster nobody would take along. */
import type { Op, Session, Store, TransactOptions, WatchEvent } from '../../contracts/store.ts';
import { SluiceError } from '../../errors.ts';

export class Sealable implements Store {
  readonly #store: Store;
  #sealed = false;

  constructor(store: Store) {
    this.#store = store;
  }

  /** From now on writes fail with `store.unavailable`. One that was accepted is in what is read after this. */
  seal(): void {
    this.#sealed = true;
  }

  unseal(): void {
    this.#sealed = false;
  }

  /** Writes in spite of the seal. */
  mark(op: Op): Promise<number> {
    return this.#store.transact([op], { topics: [] });
  }

  get incarnation(): string {
    return this.#store.incarnation;
  }
  get<T>(key: string) {
    return this.#store.get<T>(key);
  }
  list<T>(prefix: string) {
    return this.#store.list<T>(prefix);
  }
  async transact(ops: readonly Op[], options?: TransactOptions): Promise<number> {
    if (this.#sealed && ops.some(({ op }) => op !== 'check'))
      throw new SluiceError(
        'store.unavailable',
        'this host is joining a cluster: nothing can be changed until its daemon runs with the store of that; what runs goes on',
      );
    return this.#store.transact(ops, options);
  }
  watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncIterable<WatchEvent> {
    return this.#store.watch(topics, from, signal);
  }
  session(name: string, ttlMs: number): Promise<Session> {
    return this.#store.session(name, ttlMs);
  }
  close(): Promise<void> {
    return this.#store.close();
  }
}
