/** Subnets as they are asked for: pure. */
import { SluiceError } from '../errors.ts';
import {
  bitsOf,
  canonicalAddress,
  contains,
  type Family,
  familyOf,
  formatCidr,
  lastOf,
  overlaps,
  parseCidr,
} from '../model/ip.ts';
import type { Network } from '../model/network.ts';
import type { NetworkRequest } from '../model/request.ts';

export interface WantedSubnet {
  readonly family: Family;
  /** Canonical; absent: automatic. */
  readonly cidr?: string;
  readonly gateway?: string;
  readonly range?: string;
  readonly aux: Readonly<Record<string, string>>;
}

/** The families that a network is to have. */
export function familiesOf({ subnets = [], ipv4 = true, ipv6 }: NetworkRequest): { ipv4: boolean; ipv6: boolean } {
  return { ipv4, ipv6: ipv6 ?? subnets.some((subnet) => hintOf(subnet)?.includes(':')) };
}

/** What was asked for in canonical text, and an automatic subnet for each family that was asked for without one. `request.invalid`. */
export function wantedSubnets(request: NetworkRequest): WantedSubnet[] {
  const on = familiesOf(request);
  const families = ([4, 6] as const).filter((family) => (family === 4 ? on.ipv4 : on.ipv6));
  const wanted: WantedSubnet[] = [];
  const without = (): Family => families.find((family) => !wanted.some((one) => one.family === family)) ?? 4;
  for (const subnet of request.subnets ?? []) {
    const hint = hintOf(subnet);
    const family = hint ? familyOf(hint) : without();
    if (!families.includes(family))
      throw new SluiceError('request.invalid', `a subnet of IPv${family} on a network without IPv${family}`, {
        family,
        subnet: hint,
      });
    wanted.push({
      family,
      cidr: subnet.cidr && formatCidr(parseCidr(subnet.cidr, { strict: true })),
      gateway: subnet.gateway && canonicalAddress(subnet.gateway),
      range: subnet.range && formatCidr(parseCidr(subnet.range)),
      aux: Object.fromEntries(
        Object.entries(subnet.aux ?? {}).map(([name, address]) => [name, canonicalAddress(address)]),
      ),
    });
  }
  for (const family of families) if (!wanted.some((one) => one.family === family)) wanted.push({ family, aux: {} });
  for (const subnet of wanted) if (subnet.cidr) checkSubnet(subnet.cidr, subnet);
  const clash = wanted.find(
    ({ cidr }, n) => cidr && wanted.slice(0, n).some((one) => one.cidr && covers(one.cidr, cidr)),
  );
  if (clash)
    throw new SluiceError('network.overlap', `${clash.cidr} overlaps another subnet of the same network`, {
      cidr: clash.cidr,
    });
  return wanted;
}

const hintOf = ({ cidr, gateway, range }: NonNullable<NetworkRequest['subnets']>[number]): string | undefined =>
  cidr ?? gateway ?? range;
const covers = (a: string, b: string): boolean => overlaps(parseCidr(a), parseCidr(b));

/** Bits of host part from which on VIPs have a part of their own. */
const VIP_SUBNET_BITS_MIN = 7;
/** Smallest subnets that leave room for a gateway and an endpoint. */
const PREFIX_MAX = { 4: 31, 6: 127 } as const;

/** What no network can be (RFC 6890): v4-mapped addresses are how BPF maps write IPv4. */
const RESERVED: Readonly<Record<string, string>> = {
  '0.0.0.0/8': 'addresses of "this network"',
  '127.0.0.0/8': 'loopback addresses',
  '224.0.0.0/3': 'multicast and reserved addresses',
  '::/96': 'the unspecified and the loopback address',
  '::ffff:0:0/96': 'IPv4 addresses in the form of IPv6',
  'fe80::/10': 'link-local addresses',
  'ff00::/8': 'multicast addresses',
};

/** Whether the subnet can be a network, and what was asked for lies in it. `request.invalid`, `address.outside`. */
export function checkSubnet(text: string, { gateway, range, aux }: Omit<WantedSubnet, 'family' | 'cidr'>): void {
  const cidr = parseCidr(text);
  if (cidr.prefix > PREFIX_MAX[cidr.family])
    throw new SluiceError('request.invalid', `${text} has no room for a gateway and an endpoint`, { cidr: text });
  for (const [reserved, what] of Object.entries(RESERVED)) {
    if (covers(reserved, text))
      throw new SluiceError('request.invalid', `${text} cannot be a network: ${what} (${reserved})`, { cidr: text });
  }
  const places = Object.entries({ gateway, ...aux }).flatMap(([what, address]) => (address ? [{ what, address }] : []));
  for (const [n, { what, address }] of places.entries()) {
    if (!contains(cidr, address))
      throw new SluiceError('address.outside', `${what} ${address} is not in ${text}`, { address, cidr: text });
    const other = places.slice(0, n).find((place) => place.address === address);
    if (other)
      throw new SluiceError('request.invalid', `${other.what} and ${what} are both ${address}`, {
        address,
        cidr: text,
      });
  }
  if (range !== undefined) {
    const part = parseCidr(range);
    if (part.family !== cidr.family || part.base < cidr.base || lastOf(part) > lastOf(cidr))
      throw new SluiceError('address.outside', `the range ${range} is not in ${text}`, { range, cidr: text });
  }
}

/** Where VIPs of a global network come from: its upper sixteenth, of IPv6 at most 65,536 addresses; none of a subnet that is too small. */
export function vipsOf(text: string): string | undefined {
  const cidr = parseCidr(text);
  const bits = bitsOf(cidr.family);
  if (cidr.prefix > bits - VIP_SUBNET_BITS_MIN) return undefined;
  const prefix = Math.max(cidr.prefix + 4, cidr.family === 6 ? bits - 16 : 0);
  const size = 1n << BigInt(bits - prefix);
  return formatCidr({ family: cidr.family, base: lastOf(cidr) - size + 1n, prefix });
}

/** The first subnet that was asked for and is not there like that; what is automatic fits anything. */
export function missingSubnet({ spec }: Network, wanted: readonly WantedSubnet[]): WantedSubnet | undefined {
  return wanted.find(
    ({ family, cidr, gateway, range, aux }) =>
      !spec.subnets.some(
        (there) =>
          familyOf(there.cidr) === family &&
          (!cidr || there.cidr === cidr) &&
          (!gateway || there.gateway === gateway) &&
          (!cidr || (there.range ?? '') === (range ?? '')) &&
          Object.entries(aux).every(([name, address]) => there.aux?.[name] === address),
      ),
  );
}
