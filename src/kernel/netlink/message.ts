/** Netlink messages and attributes as bytes: pure. Host byte order is little-endian on both supported architectures. */

export const NLM_F = {
  REQUEST: 1,
  MULTI: 2,
  ACK: 4,
  DUMP_INTR: 0x10,
  REPLACE: 0x100,
  DUMP: 0x300,
  EXCL: 0x200,
  CREATE: 0x400,
  APPEND: 0x800,
} as const;
/** nlmsg_flags of an error message. */
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly data: Buffer;
}

const pad = (length: number): number => (length + 3) & ~3;

/** From Node's pool: thousands of small buffers of their own are what a batch would spend its time on. */
export const zeroed = (length: number): Buffer => Buffer.allocUnsafe(length).fill(0);

/** `[type, value]`: one attribute, aligned. */
export function attr(type: number, value: Uint8Array): Buffer {
  const out = zeroed(pad(4 + value.length));
  out.writeUInt16LE(4 + value.length, 0);
  out.writeUInt16LE(type, 2);
  out.set(value, 4);
  return out;
}
export const nest = (type: number, ...children: readonly Uint8Array[]): Buffer =>
  attr(type | NLA_F_NESTED, Buffer.concat(children));
/** A nest whose kernel policy predates the flag. */
export const plainNest = (type: number, ...children: readonly Uint8Array[]): Buffer =>
  attr(type, Buffer.concat(children));

export const u8 = (value: number): Buffer => Buffer.from([value]);
export function u16(value: number): Buffer {
  const out = Buffer.allocUnsafe(2);
  out.writeUInt16LE(value);
  return out;
}
export function u16be(value: number): Buffer {
  const out = Buffer.allocUnsafe(2);
  out.writeUInt16BE(value);
  return out;
}
export function u32(value: number): Buffer {
  const out = Buffer.allocUnsafe(4);
  out.writeUInt32LE(value >>> 0);
  return out;
}
export const text = (value: string): Buffer => Buffer.from(`${value}\0`);

/** Attributes by type; of several with one type the last. */
export function attrs(data: Buffer, offset = 0): Map<number, Buffer> {
  const found = new Map<number, Buffer>();
  // A plain loop: every answer of the kernel passes here.
  for (let at = offset; at + 4 <= data.length; ) {
    const length = data.readUInt16LE(at);
    if (length < 4 || at + length > data.length) break;
    found.set(data.readUInt16LE(at + 2) & NLA_TYPE_MASK, data.subarray(at + 4, at + length));
    at += pad(length);
  }
  return found;
}

export function* eachAttr(data: Buffer, offset = 0): Generator<[type: number, value: Buffer]> {
  let at = offset;
  while (at + 4 <= data.length) {
    const length = data.readUInt16LE(at);
    if (length < 4 || at + length > data.length) return;
    yield [data.readUInt16LE(at + 2) & NLA_TYPE_MASK, data.subarray(at + 4, at + length)];
    at += pad(length);
  }
}

/** Up to the first NUL byte. */
export function readText(value: Buffer | undefined): string {
  if (!value) return '';
  const end = value.indexOf(0);
  return value.toString('utf8', 0, end < 0 ? value.length : end);
}

export function frame(type: number, flags: number, seq: number, payload: Uint8Array): Buffer {
  const out = zeroed(pad(16 + payload.length));
  out.writeUInt32LE(16 + payload.length, 0);
  out.writeUInt16LE(type, 4);
  out.writeUInt16LE(flags | NLM_F.REQUEST, 6);
  out.writeUInt32LE(seq, 8);
  out.set(payload, 16);
  return out;
}

/** The kernel answers this framed request even when it succeeds. */
export const askAcknowledgement = (framed: Buffer): void => {
  framed.writeUInt16LE(framed.readUInt16LE(6) | NLM_F.ACK, 6);
};

/** Messages of one datagram. Their data are views of `buffer`: copy what must outlive the next receive. */
export function* messages(buffer: Buffer, length: number): Generator<Message> {
  let at = 0;
  while (at + 16 <= length) {
    const size = buffer.readUInt32LE(at);
    if (size < 16 || at + size > length) return;
    yield {
      type: buffer.readUInt16LE(at + 4),
      flags: buffer.readUInt16LE(at + 6),
      seq: buffer.readUInt32LE(at + 8),
      data: buffer.subarray(at + 16, at + size),
    };
    at += pad(size);
  }
}

/** errno (positive, 0 for an acknowledgement) and the kernel's extended message. */
export function readError(message: Message): { readonly errno: number; readonly words: string } {
  const errno = message.data.length >= 4 ? -message.data.readInt32LE(0) : 0;
  if (!(message.flags & NLM_F_ACK_TLVS)) return { errno, words: '' };
  let at = 4;
  if (message.type === NLMSG_ERROR) at = message.flags & NLM_F_CAPPED ? 20 : 4 + pad(message.data.readUInt32LE(4));
  return { errno, words: readText(attrs(message.data, at).get(1)) };
}
