/** One blob from a registry into the store: resumed where it broke off, compared with what was promised while it comes. */
import { isSluiceError, SluiceError } from '../../../src/errors.ts';
import type { BlobId, Blobs, BlobWriter, CommitOptions } from '../store/blobs.ts';
import { type Answer, isUnreachable } from './http.ts';
import type { Session } from './session.ts';

/** Failures one after another without that many bytes in between. */
const FAILURES_MAX = 5;
const PROGRESS_BYTES = 1024 * 1024;
const PAUSE_MS = 100;

export interface DownloadOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (current: number) => void;
  readonly commit?: CommitOptions;
}

/** Fails with `image.digest` as soon as more or other bytes come than the descriptor says. */
export async function downloadBlob(
  session: Session,
  blobs: Blobs,
  expected: BlobId,
  { signal, onProgress, commit }: DownloadOptions,
): Promise<void> {
  const writer = await blobs.writer();
  try {
    let failures = 0;
    let mark = 0;
    while (writer.size < expected.size || expected.size === 0) {
      try {
        await attempt(session, writer, expected, signal, onProgress);
        if (writer.size >= expected.size) break;
        throw cutShort(session, expected, writer.size);
      } catch (error) {
        if (!isUnreachable(error)) throw error;
        if (writer.size - mark >= PROGRESS_BYTES) failures = 0;
        mark = writer.size;
        if (++failures >= FAILURES_MAX) throw error;
        await session.clock.sleep(PAUSE_MS * 2 ** failures, signal);
      }
    }
    await writer.commit(expected, commit);
  } finally {
    await writer.abandon();
  }
}

function cutShort(session: Session, { digest, size }: BlobId, got: number): SluiceError {
  const { host } = new URL(session.endpoint.base);
  return new SluiceError('image.registry', `${host} ends the blob ${digest} after ${got} of ${size} bytes`, {
    unreachable: true,
    got,
    size,
  });
}

/** Takes what comes from where we are until the answer ends. */
async function attempt(
  session: Session,
  writer: BlobWriter,
  { digest, size }: BlobId,
  signal: AbortSignal,
  onProgress: (current: number) => void,
): Promise<void> {
  const start = writer.size;
  const answer = await session.call(
    {
      method: 'GET',
      path: `${session.repository}/blobs/${digest}`,
      headers: { 'accept-encoding': 'identity', ...(start > 0 ? { range: `bytes=${start}-` } : {}) },
      expect: [200, 206],
      what: `the blob ${digest}`,
    },
    signal,
  );
  try {
    // A registry that knows no ranges begins anew: what we have is passed over.
    let skip = skipped(answer, start);
    const length = Number(answer.headers['content-length'] ?? Number.NaN);
    const more = (found: number): SluiceError =>
      new SluiceError('image.digest', `the blob ${digest} has ${found} bytes and not ${size}`, { digest, size, found });
    if (length >= 0 && start - skip + length > size) throw more(start - skip + length);
    for await (const chunk of session.http.read(answer, signal)) {
      const fresh = skip > 0 ? chunk.subarray(Math.min(skip, chunk.length)) : chunk;
      skip -= chunk.length - fresh.length;
      if (fresh.length === 0) continue;
      if (writer.size + fresh.length > size) throw more(writer.size + fresh.length);
      await writer.write(fresh);
      onProgress(writer.size);
    }
  } catch (error) {
    answer.body.destroy();
    throw error;
  }
}

/** Bytes at the beginning of the answer that we have already. */
function skipped(answer: Answer, start: number): number {
  if (answer.status === 200) return start;
  const from = /^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '')?.[1];
  if (from !== undefined && Number(from) === start) return 0;
  throw new SluiceError('image.registry', `a part was asked for from byte ${start} and came from ${from}`, { start });
}

/** The failure that tells most when several endpoints failed: that of the registry itself. */
export const worst = (errors: readonly unknown[]): unknown =>
  errors.find((error) => isSluiceError(error) && !isUnreachable(error)) ?? errors.at(-1);
