/** A layer from a blob to its place: decompressed, compared with its digest, unpacked, brought to the disk, moved into place as a whole. */
import { createHash } from 'node:crypto';
import { closeSync, createReadStream, fsyncSync, mkdirSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { SluiceError } from '../../../src/errors.ts';
import { syncFileSystem } from '../../../src/kernel/fs/file.ts';
import { decompressed } from '../archive/compression.ts';
import { TarReader } from '../archive/tar-reader.ts';
import { hexOf, type LayerRecord, type UnpackJob, type UnpackResult } from './job.ts';
import { LayerUnpacker } from './unpack.ts';

const READ_BYTES = 1024 * 1024;

export interface Work {
  readonly signal: AbortSignal;
  /** Bytes of the blob read so far. */
  readonly onProgress: (current: number) => void;
}

/** Runs one job. Whatever it fails of, what it had begun is removed again. */
export async function runJob(job: UnpackJob, work: Work): Promise<UnpackResult> {
  if (job.kind === 'check') {
    const diffId = await readLayer(job, work, null);
    return { diffId, bytes: 0, entries: 0, lostXattrs: [] };
  }
  const begun = await mkdtemp(join(job.temporary, 'layer-'));
  const unpacker = new LayerUnpacker(join(begun, 'diff'), job.limits);
  try {
    mkdirSync(join(begun, 'diff'), { mode: 0o755 });
    const diffId = await readLayer(job, work, unpacker);
    unpacker.finish();
    const { bytes, entries, lostXattrs } = unpacker;
    const record: LayerRecord = { diffId, bytes, entries, lostXattrs, blobs: [job.blobDigest] };
    writeFileSync(join(begun, 'layer.json'), `${JSON.stringify(record)}\n`);
    syncFileSystem(begun);
    moveIntoPlace(begun, job.layers, hexOf(diffId));
    return record;
  } finally {
    unpacker.abandon();
    await rm(begun, { recursive: true, force: true });
  }
}

/** Reads the whole blob; returns the digest of its content, which is the expected one. */
async function readLayer(job: UnpackJob, work: Work, unpacker: LayerUnpacker | null): Promise<string> {
  const hash = createHash('sha256');
  const tar = unpacker ? new TarReader(unpacker) : null;
  const { layerBytesMax } = job.limits;
  let total = 0;
  for await (const chunk of decompressed(counted(job.blob, work.onProgress))) {
    work.signal.throwIfAborted();
    total += chunk.length;
    if (total > layerBytesMax)
      throw new SluiceError('image.limit', `the layer has more than ${layerBytesMax} bytes`, { layerBytesMax });
    hash.update(chunk);
    tar?.push(chunk);
  }
  tar?.end();
  const diffId = `sha256:${hash.digest('hex')}`;
  if (job.diffId !== null && diffId !== job.diffId)
    throw new SluiceError('image.digest', `the layer ${job.blobDigest} holds ${diffId} and not ${job.diffId}`, {
      expected: job.diffId,
      found: diffId,
    });
  return diffId;
}

async function* counted(path: string, onProgress: (current: number) => void): AsyncGenerator<Buffer> {
  let read = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>) {
    read += chunk.length;
    onProgress(read);
    yield chunk;
  }
}

function moveIntoPlace(begun: string, layers: string, name: string): void {
  try {
    renameSync(begun, join(layers, name));
  } catch (error) {
    // Somebody else unpacked the same meanwhile: the content is the same too.
    if (!['EEXIST', 'ENOTEMPTY'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
  const fd = openSync(layers, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
