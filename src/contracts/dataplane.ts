/**
 * The balancer and the guards as the kernel runs them, in eBPF; published ports have an nftables form with a contract of its own
 * (publisher.ts). A form owns every BPF hook it uses. All verbs are idempotent; what was programmed goes on
 * while the daemon is dead; `start` adopts what an earlier life pinned and never rebuilds what is right.
 *
 * Numbers are 32-bit, persisted by the caller before use and never used again for something else.
 */
import type { Namespace } from './kernel.ts';

export type FrontendProtocol = 'tcp' | 'udp';

/**
 * The view of the host's own sockets. Frontends on `::1` stand in it, and over TCP their backends may be of either family: an IPv6 socket reaches
 * an IPv4 address by its mapped form, unless its program forbade it that (IPV6_V6ONLY).
 */
export const HOST_VIEW = 0;

export interface DataplaneCapabilities {
  readonly form: 'ebpf';
  readonly connectTime: boolean;
  readonly antiSpoof: boolean;
  readonly dnsHandover: boolean;
  /** `tcx` or `clsact`. */
  readonly tc: 'tcx' | 'clsact';
}

/** A sandbox's namespace: its cookie is scoped to the view, its `lo` hands DNS over. */
export interface DataplaneSandbox {
  readonly id: string;
  /** Attachment number, also of the `lo` hook. */
  readonly number: number;
  readonly view: number;
  readonly namespace: Namespace;
  /** Port of the daemon's DNS sockets in the namespace; 0: no hand-over. */
  readonly dnsPort: number;
}

export interface DataplaneEndpoint {
  readonly id: string;
  readonly number: number;
  /** Host-side interface: where frames from the sandbox come in. */
  readonly hostIfindex: number;
  readonly mac: string;
  /** Own addresses, without prefix length. */
  readonly addresses: readonly string[];
  /** May also send from these CIDRs. */
  readonly allow: readonly string[];
  /** `-o spoof=allow`: nothing is checked. */
  readonly spoof: boolean;
  /** ifindex of its network's tunnel: the endpoint is a station of that segment, and its frames may take the shortcut. */
  readonly tunnel?: number;
  /** What is sent to it by the shortcut leaves by the host-side interface and its queues, and does not appear at the other end at once. */
  readonly queued?: boolean;
}

/**
 * A network that spans hosts, as this host carries it. Frames between its stations go past the bridge and past every filter hook of the host,
 * straight to an endpoint's veth or into the tunnel (`bpf_redirect`), unless `direct` is off.
 */
export interface DataplaneSegment {
  /** Of the network. */
  readonly id: string;
  /** Attachment number, of the hook at the tunnel's ingress. */
  readonly number: number;
  /** ifindex. */
  readonly tunnel: number;
  readonly direct: boolean;
}

export interface DataplaneFrontend {
  readonly view: number;
  readonly address: string;
  /** 0: every port of the address that has no entry of its own; the backend port is then the one asked for. */
  readonly port: number;
  /** Absent with port 0: both. */
  readonly protocol?: FrontendProtocol;
  /** Number of the backend set. */
  readonly set: number;
}

export interface DataplaneBackend {
  readonly number: number;
  readonly address: string;
  /** 0: the port that was asked for. */
  readonly port: number;
}

export interface EndpointCounters {
  /** Packets by drop reason: `source-mac`, `source-ip`, `arp`, `ndp`, `vlan`, `ethertype`, `malformed`. */
  readonly drops: Readonly<Record<string, number>>;
}
export interface SetCounters {
  readonly connects: number;
  readonly refused: number;
}

/** A thing in the kernel that is not as it was ensured. */
export interface Drift {
  readonly object: Repair['object'];
  /** Of the sandbox, endpoint or network; else a name for people. */
  readonly id: string;
  /** Of a backend or frontend: the set that it belongs to, where that is known. */
  readonly set?: number;
  /** `backend 10.20.0.2:80` */
  readonly what: string;
  readonly is: 'missing' | 'changed' | 'foreign';
  /** Where to look by hand. */
  readonly look: string;
}

/** A thing that was not as it should be and was put right. */
export interface Repair {
  readonly object: 'sandbox' | 'endpoint' | 'network' | 'frontend' | 'backends' | 'hook' | 'program' | 'published';
  readonly id: string;
  readonly what: string;
}

export interface Dataplane {
  capabilities(): DataplaneCapabilities;
  /** Loads programs, adopts or makes pins, attaches cgroup hooks; swaps programs of an earlier version in place. */
  start(): Promise<void>;
  ensureSandbox(sandbox: DataplaneSandbox): void;
  removeSandbox(id: string): void;
  /** Whether sockets of the host's own namespace see the frontends of {@link HOST_VIEW}. Each of their connects costs more while they do. */
  serveHost(on: boolean): void;
  ensureEndpoint(endpoint: DataplaneEndpoint): void;
  removeEndpoint(id: string): void;
  ensureSegment(segment: DataplaneSegment): void;
  /** With all its stations. */
  removeSegment(id: string): void;
  /** Exactly these MACs are behind the tunnel; stations of this host stay. */
  syncStations(tunnel: number, macs: ReadonlySet<string>): void;
  /** Some came behind the tunnel, some left. A MAC that this host has by now is not taken from it. */
  changeStations(tunnel: number, changes: { readonly come: readonly string[]; readonly gone: readonly string[] }): void;
  /** MACs behind the tunnel, read back. */
  stations(tunnel: number): ReadonlySet<string>;
  /** Replaces the set's backends: new backends, slots, then the count; removals in reverse. New connections follow at once, open ones stay. */
  ensureBackends(set: number, backends: readonly DataplaneBackend[]): void;
  removeBackends(set: number): void;
  ensureFrontend(frontend: DataplaneFrontend): void;
  removeFrontend(frontend: Pick<DataplaneFrontend, 'view' | 'address' | 'port' | 'protocol'>): void;
  /** Everything programmed under our instance, read back from the kernel's maps. */
  frontends(): DataplaneFrontend[];
  backends(): ReadonlyMap<number, readonly DataplaneBackend[]>;
  /** Removes sandboxes, endpoints, segments, frontends and sets that are not in the keep lists. Call only after a full sync. */
  prune(keep: {
    readonly sandboxes: ReadonlySet<string>;
    readonly endpoints: ReadonlySet<string>;
    readonly segments: ReadonlySet<string>;
    readonly frontends: readonly DataplaneFrontend[];
    readonly sets: ReadonlySet<number>;
  }): number;
  /** Open connections that came by the frontend set to this backend, over all namespaces given. */
  connections(backend: DataplaneBackend, namespaces: readonly Namespace[]): number;
  /** Resets sockets that came by a VIP to this backend, connected UDP included; returns how many. */
  reset(backend: DataplaneBackend, namespaces: readonly Namespace[]): number;
  endpointCounters(id: string): EndpointCounters;
  setCounters(set: number): SetCounters;
  /** Compares hooks, pins, links and attachments with what was ensured and puts them right. */
  audit(): Repair[];
  /** What `audit` would put right; changes nothing. */
  compare(): Drift[];
  /** Highest attachment, view, set and backend number that a pinned map holds: a fresh store must start above it. */
  highest(): { readonly attachment: number; readonly view: number; readonly set: number; readonly backend: number };
  /** Detaches and unpins everything of this instance. */
  off(): void;
  /** Closes descriptors; everything pinned stays. */
  close(): void;
}
