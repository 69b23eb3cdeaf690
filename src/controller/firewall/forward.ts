/**
 * Who else drops what we forward, or what other nodes send to our VXLAN port. An accept in our table cannot override a drop in another's (Docker, ufw and firewalld set one
 * on FORWARD), and `bridge-nf-call-iptables` takes even bridged traffic there. Pure: objects of `nft -j list ruleset` in,
 * the chains that drop it out.
 */
import { bitsOf, familyOf, overlaps, parseCidr } from '../../model/ip.ts';
import { ADMIN_TABLE } from './policy.ts';

interface Chain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly type?: string;
  readonly hook?: string;
  readonly policy?: string;
  /** Of the netdev family: where it stands. */
  readonly dev?: string | readonly string[];
}
interface Rule {
  readonly family: string;
  readonly table: string;
  readonly chain: string;
  readonly expr: readonly Record<string, unknown>[];
}

export interface Blocker {
  /** `ip filter` */
  readonly table: string;
  readonly chain: string;
  /** What its author is called where that can be told: docker, ufw, firewalld. */
  readonly owner?: string;
  /** Command that lets our networks through. */
  readonly fix: string;
}

type Verdict = 'accept' | 'drop' | 'continue' | 'return';
/** Chains jumped through before a loop is suspected. */
const DEPTH_MAX = 16;

/** What is known of the packets that rules are judged for. */
interface Packets {
  readonly ifname?: string;
  readonly oifname?: string;
  readonly udpPort?: number;
  /** CIDRs that both ends are in; neither is the host itself. */
  readonly within?: readonly string[];
}

/** What is to get through: everything that comes in by an interface, or UDP to one port. */
export interface Passage extends Packets {
  readonly hook: 'forward' | 'input';
  readonly ifname: string;
}

/**
 * Chains with that hook that end in drop or reject for a new connection that comes in by `ifname`. Rules that match on anything but
 * interfaces (and the port) cannot be judged here and are passed over: they decide about some traffic, the last word about the rest.
 */
export function findBlockers(
  ruleset: readonly Record<string, unknown>[],
  passage: Passage,
  isOurs: (table: string) => boolean,
): Blocker[] {
  const chains = ruleset.flatMap((object) => ('chain' in object ? [object.chain as Chain] : []));
  const rules = ruleset.flatMap((object) => ('rule' in object ? [object.rule as Rule] : []));
  const blockers: Blocker[] = [];
  for (const chain of chains) {
    if (chain.hook !== passage.hook || chain.type !== 'filter' || isOurs(chain.table) || chain.table === ADMIN_TABLE)
      continue;
    const inChain = (name: string): Rule[] =>
      rules.filter((rule) => rule.family === chain.family && rule.table === chain.table && rule.chain === name);
    const verdict = walk(inChain, chain.name, passage, 0);
    if (verdict === 'drop' || ((verdict === 'continue' || verdict === 'return') && chain.policy === 'drop')) {
      const names = new Set(
        chains
          .filter((other) => other.family === chain.family && other.table === chain.table)
          .map((other) => other.name),
      );
      blockers.push({
        table: `${chain.family} ${chain.table}`,
        chain: chain.name,
        ...adviceFor(chain, names, passage),
      });
    }
  }
  return blockers;
}

/** Modules of iptables that ask conntrack; nft before 1.1 does not name them, so that each may be one. */
const STATEFUL = ['conntrack', 'state', 'connmark', 'connlimit', 'connbytes', 'ctstatus', 'helper'];

/**
 * Whether somebody else's rule asks for the state of connections that come in by an interface and go out by it again: then these have to be
 * tracked, or an answer would be taken for nobody's. The administrator's own table counts.
 */
