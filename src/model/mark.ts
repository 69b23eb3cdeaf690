/**
 * How a thing in the kernel says whose it is. Every link of ours carries `sluice:<instance>:<what>:<id>[:<id>]` as its alias
 * (`ip link set … alias`), tables and cgroups carry the instance in their name. Prune and `sluice-off` go by these alone.
 */
export interface Mark {
  readonly what: 'network' | 'endpoint';
  /** Object id. */
  readonly id: string;
  /** For endpoints: the network's id. */
  readonly network?: string;
}

export const markPrefix = (instance: string): string => `sluice:${instance}:`;

export function formatMark(instance: string, mark: Mark): string {
  return `${markPrefix(instance)}${mark.what}:${mark.id}${mark.network ? `:${mark.network}` : ''}`;
}

/** Null for a link that is not this instance's. */
export function parseMark(instance: string, alias: string): Mark | null {
  const prefix = markPrefix(instance);
  if (!alias.startsWith(prefix)) return null;
  const [what, id, network] = alias.slice(prefix.length).split(':');
  if ((what !== 'network' && what !== 'endpoint') || !id) return null;
  return { what, id, network };
}

/** The device by which hosts test each other's checksums: the host's, and no network's or endpoint's. */
export const probeMark = (instance: string): string => `${markPrefix(instance)}probe`;
/** 15 characters at most, as a link's name may have; those of networks go on in hexadecimal digits, which `p` is none of. */
export const probeName = (instance: string): string => `sxprobe${instance}`;

/** How the bridge of a network is called, but one that was given a name by `-o bridge.name`. */
export const bridgeOf = (networkId: string): string => `sl${networkId.slice(0, 12)}`;

/**
 * The bits of the packet and conntrack marks that say from which of this host's global networks something comes; all other bits are left
 * as they are. A network's slot there is also the number of its conntrack zone and of its routing table.
 */
export const NETWORK_MARK = { mask: 0x3ff0_0000, shift: 20 } as const;
export const NETWORK_SLOTS_MAX = NETWORK_MARK.mask >>> NETWORK_MARK.shift;
export const markOf = (slot: number): number => slot << NETWORK_MARK.shift;
export const tableOf = (slot: number): number => 5_100_000 + slot;

/** nft tables of an instance, in family inet. */
export const policyTable = (instance: string): string => `sluice-${instance}-policy`;
/** The guard of the VXLAN port. */
export const vxlanTable = (instance: string): string => `sluice-${instance}-vxlan`;
/** Published ports. */
export const publishTable = (instance: string): string => `sluice-${instance}-publish`;
/** cgroup below the root that holds the sandboxes' cgroups. */
export const cgroupName = (instance: string): string => `sluice-${instance}`;
