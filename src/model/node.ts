import type { Obj } from './object.ts';
import type { View } from './request.ts';

/** What a node's daemon finds on its host. */
export interface HostSpec {
  /** Address under which other nodes reach this one. */
  readonly address: string;
  /** Where its overlay packets leave and enter; absent: it takes part in no overlay. */
  readonly vtep?: string;
  /** UDP port of VXLAN. */
  readonly port: number;
  /** Of the interface that has the tunnel end point, in bytes: what is larger does not reach it. */
  readonly mtu?: number;
  /** Prefixes to which the host has routes, but those of its own networks: no automatic subnet of the cluster may overlap them. */
  readonly hostRoutes: readonly string[];
}

export interface NodeSpec extends HostSpec {
  /** `drained`: its backends take no new connections. Absent: `active`. */
  readonly availability?: Availability;
}

export type Availability = 'active' | 'drained';

/** A host of the cluster. Its own daemon writes what is true of the host, anybody its labels and availability. */
export type Node = Obj<'node', NodeSpec>;

/**
 * `unreachable`: its session has ended, and its kernel answers peers, so that what runs there still serves. `lost`: it has, and nobody gets an
 * answer.
 */
export type NodeState = 'ready' | 'unreachable' | 'lost';

/** What the node that is asked knows of another's session. */
export interface NodeSession {
  readonly state: NodeState;
  /** Epoch of its session; absent: none was seen. */
  readonly epoch?: number;
  /** Milliseconds since it was last seen to be prolonged. */
  readonly silentMs: number;
  /** Revision of the desired state up to which it has read. */
  readonly applied?: number;
  /** Objects that concern it and were written after that. */
  readonly behind?: number;
}

export type NodeView = View<Node> & { readonly session: NodeSession };

/** Body of a change of a node: labels that are named are set, or with `null` taken away. */
export interface NodeRequest {
  readonly labels?: Readonly<Record<string, string | null>>;
  readonly availability?: Availability;
}
