/** Where each record lies in the store, and which topics announce it. */
import type { Kind } from './object.ts';

export const objectKey = (kind: Kind, id: string): string => `${kind}/${id}`;
export const objectPrefix = (kind: Kind): string => `${kind}/`;

/** Create-only claim of a name; the value is `{id}` of the object. `owner` null: cluster-wide. */
export const nameKey = (kind: Kind, owner: string | null, name: string): string =>
  `name/${kind}/${owner ?? '*'}/${name}`;

/** Claim of a sandbox's one place on a network; the value is as a name's. Also how a sandbox's endpoints are found. */
export const attachmentKey = (sandbox: string, network: string): string => `${attachmentPrefix(sandbox)}${network}`;
export const attachmentPrefix = (sandbox: string): string => `name/endpoint/${sandbox}/`;

/**
 * Written by whoever begins to refer to the object (an endpoint to its network and sandbox, a service to its network and backends): a removal
 * that looked for users and found none checks that it was not written since.
 */
export const referenceKey = (kind: Kind, id: string): string => `reference/${kind}/${id}`;

export const statusKey = (kind: Kind, id: string, node: string): string => `status/${kind}/${id}/${node}`;
export const statusPrefix = (kind?: Kind, id?: string): string =>
  `status/${kind ? `${kind}/${id ? `${id}/` : ''}` : ''}`;

/** Create-only claim of a VXLAN network identifier; the value is `{id}` of the network. */
export const vniKey = (vni: number): string => `vni/${vni}`;

/** What of a service's replicas has no place. */
export const unplacedKey = (service: string): string => `${unplacedPrefix}${service}`;
export const unplacedPrefix = 'unplaced/';

export const poolKey = (id: string): string => `pool/${id}`;
export const poolPrefix = 'pool/';
/** Written with every new pool, so that of two that overlap only one is made. */
export const poolGuardKey = 'poolspace/all';
export const leaseKey = (pool: string, address: string): string => `lease/${pool}/${address}`;
/** Leases of one pool, or of all. */
export const leasePrefix = (pool?: string): string => (pool === undefined ? 'lease/' : `lease/${pool}/`);

/** A node's signs of life. Nobody is told of them: who wants to know looks. */
export const beatKey = (node: string): string => `${beatPrefix}${node}`;
export const beatPrefix = 'alive/';

/**
 * That nobody's address was lost with a server of the store, or that it was said again: by each node, and once by all (src/cluster/replica/settlement.ts).
 */
export const settledKey = 'settlement/all';
export const settledNodePrefix = 'settlement/node/';
export const settledNodeKey = (node: string): string => `${settledNodePrefix}${node}`;

/** Questions to a node and answers to one that asked: there for a moment, and told to that node alone. */
export const questionKey = (to: string, id: string): string => `${questionPrefix}${to}/${id}`;
export const questionPrefix = 'question/';
export const answerKey = (to: string, id: string): string => `${answerPrefix}${to}/${id}`;
export const answerPrefix = 'answer/';

/** Node-local numbers that outlive the daemon (views, attachments, backend sets, backends). */
export const numberKey = (node: string, space: NumberSpace, key: string): string =>
  `local/${node}/number/${space}/${key}`;
export const numberPrefix = (node: string, space: NumberSpace): string => `local/${node}/number/${space}/`;
export const counterKey = (node: string, space: NumberSpace): string => `local/${node}/counter/${space}`;
/** Everything that is one node's own. */
export const nodePrefix = (node: string): string => `local/${node}/`;
export type NumberSpace = 'attachment' | 'view' | 'set' | 'backend';

export const clusterTopic = 'cluster';
export const nodeTopic = (node: string): string => `node/${node}`;
/** What concerns the scheduler beside the cluster: services of one node that have replicas. */
export const placementTopic = 'placement';
export const networkTopic = (id: string): string => `network/${id}`;

/** Topics of an object's writes: its node's or the cluster's, and its network's. */
export function topicsOf(object: { readonly owner: string | null }, network?: string): string[] {
  const topics = [object.owner === null ? clusterTopic : nodeTopic(object.owner)];
  if (network) topics.push(networkTopic(network));
  return topics;
}
