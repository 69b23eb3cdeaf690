/**
 * Two accepts in Docker's own chain for its users. Docker drops what is forwarded and not its own, and an accept in our table cannot
 * override that. With the setting `manageDockerUser` they are kept at the head of DOCKER-USER, marked with a comment; without it ours of an
 * earlier life are taken out. Our policy table decides behind them as ever.
 */
import type { Nft } from '../../contracts/kernel.ts';

const CHAIN = 'DOCKER-USER';
/** How bridges of ours are called, but for those that were given a name by `-o bridge.name`. */
const BRIDGES = 'sl*';
const FAMILIES = ['ip', 'ip6'] as const;
/** Both directions. */
const KEYS = ['iifname', 'oifname'] as const;

interface Rule {
  readonly handle: number;
  readonly comment?: string;
  readonly expr: readonly Record<string, unknown>[];
}

const commentOf = (instance: string): string => `sluice:${instance}`;

/** nft commands that bring one chain to its state, none when it is right. Pure: objects of `nft -j list chain …`. */
export function planDockerUser(
  family: 'ip' | 'ip6',
  objects: readonly Record<string, unknown>[],
  instance: string,
  wanted: boolean,
): string[] {
  const rules = objects.flatMap((object) => ('rule' in object ? [object.rule as Rule] : []));
  const ours = rules.filter(({ comment }) => comment === commentOf(instance));
  const isRight =
    wanted &&
    ours.length === KEYS.length &&
    rules.slice(0, KEYS.length).every((rule, n) => ours.includes(rule) && accepts(rule, KEYS[n]!));
  if (isRight || (!wanted && ours.length === 0)) return [];
  const where = `${family} filter ${CHAIN}`;
  const commands = ours.map(({ handle }) => `delete rule ${where} handle ${handle}`);
  // Each insertion goes before the last.
  if (wanted)
    for (const key of [...KEYS].reverse())
      commands.push(`insert rule ${where} ${key} "${BRIDGES}" counter accept comment "${commentOf(instance)}"`);
  return commands;
}

function accepts({ expr }: Rule, key: string): boolean {
  const matches = expr.flatMap((part) =>
    'match' in part ? [part.match as { left: { meta?: { key?: string } }; right: unknown }] : [],
  );
  const [match] = matches;
  return (
    matches.length === 1 &&
    match?.left.meta?.key === key &&
    match.right === BRIDGES &&
    expr.some((part) => 'accept' in part)
  );
}

/** Brings Docker's chains to their state; what had to be put right, in words. */
export function syncDockerUser(nft: Nft, instance: string, wanted: boolean): string[] {
  const changed: string[] = [];
  for (const family of FAMILIES) {
    const objects = nft.list(`chain ${family} filter ${CHAIN}`);
    if (!objects) continue;
    const commands = planDockerUser(family, objects, instance, wanted);
    if (commands.length === 0) continue;
    nft.apply(commands.join('\n'));
    changed.push(`accepts for our bridges in chain ${CHAIN} of table ${family} filter ${wanted ? 'set' : 'removed'}`);
  }
  return changed;
}
