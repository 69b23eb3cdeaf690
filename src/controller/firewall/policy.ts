/**
 * The `policy` table: isolation between networks, what may enter, outward NAT. Pure: networks in, nft text out. The table is
 * replaced whole in one transaction; its sets keep the number of rules constant, whatever the number of networks.
 */
import { markOf, NETWORK_MARK, policyTable } from '../../model/mark.ts';

export interface PolicyNetwork {
  /** Interface on the host that carries it; without one the network is translated, but not isolated. */
  readonly ifname?: string;
  readonly internal: boolean;
  /** `-o masquerade=false` leaves the source address alone. */
  readonly masquerade: boolean;
  /** Of a network that spans hosts: its way of its own (path.ts); what is larger than fits is made to fit. */
  readonly slot?: number;
  /** What stays within a network that spans hosts is tracked, too: somebody else's rules ask for the state of its connections. */
  readonly tracked?: boolean;
  readonly subnets: readonly { readonly cidr: string; readonly gateway?: string }[];
}

/**
 * The administrator's table: made when absent, with chains that see traffic before ours: as it comes in, published ports
 * by the address and port that clients ask for, then what is forwarded and what is for this host. Never rewritten.
 */
export const ADMIN_TABLE = 'sluice-admin';
export const ADMIN_RULESET = `table inet ${ADMIN_TABLE} {
  comment "yours: Sluice made it empty and never changes it"
  chain prerouting { type filter hook prerouting priority dstnat - 20; policy accept; }
  chain forward { type filter hook forward priority filter - 20; policy accept; }
  chain input { type filter hook input priority filter - 20; policy accept; }
}
`;

const v6 = (text: string): boolean => text.includes(':');
const quote = (name: string): string => `"${name}"`;

function set(name: string, type: string, elements: readonly string[], flags = ''): string {
  const body = elements.length > 0 ? ` elements = { ${elements.join(', ')} };` : '';
  return `  set ${name} { type ${type};${flags}${body} }\n`;
}

interface Path extends Pick<PolicyNetwork, 'tracked' | 'subnets'> {
  readonly ifname: string;
  readonly slot: number;
}

const hex = (mark: number): string => `0x${(mark >>> 0).toString(16).padStart(8, '0')}`;
const MASK = hex(NETWORK_MARK.mask);
const OTHERS = hex(~NETWORK_MARK.mask);

/**
 * What goes from one endpoint of the network to another is not tracked: nothing here asks for its state, and where `bridge-nf-call-iptables`
 * takes bridged frames through the host's hooks, tracking them on both hosts costs a new connection a third of its speed. The gateway's
 * traffic is the host's own, with answers to those whom publishing masqueraded.
 */
function renderPath({ slot, tracked, subnets }: Path): string {
  const within = tracked
    ? []
    : subnets.map(({ cidr, gateway }) => {
        const ip = v6(cidr) ? 'ip6' : 'ip';
        return `    ${gateway ? `${ip} daddr != ${gateway} ` : ''}${ip} daddr ${cidr} notrack accept\n`;
      });
  return `  chain zone-${slot} {
${within.join('')}    ct original zone set ${slot}
  }
  chain path-${slot} {
    meta mark set meta mark and ${OTHERS} or ${hex(markOf(slot))}
    ct mark set ct mark and ${OTHERS} or ${hex(markOf(slot))}
  }
`;
}

/** Zones and marks of the networks that span hosts; see path.ts. */
function renderPaths(paths: readonly Path[]): string {
  if (paths.length === 0) return '';
  const list = (of: (path: Path) => string): string => paths.map(of).join(', ');
  const byInterface = (chain: string): string =>
    `iifname vmap { ${list(({ ifname, slot }) => `${quote(ifname)} : goto ${chain}-${slot}`)} }`;
  const byMark = `ct mark and ${MASK} vmap { ${list(({ slot }) => `${hex(markOf(slot))} : goto path-${slot}`)} }`;
  return `${paths.map(renderPath).join('')}  chain zones {
    type filter hook prerouting priority raw; policy accept;
    ${byInterface('zone')}
  }
  chain marks {
    type filter hook prerouting priority mangle; policy accept;
    ${byInterface('path')}
    ${byMark}
  }
  chain answers {
    type route hook output priority mangle; policy accept;
    ${byMark}
  }
  chain fit {
    type filter hook forward priority mangle; policy accept;
    tcp flags syn iifname @tunnelled tcp option maxseg size set rt mtu
    tcp flags syn oifname @tunnelled tcp option maxseg size set rt mtu
  }
`;
}

