/** Fixed layouts in little-endian bytes, without holes: what src/bpf/structs.h declares, one field after the other. */
import { fromBytes, macFromBytes, macToBytes, toBytes16 } from '../../model/ip.ts';

export interface Field<T> {
  readonly size: number;
  write(out: Buffer, at: number, value: T): void;
  read(from: Buffer, at: number): T;
}

type ValueOf<F> = F extends Field<infer T> ? T : never;
/** Fields named `spare…` are zeros that nobody writes. */
type Values<S> = { readonly [K in keyof S as K extends `spare${string}` ? never : K]: ValueOf<S[K]> };

export interface Struct<T> extends Field<T> {
  /** As in C. */
  readonly name: string;
  readonly offsets: Readonly<Record<string, number>>;
  encode(value: T): Buffer;
  decode(bytes: Buffer): T;
}

export function struct<S extends Readonly<Record<string, Field<unknown>>>>(name: string, fields: S): Struct<Values<S>> {
  const offsets: Record<string, number> = {};
  let size = 0;
  for (const [key, field] of Object.entries(fields)) {
    offsets[key] = size;
    size += field.size;
  }
  const named = Object.entries(fields).filter(([key]) => !key.startsWith('spare'));
  const self: Struct<Values<S>> = {
    name,
    size,
    offsets,
    write(out, at, value) {
      for (const [key, field] of named) field.write(out, at + offsets[key]!, value[key as keyof Values<S>]);
    },
    read: (from, at) =>
      Object.fromEntries(named.map(([key, field]) => [key, field.read(from, at + offsets[key]!)])) as Values<S>,
    encode(value) {
      const out = Buffer.alloc(size);
      self.write(out, 0, value);
      return out;
    },
    decode: (bytes) => self.read(bytes, 0),
  };
  return self;
}

export const u8: Field<number> = {
  size: 1,
  write: (out, at, value) => void out.writeUInt8(value, at),
  read: (from, at) => from.readUInt8(at),
};
export const u32: Field<number> = {
  size: 4,
  write: (out, at, value) => void out.writeUInt32LE(value, at),
  read: (from, at) => from.readUInt32LE(at),
};
export const u64: Field<bigint> = {
  size: 8,
  write: (out, at, value) => void out.writeBigUInt64LE(value, at),
  read: (from, at) => from.readBigUInt64LE(at),
};
/** A port, in network order. */
export const port: Field<number> = {
  size: 2,
  write: (out, at, value) => void out.writeUInt16BE(value, at),
  read: (from, at) => from.readUInt16BE(at),
};
/** An IP address as text; 16 bytes, IPv4 as v4-mapped. */
export const address: Field<string> = {
  size: 16,
  write: (out, at, value) => out.set(toBytes16(value), at),
  read: (from, at) => fromBytes(from.subarray(at, at + 16)),
};
export const mac: Field<string> = {
  size: 6,
  write: (out, at, value) => out.set(macToBytes(value), at),
  read: (from, at) => macFromBytes(from.subarray(at, at + 6)),
};
/** Hex digits, two a byte. */
export const hex = (size: number): Field<string> => ({
  size,
  write: (out, at, value) => out.set(Buffer.from(value, 'hex'), at),
  read: (from, at) => from.toString('hex', at, at + size),
});
export const zeros = (size: number): Field<unknown> => ({ size, write: () => undefined, read: () => undefined });

/** Up to `length` elements; what is missing stays zero and is read as zero. */
export const array = <T>(field: Field<T>, length: number): Field<readonly T[]> => ({
  size: field.size * length,
  write(out, at, values) {
    for (const [i, value] of values.entries()) field.write(out, at + i * field.size, value);
  },
  read: (from, at) => Array.from({ length }, (_, i) => field.read(from, at + i * field.size)),
});
