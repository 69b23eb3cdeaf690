/**
 * Replicas: the containers that a service keeps running. A look makes those that are missing, tells surplus ones to end, removes the ended;
 * what they do then comes back as news of them. One that dies is started again by its restart policy, one that is gone is made anew.
 */

import { replicaName } from '../../desired/service/replica.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import { fault } from '../../fault.ts';
import type { Container, ContainerDetail } from '../../model/container.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { BackendSpec, ReplicaSpec, Service } from '../../model/service.ts';
import { placeOf } from '../container/decide.ts';
import type { Context } from '../context.ts';
import { Loop } from '../loop.ts';
import type { World } from '../world.ts';
import { planReplicas, type ReplicaFacts } from './plan.ts';

/** How long the image of a replica may take to come, milliseconds. */
const PULL_MS = 600_000;

/** The service with its replicas among its backends. */
export function withReplicas(world: Pick<World, 'replicasOf' | 'peersOfNetwork'>, service: Service): Service {
  if (!service.spec.replicas) return service;
  const replicas = [...world.replicasOf(service.id), ...peersOf(world, service)].map(
    ({ spec }): BackendSpec => ({ sandbox: spec.sandbox }),
  );
  return { ...service, spec: { ...service.spec, backends: [...service.spec.backends, ...replicas] } };
}

/** Other nodes' replicas of the service, as far as this node follows its network. */
const peersOf = (world: Pick<World, 'peersOfNetwork'>, { id, spec }: Service): Endpoint[] =>
  [...world.peersOfNetwork(spec.network).values()].filter((peer) => peer.spec.replica?.service === id);

/** Whether what another node has there is balanced over: a replica when its node says so. */
export const peerServes = ({ removing, spec }: Endpoint): boolean =>
  !removing && (spec.replica === undefined || spec.serving === true);

/** How many of its present version are balanced over; nothing of a service that has none. */
export function servingReplicas(
  { world, tracker }: Pick<Context, 'world' | 'tracker'>,
  service: Service,
): { readonly replicas?: number } {
  const { id, spec } = service;
  if (!spec.replicas) return {};
  const { version } = spec.replicas;
  const peers = peersOf(world, service).filter(
    (peer) => peer.spec.replica?.version === version && peerServes(peer) && world.takesConnections(peer.owner),
  );
  const serving = world.replicasOf(id).filter((container) => {
    const detail = tracker.detail<ContainerDetail>('container', container.id);
    return container.spec.replica?.version === version && placeOf(container.spec, detail).serving;
  });
  return { replicas: serving.length + peers.length };
}

/** Looks at a service's replicas whenever they or the service change; a pull that is under way ends with it. */
export class ReplicaLoop extends Loop {
  readonly #end: AbortController;

  constructor(context: Context) {
    const end = new AbortController();
    const controller = new ReplicaController(context, end.signal);
    super({
      name: 'replica',
      clock: context.clock,
      reconcile: (id) => controller.reconcile(id),
      onError: (id, error) =>
        void controller.failed(id, error).catch((failure: unknown) => {
          context.logger.error({ id, err: toSluiceError(failure).message }, 'status could not be written');
        }),
    });
    this.#end = end;
  }

  override stop(): Promise<void> {
    this.#end.abort(new SluiceError('daemon.stopping', 'the daemon is stopping'));
    return super.stop();
  }
}

class ReplicaController {
  readonly #context: Context;
  readonly #end: AbortSignal;

  constructor(context: Context, end: AbortSignal) {
    this.#context = context;
    this.#end = end;
  }

