/**
 * `Images` on a folder: an OCI layout (`oci-layout`, `index.json`, `blobs/sha256`), unpacked layers, and roots of containers.
 * Everything comes in beside its place, in `tmp`, and moves there as a whole; what a crash left in `tmp` goes at the next start.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import type { Images } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { importTarball } from './archive/import.ts';
import { loadArchive } from './archive/load.ts';
import { saveArchive } from './archive/save.ts';
import { Catalog } from './catalog.ts';
import { historyOf } from './history.ts';
import { Layers } from './layer/layers.ts';
import { UnpackPool } from './layer/pool.ts';
import { IMAGE_LIMITS, type ImageLimits } from './limits.ts';
import { fullName, parseReference } from './reference.ts';
import type { RegistrySettings } from './registry/endpoint.ts';
import { Registries } from './registry/registry.ts';
import { pruneImages, removeImage } from './removal.ts';
import { Roots } from './roots.ts';
import { Blobs } from './store/blobs.ts';
import { Turns } from './store/disk.ts';
import { ImageIndex } from './store/index.ts';

const STALL_MS = 30_000;
const CERTIFICATES = '/etc/sluice/certs.d';

export interface ImagesOptions {
  /** The folder, made when it is absent; nobody else's. */
  readonly dir: string;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Module that the threads which unpack run. Default: its source, for tests; the daemon names the compiled one. */
  readonly workerFile?: string;
  readonly limits?: Partial<ImageLimits>;
  readonly registries?: Partial<RegistrySettings>;
  /** How long a registry may say nothing, milliseconds. Default 30 000. */
  readonly stallMs?: number;
}

export interface ImageStore extends Images {
  /** Ends the threads. What is mounted stays. */
  close(): Promise<void>;
}

/** Opens the store. Fails with `image.damaged` where its index cannot be read. */
export function createImages(options: ImagesOptions): ImageStore {
  const { dir, clock, logger } = options;
  const limits = { ...IMAGE_LIMITS, ...options.limits };
  const at = (name: string): string => join(dir, name);
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  for (const name of ['blobs/sha256', 'layers', 'roots', 'empty', 'tmp']) mkdirSync(at(name), { recursive: true });
  writeFileSync(at('oci-layout'), '{"imageLayoutVersion":"1.0.0"}\n');

  const temporary = at('tmp');
  const swept = sweep(temporary, logger);
  // Whoever needs it fails with it; nobody need.
  swept.catch((error) => logger.error({ err: error }, 'what a crash left of images cannot be removed'));
  const pool = new UnpackPool(options.workerFile ?? join(import.meta.dirname, 'layer/worker.ts'), clock);
  const blobs = new Blobs(at('blobs/sha256'), temporary);
  const layers = new Layers({ dir: at('layers'), temporary, pool, limits });
  const roots = new Roots({ base: dir, temporary, clock });
  const index = new ImageIndex(at('index.json'));
  const catalog = new Catalog({ blobs, index, layers, rootLayers: () => roots.layers() });
  const store = { blobs, catalog, layers, clock, archiveBytesMax: limits.archiveBytesMax };

  const registries = new Registries({
    store: { blobs, catalog, layers, downloads: new Turns() },
    settings: { mirrors: {}, insecure: [], certificates: CERTIFICATES, ...options.registries },
    clock,
    dir,
    stallMs: options.stallMs ?? STALL_MS,
  });

  return {
    async get(reference) {
      const found = catalog.find(reference);
      return found && catalog.image(found.entry);
    },
    list: () => Promise.all(catalog.entries.map((entry) => catalog.image(entry))),
    async pull(reference, transfer) {
      await swept;
      return registries.pull(reference, transfer);
    },
    async push(reference, transfer) {
      await swept;
      return registries.push(reference, transfer);
    },
    login: (registry, user, password) => registries.login(registry, { user, password }),
    logout: (registry) => registries.logout(registry),
    async load(archive, transfer) {
      await swept;
      return loadArchive(store, archive, transfer);
    },
    save: (references, signal) => saveArchive(store, references, signal),
    async import(tarball, reference, transfer) {
      await swept;
      return importTarball(store, tarball, reference === null ? null : taggedName(reference), transfer);
    },
    tag: (reference, name) => catalog.tag(reference, name),
    remove: (reference, wish) => removeImage(catalog, roots, reference, wish),
    prune: (wish) => pruneImages(catalog, roots, wish),
    async history(reference) {
      const { configuration } = await catalog.content(catalog.must(reference).entry);
      return historyOf(configuration, (diffId) => layers.get(diffId));
    },
    async mount(imageId, container, { shift = 0 } = {}) {
      await swept;
      const { entry } = catalog.must(imageId);
      const content = await catalog.content(entry);
      const { layers: diffIds } = await catalog.image(entry);
      using _held = catalog.hold(diffIds);
      const record = { image: entry.id, layers: diffIds, shift };
      return roots.mount(container, record, () =>
        catalog.ensureLayers(content, { signal: new AbortController().signal }),
      );
    },
    unmount: (container) => roots.unmount(container),
    removeRoot: (container) => roots.remove(container),
    roots: () => roots.list(),
    async close() {
      registries.close();
      await pool.close();
    },
  };
}

/** A name that is given to an image: in full, with a tag. */
function taggedName(text: string): string {
  const reference = parseReference(text);
  if (reference.digest !== undefined)
    throw new SluiceError('image.reference', `${text} has a digest: a name that is given has a tag only`);
  return fullName(reference);
}

/** Removes what another life had begun and not finished. */
async function sweep(temporary: string, logger: Logger): Promise<void> {
  const left = await readdir(temporary);
  if (left.length === 0) return;
  logger.info({ left: left.length }, 'removing what a crash left of images');
  await Promise.all(left.map((name) => rm(join(temporary, name), { recursive: true, force: true })));
}
