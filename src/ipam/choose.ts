/** Which address comes next: pure. */
import { type Cidr, lastOf } from '../model/ip.ts';

/**
 * The addresses of a subnet that may be given. IPv4: not the network's and the broadcast address, but both of a /31 and the one of a /32
 * (RFC 3021). IPv6: not the subnet-router anycast address (RFC 4291), but both of a /127 and the one of a /128.
 */
export function usable(cidr: Cidr): { readonly first: bigint; readonly last: bigint } {
  const bits = cidr.family === 4 ? 32 : 128;
  const last = lastOf(cidr);
  if (cidr.prefix >= bits - 1) return { first: cidr.base, last };
  return { first: cidr.base + 1n, last: cidr.family === 4 ? last - 1n : last };
}

/**
 * Free addresses in the order in which they should be tried: after the cursor and round to it again; VIPs from the upper end down, so that
 * they stay apart from endpoints.
 */
export function* candidates(
  cidr: Cidr,
  range: Cidr | undefined,
  fromTop: boolean,
  cursor: bigint,
  taken: ReadonlySet<bigint>,
): Generator<bigint> {
  const all = usable(cidr);
  const low = range && range.base > all.first ? range.base : all.first;
  const top = range && lastOf(range) < all.last ? lastOf(range) : all.last;
  if (top < low) return;
  if (fromTop) {
    for (let value = top; value >= low; value--) if (!taken.has(value)) yield value;
    return;
  }
  const start = cursor >= low && cursor < top ? cursor + 1n : low;
  for (let value = start; value <= top; value++) if (!taken.has(value)) yield value;
  for (let value = low; value < start; value++) if (!taken.has(value)) yield value;
}