export function asksForState(
  ruleset: readonly Record<string, unknown>[],
  ifname: string,
  isOurs: (table: string) => boolean,
): boolean {
  const passage: Passage = { hook: 'forward', ifname, oifname: ifname };
  let asks = false;
  const seen = (expr: Rule['expr']): void => {
    asks ||= expr.some(
      (part) =>
        isOfState((part.match as { left?: unknown } | undefined)?.left) ||
        isOfState(part.vmap) ||
        'ct count' in part ||
        ('xt' in part && STATEFUL.includes((part.xt as { name?: string } | null)?.name ?? 'state')),
    );
  };
  const chains = ruleset.flatMap((object) => ('chain' in object ? [object.chain as Chain] : []));
  const rules = ruleset.flatMap((object) => ('rule' in object ? [object.rule as Rule] : []));
  for (const chain of chains) {
    if (chain.hook !== passage.hook || chain.type !== 'filter') continue;
    if (isOurs(chain.table) && chain.table !== ADMIN_TABLE) continue;
    const inChain = (name: string): Rule[] =>
      rules.filter((rule) => rule.family === chain.family && rule.table === chain.table && rule.chain === name);
    walk(inChain, chain.name, passage, 0, seen);
  }
  return asks;
}

/** What a rule may hold that leaves a frame as it is and lets it through. */
const HARMLESS = ['match', 'counter', 'accept', 'return', 'jump', 'goto', 'comment'];
const FRAME_HOOKS = ['prerouting', 'forward', 'postrouting'];

/**
 * Somebody else's chain that may drop, change or log what stays within a network's bridge, as `ip filter FORWARD`; null: nobody's does, and
 * frames may go past all of them. `bridged`: the families whose hooks the host takes bridged frames through (`bridge-nf-call-iptables`).
 * Chains of NAT see nothing of it, for it is not tracked. The administrator's own table counts.
 */
export function seesFrames(
  ruleset: readonly Record<string, unknown>[],
  { ifname, subnets, devices, bridged }: FramePath,
  isOurs: (table: string) => boolean,
): string | null {
  const chains = ruleset.flatMap((object) => ('chain' in object ? [object.chain as Chain] : []));
  const rules = ruleset.flatMap((object) => ('rule' in object ? [object.rule as Rule] : []));
  for (const chain of chains) {
    const { family, table, name, hook, type, policy, dev = [] } = chain;
    if (!hook || type === 'nat' || (isOurs(table) && table !== ADMIN_TABLE)) continue;
    const isDevice = family === 'netdev' && [dev].flat().some((each) => devices(each));
    const isBridge = family === 'bridge' || bridged.some((each) => family === 'inet' || family === each);
    if (!isDevice && !(isBridge && FRAME_HOOKS.includes(hook))) continue;
    const inChain = (wanted: string): Rule[] =>
      rules.filter((rule) => rule.family === family && rule.table === table && rule.chain === wanted);
    let acts = false;
    // In the families of bridges and devices an interface is a port.
    const found = family === 'bridge' || isDevice ? { within: subnets } : { ifname, oifname: ifname, within: subnets };
    const verdict = walk(inChain, name, found, 0, (expr) => {
      acts ||= expr.some((part) => !isHarmless(part));
    });
    if (acts || (policy === 'drop' && verdict !== 'accept')) return `${family} ${table} ${name}`;
  }
  return null;
}

const isHarmless = (part: Record<string, unknown>): boolean =>
  HARMLESS.some((word) => word in part) || (part.xt as { type?: string } | null | undefined)?.type === 'match';

export interface FramePath {
  /** Of the bridge. */
  readonly ifname: string;
  readonly subnets: readonly string[];
  /** Whether an interface is a port of the bridge's. */
  readonly devices: (name: string) => boolean;
  readonly bridged: readonly ('ip' | 'ip6')[];
}

/** Whether an expression of nft's looks at conntrack, however deep inside. */
function isOfState(expression: unknown): boolean {
  if (Array.isArray(expression)) return expression.some(isOfState);
  if (typeof expression !== 'object' || expression === null) return false;
  return 'ct' in expression || Object.values(expression).some(isOfState);
}

