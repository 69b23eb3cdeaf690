/** Taking images out: names first, an image with its last one, then what nothing needs any more. */
import type { Images } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Catalog, Found } from './catalog.ts';
import type { Roots } from './roots.ts';
import type { Entry } from './store/index.ts';

type Removed = Awaited<ReturnType<Images['remove']>>;

/** What a removal does to one entry; pure. `next` null: it goes. */
export interface Untagging {
  readonly untagged: readonly string[];
  readonly next: Entry | null;
}

export function planRemoval({ entry, by, key }: Found, force: boolean): Untagging {
  if (by === 'id') {
    if (entry.names.length > 1 && !force)
      throw new SluiceError(
        'image.inuse',
        `${key} has several names: ${entry.names.join(', ')}; remove them, or force it`,
        {
          names: entry.names,
        },
      );
    return { untagged: [...entry.names, ...entry.digests], next: null };
  }
  const names = entry.names.filter((name) => name !== key);
  const digests = entry.digests.filter((digest) => digest !== key);
  // With its last name an image goes, whatever digests led to it.
  if (names.length === 0 && (by === 'name' || digests.length === 0))
    return { untagged: [...entry.names, ...entry.digests], next: null };
  return { untagged: [key], next: { ...entry, names, digests } };
}

/** Removes a name or an image; see `Images.remove`. */
export function removeImage(
  catalog: Catalog,
  roots: Roots,
  text: string,
  { force = false, users }: { readonly force?: boolean; readonly users: ReadonlySet<string> },
): Promise<Removed> {
  return catalog.alone(async (update) => {
    const found = catalog.must(text);
    const { entry } = found;
    const { untagged, next } = planRemoval(found, force);
    let kept = next;
    if (next === null) {
      const holders = await roots.of(entry.id);
      const mounted = holders.filter(({ mounted }) => mounted).map(({ container }) => container);
      const inUse = (why: string): SluiceError =>
        new SluiceError('image.inuse', `${text} is in use: ${why}`, { id: entry.id, containers: mounted });
      if (mounted.length > 0) throw inUse(`it is mounted for ${mounted.join(', ')}`);
      const used = holders.length > 0 || users.has(entry.id);
      if (used && !force) throw inUse('a container was made from it; remove that, or force it');
      // What a container was made from stays, without names, until the container goes.
      if (used) kept = { ...entry, names: [], digests: [] };
    }
    await update((entries) => {
      const changed = new Map(entries);
      if (kept) changed.set(entry.id, kept);
      else changed.delete(entry.id);
      return changed;
    });
    await catalog.collect();
    return { untagged, deleted: kept ? [] : [entry.id] };
  });
}

/** Removes images without a name (`all`: every image) that nobody uses, and all that is needed by none. */
export function pruneImages(
  catalog: Catalog,
  roots: Roots,
  { all, users }: { readonly all: boolean; readonly users: ReadonlySet<string> },
): Promise<{ readonly deleted: readonly string[]; readonly bytes: number }> {
  return catalog.alone(async (update) => {
    const doomed: string[] = [];
    for (const { id, names } of catalog.entries) {
      if ((names.length > 0 && !all) || users.has(id)) continue;
      if ((await roots.of(id)).length === 0) doomed.push(id);
    }
    await update((entries) =>
      doomed.length === 0 ? null : new Map([...entries].filter(([id]) => !doomed.includes(id))),
    );
    return { deleted: doomed, bytes: await catalog.collect() };
  });
}
