/**
 * The typed HTTP client: the CLI's, and exported to users.
 *
 *     const sluice = createClient();
 *     await sluice.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] }, { waitMs: 30_000 });
 *     for await (const message of sluice.watch({ kinds: ['endpoint'] })) …
 *
 * Every method rejects with a `SluiceError`: the daemon's own code, or `daemon.unreachable`.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { JoinAnswer, PeersAnswer, StatusAnswer, VersionAnswer, WatchMessage } from '../model/answer.ts';
import type { ContainerRequest, VolumeRequest } from '../model/container/request.ts';
import type { Volume } from '../model/container/volume.ts';
import type { Container } from '../model/container.ts';
import type { DiffAnswer, DiffQuery } from '../model/diagnosis/diff.ts';
import type { TraceAnswer, TraceQuery } from '../model/diagnosis/trace.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { Network } from '../model/network.ts';
import type { NodeRequest, NodeView } from '../model/node.ts';
import type { Kind } from '../model/object.ts';
import type {
  AttachmentRequest,
  BackendsRequest,
  JoinRequest,
  NetworkRequest,
  ReplicasRequest,
  SandboxRequest,
  ServiceRequest,
  SubnetsRequest,
  View,
} from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { AssignmentAnswer } from '../model/service/placement.ts';
import type { Service } from '../model/service.ts';
import { type ContainerClient, containerClient, type VolumeClient, volumeClient } from './container/container.ts';
import { type Caller, createCaller } from './http.ts';
import { type ImageClient, imageClient } from './image.ts';

export interface ClientOptions {
  /** `unix:///path`, `/path`, or `http://host:port`. Default: SLUICE_HOST, else the socket of a daemon with default settings. */
  readonly host?: string;
  /** Path of the unix socket; the same as `host: 'unix://' + socket`. */
  readonly socket?: string;
  /** Milliseconds that an answer may take, besides what `waitMs` asks for. Default 35 000: a little more than the daemon's own limit. */
  readonly timeoutMs?: number;
  readonly clock?: Clock;
}
export interface WaitOptions {
  /** Hold the answer until the change is programmed (or what is removed is gone), at most so long; fails with `wait.timeout`. Default 0: not at all. */
  readonly waitMs?: number;
}
export interface PutOptions extends WaitOptions {
  /** Only create: `object.exists` when it is there. */
  readonly create?: boolean;
}
export interface WatchOptions {
  /** Default all. */
  readonly kinds?: readonly Kind[];
  /** Revision after which to begin; absent: the first message is `relist`. */
  readonly from?: number;
  /** Ends the iteration without an error. */
  readonly signal?: AbortSignal;
}
export const DEFAULT_SOCKET = '/run/sluice/sluice.sock';

export interface Client {
  /** Where the daemon is asked: `unix:///run/sluice/sluice.sock`. */
  readonly host: string;
  readonly networks: {
    list(): Promise<readonly View<Network>[]>;
    /** `ref` everywhere: a name, an id, or the beginning of an id. */
    get(ref: string): Promise<View<Network>>;
    /** Its endpoints on all nodes, and what the node that is asked has of them otherwise than it should. */
    peers(ref: string): Promise<PeersAnswer>;
    put(name: string, request: NetworkRequest, options?: PutOptions): Promise<View<Network>>;
    remove(ref: string, options?: WaitOptions): Promise<View<Network>>;
    addSubnets(ref: string, add: SubnetsRequest['add'], options?: WaitOptions): Promise<View<Network>>;
    prune(options?: WaitOptions): Promise<readonly View<Network>[]>;
  };
  readonly sandboxes: {
    list(): Promise<readonly View<Sandbox>[]>;
    get(ref: string): Promise<View<Sandbox>>;
    put(name: string, request: SandboxRequest, options?: PutOptions): Promise<View<Sandbox>>;
    remove(ref: string, options?: WaitOptions & { readonly force?: boolean }): Promise<View<Sandbox>>;
    connect(ref: string, request: AttachmentRequest, options?: WaitOptions): Promise<View<Endpoint>>;
    disconnect(ref: string, network: string, options?: WaitOptions): Promise<View<Endpoint>>;
  };
  readonly endpoints: {
    list(): Promise<readonly View<Endpoint>[]>;
    get(ref: string): Promise<View<Endpoint>>;
  };
  readonly services: {
    list(): Promise<readonly View<Service>[]>;
    get(ref: string): Promise<View<Service>>;
    put(name: string, request: ServiceRequest, options?: PutOptions): Promise<View<Service>>;
    update(ref: string, request: BackendsRequest, options?: WaitOptions): Promise<View<Service>>;
    /** How many replicas, of which image. `service.noreplicas`. */
    /** Which nodes are to run how many of its replicas. */
    assignments(ref: string): Promise<readonly AssignmentAnswer[]>;
    scale(ref: string, request: ReplicasRequest, options?: WaitOptions): Promise<View<Service>>;
    remove(ref: string, options?: WaitOptions): Promise<View<Service>>;
  };
  readonly containers: ContainerClient;
  readonly volumes: VolumeClient;
  readonly nodes: {
    list(): Promise<readonly NodeView[]>;
    get(ref: string): Promise<NodeView>;
    update(ref: string, request: NodeRequest): Promise<NodeView>;
    /** `object.inuse` unless it is lost. */
    remove(ref: string): Promise<NodeView>;
  };
  /** Takes the host's objects along to a cluster; the daemon ends then. `cluster.conflict`, `cluster.member`. */
  readonly cluster: { join(request: JoinRequest): Promise<JoinAnswer> };
  readonly images: ImageClient;
  /** How the kernel of the node that is asked differs from what should be. */
  diff(query?: DiffQuery): Promise<DiffAnswer>;
  /** The way from a sandbox of that node to a name or address, step by step. */
  trace(query: TraceQuery): Promise<TraceAnswer>;
  version(): Promise<VersionAnswer>;
  status(): Promise<StatusAnswer>;
  /** Prometheus text. */
  metrics(): Promise<string>;
  openapi(): Promise<Record<string, unknown>>;
  /** Endless; comes back by itself after a lost connection and goes on where it was. Rejects only when the daemon refuses, or is not there to begin with. */
  watch(options?: WatchOptions): AsyncIterable<WatchMessage>;
}

