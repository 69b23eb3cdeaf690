import type { Obj } from './object.ts';

export interface NodeSpec {
  /** Address under which other nodes reach this one. */
  readonly address: string;
  /** Where its overlay packets leave and enter; absent: it takes part in no overlay. */
  readonly vtep?: string;
  /** UDP port of VXLAN. */
  readonly port: number;
  /** Prefixes to which the host has routes, but those of its own networks: no automatic subnet of the cluster may overlap them. */
  readonly hostRoutes: readonly string[];
}

/** A host of the cluster, written by its own daemon alone. */
export type Node = Obj<'node', NodeSpec>;
