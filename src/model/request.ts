/** What callers PUT, by name; src/model/schema.ts validates it (kept apart so that the CLI does not load zod). */
import type { PublishRequest, ReplicaTemplate } from './container/request.ts';
import type { Obj, Status } from './object.ts';
import type { PlacementSpec } from './service/placement.ts';
import type { Protocol } from './service.ts';

export interface NetworkRequest {
  /** Default `bridge`. */
  readonly driver?: string;
  readonly ipam?: string;
  /** Absent or without cidr: automatic, one for each family asked for. */
  readonly subnets?: readonly {
    readonly cidr?: string;
    readonly gateway?: string;
    readonly range?: string;
    readonly aux?: Readonly<Record<string, string>>;
  }[];
  /** Default true. */
  readonly ipv4?: boolean;
  /** Default: true when an IPv6 subnet is given. */
  readonly ipv6?: boolean;
  readonly internal?: boolean;
  readonly mtu?: number;
  /** VXLAN network identifier of an overlay; absent: a free one. */
  readonly vni?: number;
  readonly options?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
}

/** Body of a change of a network's subnets: those that fill up get others beside them. One that is there already changes nothing. */
export interface SubnetsRequest {
  readonly add: NonNullable<NetworkRequest['subnets']>;
}

/** One network of a sandbox. */
export interface AttachmentRequest {
  /** Name or id. */
  readonly network: string;
  readonly ip?: string;
  readonly ip6?: string;
  readonly mac?: string;
  readonly aliases?: readonly string[];
  readonly allow?: readonly string[];
  readonly ifname?: string;
  readonly gwPriority?: number;
}

export interface SandboxRequest {
  /** Absent: `bridge` (own namespaces); none for `attach`. */
  readonly networks?: readonly AttachmentRequest[];
  /** Path of a namespace that somebody else made. */
  readonly attach?: string;
  readonly hostname?: string;
  readonly sysctls?: Readonly<Record<string, string>>;
  readonly dns?: {
    readonly servers?: readonly string[];
    readonly search?: readonly string[];
    readonly options?: readonly string[];
  };
  readonly labels?: Readonly<Record<string, string>>;
}

export type BackendRequest =
  | { readonly sandbox: string; readonly port?: number }
  | { readonly address: string; readonly port?: number };

export interface ServiceRequest {
  readonly network: string;
  /** VIPs, at most one of each family; absent: automatic. */
  readonly ips?: readonly string[];
  readonly ports?: readonly {
    readonly name?: string;
    readonly port: number;
    readonly target?: number;
    readonly protocol?: Protocol;
  }[];
  readonly backends?: readonly BackendRequest[];
  /** Containers to run and to balance over. */
  readonly replicas?: {
    readonly count: number;
    readonly container: ReplicaTemplate;
    readonly placement?: PlacementSpec;
  };
  readonly aliases?: readonly string[];
  /** Ports of the host that lead to the backends. */
  readonly publish?: readonly PublishRequest[];
  readonly labels?: Readonly<Record<string, string>>;
}

/** Body of a change of a service's backends: additions first, then removals; naming one twice changes nothing. */
export interface BackendsRequest {
  readonly add?: readonly BackendRequest[];
  readonly remove?: readonly BackendRequest[];
}

/** Body of POST /services/{name}/replicas: what is absent stays as it is. */
export interface ReplicasRequest {
  readonly count?: number;
  /** Name of the image that they are to run. */
  readonly image?: string;
  /** Nodes that replace replicas of an earlier image at once. */
  readonly updateParallelism?: number;
}

/** What the API answers: the object with its status on this node (null before a controller has seen it). */
export type View<O extends Obj = Obj> = O & { readonly status: Status | null };

/** Body of POST /v1/cluster/join. */
export interface JoinRequest {
  /** URL of the cluster's Redis, as the setting `store`. */
  readonly store: string;
  /** Default: the daemon's setting. */
  readonly clusterId?: string;
  readonly insecureStore?: boolean;
}