const at = (...words: readonly string[]): string => `/v1/${words.map(encodeURIComponent).join('/')}`;

/** GET list, GET, PUT and DELETE of one kind of object. */
function resource<V, R>(call: Caller, noun: string) {
  return {
    list: async () => (await call.json<{ readonly items: readonly V[] }>('GET', at(noun))).items,
    get: (ref: string) => call.json<V>('GET', at(noun, ref)),
    put: (name: string, request: R, { waitMs, create }: PutOptions = {}) =>
      call.json<V>('PUT', at(noun, name), {
        waitMs,
        body: request,
        headers: create ? { 'if-none-match': '*' } : undefined,
      }),
    remove: (ref: string, { waitMs, ...query }: WaitOptions & { readonly force?: boolean } = {}) =>
      call.json<V>('DELETE', at(noun, ref), { waitMs, query }),
  };
}

/** Does not connect yet. */
export function createClient(options: ClientOptions = {}): Client {
  const host = options.socket ? `unix://${options.socket}` : (options.host ?? process.env.SLUICE_HOST);
  const clock = options.clock ?? systemClock;
  const call = createCaller(host || `unix://${DEFAULT_SOCKET}`, options.timeoutMs ?? 35_000, clock);
  return {
    host: call.host,
    networks: {
      ...resource<View<Network>, NetworkRequest>(call, 'networks'),
      peers: (ref) => call.json('GET', at('networks', ref, 'peers')),
      addSubnets: (ref, add, { waitMs } = {}) =>
        call.json('POST', at('networks', ref, 'subnets'), { waitMs, body: { add } satisfies SubnetsRequest }),
      prune: async ({ waitMs } = {}) => {
        const answer = await call.json<{ readonly items: readonly View<Network>[] }>('POST', at('networks', 'prune'), {
          waitMs,
        });
        return answer.items;
      },
    },
    sandboxes: {
      ...resource<View<Sandbox>, SandboxRequest>(call, 'sandboxes'),
      connect: (ref, { network, ...body }, { waitMs } = {}) =>
        call.json('PUT', at('sandboxes', ref, 'networks', network), { waitMs, body }),
      disconnect: (ref, network, { waitMs } = {}) =>
        call.json('DELETE', at('sandboxes', ref, 'networks', network), { waitMs }),
    },
    endpoints: {
      list: async () => (await call.json<{ readonly items: readonly View<Endpoint>[] }>('GET', at('endpoints'))).items,
      get: (ref) => call.json('GET', at('endpoints', ref)),
    },
    services: {
      ...resource<View<Service>, ServiceRequest>(call, 'services'),
      update: (ref, body, { waitMs } = {}) => call.json('POST', at('services', ref, 'backends'), { waitMs, body }),
      assignments: async (ref) =>
        (await call.json<{ readonly items: readonly AssignmentAnswer[] }>('GET', at('services', ref, 'assignments')))
          .items,
      scale: (ref, body, { waitMs } = {}) => call.json('POST', at('services', ref, 'replicas'), { waitMs, body }),
    },
    containers: containerClient(call, resource<View<Container>, ContainerRequest>(call, 'containers'), clock),
    volumes: volumeClient(call, resource<View<Volume>, VolumeRequest>(call, 'volumes')),
    nodes: {
      list: async () => (await call.json<{ readonly items: readonly NodeView[] }>('GET', at('nodes'))).items,
      get: (ref) => call.json('GET', at('nodes', ref)),
      update: (ref, body) => call.json('PATCH', at('nodes', ref), { body }),
      remove: (ref) => call.json('DELETE', at('nodes', ref)),
    },
    cluster: { join: (body) => call.json('POST', at('cluster', 'join'), { body }) },
    images: imageClient(call, clock),
    diff: (query = {}) => call.json('GET', at('diff'), { query: { ...query } }),
    trace: (query) => call.json('GET', at('trace'), { query: { ...query } }),
    version: () => call.json('GET', at('version')),
    status: () => call.json('GET', at('status')),
    metrics: () => call.text('GET', '/metrics'),
    openapi: () => call.json('GET', at('openapi.json')),
    async *watch(watchOptions = {}) {
      const { follow } = await import('./stream.ts');
      yield* follow(call, clock, watchOptions);
    },
  };
}
