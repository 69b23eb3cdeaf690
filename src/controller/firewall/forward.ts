/**
 * Who else drops what we forward. An accept in our table cannot override a drop in another's (Docker, ufw and firewalld set one
 * on FORWARD), and `bridge-nf-call-iptables` takes even bridged traffic there. Pure: objects of `nft -j list ruleset` in,
 * the chains that drop a bridge's traffic out.
 */
import { ADMIN_TABLE } from './policy.ts';

interface Chain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly type?: string;
  readonly hook?: string;
  readonly policy?: string;
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

/**
 * Chains with hook forward that end in drop or reject for a new connection that comes in by `ifname`. Rules that match on anything but
 * interfaces cannot be judged here and are passed over: they decide about some traffic, the last word about the rest.
 */
export function findBlockers(
  ruleset: readonly Record<string, unknown>[],
  ifname: string,
  isOurs: (table: string) => boolean,
): Blocker[] {
  const chains = ruleset.flatMap((object) => ('chain' in object ? [object.chain as Chain] : []));
  const rules = ruleset.flatMap((object) => ('rule' in object ? [object.rule as Rule] : []));
  const blockers: Blocker[] = [];
  for (const chain of chains) {
    if (chain.hook !== 'forward' || chain.type !== 'filter' || isOurs(chain.table) || chain.table === ADMIN_TABLE)
      continue;
    const inChain = (name: string): Rule[] =>
      rules.filter((rule) => rule.family === chain.family && rule.table === chain.table && rule.chain === name);
    const verdict = walk(inChain, chain.name, ifname, 0);
    if (verdict === 'drop' || ((verdict === 'continue' || verdict === 'return') && chain.policy === 'drop')) {
      const names = new Set(
        chains
          .filter((other) => other.family === chain.family && other.table === chain.table)
          .map((other) => other.name),
      );
      blockers.push({ table: `${chain.family} ${chain.table}`, chain: chain.name, ...adviceFor(chain, names, ifname) });
    }
  }
  return blockers;
}

function walk(inChain: (name: string) => Rule[], name: string, ifname: string, depth: number): Verdict {
  if (depth > DEPTH_MAX) return 'continue';
  for (const { expr } of inChain(name)) {
    const relevance = judge(expr, ifname);
    if (relevance === 'no') continue;
    const verdict = verdictOf(expr);
    if (verdict === 'accept' || verdict === 'drop' || verdict === 'return') {
      if (relevance === 'yes') return verdict;
      continue;
    }
    if (typeof verdict === 'object' && relevance === 'yes') {
      const inner = walk(inChain, verdict.target, ifname, depth + 1);
      if (inner === 'accept' || inner === 'drop') return inner;
      if (verdict.goto) return 'continue';
    }
  }
  return 'continue';
}

/** `yes`: every packet from `ifname` of a new connection matches; `no`: none does; `maybe`: it depends on something else. */
function judge(expr: readonly Record<string, unknown>[], ifname: string): 'yes' | 'no' | 'maybe' {
  let result: 'yes' | 'maybe' = 'yes';
  for (const statement of expr) {
    if ('xt' in statement) result = 'maybe';
    if (!('match' in statement)) continue;
    const { op, left, right } = statement.match as { op: string; left: Record<string, unknown>; right: unknown };
    const key = (left as { meta?: { key?: string } }).meta?.key;
    if (key !== 'iifname') {
      result = 'maybe';
      continue;
    }
    const patterns =
      typeof right === 'object' && right !== null && 'set' in right ? (right.set as string[]) : [String(right)];
    const hit = patterns.some((pattern) =>
      pattern.endsWith('*') ? ifname.startsWith(pattern.slice(0, -1)) : pattern === ifname,
    );
    if (hit !== (op === '==' || op === 'in')) return 'no';
  }
  return result;
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

function adviceFor(chain: Chain, names: ReadonlySet<string>, ifname: string): Pick<Blocker, 'owner' | 'fix'> {
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
