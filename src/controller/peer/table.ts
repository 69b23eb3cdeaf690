/**
 * What was programmed for one network, and how it follows single endpoints: an endpoint that comes, goes or moves costs its own entries,
 * whatever the number of others. The kernel is dumped at the first look and at audits only.
 */
import type { Dataplane } from '../../contracts/dataplane.ts';
import type { Netlink } from '../../contracts/kernel.ts';
import type { PeerDifference } from '../../model/answer.ts';
import {
  describeChanges,
  differencesOf,
  diffPeers,
  type Member,
  type PeerChanges,
  type PeerState,
  planPeers,
  readPeers,
  ZERO_MAC,
} from './plan.ts';

/** Entries set in one stretch: 15 ms of blocked event loop. */
const CHUNK = 2_000;

export interface Place {
  /** ifindex of the bridge and of the VXLAN device. */
  readonly bridge: number;
  readonly tunnel: number;
}

/** Who is behind the tunnel, for the shortcut past the bridge: the same MACs as in its forwarding table. */
type Stations = Pick<Dataplane, 'stations' | 'syncStations' | 'changeStations'>;

export class PeerTable {
  readonly place: Place;
  readonly #netlink: Netlink;
  readonly #dataplane: Stations;
  readonly #breathe: () => Promise<void>;
  readonly #members = new Map<string, Member>();
  /** Who has each MAC and address: of several the newest, as in `planPeers`. */
  readonly #holders = new Map<string, Member>();
  /** The others, where an address was given again and the end of who had it before has not been heard yet, or was lost. */
  readonly #behind = new Map<string, readonly Member[]>();
  /** How many endpoints are at each VTEP. */
  readonly #hosts = new Map<string, number>();
  #synced = false;

  /** `breathe` lets others have their turn between two stretches. */
  constructor(
    place: Place,
    { netlink, dataplane }: { readonly netlink: Netlink; readonly dataplane: Stations },
    breathe: () => Promise<void>,
  ) {
    this.place = place;
    this.#netlink = netlink;
    this.#dataplane = dataplane;
    this.#breathe = breathe;
  }

  /** The kernel has been compared with everything once. */
  get synced(): boolean {
    return this.#synced;
  }

  get size(): number {
    return this.#members.size;
  }

