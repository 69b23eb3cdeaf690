/**
 * Tar as archives of images hold it (ustar, GNU, pax), read from chunks as they come, without waiting for anything: what an entry says
 * and holds goes to a {@link TarHandler} at once. Names are kept as bytes (`latin1` strings), for they need not be text.
 */
import { SluiceError } from '../../../src/errors.ts';

export type EntryType = 'file' | 'link' | 'symlink' | 'char' | 'block' | 'directory' | 'fifo';

export interface TarEntry {
  /** As written, bytes as `latin1`. */
  readonly path: string;
  readonly type: EntryType;
  /** Permission bits, 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since the epoch. */
  readonly mtime: number;
  /** Bytes of data that follow; 0 for everything but files. */
  readonly size: number;
  /** Target of a link. */
  readonly link: string;
  readonly major: number;
  readonly minor: number;
  readonly xattrs: ReadonlyMap<string, Buffer>;
}

/** May throw; the archive is then not read on. */
export interface TarHandler {
  entry(entry: TarEntry): void;
  /** A piece of the last entry's data; the bytes are the caller's and may change afterwards. */
  data(chunk: Buffer): void;
  /** The last entry's data is complete. */
  close(): void;
}

const BLOCK = 512;
/** Long names and pax records of one entry, as Go's reader limits them. */
const SPECIAL_BYTES_MAX = 1024 * 1024;

const TYPES: Readonly<Record<string, EntryType>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'link',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

const NO_XATTRS: ReadonlyMap<string, Buffer> = new Map();
const XATTR_PREFIXES = ['SCHILY.xattr.', 'LIBARCHIVE.xattr.'] as const;

const wrong = (message: string): SluiceError =>
  new SluiceError('image.archive', `the archive is no sound tar: ${message}`);

/** A number of a header: octal text, or base 256 where the first bit is set. */
export function numberOf(block: Buffer, at: number, length: number): number {
  const first = block[at]!;
  if (first & 0x80) {
    let value = first & 0x40 ? -1n : 0n;
    value = (value << 6n) | BigInt(first & 0x3f);
    for (let index = 1; index < length; index++) value = (value << 8n) | BigInt(block[at + index]!);
    const number = Number(value);
    if (!Number.isSafeInteger(number)) throw wrong('a number in a header is too large');
    return number;
  }
  let value = 0;
  let digits = false;
  for (let index = at; index < at + length; index++) {
    const byte = block[index]!;
    if (byte === 0x20 || byte === 0) {
      if (digits) break;
      continue;
    }
    if (byte < 0x30 || byte > 0x37) throw wrong('a number in a header is not octal');
    value = value * 8 + (byte - 0x30);
    digits = true;
  }
  return value;
}

function textOf(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString('latin1', at, end < 0 || end > at + length ? at + length : end);
}

function checksumFits(block: Buffer): boolean {
  let sum = 0;
  for (let index = 0; index < BLOCK; index++) sum += index >= 148 && index < 156 ? 0x20 : block[index]!;
  return sum === numberOf(block, 148, 8);
}

/** `LENGTH KEY=VALUE\n`, values as bytes. */
export function paxRecords(data: Buffer): Map<string, Buffer> {
  const records = new Map<string, Buffer>();
  for (let at = 0; at < data.length; ) {
    const space = data.indexOf(0x20, at);
    const digits = space < 0 ? '' : data.toString('latin1', at, space);
    const length = /^[1-9]\d{0,9}$/.test(digits) ? Number(digits) : 0;
    const end = at + length;
    const equals = data.indexOf(0x3d, space);
    if (length === 0 || end > data.length || equals < 0 || equals >= end || data[end - 1] !== 0x0a)
      throw wrong('a pax record is malformed');
    records.set(data.toString('latin1', space + 1, equals), data.subarray(equals + 1, end - 1));
    at = end;
  }
  return records;
}

/** `Special` entries speak of the one that follows. */
type Special = 'pax' | 'global' | 'path' | 'link';
const SPECIALS: Readonly<Record<string, Special>> = { x: 'pax', g: 'global', L: 'path', K: 'link' };

export class TarReader {
  readonly #handler: TarHandler;
  /** Start of a block that a chunk cut through. */
  #rest = Buffer.alloc(0);
  /** Bytes of data, and of padding after it, still to come. */
  #data = 0;
  #padding = 0;
  #special: { readonly kind: Special; readonly parts: Buffer[] } | null = null;
  #open = false;
  #pax: Map<string, Buffer> | null = null;
  #longPath: string | null = null;
  #longLink: string | null = null;
  /** Two empty blocks end an archive; what follows is not looked at. */
  #emptyBlocks = 0;
  #entries = 0;

  constructor(handler: TarHandler) {
    this.#handler = handler;
  }

