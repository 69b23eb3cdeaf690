/** Record sets of owned names as bytes that fit behind any question for the name: A and AAAA straight, odd types through dns2. */
import { Packet } from 'dns2';
import { familyOf, toBytes, tryParse } from '../model/ip.ts';
import { CLASS_IN, isName, putU16, putU32, TYPE } from './wire.ts';

/**
 * Seconds that a client may keep an owned answer, positive or negative. Short, since a backend that goes must be forgotten
 * soon (CoreDNS's kubernetes plugin defaults to 5 as well); not 0, which some resolvers take for "ask again within one call".
 */
export const OWNED_TTL_S = 5;

/** Records of one type of one name. */
export interface RecordSet {
  /** Owners are compressed to the question at offset 12. */
  readonly bytes: Uint8Array;
  /** End of each record in `bytes`. */
  readonly ends: readonly number[];
  /** Size of every record, so that they may be rotated; 0 when it varies. */
  readonly stride: number;
  /** Addresses of targets, for the additional section; owners in full. */
  readonly glue: Uint8Array;
  readonly glueCount: number;
  /** Which record comes first in the next answer. */
  turn: number;
}

export interface Service {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

type Resource = Packet['answers'][number];

const POINTER_TO_QUESTION = 0xc00c;
/** Pointer, type, class, TTL and length in front of a record's data. */
const FIXED_BYTES = 12;

function recordSet(type: number, data: readonly Uint8Array[], glue: readonly Uint8Array[] = []): RecordSet | null {
  if (data.length === 0) return null;
  const bytes = new Uint8Array(data.reduce((sum, one) => sum + FIXED_BYTES + one.length, 0));
  const ends: number[] = [];
  let at = 0;
  for (const one of data) {
    putU16(bytes, at, POINTER_TO_QUESTION);
    putU16(bytes, at + 2, type);
    putU16(bytes, at + 4, CLASS_IN);
    putU32(bytes, at + 6, OWNED_TTL_S);
    putU16(bytes, at + 10, one.length);
    bytes.set(one, at + FIXED_BYTES);
    at += FIXED_BYTES + one.length;
    ends.push(at);
  }
  const stride = data.every((one) => one.length === data[0]!.length) ? ends[0]! : 0;
  return { bytes, ends, stride, glue: Buffer.concat(glue), glueCount: glue.length, turn: 0 };
}

/** Those of the type's family; what is no address is left out, so that one bad record never hides the others. */
const ofFamily = (type: number, addresses: readonly string[] = []): readonly string[] =>
  addresses.filter((address) => tryParse(address) !== null && familyOf(address) === (type === TYPE.A ? 4 : 6));

export const addressSet = (type: number, addresses: readonly string[] | undefined): RecordSet | null =>
  recordSet(type, ofFamily(type, addresses).map(toBytes));

/** A record's data as dns2 encodes it: a whole record of the root (owner 1 octet, fixed part 10), without its head. */
function encodeData(type: number, fields: Partial<Resource>): Uint8Array {
  const record = { name: '', type, class: CLASS_IN, ttl: 0, ...fields } as Resource;
  return Packet.Resource.encode(record, new Packet.Writer()).subarray(11);
}

export const pointerSet = (target: string): RecordSet | null =>
  recordSet(TYPE.PTR, !isName(target) ? [] : [encodeData(TYPE.PTR, { domain: target })]);

/** Targets are never compressed (RFC 2782). `glue`: address records of a target, see `glueRecords`. */
export function serviceSet(services: readonly Service[], glue: (target: string) => Uint8Array[]): RecordSet | null {
  const good = services.filter(({ target }) => isName(target));
  const targets = new Set(good.map(({ target }) => target.toLowerCase()));
  return recordSet(
    TYPE.SRV,
    good.map(({ priority, weight, port, target }) => encodeData(TYPE.SRV, { priority, weight, port, target })),
    [...targets].flatMap(glue),
  );
}

/** Whole address records of `name`. */
export function glueRecords(name: string, a: readonly string[] = [], aaaa: readonly string[] = []): Uint8Array[] {
  const encode = (type: number, addresses: readonly string[]): Uint8Array[] =>
    ofFamily(type, addresses).map((address) => {
      const record = { name, type, class: CLASS_IN, ttl: OWNED_TTL_S, address } as Resource;
      return Packet.Resource.encode(record, new Packet.Writer());
    });
  return [...encode(TYPE.A, a), ...encode(TYPE.AAAA, aaaa)];
}
