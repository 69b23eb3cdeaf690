/**
 * Which images there are: `index.json` of the OCI layout, one descriptor a name, so that other tools read the folder as it is
 * (`skopeo inspect oci:DIR:docker.io/library/busybox:latest`).
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { SluiceError } from '../../../src/errors.ts';
import { MEDIA } from '../manifest.ts';
import { DIGEST } from '../reference.ts';
import { replaceFile } from './disk.ts';

export interface Entry {
  readonly manifest: { readonly mediaType: string; readonly digest: string; readonly size: number };
  /** Digest of the configuration: the image's id. */
  readonly id: string;
  /** Full names with tags, sorted. */
  readonly names: readonly string[];
  /** `REPOSITORY@DIGEST`, sorted. */
  readonly digests: readonly string[];
}

const NAME = 'org.opencontainers.image.ref.name';
const DIGESTS = 'sluice.digests';
const ID = 'sluice.id';

const file = z.looseObject({
  schemaVersion: z.literal(2),
  manifests: z.array(
    z.looseObject({
      mediaType: z.string(),
      digest: z.string().regex(DIGEST),
      size: z.int().nonnegative(),
      annotations: z.record(z.string(), z.string()),
    }),
  ),
});

const sorted = (words: Iterable<string>): string[] => [...new Set(words)].sort();

function parseIndex(text: string, path: string): Map<string, Entry> {
  const damaged = (why: string): SluiceError =>
    new SluiceError('image.damaged', `${path} is damaged: ${why}; move it away and pull the images again`, { path });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged((error as Error).message);
  }
  const parsed = file.safeParse(value);
  if (!parsed.success) throw damaged(parsed.error.issues[0]?.message ?? '');
  const entries = new Map<string, Entry>();
  for (const { mediaType, digest, size, annotations } of parsed.data.manifests) {
    const id = annotations[ID];
    if (!id) continue;
    const known = entries.get(id);
    const name = annotations[NAME];
    const digests = (annotations[DIGESTS] ?? '').split(' ').filter((word) => word !== '');
    entries.set(id, {
      manifest: { mediaType, digest, size },
      id,
      names: sorted([...(known?.names ?? []), ...(name ? [name] : [])]),
      digests: sorted([...(known?.digests ?? []), ...digests]),
    });
  }
  return entries;
}

function render(entries: Iterable<Entry>): string {
  const manifests = [...entries].flatMap(({ manifest, id, names, digests }) => {
    const annotations = { [ID]: id, ...(digests.length > 0 ? { [DIGESTS]: digests.join(' ') } : {}) };
    if (names.length === 0) return [{ ...manifest, annotations }];
    return names.map((name) => ({ ...manifest, annotations: { [NAME]: name, ...annotations } }));
  });
  return `${JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.ociIndex, manifests }, null, 2)}\n`;
}

/** The images by id. Every change is on the disk before it is seen. */
export class ImageIndex {
  readonly #path: string;
  #entries: ReadonlyMap<string, Entry>;

  constructor(path: string) {
    this.#path = path;
    let text: string | null = null;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    this.#entries = text === null ? new Map() : parseIndex(text, path);
  }

  get entries(): ReadonlyMap<string, Entry> {
    return this.#entries;
  }

  byName(name: string): Entry | undefined {
    return [...this.#entries.values()].find(({ names }) => names.includes(name));
  }

  byDigest(digest: string): Entry | undefined {
    return [...this.#entries.values()].find((entry) => entry.digests.includes(digest));
  }

  /** One change as a whole; callers take turns. `change` returns null to leave all as it is. */
  async update(change: (entries: ReadonlyMap<string, Entry>) => ReadonlyMap<string, Entry> | null): Promise<void> {
    const next = change(this.#entries);
    if (next === null) return;
    await replaceFile(this.#path, render(next.values()));
    this.#entries = next;
  }
}

/** Takes an image in: its names and digests leave whoever had them. */
export function withEntry(entries: ReadonlyMap<string, Entry>, fresh: Entry): Map<string, Entry> {
  const next = new Map(entries);
  for (const [id, entry] of entries) {
    const names = entry.names.filter((name) => !fresh.names.includes(name));
    const digests = entry.digests.filter((digest) => !fresh.digests.includes(digest));
    if (names.length !== entry.names.length || digests.length !== entry.digests.length)
      next.set(id, { ...entry, names, digests });
  }
  const known = next.get(fresh.id);
  next.set(fresh.id, {
    ...fresh,
    names: sorted([...(known?.names ?? []), ...fresh.names]),
    digests: sorted([...(known?.digests ?? []), ...fresh.digests]),
  });
  return next;
}
