import type { Obj } from './object.ts';

export type Protocol = 'tcp' | 'udp';

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

export interface ServiceSpec {
  /** Network id: the VIP is an address of it, and only sandboxes on it can reach the service. */
  readonly network: string;
  /** One of each family that the network has. */
  readonly vips: readonly string[];
  /** Empty: every port of the VIP maps to the same backend port. */
  readonly ports: readonly ServicePort[];
  readonly backends: readonly BackendSpec[];
  readonly aliases: readonly string[];
}

export type Service = Obj<'service', ServiceSpec>;
