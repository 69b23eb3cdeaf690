/** Which address of the host packets of global networks leave and enter by. By hand: `ip route get`, `ip addr`. */
import type { Underlay } from '../../contracts/driver.ts';
import type { Address, Netlink } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { canonicalAddress, tryParse } from '../../model/ip.ts';
import { parseMark, probeMark } from '../../model/mark.ts';

export interface UnderlaySettings {
  /** Address or interface. */
  readonly dataPathAddr?: string;
  readonly advertise?: string;
  readonly vxlanPort: number;
}

const RT_SCOPE_UNIVERSE = 0;
const RTN_UNICAST = 1;
const bare = (cidr: string): string => cidr.split('/')[0]!;
const isIpv6 = (text: string): boolean => text.includes(':');

/** The address that the settings name, else the one of the interface with the best default route, IPv4 first. `network.underlay`. */
export function findUnderlay(netlink: Netlink, { dataPathAddr, advertise, vxlanPort }: UnderlaySettings): Underlay {
  const asked = dataPathAddr ?? advertise;
  const at = (address: Address): Underlay => {
    const link = netlink.link(address.ifindex);
    if (!link) throw none(`interface ${address.ifindex} went while its address was looked at`);
    return { address: bare(address.cidr), port: vxlanPort, ifname: link.name, mtu: link.mtu };
  };
  if (asked !== undefined && tryParse(asked) !== null) {
    const wanted = canonicalAddress(asked);
    const found = netlink.addresses().find(({ cidr }) => bare(cidr) === wanted);
    if (!found) throw none(`no interface of this host has the address ${asked}`);
    return at(found);
  }
  if (asked !== undefined) {
    const link = netlink.link(asked);
    if (!link) throw none(`there is no interface ${asked}`);
    const found = firstOf(netlink, link.ifindex);
    if (!found) throw none(`interface ${asked} has no address`);
    return at(found);
  }
  const defaults = netlink
    .routes()
    .filter(({ dst, ifindex, type }) => (dst === '0.0.0.0/0' || dst === '::/0') && ifindex > 0 && type === RTN_UNICAST)
    .sort((a, b) => Number(isIpv6(a.dst)) - Number(isIpv6(b.dst)) || a.metric - b.metric);
  for (const { dst, ifindex } of defaults) {
    const found = firstOf(netlink, ifindex, isIpv6(dst));
    if (found) return at(found);
  }
  throw none('the host has no default route');
}

/** Prefixes to which the host has routes, but by links of our networks, which are pools already, and by the one of its own test of checksums. */
export function ownPrefixes(netlink: Netlink, instance: string): string[] {
  const ours = new Set(
    netlink
      .links()
      .filter(({ alias }) => parseMark(instance, alias)?.what === 'network' || alias === probeMark(instance))
      .map(({ ifindex }) => ifindex),
  );
  return netlink
    .routes()
    .filter(({ dst, table, type }) => type === RTN_UNICAST && (table === 254 || table < 253) && !dst.endsWith('/0'))
    .filter(({ ifindex }) => !ours.has(ifindex))
    .map(({ dst }) => dst);
}

function firstOf(netlink: Netlink, ifindex: number, v6?: boolean): Address | undefined {
  const global = netlink.addresses(ifindex).filter(({ scope }) => scope === RT_SCOPE_UNIVERSE);
  return v6 === undefined
    ? (global.find(({ cidr }) => !isIpv6(cidr)) ?? global[0])
    : global.find(({ cidr }) => isIpv6(cidr) === v6);
}

const none = (why: string): SluiceError =>
  new SluiceError('network.underlay', `no address for overlay networks: ${why} (settings dataPathAddr, advertise)`);
