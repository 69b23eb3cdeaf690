/**
 * Roots of containers, `roots/CONTAINER`: an overlay at `merged` of the image's layers, with `upper` for what is written.
 * What is mounted outlives the daemon; what a mount is made of is in `root.json`.
 */
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
import { mountOverlay, mountShifted, unmountIfMounted } from '../../src/kernel/fs/overlay.ts';
import { diskError, replaceFile, Turns } from './store/disk.ts';
import { withUserNamespace } from './userns.ts';

export interface RootRecord {
  readonly image: string;
  /** Diff ids, lowest first. */
  readonly layers: readonly string[];
  readonly shift: number;
}

interface RootsOptions {
  /** `images`: what `layers` and `roots` lie in, on one file system. */
  readonly base: string;
  readonly temporary: string;
  readonly clock: Clock;
}

const CONTAINER = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === 'ENOENT') return null;
  throw error;
};

export class Roots {
  readonly #base: string;
  readonly #temporary: string;
  readonly #clock: Clock;
  readonly #turns = new Turns();

  constructor({ base, temporary, clock }: RootsOptions) {
    this.#base = base;
    this.#temporary = temporary;
    this.#clock = clock;
  }

  /** The mounted root; see `Images.mount`. `prepare` makes sure that the layers are unpacked. */
  mount(container: string, wanted: RootRecord, prepare: () => Promise<void>): Promise<string> {
    return this.#turns.run(container, async () => {
      const dir = this.#dir(container);
      const merged = join(dir, 'merged');
      const record = await this.#read(container);
      if (record && (record.image !== wanted.image || record.shift !== wanted.shift))
        throw new SluiceError(
          'image.inuse',
          `${container} has a root of ${record.image} with ids from ${record.shift}`,
          {
            container,
            image: record.image,
          },
        );
      if (record && (await isMountPoint(merged))) return merged;
      await prepare();
      if (!record) await this.#make(dir, wanted);
      await this.#overlay(dir, record ?? wanted);
      return merged;
    });
  }

  async unmount(container: string): Promise<void> {
    await this.#turns.run(container, async () => {
      unmountIfMounted(join(this.#dir(container), 'merged'));
    });
  }

  async remove(container: string): Promise<void> {
    await this.#turns.run(container, async () => {
      const dir = this.#dir(container);
      unmountIfMounted(join(dir, 'merged'));
      unmountIfMounted(join(dir, 'view'));
      const gone = join(await mkdtemp(join(this.#temporary, 'root-')), 'gone');
      try {
        await rename(dir, gone);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
      await rm(join(gone, '..'), { recursive: true, force: true });
    });
  }

  /** Containers that have a root, mounted or not. */
  async list(): Promise<string[]> {
    return (await readdir(join(this.#base, 'roots'))).sort();
  }

  /** Containers made from an image. */
  async of(image: string): Promise<readonly { readonly container: string; readonly mounted: boolean }[]> {
    const found: { container: string; mounted: boolean }[] = [];
    for (const container of await this.list()) {
      if ((await this.#read(container))?.image !== image) continue;
      found.push({ container, mounted: await isMountPoint(join(this.#dir(container), 'merged')) });
    }
    return found;
  }

  /** Layers that roots stand on. */
  async layers(): Promise<Set<string>> {
    const layers = new Set<string>();
    for (const container of await this.list())
      for (const diffId of (await this.#read(container))?.layers ?? []) layers.add(diffId);
    return layers;
  }

  #dir(container: string): string {
    if (!CONTAINER.test(container))
      throw new SluiceError('request.invalid', `${JSON.stringify(container)} is no name of a container`);
    return join(this.#base, 'roots', container);
  }

  async #read(container: string): Promise<RootRecord | null> {
    const text = await readFile(join(this.#dir(container), 'root.json'), 'utf8').catch(absent);
    return text === null ? null : (JSON.parse(text) as RootRecord);
  }

  /** The directories of a new root, with the owner and mode that the image's own root has. */
  async #make(dir: string, record: RootRecord): Promise<void> {
    const begun = await mkdtemp(join(this.#temporary, 'root-'));
    try {
      for (const name of ['upper', 'work', 'merged', 'view']) await mkdir(join(begun, name), { mode: 0o755 });
      const { uid, gid, mode } = await stat(this.#lower(this.#base, record)[0]!);
      await chown(join(begun, 'upper'), uid + record.shift, gid + record.shift);
      await chmod(join(begun, 'upper'), mode & 0o7777);
      await replaceFile(join(begun, 'root.json'), `${JSON.stringify(record)}\n`);
      // Whoever runs inside a user namespace passes here on its way to `merged`.
      await chmod(begun, 0o711);
      await rename(begun, dir);
    } catch (error) {
      await rm(begun, { recursive: true, force: true });
      throw diskError(error, `the root of ${record.image} could not be made`);
    }
  }

  /** Directories of the layers below `base`, the topmost first; an image without layers stands on an empty one. */
  #lower(base: string, { layers }: RootRecord): string[] {
    if (layers.length === 0) return [join(base, 'empty')];
    return layers.map((diffId) => join(base, 'layers', diffId.slice('sha256:'.length), 'diff')).reverse();
  }

  async #overlay(dir: string, record: RootRecord): Promise<void> {
    const own = { upper: join(dir, 'upper'), work: join(dir, 'work'), target: join(dir, 'merged') };
    if (record.shift === 0) {
      mountOverlay({ lower: this.#lower(this.#base, record), ...own });
      return;
    }
    // The layers seen through one mount with moved owners: overlayfs keeps to it after it is taken away here. What is written has the
    // namespace's ids on disk: through such a mount we, who are none of them, could write nothing.
    const view = join(dir, 'view');
    unmountIfMounted(view);
    await withUserNamespace(this.#clock, record.shift, (userns) => mountShifted(this.#base, view, userns));
    try {
      mountOverlay({ lower: this.#lower(view, record), ...own });
    } finally {
      unmountIfMounted(view);
    }
  }
}

/** Whether something is mounted there: it is then on another device than its parent. */
async function isMountPoint(path: string): Promise<boolean> {
  const [here, above] = await Promise.all([stat(path).catch(absent), stat(join(path, '..')).catch(absent)]);
  return here !== null && above !== null && here.dev !== above.dev;
}
