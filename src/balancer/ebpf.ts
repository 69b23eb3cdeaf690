/** The data plane in eBPF: connect-time balancing, the guard at the host-side veth, and the DNS hand-over on lo. */
import type {
  Dataplane,
  DataplaneBackend,
  DataplaneCapabilities,
  DataplaneEndpoint,
  DataplaneFrontend,
  DataplaneSandbox,
  DataplaneSegment,
  Drift,
  EndpointCounters,
  Repair,
  SetCounters,
} from '../contracts/dataplane.ts';
import type { Kernel, Namespace } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { mapLookup, mapUpdate, probeTcx, programInfo } from '../kernel/bpf/bpf.ts';
import type { Logger } from '../log.ts';
import { adopt, type Loaded } from './adopt.ts';
import { Attachments, type Target } from './attachments.ts';
import { Balance } from './balance.ts';
import { Flows } from './flows.ts';
import { CgroupHooks } from './hooks.ts';
import { Identity } from './identity.ts';
import type { FrontendKey } from './input.ts';
import { NUMBER, STAGE } from './maps/layout.ts';
import { Pins } from './pins.ts';
import { Segments } from './segments.ts';

export interface EbpfDataplaneOptions {
  readonly kernel: Kernel;
  /** Mark of everything that is pinned. */
  readonly instance: string;
  /** Mount point of a bpffs; made when absent. */
  readonly bpffs: string;
  /** Where the cgroup programs attach: all sockets created below it are in scope. */
  readonly cgroupRoot: string;
  /** Folder of the compiled objects. */
  readonly objectDir: string;
  readonly logger?: Logger;
}

/** ifindex of lo in every namespace. */
const LO = 1;
/** Attachments hardened in one audit: about 100 ms. */
const HARDENED_MAX = 8;

interface Running {
  readonly loaded: Loaded;
  readonly hooks: CgroupHooks;
  readonly attachments: Attachments;
  readonly identity: Identity;
  readonly segments: Segments;
  readonly balance: Balance;
  readonly flows: Flows;
}

export function createEbpfDataplane(options: EbpfDataplaneOptions): Dataplane {
  return new EbpfDataplane(options);
}

class EbpfDataplane implements Dataplane {
  readonly #options: EbpfDataplaneOptions;
  readonly #pins: Pins;
  #running: Running | undefined;
  /** An older generation serves until the first prune says that everything is filled. */
  #filling = false;
  /** A life may have been cut short. */
  #unswept = true;
  /** A sandbox went, perhaps with sockets open. */
  #peersUnswept = true;

  constructor(options: EbpfDataplaneOptions) {
    this.#options = options;
    this.#pins = new Pins(options.bpffs, options.instance);
  }

  capabilities(): DataplaneCapabilities {
    return {
      form: 'ebpf',
      connectTime: true,
      antiSpoof: true,
      dnsHandover: true,
      tc: this.#state.attachments.mode,
    };
  }

