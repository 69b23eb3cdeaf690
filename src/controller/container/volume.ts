/** Volumes of the local driver: a directory each; what the image has at the place where one is first mounted is copied into it. */
import { mkdirSync, readdirSync, renameSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isSluiceError } from '../../errors.ts';
import type { Volume, VolumeDetail } from '../../model/container/volume.ts';
import type { Container, MountSpec } from '../../model/container.ts';
import { type Context, volumeDir } from '../context.ts';

const dataDir = (context: Pick<Context, 'stateDir'>, name: string): string => join(volumeDir(context, name), '_data');

export class VolumeController {
  readonly #context: Context;

  constructor(context: Context) {
    this.#context = context;
  }

  async reconcile(id: string): Promise<void> {
    const { world, desired, tracker } = this.#context;
    const volume = world.volumes.get(id);
    if (!volume) return;
    if (!volume.removing) {
      const mountpoint = dataDir(this.#context, volume.name);
      mkdirSync(mountpoint, { recursive: true });
      await tracker.ready(volume, { mountpoint } satisfies VolumeDetail);
      return;
    }
    if (!this.#succeeded(volume)) rmSync(volumeDir(this.#context, volume.name), { recursive: true, force: true });
    await desired.volumes.forget(volume);
    tracker.forget('volume', id);
  }

  /** A volume of the same name that was made since: the data is its own by now. */
  #succeeded({ id, name }: Volume): boolean {
    for (const other of this.#context.world.volumes.values())
      if (other.id !== id && other.name === name && !other.removing) return true;
    return false;
  }
}

/** Directories of the container's volumes by name, made, and filled at their first use. */
export async function fillVolumes(
  context: Context,
  container: Container,
  rootfs: string,
): Promise<Record<string, string>> {
  const places: Record<string, string> = {};
  for (const mount of container.spec.mounts) {
    if (mount.type !== 'volume' || !mount.source) continue;
    const data = dataDir(context, mount.source);
    mkdirSync(data, { recursive: true });
    if (!('nocopy' in mount.options) && readdirSync(data).length === 0) await fill(context, container, rootfs, mount);
    places[mount.source] = data;
  }
  return places;
}

/** Copied beside and exchanged, so that a crash leaves an empty volume or a full one. */
async function fill(context: Context, { id }: Container, rootfs: string, mount: MountSpec): Promise<void> {
  const { runtime } = context;
  const data = dataDir(context, mount.source!);
  const fresh = join(volumeDir(context, mount.source!), `fresh-${id.slice(0, 12)}`);
  rmSync(fresh, { recursive: true, force: true });
  mkdirSync(fresh);
  try {
    await runtime.copyIn(id, fresh, '/', runtime.copyOut(id, rootfs, `${mount.target}/.`));
    if (readdirSync(fresh).length === 0 || readdirSync(data).length > 0) return;
    rmdirSync(data);
    renameSync(fresh, data);
  } catch (error) {
    // The image has no such path: the volume stays empty.
    if (!isSluiceError(error, 'runtime.notfound')) throw error;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}
