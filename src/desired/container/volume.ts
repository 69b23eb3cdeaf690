/** Volumes: named directories of this node that outlive the containers which mount them. */
import type { Op } from '../../contracts/store.ts';
import { SluiceError } from '../../errors.ts';
import type { VolumeRequest } from '../../model/container/request.ts';
import type { Volume } from '../../model/container/volume.ts';
import type { Container } from '../../model/container.ts';
import { topicsOf } from '../../model/keys.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, sameJson, type WriteOptions } from '../records.ts';
import { retrying } from '../turn.ts';

export class Volumes {
  readonly records: Records<'volume', Volume>;
  readonly #parts: Parts;
  readonly #containers: Records<'container', Container>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.records = new Records('volume', parts);
    this.#containers = new Records('container', parts);
  }

  get = (ref: string): Promise<Volume> => this.records.get(ref);
  list = (): Promise<Volume[]> => this.records.list();

  /** Idempotent by name; with other labels it is `object.exists`. */
  put(name: string, request: VolumeRequest, options: PutOptions = {}): Promise<Put<Volume>> {
    checkName('volume', name);
    return retrying(async () => {
      const found = await this.records.byName(name);
      if (found) {
        if (!options.create && sameJson(found.labels, request.labels ?? {})) return { object: found, created: false };
        throw new SluiceError('object.exists', `a volume ${name} exists`, { name, id: found.id });
      }
      const volume = this.fresh(name, false, request.labels);
      const revision = await this.#parts.store.transact(this.records.creation(volume), {
        topics: topicsOf(volume),
        actor: options.actor,
      });
      return { object: { ...volume, revision }, created: true };
    });
  }

  fresh(name: string, anonymous: boolean, labels: Readonly<Record<string, string>> = {}): Volume {
    return this.records.fresh(this.records.newId(), name, this.#parts.node, labels, { driver: 'local', anonymous });
  }

  /** Writes by which a new container uses the volumes of these names; one that is not there is made. */
  async use(names: ReadonlySet<string>, anonymous: ReadonlySet<string>): Promise<Op[]> {
    const ops: Op[] = [];
    for (const name of names) {
      checkName('volume', name);
      const found = await this.records.byName(name);
      ops.push(
        ...(found ? this.records.reference(found) : this.records.creation(this.fresh(name, anonymous.has(name)))),
      );
    }
    return ops;
  }

  /** Marks it for removal. `object.inuse` while containers mount it. */
  remove(ref: string, options: WriteOptions = {}): Promise<Volume> {
    return retrying(async () => {
      const volume = await this.records.get(ref);
      if (volume.removing) return volume;
      const unreferred = await this.records.noNewReference(volume.id);
      const users = (await this.#containers.list()).filter((container) => mounts(container, volume));
      if (users.length > 0) {
        const names = users.map(({ name }) => name);
        throw new SluiceError('object.inuse', `volume ${volume.name} is mounted by ${names.join(', ')}`, {
          volume: volume.id,
          containers: names,
        });
      }
      const revision = await this.#parts.store.transact([...this.records.removal(volume), unreferred], {
        topics: topicsOf(volume),
        actor: options.actor,
      });
      return { ...volume, removing: true, revision };
    });
  }

  /** Marks those that no container mounts: the anonymous ones, or all. */
  async prune(options: WriteOptions & { readonly all?: boolean } = {}): Promise<Volume[]> {
    const containers = await this.#containers.list();
    const removed: Volume[] = [];
    for (const volume of await this.list()) {
      if (volume.removing || (!options.all && !volume.spec.anonymous)) continue;
      if (containers.some((container) => mounts(container, volume))) continue;
      removed.push(await this.remove(volume.id, options));
    }
    return removed;
  }

  /** The data is gone. Repeating it harms nobody. */
  forget(volume: Volume): Promise<void> {
    return this.records.forget(volume);
  }
}

const mounts = ({ spec, owner }: Container, volume: Volume): boolean =>
  owner === volume.owner && spec.mounts.some(({ type, source }) => type === 'volume' && source === volume.name);
