/** Nodes as callers see and change them: labels, availability, and the end of one that does not come back. */

import type { Clock } from '../clock.ts';
import type { Op, Store } from '../contracts/store.ts';
import type { Desired } from '../desired/desired.ts';
import { Records, sameJson } from '../desired/records.ts';
import { retrying } from '../desired/turn.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import {
  beatKey,
  clusterTopic,
  nameKey,
  nodePrefix,
  objectPrefix,
  settledNodeKey,
  statusPrefix,
} from '../model/keys.ts';
import type { Node, NodeRequest, NodeSession, NodeSpec, NodeView } from '../model/node.ts';
import { KINDS, type Obj, type Status } from '../model/object.ts';
import { behind } from './lag.ts';

/** Records that one transaction deletes at most. */
const BATCH_MAX = 256;

export interface NodesOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly node: string;
  readonly desired: Pick<Desired, 'containers' | 'endpoints' | 'sandboxes' | 'volumes'>;
  readonly sessionOf: (name: string) => NodeSession;
  /** Asks the other nodes' own words anew; absent: there are none. */
  readonly refresh?: () => Promise<void>;
}

export interface NodeWrite {
  /** Who asks, for the change log. */
  readonly actor?: string;
}

export class Nodes {
  readonly records: Records<'node', Node>;
  readonly #options: NodesOptions;

  constructor(options: NodesOptions) {
    this.#options = options;
    this.records = new Records('node', options, ({ name }) => nameKey('node', null, name));
  }

  list = async (): Promise<NodeView[]> => this.#measured(await this.records.list());
  get = async (ref: string): Promise<NodeView> => (await this.#measured([await this.records.get(ref)]))[0]!;

  /** Sets and takes away labels, drains or undrains. What is so already changes nothing. */
  update(ref: string, { labels = {}, availability }: NodeRequest, { actor }: NodeWrite = {}): Promise<NodeView> {
    return retrying(async () => {
      const node = await this.records.get(ref);
      const merged = Object.entries({ ...node.labels, ...labels }).filter(([, value]) => value !== null);
      const spec: NodeSpec = availability ? { ...node.spec, availability } : node.spec;
      const change = { labels: Object.fromEntries(merged) as Record<string, string>, spec };
      if (sameJson({ labels: node.labels, spec: node.spec }, change)) return this.#view(node);
      const topics = [clusterTopic];
      const revision = await this.#options.store.transact([this.records.change(node, change)], { topics, actor });
      return this.#view({ ...node, ...change, revision });
    });
  }

  /**
   * Forgets a node with everything that is its own: containers, sandboxes, endpoints and their addresses, statuses, numbers. `object.inuse` unless it is
   * lost: what its host still runs would lose its addresses to others.
   */
  async remove(ref: string, { actor }: NodeWrite = {}): Promise<NodeView> {
    const { store, desired, sessionOf } = this.#options;
    const node = await this.records.get(ref);
    const { state } = sessionOf(node.name);
    if (state !== 'lost')
      throw new SluiceError('object.inuse', `node ${node.name} is ${state}: only one that is lost can be removed`, {
        node: node.name,
        state,
      });
    const its = <O extends Obj>(objects: readonly O[]): O[] => objects.filter(({ owner }) => owner === node.name);
    for (const each of its(await desired.containers.records.list())) await desired.containers.forget(each);
    for (const each of its(await desired.endpoints.records.list())) await desired.endpoints.forget(each);
    for (const each of its(await desired.sandboxes.records.list())) await desired.sandboxes.forget(each);
    for (const each of its(await desired.volumes.records.list())) await desired.volumes.forget(each);
    const { items } = await store.list<Status>(statusPrefix());
    const statuses = items.filter(({ value }) => value.node === node.name).map(({ key }) => key);
    const own = (await store.list(nodePrefix(node.name))).items.map(({ key }) => key);
    const ops = [...statuses, ...own, beatKey(node.name), settledNodeKey(node.name)].map(
      (key): Op => ({ op: 'delete', key }),
    );
    for (let at = 0; at < ops.length; at += BATCH_MAX)
      await store.transact(ops.slice(at, at + BATCH_MAX), { topics: [], actor });
    const last = this.#view(node);
    await this.records.forget(node);
    return last;
  }

  /** With what each has not read yet. */
  async #measured(nodes: readonly Node[]): Promise<NodeView[]> {
    const { store, refresh } = this.#options;
    try {
      await refresh?.();
    } catch (error) {
      // Then it is shown what was known.
      if (!isSluiceError(error, 'store.unavailable')) throw error;
    }
    // Asked first: what is written meanwhile is counted as not read, not the other way round.
    const views = nodes.map((node) => this.#view(node));
    const lists = await Promise.all(KINDS.map((kind) => store.list(objectPrefix(kind))));
    const objects = lists.flatMap(({ items }) => items);
    return views.map((view): NodeView => {
      const { session, name } = view;
      if (session.applied === undefined) return view;
      return { ...view, session: { ...session, behind: behind(objects, name, session.applied) } };
    });
  }

  #view(node: Node): NodeView {
    return { ...node, status: null, session: this.#options.sessionOf(node.name) };
  }
}
