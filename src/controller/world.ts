/**
 * The desired state in memory: a list of the store followed by its watches, indexed as the controllers ask. Listeners hear of
 * each object that came, changed or went; after a lost stretch of the log everything is listed again and differences are told.
 *
 * On a store that several nodes share it holds what concerns this one: what is its own or the cluster's, and the endpoints that other nodes
 * have on global networks on which it has one itself. It follows those networks' topics while that is so.
 */
import type { Clock } from '../clock.ts';
import type { Entry, ListOptions, Store, WatchEvent } from '../contracts/store.ts';
import { toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Volume } from '../model/container/volume.ts';
import type { Container } from '../model/container.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { clusterTopic, networkTopic, nodeTopic, objectPrefix } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { Node, NodeState } from '../model/node.ts';
import type { Kind, Obj } from '../model/object.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { Assignment } from '../model/service/placement.ts';
import type { Service } from '../model/service.ts';

/** The kinds that controllers on a node act on. */
export const WATCHED = [
  'node',
  'network',
  'sandbox',
  'endpoint',
  'service',
  'container',
  'volume',
  'assignment',
] as const satisfies readonly Kind[];
export type WatchedKind = (typeof WATCHED)[number];
/** Those of which a loop looks at one object at a time. */
export type ReconciledKind = Exclude<WatchedKind, 'node' | 'assignment'>;

interface ObjectOf {
  node: Node;
  network: Network;
  sandbox: Sandbox;
  endpoint: Endpoint;
  service: Service;
  container: Container;
  volume: Volume;
  assignment: Assignment;
}

/** Of a record that is no object: a question, an answer. */
export type RecordListener = (key: string, value: unknown | null, revision: number) => void;

export type WorldListener = (kind: WatchedKind, id: string, now: Obj | undefined, before: Obj | undefined) => void;

/** Pause before a watch that broke is begun anew, milliseconds. */
const REWATCH_MS = 500;

