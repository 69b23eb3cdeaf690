/**
 * What the rest of Sluice sees of the Linux kernel's networking. `src/kernel` holds the real one, `src/kernel/fake.ts` one in
 * memory for unit tests and the simulation; both pass test/conformance/kernel. Calls are synchronous where the kernel answers
 * inside the system call (rtnetlink does). Failures are `kernel.*` errors carrying the kernel's own extended message.
 */
export interface Link {
  readonly ifindex: number;
  readonly name: string;
  /** `bridge`, `veth`, `vxlan`, `loopback`, `device` for a plain one … */
  readonly kind: string;
  readonly mac: string;
  readonly mtu: number;
  readonly up: boolean;
  readonly master: number;
  /** ifindex of the other end (veth) or the lower device, 0 when none. */
  readonly peer: number;
  readonly alias: string;
  readonly group: number;
  /** Queueing discipline of what leaves by it, as `htb`; absent: `noqueue`, or none yet. */
  readonly qdisc?: string;
  /** Set on bridge ports. */
  readonly port?: {
    readonly learning: boolean;
    readonly neighSuppress: boolean;
    readonly isolated: boolean;
    readonly hairpin: boolean;
    readonly unicastFlood: boolean;
  };
  readonly vxlan?: {
    readonly vni: number;
    readonly port: number;
    readonly local: string;
    readonly learning: boolean;
    readonly ttl: number;
    readonly df: VxlanDf;
  };
}
export interface Address {
  readonly ifindex: number;
  /** With prefix length, canonical text. */
  readonly cidr: string;
  readonly scope: number;
  /** IFA_F_*: tentative 0x40, dadfailed 0x08, permanent 0x80, nodad 0x02, deprecated 0x20. */
  readonly flags: number;
}
export interface Route {
  /** `0.0.0.0/0` and `::/0` for default routes. */
  readonly dst: string;
  readonly via?: string;
  readonly ifindex: number;
  readonly table: number;
  readonly metric: number;
  /** unicast 1, local 2, blackhole 6 … */
  readonly type: number;
  readonly protocol: number;
}
export interface Neighbour {
  readonly ifindex: number;
  readonly ip: string;
  readonly mac: string;
  /** NUD_*: permanent 0x80, noarp 0x40, reachable 0x02 … */
  readonly state: number;
}
export interface FdbEntry {
  readonly ifindex: number;
  readonly mac: string;
  /** Remote VTEP (VXLAN). */
  readonly dst?: string;
  readonly vni?: number;
  /** `self`: the device's own table, `master`: the bridge's. */
  readonly table: 'self' | 'master';
  readonly permanent: boolean;
}

/** `ip rule add fwmark MARK/MASK table TABLE priority PRIORITY` */
export interface MarkRule {
  readonly family: 4 | 6;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
  readonly priority: number;
}

export interface BridgeOptions {
  /** Given when it is made: a bridge's own MAC otherwise changes with every port. */
  readonly mac: string;
  readonly mtu: number;
  readonly alias: string;
}
export interface VethOptions {
  readonly mac?: string;
  readonly mtu: number;
  readonly alias: string;
  readonly group?: number;
  readonly peer: {
    readonly name: string;
    readonly mac: string;
    readonly mtu: number /** Open descriptor of the namespace the peer is made in. */;
    readonly netnsFd?: number;
  };
}
/** Don't-fragment bit of the outer IPv4 header: never, always, as the inner one's. */
export type VxlanDf = 'unset' | 'set' | 'inherit';
export interface VxlanOptions {
  readonly vni: number;
  readonly port: number;
  readonly local: string;
  /** Of the outer packet; default 0: the host's own default. */
  readonly ttl?: number;
  /** Default `unset`. */
  readonly df?: VxlanDf;
  readonly mtu: number;
  readonly mac: string;
  readonly alias: string;
}
export interface LinkChange {
  readonly up?: boolean;
  readonly name?: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** ifindex, 0 releases it. */
  readonly master?: number;
  readonly alias?: string;
  /** IFLA_GROUP */
  readonly group?: number;
  readonly netnsFd?: number;
  readonly port?: {
    readonly learning?: boolean;
    readonly neighSuppress?: boolean;
    readonly isolated?: boolean;
    readonly hairpin?: boolean;
    readonly unicastFlood?: boolean;
    /** At once, where the bridge would notice the carrier a moment later. Fails with ENETDOWN without one. `bridge link set dev LINK state 3` */
    readonly forwarding?: true;
  };
  /** IN6_ADDR_GEN_MODE: 0 eui64, 1 none. */
  readonly addrGenMode?: number;
}

