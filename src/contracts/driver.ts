/**
 * Network and IPAM drivers, after the Container Networking Model. A driver makes links and returns data; it never enters a
 * sandbox and never attaches a program, so that a remote driver can do the same over JSON: every argument and result here
 * survives `JSON.parse(JSON.stringify(x))`. All verbs are idempotent; deleting what is absent succeeds.
 */
export interface DriverNetwork {
  readonly id: string;
  readonly name: string;
  readonly subnets: readonly { readonly cidr: string; readonly gateway?: string }[];
  readonly internal: boolean;
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  readonly mtu?: number;
  /** VXLAN network identifier; networks of drivers with global scope have one. */
  readonly vni?: number;
  readonly options: Readonly<Record<string, string>>;
}

export interface DriverEndpoint {
  readonly id: string;
  readonly mac: string;
  /** With prefix length. */
  readonly addresses: readonly string[];
}

/** What `createNetwork` reports: the links that belong to it, for the firewall and for `inspect`. */
export interface NetworkResult {
  /** Host-side interface that carries the network (a bridge), when there is one. */
  readonly ifname?: string;
  readonly ifindex?: number;
  readonly mtu?: number;
  /** Whether traffic of endpoints crosses the host's stack, so that the host must route, isolate and translate it. */
  readonly routed: boolean;
  /** The device that reaches the network's other hosts: its forwarding entries are kept from outside. */
  readonly tunnel?: { readonly ifindex: number; readonly address: string; readonly port: number };
  /** What this call had to make or mend, in words; empty when all was as it should be. */
  readonly changed?: readonly string[];
}

export interface EndpointResult {
  /** Absent: nothing to move (host, none). */
  readonly link?: {
    /** The interface that goes into the sandbox: by its name and ifindex there once it is inside, in the host's namespace before. */
    readonly ifname: string;
    readonly ifindex: number;
    /** The other end, where identity and anti-spoofing are enforced. */
    readonly hostIfname?: string;
    readonly hostIfindex?: number;
    /** What goes to the sandbox is queued there by somebody's discipline (`tc qdisc … dev HOSTIFNAME root`). */
    readonly hostQueued?: boolean;
    readonly mtu: number;
  };
  /** What this call had to make or mend, in words. */
  readonly changed?: readonly string[];
}

export interface JoinResult {
  /** Prefix of the interface's name in the sandbox, `eth`. */
  readonly ifprefix: string;
  readonly gateways: readonly string[];
  /** Besides the connected routes and the default route. */
  readonly routes: readonly { readonly destination: string; readonly gateway?: string }[];
  /** Neighbours to programme permanently in the sandbox. */
  readonly neighbours: readonly { readonly ip: string; readonly mac: string }[];
  /** Addresses are set as host addresses (/32, /128) and gateways are on the link: nothing else is. */
  readonly pointToPoint?: boolean;
  /** The sandbox shares the host's own namespace (host driver). */
  readonly hostNamespace?: boolean;
}

export interface DriverCapabilities {
  readonly scope: 'local' | 'global';
  /** Networks of this driver have subnets from an IPAM driver. */
  readonly addresses: boolean;
  /** The MTU overhead in bytes by underlay family. */
  readonly overhead: { readonly ipv4: number; readonly ipv6: number };
}

export interface NetworkDriver {
  readonly name: string;
  capabilities(): DriverCapabilities;
  /** Refuses unknown or malformed options with `request.invalid`; no side effects. */
  validate(network: DriverNetwork): void;
  createNetwork(network: DriverNetwork): Promise<NetworkResult>;
  deleteNetwork(networkId: string): Promise<void>;
  /**
   * `netnsPath` is a hint: a local driver may make the sandbox's end there at once (saves a move), named as reported.
   * Called again for an endpoint that is whole it changes nothing and reports the same.
   */
  createEndpoint(network: DriverNetwork, endpoint: DriverEndpoint, netnsPath?: string): Promise<EndpointResult>;
  join(network: DriverNetwork, endpoint: DriverEndpoint): Promise<JoinResult>;
  leave(network: DriverNetwork, endpoint: DriverEndpoint): Promise<void>;
  deleteEndpoint(networkId: string, endpointId: string): Promise<void>;
}

