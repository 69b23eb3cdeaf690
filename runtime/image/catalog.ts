/** The images that are here: found, described, taken in, taken out. All of a change is under one turn, so that nothing is collected that just came. */

import type { Image, TransferOptions } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Layers } from './layer/layers.ts';
import {
  CONFIG_BYTES_MAX,
  type Configuration,
  diffIdsOf,
  imageConfigOf,
  MANIFEST_BYTES_MAX,
  type Manifest,
  parseConfiguration,
  parseDocument,
} from './manifest.ts';
import { checkPlatform, hostPlatform, parsePlatform } from './platform.ts';
import { fullName, parseReference, repositoryName } from './reference.ts';
import type { BlobId, Blobs } from './store/blobs.ts';
import { Turns } from './store/disk.ts';
import { type Entry, type ImageIndex, withEntry } from './store/index.ts';

/** How an entry was named. */
export interface Found {
  readonly entry: Entry;
  readonly by: 'id' | 'name' | 'digest';
  /** The full name or `REPOSITORY@DIGEST`; the id. */
  readonly key: string;
}

/** A manifest whose configuration and layers are in the store. */
export interface Arrival {
  readonly manifest: { readonly bytes: Buffer; readonly mediaType: string };
  /** Full names with tags. */
  readonly names: readonly string[];
  readonly digests: readonly string[];
  /** For errors: what was pulled or loaded. */
  readonly what: string;
}

export interface Content {
  readonly manifest: Manifest;
  readonly configuration: Configuration;
}

interface CatalogOptions {
  readonly blobs: Blobs;
  readonly index: ImageIndex;
  readonly layers: Layers;
  /** Layers that roots of containers stand on. */
  readonly rootLayers: () => Promise<ReadonlySet<string>>;
}

const INDEX = 'index';
const EPOCH = '1970-01-01T00:00:00Z';

export class Catalog {
  readonly #blobs: Blobs;
  readonly #index: ImageIndex;
  readonly #layers: Layers;
  readonly #rootLayers: CatalogOptions['rootLayers'];
  readonly #turns = new Turns();
  /** By digest of the manifest; as many as there are images. */
  readonly #contents = new Map<string, Content>();

  constructor({ blobs, index, layers, rootLayers }: CatalogOptions) {
    this.#blobs = blobs;
    this.#index = index;
    this.#layers = layers;
    this.#rootLayers = rootLayers;
  }

