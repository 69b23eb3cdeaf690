import type { ReplicaTemplate } from './container/request.ts';
import type { PublishSpec } from './container.ts';
import type { Contest } from './endpoint.ts';
import type { Obj } from './object.ts';
import type { PlacementSpec } from './service/placement.ts';

export const PROTOCOLS = ['tcp', 'udp'] as const;
export type Protocol = (typeof PROTOCOLS)[number];
/** False of one that only a newer version knows. */
export const isProtocol = (text: string): text is Protocol => (PROTOCOLS as readonly string[]).includes(text);

export interface ServicePort {
  /** For SRV records. */
  readonly name?: string;
  readonly port: number;
  /** Backend port. */
  readonly target: number;
  readonly protocol: Protocol;
}

/** A sandbox (its addresses on the service's network are used) or a plain address; `port` overrides the service port's target. */
export type BackendSpec =
  | { readonly sandbox: string; readonly port?: number }
  | { readonly address: string; readonly port?: number };

/** Containers that the service keeps running, all alike. */
export interface ReplicaSpec {
  readonly count: number;
  /** What each of them is; the service's network is the one it is on. */
  readonly container: ReplicaTemplate;
  /** `sha256:…` of the image's configuration, wherever its name points by now. */
  readonly imageId: string;
  /** Counts changes of the two above: replicas of an earlier one are replaced, one after another. */
  readonly version: number;
  readonly placement?: PlacementSpec;
}

export interface ServiceSpec {
  /** Network id: the VIP is an address of it, and only sandboxes on it can reach the service. */
  readonly network: string;
  /** One of each family that the network has. */
  readonly vips: readonly string[];
  /** Empty: every port of the VIP maps to the same backend port. */
  readonly ports: readonly ServicePort[];
  /** Given by hand; replicas are balanced over beside them. */
  readonly backends: readonly BackendSpec[];
  readonly replicas?: ReplicaSpec;
  readonly aliases: readonly string[];
  /** On every node, balanced over the backends that run there. */
  readonly publish?: readonly PublishSpec[];
  /** A VIP of it is another's, who is older (src/cluster/replica/assertion.ts): it answers nowhere. */
  readonly contested?: Contest;
}

export type Service = Obj<'service', ServiceSpec>;
