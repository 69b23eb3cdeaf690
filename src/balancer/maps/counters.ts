/** Per-CPU counters by number: an element is made when its object is, the programs only add to it. */
import {
  type MapInfo,
  mapDelete,
  mapEntries,
  mapInfo,
  mapLookup,
  mapUpdate,
  possibleCpus,
  valueBytes,
} from '../../kernel/bpf/bpf.ts';
import { NUMBER } from './layout.ts';
import type { Struct } from './struct.ts';

export class Counters<T> {
  readonly #fd: number;
  readonly #map: MapInfo;
  readonly #value: Struct<T>;
  readonly #known = new Set<number>();

  constructor(fd: number, value: Struct<T>) {
    this.#fd = fd;
    this.#map = mapInfo(fd);
    this.#value = value;
    for (const [key] of mapEntries(fd)) this.#known.add(NUMBER.decode(key).number);
  }

  ensure(number: number): void {
    if (this.#known.has(number)) return;
    mapUpdate(this.#fd, NUMBER.encode({ number }), Buffer.alloc(valueBytes(this.#map)));
    this.#known.add(number);
  }

  remove(number: number): void {
    if (this.#known.delete(number)) mapDelete(this.#fd, NUMBER.encode({ number }));
  }

  known(): number[] {
    return [...this.#known];
  }

  /** One value for each possible CPU; none for a number that is not counted. */
  read(number: number): T[] {
    const size = valueBytes(this.#map);
    const all = mapLookup(this.#fd, NUMBER.encode({ number }), size);
    if (!all) return [];
    const each = size / possibleCpus();
    return Array.from({ length: possibleCpus() }, (_, cpu) => this.#value.decode(all.subarray(cpu * each)));
  }
}