/** Links, addresses, routes, neighbours and FDB of one network namespace. `link` arguments are an ifindex. */
export interface Netlink extends Disposable {
  links(): Link[];
  /** By name or ifindex; null when there is none. */
  link(which: string | number): Link | null;
  /** `ip link add NAME type bridge …`: an equal one is kept, another kind under that name is `kernel.exists`. Brings it up. */
  ensureBridge(name: string, options: BridgeOptions): Link;
  /** `ip link add NAME type veth peer …`: does not bring it up. */
  ensureVeth(name: string, options: VethOptions): Link;
  /**
   * `ip link add NAME type vxlan id VNI dstport PORT local IP nolearning …`: one of ours that differs is made anew. `kernel.exists` when
   * another device has the VNI on that port, whatever namespace it has been moved to. Does not bring it up.
   */
  ensureVxlan(name: string, options: VxlanOptions): Link;
  setLink(link: number, change: LinkChange): void;
  /** `ip link del`; absent succeeds. */
  removeLink(link: number): void;
  /**
   * The same for many, in one go and off the event loop: `ip link set dev … group N` for each, `ip link del group N`. The kernel is done
   * with their names when it begins, with the links when it resolves.
   */
  removeLinks(links: readonly number[]): Promise<void>;
  /** Whether packets leave the device with checksums for hardware to finish: `ethtool -k LINK`, tx-checksumming. */
  txChecksum(link: number): boolean;
  /**
   * `ethtool -K LINK tx on|off`. Off: the kernel makes them itself before a packet leaves the device, and segments what is too large.
   * `kernel.missing` where the device has no such choice.
   */
  setTxChecksum(link: number, on: boolean): void;
  addresses(link?: number): Address[];
  /** `ip addr replace`; `nodad` skips duplicate detection, `deprecated` keeps an IPv6 one from being chosen as a source unasked (`preferred_lft 0`). */
  ensureAddress(
    link: number,
    cidr: string,
    options?: { readonly nodad?: boolean; readonly deprecated?: boolean },
  ): void;
  removeAddress(link: number, cidr: string): void;
  /** Of one table, or of all. */
  routes(table?: number): Route[];
  ensureRoute(route: {
    readonly dst: string;
    readonly via?: string;
    readonly link?: number;
    readonly table?: number;
    readonly metric?: number;
    readonly onlink?: boolean;
  }): void;
  removeRoute(route: {
    readonly dst: string;
    readonly via?: string;
    readonly link?: number;
    readonly table?: number;
    readonly metric?: number;
  }): void;
  /** Routing rules that go by a mark. */
  rules(): MarkRule[];
  /** True: it was not there. */
  ensureRule(rule: MarkRule): boolean;
  /** Absent succeeds. */
  removeRule(rule: MarkRule): void;
  neighbours(link?: number): Neighbour[];
  /** `ip neigh replace … nud permanent`, all in as few sends as fit. */
  ensureNeighbours(entries: readonly { readonly link: number; readonly ip: string; readonly mac: string }[]): void;
  removeNeighbours(entries: readonly { readonly link: number; readonly ip: string }[]): void;
  fdb(link?: number): FdbEntry[];
  /** `bridge fdb replace MAC dev LINK [dst VTEP] self|master static`; the all-zero MAC is appended. */
  ensureFdb(
    entries: readonly {
      readonly link: number;
      readonly mac: string;
      readonly dst?: string;
      readonly table: 'self' | 'master';
    }[],
  ): void;
  removeFdb(
    entries: readonly {
      readonly link: number;
      readonly mac: string;
      readonly dst?: string;
      readonly table: 'self' | 'master';
    }[],
  ): void;
}

/** A network namespace held open by a descriptor. */
export interface Namespace extends Disposable {
  readonly fd: number;
  /** Where it is mounted, or the path it was opened by; `/proc/self/ns/net` for the daemon's own. */
  readonly path: string;
  /** SO_NETNS_COOKIE; never stored. */
  readonly cookie: bigint;
  /** Device and inode, `4:4026531840`: equal for two descriptors of one namespace. */
  readonly identity: string;
  readonly netlink: Netlink;
  /** Runs a synchronous function inside; a returned promise is a programming error. The process aborts when it cannot come back. */
  run<T>(fn: () => T): T;
  /** `sysctl -w net.…=value` inside it. */
  setSysctl(name: string, value: string): void;
  getSysctl(name: string): string;
}

export interface Namespaces {
  /** The daemon's own. */
  readonly host: Namespace;
  /** `ip netns add` at an absolute path; an existing one is adopted, a stale mount point made anew. `lo` is brought up. */
  ensure(path: string): Namespace;
  open(path: string): Namespace;
  /** Unmounts and unlinks; the kernel takes it apart when its last process ends. Absent succeeds. */
  remove(path: string): void;
  /** Whether a namespace is mounted there. */
  exists(path: string): boolean;
}

