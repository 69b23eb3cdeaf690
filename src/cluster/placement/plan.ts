/** How many replicas of a service each node is to run: pure. What runs where it may stays there. */
import type { NodeState } from '../../model/node.ts';
import { type NodeTraits, type PlacementSpec, satisfies } from '../../model/service/placement.ts';

export interface PlacementNode extends NodeTraits {
  readonly state: NodeState;
  /** Lost for longer than the grace time: what ran there is to run elsewhere. */
  readonly givenUp: boolean;
  readonly drained: boolean;
  /** Replicas of all services that it has been assigned. */
  readonly load: number;
}

export interface PlacementAsk extends PlacementSpec {
  readonly count: number;
}

export interface Placement {
  /** By name of the node; none: zero. */
  readonly counts: ReadonlyMap<string, number>;
  /** How many have no place; of a global service one, when it has none at all. */
  readonly missing: number;
}

/**
 * `nodes`: those on which the service's network can be; `current`: what they have been assigned. A node that is silent keeps what it has and gets
 * nothing new. Of one that is given up, only what finds no place elsewhere stays assigned, for when it returns.
 */
export function planPlacement(
  ask: PlacementAsk,
  nodes: readonly PlacementNode[],
  current: ReadonlyMap<string, number>,
): Placement {
  const max = ask.mode === 'global' ? 1 : (ask.perNodeMax ?? Number.POSITIVE_INFINITY);
  const fit = nodes.filter((node) => !node.drained && satisfies(node, ask.constraints));
  const kept = new Map(
    fit.filter(({ givenUp }) => !givenUp).map(({ name }) => [name, Math.min(current.get(name) ?? 0, max)]),
  );
  const away = new Map(
    fit.filter(({ givenUp }) => givenUp).map(({ name }) => [name, Math.min(current.get(name) ?? 0, max)]),
  );
  const open = fit.filter(({ name, state }) => state === 'ready' && kept.has(name));
  if (ask.mode === 'global') {
    for (const { name } of open) kept.set(name, 1);
    const counts = positive([...kept, ...away]);
    return { counts, missing: counts.size === 0 ? 1 : 0 };
  }
  const sum = (): number => [...kept.values()].reduce((total, count) => total + count, 0);
  const silent = new Set(fit.filter(({ state }) => state !== 'ready').map(({ name }) => name));
  const loads = new Map(nodes.map(({ name, load }) => [name, load - (current.get(name) ?? 0)]));
  /** The fuller comes later: by replicas of this service, then of all, then by name. */
  const byFill = (a: string, b: string): number =>
    kept.get(a)! - kept.get(b)! ||
    loads.get(a)! + kept.get(a)! - loads.get(b)! - kept.get(b)! ||
    (a < b ? -1 : a > b ? 1 : 0);
  for (let over = sum() - ask.count; over > 0; over--) {
    const holders = [...kept.keys()].filter((name) => kept.get(name)! > 0);
    // Who does not answer may not be serving anybody: its own go first.
    holders.sort((a, b) => Number(silent.has(b)) - Number(silent.has(a)) || byFill(b, a));
    kept.set(holders[0]!, kept.get(holders[0]!)! - 1);
  }
  let missing = ask.count - sum();
  for (; missing > 0; missing--) {
    const [name] = open
      .map((node) => node.name)
      .filter((each) => kept.get(each)! < max)
      .sort(byFill);
    if (name === undefined) break;
    kept.set(name, kept.get(name)! + 1);
  }
  const counts = [...kept];
  let waiting = missing;
  for (const [name, count] of away) {
    const stays = Math.min(count, waiting);
    counts.push([name, stays]);
    waiting -= stays;
  }
  return { counts: positive(counts), missing };
}

const positive = (counts: readonly (readonly [string, number])[]): Map<string, number> =>
  new Map(counts.filter(([, count]) => count > 0));

/** Nodes that are named one by one. */
const NAMED_MAX = 4;

/** Of each node why it takes no more. */
export function whyNot(
  { mode, constraints = [], perNodeMax = Number.POSITIVE_INFINITY }: PlacementAsk,
  nodes: readonly PlacementNode[],
  counts: ReadonlyMap<string, number>,
): string {
  if (nodes.length === 0) return 'there is no node that its network could reach';
  const max = mode === 'global' ? 1 : perNodeMax;
  const reasons = nodes.flatMap((node) => {
    const { name, state, drained } = node;
    const unmet = constraints.find((text) => !satisfies(node, [text]));
    const count = counts.get(name) ?? 0;
    if (drained) return [`${name} is drained`];
    if (unmet !== undefined) return [`${name} does not satisfy ${unmet}`];
    if (state !== 'ready') return [`${name} is ${state}`];
    return count >= max ? [`${name} runs ${count}, as many as it may`] : [];
  });
  const more = reasons.length - NAMED_MAX;
  return [...reasons.slice(0, NAMED_MAX), ...(more > 0 ? [`and so on with ${more} more nodes`] : [])].join(', ');
}
