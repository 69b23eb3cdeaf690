/**
 * Archives of images, as `docker save`, `skopeo copy` and `buildah push` write them. Docker's own format names configuration and layers in
 * `manifest.json`; an OCI layout has `index.json`; Docker 25 and later write both, and then the layout tells what is in the image.
 */
import { open } from 'node:fs/promises';
import { z } from 'zod';
import type { Image, TransferOptions } from '../../../src/contracts/image.ts';
import { SluiceError } from '../../../src/errors.ts';
import { Catalog } from '../catalog.ts';
import { type Descriptor, MANIFEST_BYTES_MAX, type Manifest, MEDIA, parseDocument, parseJson } from '../manifest.ts';
import { choosePlatform, hostPlatform, type Platform, parsePlatform, platformName } from '../platform.ts';
import { fullName, parseReference } from '../reference.ts';
import type { Blobs } from '../store/blobs.ts';
import { type Compression, compressionOf, decompressed } from './compression.ts';
import { type Member, Spool } from './spool.ts';

/** An index in an index in an index is nobody's. */
const DEPTH_MAX = 4;
const IMAGES_MAX = 1_000;

const dockerManifest = z
  .array(
    z.looseObject({
      Config: z.string(),
      RepoTags: z.array(z.string()).nullish(),
      Layers: z.array(z.string()).max(500).nullish(),
    }),
  )
  .max(IMAGES_MAX);
type DockerItem = z.infer<typeof dockerManifest>[number];

/** An image of the archive: its manifest, and where its blobs are. */
export interface Loadable {
  readonly manifest: { readonly bytes: Buffer; readonly mediaType: string };
  readonly names: readonly string[];
  readonly members: readonly Member[];
}

const SUFFIX: Readonly<Record<Compression, string>> = { none: '', gzip: '+gzip', zstd: '+zstd' };
export const layerType = (compression: Compression): string => `${MEDIA.ociLayer}${SUFFIX[compression]}`;

/** A manifest of blobs that had none. */
export function makeManifest(config: Member | Descriptor, layers: readonly Descriptor[]): Buffer {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.ociManifest,
    config: { mediaType: MEDIA.ociConfig, digest: config.digest, size: config.size },
    layers: layers.map(({ mediaType, digest, size }) => ({ mediaType, digest, size })),
  };
  return Buffer.from(JSON.stringify(manifest));
}

/** The names of an image in Docker's archives, in full; what is no name is left out, as Docker does. */
const namesOf = (tags: readonly string[] | null | undefined): string[] =>
  (tags ?? []).map((tag) => fullName(parseReference(tag)));