export class World {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #node: string;
  readonly #logger: Logger;
  readonly #shared: boolean;
  readonly #objects: { [K in WatchedKind]: Map<string, ObjectOf[K]> } = {
    node: new Map(),
    network: new Map(),
    sandbox: new Map(),
    endpoint: new Map(),
    service: new Map(),
    container: new Map(),
    volume: new Map(),
    assignment: new Map(),
  };
  readonly #nodeIds = new Map<string, string>();
  #states: ReadonlyMap<string, NodeState> = new Map();
  /** Endpoint ids by sandbox and by network. */
  readonly #bySandbox = new Map<string, Set<string>>();
  readonly #byNetwork = new Map<string, Set<string>>();
  /** Endpoints of other nodes by network, for the global networks of which this node has an endpoint. */
  readonly #peers = new Map<string, Map<string, Endpoint>>();
  /** Ids of those by sandbox. */
  readonly #peersBySandbox = new Map<string, Set<string>>();
  /** Container id by sandbox. */
  readonly #containers = new Map<string, string>();
  /** Container ids by the service whose replicas they are. */
  readonly #replicas = new Map<string, Set<string>>();
  readonly #listeners: WorldListener[] = [];
  readonly #recordListeners: RecordListener[] = [];
  readonly #stop = new AbortController();
  /** Ends the watch of the moment: other topics are to be followed. */
  #turn = new AbortController();
  #revision = 0;

  /** `shared`: other nodes write to the store, too. */
  constructor(options: { store: Store; clock: Clock; node: string; logger: Logger; shared?: boolean }) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#node = options.node;
    this.#logger = options.logger;
    this.#shared = options.shared ?? false;
  }

  get nodes(): ReadonlyMap<string, Node> {
    return this.#objects.node;
  }
  get networks(): ReadonlyMap<string, Network> {
    return this.#objects.network;
  }
  get sandboxes(): ReadonlyMap<string, Sandbox> {
    return this.#objects.sandbox;
  }
  get endpoints(): ReadonlyMap<string, Endpoint> {
    return this.#objects.endpoint;
  }
  get services(): ReadonlyMap<string, Service> {
    return this.#objects.service;
  }
  get containers(): ReadonlyMap<string, Container> {
    return this.#objects.container;
  }
  get volumes(): ReadonlyMap<string, Volume> {
    return this.#objects.volume;
  }
  /** Objects of a kind, by id. */
  all(kind: ReconciledKind): ReadonlyMap<string, Obj> {
    return this.#objects[kind];
  }
  /** Store revision up to which this is complete. */
  get revision(): number {
    return this.#revision;
  }

  /** Endpoints of a sandbox, in a stable order; those being removed included. */
  endpointsOfSandbox(id: string): Endpoint[] {
    return this.#pick(this.#bySandbox.get(id));
  }

  endpointsOfNetwork(id: string): Endpoint[] {
    return this.#pick(this.#byNetwork.get(id));
  }

  /** Whether this node has an endpoint on the network, be it one that is being removed. */
  takesPart(network: string): boolean {
    return this.#byNetwork.has(network);
  }

  /** Endpoints that other nodes have on the network; none of one on which this node has none itself. */
  peersOfNetwork(id: string): ReadonlyMap<string, Endpoint> {
    return this.#peers.get(id) ?? NO_PEERS;
  }

  /** The endpoint that another node's sandbox has on the network. */
  peerOfSandbox(network: string, sandbox: string): Endpoint | undefined {
    const peers = this.peersOfNetwork(network);
    for (const id of this.#peersBySandbox.get(sandbox) ?? []) if (peers.has(id)) return peers.get(id);
    return undefined;
  }

  /** The node that calls itself so, as owners are written. */
  nodeNamed(name: string): Node | undefined {
    const id = this.#nodeIds.get(name);
    return id === undefined ? undefined : this.#objects.node.get(id);
  }

  /** What has become of the other nodes; listeners are told of each that is lost now, or is so no more: nothing follows from a session's end alone. */
  judge(states: ReadonlyMap<string, NodeState>): void {
    const before = this.#states;
    this.#states = states;
    for (const node of this.#objects.node.values())
      if ((states.get(node.name) === 'lost') !== (before.get(node.name) === 'lost'))
        for (const listener of this.#listeners) listener('node', node.id, node, node);
  }

  /** Whether what runs on that node is to be named and balanced over: not when its host is lost. */
  serves(owner: string | null): boolean {
    return owner === null || this.#states.get(owner) !== 'lost';
  }

  /** Whether new connections may go there: not to a node that is drained, either. */
  takesConnections(owner: string | null): boolean {
    return this.serves(owner) && (owner === null || this.nodeNamed(owner)?.spec.availability !== 'drained');
  }

  /** Whether other nodes write to the store, too. */
  get isShared(): boolean {
    return this.#shared;
  }

  /** Whether the object is this node's to act on, or the cluster's. */
  isOwn({ owner }: Pick<Obj, 'owner'>): boolean {
    return !this.#shared || owner === null || owner === this.#node;
  }

  /** Global networks on which this node has an endpoint. */
  joined(): string[] {
    return [...this.#byNetwork.keys()].filter((id) => this.#objects.network.get(id)?.spec.scope === 'global').sort();
  }

  /** Networks on which that node has endpoints, as far as this node knows them. */
  networksOf(node: string): string[] {
    const has = (endpoints: Iterable<Endpoint>): boolean => {
      for (const { owner } of endpoints) if (owner === node) return true;
      return false;
    };
    const own = [...this.#byNetwork.keys()].filter((id) => has(this.#pick(this.#byNetwork.get(id))));
    const theirs = [...this.#peers].flatMap(([id, peers]) => (has(peers.values()) ? [id] : []));
    return [...new Set([...own, ...theirs])];
  }

  /** The container that the sandbox belongs to. */
  containerOfSandbox(id: string): Container | undefined {
    return this.#objects.container.get(this.#containers.get(id) ?? '');
  }

  /** Containers of this node that are replicas of the service; those being removed included. */
  replicasOf(service: string): Container[] {
    return [...(this.#replicas.get(service) ?? [])].flatMap((id) => this.#objects.container.get(id) ?? []);
  }

  /** How many replicas of the service this node is to run. */
  assigned(service: string): number {
    let count = 0;
    for (const { spec } of this.#objects.assignment.values()) if (spec.service === service) count += spec.count;
    return count;
  }

  /** Whether this node may replace replicas of the service that are of earlier versions than this one. */
  mayRenew(service: string, version: number): boolean {
    return [...this.#objects.assignment.values()].some(
      ({ spec }) => spec.service === service && (spec.renew === undefined || spec.renew >= version),
    );
  }

  /** Services that have, or had, replicas here: some may be gone. */
  replicated(): string[] {
    return [...this.#replicas.keys()];
  }

  onChange(listener: WorldListener): void {
    this.#listeners.push(listener);
  }

  /** Told of what else the topics announce, as it comes. */
  onRecord(listener: RecordListener): void {
    this.#recordListeners.push(listener);
  }

  /** Lists once (rejects when that fails), then follows in the background until `stop`. */
  async start(): Promise<void> {
    await this.#list({ concerning: this.#node });
    void this.#follow();
  }

  stop(): void {
    this.#stop.abort();
    this.#turn.abort();
  }

  #pick(ids: ReadonlySet<string> | undefined): Endpoint[] {
    const found: Endpoint[] = [];
    for (const id of ids ?? []) {
      const endpoint = this.#objects.endpoint.get(id);
      if (endpoint) found.push(endpoint);
    }
    return found.sort((a, b) =>
      a.createdAt === b.createdAt ? (a.id < b.id ? -1 : 1) : a.createdAt < b.createdAt ? -1 : 1,
    );
  }

  /** `options`: at the start what the store has at hand will do, since the log is followed from there. */
  async #list(options?: ListOptions): Promise<void> {
    let oldest = Number.POSITIVE_INFINITY;
    for (const kind of WATCHED) {
      const { items, revision } = await this.#store.list<Obj>(objectPrefix(kind), options);
      oldest = Math.min(oldest, revision);
      const objects = items.map((item): Obj => ({ ...item.value, revision: item.revision }));
      // What is ours first: by that it is known whose peers concern us.
      const own = new Map(objects.filter((object) => this.#concerns(object)).map((object) => [object.id, object]));
      for (const [id, object] of own) this.#apply(kind, id, object);
      for (const id of [...this.#objects[kind].keys()]) if (!own.has(id)) this.#apply(kind, id, undefined);
      if (kind === 'endpoint' && this.#shared)
        for (const id of this.joined()) this.#setPeers(id, objects as Endpoint[]);
    }
    this.#revision = oldest;
  }

  /** Everything but what other nodes have for themselves. */
  #concerns(object: Obj): boolean {
    return object.kind === 'node' || this.isOwn(object);
  }

  #topics(): string[] {
    return [clusterTopic, nodeTopic(this.#node), ...[...this.#peers.keys()].sort().map(networkTopic)];
  }

  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      this.#turn = new AbortController();
      const topics = this.#topics();
      try {
        for await (const event of this.#store.watch(topics, this.#revision, this.#turn.signal)) {
          await this.#take(event);
          if (!this.#shared) continue;
          await this.#joinAndLeave();
          if (this.#topics().join() !== topics.join()) break;
        }
      } catch (error) {
        this.#logger.warn({ topics, err: toSluiceError(error) }, 'watch broke, beginning anew');
        await this.#clock.sleep(REWATCH_MS, signal).catch(() => undefined);
      }
    }
  }

  /** Takes up the peers of networks that this node has come to, and forgets those of networks that it has left. */
  async #joinAndLeave(): Promise<void> {
    const joined = this.joined();
    const left = [...this.#peers.keys()].filter((id) => !joined.includes(id));
    const come = joined.filter((id) => !this.#peers.has(id));
    for (const id of left) {
      for (const peer of [...this.peersOfNetwork(id).keys()]) this.#applyPeer(id, peer, undefined);
      this.#peers.delete(id);
    }
    if (come.length > 0) {
      // Newer than what was followed: the log from there on tells again what is known, which changes nothing.
      const { items } = await this.#store.list<Endpoint>(objectPrefix('endpoint'));
      const endpoints = items.map((item): Endpoint => ({ ...item.value, revision: item.revision }));
      for (const id of come) this.#setPeers(id, endpoints);
    }
  }

  #setPeers(network: string, all: readonly Endpoint[]): void {
    const now = all.filter(({ spec, owner }) => spec.network === network && !this.isOwn({ owner }));
    if (!this.#peers.has(network)) this.#peers.set(network, new Map());
    const ids = new Set(now.map(({ id }) => id));
    for (const id of [...this.peersOfNetwork(network).keys()])
      if (!ids.has(id)) this.#applyPeer(network, id, undefined);
    for (const peer of now) this.#applyPeer(network, peer.id, peer);
  }

  #applyPeer(network: string, id: string, now: Endpoint | undefined): void {
    const peers = this.#peers.get(network);
    const before = peers?.get(id);
    // Its address is another's.
    if (now?.spec.contested) now = undefined;
    if (!peers || before?.revision === now?.revision) return;
    if (now) peers.set(id, now);
    else peers.delete(id);
    (now ? add : drop)(this.#peersBySandbox, (now ?? before!).spec.sandbox, id);
    for (const listener of this.#listeners) listener('endpoint', id, now, before);
  }

  async #take(event: WatchEvent): Promise<void> {
    if (event.type === 'relist') return this.#list();
    // After a list within the watch: what that knew already, perhaps the end of what is told of here.
    if (event.change.revision <= this.#revision) return;
    for (const entry of event.change.entries) this.#takeEntry(entry);
    this.#revision = Math.max(this.#revision, event.change.revision);
  }

  #takeEntry(entry: Pick<Entry, 'key' | 'revision'> & { value: unknown | null }): void {
    const slash = entry.key.indexOf('/');
    const kind = WATCHED.find((name) => name === entry.key.slice(0, slash));
    if (!kind) {
      for (const listener of this.#recordListeners) listener(entry.key, entry.value, entry.revision);
      return;
    }
    const id = entry.key.slice(slash + 1);
    const now = entry.value === null ? undefined : ({ ...(entry.value as Obj), revision: entry.revision } as Obj);
    const peers = kind === 'endpoint' ? this.#peersWith(id, now as Endpoint | undefined) : undefined;
    if (peers !== undefined) {
      const known = this.#peers.get(peers)?.get(id);
      if (!known || known.revision < entry.revision) this.#applyPeer(peers, id, now as Endpoint | undefined);
      return;
    }
    const known = this.#objects[kind].get(id);
    // A list may have been newer than the log that follows it.
    if (known && known.revision >= entry.revision) return;
    if (now && !this.#concerns(now)) return;
    this.#apply(kind, id, now);
  }

  /** The network whose peer the endpoint is (or was, of one that is gone). */
  #peersWith(id: string, now: Endpoint | undefined): string | undefined {
    if (now) return this.isOwn(now) ? undefined : now.spec.network;
    for (const [network, peers] of this.#peers) if (peers.has(id)) return network;
    return undefined;
  }

  #apply(kind: WatchedKind, id: string, now: Obj | undefined): void {
    const objects = this.#objects[kind] as Map<string, Obj>;
    const before = objects.get(id);
    if (before?.revision === now?.revision) return;
    if (now) objects.set(id, now);
    else objects.delete(id);
    if (kind === 'node') this.#nodeIds.set((now ?? before!).name, id);
    if (kind === 'endpoint') this.#index(before as Endpoint | undefined, now as Endpoint | undefined);
    if (kind === 'container') {
      const { sandbox, replica } = ((now ?? before) as Container).spec;
      if (now) this.#containers.set(sandbox, id);
      else this.#containers.delete(sandbox);
      if (replica) (now ? add : drop)(this.#replicas, replica.service, id);
    }
    for (const listener of this.#listeners) listener(kind, id, now, before);
  }

  #index(before: Endpoint | undefined, now: Endpoint | undefined): void {
    if (before && !now) {
      drop(this.#bySandbox, before.spec.sandbox, before.id);
      drop(this.#byNetwork, before.spec.network, before.id);
    }
    if (now && !before) {
      add(this.#bySandbox, now.spec.sandbox, now.id);
      add(this.#byNetwork, now.spec.network, now.id);
    }
  }
}

const NO_PEERS: ReadonlyMap<string, Endpoint> = new Map();

function add(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids) ids.add(id);
  else index.set(key, new Set([id]));
}

function drop(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}
