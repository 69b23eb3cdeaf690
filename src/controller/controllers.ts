/** All controllers of a node, wired: who triggers whom, in which order at start, and when things are pruned. */
import type { Timer } from '../clock.ts';
import type { IpamDriver, NetworkDriver, Underlay } from '../contracts/driver.ts';
import type { LinkEvent, Monitor } from '../contracts/kernel.ts';
import type { LiveContainers, LiveDiagnosis } from '../contracts/live.ts';
import { type SluiceError, toSluiceError } from '../errors.ts';
import type { ComponentHealth } from '../model/answer.ts';
import type { Container } from '../model/container.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { Node } from '../model/node.ts';
import type { Obj, Status } from '../model/object.ts';
import type { Assignment } from '../model/service/placement.ts';
import type { Service } from '../model/service.ts';
import { audit, auditFirewall } from './audit.ts';
import { ContainerController } from './container/container.ts';
import { liveContainers } from './container/live.ts';
import { VolumeController } from './container/volume.ts';
import type { Context } from './context.ts';
import { createDiagnosis } from './diagnosis/diagnosis.ts';
import type { Rehearse } from './diagnosis/diff.ts';
import type { OtherNodes } from './diagnosis/trace/trace.ts';
import { EndpointController } from './endpoint/endpoint.ts';
import { Firewall } from './firewall/firewall.ts';
import { healthOf, Loop } from './loop.ts';
import { MovedLinks, NOTICED_MS, touchedBy } from './moved.ts';
import { NetworkController } from './network.ts';
import type { OffloadController } from './offload/offload.ts';
import { PeerController, type TunnelDetail } from './peer/peer.ts';
import { prune } from './prune.ts';
import { PublishController } from './publish/publish.ts';
import { ReplicaLoop } from './replica/replica.ts';
import { SandboxController } from './sandbox.ts';
import { mayUse } from './service/balance.ts';
import { NameController } from './service/name.ts';
import { ServiceController } from './service/service.ts';
import { Spaces } from './spaces.ts';
import { Views } from './view.ts';
import type { ReconciledKind, WatchedKind } from './world.ts';

export interface ControllersOptions {
  readonly context: Context;
  readonly drivers: readonly NetworkDriver[];
  readonly ipams: ReadonlyMap<string, IpamDriver>;
  readonly underlay: () => Underlay;
  readonly manageDockerUser?: boolean;
  /** Where ports without an address of their own are published; absent: on all of the host's. */
  readonly publishAddress?: string;
  readonly auditMs: number;
  /** Absent: checksums are not tested. */
  readonly offload?: OffloadController;
  /** For `diff`; absent: networks and endpoints are not compared. */
  readonly rehearse?: Rehearse;
  /** For `trace`; absent: no other node can be asked. */
  readonly others?: OtherNodes;
  /** Statuses of an earlier life. */
  readonly statuses: readonly Status[];
}

/** How long names and balancing wait for endpoints at start, milliseconds: a hanging driver must not keep them back. */
const START_WAIT_MS = 3_000;
/** Endpoints in work at once: those that wait for their link to be deleted, in company, must not keep others back. */
const ENDPOINTS_MAX = 512;
/** Containers in work at once: a start keeps a processor busy. */
const CONTAINERS_MAX = 16;

export class Controllers {
  readonly #options: ControllersOptions;
  readonly #context: Context;
  readonly #firewall: Firewall;
  readonly #spaces: Spaces;
  readonly #views: Views;
  readonly #sandboxes: SandboxController;
  readonly #services: ServiceController;
  readonly #names: NameController;
  readonly peers: PeerController;
  readonly #containers: ContainerController;
  readonly live: LiveContainers;
  readonly diagnosis: LiveDiagnosis;
  readonly #loops: Record<ReconciledKind, Loop>;
  readonly #peerLoop: Loop;
  readonly #replicaLoop: Loop;
  readonly #moved: MovedLinks;
  #monitor: Monitor | undefined;
  #auditTimer: Timer | undefined;
  #auditing: Promise<void> | undefined;
  #synced = false;
  #stopped = false;