/** `seen` is told of each rule that some of the passage's packets come to. */
function walk(
  inChain: (name: string) => Rule[],
  name: string,
  passage: Packets,
  depth: number,
  seen?: (expr: Rule['expr']) => void,
): Verdict {
  if (depth > DEPTH_MAX) return 'continue';
  for (const { expr } of inChain(name)) {
    const relevance = judge(expr, passage);
    if (relevance === 'no') continue;
    seen?.(expr);
    const verdict = verdictOf(expr);
    if (verdict === 'accept' || verdict === 'drop' || verdict === 'return') {
      // iptables' own matches are not shown: an accept for UDP that has one may well be the one for our port.
      const benefit = verdict === 'accept' && passage.udpPort !== undefined && expr.some((part) => 'xt' in part);
      if (relevance === 'yes' || benefit) return verdict;
      continue;
    }
    if (typeof verdict === 'object' && seen && relevance === 'maybe')
      walk(inChain, verdict.target, passage, depth + 1, seen);
    if (typeof verdict === 'object' && relevance === 'yes') {
      const inner = walk(inChain, verdict.target, passage, depth + 1, seen);
      if (inner === 'accept' || inner === 'drop') return inner;
      if (verdict.goto) return 'continue';
    }
  }
  return 'continue';
}

/** `yes`: every packet of a new connection on the passage matches; `no`: none does; `maybe`: it depends on something else. */
function judge(
  expr: readonly Record<string, unknown>[],
  { ifname, oifname, udpPort, within }: Packets,
): 'yes' | 'no' | 'maybe' {
  let result: 'yes' | 'maybe' = 'yes';
  for (const statement of expr) {
    if ('xt' in statement) result = 'maybe';
    if (!('match' in statement)) continue;
    const { op, left, right } = statement.match as { op: string; left: Record<string, unknown>; right: unknown };
    const key = (left as { meta?: { key?: string } }).meta?.key;
    const field = (left as { payload?: { protocol?: string; field?: string } }).payload;
    const isPositive = op === '==' || op === 'in';
    if (udpPort !== undefined && key === 'l4proto') {
      if ((right === 'udp' || right === 17) !== isPositive) return 'no';
      continue;
    }
    if (udpPort !== undefined && field?.field === 'dport') {
      if ((field.protocol !== 'tcp' && coversPort(right, udpPort)) !== isPositive) return 'no';
      continue;
    }
    if (within && isElsewhere(left, right, within)) {
      if (isPositive) return 'no';
      continue;
    }
    const name = key === 'iifname' ? ifname : key === 'oifname' ? oifname : undefined;
    if (name === undefined) {
      result = 'maybe';
      continue;
    }
    const patterns =
      typeof right === 'object' && right !== null && 'set' in right ? (right.set as string[]) : [String(right)];
    const hit = patterns.some((pattern) =>
      pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : pattern === name,
    );
    if (hit !== isPositive) return 'no';
  }
  return result;
}

/** Whether a match is for addresses of which none is in these subnets, or for the host itself. */
function isElsewhere(left: Record<string, unknown>, right: unknown, subnets: readonly string[]): boolean {
  if ('fib' in left) return right === 'local';
  const { field, protocol } = (left.payload ?? {}) as { field?: string; protocol?: string };
  if (!/^[sd]addr$/.test(field ?? '') || !/^ip6?$/.test(protocol ?? '')) return false;
  const values = typeof right === 'object' && right !== null && 'set' in right ? (right.set as unknown[]) : [right];
  return values.every((value) => {
    const { prefix } = (typeof value === 'object' && value !== null ? value : {}) as {
      prefix?: { addr: string; len: number };
    };
    // Ranges and named sets are not looked into.
    if (!prefix && (typeof value !== 'string' || value.startsWith('@'))) return false;
    const address = prefix?.addr ?? (value as string);
    const theirs = parseCidr(`${address}/${prefix?.len ?? bitsOf(familyOf(address))}`);
    return !subnets.some((cidr) => overlaps(parseCidr(cidr), theirs));
  });
}

