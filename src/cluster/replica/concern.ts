/** Which records concern a node, and of which every node knows the whole: pure. */
import { answerPrefix, beatPrefix, nodeTopic, questionPrefix } from '../../model/keys.ts';
import { isStranger, KINDS } from '../../model/object.ts';

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
/** Says of a node that it has put back what it had: a mark without revisions. */
export const restoreDonePrefix = `${restorePrefix}done/`;

const ownedOf = (value: unknown): Owned => (typeof value === 'object' && value !== null ? (value as Owned) : {});

/** Kinds of objects that a node has for itself or for the cluster. */
const OBJECTS = ['network', 'sandbox', 'endpoint', 'service', 'container', 'volume', 'assignment'];

/** What the first part of a key may be besides a kind of objects. */
const AREAS =
  'alive answer joined lease local name pool poolspace question reference restore settlement status unplaced vni';
const KNOWN = new Set<string>([...KINDS, ...AREAS.split(' ')]);

/** Whether only a newer version knows what the record is. */
export const isForeign = (key: string): boolean => !KNOWN.has(key.split('/')[0]!);

const MOMENTARY = [beatPrefix, questionPrefix, answerPrefix];

/** Whether the record is about this very moment, as signs of life and questions are: an old copy of it would be a lie, so that there is none. */
export const isMomentary = (key: string): boolean => MOMENTARY.some((prefix) => key.startsWith(prefix));

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
  const all = [...records].filter(
    ({ key, value }) => OBJECTS.includes(key.slice(0, key.indexOf('/'))) || isStranger(key, value),
  );
  const networks = new Set<string>();
  for (const { key, value } of all) {
    const network = key.startsWith('endpoint/') ? ownNetworkOf(value, node) : undefined;
    if (network !== undefined) networks.add(network);
  }
  const ids = new Set<string>();
  for (const { key, value } of all) {
    const slash = key.indexOf('/');
    // Strangers are kept, whosever they are, and so is what is theirs.
    if (isStranger(key, value) || objectConcerns(key.slice(0, slash), value, node, networks))
      ids.add(key.slice(slash + 1));
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
    case 'settlement':
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

/**
 * Whether every node hears of each write of the record: where one does not know it, it was deleted. Nobody can say so of what a newer version wrote,
 * nor of its names, which stay with it.
 */
export function isKnownToAll(key: string, value: unknown): boolean {
  const [kind = '', second = '', third] = key.split('/');
  if (kind === 'node' || kind === 'vni') return true;
  if (kind === 'name') return third === '*' && !isForeign(second);
  if (kind === 'pool') return ownedOf(value).space === 'global';
  return (kind === 'network' || kind === 'service') && ownedOf(value).owner === null;
}

/** The node that alone writes the object; undefined: several do, or it is none. */
export const writerOf = (key: string, value: unknown): string | undefined =>
  OBJECTS.includes(key.slice(0, key.indexOf('/'))) && !key.startsWith('assignment/')
    ? (ownedOf(value).owner ?? undefined)
    : undefined;

/** Whether nobody but the node writes the object: where it has no copy of one that it knew, it deleted it. */
export const isOwnObject = (key: string, value: unknown, node: string): boolean => writerOf(key, value) === node;

/** Whether the record is of an object among these: itself, a claim, a reference, a lease. */
export function isOfObject(key: string, value: unknown, ids: ReadonlySet<string>): boolean {
  const [kind = '', second = '', third = ''] = key.split('/');
  const { id = '', owner } = ownedOf(value);
  if (OBJECTS.includes(kind)) return ids.has(second);
  if (kind === 'name' || kind === 'vni') return ids.has(id);
  if (kind === 'reference') return ids.has(third);
  return kind === 'lease' && typeof owner === 'string' && ids.has(owner);
}

/** Whether nobody but the node writes the record, which is no object. */
export function isOwnRecord(key: string, node: string): boolean {
  const [kind, second, third] = key.split('/');
  if (kind === 'name') return second !== 'endpoint' && third === node;
  return kind === 'status' ? key.endsWith(`/${node}`) : kind === 'local' && second === node;
}

/** Topic of the node that the record belongs to. */
export function ownerTopic(value: unknown): string[] {
  const { owner, id } = ownedOf(value);
  return typeof owner === 'string' && id !== undefined ? [nodeTopic(owner)] : [];
}

/** Network of an endpoint that is the node's own. */
export function ownNetworkOf(value: unknown, node: string): string | undefined {
  const { owner, spec } = ownedOf(value);
  return owner === node ? spec?.network : undefined;
}

/** Network of an endpoint. */
export const networkOf = (value: unknown): string | undefined => ownedOf(value).spec?.network;
