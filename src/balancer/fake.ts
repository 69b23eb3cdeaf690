/**
 * The data plane in memory, for unit tests and the simulation: the same answers to the same calls, and instead of sockets
 * `connect`, which says where a socket of a sandbox would go.
 */
import {
  type Dataplane,
  type DataplaneBackend,
  type DataplaneCapabilities,
  type DataplaneEndpoint,
  type DataplaneFrontend,
  type DataplaneSandbox,
  type DataplaneSegment,
  type Drift,
  type EndpointCounters,
  type FrontendProtocol,
  HOST_VIEW,
  type Repair,
  type SetCounters,
} from '../contracts/dataplane.ts';
import type { Namespace } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { canonicalAddress } from '../model/ip.ts';
import { checkBackends, checkFrontend, checkId, type FrontendKey, frontendName } from './input.ts';
import { DROP_REASONS } from './maps/layout.ts';

/** What outlives a data plane object, as pinned maps do: hand it to the next one. */
export class FakeState {
  readonly sandboxes = new Map<string, DataplaneSandbox>();
  readonly endpoints = new Map<string, DataplaneEndpoint>();
  readonly segments = new Map<string, DataplaneSegment>();
  /** By tunnel: the MACs behind it. */
  readonly stations = new Map<number, Set<string>>();
  readonly frontends = new Map<string, DataplaneFrontend>();
  readonly sets = new Map<number, readonly DataplaneBackend[]>();
  readonly counters = new Map<number, { connects: number; refused: number }>();
  readonly drops = new Map<string, Map<string, number>>();
  readonly connections = new Set<FakeConnection>();
  servesHost = false;
}

/** An open connection that came by a VIP. */
export interface FakeConnection {
  /** `Namespace.identity` of the client. */
  readonly namespace: string;
  readonly backend: DataplaneBackend;
  open: boolean;
}

export type FakeOutcome = FakeConnection | 'refused' | 'untouched';

export class FakeDataplane implements Dataplane {
  readonly state: FakeState;
  #started = false;
  #turn = 0;
  readonly #damage: Repair[] = [];

  constructor(state = new FakeState()) {
    this.state = state;
  }

  capabilities(): DataplaneCapabilities {
    return { form: 'ebpf', connectTime: true, antiSpoof: true, dnsHandover: true, tc: 'tcx' };
  }