/** Optional: the driver can list what it finds in the kernel under our mark, so that strangers of its own can be pruned. */
export interface Inventory {
  inventory(): Promise<{ readonly networks: readonly string[]; readonly endpoints: readonly string[] }>;
}
export const hasInventory = (driver: NetworkDriver): driver is NetworkDriver & Inventory => 'inventory' in driver;

/** Optional: deletes many endpoints' links in one go (a veth alone costs 15 ms of blocked kernel time). */
export interface BulkDelete {
  deleteEndpoints(ids: readonly string[]): Promise<void>;
}
export const hasBulkDelete = (driver: NetworkDriver): driver is NetworkDriver & BulkDelete =>
  'deleteEndpoints' in driver;

/** A module named in the setting `plugins` exports `create(host): NetworkDriver`. */
export interface DriverHost {
  /** Mark of this daemon's links and tables. */
  readonly instance: string;
  readonly kernel: import('./kernel.ts').Kernel;
  /** Where packets of global networks leave and enter this host. `network.underlay` while the host has no such address. */
  readonly underlay: () => Underlay;
}

/** A host's tunnel end point and the link that has its address. */
export interface Underlay {
  /** VTEP, without prefix length. */
  readonly address: string;
  /** UDP port of VXLAN. */
  readonly port: number;
  readonly ifname: string;
  readonly mtu: number;
}
export type DriverFactory = (host: DriverHost) => NetworkDriver;

/** The drivers of a daemon; an unknown name is `driver.unknown`. */
export interface DriverRegistry {
  get(name: string): NetworkDriver;
  names(): readonly string[];
}

export interface Pool {
  readonly id: string;
  readonly cidr: string;
}

export interface PoolRequest {
  readonly space: 'local' | 'global';
  readonly family: 4 | 6;
  /** Absent: the first automatic pool that overlaps nothing in `avoid` and no pool in use. */
  readonly cidr?: string;
  /** Prefix length of an automatic one, where that makes it smaller than the pools are cut by default. */
  readonly size?: number;
  /** Prefixes of the host's routes and other networks. */
  readonly avoid: readonly string[];
  /** Owner of the pool: a network id. Asked again by the same owner for the same prefix, the same pool is given. */
  readonly owner: string;
}

export interface AddressRequest {
  readonly pool: string;
  /** Endpoint, service or network id. */
  readonly owner: string;
  /** Exactly this one. Leased to the same owner already: given again. */
  readonly address?: string;
  /** Automatic addresses come from this part only. */
  readonly range?: string;
  /** Automatic addresses do not come from this part. */
  readonly except?: string;
  /** `vip`: from the upper end, away from endpoints. */
  readonly purpose?: 'endpoint' | 'gateway' | 'vip' | 'aux';
}

export interface Lease {
  readonly pool: string;
  /** Without prefix length. */
  readonly address: string;
  readonly owner: string;
  readonly purpose: string;
  /** Of the lease's record, where it is one of the store: who stores the owner checks that it still is at that. */
  readonly revision?: number;
}

export interface IpamDriver {
  readonly name: string;
  requestPool(request: PoolRequest): Promise<Pool>;
  releasePool(poolId: string): Promise<void>;
  /** Persisted by compare-and-swap before it is returned. */
  requestAddress(request: AddressRequest): Promise<Lease>;
  /** Only the owner's lease is released; absent succeeds. */
  releaseAddress(poolId: string, address: string, owner: string): Promise<void>;
  leases(poolId: string): Promise<readonly Lease[]>;
  pools(): Promise<readonly (Pool & { readonly owner: string })[]>;
}