  push(chunk: Buffer): void {
    if (this.#rest.length > 0) {
      chunk = Buffer.concat([this.#rest, chunk]);
      this.#rest = Buffer.alloc(0);
    }
    let at = 0;
    while (at < chunk.length && this.#emptyBlocks < 2) {
      if (this.#data > 0) {
        const length = Math.min(this.#data, chunk.length - at);
        const piece = chunk.subarray(at, at + length);
        if (this.#special) this.#special.parts.push(Buffer.from(piece));
        else this.#handler.data(piece);
        this.#data -= length;
        at += length;
        if (this.#data === 0) this.#finish();
      } else if (this.#padding > 0) {
        const length = Math.min(this.#padding, chunk.length - at);
        this.#padding -= length;
        at += length;
      } else if (chunk.length - at < BLOCK) {
        this.#rest = Buffer.from(chunk.subarray(at));
        return;
      } else {
        this.#header(chunk.subarray(at, at + BLOCK));
        at += BLOCK;
      }
    }
  }

  /** The stream is at its end: fails when that is in the middle of something. */
  end(): void {
    if (this.#data > 0 || this.#padding > 0) throw wrong('it ends in the middle of an entry');
    if (this.#rest.length > 0 && this.#emptyBlocks < 2) throw wrong('it ends in the middle of a header');
    if (this.#pax || this.#longPath !== null || this.#longLink !== null)
      throw wrong('it ends after the description of an entry');
    if (this.#entries === 0 && this.#emptyBlocks === 0) throw wrong('it is empty');
  }

  #header(block: Buffer): void {
    if (block[0] === 0 && block.every((byte) => byte === 0)) {
      this.#emptyBlocks++;
      return;
    }
    this.#emptyBlocks = 0;
    if (!checksumFits(block)) throw wrong('the checksum of a header does not fit');
    this.#entries++;
    const flag = String.fromCharCode(block[156]!);
    const size = numberOf(block, 124, 12);
    if (size < 0) throw wrong('an entry has a negative size');
    const special = SPECIALS[flag];
    if (special) {
      if (size > SPECIAL_BYTES_MAX) throw wrong('the description of an entry is longer than one MiB');
      this.#special = { kind: special, parts: [] };
      this.#expect(size);
      return;
    }
    const entry = this.#entry(block, flag, size);
    this.#pax = null;
    this.#longPath = null;
    this.#longLink = null;
    this.#open = true;
    this.#handler.entry(entry);
    this.#expect(entry.size);
  }

  #expect(size: number): void {
    this.#data = size;
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK;
    if (size === 0) this.#finish();
  }

  #finish(): void {
    const special = this.#special;
    if (!special) {
      if (this.#open) this.#handler.close();
      this.#open = false;
      return;
    }
    this.#special = null;
    const data = Buffer.concat(special.parts);
    if (special.kind === 'pax') this.#pax = paxRecords(data);
    if (special.kind === 'path') this.#longPath = textOf(data, 0, data.length);
    if (special.kind === 'link') this.#longLink = textOf(data, 0, data.length);
  }

  #entry(block: Buffer, flag: string, headerSize: number): TarEntry {
    const pax = this.#pax;
    if (flag === 'S' || [...(pax?.keys() ?? [])].some((key) => key.startsWith('GNU.sparse.')))
      throw wrong('it holds sparse files, which images do not: make it without --sparse');
    const number = (key: string, ofHeader: number): number => {
      const text = pax?.get(key)?.toString('latin1');
      if (text === undefined) return ofHeader;
      if (!/^-?\d{1,15}(?:\.\d*)?$/.test(text)) throw wrong(`the pax record ${key} is no number`);
      return Number(text);
    };
    const isUstar = block.toString('latin1', 257, 263) === 'ustar\0';
    const prefix = isUstar ? textOf(block, 345, 155) : '';
    const short = textOf(block, 0, 100);
    const path =
      pax?.get('path')?.toString('latin1') ?? this.#longPath ?? (prefix === '' ? short : `${prefix}/${short}`);
    const link = pax?.get('linkpath')?.toString('latin1') ?? this.#longLink ?? textOf(block, 157, 100);
    let type = TYPES[flag];
    if (!type) throw wrong(`an entry has the unknown type ${JSON.stringify(flag)}`);
    if (type === 'file' && path.endsWith('/')) type = 'directory';
    const size = number('size', headerSize);
    if (size < 0 || !Number.isSafeInteger(size)) throw wrong('an entry has an impossible size');
    const device = type === 'char' || type === 'block';
    return {
      path,
      type,
      mode: numberOf(block, 100, 8) & 0o7777,
      uid: idOf(number('uid', numberOf(block, 108, 8))),
      gid: idOf(number('gid', numberOf(block, 116, 8))),
      mtime: number('mtime', numberOf(block, 136, 12)),
      size: type === 'file' ? size : 0,
      link,
      major: device ? numberOf(block, 329, 8) : 0,
      minor: device ? numberOf(block, 337, 8) : 0,
      xattrs: pax ? xattrsOf(pax) : NO_XATTRS,
    };
  }
}

function idOf(id: number): number {
  // 2^32 - 1 means "leave it" to chown(2).
  if (!Number.isInteger(id) || id < 0 || id >= 0xffff_ffff) throw wrong(`${id} is no id of an owner`);
  return id;
}

function xattrsOf(pax: ReadonlyMap<string, Buffer>): ReadonlyMap<string, Buffer> {
  let found: Map<string, Buffer> | null = null;
  for (const [key, value] of pax) {
    const prefix = XATTR_PREFIXES.find((text) => key.startsWith(text));
    if (!prefix) continue;
    found ??= new Map();
    const name = key.slice(prefix.length);
    if (prefix === XATTR_PREFIXES[0]) found.set(name, value);
    // libarchive writes both where it can; its own is base64, the name percent-encoded.
    else if (!found.has(name)) found.set(name, Buffer.from(value.toString('latin1'), 'base64'));
  }
  return found ?? NO_XATTRS;
}
