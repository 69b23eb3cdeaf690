/** Containers: made with their sandbox in one rollback scope, started and stopped by what is wanted of them. */
import type { Image } from '../../contracts/image.ts';
import { SluiceError } from '../../errors.ts';
import { fault } from '../../fault.ts';
import type { ContainerRequest } from '../../model/container/request.ts';
import type { Container, ContainerDetail, ContainerSpec, ReplicaOf } from '../../model/container.ts';
import { hexId } from '../../model/id.ts';
import { statusKey, topicsOf } from '../../model/keys.ts';
import type { Status } from '../../model/object.ts';
import type { SandboxRequest } from '../../model/request.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, type WriteOptions } from '../records.ts';
import type { Sandboxes } from '../sandbox.ts';
import { retrying, undoing } from '../turn.ts';
import { imageCalled } from './image.ts';
import { publishing, publishOf, publishRequests } from './publish.ts';
import { specDiffers, specOf } from './spec.ts';
import type { Volumes } from './volume.ts';

export interface ContainerPutOptions extends PutOptions {
  /** Whose replica it is. */
  readonly replica?: ReplicaOf;
  /** What runs, rather than what the request's name of an image points at by now. */
  readonly imageId?: string;
}

export class Containers {
  readonly records: Records<'container', Container>;
  readonly #parts: Parts;
  readonly #sandboxes: Sandboxes;
  readonly #volumes: Volumes;

  constructor(parts: Parts, sandboxes: Sandboxes, volumes: Volumes) {
    this.#parts = parts;
    this.#sandboxes = sandboxes;
    this.#volumes = volumes;
    this.records = new Records('container', parts);
  }

  get = (ref: string): Promise<Container> => this.records.get(ref);
  list = (): Promise<Container[]> => this.records.list();

