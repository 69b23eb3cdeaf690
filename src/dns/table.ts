/**
 * A view's names, ready to be answered. One look-up by the lower-cased name finds an entry, whose record sets are encoded when they are
 * first asked for and kept as bytes. So setting a view of 10,000 names costs a map, not the run of an encoder, and changing one of them costs that one.
 */
import { isIP } from 'node:net';
import type { NameChange, NameRecord, NameView } from '../contracts/names.ts';
import { addressSet, glueRecords, pointerSet, type RecordSet, serviceSet } from './records.ts';
import { type ReverseMatch, ReverseZones, reverseName } from './reverse.ts';
import { isName, TYPE } from './wire.ts';

/** One owned name; what is encoded of it is kept. */
export class Entry {
  readonly #encode: (type: number) => RecordSet | null;
  #a: RecordSet | null | undefined;
  #aaaa: RecordSet | null | undefined;
  #rare: Map<number, RecordSet | null> | undefined;

  constructor(encode: (type: number) => RecordSet | null) {
    this.#encode = encode;
  }

  /** The records of a type; null is NODATA. ANY gets one set that exists (RFC 8482 §4.1). */
  set(type: number): RecordSet | null {
    if (type === TYPE.A) {
      if (this.#a === undefined) this.#a = this.#encode(type);
      return this.#a;
    }
    if (type === TYPE.AAAA) {
      if (this.#aaaa === undefined) this.#aaaa = this.#encode(type);
      return this.#aaaa;
    }
    if (type === TYPE.ANY) return this.set(TYPE.A) ?? this.set(TYPE.AAAA) ?? this.set(TYPE.SRV) ?? this.set(TYPE.PTR);
    if (type !== TYPE.SRV && type !== TYPE.PTR) return null;
    this.#rare ??= new Map();
    let set = this.#rare.get(type);
    if (set === undefined) {
      set = this.#encode(type);
      this.#rare.set(type, set);
    }
    return set;
  }
}

const UNDERSCORE = 0x5f;

/** Whether a port or a protocol stands in front of another name. */
const isBelow = (name: string): boolean => name.charCodeAt(0) === UNDERSCORE && name.includes('.');

/** `_tcp.shop` and `shop` of `_http._tcp.shop`. */
function namesAbove(name: string): string[] {
  const names: string[] = [];
  for (let rest = name; isBelow(rest); ) {
    rest = rest.slice(rest.indexOf('.') + 1);
    names.push(rest);
  }
  return names;
}

/** A name that exists only because names below it do. */
const EMPTY = new Entry(() => null);

/** What the view says of a name that has no entry. */
export type Absence =
  /** Somebody else's: ask them. */
  | 'foreign'
  /** Not to be asked anywhere, since every network of the view is internal. */
  | 'refuse'
  /** In a zone of ours, whose apex stands behind `before` labels. */
  | ReverseMatch;

export class NameTable {
  /** Whether foreign names may be asked elsewhere. */
  readonly forward: boolean;
  /** Names that cannot stand in a message and were left out, for the log. */
  readonly unfit: readonly string[];
  readonly #entries = new Map<string, Entry>();
  readonly #records = new Map<string, NameRecord>();
  /** How many names there are of which one has labels in front: `_tcp.shop` exists while `_http._tcp.shop` does. */
  readonly #above = new Map<string, number>();
  /** Names with SRV records, which are answered with the addresses of others. */
  readonly #services = new Set<string>();
  readonly #zones: ReverseZones;
  readonly #reverse: Map<string, string>;
  /** Whether somebody has asked for the name of an address: most views are never asked. */
  #isPointed = false;

  constructor(view: NameView) {
    this.forward = view.forward;
    this.#zones = new ReverseZones(view.subnets);
    this.#reverse = new Map(view.reverse);
    const unfit: string[] = [];
    for (const record of view.records) {
      const name = record.name.toLowerCase();
      // Of two records of one name the first wins; the caller has put them in order.
      if (!this.#records.has(name) && !this.#enter(name, record)) unfit.push(record.name);
    }
    for (const address of view.reverse.keys()) if (isIP(address) === 0) unfit.push(address);
    this.unfit = unfit;
  }

  records(): Iterable<NameRecord> {
    return this.#records.values();
  }

  /** Takes over what differs; names that cannot stand in a message are left out and returned. */
  change({ records, reverse }: Pick<NameChange, 'records' | 'reverse'>): string[] {
    const unfit: string[] = [];
    for (const [name, record] of records) {
      this.#leave(name);
      if (record && !this.#enter(name, record)) unfit.push(name);
    }
    for (const name of this.#services) this.#entries.set(name, this.#entryOf(this.#records.get(name)!));
    for (const [address, target] of reverse) {
      if (isIP(address) === 0) unfit.push(address);
      if (target === undefined) this.#reverse.delete(address);
      else this.#reverse.set(address, target);
      if (this.#isPointed) this.#point(address, target);
    }
    return unfit;
  }

  /** `name` in lower case. */
  find(name: string): Entry | undefined {
    if (!this.#isPointed && name.endsWith('.arpa')) {
      for (const [address, target] of this.#reverse) this.#point(address, target);
      this.#isPointed = true;
    }
    return this.#entries.get(name) ?? (this.#above.has(name) ? EMPTY : undefined);
  }

  /** Whether it can stand in a message, and so is in now. */
  #enter(name: string, record: NameRecord): boolean {
    if (name === '' || !isName(name)) return false;
    this.#records.set(name, record);
    this.#entries.set(name, this.#entryOf(record));
    if (record.srv && record.srv.length > 0) this.#services.add(name);
    for (const above of namesAbove(name)) this.#above.set(above, (this.#above.get(above) ?? 0) + 1);
    return true;
  }

  #leave(name: string): void {
    if (!this.#records.delete(name)) return;
    this.#entries.delete(name);
    this.#services.delete(name);
    for (const above of namesAbove(name)) {
      const left = this.#above.get(above)! - 1;
      if (left > 0) this.#above.set(above, left);
      else this.#above.delete(above);
    }
  }

  #entryOf(record: NameRecord): Entry {
    return new Entry((type) => this.#encode(record, type));
  }

  #point(address: string, target: string | undefined): void {
    const name = reverseName(address);
    if (name === null) return;
    if (target === undefined) this.#entries.delete(name);
    else this.#entries.set(name, new Entry((type) => (type === TYPE.PTR ? pointerSet(target) : null)));
  }

  /** For a name that `find` did not find. */
  absence(name: string): Absence {
    if (name.endsWith('.arpa')) {
      const match = this.#zones.match(name);
      if (match) return match;
    }
    // Unknown ports of an owned name, `_ldap._tcp.shop`: asking elsewhere would tell the name.
    let rest = name;
    let before = 0;
    for (; isBelow(rest); before++) rest = rest.slice(rest.indexOf('.') + 1);
    if (before > 0 && (this.#entries.has(rest) || this.#above.has(rest))) return { before, absent: true };
    return this.forward ? 'foreign' : 'refuse';
  }

  #encode(record: NameRecord, type: number): RecordSet | null {
    if (type === TYPE.A) return addressSet(type, record.a);
    if (type === TYPE.AAAA) return addressSet(type, record.aaaa);
    if (type !== TYPE.SRV) return null;
    return serviceSet(record.srv ?? [], (target) => {
      const found = this.#records.get(target);
      return found ? glueRecords(target, found.a, found.aaaa) : [];
    });
  }
}
