/**
 * Which store a daemon works on: its host's own file, or the one that a cluster shares together with this host's copies of what concerns it. A
 * host that changed from one to the other by a setting alone would find none of its objects and take down what runs: that is refused.
 */
import { existsSync } from 'node:fs';
import { join as path } from 'node:path';
import type { Clock } from '../clock.ts';
import type { Config } from '../config.ts';
import type { Op, Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { JoinAnswer } from '../model/answer.ts';
import { nodePrefix } from '../model/keys.ts';
import type { Obj } from '../model/object.ts';
import type { JoinRequest } from '../model/request.ts';
import { type Joined, join } from './join/join.ts';
import { joinedKey } from './join/plan.ts';
import { Sealable } from './join/seal.ts';
import { PLACE } from './replica/copies.ts';
import { openReplica, type ReplicaOptions } from './replica/replica.ts';

/** Records moved in one transaction. */
const RECORDS_MAX = 500;

/** Opens the stores themselves. */
export interface Stores {
  memory(): Store;
  /** A file of this host. */
  own(file: string): Promise<Store>;
  /** `seen`: what the host's copies are of; then it succeeds also while the store is away. `onTerm`: called when its term has changed. */
  shared(
    place: SharedPlace,
    seen?: { readonly incarnation: string; readonly revision: number },
    onTerm?: () => void,
  ): Promise<Store>;
  /** Where a URL leads, without a password. */
  nameOf(url: string): string;
}
export interface SharedPlace {
  readonly url: string;
  readonly clusterId: string;
  readonly insecure: boolean;
}

export interface HomeParts {
  readonly stores: Stores;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Whether other nodes may write to the store, too. */
export const isShared = (store: string): boolean => store.includes('://');

const ownFile = (stateDir: string): string => path(stateDir, 'sluice.db');
const copiesFile = (stateDir: string): string => path(stateDir, 'replica.db');

export interface Home {
  readonly store: Store;
  /** Keeps what nobody else is to know, as the numbers in this host's pinned maps: its own file, which may be the store. It is closed with that. */
  readonly local: Store;
  /** The store, where it is this host's own and may go to a cluster. */
  readonly own?: Sealable;
}

/** Fails with `config.invalid` where the host's objects are in the other store. */
export async function openHome(config: Config, parts: HomeParts): Promise<Home> {
  const { store: url, stateDir } = config;
  if (isShared(url)) return openShared(config, parts);
  const own = new Sealable(url === 'memory' ? parts.stores.memory() : await openOwn(stateDir, parts));
  return { store: own, local: own, own };
}

async function openOwn(stateDir: string, { stores }: HomeParts): Promise<Store> {
  const [own, copies] = [ownFile(stateDir), copiesFile(stateDir)];
  if (await hasCopies(copies, stores))
    throw invalid(
      `this host is part of a cluster, whose objects ${copies} keeps: start it with the cluster's store (--store redis://…). ` +
        'To leave the cluster for good, with everything that runs here taken down, remove that file',
    );
  const store = await stores.own(own);
  const joined = (await store.get<Joined>(joinedKey))?.value;
  if (!joined) return store;
  await store.close();
  throw invalid(
    `this host's objects went to the cluster at ${joined.store}: start it with --store. ` +
      `To leave the cluster for good, with everything that runs here taken down, remove ${own}`,
  );
}

async function openShared(config: Config, parts: HomeParts): Promise<Home> {
  const { stateDir, store: url, clusterId, insecureStore: insecure, node } = config;
  const { stores, clock, logger } = parts;
  if (existsSync(ownFile(stateDir)) && !(await hasCopies(copiesFile(stateDir), stores)))
    await ensureTakenAlong(config, parts);
  const local = await stores.own(copiesFile(stateDir));
  const connect: ReplicaOptions['connect'] = (seen, onTerm) =>
    stores.shared({ url, clusterId, insecure }, seen, onTerm);
  const store = await openReplica({ connect, local, node, clock, logger, lockMs: config.sessionSeconds * 1_000 });
  try {
    await bringHome(store, local, node);
  } catch (error) {
    await store.close();
    throw error;
  }
  return { store, local };
}

/** Takes what is this node's alone out of the shared store, where joining the cluster left it. What the host has already is newer. */
async function bringHome(store: Store, local: Store, node: string): Promise<void> {
  const { items } = await store.list<number>(nodePrefix(node));
  const there = new Set((await local.list(nodePrefix(node))).items.map(({ key }) => key));
  for (let at = 0; at < items.length; at += RECORDS_MAX) {
    const some = items.slice(at, at + RECORDS_MAX);
    const puts = some
      .filter(({ key }) => !there.has(key))
      .map(({ key, value }): Op => ({ op: 'put', key, value, expect: 0 }));
    await local.transact(puts, { topics: [] });
    try {
      await store.transact(
        some.map(({ key }): Op => ({ op: 'delete', key })),
        { topics: [] },
      );
    } catch (error) {
      // It stays there until a start that finds the store.
      if (!isSluiceError(error, 'store.unavailable')) throw error;
    }
  }
}

/** Whether the host has been part of a cluster: an attempt at a store that was not there leaves an empty file. */
async function hasCopies(file: string, stores: Stores): Promise<boolean> {
  if (!existsSync(file)) return false;
  const copies = await stores.own(file);
  try {
    return (await copies.get(PLACE)) !== null;
  } finally {
    await copies.close();
  }
}

async function ensureTakenAlong({ stateDir, node }: Config, { stores }: HomeParts): Promise<void> {
  const own = await stores.own(ownFile(stateDir));
  try {
    const { items } = await own.list('');
    const joined = items.find(({ key }) => key === joinedKey)?.value as Joined | undefined;
    if (joined && joined.node !== node)
      throw invalid(
        `this host's objects went to the cluster as those of node ${joined.node}: start it with --node ${joined.node}`,
      );
    if (joined) return;
    const kept = items.filter(({ key, value }) => isOfUser(key, value)).map(({ value }) => value as Obj);
    if (kept.length === 0) return;
    const some = kept.slice(0, 5).map(({ kind, name }) => `${kind} ${name}`);
    throw invalid(
      `this host has ${kept.length} objects that the cluster does not know (${some.join(', ')}${kept.length > 5 ? ', …' : ''}), and would ` +
        'take them down: start it without --store and take them along with "sluice cluster join", or remove them first',
    );
  } finally {
    await own.close();
  }
}

const BUILTIN = ['bridge', 'host', 'none'];

function isOfUser(key: string, value: unknown): boolean {
  if (key.startsWith('network/')) return !BUILTIN.includes((value as Obj).name);
  return ['sandbox/', 'service/', 'container/', 'volume/'].some((prefix) => key.startsWith(prefix));
}

/**
 * Takes what is in the host's own store along to a cluster's; the daemon is to end then, and start with `--store`. `config.invalid`,
 * `cluster.conflict`, and what opening that store fails with. Resolves to where the cluster's store is and how many records went.
 */
export async function joinCluster(
  local: Sealable | undefined,
  { store: url, clusterId, insecureStore: insecure = false }: JoinRequest,
  config: Pick<Config, 'node' | 'clusterId'>,
  stores: Stores,
): Promise<JoinAnswer> {
  if (!local)
    throw new SluiceError(
      'cluster.member',
      'this daemon shares the store of a cluster already: it cannot join another',
    );
  const store = stores.nameOf(url);
  const remote = await stores.shared({ url, clusterId: clusterId ?? config.clusterId, insecure });
  try {
    return { store, node: config.node, records: await join(local, remote, { store, node: config.node }) };
  } finally {
    await remote.close();
  }
}

const invalid = (message: string): SluiceError => new SluiceError('config.invalid', message, { setting: 'store' });
