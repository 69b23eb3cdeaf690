/** Where replicas may run, and where they are to. */
import type { Obj } from '../object.ts';

export interface PlacementSpec {
  /** `global`: one on every node that fits, whatever the count says. Absent: as many as the count says, spread over the nodes. */
  readonly mode?: 'global';
  /** `node.labels.zone==a`; a node must satisfy all of them. */
  readonly constraints?: readonly string[];
  /** At most so many on one node. Absent: no limit. */
  readonly perNodeMax?: number;
  /** How many nodes at once replace replicas of an earlier image, each one after another. Absent: one. */
  readonly updateParallelism?: number;
}

export interface AssignmentSpec {
  /** Id of the service. */
  readonly service: string;
  /** How many of its replicas the owner is to run. */
  readonly count: number;
  /** Version up to which the owner may replace replicas of earlier ones; absent, from an older scheduler: any. */
  readonly renew?: number;
}

/** A node's part in a service's replicas, written by the scheduler alone; the node (its owner) makes it so. None: no part. */
export type Assignment = Obj<'assignment', AssignmentSpec>;

export interface AssignmentAnswer {
  readonly node: string;
  readonly count: number;
}

/** What of a service's replicas has no place, written by the scheduler alone; none: all have one. Shown as the condition `Unplaced`. */
export interface Unplaced {
  /** Id of the service. */
  readonly service: string;
  readonly message: string;
  /** ISO 8601 */
  readonly since: string;
}

/** Of a node, what constraints can speak of. */
export interface NodeTraits {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

const CONSTRAINT = /^node\.(id|name|hostname|labels\.([^\s=!]+))\s*(==|!=)\s*(\S.*?)\s*$/;

/** Whether nodes satisfy it; null: it is no constraint. A label that a node has not differs from every value. */
export function readConstraint(text: string): ((node: NodeTraits) => boolean) | null {
  const [, subject, label, operator, value] = CONSTRAINT.exec(text) ?? [];
  if (subject === undefined) return null;
  const of = ({ id, name, labels }: NodeTraits): string | undefined =>
    label !== undefined ? labels[label] : subject === 'id' ? id : name;
  return (node) => (of(node) === value) === (operator === '==');
}

/** Whether the node satisfies all of them. What is no constraint is satisfied by nobody. */
export const satisfies = (node: NodeTraits, constraints: readonly string[] = []): boolean =>
  constraints.every((text) => readConstraint(text)?.(node) ?? false);
