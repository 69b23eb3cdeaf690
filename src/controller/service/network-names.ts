/**
 * The names of one network: what its endpoints and services are called, together. When one of them changes that costs what it is called, not
 * what all the others are. Pure but for memory.
 */
import type { NameRecord } from '../../contracts/names.ts';
import type { Called, NameDifference, Names } from './record.ts';

interface Part {
  readonly record: NameRecord;
  readonly called: Called;
}

/** Values by key, from several members each. Nearly all keys have one, which takes no collection of its own. */
class Shares<T> {
  readonly #alone = new Map<string, { readonly member: string; readonly value: T }>();
  readonly #shared = new Map<string, Map<string, T>>();

  set(key: string, member: string, value: T): void {
    const shared = this.#shared.get(key);
    const alone = this.#alone.get(key);
    if (shared) shared.set(member, value);
    else if (alone === undefined || alone.member === member) this.#alone.set(key, { member, value });
    else {
      this.#alone.delete(key);
      this.#shared.set(
        key,
        new Map([
          [alone.member, alone.value],
          [member, value],
        ]),
      );
    }
  }

  delete(key: string, member: string): void {
    if (this.#alone.get(key)?.member === member) this.#alone.delete(key);
    const shared = this.#shared.get(key);
    shared?.delete(member);
    if (shared?.size === 0) this.#shared.delete(key);
  }

  /** In the order in which their members came. */
  of(key: string): readonly T[] {
    const alone = this.#alone.get(key);
    return alone ? [alone.value] : [...(this.#shared.get(key)?.values() ?? [])];
  }
}

export class NetworkNames implements Names {
  readonly records = new Map<string, NameRecord>();
  readonly reverse = new Map<string, string>();
  readonly #members = new Map<string, Called>();
  readonly #parts = new Shares<Part>();
  readonly #targets = new Shares<string>();
  /** Since the names were settled last. */
  #names = new Set<string>();
  #addresses = new Set<string>();

  members(): readonly string[] {
    return [...this.#members.keys()];
  }

  /** What an endpoint or a service is called from now on; undefined: nothing. It counts once the names are settled. */
  set(member: string, called: Called | undefined): void {
    const before = this.#members.get(member);
    for (const { name } of before?.records ?? []) {
      this.#parts.delete(name, member);
      this.#names.add(name);
    }
    for (const address of before?.reverse.keys() ?? []) {
      this.#targets.delete(address, member);
      this.#addresses.add(address);
    }
    this.#members.delete(member);
    if (!called) return;
    this.#members.set(member, called);
    for (const record of called.records) {
      this.#parts.set(record.name, member, { record, called });
      this.#names.add(record.name);
    }
    for (const [address, target] of called.reverse) {
      this.#targets.set(address, member, target);
      this.#addresses.add(address);
    }
  }

  /** Makes the names of what was set, and says what differs. */
  settle(): NameDifference {
    const records = new Map<string, NameRecord | undefined>();
    const reverse = new Map<string, string | undefined>();
    for (const name of this.#names) {
      const [now, before] = [together(name, this.#parts.of(name)), this.records.get(name)];
      if (isSame(now, before)) continue;
      records.set(name, now);
      put(this.records, name, now);
    }
    for (const address of this.#addresses) {
      const now = this.#targets.of(address).at(-1);
      if (now === this.reverse.get(address)) continue;
      reverse.set(address, now);
      put(this.reverse, address, now);
    }
    this.#names = new Set();
    this.#addresses = new Set();
    return { records, reverse };
  }
}

/**
 * A service wins over a sandbox of the same name; several sandboxes with one alias are answered together, and so are services with one. Sorted:
 * what is the same is to look the same.
 */
function together(name: string, parts: readonly Part[]): NameRecord | undefined {
  const isOwned = parts.some(({ called }) => called.owned?.has(name));
  const heard = (isOwned ? parts.filter(({ called }) => called.owned) : parts).map(({ record }) => record);
  if (heard.length < 2) return heard[0];
  return {
    name,
    a: heard.flatMap(({ a = [] }) => a).sort(),
    aaaa: heard.flatMap(({ aaaa = [] }) => aaaa).sort(),
    srv: heard.flatMap(({ srv = [] }) => srv),
  };
}

const written = ({ a = [], aaaa = [], srv = [] }: NameRecord): string => JSON.stringify([a, aaaa, srv]);

const isSame = (one: NameRecord | undefined, other: NameRecord | undefined): boolean =>
  one === other || (one !== undefined && other !== undefined && written(one) === written(other));

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}
