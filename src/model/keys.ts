/** Where each record lies in the store, and which topics announce it. */
import type { Kind } from './object.ts';

export const objectKey = (kind: Kind, id: string): string => `${kind}/${id}`;
export const objectPrefix = (kind: Kind): string => `${kind}/`;

/** Create-only claim of a name; the value is the object's id. `owner` null: cluster-wide. */
export const nameKey = (kind: Kind, owner: string | null, name: string): string =>
  `name/${kind}/${owner ?? '*'}/${name}`;

export const statusKey = (kind: Kind, id: string, node: string): string => `status/${kind}/${id}/${node}`;
export const statusPrefix = (kind?: Kind, id?: string): string =>
  `status/${kind ? `${kind}/${id ? `${id}/` : ''}` : ''}`;

export const poolKey = (id: string): string => `pool/${id}`;
export const leaseKey = (pool: string, address: string): string => `lease/${pool}/${address}`;
export const leasePrefix = (pool: string): string => `lease/${pool}/`;

/** Node-local numbers that outlive the daemon (views, attachments, backend sets, backends). */
export const numberKey = (node: string, space: NumberSpace, key: string): string =>
  `local/${node}/number/${space}/${key}`;
export const numberPrefix = (node: string, space: NumberSpace): string => `local/${node}/number/${space}/`;
export const counterKey = (node: string, space: NumberSpace): string => `local/${node}/counter/${space}`;
export type NumberSpace = 'attachment' | 'view' | 'set' | 'backend';

export const clusterTopic = 'cluster';
export const nodeTopic = (node: string): string => `node/${node}`;
export const networkTopic = (id: string): string => `network/${id}`;

/** Topics of an object's writes: its node's or the cluster's, and its network's. */
export function topicsOf(object: { readonly owner: string | null }, network?: string): string[] {
  const topics = [object.owner === null ? clusterTopic : nodeTopic(object.owner)];
  if (network) topics.push(networkTopic(network));
  return topics;
}
