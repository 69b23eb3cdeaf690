/** IPv4 and IPv6 arithmetic on canonical text. Malformed text is `request.invalid`. */
import { SluiceError } from '../errors.ts';

export type Family = 4 | 6;

export interface Cidr {
  readonly family: Family;
  /** Network address, masked. */
  readonly base: bigint;
  readonly prefix: number;
}

const BITS = { 4: 32, 6: 128 } as const;

export const familyOf = (text: string): Family => (text.includes(':') ? 6 : 4);
export const bitsOf = (family: Family): number => BITS[family];

/** Unsigned 32 bits; by hand, because tables of thousands of addresses pass here. Leading zeros are refused: some read them as octal. */
function parse4(text: string): number | null {
  let value = 0;
  let part = -1;
  let dots = 0;
  for (let at = 0; at <= text.length; at++) {
    const digit = text.charCodeAt(at) - 48;
    if (digit >= 0 && digit <= 9) {
      if (part === 0) return null;
      part = part < 0 ? digit : part * 10 + digit;
      if (part > 255) return null;
    } else {
      if (part < 0 || (at < text.length && text[at] !== '.')) return null;
      value = value * 256 + part;
      part = -1;
      if (at < text.length) dots++;
    }
  }
  return dots === 3 ? value : null;
}

function parse6(text: string): bigint | null {
  let words = text;
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text);
  if (dotted) {
    const tail = parse4(dotted[2]!);
    if (tail === null) return null;
    words = `${dotted[1]}${(tail >>> 16).toString(16)}:${(tail & 0xffff).toString(16)}`;
  }
  const halves = words.split('::');
  if (halves.length > 2) return null;
  const groups = (half: string | undefined): string[] => (half ? half.split(':') : []);
  const head = groups(halves[0]);
  const tail = groups(halves[1]);
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return null;
  let value = 0n;
  for (const group of [...head, ...Array<string>(Math.max(0, missing)).fill('0'), ...tail]) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(group)) return null;
    value = (value << 16n) | BigInt(`0x${group}`);
  }
  return value;
}

/** An address as a number, null when it is none. Zone ids (`%eth0`) are not accepted. */
export function tryParse(text: string): bigint | null {
  if (familyOf(text) === 6) return parse6(text);
  const value = parse4(text);
  return value === null ? null : BigInt(value);
}

export function parseAddress(text: string): { readonly family: Family; readonly value: bigint } {
  const value = tryParse(text);
  if (value === null) throw new SluiceError('request.invalid', `"${text}" is not an IP address`, { address: text });
  return { family: familyOf(text), value };
}

/** RFC 5952 text. */
export function formatAddress(family: Family, value: bigint): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.');
  return formatGroups(Array.from({ length: 8 }, (_, i) => Number((value >> BigInt(112 - 16 * i)) & 0xffffn)));
}

function formatGroups(groups: readonly number[]): string {
  let best = { at: -1, length: 1 };
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && groups[at + length] === 0) length++;
    if (length > best.length) best = { at, length };
  }
  const hex = (list: readonly number[]): string => list.map((group) => group.toString(16)).join(':');
  if (best.at < 0) return hex(groups);
  return `${hex(groups.slice(0, best.at))}::${hex(groups.slice(best.at + best.length))}`;
}

export function canonicalAddress(text: string): string {
  const { family, value } = parseAddress(text);
  return formatAddress(family, value);
}

const hostMask = (family: Family, prefix: number): bigint => (1n << BigInt(BITS[family] - prefix)) - 1n;

/** `10.1.2.3/24` → base 10.1.2.0. `strict`: bits outside the prefix are an error. */
export function parseCidr(text: string, options: { readonly strict?: boolean } = {}): Cidr {
  const slash = text.indexOf('/');
  const address = slash < 0 ? null : tryParse(text.slice(0, slash));
  const family = familyOf(text);
  const prefix = Number(text.slice(slash + 1));
  if (address === null || !/^\d{1,3}$/.test(text.slice(slash + 1)) || prefix > BITS[family]) {
    throw new SluiceError('request.invalid', `"${text}" is not a subnet such as 10.20.0.0/24 or fd00::/64`, {
      cidr: text,
    });
  }
  const base = address & ~hostMask(family, prefix);
  if (options.strict && base !== address) {
    throw new SluiceError(
      'request.invalid',
      `${text} has bits outside its prefix; the subnet is ${formatCidr({ family, base, prefix })}`,
      { cidr: text },
    );
  }
  return { family, base, prefix };
}

export const formatCidr = ({ family, base, prefix }: Cidr): string => `${formatAddress(family, base)}/${prefix}`;

/** Number of addresses, network and broadcast included. */
export const sizeOf = ({ family, prefix }: Cidr): bigint => 1n << BigInt(BITS[family] - prefix);

export const lastOf = (cidr: Cidr): bigint => cidr.base + sizeOf(cidr) - 1n;

export function contains(cidr: Cidr, address: string): boolean {
  const value = tryParse(address);
  return value !== null && familyOf(address) === cidr.family && value >= cidr.base && value <= lastOf(cidr);
}

export const overlaps = (a: Cidr, b: Cidr): boolean =>
  a.family === b.family && a.base <= lastOf(b) && b.base <= lastOf(a);

/** 16 bytes, IPv4 as v4-mapped: how addresses stand in BPF maps. */
export function toBytes16(address: string): Uint8Array {
  const { family, value } = parseAddress(address);
  const out = new Uint8Array(16);
  let rest = family === 4 ? value | 0xffff00000000n : value;
  for (let i = 15; i >= 0; i--) {
    out[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return out;
}

/** 4 or 16 bytes in network order. */
export function toBytes(address: string): Uint8Array {
  const value = parse4(address);
  if (value === null) return toBytes16(address).subarray(familyOf(address) === 4 ? 12 : 0);
  return Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
}

function isMapped(bytes: Uint8Array): boolean {
  for (let at = 0; at < 10; at++) if (bytes[at] !== 0) return false;
  return bytes[10] === 0xff && bytes[11] === 0xff;
}

/** From 4 or 16 bytes; v4-mapped is IPv4 again. */
export function fromBytes(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  if (isMapped(bytes)) return bytes.subarray(12).join('.');
  return formatGroups(Array.from({ length: 8 }, (_, i) => (bytes[2 * i]! << 8) | bytes[2 * i + 1]!));
}

export const isMac = (text: string): boolean => /^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$/.test(text);
export function macToBytes(mac: string): Uint8Array {
  const out = new Uint8Array(6);
  for (let i = 0; i < 6; i++) out[i] = Number.parseInt(mac.slice(3 * i, 3 * i + 2), 16);
  return out;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));
export function macFromBytes(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += text === '' ? HEX[byte] : `:${HEX[byte]}`;
  return text;
}

/** The link-local address that the kernel derives from a MAC (EUI-64, RFC 4291). */
export function linkLocalOf(mac: string): string {
  const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = macToBytes(mac);
  return fromBytes(Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f));
}
