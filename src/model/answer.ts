/** What the API answers besides objects, and what `watch` sends; src/model/schema.ts describes the same to OpenAPI. */
import type { NodeSession } from './node.ts';
import type { Condition, Kind, Obj, State, Status } from './object.ts';

export interface VersionAnswer {
  readonly version: string;
  /** The path prefix that this answer came by. */
  readonly api: 'v1';
  readonly node: string;
  readonly instance: string;
  /** Release of the running kernel, as `uname -r` prints it. */
  readonly kernel: string;
}

/** One part of the daemon that runs by itself: a controller, the name server, the data plane's audit … */
export interface ComponentHealth {
  readonly name: string;
  readonly state: 'starting' | 'ok' | 'failing';
  /** ISO 8601 of the last pass that ended without an error. */
  readonly lastSuccess?: string;
  /** Objects that wait for their turn. */
  readonly queued?: number;
  readonly error?: { readonly code: string; readonly message: string };
}

/** What the daemon knows of itself, without asking the store. */
export interface SystemReport {
  readonly instance: string;
  readonly kernel: string;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly components: readonly ComponentHealth[];
  /** What is wrong with the host as a whole, as opposed to one object. */
  readonly conditions: readonly Condition[];
}

export type Counts = Readonly<Record<Kind, Readonly<Record<State, number>>>>;

export interface StatusAnswer extends SystemReport {
  readonly version: string;
  readonly node: string;
  /** `starting` until every component has succeeded once, `degraded` while one fails, a condition is active or the store is away. */
  readonly state: 'starting' | 'ok' | 'degraded';
  readonly store: {
    readonly available: boolean;
    readonly incarnation: string;
    readonly revision?: number;
    readonly error?: { readonly code: string; readonly message: string };
  };
  /** Objects by kind and state on this node; absent while the store is away. */
  readonly counts?: Counts;
  /** Each node, and what this one knows of its session; absent while the store is away. */
  readonly nodes?: readonly (NodeSession & { readonly name: string })[];
}

/** One entry of the kernel's that is not as it should be: without `have` it is missing, without `want` it is surplus. */
export interface PeerDifference {
  /**
   * `forwarding`: MAC → tunnel end point of its host; `bridge`: MAC behind the tunnel's port; `broadcast`: a host that is sent broadcast;
   * `neighbour`: address → MAC.
   */
  readonly table: 'forwarding' | 'bridge' | 'broadcast' | 'neighbour';
  readonly key: string;
  readonly want?: string;
  readonly have?: string;
}

/** How one node's kernel stands to a network's endpoints. */
export interface PeerReport {
  /** Whether the network's tunnel is on this host: it is while the host has an endpoint on it. */
  readonly joined: boolean;
  /** Empty when the kernel has exactly what it should. */
  readonly differences: readonly PeerDifference[];
}

export interface Peer {
  readonly id: string;
  /** Of the endpoint. */
  readonly name: string;
  readonly node: string;
  /** Of the node. */
  readonly state: NodeSession['state'];
  /** Tunnel end point of the node. */
  readonly vtep?: string;
  readonly mac: string;
  readonly addresses: readonly string[];
}

export interface PeersAnswer extends PeerReport {
  readonly items: readonly Peer[];
}

/** What came of a host that takes its objects along to a cluster. */
export interface JoinAnswer {
  /** Where the cluster's store is, without a password. */
  readonly store: string;
  /** The name under which the objects are the host's. */
  readonly node: string;
  /** Records written there; 0: they were there already. */
  readonly records: number;
}

/** An object or the status of one has changed, or is gone (`null`). */
export type ObjectChange =
  | { readonly kind: Kind; readonly id: string; readonly object: Obj | null }
  | { readonly kind: Kind; readonly id: string; readonly node: string; readonly status: Status | null };

export type WatchMessage =
  | {
      readonly type: 'change';
      readonly revision: number;
      /** Who asked: `uid:0 pid:4242`. */
      readonly actor?: string;
      readonly changes: readonly ObjectChange[];
    }
  /** Changes up to this revision are not told one by one: list again. Always the first message of a watch without `from`. */
  | { readonly type: 'relist'; readonly revision: number };