  /**
   * Idempotent by name, with its sandbox, endpoints and volumes. One that is there otherwise is `object.exists`. `image.notfound` when the
   * image is not here; also what `Sandboxes.put` fails with.
   */
  put(name: string, request: ContainerRequest, options: ContainerPutOptions = {}): Promise<Put<Container>> {
    checkName('container', name);
    return this.#parts.turns.take(`sandbox/${name}`, () =>
      retrying(async () => {
        const image = await imageCalled(this.#parts.images, options.imageId ?? request.image);
        const found = await this.records.byName(name);
        if (!found) return { object: await this.#create(name, request, image, options), created: true };
        if (options.create)
          throw new SluiceError('object.exists', `a container ${name} exists`, { name, id: found.id });
        const differs = await this.#difference(found, request, image);
        if (!differs) return { object: found, created: false };
        throw new SluiceError('object.exists', `container ${name} exists with another ${differs}`, {
          name,
          id: found.id,
          differs,
        });
      }),
    );
  }

  /** One that runs, or is about to, is given back as it is; another begins a new life. */
  start(ref: string, options: WriteOptions = {}): Promise<Container> {
    return this.#change(ref, options, async (container) => {
      const { spec } = container;
      const { detail, failed } = await this.#seen(container);
      const ended = detail?.generation === spec.generation && (failed || detail.phase === 'exited');
      if (spec.wanted === 'running' && !ended && detail?.phase !== 'restarting') return null;
      return { wanted: 'running', generation: spec.wanted === 'created' ? spec.generation : spec.generation + 1 };
    });
  }

  /** `timeoutMs`: between the signal and SIGKILL, absent: the container's own. */
  stop(ref: string, options: WriteOptions & { readonly timeoutMs?: number } = {}): Promise<Container> {
    return this.#change(ref, options, async ({ spec }) =>
      spec.wanted === 'running' ? { wanted: 'stopped', stopWithinMs: options.timeoutMs } : null,
    );
  }

  restart(ref: string, options: WriteOptions & { readonly timeoutMs?: number } = {}): Promise<Container> {
    return this.#change(ref, options, async ({ spec }) => ({
      wanted: 'running',
      generation: spec.generation + 1,
      stopWithinMs: options.timeoutMs,
    }));
  }

  /** With its sandbox, whose names follow. `object.exists`. */
  rename(ref: string, name: string, options: WriteOptions = {}): Promise<Container> {
    checkName('container', name);
    return retrying(async () => {
      const container = await this.records.living(ref);
      if (container.name === name) return container;
      const taken = await this.records.byName(name);
      if (taken) throw new SluiceError('object.exists', `a container ${name} exists`, { name, id: taken.id });
      const sandbox = await this.#sandboxes.renaming(container.spec.sandbox, name);
      const revision = await this.#parts.store.transact([...this.records.renaming(container, name), ...sandbox.ops], {
        topics: [...topicsOf(container), ...sandbox.topics],
        actor: options.actor,
      });
      return { ...container, name, revision };
    });
  }

  /**
   * Marks it and its sandbox for removal. `container.running` while it runs, unless `force` (then it is killed); `object.inuse` as a sandbox.
   * `volumes`: also those that were made for it alone.
   */
  remove(
    ref: string,
    options: WriteOptions & { readonly force?: boolean; readonly volumes?: boolean } = {},
  ): Promise<Container> {
    return this.#parts.turns.take('backends', () =>
      retrying(async () => {
        const container = await this.records.get(ref);
        if (container.removing) return container;
        const { detail } = await this.#seen(container);
        if (!options.force && (detail?.phase === 'running' || detail?.phase === 'restarting'))
          throw new SluiceError(
            'container.running',
            `container ${container.name} runs; stop it first, or remove it with --force`,
            { container: container.id },
          );
        const sandbox = await this.#sandboxes.removing(container.spec.sandbox, { force: options.force });
        const spec = { ...container.spec, autoRemove: container.spec.autoRemove || (options.volumes ?? false) };
        const revision = await this.#parts.store.transact(
          [...this.records.removal({ ...container, spec }), ...sandbox.ops],
          { topics: [...topicsOf(container), ...sandbox.topics], actor: options.actor },
        );
        return { ...container, spec, removing: true, revision };
      }),
    );
  }

  /** Its process and files are gone; volumes that were its own go with it where that was asked for. Repeating it harms nobody. */
  async forget(container: Container): Promise<void> {
    await this.records.forget(container);
    if (!container.spec.autoRemove) return;
    for (const name of volumesOf(container.spec)) {
      const volume = await this.#volumes.records.byName(name);
      if (!volume?.spec.anonymous) continue;
      const shared = (await this.list()).some(({ spec }) => volumesOf(spec).has(name));
      if (!shared) await this.#volumes.remove(volume.id);
    }
  }

  async #create(
    name: string,
    request: ContainerRequest,
    image: Image,
    options: ContainerPutOptions,
  ): Promise<Container> {
    return undoing(async (undo) => {
      const made = await this.#sandboxes.planning(name, sandboxRequest(request), undo, options.replica);
      const anonymous = new Set<string>();
      const nameVolume = (): string => {
        const volume = hexId(this.#parts.clock.random(16));
        anonymous.add(volume);
        return volume;
      };
      const publish = await publishing(this.#parts, `container ${name}`, publishRequests(request, image));
      const spec = specOf(name, request, image, made.sandbox.id, { nameVolume, publish });
      const whole = options.replica === undefined ? spec : { ...spec, replica: options.replica };
      const fresh = this.records.fresh(
        this.records.newId(),
        name,
        this.#parts.node,
        { ...image.config.labels, ...request.labels },
        whole,
      );
      const volumes = await this.#volumes.use(volumesOf(spec), anonymous);
      const ops = [...this.records.creation(fresh), ...made.ops, ...volumes];
      const how = { topics: [...topicsOf(fresh), ...made.topics], actor: options.actor };
      const { store, numbers } = this.#parts;
      const revision = await numbers.allocateWith('attachment', made.numbered, (more) =>
        store.transact([...ops, ...more], how),
      );
      fault('container.stored');
      return { ...fresh, revision };
    });
  }

  async #difference(found: Container, request: ContainerRequest, image: Image): Promise<string | null> {
    const volumes = (await this.#volumes.list()).filter(({ spec }) => spec.anonymous);
    const anonymous = new Set(volumes.map(({ name }) => name));
    const nameVolume = (): string => {
      const fresh = `new-${anonymous.size}`;
      anonymous.add(fresh);
      return fresh;
    };
    // What was chosen for it is what would be chosen again.
    const publish = publishOf(
      `container ${found.name}`,
      publishRequests(request, image),
      (n) => found.spec.publish[n]?.published ?? 0,
    );
    const asked = specOf(found.name, request, image, found.spec.sandbox, { nameVolume, publish });
    return (
      specDiffers(found, asked, anonymous) ?? this.#sandboxes.difference(found.spec.sandbox, sandboxRequest(request))
    );
  }

  /** What this node last said of it. */
  async #seen({ id, owner }: Container): Promise<{ detail: ContainerDetail | null; failed: boolean }> {
    const status = await this.#parts.store.get<Status>(statusKey('container', id, owner ?? this.#parts.node));
    const detail = (status?.value.detail ?? {}) as Partial<ContainerDetail>;
    return {
      detail: detail.phase === undefined ? null : (detail as ContainerDetail),
      failed: status?.value.state === 'error',
    };
  }

  #change(
    ref: string,
    options: WriteOptions,
    decide: (container: Container) => Promise<Partial<ContainerSpec> | null>,
  ): Promise<Container> {
    return retrying(async () => {
      const container = await this.records.living(ref);
      const change = await decide(container);
      if (!change) return container;
      const spec = { ...container.spec, ...change };
      const revision = await this.#parts.store.transact([this.records.change(container, { spec })], {
        topics: topicsOf(container),
        actor: options.actor,
      });
      return { ...container, spec, revision };
    });
  }
}

const volumesOf = ({ mounts }: ContainerSpec): Set<string> =>
  new Set(mounts.flatMap(({ type, source }) => (type === 'volume' && source ? [source] : [])));

const sandboxRequest = ({ networks, sysctls, dns, hostname, labels }: ContainerRequest): SandboxRequest => ({
  networks,
  sysctls,
  dns,
  hostname,
  labels,
});
