/**
 * A view's names, ready to be answered. One look-up by the lower-cased name finds an entry, whose record sets are encoded when they are
 * first asked for and kept as bytes. So replacing a view of 10,000 names costs a map, not the run of an encoder.
 */
import type { NameRecord, NameView } from '../contracts/names.ts';
import { addressSet, glueRecords, pointerSet, type RecordSet, serviceSet } from './records.ts';
import { type ReverseMatch, ReverseZones, reverseName } from './reverse.ts';
import { encodeName, TYPE } from './wire.ts';

type Encoder = (type: number) => RecordSet | null;

/** One owned name. */
export class Entry {
  readonly #encode: Encoder;
  readonly #sets: (RecordSet | null | undefined)[] = [];

  constructor(encode: Encoder) {
    this.#encode = encode;
  }

  /** The records of a type; null is NODATA. ANY gets one set that exists (RFC 8482 §4.1). */
  set(type: number): RecordSet | null {
    const slot = SLOTS.indexOf(type);
    if (slot < 0) return type === TYPE.ANY ? this.#first() : null;
    let set = this.#sets[slot];
    if (set === undefined) {
      set = this.#encode(type);
      this.#sets[slot] = set;
    }
    return set;
  }

  #first(): RecordSet | null {
    for (const type of SLOTS) {
      const set = this.set(type);
      if (set !== null) return set;
    }
    return null;
  }
}

/** Types that an owned name may have records of, most asked first. */
const SLOTS: readonly number[] = [TYPE.A, TYPE.AAAA, TYPE.SRV, TYPE.PTR];

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

  constructor(view: NameView) {
    this.forward = view.forward;
    this.#zones = new ReverseZones(view.subnets);
    const unfit: string[] = [];
    for (const record of view.records) {
      const name = record.name.toLowerCase();
      // Of two records of one name the first wins; the caller has put them in order.
      if (this.#records.has(name)) continue;
      if (name === '' || encodeName(name) === null) {
        unfit.push(record.name);
        continue;
      }
      this.#records.set(name, record);
      this.#entries.set(name, new Entry((type) => this.#encode(record, type)));
    }
    for (const [address, target] of view.reverse) {
      const name = reverseName(address);
      if (name === null) unfit.push(address);
      else this.#entries.set(name, new Entry((type) => (type === TYPE.PTR ? pointerSet(target) : null)));
    }
    // `_tcp.shop` exists when `_http._tcp.shop` does.
    for (const name of this.#records.keys()) {
      for (let rest = name; rest.startsWith('_') && rest.includes('.'); ) {
        rest = rest.slice(rest.indexOf('.') + 1);
        if (!this.#entries.has(rest)) this.#entries.set(rest, EMPTY);
      }
    }
    this.unfit = unfit;
  }

  /** `name` in lower case. */
  find(name: string): Entry | undefined {
    return this.#entries.get(name);
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
    for (; rest.startsWith('_') && rest.includes('.'); before++) rest = rest.slice(rest.indexOf('.') + 1);
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
