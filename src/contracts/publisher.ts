/**
 * Published ports: the balancer's nftables form, through the host's own stack, so that its firewall sees what is published and every client's
 * address is kept. What was programmed goes on while the daemon is dead; `ensure` of what stands already changes nothing.
 */
import type { Difference } from '../model/diagnosis/diff.ts';
import type { FrontendProtocol, Repair } from './dataplane.ts';

export interface PublishedBackend {
  /** Of the same family as the port's; of either where that is published on `::1`. */
  readonly address: string;
  readonly port: number;
  /** Interface of the host that leads to it, and the subnet behind that. */
  readonly ifname: string;
  readonly subnet: string;
}

export interface PublishedPort {
  /**
   * `0.0.0.0`, `::`: every address of the host in that family, also those that come later. `::1` is on the list alone: nftables cannot translate
   * it, the data plane serves it (HOST_VIEW).
   */
  readonly address: string;
  readonly port: number;
  readonly protocol: FrontendProtocol;
  /** CIDRs of that family whose clients are translated; others find what else the host has at the port. The host itself always may. */
  readonly from: readonly string[] | 'any';
  /** A new connection goes to one of them; at most `backendsMax`. */
  readonly backends: readonly PublishedBackend[];
}

export interface Publisher {
  capabilities(): { readonly form: 'nft'; readonly backendsMax: number };
  /**
   * Replaces what an owner publishes. Connections to a port whose backends changed begin anew, UDP included, since translation looks at the
   * first packet alone. `port.inuse`, with the other owner in its details, when somebody else publishes one of them.
   */
  ensure(owner: string, ports: readonly PublishedPort[]): void;
  /** Absent succeeds. */
  remove(owner: string): void;
  /** By owner: what was ensured, also by an earlier life. */
  published(): ReadonlyMap<string, readonly PublishedPort[]>;
  /** Removes owners that are not in the list; returns how many. Call only after a full sync. */
  prune(keep: ReadonlySet<string>): number;
  /** Compares the kernel's copy with what was ensured and puts it right. */
  audit(): Repair[];
  /** What `audit` would put right; changes nothing. */
  compare(): Difference[];
  /** Removes everything of this instance. */
  off(): void;
  close(): void;
}
