/** An endpoint's interface as it must be inside its sandbox. By hand: `ip -n NS link set …`, `ip -n NS addr add …`. */
import type { JoinResult } from '../../contracts/driver.ts';
import type { Link, Namespace } from '../../contracts/kernel.ts';
import type { Endpoint, EndpointSpec } from '../../model/endpoint.ts';

export interface Inside {
  readonly link: Link;
  readonly mtu: number;
  readonly endpoint: EndpointSpec;
  readonly joined: JoinResult;
  readonly ipv6: boolean;
}

const bare = (address: string): string => address.split('/')[0]!;
const hostPrefix = (address: string): string => `${bare(address)}/${address.includes(':') ? 128 : 32}`;
/** As the addresses stand on the interface. */
const cidrsOf = ({ addresses }: EndpointSpec, { pointToPoint }: JoinResult): string[] =>
  pointToPoint ? addresses.map(hostPrefix) : [...addresses];

/** Name for a new interface: the one asked for, else the first free `<prefix>N`. */
export function chooseName(asked: string | undefined, prefix: string, taken: (name: string) => boolean): string {
  if (asked) return asked;
  let n = 0;
  while (taken(`${prefix}${n}`)) n++;
  return `${prefix}${n}`;
}

/** Brings the interface to its state; returns its name and what had to be done, in words. */
export function ensureInside(
  namespace: Namespace,
  { link, mtu, endpoint, joined, ipv6 }: Inside,
): { readonly name: string; readonly changed: readonly string[] } {
  const { netlink } = namespace;
  const changed: string[] = [];
  let name = link.name;
  const rightly = endpoint.ifname
    ? name === endpoint.ifname
    : name.startsWith(joined.ifprefix) && /^\d+$/.test(name.slice(joined.ifprefix.length));
  if (!rightly) {
    name = chooseName(endpoint.ifname, joined.ifprefix, (taken) => netlink.link(taken) !== null);
    // Kernels before 6.2 rename only what is down.
    if (link.up) netlink.setLink(link.ifindex, { up: false });
    netlink.setLink(link.ifindex, { name });
    changed.push(`interface ${link.name} renamed ${name}`);
  }
  if (link.mtu !== mtu) {
    netlink.setLink(link.ifindex, { mtu });
    changed.push(`MTU of ${name} set to ${mtu}`);
  }
  if (!rightly) {
    namespace.setSysctl(`net.ipv6.conf.${name}.disable_ipv6`, ipv6 ? '0' : '1');
    if (ipv6) namespace.setSysctl(`net.ipv6.conf.${name}.accept_ra`, '0');
  }
  // An IPv6 address on a link that is down keeps, one set before the link is up is there when the first packet is.
  const present = new Set(rightly ? netlink.addresses(link.ifindex).map(({ cidr }) => cidr) : []);
  for (const cidr of cidrsOf(endpoint, joined)) {
    if (present.has(cidr)) continue;
    netlink.ensureAddress(link.ifindex, cidr, { nodad: true });
    changed.push(`address ${cidr} set on ${name}`);
  }
  if (!link.up || !rightly) {
    netlink.setLink(link.ifindex, { up: true });
    changed.push(`${name} brought up`);
  }
  if (joined.neighbours.length > 0)
    netlink.ensureNeighbours(joined.neighbours.map(({ ip, mac }) => ({ link: link.ifindex, ip, mac })));
  if (joined.pointToPoint)
    for (const gateway of joined.gateways) netlink.ensureRoute({ dst: hostPrefix(gateway), link: link.ifindex });
  for (const { destination, gateway } of joined.routes)
    netlink.ensureRoute({ dst: destination, via: gateway, link: link.ifindex });
  return { name, changed };
}

/**
 * Takes the endpoint's interface out of use, wherever it is in the namespace: it is deleted a moment later, with others. Down, nameless, so
 * that the next endpoint can have its name, and without its addresses. `ifname` is where it was last, `joined` how; each spares a dump.
 */
export function withdrawInside(
  namespace: Namespace,
  { id, spec: endpoint }: Endpoint,
  { ifname, joined }: { readonly ifname?: string; readonly joined?: JoinResult },
): void {
  const { netlink } = namespace;
  const there = ifname ? netlink.link(ifname) : null;
  const link = there?.mac === endpoint.mac ? there : netlink.links().find(({ mac }) => mac === endpoint.mac);
  if (!link) return;
  netlink.setLink(link.ifindex, { up: false });
  netlink.setLink(link.ifindex, { name: `gone${id.slice(0, 11)}` });
  const isOurs = ({ cidr }: { readonly cidr: string }): boolean =>
    endpoint.addresses.some((address) => bare(address) === bare(cidr));
  const cidrs = joined
    ? cidrsOf(endpoint, joined)
    : netlink.addresses(link.ifindex).flatMap((one) => (isOurs(one) ? [one.cidr] : []));
  for (const cidr of cidrs) netlink.removeAddress(link.ifindex, cidr);
}