  async start(): Promise<void> {
    if (this.#running) throw new SluiceError('internal', 'the data plane runs already');
    const { kernel, instance, bpffs, cgroupRoot, objectDir, logger } = this.#options;
    kernel.ensureBpffs(bpffs);
    const loaded = adopt(this.#pins, objectDir);
    const { programs, maps } = loaded;
    const hooks = new CgroupHooks({ pins: this.#pins, cgroups: kernel.cgroups, root: cgroupRoot, programs });
    try {
      const fdOf = (name: string): number => maps.get(name)!;
      const forced = process.env.SLUICE_TC === 'clsact';
      const running: Running = {
        loaded,
        hooks,
        attachments: new Attachments({
          pins: this.#pins,
          stages: fdOf('stages'),
          instance,
          mode: !forced && kernel.host.run(() => probeTcx(programs.get('dns')!)) ? 'tcx' : 'clsact',
        }),
        identity: new Identity(fdOf),
        segments: new Segments(fdOf),
        balance: new Balance(fdOf),
        flows: new Flows(kernel.sockets, fdOf),
      };
      // One slot each swaps the program behind every attachment at once.
      for (const stage of Object.keys(STAGE)) setStage(loaded, stage as keyof typeof STAGE);
      this.#filling = this.#pins.older().length > 0;
      hooks.attach(!this.#filling);
      this.#running = running;
      logger?.debug(
        { generation: this.#pins.generation, made: loaded.made, filling: this.#filling, tc: running.attachments.mode },
        'data plane started',
      );
    } catch (error) {
      hooks.close();
      loaded.close();
      throw error;
    }
  }

  ensureSandbox(sandbox: DataplaneSandbox): void {
    const { identity, attachments } = this.#state;
    const before = identity.sandbox(sandbox.id);
    identity.ensureSandbox(sandbox);
    if (before && before.number !== sandbox.number) attachments.remove(before.number);
    const { id, number, namespace } = sandbox;
    attachments.ensure({ id, number, stage: 'dns', ifindex: LO, namespace });
  }

  removeSandbox(id: string): void {
    const { identity, attachments } = this.#state;
    const held = identity.sandbox(id);
    if (held) attachments.remove(held.number);
    identity.removeSandbox(id);
    this.#peersUnswept = true;
  }

  serveHost(on: boolean): void {
    const { identity } = this.#state;
    // Sockets that stay open tell nobody of their end from now on.
    if (!on && identity.servesHost) this.#peersUnswept = true;
    identity.serveHost(on, this.#options.kernel.host.cookie);
  }

  ensureEndpoint(endpoint: DataplaneEndpoint): void {
    const { identity, segments, attachments } = this.#state;
    const before = identity.endpoint(endpoint.id);
    identity.ensureEndpoint(endpoint);
    if (before && before.number !== endpoint.number)
      attachments.remove(before.number, this.#onHost(before.hostIfindex));
    const { id, number, hostIfindex: ifindex } = endpoint;
    attachments.ensure({ id, number, stage: 'from_sandbox', ifindex, namespace: this.#options.kernel.host });
    segments.place(endpoint, before);
  }

  /** Nobody is sent to it, then the attachment goes: the guard drops what it knows no endpoint for. */
  removeEndpoint(id: string): void {
    const { identity, segments, attachments } = this.#state;
    const held = identity.endpoint(id);
    if (held) {
      segments.displace(held);
      attachments.remove(held.number, this.#onHost(held.hostIfindex));
    }
    identity.removeEndpoint(id);
  }

  ensureSegment(segment: DataplaneSegment): void {
    const { segments, attachments } = this.#state;
    const { id, number, tunnel: ifindex } = segment;
    const before = segments.get(id);
    segments.ensure(segment);
    if (before && before.number !== number) attachments.remove(before.number, this.#onHost(before.tunnel));
    attachments.ensure({ id, number, stage: 'from_tunnel', ifindex, namespace: this.#options.kernel.host });
  }

  removeSegment(id: string): void {
    const { segments, attachments } = this.#state;
    const held = segments.get(id);
    if (held) attachments.remove(held.number, this.#onHost(held.tunnel));
    segments.remove(id);
  }

  syncStations(tunnel: number, macs: ReadonlySet<string>): void {
    this.#state.segments.sync(tunnel, macs);
  }

  changeStations(
    tunnel: number,
    changes: { readonly come: readonly string[]; readonly gone: readonly string[] },
  ): void {
    this.#state.segments.change(tunnel, changes);
  }

  stations(tunnel: number): ReadonlySet<string> {
    return this.#state.segments.behind(tunnel);
  }

  ensureBackends(set: number, backends: readonly DataplaneBackend[]): void {
    this.#state.balance.ensureBackends(set, backends);
  }

  removeBackends(set: number): void {
    this.#state.balance.removeBackends(set);
  }

  ensureFrontend(frontend: DataplaneFrontend): void {
    this.#state.balance.ensureFrontend(frontend);
  }

  removeFrontend(frontend: FrontendKey): void {
    this.#state.balance.removeFrontend(frontend);
  }

  frontends(): DataplaneFrontend[] {
    return this.#state.balance.frontends();
  }

  backends(): ReadonlyMap<number, readonly DataplaneBackend[]> {
    return this.#state.balance.backends();
  }

  prune(keep: Parameters<Dataplane['prune']>[0]): number {
    const { identity, segments, balance, attachments, flows } = this.#state;
    let removed = 0;
    if (this.#filling) this.#takeOver();
    for (const id of identity.sandboxIds()) {
      if (keep.sandboxes.has(id)) continue;
      this.removeSandbox(id);
      removed++;
    }
    for (const id of identity.endpointIds()) {
      if (keep.endpoints.has(id)) continue;
      this.removeEndpoint(id);
      removed++;
    }
    for (const id of segments.ids()) {
      if (keep.segments.has(id)) continue;
      this.removeSegment(id);
      removed++;
    }
    removed += balance.prune(keep);
    if (this.#peersUnswept) {
      flows.sweep(identity.cookies());
      this.#peersUnswept = false;
    }
    if (this.#unswept) {
      identity.sweep();
      attachments.sweep(new Set([...identity.attachments(), ...segments.numbers()]));
      this.#unswept = false;
    }
    return removed;
  }

  connections(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    return this.#state.flows.count(backend, namespaces);
  }

  reset(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    return this.#state.flows.reset(backend, namespaces);
  }

  endpointCounters(id: string): EndpointCounters {
    return this.#state.identity.counters(id);
  }

  setCounters(set: number): SetCounters {
    return this.#state.balance.counters(set);
  }

  audit(): Repair[] {
    const { loaded, hooks, attachments, identity, segments, balance } = this.#state;
    const repairs: Repair[] = [];
    const pinned = new Set(this.#pins.names('maps'));
    for (const [name, fd] of loaded.maps) {
      if (pinned.has(name)) continue;
      this.#pins.put('maps', name, fd);
      repairs.push({ object: 'program', id: name, what: `the pin of map ${name} was gone` });
    }
    for (const stage of Object.keys(STAGE) as (keyof typeof STAGE)[]) {
      if (stageHolds(loaded, stage)) continue;
      setStage(loaded, stage);
      repairs.push({ object: 'program', id: stage, what: `slot ${STAGE[stage]} of the stages did not hold it` });
    }
    repairs.push(...balance.audit(), ...identity.audit(), ...segments.audit(), ...hooks.audit());
    const failed = ({ id, stage, ifindex }: Target, error: unknown): void =>
      this.#options.logger?.warn({ id, stage, ifindex, err: error }, 'cannot mend an attachment');
    repairs.push(...attachments.audit(failed));
    attachments.harden(HARDENED_MAX, failed);
    return repairs;
  }

  compare(): Drift[] {
    const { loaded, hooks, attachments, identity, segments, balance } = this.#state;
    const pinned = new Set(this.#pins.names('maps'));
    const program = (id: string, what: string, is: Drift['is'], look: string): Drift => {
      return { object: 'program', id, what, is, look };
    };
    return [
      ...[...loaded.maps.keys()]
        .filter((name) => !pinned.has(name))
        .map((name) => program(name, `the pin of map ${name}`, 'missing', 'ls /sys/fs/bpf/sluice/v*/maps')),
      ...(Object.keys(STAGE) as (keyof typeof STAGE)[])
        .filter((stage) => !stageHolds(loaded, stage))
        .map((stage) =>
          program(stage, `slot ${STAGE[stage]} of the stages`, 'changed', 'bpftool map dump name stages'),
        ),
      ...balance.compare(),
      ...identity.compare(),
      ...segments.compare(),
      ...hooks.compare(),
      ...attachments.compare(),
    ];
  }

  highest(): ReturnType<Dataplane['highest']> {
    const { identity, segments, balance } = this.#state;
    const a = identity.highest();
    const b = balance.highest();
    const attachment = Math.max(a.attachment, ...segments.numbers());
    return { attachment, view: Math.max(a.view, b.view), set: b.set, backend: b.backend };
  }

  off(): void {
    if (this.#running) {
      const { identity, segments, attachments, hooks } = this.#running;
      for (const id of segments.ids()) this.removeSegment(id);
      for (const id of identity.endpointIds()) this.removeEndpoint(id);
      attachments.detach();
      hooks.detach();
    }
    for (const generation of this.#pins.generations()) this.#pins.removeGeneration(generation);
    this.#pins.removeRoot();
    this.close();
  }

  close(): void {
    this.#running?.hooks.close();
    this.#running?.loaded.close();
    this.#running = undefined;
  }

  get #state(): Running {
    if (!this.#running) throw new SluiceError('internal', 'the data plane is not started');
    return this.#running;
  }

  #onHost(ifindex: number): { readonly namespace: Namespace; readonly ifindex: number } {
    return { namespace: this.#options.kernel.host, ifindex };
  }

  /** Everything is filled: hooks and attachments change over, then the older generations go. */
  #takeOver(): void {
    const { hooks, attachments } = this.#state;
    hooks.attach(true);
    attachments.takeOver();
    for (const generation of this.#pins.older()) this.#pins.removeGeneration(generation);
    this.#filling = false;
  }
}

function setStage({ maps, programs }: Loaded, stage: keyof typeof STAGE): void {
  mapUpdate(
    maps.get('stages')!,
    NUMBER.encode({ number: STAGE[stage] }),
    NUMBER.encode({ number: programs.get(stage)! }),
  );
}

/** User space reads a program array's slot as the program's id. */
function stageHolds({ maps, programs }: Loaded, stage: keyof typeof STAGE): boolean {
  const value = mapLookup(maps.get('stages')!, NUMBER.encode({ number: STAGE[stage] }), NUMBER.size);
  return value !== null && NUMBER.decode(value).number === programInfo(programs.get(stage)!).id;
}
