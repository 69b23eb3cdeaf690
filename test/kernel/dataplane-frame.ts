/** Frames, built by hand, for packet tables. Checksums are left 0: the guard judges who speaks, not whether it is whole. */
import { macToBytes, toBytes, toBytes16 } from '../../src/model/ip.ts';

const u16 = (value: number): Buffer => Buffer.from([value >> 8, value & 255]);
const join = (...parts: (Uint8Array | readonly number[])[]): Buffer =>
  Buffer.concat(parts.map((part) => Buffer.from(part)));

export const MAC = '02:42:0a:4d:00:0a';
export const OTHER_MAC = '02:42:0a:4d:00:0b';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, qinq: 0x88a8, ipv6: 0x86dd } as const;

export const ethernet = (type: number, payload: Uint8Array, source = MAC): Buffer =>
  join(macToBytes(BROADCAST), macToBytes(source), u16(type), payload);

export interface Ipv4 {
  readonly source: string;
  readonly destination?: string;
  readonly protocol?: number;
  /** Flags and offset. */
  readonly fragment?: number;
  readonly payload?: Uint8Array;
  readonly options?: Uint8Array;
  readonly version?: number;
  /** Words of the header, when it lies. */
  readonly words?: number;
}
export function ipv4(o: Ipv4): Buffer {
  const options = o.options ?? Buffer.alloc(0);
  const payload = o.payload ?? udp(1000, 2000);
  const words = o.words ?? 5 + options.length / 4;
  return join(
    [((o.version ?? 4) << 4) | words, 0],
    u16(20 + options.length + payload.length),
    u16(1),
    u16(o.fragment ?? 0),
    [64, o.protocol ?? 17],
    u16(0),
    toBytes(o.source),
    toBytes(o.destination ?? '10.77.0.11'),
    options,
    payload,
  );
}

export const udp = (source: number, destination: number): Buffer =>
  join(u16(source), u16(destination), u16(8 + 16), u16(0), Buffer.alloc(16));

export interface Ipv6 {
  readonly source: string;
  readonly destination?: string;
  readonly next?: number;
  readonly payload?: Uint8Array;
  readonly version?: number;
}
export const ipv6 = (o: Ipv6): Buffer => {
  const payload = o.payload ?? udp(1000, 2000);
  return join(
    [(o.version ?? 6) << 4, 0, 0, 0],
    u16(payload.length),
    [o.next ?? 17, 255],
    toBytes16(o.source),
    toBytes16(o.destination ?? 'ff02::1'),
    payload,
  );
};

/** An extension header of 8 octets more than `length`. */
export const extension = (next: number, length: number, payload: Uint8Array): Buffer =>
  join([next, length], Buffer.alloc(6 + length * 8), payload);
/** `offset` in octets. */
export const fragment = (next: number, offset: number, more: boolean, payload: Uint8Array): Buffer =>
  join([next, 0], u16(offset | (more ? 1 : 0)), [0, 0, 0, 7], payload);
/** `words`: of 4 octets, less two. */
export const authentication = (next: number, words: number, payload: Uint8Array): Buffer =>
  join([next, words], Buffer.alloc(words * 4 + 6), payload);

export const icmpv6 = (type: number, body: Uint8Array = Buffer.alloc(4)): Buffer => join([type, 0, 0, 0], body);
export const option = (type: number, mac: string): Buffer => join([type, 1], macToBytes(mac));
/** Neighbour solicitation (135) or advertisement (136). */
export const neighbour = (type: number, target: string, ...options: Uint8Array[]): Buffer =>
  icmpv6(type, join(Buffer.alloc(4), toBytes16(target), ...options));

export interface Arp {
  readonly operation?: number;
  readonly senderMac?: string;
  readonly sender: string;
  readonly target: string;
  readonly hardware?: number;
}
export const arp = (o: Arp): Buffer =>
  join(
    u16(o.hardware ?? 1),
    u16(0x0800),
    [6, 4],
    u16(o.operation ?? 1),
    macToBytes(o.senderMac ?? MAC),
    toBytes(o.sender),
    Buffer.alloc(6),
    toBytes(o.target),
  );
