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
  /** Automatic VIPs come from this part, automatic addresses of endpoints do not; absent: VIPs from the upper end of the whole. */
  readonly vips?: string;
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
  /** VXLAN network identifier of a global network, unique in the cluster. */
  readonly vni?: number;
  /** Driver options (`-o key=value`). Known to all drivers: `spoof=allow`. */
  readonly options: Readonly<Record<string, string>>;
}

export type Network = Obj<'network', NetworkSpec>;

/** Names of the networks that exist at start and cannot be removed. */
export const BUILTIN_NETWORKS = ['bridge', 'host', 'none'] as const;

/** VNIs that are given without being asked for: below lie those that people choose by hand (RFC 7348: 24 bits). */
export const VNI_AUTOMATIC = { min: 4096, max: 0xff_fffe } as const;
/** No network's: hosts test with it whether their checksums arrive as they were meant (src/controller/offload). */
export const PROBE_VNI = 0xff_ffff;

/** Ethernet's own, where no underlay says otherwise. */
export const MTU_DEFAULT = 1500;
/** RFC 8200: the least that IPv6 works with. */
export const MTU_MIN_IPV6 = 1280;
/** RFC 791. */
export const MTU_MIN_IPV4 = 68;

/** MTU of a network: what was asked for, else the underlay's less the overhead. */
export function mtuBudget(asked: number | undefined, underlay: number | undefined, overhead = 0): number {
  return asked ?? (underlay ?? MTU_DEFAULT) - overhead;
}