async function headOf(member: Member): Promise<Buffer> {
  const file = await open(member.writer.path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(16), 0, 16, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

async function dockerImage(spool: Spool, item: DockerItem): Promise<Loadable> {
  const config = spool.must(item.Config);
  const layers = (item.Layers ?? []).map((path) => spool.must(path));
  const described: Descriptor[] = [];
  for (const { digest, size, ...member } of layers) {
    const mediaType = layerType(compressionOf(await headOf({ digest, size, ...member })));
    described.push({ mediaType, digest, size });
  }
  return {
    manifest: { bytes: makeManifest(config, described), mediaType: MEDIA.ociManifest },
    names: namesOf(item.RepoTags),
    members: [config, ...layers],
  };
}

/** A name in the annotations of an OCI index: in full, for a tag alone does not say of what. */
function annotatedName({ annotations }: Descriptor): string | null {
  const name = annotations?.['io.containerd.image.name'] ?? annotations?.['org.opencontainers.image.ref.name'];
  return name !== undefined && /[/:]/.test(name) ? fullName(parseReference(name)) : null;
}

/** The one of several descriptors that is for the platform; fails with `image.platform`, naming what there is. */
export function chooseDescriptor(wanted: Platform, offers: readonly Descriptor[], what: string): Descriptor {
  const [only] = offers;
  if (only && offers.length === 1) return only;
  const chosen = choosePlatform(wanted, offers);
  if (chosen) return chosen;
  const found = [...new Set(offers.map(({ platform }) => (platform ? platformName(platform) : 'an unnamed platform')))];
  throw new SluiceError('image.platform', `${what} is for ${found.join(', ')}, and ${platformName(wanted)} is wanted`, {
    found,
    wanted: platformName(wanted),
  });
}

async function layoutImage(
  spool: Spool,
  top: Descriptor,
  wanted: Platform,
  names: readonly string[],
): Promise<Loadable> {
  let descriptor = top;
  for (let depth = 0; depth < DEPTH_MAX; depth++) {
    const what = `the manifest ${descriptor.digest}`;
    const bytes = await Spool.read(spool.blob(descriptor), MANIFEST_BYTES_MAX, what);
    const document = parseDocument(bytes, what);
    if (document.kind === 'manifest') {
      const members = Catalog.blobsOf(document.manifest).map((blob) => spool.blob(blob));
      return { manifest: { bytes, mediaType: document.mediaType }, names, members };
    }
    descriptor = chooseDescriptor(wanted, document.index.manifests, names[0] ?? 'the archive');
  }
  throw new SluiceError('image.manifest', `the archive has indexes in indexes, more than ${DEPTH_MAX} deep`);
}

/** Descriptors of one image: those of one name, or all without a name when each is for a platform of its own. */
export function groupDescriptors(manifests: readonly Descriptor[]): { name: string | null; offers: Descriptor[] }[] {
  const named = new Map<string, Descriptor[]>();
  const unnamed: Descriptor[] = [];
  for (const descriptor of manifests) {
    const name = annotatedName(descriptor);
    if (name === null) unnamed.push(descriptor);
    else named.set(name, [...(named.get(name) ?? []), descriptor]);
  }
  const groups = [...named].map(([name, offers]) => ({ name: name as string | null, offers }));
  const platforms = new Set(unnamed.map(({ platform }) => (platform ? platformName(platform) : '')));
  if (unnamed.length > 1 && platforms.size === unnamed.length && !platforms.has(''))
    groups.push({ name: null, offers: unnamed });
  else groups.push(...unnamed.map((descriptor) => ({ name: null, offers: [descriptor] })));
  return groups;
}

async function layoutImages(
  spool: Spool,
  indexFile: Member,
  items: readonly DockerItem[],
  wanted: Platform,
): Promise<Loadable[]> {
  const bytes = await Spool.read(indexFile, MANIFEST_BYTES_MAX, 'index.json');
  const document = parseDocument(bytes, 'index.json');
  if (document.kind !== 'index') throw new SluiceError('image.archive', 'index.json of the archive is no index');
  const images: Loadable[] = [];
  for (const { name, offers } of groupDescriptors(document.index.manifests)) {
    const top = chooseDescriptor(wanted, offers, name ?? 'the archive');
    images.push(await layoutImage(spool, top, wanted, name === null ? [] : [name]));
  }
  // Docker's own list beside the layout knows names that the annotations abbreviate.
  return images.map((image) => {
    const config = image.members[0]!.digest;
    const tags = items
      .filter((item) => spool.get(item.Config)?.digest === config)
      .flatMap((item) => namesOf(item.RepoTags));
    return { ...image, names: [...new Set([...image.names, ...tags])] };
  });
}

/** What is in the archive. */
async function imagesIn(spool: Spool, wanted: Platform): Promise<Loadable[]> {
  const list = spool.get('manifest.json');
  let items: readonly DockerItem[] = [];
  if (list) {
    const value = parseJson(await Spool.read(list, MANIFEST_BYTES_MAX, 'manifest.json'), 'manifest.json');
    const parsed = dockerManifest.safeParse(value);
    if (!parsed.success)
      throw new SluiceError('image.archive', `manifest.json of the archive: ${parsed.error.issues[0]?.message}`);
    items = parsed.data;
  }
  const indexFile = spool.get('index.json');
  if (indexFile && spool.get('oci-layout')) return layoutImages(spool, indexFile, items, wanted);
  if (list) return Promise.all(items.map((item) => dockerImage(spool, item)));
  throw new SluiceError(
    'image.archive',
    'the archive is neither an OCI layout nor a docker archive; a plain file system is for "image import"',
  );
}

/** Loads an archive; see `Images.load`. */
export async function loadArchive(
  store: { readonly blobs: Blobs; readonly catalog: Catalog; readonly archiveBytesMax: number },
  archive: AsyncIterable<Uint8Array>,
  options: TransferOptions,
): Promise<Image[]> {
  const { blobs, catalog, archiveBytesMax } = store;
  const say = (text: string) => options.onProgress?.({ type: 'status', what: 'archive', text });
  await using spool = new Spool();
  say('reading');
  await spool.fill(decompressed(archive), blobs, archiveBytesMax, options.signal);
  const wanted = options.platform ? parsePlatform(options.platform) : hostPlatform();
  const loadables = await imagesIn(spool, wanted);
  if (loadables.length === 0) throw new SluiceError('image.archive', 'the archive holds no image');
  const images: Image[] = [];
  for (const { manifest, names, members } of loadables) {
    const what = names[0] ?? 'the image of the archive';
    const digests = members.map(({ digest }) => digest);
    const image = await catalog.bringing(digests, async () => {
      // A blob may belong to several images of the archive: it moves into the store with the first.
      for (const { digest, size, writer } of members)
        if ((await blobs.size(digest)) !== size) await writer.commit({ digest, size });
      return catalog.admit({ manifest, names, digests: [], what }, options);
    });
    images.push(image);
    say(`loaded ${what}`);
  }
  return images;
}
