/** Content by its digest, `blobs/sha256/HEX` of an OCI layout. A blob is there whole and right, or not at all. */
import { createHash } from 'node:crypto';
import { createReadStream, type ReadStream } from 'node:fs';
import { type FileHandle, mkdtemp, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SluiceError } from '../../../src/errors.ts';
import { diskError, syncDirectory } from './disk.ts';

export interface BlobId {
  readonly digest: string;
  readonly size: number;
}

const READ_BYTES = 1024 * 1024;

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === 'ENOENT') return null;
  throw error;
};

export interface CommitOptions {
  /** false: {@link Blobs.sync} brings it to the disk before anything refers to it. */
  readonly sync?: boolean;
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}

/** A blob on its way in. */
export class BlobWriter {
  readonly #blobs: Blobs;
  readonly #dir: string;
  readonly #file: FileHandle;
  readonly #hash = createHash('sha256');
  #size = 0;
  #open = true;
  #sealed: BlobId | null = null;

  constructor(blobs: Blobs, dir: string, file: FileHandle) {
    this.#blobs = blobs;
    this.#dir = dir;
    this.#file = file;
  }

  /** Where the bytes are until `commit`. */
  get path(): string {
    return join(this.#dir, 'blob');
  }
  /** Bytes so far. */
  get size(): number {
    return this.#size;
  }

  async write(chunk: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < chunk.length; )
        at += (await this.#file.write(chunk, at, chunk.length - at, null)).bytesWritten;
    } catch (error) {
      throw diskError(error, 'a blob does not fit');
    }
    this.#hash.update(chunk);
    this.#size += chunk.length;
  }

  /** Nothing more comes: what it is. It may still be committed, or given up. */
  async seal(): Promise<BlobId> {
    if (!this.#sealed) {
      await this.#close();
      this.#sealed = { digest: `sha256:${this.#hash.digest('hex')}`, size: this.#size };
    }
    return this.#sealed;
  }

  /** Takes the blob into the store under its digest; fails with `image.digest` where that or the size is not what was expected. */
  async commit(expected?: BlobId, { sync = true }: CommitOptions = {}): Promise<BlobId> {
    const found = await this.seal();
    if (expected) checkBlob(expected, found);
    try {
      if (sync) await syncFile(this.path);
      await rename(this.path, this.#blobs.path(found.digest));
      await syncDirectory(this.#blobs.dir);
    } catch (error) {
      throw diskError(error, 'a blob does not fit');
    }
    await this.abandon();
    return found;
  }

  async #close(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#file.close();
  }

  /** Gives up what came in; after `commit` there is nothing to give up. */
  async abandon(): Promise<void> {
    await this.#close();
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** Fails with `image.digest` unless both are the same. */
export function checkBlob(expected: BlobId, found: BlobId): void {
  if (found.digest === expected.digest && found.size === expected.size) return;
  const what =
    found.size !== expected.size
      ? `has ${found.size} bytes and not ${expected.size}`
      : `has the digest ${found.digest}`;
  throw new SluiceError('image.digest', `the blob ${expected.digest} ${what}`, { expected, found });
}

export class Blobs {
  /** `…/blobs/sha256` */
  readonly dir: string;
  readonly #temporary: string;
  /** Digests that somebody is about to refer to: nobody may collect them meanwhile. */
  readonly #held = new Map<string, number>();

  constructor(dir: string, temporary: string) {
    this.dir = dir;
    this.#temporary = temporary;
  }

  path(digest: string): string {
    return join(this.dir, digest.slice('sha256:'.length));
  }

  /** Bytes of the blob, null when it is not here. */
  async size(digest: string): Promise<number | null> {
    return (await stat(this.path(digest)).catch(absent))?.size ?? null;
  }

  /** The whole of a small blob, compared with its digest. */
  async read(digest: string, bytesMax: number): Promise<Buffer> {
    const size = await this.size(digest);
    if (size === null) throw new SluiceError('image.notfound', `the blob ${digest} is not here`, { digest });
    if (size > bytesMax) throw new SluiceError('image.limit', `the blob ${digest} has more than ${bytesMax} bytes`);
    const bytes = await readFile(this.path(digest));
    checkBlob({ digest, size }, { digest: sha256(bytes), size: bytes.length });
    return bytes;
  }

  /** Its bytes from `start` up to and with `end`. */
  stream(digest: string, range: { readonly start?: number; readonly end?: number } = {}): ReadStream {
    return createReadStream(this.path(digest), { highWaterMark: READ_BYTES, ...range });
  }

  async writer(): Promise<BlobWriter> {
    const dir = await mkdtemp(join(this.#temporary, 'blob-'));
    try {
      return new BlobWriter(this, dir, await open(join(dir, 'blob'), 'wx', 0o644));
    } catch (error) {
      await rm(dir, { recursive: true, force: true });
      throw diskError(error, 'a blob does not fit');
    }
  }

  /** Brings a blob that was committed without that to the disk. */
  async sync(digest: string): Promise<void> {
    try {
      await syncFile(this.path(digest));
    } catch (error) {
      throw diskError(error, 'a blob does not fit');
    }
  }

  /** Keeps bytes that are at hand. */
  async put(bytes: Uint8Array): Promise<BlobId> {
    const id = { digest: sha256(bytes), size: bytes.length };
    if ((await this.size(id.digest)) === id.size) return id;
    const writer = await this.writer();
    try {
      await writer.write(bytes);
      return await writer.commit(id);
    } finally {
      await writer.abandon();
    }
  }

  /** Keeps the blob from being collected until it is disposed of; it need not be here yet. */
  hold(digest: string): Disposable {
    this.#held.set(digest, (this.#held.get(digest) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        const left = this.#held.get(digest)! - 1;
        if (left > 0) this.#held.set(digest, left);
        else this.#held.delete(digest);
      },
    };
  }

  held(digest: string): boolean {
    return this.#held.has(digest);
  }

  /** Digests of all blobs. */
  async list(): Promise<string[]> {
    return (await readdir(this.dir)).filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => `sha256:${name}`);
  }

  /** Removes a blob; returns its bytes, 0 when it was not here. */
  async remove(digest: string): Promise<number> {
    const size = (await this.size(digest)) ?? 0;
    await rm(this.path(digest), { force: true });
    return size;
  }
}
