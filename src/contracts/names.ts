/** The internal DNS as controllers see it: they say what each sandbox's view holds; the server answers. */
import type { Namespace } from './kernel.ts';

/** One owned name. A name that exists in any type answers NODATA + SOA for the others. */
export interface NameRecord {
  /** Lower case, no trailing dot: `api-1`, `api-1.web`, `tasks.shop`. */
  readonly name: string;
  readonly a?: readonly string[];
  readonly aaaa?: readonly string[];
  readonly srv?: readonly {
    readonly priority: number;
    readonly weight: number;
    readonly port: number;
    readonly target: string;
  }[];
}

export interface NameView {
  readonly view: number;
  /** Own network's names first where several would fit; ties are decided by the caller, deterministically. */
  readonly records: readonly NameRecord[];
  /** Address → name, for PTR. */
  readonly reverse: ReadonlyMap<string, string>;
  /** Subnets whose reverse zones are ours: an unknown address there is NXDOMAIN, never forwarded. */
  readonly subnets: readonly string[];
  /** False when every network of the view is internal: foreign names are refused (NXDOMAIN), never sent anywhere. */
  readonly forward: boolean;
}

/** What differs in a view from what was set or changed last; undefined: it is gone. */
export interface NameChange {
  readonly view: number;
  /** By name, lower case. */
  readonly records: ReadonlyMap<string, NameRecord | undefined>;
  /** Address → name. */
  readonly reverse: ReadonlyMap<string, string | undefined>;
}

export interface NameSandbox {
  readonly id: string;
  readonly namespace: Namespace;
  readonly view: number;
  /** Replace the host's resolvers for this sandbox. */
  readonly servers?: readonly string[];
  /** The port of an earlier life, tried first. */
  readonly port?: number;
}

export interface NameServer {
  /** Opens (or keeps) UDP and TCP sockets on 127.0.0.11 in the namespace; returns the port they listen on, outside ip_local_port_range. */
  ensureSandbox(sandbox: NameSandbox): number;
  removeSandbox(id: string): void;
  /** Replaces a view's records at once. */
  setView(view: NameView): void;
  /** Replaces some of a view's records, at once and at the cost of those alone. A view that is not there stays so. */
  changeView(change: NameChange): void;
  removeView(view: number): void;
  /** Puts destroyed sockets back; returns ids of the sandboxes that it did this for, and whose port has changed. */
  audit(): readonly { readonly id: string; readonly port: number }[];
  close(): Promise<void>;
}