  get entries(): readonly Entry[] {
    return [...this.#index.entries.values()];
  }

  /** By name, digest, id or the beginning of an id; null when it is not here. Fails with `object.ambiguous`. */
  find(text: string): Found | null {
    const { entries } = this.#index;
    const hex = /^(?:sha256:)?([0-9a-f]{1,64})$/.exec(text)?.[1];
    const whole = hex?.length === 64 ? entries.get(`sha256:${hex}`) : undefined;
    if (whole) return { entry: whole, by: 'id', key: whole.id };
    if (!text.startsWith('sha256:') && hex?.length !== 64) {
      const reference = parseReference(text);
      const key = fullName(reference);
      const entry = reference.digest === undefined ? this.#index.byName(key) : this.#index.byDigest(key);
      if (entry) return { entry, by: reference.digest === undefined ? 'name' : 'digest', key };
    }
    if (!hex) return null;
    const fitting = [...entries.values()].filter(({ id }) => id.startsWith(`sha256:${hex}`));
    if (fitting.length > 1)
      throw new SluiceError(
        'object.ambiguous',
        `${text} fits several images: ${fitting.map(({ id }) => id).join(', ')}`,
        {
          kind: 'image',
          ids: fitting.map(({ id }) => id),
        },
      );
    const [entry] = fitting;
    return entry ? { entry, by: 'id', key: entry.id } : null;
  }

  /** As `find`; `image.notfound` when it is not here. */
  must(text: string): Found {
    const found = this.find(text);
    if (!found) throw new SluiceError('image.notfound', `there is no image ${text} here`, { reference: text });
    return found;
  }

  async content(entry: Entry): Promise<Content> {
    const { digest } = entry.manifest;
    const known = this.#contents.get(digest);
    if (known) return known;
    const document = parseDocument(await this.#blobs.read(digest, MANIFEST_BYTES_MAX), `the manifest ${digest}`);
    if (document.kind !== 'manifest') throw new SluiceError('image.manifest', `${digest} is no manifest of an image`);
    const { manifest } = document;
    const bytes = await this.#blobs.read(entry.id, CONFIG_BYTES_MAX);
    const what = `the configuration ${entry.id}`;
    const content = { manifest, configuration: parseConfiguration(bytes, what, manifest.layers.length) };
    if (this.#index.entries.get(entry.id)?.manifest.digest === digest) this.#contents.set(digest, content);
    return content;
  }

  async image(entry: Entry): Promise<Image> {
    const { configuration } = await this.content(entry);
    const layers = diffIdsOf(configuration);
    const records = await Promise.all(layers.map((diffId) => this.#layers.get(diffId)));
    return {
      id: entry.id,
      names: entry.names,
      digests: entry.digests,
      os: configuration.os,
      architecture: configuration.architecture,
      ...(configuration.variant ? { variant: configuration.variant } : {}),
      created: configuration.created ?? EPOCH,
      size: records.reduce((sum, record) => sum + (record?.bytes ?? 0), 0),
      layers,
      config: imageConfigOf(configuration),
    };
  }

  /** Images that are known to have that blob: those whose content was looked at since the start. */
  sharing(digest: string): Entry[] {
    return this.entries.filter(({ manifest }) => {
      const content = this.#contents.get(manifest.digest);
      return content !== undefined && Catalog.blobsOf(content.manifest).some((blob) => blob.digest === digest);
    });
  }

  /** Blobs that a manifest needs, itself left out. */
  static blobsOf({ config, layers }: Manifest): BlobId[] {
    return [...new Map([config, ...layers].map((blob) => [blob.digest, blob])).values()];
  }

  /** Keeps blobs or layers from being collected, whether they are here yet or not. */
  hold(digests: Iterable<string>): Disposable {
    const stack = new DisposableStack();
    for (const digest of digests) stack.use(this.#blobs.hold(digest));
    return stack;
  }

  /** Brings an image in, its blobs held meanwhile; when that fails, what came and nobody else needs goes again. */
  async bringing<T>(digests: Iterable<string>, work: () => Promise<T>): Promise<T> {
    const held = this.hold(digests);
    try {
      return await work();
    } catch (error) {
      held[Symbol.dispose]();
      await this.alone(() => this.collect());
      throw error;
    } finally {
      held[Symbol.dispose]();
    }
  }

  /** Makes sure that every layer of the image is unpacked: after the loss of some, anew from its blob. */
  async ensureLayers(content: Content, options: Pick<TransferOptions, 'signal' | 'onProgress'>): Promise<void> {
    const { manifest, configuration } = content;
    const each = diffIdsOf(configuration).map(async (diffId, index) => {
      const { digest, size } = manifest.layers[index]!;
      const say = (text: string, current?: number) =>
        options.onProgress?.({
          type: 'layer',
          what: digest,
          text,
          current,
          total: current === undefined ? undefined : size,
        });
      if (await this.#layers.has(diffId, digest)) return;
      await this.#layers.ensure({ path: this.#blobs.path(digest), digest }, diffId, {
        signal: options.signal,
        onProgress: (current) => say('unpacking', current),
      });
      say('done');
    });
    const results = await Promise.allSettled(each);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  /** Takes in an image whose blobs are here, under hold by the caller: checked, unpacked, then listed. */
  async admit(arrival: Arrival, options: TransferOptions): Promise<Image> {
    const { bytes, mediaType } = arrival.manifest;
    const document = parseDocument(bytes, `the manifest of ${arrival.what}`);
    if (document.kind !== 'manifest') throw new SluiceError('image.manifest', `${arrival.what} is no single image`);
    const { manifest } = document;
    const configBytes = await this.#blobs.read(manifest.config.digest, CONFIG_BYTES_MAX);
    const what = `the configuration of ${arrival.what}`;
    const configuration = parseConfiguration(configBytes, what, manifest.layers.length);
    const wanted = options.platform ? parsePlatform(options.platform) : hostPlatform();
    checkPlatform(wanted, configuration, arrival.what);
    using _held = this.hold(diffIdsOf(configuration));
    await this.ensureLayers({ manifest, configuration }, options);
    options.signal.throwIfAborted();
    const stored = await this.#blobs.put(bytes);
    using _manifest = this.hold([stored.digest]);
    const entry: Entry = {
      manifest: { mediaType, ...stored },
      id: manifest.config.digest,
      names: arrival.names,
      digests: arrival.digests,
    };
    await this.change((entries) => withEntry(entries, entry));
    return this.image(this.#index.entries.get(entry.id)!);
  }

  change(update: (entries: ReadonlyMap<string, Entry>) => ReadonlyMap<string, Entry> | null): Promise<void> {
    return this.#turns.run(INDEX, () => this.#index.update(update));
  }

  /** Runs alone among all that takes images in or out. */
  alone<T>(work: (update: ImageIndex['update']) => Promise<T>): Promise<T> {
    return this.#turns.run(INDEX, () => work((change) => this.#index.update(change)));
  }

  /** Removes blobs and layers that no image and no root needs and nobody holds. Bytes given back. Call it alone. */
  async collect(): Promise<number> {
    const needed = new Set(await this.#rootLayers());
    for (const entry of this.entries) {
      needed.add(entry.manifest.digest);
      const { manifest, configuration } = await this.content(entry);
      for (const { digest } of Catalog.blobsOf(manifest)) needed.add(digest);
      for (const diffId of diffIdsOf(configuration)) needed.add(diffId);
    }
    for (const digest of this.#contents.keys()) if (!needed.has(digest)) this.#contents.delete(digest);
    const spare = (digest: string): boolean => !needed.has(digest) && !this.#blobs.held(digest);
    let bytes = 0;
    for (const digest of await this.#blobs.list()) if (spare(digest)) bytes += await this.#blobs.remove(digest);
    for (const diffId of await this.#layers.list()) if (spare(diffId)) bytes += await this.#layers.remove(diffId);
    return bytes;
  }

  /** Gives an image one more name, which leaves whoever had it. */
  async tag(text: string, name: string): Promise<void> {
    const reference = parseReference(name);
    if (reference.digest !== undefined)
      throw new SluiceError('image.reference', `${name} has a digest: a name that is given has a tag only`);
    const full = `${repositoryName(reference)}:${reference.tag}`;
    await this.change((entries) => {
      const { entry } = this.must(text);
      return withEntry(entries, { ...entry, names: [full], digests: [] });
    });
  }
}