/** nft text that replaces the whole table, from whatever was there before. Networks are taken in a stable order. */
export function renderPolicy(instance: string, networks: readonly PolicyNetwork[]): string {
  const table = `inet ${policyTable(instance)}`;
  const order = (network: PolicyNetwork): string => `${network.ifname ?? ''} ${network.subnets[0]?.cidr ?? ''}`;
  const every = [...networks].sort((a, b) => (order(a) < order(b) ? -1 : 1));
  const all = every.flatMap((network) => (network.ifname ? [{ ...network, ifname: network.ifname }] : []));
  const names = all.map(({ ifname }) => quote(ifname));
  const internal = all.filter((network) => network.internal).map(({ ifname }) => quote(ifname));
  const translated = every
    .filter((network) => !network.internal && network.masquerade)
    .flatMap(({ subnets }) => subnets.map(({ cidr }) => cidr));
  const gateways = all.flatMap(({ ifname, subnets }) =>
    subnets.flatMap(({ gateway }) => (gateway ? [{ ifname, gateway }] : [])),
  );
  const paths = all.flatMap(({ slot, ...network }) => (slot === undefined ? [] : [{ ...network, slot }]));
  const pairs = (family: boolean): string[] =>
    gateways
      .filter(({ gateway }) => v6(gateway) === family)
      .map(({ ifname, gateway }) => `${quote(ifname)} . ${gateway}`);
  const alone = (family: boolean): string[] =>
    gateways.filter(({ gateway }) => v6(gateway) === family).map(({ gateway }) => gateway);

  return `table ${table}
delete table ${table}
table ${table} {
${set('networks', 'ifname', names)}${
  paths.length > 0
    ? set(
        'tunnelled',
        'ifname',
        paths.map(({ ifname }) => quote(ifname)),
      )
    : ''
}${set('internal', 'ifname', internal)}${set(
  'same',
  'ifname . ifname',
  names.map((name) => `${name} . ${name}`),
)}${set(
  'nat4',
  'ipv4_addr',
  translated.filter((cidr) => !v6(cidr)),
  ' flags interval;',
)}${set('nat6', 'ipv6_addr', translated.filter(v6), ' flags interval;')}${set('gateways4', 'ipv4_addr', alone(false))}${set('gateways6', 'ipv6_addr', alone(true))}${set(
  'own4',
  'ifname . ipv4_addr',
  pairs(false),
)}${set('own6', 'ifname . ipv6_addr', pairs(true))}
${renderPaths(paths)}  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @same accept
    iifname @internal counter drop comment "internal"
    oifname @internal counter drop comment "internal"
    iifname @networks oifname @networks ct status dnat accept
    iifname @networks oifname @networks counter drop comment "isolation"
    ct state established,related accept
    iifname @networks accept
    oifname @networks ct status dnat accept
    oifname @networks counter drop comment "not published"
  }
  chain input {
    type filter hook input priority filter; policy accept;
    iifname != @networks accept
    iifname . ip daddr @own4 accept
    iifname . ip6 daddr @own6 accept
    ip daddr @gateways4 counter drop comment "gateway of another network"
    ip6 daddr @gateways6 counter drop comment "gateway of another network"
    iifname != @internal accept
    meta l4proto icmpv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    counter drop comment "internal"
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname @networks accept
    ip saddr @nat4 masquerade
    ip6 saddr @nat6 masquerade
  }
}
`;
}