  async reconcile(serviceId: string): Promise<void> {
    const { world, desired } = this.#context;
    const replicas = world.replicasOf(serviceId);
    const service = world.services.get(serviceId);
    if (!service) {
      // Nobody is served by these: they outlived their service.
      for (const { id, removing } of replicas)
        if (!removing) await desired.containers.remove(id, { force: true, volumes: true });
      return;
    }
    const { spec } = service;
    if (!spec.replicas && replicas.length === 0) return;
    const count = service.removing || !spec.replicas ? 0 : world.assigned(serviceId);
    await this.#announce(service, replicas);
    const { version = 0 } = spec.replicas ?? {};
    const plan = planReplicas(
      count,
      version,
      replicas.map((each) => this.#facts(each)),
      // On a network of this node alone nobody else replaces any.
      service.owner !== null || world.mayRenew(serviceId, version),
    );
    for (const id of plan.leave) {
      await desired.containers.stop(id);
      fault('replica.leaving');
    }
    for (const id of plan.remove) await desired.containers.remove(id, { force: true, volumes: true });
    for (const slot of plan.create) await this.#create(service, spec.replicas!, slot);
    if (!service.removing) await this.#tell(service, replicas);
  }

  /** What keeps a replica from being made: said of the service; it is tried again. */
  async failed(serviceId: string, error: SluiceError): Promise<void> {
    const service = this.#context.world.services.get(serviceId);
    if (service) await this.#context.tracker.condition('service', serviceId, 'ReplicaFailed', true, error.message);
  }

  async #create({ id, name, spec }: Service, replicas: ReplicaSpec, slot: number): Promise<void> {
    const { container, version, imageId } = replicas;
    const request = { ...container, networks: [{ network: spec.network }], start: true };
    await this.#fetch(container.image, imageId);
    const replica = { service: id, slot, version };
    const { containers } = this.#context.desired;
    const own = replicaName(name, slot);
    try {
      await containers.put(own, request, { create: true, replica, imageId });
    } catch (error) {
      // This node may not have read yet what it wrote a moment ago.
      if (
        !isSluiceError(error, 'object.exists') ||
        (await containers.records.byName(own))?.spec.replica?.service !== id
      )
        throw error;
    }
    fault('replica.stored');
  }

  /** The image on a node that has never had it: pulled by the name that the service was made with. */
  async #fetch(name: string, imageId: string): Promise<void> {
    const { images, clock, logger } = this.#context;
    if (await images.get(imageId)) return;
    const late = new AbortController();
    const timer = clock.after(PULL_MS, () => late.abort(new Error(`not pulled within ${PULL_MS / 1_000} s`)));
    try {
      logger.info({ image: name }, 'pulling the image of a replica');
      const { id } = await images.pull(name, { signal: AbortSignal.any([late.signal, this.#end]) });
      if (id !== imageId)
        throw new SluiceError(
          'image.notfound',
          `${name} is another image (${id}) by now than the service's (${imageId})`,
          {
            image: name,
          },
        );
    } finally {
      timer.cancel();
    }
  }

  /** Tells other nodes which replicas are balanced over. */
  async #announce({ spec }: Service, replicas: readonly Container[]): Promise<void> {
    const { world, tracker, desired } = this.#context;
    if (world.networks.get(spec.network)?.spec.scope !== 'global') return;
    for (const container of replicas) {
      const detail = tracker.detail<ContainerDetail>('container', container.id);
      const serving = !container.removing && placeOf(container.spec, detail).serving;
      for (const endpoint of world.endpointsOfSandbox(container.spec.sandbox))
        if (!endpoint.removing && (endpoint.spec.serving ?? false) !== serving)
          await desired.endpoints.serve(endpoint, serving);
    }
  }

  #facts(container: Container): ReplicaFacts {
    const { id, spec, removing = false } = container;
    const detail = this.#context.tracker.detail<ContainerDetail>('container', id);
    const leaving = removing || spec.wanted !== 'running';
    const ended = !removing && detail.phase !== 'running' && detail.phase !== 'restarting';
    const { slot, version } = spec.replica!;
    return { id, slot, version, leaving, ended, serving: placeOf(spec, detail).serving };
  }

  /** The first replica with which something is wrong. */
  async #tell(service: Service, replicas: readonly Container[]): Promise<void> {
    const { tracker } = this.#context;
    const troubles = replicas.flatMap(({ id, name, removing }) => {
      const { error, detail } = tracker.get('container', id) ?? {};
      const { phase, exitCode } = (detail ?? {}) as Partial<ContainerDetail>;
      if (removing) return [];
      if (error) return [`${name}: ${error.message}`];
      return phase === 'restarting' ? [`${name} ended with status ${exitCode ?? '?'} and is started again`] : [];
    });
    const rest = troubles.length > 1 ? ` (and ${troubles.length - 1} more)` : '';
    await tracker.condition(
      'service',
      service.id,
      'ReplicaFailed',
      troubles.length > 0,
      `${troubles[0] ?? 'none'}${rest}`,
    );
  }
}