  constructor(options: ControllersOptions) {
    const { context } = options;
    [this.#options, this.#context] = [options, context];
    this.#firewall = new Firewall(context, options);
    this.#moved = new MovedLinks(context.clock, (moved) => this.#lookAt(moved));
    this.#spaces = new Spaces(context);
    const published = new PublishController(context, {
      address: options.publishAddress,
      closed: () => this.#firewall.keepsOut(),
    });
    this.#services = new ServiceController(context, this.#spaces, published);
    this.#names = new NameController(context);
    this.#views = new Views(context, {
      fill: async (view) => {
        await this.#services.fill(view);
        await this.#names.fill(view);
      },
      drop: (view) => {
        this.#services.drop(view);
        this.#names.drop(view);
      },
    });
    this.#services.views = this.#views;
    this.#names.views = this.#views;
    this.peers = new PeerController(context);
    const networks = new NetworkController(context, this.#firewall, {
      underlay: options.underlay,
      onTunnel: (id) => this.#tunnelled(id),
      offload: options.offload,
    });
    this.#sandboxes = new SandboxController(context, this.#spaces, this.#views);
    const endpoints = new EndpointController(context, this.#spaces, (endpoint) => this.#withdraw(endpoint));
    this.#containers = new ContainerController(context, {
      published,
      trigger: (id) => this.#loops.container.trigger(id),
      placed: ({ spec }) => {
        this.#touchSandbox(spec.sandbox);
        if (spec.replica) this.#replicate(spec.replica.service);
      },
      leaving: ({ spec }) => this.#settleUsing(spec.sandbox),
    });
    this.live = liveContainers(context, this.#containers);
    const volumes = new VolumeController(context);
    this.#loops = {
      network: this.#loop('network', (id) => networks.reconcile(id)),
      sandbox: this.#loop('sandbox', (id) => this.#sandboxes.reconcile(id)),
      endpoint: this.#loop('endpoint', (id) => endpoints.reconcile(id), ENDPOINTS_MAX),
      service: this.#loop('service', (id) => this.#services.reconcile(id)),
      container: this.#loop('container', (id) => this.#containers.reconcile(id), CONTAINERS_MAX),
      volume: this.#loop('volume', (id) => volumes.reconcile(id)),
    };
    this.#peerLoop = new Loop({
      name: 'peer',
      clock: context.clock,
      reconcile: (id) => this.peers.reconcile(id),
      onError: (id, error, retryMs) => void this.#failed('network', id, error, retryMs),
    });
    this.#replicaLoop = new ReplicaLoop(context);
    this.diagnosis = createDiagnosis({
      ...{ rehearse: () => null, others: undefined, ...options },
      ...{ firewall: this.#firewall, spaces: this.#spaces, services: this.#services, names: this.#names },
      ...{ peers: this.peers, published },
    });
    this.#containers.listen();
  }

  /** True once everything that was desired at start has been looked at. */
  get synced(): boolean {
    return this.#synced;
  }

  /** One line a controller, for `sluice status`. */
  health(): ComponentHealth[] {
    return healthOf({ ...this.#loops, peer: this.#peerLoop, replica: this.#replicaLoop }, this.#synced);
  }

  async start(): Promise<void> {
    const { world, tracker, clock, logger, kernel } = this.#context;
    tracker.load(this.#options.statuses);
    await Promise.all([this.#services.load(), this.#views.load()]);
    await world.start();
    await this.#sandboxes.load();
    world.onChange((kind, id, now, before) => this.#changed(kind, id, now, before));
    tracker.onChange((kind, id, state, before) =>
      this.#turned(kind as ReconciledKind, id, state === 'ready', before === 'ready'),
    );
    this.#monitor = kernel.monitor(
      kernel.host,
      ['link', 'address', 'nft'],
      (event) => this.#noticed(event),
      () => this.auditSoon(),
    );

    const limit = clock.sleep(START_WAIT_MS);
    for (const kind of ['network', 'sandbox', 'endpoint'] as const) {
      for (const id of world.all(kind).keys()) this.#loops[kind].trigger(id);
      await Promise.race([this.#loops[kind].idle(), limit]);
      if (kind === 'network') {
        await this.#firewall.open();
        for (const id of world.joined()) this.#peerLoop.trigger(id);
      }
    }
    for (const id of world.services.keys()) this.#loops.service.trigger(id);
    await this.#loops.service.idle();
    this.#names.open();
    await this.#containers.adopt();
    for (const id of world.volumes.keys()) this.#loops.volume.trigger(id);
    for (const id of world.containers.keys()) this.#loops.container.trigger(id);
    this.#synced = true;
    for (const id of [...world.services.keys(), ...world.replicated()]) this.#replicaLoop.trigger(id);
    const kinds = ['network', 'sandbox', 'endpoint', 'service', 'container'] as const;
    logger.info(Object.fromEntries(kinds.map((kind) => [`${kind}s`, world.all(kind).size])), 'synced');
    this.#scheduleAudit();
  }

  /** Rewrites the sandboxes' resolv.conf: the host's has changed. */
  resolversChanged(): void {
    for (const sandbox of this.#context.world.sandboxes.values())
      if (!sandbox.removing) this.#sandboxes.writeResolvConf(sandbox);
  }

  /** The sandbox's resolver moved to another port. */
  sandboxChanged(id: string): void {
    this.#loops.sandbox.trigger(id);
  }

  auditSoon(): void {
    if (!this.#synced || this.#stopped) return;
    this.#auditTimer?.cancel();
    this.#auditTimer = this.#context.clock.after(0, () => this.#audit());
  }

  /** Ends what is under way and leaves the kernel as it is. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#auditTimer?.cancel();
    this.#moved.stop();
    this.#context.world.stop();
    this.#monitor?.[Symbol.dispose]();
    this.#containers.stop();
    await Promise.all([...Object.values(this.#loops), this.#peerLoop, this.#replicaLoop].map((loop) => loop.stop()));
    await this.#auditing;
    await this.#options.offload?.stop();
    this.#spaces.closeAll();
    this.#firewall.close();
  }

  #loop(kind: ReconciledKind, reconcile: (id: string) => Promise<void>, concurrency?: number): Loop {
    const { clock } = this.#context;
    return new Loop({
      name: kind,
      clock,
      concurrency,
      reconcile,
      onError: (id, error, retryMs) => void this.#failed(kind, id, error, retryMs),
    });
  }

  async #failed(kind: ReconciledKind, id: string, error: SluiceError, retryMs: number): Promise<void> {
    const { world, tracker, logger } = this.#context;
    const stack = error.code === 'internal' ? error.stack : undefined;
    logger.warn({ kind, id, code: error.code, err: error.message, stack, retryMs }, 'reconciliation failed');
    const object = world.all(kind).get(id);
    try {
      if (object) await tracker.failed(object, error, retryMs);
    } catch (failure) {
      logger.error({ kind, id, err: toSluiceError(failure).message }, 'status could not be written');
    }
  }

  /** Desired state changed. */
  #changed(kind: WatchedKind, id: string, now: Obj | undefined, before: Obj | undefined): void {
    const { world } = this.#context;
    if (kind === 'node' || kind === 'assignment') {
      if (kind === 'node') this.#nodeChanged(now as Node | undefined, before as Node | undefined);
      else this.#replicate(((now ?? before) as Assignment).spec.service);
      return;
    }
    if (kind === 'endpoint') {
      const { spec, owner } = (now ?? before) as Endpoint;
      this.#touchEndpoint((now ?? before) as Endpoint);
      const isGlobal = world.networks.get(spec.network)?.spec.scope === 'global';
      if (isGlobal) {
        this.peers.touch(spec.network, id);
        this.#peerLoop.trigger(spec.network);
      }
      if (!world.isOwn({ owner })) return;
      // The sandbox's view follows its endpoints; this host's part in a network begins with the first one, and it and the network end with the last.
      this.#loops.sandbox.trigger(spec.sandbox);
      const { ifindex } = this.#context.tracker.detail<TunnelDetail>('network', spec.network);
      const ends = (isGlobal || world.networks.get(spec.network)?.removing) && !world.takesPart(spec.network);
      if (ends || (isGlobal && ifindex === undefined)) this.#loops.network.trigger(spec.network);
    }
    if (now) this.#loops[kind].renew(id);
    else this.#loops[kind].forget(id);
    if (kind === 'service' && !now) this.#services.gone(before as Service);
    if (kind === 'service') {
      const { network } = ((now ?? before) as Service).spec;
      this.#names.touch(network, [id]);
      this.#triggerServices(network);
      this.#replicate(id);
    }
    if (kind === 'network' && now) this.#names.touch(id);
    if (kind === 'sandbox' && now && before && now.name !== before.name) this.#touchSandbox(id);
    if (kind === 'container') {
      const { sandbox, replica } = ((now ?? before) as Container).spec;
      // Its sandbox goes after it.
      if (!now) this.#loops.sandbox.trigger(sandbox);
      this.#touchSandbox(sandbox);
      if (replica) this.#replicate(replica.service);
      if (replica && !now) this.#loops.service.trigger(replica.service);
    }
    if (kind === 'network' && now)
      for (const endpoint of world.endpointsOfNetwork(id)) this.#loops.endpoint.trigger(endpoint.id);
  }

  #nodeChanged(now: Node | undefined, before: Node | undefined): void {
    const { world } = this.#context;
    const differs = (field: keyof Node['spec']): boolean => now?.spec[field] !== before?.spec[field];
    // Who may send to this host, and where its peers are, depends on all nodes.
    if (differs('vtep') || differs('mtu'))
      for (const id of world.joined()) {
        this.#loops.network.trigger(id);
        this.peers.review(id);
        this.#peerLoop.trigger(id);
      }
    // A node that is lost or drained leaves names and balancing; one that came back is in again. The same record twice: it was judged otherwise.
    if (now === before || differs('availability'))
      for (const id of world.networksOf((now ?? before)!.name)) {
        this.#names.touch(id);
        this.#triggerServices(id);
      }
  }

  /** A network that spans hosts was set up here, anew, or taken down. */
  #tunnelled(networkId: string): void {
    for (const endpoint of this.#context.world.endpointsOfNetwork(networkId)) this.#loops.endpoint.trigger(endpoint.id);
    this.peers.review(networkId);
    this.#peerLoop.trigger(networkId);
  }

  /** What this node found of an object turned to or from ready. */
  #turned(kind: ReconciledKind, id: string, ready: boolean, was: boolean): void {
    if (ready === was) return;
    const { world } = this.#context;
    if (kind === 'network' && ready)
      for (const endpoint of world.endpointsOfNetwork(id)) this.#loops.endpoint.trigger(endpoint.id);
    if (kind === 'sandbox' && ready) {
      for (const endpoint of world.endpointsOfSandbox(id)) this.#loops.endpoint.trigger(endpoint.id);
      this.#triggerContainer(id);
    }
    const endpoint = kind === 'endpoint' ? world.endpoints.get(id) : undefined;
    if (endpoint && ready) this.#triggerContainer(endpoint.spec.sandbox);
    if (endpoint) this.#touchEndpoint(endpoint);
    const service = kind === 'service' ? world.services.get(id) : undefined;
    if (service) this.#names.touch(service.spec.network, [id]);
  }

  /** Something changed that the number of a service's replicas may depend on. */
  #replicate(serviceId: string): void {
    if (this.#synced) this.#replicaLoop.trigger(serviceId);
  }

  #triggerContainer(sandboxId = ''): void {
    const container = this.#context.world.containerOfSandbox(sandboxId);
    if (container) this.#loops.container.trigger(container.id);
  }

  /** What is told of a sandbox on its networks has changed. */
  #touchSandbox(id: string): void {
    for (const endpoint of this.#context.world.endpointsOfSandbox(id)) this.#touchEndpoint(endpoint);
  }

  /** What it is called, and the services that may balance over it. */
  #touchEndpoint({ id, spec }: Endpoint): void {
    const users = [...this.#context.world.services.values().filter((service) => mayUse(service, spec))];
    this.#names.touch(spec.network, [id, ...users.map((service) => service.id)]);
    if (this.#synced) for (const service of users) this.#loops.service.trigger(service.id);
  }

  #triggerServices(networkId: string): void {
    if (!this.#synced) return;
    for (const service of this.#context.world.services.values())
      if (service.spec.network === networkId) this.#loops.service.trigger(service.id);
  }

  /** Services and names let go of an endpoint before its link goes. */
  async #withdraw(endpoint: Endpoint): Promise<void> {
    this.#touchEndpoint(endpoint);
    this.#names.flush();
    await this.#settleUsing(endpoint.spec.sandbox);
    const container = this.#context.world.containerOfSandbox(endpoint.spec.sandbox);
    if (container && container.spec.publish.length > 0) await this.#loops.container.settle(container.id);
  }

  /** Services that balance over the sandbox have looked again. */
  async #settleUsing(sandboxId: string): Promise<void> {
    await Promise.all(this.#services.using(sandboxId).map((id) => this.#loops.service.settle(id)));
  }

  /** Something moved in the host's namespace: look at the object that it belongs to. */
  #noticed(event: LinkEvent): void {
    if (!this.#synced || this.#stopped) return;
    if (event.type === 'nft') {
      this.#firewallSoon();
      return;
    }
    this.#moved.note(event.ifindex, event.type === 'link' && event.removed);
  }

  #lookAt(moved: ReadonlyMap<number, boolean>): void {
    for (const { kind, id } of touchedBy(moved, this.#context, this.#firewall.interfaces))
      this.#loops[kind].trigger(id);
  }

  #firewallTimer: Timer | undefined;
  #firewallSoon(): void {
    this.#firewallTimer ??= this.#context.clock.after(NOTICED_MS, () => {
      this.#firewallTimer = undefined;
      if (this.#stopped) return;
      auditFirewall(this.#context, this.#firewall).then(
        (seen) => seen.forEach((id) => void this.#loops.network.trigger(id)),
        (error) => this.#context.logger.error({ err: toSluiceError(error).message }, 'firewall audit failed'),
      );
    });
  }

  #scheduleAudit(): void {
    if (this.#stopped) return;
    this.#auditTimer = this.#context.clock.after(this.#options.auditMs, () => this.#audit());
  }

  #audit(): void {
    this.#auditing ??= audit({
      context: this.#context,
      firewall: this.#firewall,
      loops: this.#loops,
      naming: this.#names,
      peers: { loop: this.#peerLoop, controller: this.peers },
      ipams: this.#options.ipams,
      prune: async () => [
        ...(await this.#containers.prune()),
        ...((await this.#options.offload?.prune()) ?? []),
        ...(await prune(this.#context, this.#services, this.#views, this.#options.drivers)),
      ],
    })
      .catch((error) =>
        this.#context.logger.error(
          { err: toSluiceError(error).message, stack: toSluiceError(error).stack },
          'audit failed',
        ),
      )
      .finally(() => {
        this.#auditing = undefined;
        this.#scheduleAudit();
      });
  }
}
