/**
 * What the kernel must hold so that a network's endpoints find each other without a question asked. Pure: endpoints and tunnel end points
 * in, entries out, and the difference to what a dump shows. For each endpoint a permanent neighbour on the bridge, by which it answers ARP
 * and ND; for each on another host its MAC behind the VXLAN port (bridge) and towards that host (device); for each host that takes part a
 * place in the list of those who receive broadcast and multicast (the all-zero MAC).
 */
import type { FdbEntry, Neighbour } from '../../contracts/kernel.ts';
import type { PeerDifference } from '../../model/answer.ts';

export interface Member {
  readonly id: string;
  /** The higher, the newer. */
  readonly revision: number;
  readonly mac: string;
  /** Without prefix length. */
  readonly addresses: readonly string[];
  /** Of the host that has it; absent: this one. */
  readonly vtep?: string;
}

/** Entries by what only one can have. */
export interface PeerState {
  /** MAC → VTEP, in the device's table; the bridge's has the same MACs. */
  readonly remote: ReadonlyMap<string, string>;
  /** MACs that stand in the bridge's table behind the VXLAN port. */
  readonly behind: ReadonlySet<string>;
  /** VTEPs that receive broadcast and multicast. */
  readonly flood: ReadonlySet<string>;
  /** Address → MAC. */
  readonly neighbours: ReadonlyMap<string, string>;
}

export interface PeerChanges {
  readonly remote: {
    readonly set: readonly (readonly [mac: string, vtep: string])[];
    readonly remove: readonly string[];
  };
  readonly behind: { readonly set: readonly string[]; readonly remove: readonly string[] };
  readonly flood: { readonly set: readonly string[]; readonly remove: readonly string[] };
  readonly neighbours: {
    readonly set: readonly (readonly [ip: string, mac: string])[];
    readonly remove: readonly string[];
  };
}

/** The list of those who receive broadcast and multicast. */
export const ZERO_MAC = '00:00:00:00:00:00';
const NUD_PERMANENT = 0x80;

/** Of two members with one MAC or address (a move that has been told half-way) the newer has it; they come in that order. */
export function planPeers(members: Iterable<Member>): PeerState {
  const remote = new Map<string, string>();
  const flood = new Set<string>();
  const neighbours = new Map<string, string>();
  for (const { mac, addresses, vtep } of members) {
    if (vtep !== undefined) {
      remote.set(mac, vtep);
      flood.add(vtep);
    } else remote.delete(mac);
    for (const address of addresses) neighbours.set(address, mac);
  }
  return { remote, behind: new Set(remote.keys()), flood, neighbours };
}

/** What a dump of the VXLAN port's entries and the bridge's neighbours shows of ours. */
export function readPeers(fdb: readonly FdbEntry[], neighbours: readonly Neighbour[]): PeerState {
  const towards = fdb.filter(({ table, dst }) => table === 'self' && dst !== undefined);
  return {
    remote: new Map(towards.filter(({ mac }) => mac !== ZERO_MAC).map(({ mac, dst }) => [mac, dst!])),
    // A permanent one is the port's own address.
    behind: new Set(fdb.filter(({ table, permanent }) => table === 'master' && !permanent).map(({ mac }) => mac)),
    flood: new Set(towards.filter(({ mac }) => mac === ZERO_MAC).map(({ dst }) => dst!)),
    neighbours: new Map(
      neighbours.filter(({ state }) => (state & NUD_PERMANENT) !== 0).map(({ ip, mac }) => [ip, mac]),
    ),
  };
}

/** From one state to the other. `keep`: MACs of which it is not known where they belong; what is there of theirs stays. */
export function diffPeers(from: PeerState, to: PeerState, keep: ReadonlySet<string> = new Set()): PeerChanges {
  const missing = <V>(a: ReadonlyMap<string, V>, b: ReadonlyMap<string, V>): [string, V][] =>
    [...b].filter(([key, value]) => a.get(key) !== value);
  const without = (a: Iterable<string>, b: { has(key: string): boolean }): string[] =>
    [...a].filter((key) => !b.has(key));
  const known = (macs: readonly string[]): string[] => macs.filter((mac) => !keep.has(mac));
  return {
    remote: { set: missing(from.remote, to.remote), remove: known(without(from.remote.keys(), to.remote)) },
    behind: { set: without(to.behind, from.behind), remove: known(without(from.behind, to.behind)) },
    // While it is not known where somebody is, nobody is left out.
    flood: { set: without(to.flood, from.flood), remove: keep.size > 0 ? [] : without(from.flood, to.flood) },
    neighbours: {
      set: missing(from.neighbours, to.neighbours),
      remove: [...from.neighbours].filter(([ip, mac]) => !to.neighbours.has(ip) && !keep.has(mac)).map(([ip]) => ip),
    },
  };
}

/** In words, for conditions and logs; empty when there is no difference. */
export function describeChanges({ remote, behind, flood, neighbours }: PeerChanges): string[] {
  const count = (n: number, what: string): string[] => (n > 0 ? [`${n} ${what}`] : []);
  return [
    ...count(remote.set.length + behind.set.length, 'forwarding entries set'),
    ...count(remote.remove.length + behind.remove.length, 'forwarding entries removed'),
    ...count(flood.set.length, 'hosts added to the broadcast list'),
    ...count(flood.remove.length, 'hosts taken off the broadcast list'),
    ...count(neighbours.set.length, 'neighbours set'),
    ...count(neighbours.remove.length, 'neighbours removed'),
  ];
}

/** The same entry by entry: what each should be, and what it is. `changes` lead from the one state to the other. */
export function differencesOf(from: PeerState, { remote, behind, flood, neighbours }: PeerChanges): PeerDifference[] {
  const surplus = (
    table: PeerDifference['table'],
    keys: readonly string[],
    have: (key: string) => string | undefined,
  ) => keys.map((key): PeerDifference => ({ table, key, have: have(key) }));
  const amiss = (
    table: PeerDifference['table'],
    entries: readonly (readonly [string, string])[],
    have: (key: string) => string | undefined,
  ) => entries.map(([key, want]): PeerDifference => ({ table, key, want, have: have(key) }));
  const listed = (keys: readonly string[]) => keys.map((key) => [key, 'listed'] as const);
  const nothing = () => undefined;
  return [
    ...amiss('forwarding', remote.set, (mac) => from.remote.get(mac)),
    ...surplus('forwarding', remote.remove, (mac) => from.remote.get(mac)),
    ...amiss('bridge', listed(behind.set), nothing),
    ...surplus('bridge', behind.remove, () => 'listed'),
    ...amiss('broadcast', listed(flood.set), nothing),
    ...surplus('broadcast', flood.remove, () => 'listed'),
    ...amiss('neighbour', neighbours.set, (ip) => from.neighbours.get(ip)),
    ...surplus('neighbour', neighbours.remove, (ip) => from.neighbours.get(ip)),
  ];
}
