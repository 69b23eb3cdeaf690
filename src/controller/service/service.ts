/**
 * Services: backend sets and, for every view that holds the service's network, frontends. A backend whose endpoint goes is taken
 * out first; then the sockets that still talk to it are reset, so that a client learns of it at once. A backend that was only
 * taken off the list keeps its open connections.
 */
import type { DataplaneBackend, DataplaneFrontend } from '../../contracts/dataplane.ts';
import { fault } from '../../fault.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import type { Contest, Endpoint } from '../../model/endpoint.ts';
import type { Service } from '../../model/service.ts';
import { placeOfSandbox } from '../container/place.ts';
import type { Context } from '../context.ts';
import { HOST_KEYS } from '../publish/loopback.ts';
import type { PublishController } from '../publish/publish.ts';
import { peerServes, servingReplicas, withReplicas } from '../replica/replica.ts';
import type { Spaces } from '../spaces.ts';
import type { View, Views } from '../view.ts';
import { endpointOfKey, type PlannedSet, planService } from './balance.ts';
import { serviceDifferences } from './difference.ts';
import { reportNameless } from './nameless.ts';

interface Programmed {
  readonly set: number;
  readonly planned: PlannedSet;
  readonly backends: readonly DataplaneBackend[];
}

export class ServiceController {
  readonly #context: Context;
  readonly #spaces: Spaces;
  readonly #publish: PublishController;
  readonly #programmed = new Map<string, readonly Programmed[]>();
  /** Backend number → its key, for what pinned maps hold from an earlier life. */
  readonly #keys = new Map<number, string>();
  /** Sets that had a number when this life began. */
  #olderSets: readonly string[] = [];
  views: Views | undefined;

  constructor(context: Context, spaces: Spaces, publish: PublishController) {
    this.#context = context;
    this.#spaces = spaces;
    this.#publish = publish;
  }

  async load(): Promise<void> {
    const { numbers } = this.#context.desired;
    for (const [key, number] of await numbers.all('backend'))
      if (!key.startsWith(HOST_KEYS)) this.#keys.set(number, key);
    await this.#publish.load();
    const sets = await numbers.all('set');
    this.#olderSets = [...sets.keys()].filter((key) => !key.startsWith(HOST_KEYS));
  }

