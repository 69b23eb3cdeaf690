/**
 * A view's names, ready to be answered. One look-up by the lower-cased name finds an entry, whose record sets are encoded when they are
 * first asked for and kept as bytes. So replacing a view of 10,000 names costs a map, not the run of an encoder.
 */
import { isIP } from 'node:net';
import type { NameRecord, NameView } from '../contracts/names.ts';
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
  /** Names that cannot stand in a message, for the log. */
  readonly unfit: readonly string[];
  readonly #entries = new Map<string, Entry>();
  readonly #records = new Map<string, NameRecord>();
  readonly #zones: ReverseZones;
  /** Addresses whose names nobody has asked for yet: a view is replaced at every change, and most are never asked. */
  #reverse: NameView['reverse'] | undefined;

  constructor(view: NameView) {
    this.forward = view.forward;
    this.#zones = new ReverseZones(view.subnets);
    const unfit: string[] = [];
    for (const record of view.records) {
      const name = record.name.toLowerCase();
      // Of two records of one name the first wins; the caller has put them in order.
      if (this.#records.has(name)) continue;
      if (name === '' || !isName(name)) {
        unfit.push(record.name);
        continue;
      }
      this.#records.set(name, record);
      this.#entries.set(name, new Entry((type) => this.#encode(record, type)));
    }
    for (const address of view.reverse.keys()) if (isIP(address) === 0) unfit.push(address);
    this.#reverse = view.reverse;
    // `_tcp.shop` exists when `_http._tcp.shop` does.
    for (const name of this.#records.keys()) {
      for (let rest = name; rest.charCodeAt(0) === UNDERSCORE && rest.includes('.'); ) {
        rest = rest.slice(rest.indexOf('.') + 1);
        if (!this.#entries.has(rest)) this.#entries.set(rest, EMPTY);
      }
    }
    this.unfit = unfit;
  }

  /** `name` in lower case. */
  find(name: string): Entry | undefined {
    if (this.#reverse && name.endsWith('.arpa')) {
      this.#enterReverse(this.#reverse);
      this.#reverse = undefined;
    }
    return this.#entries.get(name);
  }

  #enterReverse(reverse: NameView['reverse']): void {
    for (const [address, target] of reverse) {
      const name = reverseName(address);
      if (name !== null) this.#entries.set(name, new Entry((type) => (type === TYPE.PTR ? pointerSet(target) : null)));
    }
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
    for (; rest.charCodeAt(0) === UNDERSCORE && rest.includes('.'); before++) rest = rest.slice(rest.indexOf('.') + 1);
    if (before > 0 && this.#entries.has(rest)) return { before, absent: true };
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
