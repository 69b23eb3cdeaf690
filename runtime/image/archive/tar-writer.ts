/** Tar headers as archives of images need them: plain files and directories with short names, always the same bytes for the same content. */

const BLOCK = 512;

function octal(block: Buffer, at: number, length: number, value: number): void {
  const digits = value.toString(8).padStart(length - 1, '0');
  if (digits.length < length) {
    block.write(`${digits}\0`, at, 'latin1');
    return;
  }
  // Base 256: files of 8 GiB and more.
  let left = BigInt(value);
  for (let index = at + length - 1; index > at; index--) {
    block[index] = Number(left & 0xffn);
    left >>= 8n;
  }
  block[at] = 0x80;
}

/** One header. `path` has at most 100 bytes; a directory's ends with a slash. */
export function tarHeader(path: string, size: number, mtime = 0): Buffer {
  if (Buffer.byteLength(path) > 100) throw new RangeError(`${path} is too long for a plain header`);
  const directory = path.endsWith('/');
  const block = Buffer.alloc(BLOCK);
  block.write(path, 0, 'utf8');
  octal(block, 100, 8, directory ? 0o755 : 0o644);
  octal(block, 108, 8, 0);
  octal(block, 116, 8, 0);
  octal(block, 124, 12, size);
  octal(block, 136, 12, mtime);
  block.write('        ', 148, 'latin1');
  block.write(directory ? '5' : '0', 156, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  octal(block, 329, 8, 0);
  octal(block, 337, 8, 0);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** Zeros that fill an entry of `size` bytes up to a block. */
export const tarPadding = (size: number): Buffer => Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK);

/** What ends an archive. */
export const tarEnd = (): Buffer => Buffer.alloc(2 * BLOCK);