/** libnftables in process. Every method is one atomic transaction. */
export interface Nft extends Disposable {
  /** nft syntax; several statements are one transaction. */
  apply(ruleset: string): void;
  /** JSON of `nft -j list …`, without the metainfo: `list('table inet sluice-x')`; null when it does not exist. */
  list(what: string): readonly Record<string, unknown>[] | null;
  /** Names of all tables as `family name`. */
  tables(): readonly string[];
}

export type LinkEvent = {
  readonly type: 'link' | 'address' | 'route' | 'neighbour' | 'nft';
  readonly ifindex: number;
  readonly removed: boolean;
};

export interface Monitor extends Disposable {
  /** Multicast messages were lost: look at everything again. */
  readonly losses: number;
}

export interface Cgroups {
  /** Mount point of cgroup v2, also on a hybrid host. */
  readonly mount: string;
  /** `mkdir -p`; returns the directory's inode, which is the cgroup id. */
  ensure(path: string): bigint;
  /** Ends with an error while processes are in it, unless `kill`: then they are killed first (cgroup.kill or signals). Absent succeeds. */
  remove(path: string, options?: { readonly kill?: boolean }): Promise<void>;
  processes(path: string): number[];
  id(path: string): bigint | null;
}

/** Names of what a kernel may lack, as skips and errors print them. */
export interface Features {
  readonly release: string;
  readonly tcx: boolean;
  readonly netnsCookieInSockAddr: boolean;
  readonly cgroupBpf: boolean;
  readonly sockDestroy: boolean;
  readonly vxlan: boolean;
  readonly nftables: boolean;
  readonly overlayfs: boolean;
  readonly netem: boolean;
  readonly ipvs: boolean;
}

/** One socket as sock_diag reports it. */
export interface SocketInfo {
  readonly family: 4 | 6;
  readonly protocol: 'tcp' | 'udp';
  readonly state: number;
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
  readonly cookie: bigint;
  /** Value of the socket storage that was asked for, when the socket has one. */
  readonly storage?: Uint8Array;
  readonly inode: number;
  readonly uid: number;
}
export interface SocketFilter {
  readonly protocol: 'tcp' | 'udp';
  readonly remote?: string;
  readonly remotePort?: number;
  /** Descriptor of a BPF_MAP_TYPE_SK_STORAGE map whose values are wanted (TCP only). */
  readonly storageFd?: number;
  /** Bit mask of TCP states; default all but LISTEN and TIME_WAIT. */
  readonly states?: number;
}
export interface Sockets {
  /** `ss -tan dst …` inside the namespace; v4-mapped sockets show as family 6 with an IPv4 `remote`. */
  list(namespace: Namespace, filter: SocketFilter): SocketInfo[];
  /** `ss -K`: SOCK_DESTROY; false when it was gone already. */
  destroy(namespace: Namespace, socket: SocketInfo): boolean;
}

/** Connections that the host tracks. */
export interface Conntrack {
  /** Forgets those whose first packet went to one of the addresses at that port; how many: `conntrack -D -p udp --orig-dst … --orig-port-dst …`. */
  remove(
    namespace: Namespace,
    match: { readonly protocol: 'tcp' | 'udp'; readonly addresses: ReadonlySet<string>; readonly port: number },
  ): number;
}

/** Ports of the host, as whoever binds one has them. */
export interface Ports {
  /**
   * Nobody else can bind the port from now on, until it is disposed of or this process ends. `0.0.0.0`, `::`: on every address of that family.
   * `port.inuse` names who has it; `port.address` when the host has no such address. Null: ended connections linger on it, it cannot be held yet.
   */
  hold(protocol: 'tcp' | 'udp', address: string, port: number): Disposable | null;
}

export interface Kernel extends Disposable {
  readonly namespaces: Namespaces;
  readonly host: Namespace;
  readonly cgroups: Cgroups;
  readonly sockets: Sockets;
  readonly conntrack: Conntrack;
  readonly ports: Ports;
  readonly features: Features;
  /** A libnftables context in the namespace (default: the host's). */
  nft(namespace?: Namespace): Nft;
  /** Calls back from the event loop on every change of links, addresses, routes, neighbours or (group `nft`) nftables. */
  monitor(
    namespace: Namespace,
    groups: readonly LinkEvent['type'][],
    onEvent: (event: LinkEvent) => void,
    onLoss: () => void,
  ): Monitor;
  /** Path of a bpffs, mounted if there is none. */
  ensureBpffs(path: string): void;
  /** Who is at the other end of a connected unix socket (SO_PEERCRED). */
  peer(fd: number): { readonly uid: number; readonly pid: number } | null;
}