/** A port, `{range: [a, b]}`, or `{set: […]}` of them; a named set cannot be looked into. */
function coversPort(right: unknown, port: number): boolean {
  if (typeof right === 'number') return right === port;
  const { set, range } = (right ?? {}) as { set?: unknown[]; range?: [number, number] };
  if (range) return port >= range[0] && port <= range[1];
  return Array.isArray(set) && set.some((one) => coversPort(one, port));
}

function verdictOf(expr: readonly Record<string, unknown>[]): Verdict | { target: string; goto: boolean } {
  for (const statement of expr) {
    if ('accept' in statement) return 'accept';
    if ('drop' in statement || 'reject' in statement) return 'drop';
    if ('return' in statement) return 'return';
    if ('jump' in statement) return { target: (statement.jump as { target: string }).target, goto: false };
    if ('goto' in statement) return { target: (statement.goto as { target: string }).target, goto: true };
  }
  return 'continue';
}

function adviceFor(chain: Chain, names: ReadonlySet<string>, passage: Passage): Pick<Blocker, 'owner' | 'fix'> {
  const { ifname, udpPort } = passage;
  if (udpPort !== undefined) return portAdvice(chain, names, ifname, udpPort);
  // Our own bridges share a prefix: one rule serves the next network, too.
  const prefix = ifname.startsWith('sl') ? 'sl' : undefined;
  const wild = prefix ? `${prefix}+` : ifname;
  const tool = chain.family === 'ip6' ? 'ip6tables' : 'iptables';
  if (names.has('DOCKER-USER')) {
    return {
      owner: 'docker',
      fix: `${tool} -I DOCKER-USER -i ${wild} -j ACCEPT; ${tool} -I DOCKER-USER -o ${wild} -j ACCEPT`,
    };
  }
  if (names.has('ufw-before-forward') || names.has('ufw6-before-forward')) {
    return { owner: 'ufw', fix: `ufw route allow in on ${ifname}; ufw route allow out on ${ifname}` };
  }
  if (chain.table === 'firewalld') {
    return {
      owner: 'firewalld',
      fix: `firewall-cmd --permanent --zone=trusted --add-interface=${ifname} && firewall-cmd --reload`,
    };
  }
  if (chain.family === 'ip' || chain.family === 'ip6')
    return { fix: `${tool} -I ${chain.name} -i ${wild} -j ACCEPT; ${tool} -I ${chain.name} -o ${wild} -j ACCEPT` };
  const match = prefix ? `"${prefix}*"` : `"${ifname}"`;
  return {
    fix: `nft insert rule ${chain.family} ${chain.table} ${chain.name} iifname ${match} accept; nft insert rule ${chain.family} ${chain.table} ${chain.name} oifname ${match} accept`,
  };
}

function portAdvice(
  chain: Chain,
  names: ReadonlySet<string>,
  ifname: string,
  port: number,
): Pick<Blocker, 'owner' | 'fix'> {
  if (names.has('ufw-before-input') || names.has('ufw6-before-input'))
    return { owner: 'ufw', fix: `ufw allow in on ${ifname} to any port ${port} proto udp` };
  if (chain.table === 'firewalld')
    return { owner: 'firewalld', fix: `firewall-cmd --permanent --add-port=${port}/udp && firewall-cmd --reload` };
  if (chain.family === 'ip' || chain.family === 'ip6') {
    const tool = chain.family === 'ip6' ? 'ip6tables' : 'iptables';
    return { fix: `${tool} -I ${chain.name} -i ${ifname} -p udp --dport ${port} -j ACCEPT` };
  }
  return {
    fix: `nft insert rule ${chain.family} ${chain.table} ${chain.name} iifname "${ifname}" udp dport ${port} accept`,
  };
}