  async reconcile(id: string): Promise<void> {
    const service = this.#context.world.services.get(id);
    if (!service) return;
    if (service.removing) return this.#remove(service);
    await reportNameless(this.#context, service);
    if (service.spec.contested) await this.#giveUp(service, service.spec.contested);
    else await this.#ensure(service);
  }

  /** Everything that a view about to be used must hold. */
  async fill(view: View): Promise<void> {
    for (const service of this.#context.world.services.values()) {
      if (service.removing || !view.networks.includes(service.spec.network)) continue;
      for (const programmed of this.#programmed.get(service.id) ?? [])
        this.#context.dataplane.ensureFrontend(frontend(view.number, programmed));
    }
  }

  /** A view that nobody uses any more. */
  drop(view: View): void {
    for (const service of this.#context.world.services.values()) {
      if (!view.networks.includes(service.spec.network)) continue;
      for (const programmed of this.#programmed.get(service.id) ?? [])
        this.#context.dataplane.removeFrontend(frontend(view.number, programmed));
    }
  }

  /** All that should be in the kernel's maps, for prune. */
  wanted(): { frontends: DataplaneFrontend[]; sets: Set<number> } {
    const published = this.#publish.wanted();
    const frontends: DataplaneFrontend[] = [...published.frontends];
    const sets = new Set<number>(published.sets);
    for (const [id, list] of this.#programmed) {
      const service = this.#context.world.services.get(id);
      // One that went while it was being programmed.
      if (!service) {
        this.#programmed.delete(id);
        continue;
      }
      for (const programmed of list) {
        sets.add(programmed.set);
        for (const view of this.#viewsOf(service)) frontends.push(frontend(view.number, programmed));
      }
    }
    return { frontends, sets };
  }

  /** Gives the numbers back of backends and sets that are no more, also those that a life before this one gave. */
  async collect(): Promise<void> {
    const { numbers } = this.#context.desired;
    const programmed = [...this.#programmed.values()].flat();
    const used = new Set(programmed.flatMap(({ backends }) => backends.map(({ number }) => number)));
    if (this.#keys.size > used.size) {
      for (const { number } of [...this.#context.dataplane.backends().values()].flat()) used.add(number);
      for (const [number, key] of this.#keys) {
        if (used.has(number)) continue;
        await numbers.release('backend', key);
        this.#keys.delete(number);
      }
    }
    const sets = new Set(programmed.map(({ planned }) => planned.key));
    for (const key of this.#olderSets) if (!sets.has(key)) await numbers.release('set', key);
    this.#olderSets = [];
    await this.#publish.collect();
  }

  /** Its record went without this node having seen the removal: another node, which was faster, has done its part for all. */
  gone(service: Service): void {
    const { dataplane } = this.#context;
    for (const programmed of this.#programmed.get(service.id) ?? []) {
      for (const view of this.#viewsOf(service)) dataplane.removeFrontend(frontend(view.number, programmed));
      dataplane.removeBackends(programmed.set);
    }
    this.#programmed.delete(service.id);
    this.#publish.withdraw(service.id);
  }

  /** Services that balance over the sandbox. */
  using(sandboxId: string): string[] {
    const { world } = this.#context;
    return [...world.services.values()]
      .map((service) => withReplicas(world, service))
      .filter(({ spec }) => spec.backends.some((backend) => 'sandbox' in backend && backend.sandbox === sandboxId))
      .map(({ id }) => id);
  }

  #viewsOf(service: Service): View[] {
    return this.views?.withNetwork(service.spec.network) ?? [];
  }

  async #ensure(service: Service): Promise<void> {
    const { world, tracker, dataplane, desired } = this.#context;
    const whole = withReplicas(world, service);
    const endpoints = this.#endpointsOf(whole);
    const next: Programmed[] = [];
    for (const planned of planService(whole, endpoints)) {
      const backends: DataplaneBackend[] = [];
      for (const { key, address, port } of planned.backends) {
        const number = await desired.numbers.allocate('backend', key);
        this.#keys.set(number, key);
        backends.push({ number, address, port });
      }
      next.push({ set: await desired.numbers.allocate('set', planned.key), planned, backends });
    }
    const before = this.#programmed.get(service.id) ?? [];
    const inKernel = before.length > 0 ? null : dataplane.backends();
    for (const programmed of next) {
      const old = inKernel
        ? (inKernel.get(programmed.set) ?? [])
        : (before.find(({ set }) => set === programmed.set)?.backends ?? []);
      dataplane.ensureBackends(programmed.set, programmed.backends);
      this.#resetGone(service, old, programmed.backends);
    }
    fault('service.backends');
    this.#programmed.set(service.id, next);
    for (const view of this.#viewsOf(service)) {
      for (const programmed of next) dataplane.ensureFrontend(frontend(view.number, programmed));
    }
    fault('service.frontends');
    for (const stale of before.filter(({ set }) => !next.some((programmed) => programmed.set === set)))
      await this.#withdraw(service, stale);
    const ports = await this.#publish.ensureService(whole, endpoints);
    const detail = {
      ...(ports.length > 0 && { ports }),
      // One that has addresses of both families counts once.
      backends: new Set(
        next.flatMap(({ planned }) => planned.backends.map(({ key, address }) => endpointOfKey(key) ?? address)),
      ).size,
      ...servingReplicas(this.#context, service),
      sets: next.map(({ set, planned, backends }) => ({
        set,
        vip: planned.address,
        port: planned.port,
        protocol: planned.protocol,
        backends: backends.map(({ address, port }) =>
          address.includes(':') ? `[${address}]:${port || '*'}` : `${address}:${port || '*'}`,
        ),
      })),
    };
    const takesPart = !world.isShared || service.owner !== null || world.takesPart(service.spec.network);
    await (takesPart ? tracker.ready(service, detail) : tracker.readyAside(service, detail));
  }

  /** Those of its backends that it may be balanced over. A change on a large network asks this for each service that it concerns. */
  #endpointsOf({ spec: { network, backends } }: Service): Endpoint[] {
    const { world, tracker } = this.#context;
    const sandboxes = new Set(backends.flatMap((backend) => ('sandbox' in backend ? [backend.sandbox] : [])));
    const own = [...sandboxes]
      .filter((id) => placeOfSandbox(this.#context, id).serving)
      .flatMap((id) => world.endpointsOfSandbox(id))
      .filter(({ id, spec, removing }) => spec.network === network && !removing && tracker.isReady('endpoint', id));
    const peers = [...sandboxes].flatMap((id) => world.peerOfSandbox(network, id) ?? []);
    return [...own, ...peers.filter(peerServes)].filter(({ owner }) => world.takesConnections(owner));
  }

  /** What is balanced over now, VIP by VIP and port by port. */
  plan(service: Service): PlannedSet[] {
    const whole = withReplicas(this.#context.world, service);
    return planService(whole, this.#endpointsOf(whole));
  }

  /** Numbers of its backend sets. */
  setsOf(id: string): number[] {
    return (this.#programmed.get(id) ?? []).map(({ set }) => set);
  }

  /** What is programmed of it, and published, otherwise than it should be now. */
  compare(service: Service): Difference[] {
    // It is to answer nowhere.
    if (service.spec.contested) return [];
    const { world, dataplane } = this.#context;
    const whole = withReplicas(world, service);
    const endpoints = this.#endpointsOf(whole);
    const present = { backends: dataplane.backends(), frontends: dataplane.frontends() };
    const programmed = this.#programmed.get(service.id) ?? [];
    const views = this.#viewsOf(service).map(({ number }) => number);
    const differences = planService(whole, endpoints).flatMap((planned) => {
      const set = programmed.find((one) => one.planned.key === planned.key)?.set;
      return serviceDifferences(planned, set, views, present);
    });
    return [...differences, ...this.#publish.compareService(whole, endpoints)];
  }

  /** Resets what still talks to backends whose endpoint is no more. */
  #resetGone(service: Service, old: readonly DataplaneBackend[], now: readonly DataplaneBackend[]): void {
    const { world, tracker, dataplane, logger } = this.#context;
    for (const backend of old) {
      if (now.some(({ number }) => number === backend.number)) continue;
      const endpointId = endpointOfKey(this.#keys.get(backend.number) ?? '-/');
      if (endpointId === null) continue;
      const endpoint = world.endpoints.get(endpointId);
      if (endpoint && !endpoint.removing && tracker.isReady('endpoint', endpointId)) continue;
      const { network } = service.spec;
      const peer = world.peersOfNetwork(network).get(endpointId);
      if (peer && !peer.removing && world.serves(peer.owner)) continue;
      const count = dataplane.reset(backend, this.#spaces.all());
      if (count > 0)
        logger.info(
          { backend: backend.address, port: backend.port, sockets: count },
          'reset what still talked to a backend that is gone',
        );
    }
  }

  /** Its VIP is another's: nothing of it may answer there. The record stays, so that people see what happened. */
  async #giveUp(service: Service, { address, by }: Contest): Promise<void> {
    const { tracker } = this.#context;
    const message = `${address} was given twice, and ${by} is older: this service answers nowhere until it is removed and made anew`;
    // First: who names it lets go because of that.
    await tracker.refused(service, { code: 'address.contested', message }, {});
    this.#publish.withdraw(service.id);
    const programmed = this.#programmed.get(service.id) ?? [];
    this.#programmed.delete(service.id);
    for (const one of programmed) await this.#withdraw(service, one);
  }

  /** What of another service has the same VIP and port, which must not be. */
  #rival({ id, spec }: Service, { address, port, protocol }: PlannedSet): Programmed | undefined {
    const { services } = this.#context.world;
    return [...this.#programmed]
      .flatMap(([other, list]) => (other !== id && services.get(other)?.spec.network === spec.network ? list : []))
      .find(({ planned }) => planned.address === address && planned.port === port && planned.protocol === protocol);
  }

  async #withdraw(service: Service, { set, planned }: Programmed): Promise<void> {
    const { dataplane, desired } = this.#context;
    const rival = this.#rival(service, planned);
    for (const { number } of this.#viewsOf(service)) {
      if (rival) dataplane.ensureFrontend(frontend(number, rival));
      else dataplane.removeFrontend(frontend(number, { set, planned }));
    }
    dataplane.removeBackends(set);
    await desired.numbers.release('set', planned.key);
  }

  /** Other nodes' too, but for those that are lost: theirs go when they are back. */
  async #hasReplicas({ id, owner, spec }: Service): Promise<boolean> {
    const { desired, world } = this.#context;
    if (world.replicasOf(id).length > 0) return true;
    if (owner !== null || !spec.replicas) return false;
    const all = await desired.containers.list();
    return all.some((container) => container.spec.replica?.service === id && world.serves(container.owner));
  }

  async #remove(service: Service): Promise<void> {
    const { desired, tracker } = this.#context;
    // After a restart nothing is remembered: the plan says what there may be.
    const programmed = this.#programmed.get(service.id) ?? [];
    const sets = new Map(programmed.map((one) => [one.planned.key, one]));
    for (const planned of planService(service, [])) {
      if (!sets.has(planned.key))
        sets.set(planned.key, { set: await desired.numbers.allocate('set', planned.key), planned, backends: [] });
    }
    this.#publish.withdraw(service.id);
    for (const one of sets.values()) await this.#withdraw(service, one);
    this.#programmed.delete(service.id);
    fault('service.withdrawn');
    // The last of its replicas to go triggers this again.
    if (await this.#hasReplicas(service)) return;
    await desired.services.forget(service);
    tracker.forget('service', service.id);
  }
}

function frontend(view: number, { set, planned }: Pick<Programmed, 'set' | 'planned'>): DataplaneFrontend {
  return { view, address: planned.address, port: planned.port, protocol: planned.protocol, set };
}