  async start(): Promise<void> {
    if (this.#started) throw new SluiceError('internal', 'the data plane runs already');
    this.#started = true;
  }

  ensureSandbox(sandbox: DataplaneSandbox): void {
    this.#check();
    checkId('sandbox', sandbox.id);
    this.state.sandboxes.set(sandbox.id, sandbox);
  }

  removeSandbox(id: string): void {
    this.#check();
    this.state.sandboxes.delete(id);
  }

  serveHost(on: boolean): void {
    this.#check();
    this.state.servesHost = on;
  }

  ensureEndpoint(endpoint: DataplaneEndpoint): void {
    this.#check();
    checkId('endpoint', endpoint.id);
    this.state.endpoints.set(endpoint.id, endpoint);
    if (endpoint.tunnel) this.state.stations.get(endpoint.tunnel)?.delete(endpoint.mac);
  }

  removeEndpoint(id: string): void {
    this.#check();
    this.state.endpoints.delete(id);
    this.state.drops.delete(id);
  }

  ensureSegment(segment: DataplaneSegment): void {
    this.#check();
    checkId('network', segment.id);
    const before = this.state.segments.get(segment.id);
    if (before && before.tunnel !== segment.tunnel) this.removeSegment(segment.id);
    this.state.segments.set(segment.id, segment);
  }

  removeSegment(id: string): void {
    this.#check();
    const held = this.state.segments.get(id);
    if (held) this.state.stations.delete(held.tunnel);
    this.state.segments.delete(id);
  }

  syncStations(tunnel: number, macs: ReadonlySet<string>): void {
    this.#check();
    this.state.stations.delete(tunnel);
    this.changeStations(tunnel, { come: [...macs], gone: [] });
  }

  changeStations(
    tunnel: number,
    { come, gone }: { readonly come: readonly string[]; readonly gone: readonly string[] },
  ): void {
    this.#check();
    const own = new Set([...this.state.endpoints.values()].flatMap((one) => (one.tunnel === tunnel ? one.mac : [])));
    const behind = this.state.stations.get(tunnel) ?? new Set();
    this.state.stations.set(tunnel, behind);
    for (const mac of gone) behind.delete(mac);
    for (const mac of come) if (!own.has(mac)) behind.add(mac);
  }

  stations(tunnel: number): ReadonlySet<string> {
    this.#check();
    return new Set(this.state.stations.get(tunnel));
  }

  ensureBackends(set: number, backends: readonly DataplaneBackend[]): void {
    this.#check();
    checkBackends(set, backends);
    const byNumber = new Map(
      backends.map((backend) => [backend.number, { ...backend, address: canonicalAddress(backend.address) }]),
    );
    this.state.sets.set(set, [...byNumber.values()]);
    if (!this.state.counters.has(set)) this.state.counters.set(set, { connects: 0, refused: 0 });
  }

  removeBackends(set: number): void {
    this.#check();
    this.state.sets.delete(set);
    this.state.counters.delete(set);
  }

  ensureFrontend(frontend: DataplaneFrontend): void {
    this.#check();
    checkFrontend(frontend);
    const { view, address, port, protocol, set } = frontend;
    this.state.frontends.set(frontendName(frontend), {
      view,
      address: canonicalAddress(address),
      port,
      protocol: port === 0 ? undefined : protocol,
      set,
    });
  }

  removeFrontend(frontend: FrontendKey): void {
    this.#check();
    checkFrontend(frontend);
    this.state.frontends.delete(frontendName(frontend));
  }

  frontends(): DataplaneFrontend[] {
    this.#check();
    return [...this.state.frontends.values()];
  }

  backends(): ReadonlyMap<number, readonly DataplaneBackend[]> {
    this.#check();
    return new Map(this.state.sets);
  }

  prune(keep: Parameters<Dataplane['prune']>[0]): number {
    this.#check();
    const frontends = new Set(keep.frontends.map(frontendName));
    const drop = <K>(map: { keys(): Iterable<K> }, kept: ReadonlySet<K>, remove: (key: K) => void): number => {
      const gone = [...map.keys()].filter((key) => !kept.has(key));
      for (const key of gone) remove(key);
      return gone.length;
    };
    return (
      drop(this.state.sandboxes, keep.sandboxes, (id) => this.removeSandbox(id)) +
      drop(this.state.endpoints, keep.endpoints, (id) => this.removeEndpoint(id)) +
      drop(this.state.segments, keep.segments, (id) => this.removeSegment(id)) +
      drop(this.state.frontends, frontends, (name) => this.state.frontends.delete(name)) +
      drop(this.state.sets, keep.sets, (set) => this.removeBackends(set))
    );
  }

  connections(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    this.#check();
    return this.#open(backend, namespaces).length;
  }

  reset(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    this.#check();
    const found = this.#open(backend, namespaces);
    for (const connection of found) {
      connection.open = false;
      this.state.connections.delete(connection);
    }
    return found.length;
  }

  endpointCounters(id: string): EndpointCounters {
    this.#check();
    const counted = this.state.drops.get(id);
    return { drops: Object.fromEntries(DROP_REASONS.map((reason) => [reason, counted?.get(reason) ?? 0])) };
  }

  setCounters(set: number): SetCounters {
    this.#check();
    return { connects: 0, refused: 0, ...this.state.counters.get(set) };
  }

  audit(): Repair[] {
    this.#check();
    return this.#damage.splice(0);
  }

  compare(): Drift[] {
    this.#check();
    return this.#damage.map(({ object, id, what }) => ({ object, id, what, is: 'changed', look: '' }));
  }

  highest(): ReturnType<Dataplane['highest']> {
    this.#check();
    const { sandboxes, endpoints, segments, frontends, sets } = this.state;
    const top = (numbers: Iterable<number>): number => Math.max(0, ...numbers);
    const all = [...frontends.values()];
    return {
      attachment: top([...sandboxes.values(), ...endpoints.values(), ...segments.values()].map(({ number }) => number)),
      view: top([...sandboxes.values(), ...all].map(({ view }) => view)),
      set: top([...sets.keys(), ...all.map(({ set }) => set)]),
      backend: top([...sets.values()].flat().map(({ number }) => number)),
    };
  }

  off(): void {
    for (const part of Object.values(this.state)) if (typeof part === 'object') part.clear();
    this.state.servesHost = false;
    this.close();
  }

  close(): void {
    this.#started = false;
  }

  // ---- what tests see of the other side ----

  /** Where a new socket of the sandbox goes that asks for this address. Backends take turns. */
  connect(sandboxId: string, address: string, port: number, protocol: FrontendProtocol): FakeOutcome {
    const sandbox = this.state.sandboxes.get(sandboxId);
    if (!sandbox) return 'untouched';
    return this.#draw(sandbox.view, sandbox.namespace.identity, { address, port, protocol });
  }

  /** The same of the host itself. */
  connectOnHost(host: Namespace, address: string, port: number, protocol: FrontendProtocol): FakeOutcome {
    if (!this.state.servesHost) return 'untouched';
    return this.#draw(HOST_VIEW, host.identity, { address, port, protocol });
  }

  #draw(
    view: number,
    namespace: string,
    { address, port, protocol }: { address: string; port: number; protocol: FrontendProtocol },
  ): FakeOutcome {
    const exact = this.state.frontends.get(frontendName({ view, address, port, protocol }));
    const frontend = exact ?? this.state.frontends.get(frontendName({ view, address, port: 0 }));
    if (!frontend) return 'untouched';
    const backends = this.state.sets.get(frontend.set) ?? [];
    const counters = this.state.counters.get(frontend.set);
    if (backends.length === 0) {
      if (counters) counters.refused++;
      return 'refused';
    }
    if (counters) counters.connects++;
    const chosen = backends[this.#turn++ % backends.length]!;
    const connection: FakeConnection = {
      namespace,
      backend: { ...chosen, port: chosen.port || port },
      open: true,
    };
    this.state.connections.add(connection);
    return connection;
  }

  /** A frame that the endpoint may not send. */
  drop(endpointId: string, reason: (typeof DROP_REASONS)[number]): void {
    const counted = this.state.drops.get(endpointId) ?? new Map<string, number>();
    this.state.drops.set(endpointId, counted.set(reason, (counted.get(reason) ?? 0) + 1));
  }

  /** The next audit reports it as put right. */
  damage(repair: Repair): void {
    this.#damage.push(repair);
  }

  #open({ number }: DataplaneBackend, namespaces: readonly Namespace[]): FakeConnection[] {
    const within = new Set(namespaces.map(({ identity }) => identity));
    return [...this.state.connections].filter(
      ({ backend, namespace, open }) => open && backend.number === number && within.has(namespace),
    );
  }

  #check(): void {
    if (!this.#started) throw new SluiceError('internal', 'the data plane is not started');
  }
}

export const createFakeDataplane = (state?: FakeState): FakeDataplane => new FakeDataplane(state);
