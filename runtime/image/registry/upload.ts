/** One blob from the store to a registry: not at all where it is there, by a mount from a neighbour, in one piece or in resumed chunks. */
import { SluiceError } from '../../../src/errors.ts';
import type { BlobId, Blobs } from '../store/blobs.ts';
import { type Answer, isUnreachable } from './http.ts';
import type { Session } from './session.ts';

/** Larger blobs go in pieces of that size, so that a break costs one piece. */
const CHUNK_BYTES = 64 * 1024 * 1024;
const FAILURES_MAX = 5;
const PAUSE_MS = 100;

export interface UploadOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (current: number) => void;
  /** Repositories of the same registry that have the blob, as far as we know. */
  readonly neighbours: readonly string[];
  readonly chunkBytes?: number;
}

export async function uploadBlob(
  session: Session,
  blobs: Blobs,
  blob: BlobId,
  options: UploadOptions,
): Promise<'exists' | 'mounted' | 'uploaded'> {
  const { signal, neighbours, chunkBytes = CHUNK_BYTES } = options;
  const { repository } = session;
  const what = `the blob ${blob.digest}`;
  const present = await session.done(
    { method: 'HEAD', path: `${repository}/blobs/${blob.digest}`, expect: [200, 404], what },
    signal,
  );
  if (present.status === 200) return 'exists';
  const [from] = neighbours;
  const query = from === undefined ? '' : `?mount=${blob.digest}&from=${encodeURIComponent(from)}`;
  const begun = await session.done(
    { method: 'POST', path: `${repository}/blobs/uploads/${query}`, expect: [201, 202], what, alsoFrom: from },
    signal,
  );
  if (begun.status === 201) return 'mounted';
  let failures = 0;
  let place: Place = { url: locationOf(begun), offset: 0 };
  for (;;) {
    try {
      place = await uploadFrom(session, blobs, blob, place, chunkBytes, options, (next) => {
        place = next;
      });
      return 'uploaded';
    } catch (error) {
      if (!isUnreachable(error) || ++failures >= FAILURES_MAX) throw error;
      await session.clock.sleep(PAUSE_MS * 2 ** failures, signal);
      place = await whereWeAre(session, place, what, signal);
    }
  }
}

/** An upload that the registry holds open, and how much of it has arrived. */
interface Place {
  readonly url: string;
  readonly offset: number;
}

/** Where the registry says that the upload goes on. */
function locationOf(answer: Answer): string {
  const { location } = answer.headers;
  if (location === undefined || !URL.canParse(location, answer.url))
    throw new SluiceError('image.registry', `${new URL(answer.url).host} does not say where to upload`);
  return new URL(location, answer.url).href;
}

const withDigest = (url: string, digest: string): string => {
  const target = new URL(url);
  target.searchParams.set('digest', digest);
  return target.href;
};

async function uploadFrom(
  session: Session,
  blobs: Blobs,
  { digest, size }: BlobId,
  start: Place,
  chunkBytes: number,
  { signal, onProgress }: UploadOptions,
  arrived: (place: Place) => void,
): Promise<Place> {
  let { url, offset } = start;
  const what = `the upload of ${digest}`;
  const type = { 'content-type': 'application/octet-stream' };
  const piece = (end: number) => {
    const stream = blobs.stream(digest, { start: offset, end: end - 1 });
    const from = offset;
    stream.on('data', () => onProgress(Math.min(size, from + stream.bytesRead)));
    return { stream, length: end - offset };
  };
  while (offset > 0 || size > chunkBytes) {
    const end = Math.min(size, offset + chunkBytes);
    if (end === offset) break;
    const headers = { ...type, 'content-range': `${offset}-${end - 1}` };
    const answer = await session.done(
      { method: 'PATCH', path: url, headers, body: piece(end), expect: [202], what },
      signal,
    );
    url = locationOf(answer);
    offset = end;
    arrived({ url, offset });
  }
  const rest = offset < size ? piece(size) : Buffer.alloc(0);
  await session.done(
    { method: 'PUT', path: withDigest(url, digest), headers: type, body: rest, expect: [201, 204], what },
    signal,
  );
  return { url, offset: size };
}

/** After a break: how much the registry has. */
async function whereWeAre(session: Session, { url }: Place, what: string, signal: AbortSignal): Promise<Place> {
  const answer = await session.done({ method: 'GET', path: url, expect: [204], what }, signal);
  const end = /^(?:bytes=)?0-(\d+)$/.exec(String(answer.headers.range ?? ''))?.[1];
  // "0-0" is what registries say of nothing, and of one byte; which of both cannot be told, and a chunk is never one byte.
  const offset = end === undefined || end === '0' ? 0 : Number(end) + 1;
  return { url: answer.headers.location === undefined ? url : locationOf(answer), offset };
}
