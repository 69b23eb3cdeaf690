import type { Obj } from './object.ts';

export interface SubnetSpec {
  /** `10.20.0.0/24`, `fd00:20::/64`: masked, canonical text. */
  readonly cidr: string;
  /** Address of the bridge, absent for an internal network without one. */
  readonly gateway?: string;
  /** Automatic addresses come from this part only. */
  readonly range?: string;
  /** Reserved addresses by name (`--aux-address`). */
  readonly aux?: Readonly<Record<string, string>>;
  /** Id of the pool at the IPAM driver. */
  readonly pool: string;
}

export interface NetworkSpec {
  readonly driver: string;
  readonly scope: 'local' | 'global';
  readonly ipam: string;
  /** At most one IPv4 subnet and one IPv6 subnet on a bridge; an overlay may have several of each. Empty for host and none. */
  readonly subnets: readonly SubnetSpec[];
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** No way in or out but between its own endpoints. */
  readonly internal: boolean;
  /** Bytes; absent: the underlay's, less the driver's overhead. */
  readonly mtu?: number;
  /** Driver options (`-o key=value`). Known to all drivers: `spoof=allow`. */
  readonly options: Readonly<Record<string, string>>;
}

export type Network = Obj<'network', NetworkSpec>;

/** Names of the networks that exist at start and cannot be removed. */
export const BUILTIN_NETWORKS = ['bridge', 'host', 'none'] as const;
