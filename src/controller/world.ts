/**
 * The desired state in memory: a list of the store followed by its watches, indexed as the controllers ask. Listeners hear of
 * each object that came, changed or went; after a lost stretch of the log everything is listed again and differences are told.
 */
import type { Clock } from '../clock.ts';
import type { Entry, Store, WatchEvent } from '../contracts/store.ts';
import { toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { clusterTopic, nodeTopic, objectPrefix } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { Kind, Obj } from '../model/object.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { Service } from '../model/service.ts';

/** The kinds that controllers on a node act on. */
export const WATCHED = ['network', 'sandbox', 'endpoint', 'service'] as const satisfies readonly Kind[];
export type WatchedKind = (typeof WATCHED)[number];

interface ObjectOf {
  network: Network;
  sandbox: Sandbox;
  endpoint: Endpoint;
  service: Service;
}

export type WorldListener = (kind: WatchedKind, id: string, now: Obj | undefined, before: Obj | undefined) => void;

/** Pause before a watch that broke is begun anew, milliseconds. */
const REWATCH_MS = 500;

export class World {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #node: string;
  readonly #logger: Logger;
  readonly #objects: { [K in WatchedKind]: Map<string, ObjectOf[K]> } = {
    network: new Map(),
    sandbox: new Map(),
    endpoint: new Map(),
    service: new Map(),
  };
  /** Endpoint ids by sandbox and by network. */
  readonly #bySandbox = new Map<string, Set<string>>();
  readonly #byNetwork = new Map<string, Set<string>>();
  readonly #listeners: WorldListener[] = [];
  readonly #stop = new AbortController();
  #revision = 0;

  constructor(options: { store: Store; clock: Clock; node: string; logger: Logger }) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#node = options.node;
    this.#logger = options.logger;
  }

  get networks(): ReadonlyMap<string, Network> {
    return this.#objects.network;
  }
  get sandboxes(): ReadonlyMap<string, Sandbox> {
    return this.#objects.sandbox;
  }
  get endpoints(): ReadonlyMap<string, Endpoint> {
    return this.#objects.endpoint;
  }
  get services(): ReadonlyMap<string, Service> {
    return this.#objects.service;
  }
  /** Store revision up to which this is complete. */
  get revision(): number {
    return this.#revision;
  }

  /** Endpoints of a sandbox, in a stable order; those being removed included. */
  endpointsOfSandbox(id: string): Endpoint[] {
    return this.#pick(this.#bySandbox.get(id));
  }

  endpointsOfNetwork(id: string): Endpoint[] {
    return this.#pick(this.#byNetwork.get(id));
  }

  onChange(listener: WorldListener): void {
    this.#listeners.push(listener);
  }

  /** Lists once (rejects when that fails), then follows in the background until `stop`. */
  async start(): Promise<void> {
    await this.#list();
    void this.#follow([clusterTopic, nodeTopic(this.#node)]);
  }

  stop(): void {
    this.#stop.abort();
  }

  #pick(ids: ReadonlySet<string> | undefined): Endpoint[] {
    const found: Endpoint[] = [];
    for (const id of ids ?? []) {
      const endpoint = this.#objects.endpoint.get(id);
      if (endpoint) found.push(endpoint);
    }
    return found.sort((a, b) =>
      a.createdAt === b.createdAt ? (a.id < b.id ? -1 : 1) : a.createdAt < b.createdAt ? -1 : 1,
    );
  }

  async #list(): Promise<void> {
    let oldest = Number.POSITIVE_INFINITY;
    for (const kind of WATCHED) {
      const { items, revision } = await this.#store.list<Obj>(objectPrefix(kind));
      oldest = Math.min(oldest, revision);
      const seen = new Set<string>();
      for (const item of items) {
        seen.add(item.value.id);
        this.#apply(kind, item.value.id, { ...item.value, revision: item.revision });
      }
      for (const id of this.#objects[kind].keys()) if (!seen.has(id)) this.#apply(kind, id, undefined);
    }
    this.#revision = oldest;
  }

  async #follow(topics: readonly string[]): Promise<void> {
    const { signal } = this.#stop;
    let from = this.#revision;
    while (!signal.aborted) {
      try {
        for await (const event of this.#store.watch(topics, from, signal)) {
          from = event.type === 'relist' ? event.revision : event.change.revision;
          await this.#take(event);
        }
      } catch (error) {
        this.#logger.warn({ topics, err: toSluiceError(error) }, 'watch broke, beginning anew');
        await this.#clock.sleep(REWATCH_MS, signal).catch(() => undefined);
      }
    }
  }

  async #take(event: WatchEvent): Promise<void> {
    if (event.type === 'relist') return this.#list();
    for (const entry of event.change.entries) this.#takeEntry(entry);
    this.#revision = Math.max(this.#revision, event.change.revision);
  }

  #takeEntry(entry: Pick<Entry, 'key' | 'revision'> & { value: unknown | null }): void {
    const slash = entry.key.indexOf('/');
    const kind = WATCHED.find((name) => name === entry.key.slice(0, slash));
    if (!kind) return;
    const id = entry.key.slice(slash + 1);
    const known = this.#objects[kind].get(id);
    // A list may have been newer than the log that follows it.
    if (known && known.revision >= entry.revision) return;
    this.#apply(
      kind,
      id,
      entry.value === null ? undefined : ({ ...(entry.value as Obj), revision: entry.revision } as Obj),
    );
  }

  #apply(kind: WatchedKind, id: string, now: Obj | undefined): void {
    const objects = this.#objects[kind] as Map<string, Obj>;
    const before = objects.get(id);
    if (before?.revision === now?.revision) return;
    if (now) objects.set(id, now);
    else objects.delete(id);
    if (kind === 'endpoint') this.#index(before as Endpoint | undefined, now as Endpoint | undefined);
    for (const listener of this.#listeners) listener(kind, id, now, before);
  }

  #index(before: Endpoint | undefined, now: Endpoint | undefined): void {
    if (before && !now) {
      drop(this.#bySandbox, before.spec.sandbox, before.id);
      drop(this.#byNetwork, before.spec.network, before.id);
    }
    if (now && !before) {
      add(this.#bySandbox, now.spec.sandbox, now.id);
      add(this.#byNetwork, now.spec.network, now.id);
    }
  }
}

function add(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  if (ids) ids.add(id);
  else index.set(key, new Set([id]));
}

function drop(index: Map<string, Set<string>>, key: string, id: string): void {
  const ids = index.get(key);
  ids?.delete(id);
  if (ids?.size === 0) index.delete(key);
}
