import type { ReplicaOf } from './container.ts';
import type { Obj } from './object.ts';

export interface EndpointSpec {
  /** Network id. */
  readonly network: string;
  /** Sandbox id. */
  readonly sandbox: string;
  /** Address with prefix length, `10.20.0.2/24`; at most one of each family. */
  readonly addresses: readonly string[];
  /** Lower-case, colons. */
  readonly mac: string;
  /** Name of the interface inside the sandbox; absent: the first free `ethN`. */
  readonly ifname?: string;
  /** Further DNS names on this network. */
  readonly aliases: readonly string[];
  /** CIDRs that this endpoint may also send from (`--allow-address`). */
  readonly allow: readonly string[];
  /** The endpoint with the highest value gives the sandbox its default route. */
  readonly gwPriority: number;
  /** Whose replica is behind it. */
  readonly replica?: ReplicaOf;
  /** Of a replica on a network across hosts: whether it is balanced over, for nodes that do not know its container. Absent: not yet. */
  readonly serving?: boolean;
  /** An address of it is another's, who has it longer (src/cluster/replica/assertion.ts): it is taken down and stays so. */
  readonly contested?: Contest;
}

export interface Contest {
  readonly address: string;
  /** In words: whose it is. */
  readonly by: string;
}

export type Endpoint = Obj<'endpoint', EndpointSpec>;

/** `Status.detail` of an endpoint that is ready. */
export interface EndpointDetail {
  readonly hostIfname?: string;
  readonly hostIfindex?: number;
  readonly ifname?: string;
  readonly mtu?: number;
}
