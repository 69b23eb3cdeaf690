/**
 * The `publish` table: published ports in, nft text out. One flat map a family (address, protocol, port and slot → backend and port), looked up
 * once for the first packet of a connection, whatever the number of ports. Pure.
 */
import type { FrontendProtocol } from '../../contracts/dataplane.ts';
import type { PublishedBackend, PublishedPort } from '../../contracts/publisher.ts';
import { contains, formatAddress, parseCidr } from '../../model/ip.ts';
import { publishTable } from '../../model/mark.ts';

const PROTOCOLS: readonly FrontendProtocol[] = ['tcp', 'udp'];

/** Slots of a port: each holds a backend, a new connection takes one at random. */
export const SLOTS = 16;

export const isWildcard = (address: string): boolean => address === '0.0.0.0' || address === '::';
/** Left to the connect hook: the kernel drops an answer that becomes `::1` on its way in. */
const LOOPBACK6 = '::1';
const familyOf = ({ address }: PublishedPort): 4 | 6 => (address.includes(':') ? 6 : 4);

/** Whether two cannot both be: as with sockets, every address of the host means each of them. */
export const overlap = (a: PublishedPort, b: PublishedPort): boolean =>
  a.protocol === b.protocol &&
  a.port === b.port &&
  familyOf(a) === familyOf(b) &&
  (a.address === b.address || isWildcard(a.address) || isWildcard(b.address));

/** Which backend each slot holds. */
export const slotsOf = (backends: readonly PublishedBackend[]): PublishedBackend[] =>
  backends.length === 0 ? [] : Array.from({ length: SLOTS }, (_, slot) => backends[slot % backends.length]!);

/** Without those that lie within another: the kernel takes no two ranges that overlap. */
export function widest(cidrs: readonly string[]): string[] {
  const parsed = [...new Set(cidrs)].map((text) => ({ text, cidr: parseCidr(text) }));
  return parsed
    .filter(
      ({ cidr }, n) =>
        !parsed.some(
          (other, m) =>
            n !== m &&
            contains(other.cidr, formatAddress(cidr.family, cidr.base)) &&
            (other.cidr.prefix < cidr.prefix || (other.cidr.prefix === cidr.prefix && m < n)),
        ),
    )
    .map(({ text }) => text)
    .sort();
}

interface Elements {
  readonly map: string[];
  /** Ports that do not take everybody, and whom they take, by protocol. */
  readonly closed: string[];
  readonly from: Readonly<Record<FrontendProtocol, string[]>>;
}

function elementsOf(ports: readonly PublishedPort[]): Elements {
  const found: Elements = { map: [], closed: [], from: { tcp: [], udp: [] } };
  for (const { address, port, protocol, from, backends } of ports) {
    const at = isWildcard(address) ? '' : `${address} . `;
    const key = `${at}${protocol} . ${port}`;
    for (const [slot, backend] of slotsOf(backends).entries())
      found.map.push(`${key} . ${slot} : ${backend.address} . ${backend.port}`);
    if (from === 'any') continue;
    found.closed.push(key);
    for (const cidr of widest(from)) found.from[protocol].push(`${at}${port} . ${cidr}`);
  }
  return found;
}

const list = (elements: readonly string[]): string =>
  elements.length > 0 ? ` elements = { ${[...elements].sort().join(', ')} };` : '';

/** One family: maps and sets for ports of one address and of all of them, and the chains that go by them. */
function renderFamily(family: 4 | 6, ports: readonly PublishedPort[]): string {
  const ours = ports.filter((port) => familyOf(port) === family && port.address !== LOOPBACK6);
  const [ip, type] = family === 4 ? ['ip', 'ipv4_addr'] : ['ip6', 'ipv6_addr'];
  const at = elementsOf(ours.filter(({ address }) => !isWildcard(address)));
  const any = elementsOf(ours.filter(({ address }) => isWildcard(address)));
  const slot = `numgen random mod ${SLOTS}`;
  // One a protocol: nft 1.0.6 turns the byte of `meta l4proto` in a range's key around as if it were two, which Linux 6.12 refuses.
  const from = PROTOCOLS.map(
    (
      each,
    ) => `  set from-at${family}-${each} { type ${type} . inet_service . ${type}; flags interval;${list(at.from[each])} }
  set from-any${family}-${each} { type inet_service . ${type}; flags interval;${list(any.from[each])} }
`,
  ).join('');
  const refuse = PROTOCOLS.map(
    (
      each,
    ) => `    meta l4proto ${each} ${ip} daddr . meta l4proto . th dport @closed-at${family} ${ip} daddr . th dport . ${ip} saddr != @from-at${family}-${each} return
    meta l4proto ${each} meta l4proto . th dport @closed-any${family} th dport . ${ip} saddr != @from-any${family}-${each} return
`,
  ).join('');
  return `  map at${family} { typeof ${ip} daddr . meta l4proto . th dport . ${slot} : ${ip} daddr . th dport;${list(at.map)} }
  map any${family} { typeof meta l4proto . th dport . ${slot} : ${ip} daddr . th dport;${list(any.map)} }
  set closed-at${family} { type ${type} . inet_proto . inet_service;${list(at.closed)} }
  set closed-any${family} { type inet_proto . inet_service;${list(any.closed)} }
${from}  chain translate${family} {${family === 6 ? `\n    ip6 daddr ${LOOPBACK6} return` : ''}
    dnat ${ip} to ${ip} daddr . meta l4proto . th dport . ${slot} map @at${family}
    fib daddr type local dnat ${ip} to meta l4proto . th dport . ${slot} map @any${family}
  }
  chain enter${family} {
${refuse}    goto translate${family}
  }
`;
}

/**
 * nft text that replaces the whole table, from whatever was there before. Clients of the host's own loopback, and those on the bridge of their
 * backend, appear as the gateway: answers to them would not come back this way otherwise.
 */
export function renderPublish(instance: string, ports: readonly PublishedPort[]): string {
  const table = `inet ${publishTable(instance)}`;
  const backends = ports.filter(({ address }) => address !== LOOPBACK6).flatMap((port) => port.backends);
  const bridges = [...new Set(backends.map(({ ifname }) => `"${ifname}"`))];
  const neighbours = (family: 4 | 6): string => {
    const of = backends.filter(({ subnet }) => subnet.includes(':') === (family === 6));
    const elements = [...new Set(of.map(({ ifname, subnet }) => `"${ifname}" . ${subnet}`))];
    return `  set beside${family} { type ifname . ipv${family}_addr; flags interval;${list(elements)} }\n`;
  };
  return `table ${table}
delete table ${table}
table ${table} {
  set bridges { type ifname;${list(bridges)} }
${neighbours(4)}${neighbours(6)}${renderFamily(4, ports)}${renderFamily(6, ports)}  chain loopback {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 counter drop comment "the host's loopback"
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    meta nfproto vmap { ipv4 : jump enter4, ipv6 : jump enter6 }
  }
  chain output {
    type nat hook output priority -100; policy accept;
    meta nfproto vmap { ipv4 : jump translate4, ipv6 : jump translate6 }
  }
  chain postrouting {
    type nat hook postrouting priority srcnat - 10; policy accept;
    oifname @bridges ip saddr 127.0.0.0/8 masquerade
    ct status dnat oifname . ip saddr @beside4 masquerade
    ct status dnat oifname . ip6 saddr @beside6 masquerade
  }
}
`;
}
