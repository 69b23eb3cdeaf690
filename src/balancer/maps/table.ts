/**
 * A pinned map and what we know it to hold: read once at the start, written through. So an entry that is right costs no system
 * call, and an audit can tell what somebody else changed.
 */
import { mapDelete, mapEntries, mapUpdate } from '../../kernel/bpf/bpf.ts';
import type { Struct } from './struct.ts';

export interface Drift<K> {
  readonly key: K;
  /** As it stands in the map: a foreign key need not be one that we would write. */
  readonly bytes: Buffer;
  readonly was: 'missing' | 'changed' | 'foreign';
}

export class Table<K, V> {
  readonly name: string;
  readonly #fd: number;
  readonly #key: Struct<K>;
  readonly #value: Struct<V>;
  readonly #held = new Map<string, Buffer>();

  constructor(name: string, fd: number, key: Struct<K>, value: Struct<V>) {
    this.name = name;
    this.#fd = fd;
    this.#key = key;
    this.#value = value;
    for (const [bytes, held] of mapEntries(fd)) this.#held.set(bytes.toString('latin1'), Buffer.from(held));
  }

  get size(): number {
    return this.#held.size;
  }

  get(key: K): V | undefined {
    const held = this.#held.get(this.#key.encode(key).toString('latin1'));
    return held && this.#value.decode(held);
  }

  has(key: K): boolean {
    return this.#held.has(this.#key.encode(key).toString('latin1'));
  }

  /** True when something was written. */
  put(key: K, value: V): boolean {
    const keyBytes = this.#key.encode(key);
    const bytes = this.#value.encode(value);
    const name = keyBytes.toString('latin1');
    if (this.#held.get(name)?.equals(bytes)) return false;
    mapUpdate(this.#fd, keyBytes, bytes);
    this.#held.set(name, bytes);
    return true;
  }

  /** False when there was none. */
  delete(key: K): boolean {
    const bytes = this.#key.encode(key);
    mapDelete(this.#fd, bytes);
    return this.#held.delete(bytes.toString('latin1'));
  }

  *keys(): Iterable<K> {
    for (const name of [...this.#held.keys()]) yield this.#key.decode(Buffer.from(name, 'latin1'));
  }

  *entries(): Iterable<[K, V]> {
    for (const [name, value] of [...this.#held])
      yield [this.#key.decode(Buffer.from(name, 'latin1')), this.#value.decode(value)];
  }

  /** What the map holds otherwise than it should. Changes nothing. */
  drifts(): Drift<K>[] {
    const drifts: Drift<K>[] = [];
    const missing = new Set(this.#held.keys());
    for (const [keyBytes, value] of mapEntries(this.#fd)) {
      const name = keyBytes.toString('latin1');
      const held = this.#held.get(name);
      missing.delete(name);
      if (held?.equals(value)) continue;
      const bytes = Buffer.from(keyBytes);
      drifts.push({ key: this.#key.decode(bytes), bytes, was: held ? 'changed' : 'foreign' });
    }
    for (const name of missing) {
      const bytes = Buffer.from(name, 'latin1');
      drifts.push({ key: this.#key.decode(bytes), bytes, was: 'missing' });
    }
    return drifts;
  }

  /** Makes the map hold what it should: entries missing or changed are written again. Returns them, and foreign ones, which stay. */
  mend(): Drift<K>[] {
    const drifts = this.drifts();
    for (const { bytes } of drifts) {
      const held = this.#held.get(bytes.toString('latin1'));
      if (held) mapUpdate(this.#fd, bytes, held);
    }
    return drifts;
  }

  /** Deletes what `mend` found foreign. */
  evict(drifts: readonly Drift<K>[]): void {
    for (const { bytes, was } of drifts) if (was === 'foreign') mapDelete(this.#fd, bytes);
  }
}
