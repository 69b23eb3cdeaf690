/** An image to a registry: blobs side by side, then the manifest that refers to them. */
import { createGzip } from 'node:zlib';
import type { TransferOptions } from '../../../src/contracts/image.ts';
import { SluiceError } from '../../../src/errors.ts';
import { Catalog, type Found } from '../catalog.ts';
import { type Descriptor, type Manifest, MEDIA } from '../manifest.ts';
import { parseReference, type Reference, repositoryName } from '../reference.ts';
import { type BlobId, sha256 } from '../store/blobs.ts';
import { type Entry, withEntry } from '../store/index.ts';
import { eachOf } from './crowd.ts';
import { isUnreachable } from './http.ts';
import { BlobProgress } from './progress.ts';
import type { PullStore } from './pull.ts';
import type { Session } from './session.ts';
import { uploadBlob } from './upload.ts';

const BLOBS_AT_ONCE = 4;

/** See `Images.push`. */
export async function pushImage(
  store: PullStore,
  sessions: readonly Session[],
  text: string,
  options: TransferOptions,
): Promise<{ readonly digest: string }> {
  const { catalog } = store;
  const found = catalog.must(text);
  if (found.by !== 'name')
    throw new SluiceError(
      'image.reference',
      `${text} is no name with a tag: push by the name that the image shall have`,
    );
  const reference = parseReference(text);
  const before = await catalog.content(found.entry);
  const held = [found.entry.manifest.digest, ...Catalog.blobsOf(before.manifest).map(({ digest }) => digest)];
  return catalog.bringing(held, async () => {
    const { entry, manifest, bytes } = await compressed(store, found, before.manifest, options);
    using _held = catalog.hold([entry.manifest.digest, ...Catalog.blobsOf(manifest).map(({ digest }) => digest)]);
    const session = await reachable(sessions, options.signal);
    await eachOf(Catalog.blobsOf(manifest), BLOBS_AT_ONCE, options.signal, async (blob, signal) => {
      const progress = new BlobProgress(session.clock, blob.digest, blob.size, options.onProgress);
      const how = await uploadBlob(session, store.blobs, blob, {
        signal,
        onProgress: (current) => progress.bytes('uploading', current),
        neighbours: neighboursOf(catalog, reference, blob),
      });
      progress.say(how === 'uploaded' ? 'done' : how);
    });
    const answer = await session.done(
      {
        method: 'PUT',
        path: `${session.repository}/manifests/${reference.tag}`,
        headers: { 'content-type': entry.manifest.mediaType },
        body: bytes,
        expect: [201],
        what: `the manifest of ${text}`,
      },
      options.signal,
    );
    const { digest } = entry.manifest;
    const said = answer.headers['docker-content-digest'];
    if (typeof said === 'string' && said.startsWith('sha256:') && said !== digest)
      throw new SluiceError('image.digest', `the registry took ${digest} for ${said}`, {
        expected: digest,
        found: said,
      });
    const digests = [`${repositoryName(reference)}@${digest}`];
    // An image that lost its name meanwhile gets none back.
    await catalog.change((entries) => {
      const now = entries.get(entry.id);
      return now ? withEntry(entries, { ...now, names: [], digests }) : null;
    });
    return { digest };
  });
}

/** The first endpoint that answers at all. */
async function reachable(sessions: readonly Session[], signal: AbortSignal): Promise<Session> {
  let last: unknown;
  for (const session of sessions) {
    try {
      await session.done({ method: 'GET', path: '', expect: [200, 401, 403, 404], what: 'its version' }, signal);
      return session;
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      last = error;
    }
  }
  throw last;
}

/** Other repositories of that registry that an image with this blob came from or went to. */
function neighboursOf(catalog: Catalog, reference: Reference, blob: BlobId): string[] {
  const prefix = `${reference.registry}/`;
  const repositories = catalog
    .sharing(blob.digest)
    .flatMap(({ digests }) =>
      digests.filter((text) => text.startsWith(prefix)).map((text) => text.slice(prefix.length, text.indexOf('@'))),
    );
  return [...new Set(repositories)].filter((repository) => repository !== reference.repository);
}

interface Pushable {
  readonly entry: Entry;
  readonly manifest: Manifest;
  readonly bytes: Buffer;
}

/**
 * The image with every layer compressed, as registries have them. What was loaded uncompressed is kept compressed from then on: the image's id,
 * which is of the content, stays.
 */
async function compressed(
  store: PullStore,
  { entry }: Found,
  manifest: Manifest,
  options: TransferOptions,
): Promise<Pushable> {
  const { blobs, catalog } = store;
  const plain = (layer: Descriptor): boolean => layer.mediaType === MEDIA.ociLayer;
  if (!manifest.layers.some(plain))
    return { entry, manifest, bytes: await blobs.read(entry.manifest.digest, entry.manifest.size) };
  using stack = new DisposableStack();
  const { configuration } = await catalog.content(entry);
  const done = new Map<string, Descriptor>();
  const diffIds = configuration.rootfs.diff_ids ?? [];
  for (const [index, layer] of manifest.layers.entries()) {
    if (!plain(layer) || done.has(layer.digest)) continue;
    options.onProgress?.({ type: 'layer', what: layer.digest, text: 'compressing' });
    const packed = await gzipped(store, layer, options.signal, (digest) => stack.use(catalog.hold([digest])));
    // Read once more, so that it is known to hold the layer by having been seen.
    const source = { path: blobs.path(packed.digest), digest: packed.digest };
    await store.layers.ensure(source, diffIds[index]!, { signal: options.signal });
    done.set(layer.digest, { mediaType: `${MEDIA.ociLayer}+gzip`, ...packed });
  }
  const next: Manifest = { ...manifest, layers: manifest.layers.map((layer) => done.get(layer.digest) ?? layer) };
  const bytes = Buffer.from(JSON.stringify(next));
  stack.use(catalog.hold([sha256(bytes)]));
  const stored = await blobs.put(bytes);
  const fresh: Entry = { ...entry, manifest: { mediaType: MEDIA.ociManifest, ...stored } };
  await catalog.change((entries) => {
    const now = entries.get(entry.id);
    return now ? new Map(entries).set(entry.id, { ...now, manifest: fresh.manifest }) : null;
  });
  return { entry: fresh, manifest: next, bytes };
}

async function gzipped(
  { blobs }: PullStore,
  layer: Descriptor,
  signal: AbortSignal,
  hold: (digest: string) => void,
): Promise<BlobId> {
  const writer = await blobs.writer();
  try {
    const source = blobs.stream(layer.digest);
    const gzip = createGzip({ level: 6, chunkSize: 256 * 1024 });
    source.on('error', (error) => gzip.destroy(error));
    for await (const chunk of source.pipe(gzip)) {
      signal.throwIfAborted();
      await writer.write(chunk as Buffer);
    }
    const id = await writer.seal();
    hold(id.digest);
    return await writer.commit();
  } finally {
    await writer.abandon();
  }
}
