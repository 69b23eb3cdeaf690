/** Whose turn it is to replace replicas of an earlier version: pure. So many nodes at once, whatever their number, and each one by one. */
import type { NodeState } from '../../model/node.ts';

export interface TurnNode {
  readonly name: string;
  readonly state: NodeState;
  /** Replicas of an earlier version that it still has. */
  readonly stale: number;
  /** It may replace them already. */
  readonly mayRenew: boolean;
}

/** Nodes at once where nobody says otherwise. */
export const PARALLELISM = 1;

export interface Turns {
  /** Whose turn begins. */
  readonly begin: readonly string[];
  /** Whether somebody is at it, or begins. */
  readonly underWay: boolean;
}

/** A turn lasts until nothing of an earlier version is left on the node; one that is lost does not hold the others up. */
export function planTurns(nodes: readonly TurnNode[], parallelism = PARALLELISM): Turns {
  const stale = nodes.filter((node) => node.stale > 0);
  const busy = stale.filter(({ mayRenew, state }) => mayRenew && state !== 'lost').length;
  const begin = stale
    .filter(({ mayRenew, state }) => !mayRenew && state === 'ready')
    .map(({ name }) => name)
    .sort()
    .slice(0, Math.max(0, parallelism - busy));
  return { begin, underWay: busy + begin.length > 0 };
}
