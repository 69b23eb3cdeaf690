/** DNS on the wire (RFC 1035, 6891): numbers, names, and bounded walks over messages. Pure; nothing here follows a pointer. */

/** Octets of a message's header. */
export const HEADER_BYTES = 12;
/** Octets of an OPT record without options. */
export const OPT_BYTES = 11;
/** UDP payload that we advertise and never exceed: unfragmented over any IPv6 link (DNS flag day 2020). */
export const EDNS_BYTES = 1232;
/** UDP answer to a client without EDNS. */
export const PLAIN_BYTES = 512;
/** Largest question that we read; also the size of a receive slot. */
export const QUERY_BYTES_MAX = 4096;
/** Largest message over TCP. */
export const MESSAGE_BYTES_MAX = 65_535;

export const TYPE = {
  A: 1,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  HINFO: 13,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  TKEY: 249,
  TSIG: 250,
  IXFR: 251,
  AXFR: 252,
  MAILA: 254,
  ANY: 255,
} as const;

export const CLASS_IN = 1;

export const RCODE = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  /** Extended: its upper bits travel in the OPT record. */
  BADVERS: 16,
} as const;

const RCODE_NAMES = new Map<number, string>(Object.entries(RCODE).map(([name, code]) => [code, name]));
export const rcodeName = (code: number): string => RCODE_NAMES.get(code) ?? `RCODE${code}`;

/** Bits of the header's third and fourth octet. */
export const FLAG = { QR: 0x80, OPCODE: 0x78, AA: 0x04, TC: 0x02, RD: 0x01, RA: 0x80, AD: 0x20, CD: 0x10, RCODE: 0x0f };

export const u16 = (bytes: Uint8Array, at: number): number => (bytes[at]! << 8) | bytes[at + 1]!;
export const u32 = (bytes: Uint8Array, at: number): number => u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
export function putU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}
export function putU32(bytes: Uint8Array, at: number, value: number): void {
  putU16(bytes, at, value >>> 16);
  putU16(bytes, at + 2, value);
}

/** Whether a name can stand in a message: no empty label, none over 63 octets, 255 in all with length octets and root. */
export function isName(name: string): boolean {
  if (name.length > 253) return false;
  let from = 0;
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', from)) {
    if (dot === from || dot - from > 63) return false;
    from = dot + 1;
  }
  return name === '' || (name.length > from && name.length - from <= 63);
}

/** `api-1.web` in wire form with its root label; null when it is no name. */
export function encodeName(name: string): Uint8Array | null {
  if (!isName(name)) return null;
  if (name === '') return Uint8Array.of(0);
  const out = Buffer.alloc(name.length + 2);
  out.write(name, 1, 'latin1');
  // Each dot gives its place to the length of what follows it.
  for (let at = 0; at <= name.length; ) {
    const dot = name.indexOf('.', at);
    const end = dot < 0 ? name.length : dot;
    out[at] = end - at;
    at = end + 1;
  }
  return out;
}

/**
 * Offset just after the name at `at`, or -1 when it is malformed. A compression pointer ends a name and is not
 * followed, so the cost is bounded by 255 octets.
 */
export function skipName(bytes: Uint8Array, at: number, end: number): number {
  const limit = Math.min(end, at + 255);
  while (at < limit) {
    const size = bytes[at]!;
    if (size === 0) return at + 1;
    if (size >= 0xc0) return at + 2 <= end ? at + 2 : -1;
    if (size > 63) return -1;
    at += size + 1;
  }
  return -1;
}

/** Where a resource record lies in its message. `at` is the owner's offset, `type` … `end` what follows it. */
export interface RecordSpan {
  readonly section: 'answer' | 'authority' | 'additional';
  readonly at: number;
  readonly type: number;
  /** Offset of the 32-bit TTL. */
  readonly ttlAt: number;
  readonly dataAt: number;
  readonly end: number;
}

/** All records after the one question that ends at `at`; null when the message is malformed or octets trail. */
export function recordSpans(bytes: Uint8Array, at: number, end: number): RecordSpan[] | null {
  const spans: RecordSpan[] = [];
  const sections = [
    ['answer', u16(bytes, 6)],
    ['authority', u16(bytes, 8)],
    ['additional', u16(bytes, 10)],
  ] as const;
  for (const [section, count] of sections) {
    for (let index = 0; index < count; index++) {
      const fixed = skipName(bytes, at, end);
      if (fixed < 0 || fixed + 10 > end) return null;
      const dataAt = fixed + 10;
      const next = dataAt + u16(bytes, fixed + 8);
      if (next > end) return null;
      spans.push({ section, at, type: u16(bytes, fixed), ttlAt: fixed + 4, dataAt, end: next });
      at = next;
    }
  }
  return at === end ? spans : null;
}

/** Writes an OPT record: our payload size, the upper bits of `rcode`, version 0, the DO bit as it was asked. */
export function putOpt(bytes: Uint8Array, at: number, rcode: number, dnssecOk: boolean): number {
  bytes[at] = 0;
  putU16(bytes, at + 1, TYPE.OPT);
  putU16(bytes, at + 3, EDNS_BYTES);
  bytes[at + 5] = rcode >>> 4;
  bytes[at + 6] = 0;
  putU16(bytes, at + 7, dnssecOk ? 0x8000 : 0);
  putU16(bytes, at + 9, 0);
  return at + OPT_BYTES;
}
