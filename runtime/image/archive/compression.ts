/** How a stream is compressed, by its first bytes, and the stream without it. */
import { pipeline, Readable } from 'node:stream';
import { createGunzip, createZstdDecompress } from 'node:zlib';
import { SluiceError } from '../../../src/errors.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes that tell: the longest signature. */
const SIGNATURE_BYTES = 6;
/** Larger pieces than the default 16 KiB: each costs a turn through the thread pool. */
const CHUNK_BYTES = 256 * 1024;

const startsWith = (bytes: Uint8Array, ...signature: readonly number[]): boolean =>
  bytes.length >= signature.length && signature.every((byte, index) => bytes[index] === byte);

/** Fails with `image.archive` on a compression that we do not read, which is named. */
export function compressionOf(head: Uint8Array): Compression {
  if (startsWith(head, 0x1f, 0x8b)) return 'gzip';
  if (startsWith(head, 0x28, 0xb5, 0x2f, 0xfd)) return 'zstd';
  // A skippable frame, which zstd:chunked and pzstd may begin with.
  if (head.length >= 4 && (head[0]! & 0xf0) === 0x50 && startsWith(head.subarray(1), 0x2a, 0x4d, 0x18)) return 'zstd';
  const refuse = (name: string): never => {
    throw new SluiceError('image.archive', `the archive is compressed with ${name}; plain, gzip and zstd are read`);
  };
  if (startsWith(head, 0x42, 0x5a, 0x68)) refuse('bzip2');
  if (startsWith(head, 0xfd, 0x37, 0x7a, 0x58, 0x5a)) refuse('xz');
  return 'none';
}

/** The content, decompressed where need be. What is corrupt fails with `image.archive`. */
export async function* decompressed(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]();
  let head: Buffer = Buffer.alloc(0);
  try {
    while (head.length < SIGNATURE_BYTES) {
      const { done, value } = await chunks.next();
      if (done) break;
      head = Buffer.concat([head, value]);
    }
    const compression = compressionOf(head);
    const whole = rejoined(head, chunks);
    if (compression === 'none') {
      yield* whole;
      return;
    }
    const options = { chunkSize: CHUNK_BYTES };
    const inflate = compression === 'gzip' ? createGunzip(options) : createZstdDecompress(options);
    // The failure of the source comes out of the iteration: pipeline destroys what it leads into with it.
    pipeline(Readable.from(whole, { objectMode: false }), inflate, () => undefined);
    try {
      for await (const chunk of inflate) yield chunk as Buffer;
    } catch (error) {
      if (!/^(?:Z_|ZSTD_|ERR_ZSTD)/.test(String((error as NodeJS.ErrnoException).code))) throw error;
      throw new SluiceError(
        'image.archive',
        `the archive's ${compression} data is corrupt: ${(error as Error).message}`,
      );
    }
  } finally {
    await chunks.return?.();
  }
}

async function* rejoined(head: Buffer, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Buffer> {
  if (head.length > 0) yield head;
  for (;;) {
    const { done, value } = await rest.next();
    if (done) return;
    yield Buffer.isBuffer(value) ? value : Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  }
}
