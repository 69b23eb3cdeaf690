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
  /** It spans hosts: what is larger than fits is made to fit. */
  readonly tunnelled?: boolean;
  /** Of one that spans hosts and shares a subnet with something else here: its way of its own (path.ts). */
  readonly slot?: number;
  /** Of one that spans hosts: all goes by the bridge, as its options say. */
  readonly bridged?: boolean;
  /** What stays within a network that spans hosts is tracked: somebody else's rules ask for the state of its connections, or it does not come here. */
  readonly tracked?: boolean;
  readonly subnets: readonly { readonly cidr: string; readonly gateway?: string }[];
}

/**
 * The administrator's table: made when absent, with chains that see traffic before ours: as it comes in, published ports
 * by the address and port that clients ask for, then what is forwarded. Never rewritten.
 */
export const ADMIN_TABLE = 'sluice-admin';
export const ADMIN_RULESET = `table inet ${ADMIN_TABLE} {
  comment "yours: Sluice made it empty and never changes it"
  chain prerouting { type filter hook prerouting priority dstnat - 20; policy accept; }
  chain forward { type filter hook forward priority filter - 20; policy accept; }
}
`;

const v6 = (text: string): boolean => text.includes(':');
const quote = (name: string): string => `"${name}"`;

/** Constant: the kernel chooses a quicker table for what is never changed but with the whole. */
function set(name: string, type: string, elements: readonly string[], flags = ' flags constant;'): string {
  const body = elements.length > 0 ? ` elements = { ${elements.join(', ')} };` : '';
  return `  set ${name} { type ${type};${flags}${body} }\n`;
}

type Path = Pick<PolicyNetwork, 'tracked' | 'subnets' | 'slot'> & { readonly ifname: string };

const hex = (mark: number): string => `0x${(mark >>> 0).toString(16).padStart(8, '0')}`;
const MASK = hex(NETWORK_MARK.mask);
const OTHERS = hex(~NETWORK_MARK.mask);

/** Of a network that spans hosts: where what comes from its bridge goes first. */
const firstOf = ({ slot, ifname }: Path): string => (slot === undefined ? `within-${ifname}` : `zone-${slot}`);

/**
 * What goes from one endpoint of the network to another is not tracked: nothing here asks for its state, and where `bridge-nf-call-iptables`
 * takes bridged frames through the host's hooks, tracking them on both hosts costs a new connection a third of its speed. The gateway's
 * traffic is the host's own, with answers to those whom publishing masqueraded.
 */
function renderFirst(path: Path): string {
  const { slot, tracked, subnets } = path;
  const within = tracked
    ? []
    : subnets.map(({ cidr, gateway }) => {
        const ip = v6(cidr) ? 'ip6' : 'ip';
        return `    ${gateway ? `${ip} daddr != ${gateway} ` : ''}${ip} daddr ${cidr} notrack accept\n`;
      });
  const zone = slot === undefined ? '' : `    ct original zone set ${slot}\n`;
  return `  chain ${firstOf(path)} {\n${within.join('')}${zone}  }\n`;
}

/**
 * Networks that span hosts. Each hook costs every packet of the host, those of the tunnels among them, so that there is none that nobody needs:
 * zones and marks are for those that share a subnet with something else here; see path.ts.
 */
function renderPaths(paths: readonly Path[]): string {
  const slots = paths.flatMap(({ slot, ifname }) => (slot === undefined ? [] : [{ slot, ifname }]));
  const first = paths.filter(({ slot, tracked }) => slot !== undefined || !tracked);
  const zones = `${first.map(renderFirst).join('')}  chain zones {
    type filter hook prerouting priority raw; policy accept;
    iifname vmap { ${first.map((path) => `${quote(path.ifname)} : goto ${firstOf(path)}`).join(', ')} }
  }
`;
  const byMark = `ct mark and ${MASK} vmap { ${slots.map(({ slot }) => `${hex(markOf(slot))} : goto path-${slot}`).join(', ')} }`;
  const marks = `${slots
    .map(
      ({ slot }) => `  chain path-${slot} {
    meta mark set meta mark and ${OTHERS} or ${hex(markOf(slot))}
    ct mark set ct mark and ${OTHERS} or ${hex(markOf(slot))}
  }
`,
    )
    .join('')}  chain marks {
    type filter hook prerouting priority mangle; policy accept;
    iifname vmap { ${slots.map(({ slot, ifname }) => `${quote(ifname)} : goto path-${slot}`).join(', ')} }
    ${byMark}
  }
  chain answers {
    type route hook output priority mangle; policy accept;
    ${byMark}
  }
`;
  const fit = `  chain fit {
    type filter hook forward priority mangle; policy accept;
    tcp flags syn iifname @tunnelled tcp option maxseg size set rt mtu
    tcp flags syn oifname @tunnelled tcp option maxseg size set rt mtu
  }
`;
  return `${first.length > 0 ? zones : ''}${slots.length > 0 ? marks : ''}${paths.length > 0 ? fit : ''}`;
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
  const paths = all.filter(({ tunnelled }) => tunnelled);
  const pairs = (family: boolean): string[] =>
    gateways
      .filter(({ gateway }) => v6(gateway) === family)
      .map(({ ifname, gateway }) => `${quote(ifname)} . ${gateway}`);
  const alone = (family: boolean): string[] =>
    gateways.filter(({ gateway }) => v6(gateway) === family).map(({ gateway }) => gateway);

  // Bridges share a prefix, but for those that were given a name: most packets are told apart without a look into the set.
  const quick = all.every(({ ifname }) => ifname.startsWith('sl')) ? '    iifname != "sl*" accept\n' : '';
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
${quick}    iifname != @networks accept
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
