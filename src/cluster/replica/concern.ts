/** Which records concern a node, and of which every node knows the whole: pure. */
import { beatPrefix, nodeTopic } from '../../model/keys.ts';

interface Owned {
  readonly id?: string;
  readonly owner?: string | null;
  readonly node?: string;
  readonly space?: string;
  readonly spec?: { readonly network?: string };
}

/** Records of the restoring itself; nobody keeps copies of them. */
export const restorePrefix = 'restore/';
export const restoreOriginKey = `${restorePrefix}origin`;
export const restoreMarkPrefix = `${restorePrefix}mark/`;

const ownedOf = (value: unknown): Owned => (typeof value === 'object' && value !== null ? (value as Owned) : {});

/** Kinds of objects that a node has for itself or for the cluster. */
const OBJECTS = ['network', 'sandbox', 'endpoint', 'service', 'container', 'volume', 'assignment'];

/** Whether the record is about this very moment, as signs of life are: an old copy of it would be a lie, so that there is none. */
export const isMomentary = (key: string): boolean => key.startsWith(beatPrefix);

export interface Known {
  /** Whether the object of that id concerns the node. */
  readonly knows: (id: string) => boolean;
  /** Networks on which the node has an endpoint. */
  readonly networks: ReadonlySet<string>;
}

/** Whether an object is the node's own, the cluster's, or an endpoint on a network on which the node has one. */
function objectConcerns(kind: string, value: unknown, node: string, networks: ReadonlySet<string>): boolean {
  const { owner, spec } = ownedOf(value);
  if (owner === undefined || owner === null || owner === node) return true;
  return kind === 'endpoint' && spec?.network !== undefined && networks.has(spec.network);
}

/** What the node knows once it keeps those of these records that concern it. */
export function knownOf(records: Iterable<{ readonly key: string; readonly value: unknown }>, node: string): Known {
  const all = [...records].filter(({ key }) => OBJECTS.includes(key.slice(0, key.indexOf('/'))));
  const networks = new Set<string>();
  for (const { key, value } of all) {
    const { owner, spec } = ownedOf(value);
    if (key.startsWith('endpoint/') && owner === node && spec?.network !== undefined) networks.add(spec.network);
  }
  const ids = new Set<string>();
  for (const { key, value } of all) {
    const slash = key.indexOf('/');
    if (objectConcerns(key.slice(0, slash), value, node, networks)) ids.add(key.slice(slash + 1));
  }
  return { knows: (id) => ids.has(id), networks };
}

/** Whether the node keeps a copy of the record. What it does not know it keeps: a newer version may have written it. */
export function concerns(key: string, value: unknown, node: string, known: Known): boolean {
  const [kind = '', second = '', third = ''] = key.split('/');
  if (OBJECTS.includes(kind)) return objectConcerns(kind, value, node, known.networks);
  if (isMomentary(key)) return false;
  const owned = ownedOf(value);
  switch (kind) {
    case 'restore':
      return false;
    case 'local':
      return second === node;
    case 'status':
      return key.endsWith(`/${node}`);
    case 'pool':
      return owned.node === undefined || owned.node === node;
    case 'lease':
      return typeof owned.owner !== 'string' || known.knows(owned.owner);
    case 'reference':
      return known.knows(third);
    case 'name':
      if (second === 'endpoint') return known.knows(third);
      return third === '*' || third === node;
    default:
      return true;
  }
}

/** Whether every node hears of each write of the record: where one does not know it, it was deleted. */
export function isKnownToAll(key: string, value: unknown): boolean {
  const [kind = '', , third] = key.split('/');
  if (kind === 'node' || kind === 'vni') return true;
  if (kind === 'name') return third === '*';
  if (kind === 'pool') return ownedOf(value).space === 'global';
  return (kind === 'network' || kind === 'service') && ownedOf(value).owner === null;
}

/** Topic of the node that the record belongs to. */
export function ownerTopic(value: unknown): string[] {
  const { owner, id } = ownedOf(value);
  return typeof owner === 'string' && id !== undefined ? [nodeTopic(owner)] : [];
}

/** Network of an endpoint. */
export const networkOf = (value: unknown): string | undefined => ownedOf(value).spec?.network;
