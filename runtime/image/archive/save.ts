/** An archive of images that Docker, skopeo, buildah and we load: an OCI layout, and Docker's `manifest.json` that refers to its blobs. */
import type { Catalog, Found } from '../catalog.ts';
import { MEDIA } from '../manifest.ts';
import { familiarName } from '../reference.ts';
import type { Blobs } from '../store/blobs.ts';
import { tarEnd, tarHeader, tarPadding } from './tar-writer.ts';

interface Saved {
  readonly found: Found;
  readonly names: string[];
  readonly layers: readonly string[];
  readonly blobs: readonly { readonly digest: string; readonly size: number }[];
}

const blobPath = (digest: string): string => `blobs/sha256/${digest.slice('sha256:'.length)}`;

/** What goes into the archive: an image once, with the names that it was asked for by; all that it has when by its id. */
async function plan(catalog: Catalog, references: readonly string[]): Promise<Saved[]> {
  const byId = new Map<string, Saved>();
  for (const reference of references) {
    const found = catalog.must(reference);
    const { entry, by, key } = found;
    const names = by === 'name' ? [key] : by === 'id' ? entry.names : [];
    const known = byId.get(entry.id);
    if (known) {
      known.names.push(...names.filter((name) => !known.names.includes(name)));
      continue;
    }
    const { manifest } = await catalog.content(entry);
    const { config, layers } = manifest;
    const blobs = [entry.manifest, config, ...layers].map(({ digest, size }) => ({ digest, size }));
    byId.set(entry.id, { found, names: [...names], layers: layers.map(({ digest }) => digest), blobs });
  }
  return [...byId.values()];
}

function indexOf(saved: readonly Saved[]): object {
  const manifests = saved.flatMap(({ found, names }) => {
    const { mediaType, digest, size } = found.entry.manifest;
    if (names.length === 0) return [{ mediaType, digest, size }];
    return names.map((name) => ({
      mediaType,
      digest,
      size,
      annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name },
    }));
  });
  return { schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests };
}

/** See `Images.save`. The blobs cannot be collected while they are read. */
export async function* saveArchive(
  { blobs, catalog }: { readonly blobs: Blobs; readonly catalog: Catalog },
  references: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const saved = await plan(catalog, references);
  const content = new Map(saved.flatMap((image) => image.blobs.map(({ digest, size }) => [digest, size] as const)));
  using _held = catalog.hold(content.keys());
  const docker = saved.map(({ found, names, layers }) => ({
    Config: blobPath(found.entry.id),
    RepoTags: names.map(familiarName),
    Layers: layers.map(blobPath),
  }));
  const file = (path: string, value: unknown): Buffer => {
    const bytes = Buffer.from(JSON.stringify(value));
    return Buffer.concat([tarHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
  };
  yield file('oci-layout', { imageLayoutVersion: '1.0.0' });
  yield file('index.json', indexOf(saved));
  yield file('manifest.json', docker);
  for (const path of ['blobs/', 'blobs/sha256/']) yield tarHeader(path, 0);
  for (const [digest, size] of content) {
    yield tarHeader(blobPath(digest), size);
    for await (const chunk of blobs.stream(digest)) {
      signal.throwIfAborted();
      yield chunk;
    }
    yield tarPadding(size);
  }
  yield tarEnd();
}
