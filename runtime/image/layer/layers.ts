/** Unpacked layers, `layers/HEX` by the digest of their content: made once, shared by every image and container that has them. */
import { readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile, Turns } from '../store/disk.ts';
import { hexOf, type LayerRecord } from './job.ts';
import type { JobOptions, UnpackPool } from './pool.ts';
import type { UnpackLimits } from './unpack.ts';

export interface LayerSource {
  /** Path of the blob and its digest. */
  readonly path: string;
  readonly digest: string;
}

interface LayersOptions {
  readonly dir: string;
  readonly temporary: string;
  readonly pool: UnpackPool;
  readonly limits: UnpackLimits;
}

export class Layers {
  readonly #options: LayersOptions;
  readonly #turns = new Turns();
  readonly #known = new Map<string, LayerRecord>();

  constructor(options: LayersOptions) {
    this.#options = options;
  }

  /** The directory that overlayfs takes. */
  path(diffId: string): string {
    return join(this.#options.dir, hexOf(diffId), 'diff');
  }

  /** What is known of an unpacked layer; null when it is not here. */
  async get(diffId: string): Promise<LayerRecord | null> {
    const known = this.#known.get(diffId);
    if (known) return known;
    try {
      const text = await readFile(join(this.#options.dir, hexOf(diffId), 'layer.json'), 'utf8');
      const record = JSON.parse(text) as LayerRecord;
      this.#known.set(diffId, record);
      return record;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }

  /** Whether the blob is known to hold that layer, and the layer is here. */
  async has(diffId: string, blobDigest: string): Promise<boolean> {
    return (await this.get(diffId))?.blobs.includes(blobDigest) ?? false;
  }

  /**
   * The layer unpacked from the blob. A layer that is here already is not unpacked again, but a blob that says it holds it is believed only
   * when that was seen. `diffId` null: whatever the blob holds.
   */
  async ensure(source: LayerSource, diffId: string | null, options: JobOptions): Promise<LayerRecord> {
    // Under the blob's digest where the content's is unknown: at worst two unpack the same, and one of them is kept.
    return this.#turns.run(diffId ?? source.digest, async () => {
      const present = diffId === null ? null : await this.get(diffId);
      if (present?.blobs.includes(source.digest)) return present;
      const { dir, temporary, pool, limits } = this.#options;
      const job = { blob: source.path, blobDigest: source.digest, diffId, temporary, layers: dir, limits };
      const result = await pool.run({ ...job, kind: present ? 'check' : 'unpack' }, options);
      const stored = present ?? (await this.get(result.diffId))!;
      if (stored.blobs.includes(source.digest)) return stored;
      const record = { ...stored, blobs: [...stored.blobs, source.digest] };
      await replaceFile(join(dir, hexOf(result.diffId), 'layer.json'), `${JSON.stringify(record)}\n`);
      this.#known.set(result.diffId, record);
      return record;
    });
  }

  /** Diff ids of all unpacked layers. */
  async list(): Promise<string[]> {
    const names = await readdir(this.#options.dir);
    return names.filter((name) => /^[0-9a-f]{64}$/.test(name)).map((name) => `sha256:${name}`);
  }

  /** Removes a layer that nobody mounts; returns its bytes. It is gone at once by name, so that a crash leaves no half of it. */
  async remove(diffId: string): Promise<number> {
    return this.#turns.run(diffId, async () => {
      const record = await this.get(diffId);
      if (!record) return 0;
      this.#known.delete(diffId);
      const doomed = join(this.#options.temporary, `gone-${hexOf(diffId)}`);
      await rename(join(this.#options.dir, hexOf(diffId)), doomed);
      await rm(doomed, { recursive: true, force: true });
      return record.bytes;
    });
  }
}
