/** The MTU budget: the only place that knows how many bytes a network's encapsulation takes. */

/** Bytes that a driver puts around a packet, by the underlay's family. */
export interface Overhead {
  readonly ipv4: number;
  readonly ipv6: number;
}

/** Ethernet's own, where no underlay says otherwise. */
export const MTU_DEFAULT = 1500;
/** RFC 8200: the least that IPv6 works with. */
export const MTU_MIN_IPV6 = 1280;
/** RFC 791. */
export const MTU_MIN_IPV4 = 68;

/** MTU of a network: what was asked for, else the underlay's less the overhead. */
export function mtuBudget(asked: number | undefined, underlay: number | undefined, overhead = 0): number {
  return asked ?? (underlay ?? MTU_DEFAULT) - overhead;
}
