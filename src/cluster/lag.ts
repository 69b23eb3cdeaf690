/** How far a node's reading is behind what is written: pure. */
import { concerns, knownOf } from './replica/concern.ts';

interface Written {
  readonly key: string;
  readonly value: unknown;
  readonly revision: number;
}

/**
 * Objects that concern the node and were written after what it has read. The distance of two revisions would say nothing: most writes of a
 * cluster are signs of life and other nodes' own affairs, of which it never hears.
 */
export function behind(objects: readonly Written[], node: string, applied: number): number {
  const newer = objects.filter(({ revision }) => revision > applied);
  if (newer.length === 0) return 0;
  const known = knownOf(objects, node);
  return newer.filter(({ key, value }) => concerns(key, value, node, known)).length;
}
