/** Which address and which subnet come next: pure. */
import { bitsOf, type Cidr, type Family, familyOf, lastOf, parseAddress, parseCidr, sizeOf } from '../model/ip.ts';
import type { Occupancy } from './occupancy.ts';

/**
 * The addresses of a subnet that may be given. IPv4: not the network's and the broadcast address, but both of a /31 and the one of a /32
 * (RFC 3021). IPv6: not the subnet-router anycast address (RFC 4291, 2.6.1), but both of a /127 (RFC 6164) and the one of a /128.
 */
export function usable(cidr: Cidr): { readonly low: bigint; readonly high: bigint } {
  const last = lastOf(cidr);
  if (cidr.prefix >= bitsOf(cidr.family) - 1) return { low: cidr.base, high: last };
  return { low: cidr.base + 1n, high: cidr.family === 4 ? last - 1n : last };
}

export interface Choice {
  readonly cidr: Cidr;
  readonly range?: Cidr;
  /** The upper end of the subnet, for other purposes. */
  readonly except?: Cidr;
  readonly taken: Occupancy;
  /** The address given last: the search goes on behind it, so that one that was just freed rests. */
  readonly cursor: bigint;
  /** From the upper end down instead. */
  readonly fromTop: boolean;
}

/** The next free address, null: none is left. */
export function nextAddress({ cidr, range, except, taken, cursor, fromTop }: Choice): bigint | null {
  const all = usable(cidr);
  const low = range && range.base > all.low ? range.base : all.low;
  const end = range && lastOf(range) < all.high ? lastOf(range) : all.high;
  const high = except && except.base <= end ? except.base - 1n : end;
  if (high < low) return null;
  if (fromTop) return taken.highestFree(low, high);
  const inside = cursor >= low && cursor < high;
  return (inside ? taken.lowestFree(cursor + 1n, high) : null) ?? taken.lowestFree(low, high);
}

export interface PoolBase {
  /** `172.17.0.0/12`: subnets count from the address that is written, to the end of the prefix. */
  readonly base: string;
  /** Prefix length of the subnets that it is cut into. */
  readonly size: number;
}

/** The first subnet of the bases that overlaps nothing of `taken`, null: none is left. `least`: its prefix length at least. */
export function nextSubnet(bases: readonly PoolBase[], family: Family, taken: readonly Cidr[], least = 0): Cidr | null {
  const blocks = taken
    .filter((other) => other.family === family)
    .map((other) => ({ low: other.base, high: lastOf(other) }))
    .sort((a, b) => (a.low < b.low ? -1 : 1));
  for (const { base, size: usual } of bases) {
    if (familyOf(base) !== family) continue;
    const size = Math.max(usual, least);
    const whole = parseCidr(base);
    const step = sizeOf({ family, base: 0n, prefix: size });
    const align = (value: bigint): bigint => ((value + step - 1n) / step) * step;
    let at = align(parseAddress(base.split('/')[0]!).value);
    // Blocks are in order of where they begin: each can only push further up.
    for (const { low, high } of blocks) if (low < at + step && high >= at) at = align(high + 1n);
    if (at + step - 1n <= lastOf(whole)) return { family, base: at, prefix: size };
  }
  return null;
}