  /** Brings the kernel to exactly these members; what was amiss, in words. */
  async sync(members: readonly Member[], keep: ReadonlySet<string>): Promise<string[]> {
    // Only we change these entries, and no news are followed meanwhile.
    const wanted = planPeers(members);
    const changes = diffPeers(await this.#read(), wanted, keep);
    await this.#apply(changes);
    const { tunnel } = this.place;
    const kept = [...this.#dataplane.stations(tunnel)].filter((mac) => keep.has(mac));
    this.#dataplane.syncStations(tunnel, new Set([...wanted.remote.keys(), ...kept]));
    this.#members.clear();
    this.#holders.clear();
    this.#behind.clear();
    this.#hosts.clear();
    for (const member of members) this.#remember(member);
    this.#synced = true;
    return describeChanges(changes);
  }

  /** What `sync` would set right, and does not. `members` is asked once the kernel has been read. */
  async compare(
    members: () => { readonly members: readonly Member[]; readonly keep: ReadonlySet<string> },
  ): Promise<PeerDifference[]> {
    const actual = await this.#read();
    const { members: wanted, keep } = members();
    return differencesOf(actual, diffPeers(actual, planPeers(wanted), keep));
  }

  /** Dumps of 10,000 peers take the event loop 40 ms each. */
  async #read(): Promise<PeerState> {
    const { bridge, tunnel } = this.place;
    const fdb = this.#netlink.fdb(tunnel);
    await this.#breathe();
    const neighbours = this.#netlink.neighbours(bridge);
    await this.#breathe();
    return readPeers(fdb, neighbours);
  }

  /** Follows single endpoints; null: it is gone. */
  async follow(news: ReadonlyMap<string, Member | null>): Promise<void> {
    const known = [...news.keys()].flatMap((id) => this.#members.get(id) ?? []);
    const now = [...news.values()].filter((member) => member !== null);
    const from = this.#stateFor([...known, ...now]);
    for (const member of known) this.#forget(member);
    for (const member of now) this.#remember(member);
    await this.#apply(diffPeers(from, this.#stateFor([...known, ...now])));
  }

  /** What is programmed under the MACs and addresses of these, whoever has them now. */
  #stateFor(members: readonly Member[]): PeerState {
    const remote = new Map<string, string>();
    const neighbours = new Map<string, string>();
    for (const { mac, addresses } of members) {
      const vtep = this.#holders.get(mac)?.vtep;
      if (vtep !== undefined) remote.set(mac, vtep);
      for (const address of addresses) {
        const holder = this.#holders.get(address);
        if (holder) neighbours.set(address, holder.mac);
      }
    }
    return { remote, behind: new Set(remote.keys()), flood: new Set(this.#hosts.keys()), neighbours };
  }

  #remember(member: Member): void {
    this.#members.set(member.id, member);
    for (const key of [member.mac, ...member.addresses]) {
      const holder = this.#holders.get(key);
      const isNewer = !holder || member.revision >= holder.revision;
      if (isNewer) this.#holders.set(key, member);
      if (holder) this.#behind.set(key, [...(this.#behind.get(key) ?? []), isNewer ? holder : member]);
    }
    if (member.vtep !== undefined) this.#hosts.set(member.vtep, (this.#hosts.get(member.vtep) ?? 0) + 1);
  }

  #forget(member: Member): void {
    this.#members.delete(member.id);
    for (const key of [member.mac, ...member.addresses]) {
      const behind = (this.#behind.get(key) ?? []).filter((each) => each !== member);
      if (this.#holders.get(key) === member) {
        const next = behind.sort((a, b) => a.revision - b.revision).pop();
        if (next) this.#holders.set(key, next);
        else this.#holders.delete(key);
      }
      if (behind.length > 0) this.#behind.set(key, behind);
      else this.#behind.delete(key);
    }
    if (member.vtep === undefined) return;
    const left = (this.#hosts.get(member.vtep) ?? 0) - 1;
    if (left > 0) this.#hosts.set(member.vtep, left);
    else this.#hosts.delete(member.vtep);
  }

  /** Removals first: what moves is set anew by the same request that would have set it. */
  async #apply({ remote, behind, flood, neighbours }: PeerChanges): Promise<void> {
    const { bridge, tunnel: link } = this.place;
    const self = (mac: string, dst?: string) => ({ link, mac, dst, table: 'self' as const });
    const master = (mac: string) => ({ link, mac, table: 'master' as const });
    this.#dataplane.changeStations(link, { come: [], gone: remote.remove });
    await this.#chunks(
      [
        ...remote.remove.map((mac) => self(mac)),
        ...behind.remove.map(master),
        ...flood.remove.map((dst) => self(ZERO_MAC, dst)),
      ],
      (entries) => this.#netlink.removeFdb(entries),
    );
    await this.#chunks(
      neighbours.remove.map((ip) => ({ link: bridge, ip })),
      (entries) => this.#netlink.removeNeighbours(entries),
    );
    const alone = new Set(behind.set);
    // A MAC in both tables is one request when the two follow each other.
    const pairs = remote.set.flatMap(([mac, dst]) =>
      alone.delete(mac) ? [self(mac, dst), master(mac)] : [self(mac, dst)],
    );
    await this.#chunks(
      [...flood.set.map((dst) => self(ZERO_MAC, dst)), ...pairs, ...[...alone].map(master)],
      (entries) => this.#netlink.ensureFdb(entries),
    );
    await this.#chunks(
      neighbours.set.map(([ip, mac]) => ({ link: bridge, ip, mac })),
      (entries) => this.#netlink.ensureNeighbours(entries),
    );
    // Last: until then the bridge serves them.
    await this.#chunks(
      remote.set.map(([mac]) => mac),
      (come) => this.#dataplane.changeStations(link, { come, gone: [] }),
    );
  }

  async #chunks<T>(entries: readonly T[], apply: (chunk: readonly T[]) => void): Promise<void> {
    for (let at = 0; at < entries.length; at += CHUNK) {
      if (at > 0) await this.#breathe();
      apply(entries.slice(at, at + CHUNK));
    }
  }
}
