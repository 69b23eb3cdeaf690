/** An image from a registry: manifest, the one for this machine, configuration, then layers side by side, each unpacked when it is whole. */
import type { Image, TransferOptions } from '../../../src/contracts/image.ts';
import { SluiceError } from '../../../src/errors.ts';
import { chooseDescriptor } from '../archive/load.ts';
import { Catalog } from '../catalog.ts';
import type { Layers } from '../layer/layers.ts';
import {
  CONFIG_BYTES_MAX,
  type Descriptor,
  diffIdsOf,
  MANIFEST_BYTES_MAX,
  MANIFEST_TYPES,
  type Manifest,
  parseConfiguration,
  parseDocument,
} from '../manifest.ts';
import { checkPlatform, hostPlatform, parsePlatform } from '../platform.ts';
import { fullName, parseReference, type Reference, repositoryName, wantedOf } from '../reference.ts';
import { type Blobs, checkBlob, sha256 } from '../store/blobs.ts';
import type { Turns } from '../store/disk.ts';
import { eachOf, settled } from './crowd.ts';
import { type DownloadOptions, downloadBlob, worst } from './download.ts';
import { BlobProgress } from './progress.ts';
import type { Session } from './session.ts';

export interface PullStore {
  readonly blobs: Blobs;
  readonly catalog: Catalog;
  readonly layers: Layers;
  /** Keeps two pulls from fetching the same blob twice. */
  readonly downloads: Turns;
}

const LAYERS_AT_ONCE = 4;
/** An index that leads to an index is allowed once. */
const DEPTH_MAX = 3;

interface Fetched {
  readonly bytes: Buffer;
  readonly mediaType: string;
  readonly manifest: Manifest;
  /** Digests of what led here, the manifest's own last. */
  readonly digests: readonly string[];
}

/** See `Images.pull`. The endpoints are tried in turn until one has the manifest; what follows comes from that one. */
export async function pullImage(
  store: PullStore,
  sessions: readonly Session[],
  text: string,
  options: TransferOptions,
): Promise<Image> {
  const reference = parseReference(text);
  const name = fullName(reference);
  const wanted = options.platform ? parsePlatform(options.platform) : hostPlatform();
  options.onProgress?.({ type: 'status', what: name, text: 'resolving' });
  const { session, found } = await firstOf(sessions, (each) => fetchManifest(each, reference, wanted, options.signal));
  const { manifest, bytes, mediaType, digests } = found;
  const blobs = Catalog.blobsOf(manifest);
  return store.catalog.bringing([...digests, ...blobs.map(({ digest }) => digest)], async () => {
    if (manifest.config.size > CONFIG_BYTES_MAX)
      throw new SluiceError('image.limit', `the configuration of ${name} has more than ${CONFIG_BYTES_MAX} bytes`);
    await fetchBlob(store, session, manifest.config, options.signal);
    const what = `the configuration of ${name}`;
    const config = await store.blobs.read(manifest.config.digest, CONFIG_BYTES_MAX);
    const configuration = parseConfiguration(config, what, manifest.layers.length);
    checkPlatform(wanted, configuration, name);
    const diffIds = diffIdsOf(configuration);
    using _held = store.catalog.hold(diffIds);
    const pairs = new Map(manifest.layers.map((layer, index) => [layer.digest, { layer, diffId: diffIds[index]! }]));
    for (const { layer } of pairs.values())
      options.onProgress?.({ type: 'layer', what: layer.digest, text: 'waiting' });
    await eachOf([...pairs.values()], LAYERS_AT_ONCE, options.signal, ({ layer, diffId }, signal) =>
      fetchLayer(store, session, layer, diffId, { ...options, signal }),
    );
    const arrival = {
      manifest: { bytes, mediaType },
      names: reference.digest === undefined ? [name] : [],
      digests: digests.map((digest) => `${repositoryName(reference)}@${digest}`),
      what: name,
    };
    return store.catalog.admit(arrival, options);
  });
}

async function firstOf<T>(
  sessions: readonly Session[],
  work: (session: Session) => Promise<T>,
): Promise<{ readonly session: Session; readonly found: T }> {
  const errors: unknown[] = [];
  for (const session of sessions) {
    try {
      return { session, found: await work(session) };
    } catch (error) {
      if (!(error instanceof SluiceError)) throw error;
      errors.push(error);
    }
  }
  throw worst(errors);
}

async function fetchManifest(
  session: Session,
  reference: Reference,
  wanted: ReturnType<typeof hostPlatform>,
  signal: AbortSignal,
): Promise<Fetched> {
  const name = fullName(reference);
  const digests: string[] = [];
  let asked = wantedOf(reference);
  let descriptor: Descriptor | null = null;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const what = `the manifest of ${name}`;
    const answer = await session.call(
      {
        method: 'GET',
        path: `${session.repository}/manifests/${asked}`,
        headers: { accept: MANIFEST_TYPES.join(', ') },
        expect: [200],
        what,
      },
      signal,
    );
    const bytes = await session.http.whole(answer, MANIFEST_BYTES_MAX, signal);
    const digest = sha256(bytes);
    const said = answer.headers['docker-content-digest'];
    const promised = asked.startsWith('sha256:')
      ? asked
      : typeof said === 'string' && said.startsWith('sha256:')
        ? said
        : digest;
    checkBlob(descriptor ?? { digest: promised, size: bytes.length }, { digest, size: bytes.length });
    digests.push(digest);
    const document = parseDocument(bytes, what);
    if (document.kind === 'manifest')
      return { bytes, mediaType: document.mediaType, manifest: document.manifest, digests };
    descriptor = chooseDescriptor(wanted, document.index.manifests, name);
    asked = descriptor.digest;
  }
  throw new SluiceError('image.manifest', `${name} leads from index to index, more than ${DEPTH_MAX} times`);
}

async function fetchBlob(
  { blobs, downloads }: PullStore,
  session: Session,
  blob: Descriptor,
  signal: AbortSignal,
  { onProgress = () => undefined, commit }: Partial<Pick<DownloadOptions, 'onProgress' | 'commit'>> = {},
): Promise<'exists' | 'fetched'> {
  const expected = { digest: blob.digest, size: blob.size };
  return downloads.run(blob.digest, async () => {
    signal.throwIfAborted();
    if ((await blobs.size(blob.digest)) === blob.size) return 'exists';
    await downloadBlob(session, blobs, expected, { signal, onProgress, commit });
    return 'fetched';
  });
}

async function fetchLayer(
  store: PullStore,
  session: Session,
  layer: Descriptor,
  diffId: string,
  { signal, onProgress }: TransferOptions,
): Promise<void> {
  const progress = new BlobProgress(session.clock, layer.digest, layer.size, onProgress);
  const how = await fetchBlob(store, session, layer, signal, {
    onProgress: (current) => progress.bytes('downloading', current),
    commit: { sync: false },
  });
  if (how === 'exists' && (await store.layers.has(diffId, layer.digest))) {
    progress.say('exists');
    return;
  }
  const source = { path: store.blobs.path(layer.digest), digest: layer.digest };
  progress.say('unpacking');
  // The disk takes its time with the blob: the layer is unpacked meanwhile. What a crash leaves of a blob nobody refers to.
  const unpacked = store.layers.ensure(source, diffId, {
    signal,
    onProgress: (current) => progress.bytes('unpacking', current),
  });
  await settled([unpacked, store.blobs.sync(layer.digest)]);
  progress.say('done');
}
