/** A world for API tests: the desired state over a store in memory, and a controller that does as it is told. */
import { Registry } from 'prom-client';
import { expect } from 'vitest';
import type { ApiOptions, DesiredState } from '../../src/api/context.ts';
import { Scrape } from '../../src/api/metrics.ts';
import { createApi } from '../../src/api/server.ts';
import { systemClock } from '../../src/clock.ts';
import { Nodes } from '../../src/cluster/nodes.ts';
import type { NetworkDriver } from '../../src/contracts/driver.ts';
import type { Images } from '../../src/contracts/image.ts';
import type { LiveContainers, LiveDiagnosis } from '../../src/contracts/live.ts';
import type { Entry, ListOptions, Op, Session, Store, TransactOptions, WatchEvent } from '../../src/contracts/store.ts';
import { createDesired } from '../../src/desired/desired.ts';
import { SluiceError } from '../../src/errors.ts';
import { createIpam } from '../../src/ipam/ipam.ts';
import { createLogger } from '../../src/log.ts';
import type { PeerReport } from '../../src/model/answer.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { Network } from '../../src/model/network.ts';
import type { NodeSession } from '../../src/model/node.ts';
import type { Obj, State } from '../../src/model/object.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import type { Service } from '../../src/model/service.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createFakeImages } from './image-fake.ts';

export const NODE = 'node-1';

/** A store of images with nothing in it, for tests that are not of images. */
const nothing = async (): Promise<never> => {
  throw new SluiceError('image.notfound', 'there is no image here');
};
const NO_IMAGES = {
  get: async () => null,
  list: async () => [],
  prune: async () => ({ deleted: [], bytes: 0 }),
  logout: async () => undefined,
  ...{ pull: nothing, push: nothing, load: nothing, import: nothing, login: nothing },
  ...{ tag: nothing, remove: nothing, history: nothing },
} as unknown as Images;

/** The store in memory, whose calls can be made to fail or hang. */
export class FaultyStore implements Store {
  readonly #store = createMemoryStore({ clock: systemClock, logMax: 10 });
  /** The same without faults. */
  readonly unfailing: Store = this.#store;
  /** Tells another store when it is set. */
  incarnation = this.#store.incarnation;
  /** Every call answers with this. */
  failure: Error | null = null;
  /** Every call waits for this. */
  hold: Promise<void> | null = null;
  watches = 0;
  #broken = Promise.withResolvers<never>();

  constructor() {
    // Nobody may be watching when it is broken.
    this.#broken.promise.catch((error) => expect(error).toBeInstanceOf(Error));
  }
  async #enter(): Promise<void> {
    await this.hold;
    if (this.failure) throw this.failure;
  }
  async get<T>(key: string): Promise<Entry<T> | null> {
    await this.#enter();
    return this.#store.get<T>(key);
  }
  async list<T>(prefix: string, options?: ListOptions) {
    await this.#enter();
    return this.#store.list<T>(prefix, options);
  }
  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    await this.#enter();
    return this.#store.transact(ops, options);
  }
  /** Writes until the log has forgotten all that was there. */
  async trim(): Promise<number> {
    let revision = 0;
    for (let n = 0; n < 1100; n++) revision = await this.transact([{ op: 'put', key: 'filler', value: n }]);
    return revision;
  }
  /** Open watches end with this error, and so does every call until `failure` is taken away. */
  breakWatches(error: Error): void {
    this.failure = error;
    this.#broken.reject(error);
    this.#broken = Promise.withResolvers<never>();
    this.#broken.promise.catch((reason) => expect(reason).toBeInstanceOf(Error));
  }
  async *watch(topics: string | readonly string[], from: number, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    if (this.failure) throw this.failure;
    this.watches++;
    const broken = this.#broken.promise;
    const events = this.#store.watch(topics, from, signal)[Symbol.asyncIterator]();
    for (;;) {
      const { value, done } = await Promise.race([events.next(), broken]);
      if (done) return;
      yield value;
    }
  }
  session(name: string, ttlMs: number): Promise<Session> {
    return this.#store.session(name, ttlMs);
  }
  close(): Promise<void> {
    return this.#store.close();
  }
}

const driver = (name: string): NetworkDriver => ({
  name,
  capabilities: () => ({ scope: 'local', addresses: name === 'bridge', overhead: { ipv4: 0, ipv6: 0 } }),
  validate: () => undefined,
  createNetwork: async () => ({ routed: true }),
  deleteNetwork: async () => undefined,
  createEndpoint: async () => ({}),
  join: async () => ({ ifprefix: 'eth', gateways: [], routes: [], neighbours: [] }),
  leave: async () => undefined,
  deleteEndpoint: async () => undefined,
});
const DRIVERS = new Map(['bridge', 'host', 'none'].map((name) => [name, driver(name)]));

const stopped = (): never => {
  throw new SluiceError('container.stopped', 'nothing runs here');
};
const nothingRuns: LiveContainers = {
  runtime: {
    state: async () => null,
    kill: async () => stopped(),
    exec: async () => stopped(),
    logs: stopped,
    stats: async () => stopped(),
    processes: async () => stopped(),
  },
  attach: async () => stopped(),
  exit: async () => stopped(),
  copyOut: stopped,
  copyIn: async () => stopped(),
};

/** What happens to an object once it is stored. */
export type Fate = { readonly state: State; readonly code?: string; readonly message?: string } | 'nothing';

export class World {
  readonly store = new FaultyStore();
  readonly life = new AbortController();
  readonly registry = new Registry();
  /** Calls of the desired state by their first word: `networks.put web`. */
  readonly calls: string[] = [];
  /** Thrown by the next calls of the desired state, when set. */
  failure: unknown = null;
  /** What the controller makes of a stored object, and after how long. */
  fate: (object: Obj) => Fate = () => ({ state: 'ready' });
  delayMs = 5;
  peer: ApiOptions['peer'];
  readonly ipam = createIpam({
    store: this.store,
    clock: systemClock,
    pools: [
      { base: '10.0.0.0/8', size: 24 },
      { base: 'fd00::/48', size: 64 },
    ],
  });
  readonly images = createFakeImages();
  /** What runs; a test that needs it opens a container bed. */
  live: LiveContainers = nothingRuns;
  /** The real one, without records of calls. */
  readonly state = createDesired({
    store: this.store,
    clock: systemClock,
    node: NODE,
    drivers: {
      get(name) {
        const found = DRIVERS.get(name);
        if (!found) throw new SluiceError('driver.unknown', `there is no network driver ${name}`, { driver: name });
        return found;
      },
      names: () => [...DRIVERS.keys()],
    },
    ipams: new Map([['default', this.ipam]]),
    images: this.images,
    hostPrefixes: () => [],
  });
  readonly desired: DesiredState = {
    networks: this.#recorded('networks', this.state.networks),
    sandboxes: this.#recorded('sandboxes', this.state.sandboxes),
    endpoints: this.#recorded('endpoints', this.state.endpoints),
    services: this.#recorded('services', this.state.services),
    containers: this.#recorded('containers', this.state.containers),
    volumes: this.#recorded('volumes', this.state.volumes),
    statuses: this.state.statuses,
  };

  /** What this node's kernel has of a network's endpoints, by the network's id. */
  readonly reports = new Map<string, PeerReport>();
  /** What this node's kernel has otherwise than it should. */
  diff: LiveDiagnosis['diff'] = async () => ({ node: NODE, compared: {}, items: [], skipped: [] });
  trace: LiveDiagnosis['trace'] = async ({ from, to }) => ({ from, node: NODE, to, reachable: true, steps: [] });
  /** What this node knows of each session; not named: ready. */
  readonly sessions = new Map<string, NodeSession>();
  readonly nodes = new Nodes({
    store: this.store,
    clock: systemClock,
    node: NODE,
    desired: this.state,
    sessionOf: (name) => this.sessions.get(name) ?? { state: 'ready', silentMs: 0 },
  });

  constructor() {
    this.#control().catch((error) => expect(error).toMatchObject({ code: 'store.unavailable' }));
  }

  api(options: Partial<ApiOptions> = {}) {
    const logger = createLogger('silent');
    return createApi({
      desired: this.desired,
      peers: { inspect: async (id) => this.reports.get(id) ?? { joined: false, differences: [] } },
      diagnosis: {
        diff: async (query) => this.diff(query),
        trace: async (query) => this.trace(query),
        answer: async () => null,
      },
      live: new Proxy({} as LiveContainers, { get: (_, key) => Reflect.get(this.live, key) }),
      nodes: this.nodes,
      cluster: { join: async ({ store }) => ({ store, node: NODE, records: 3 }) },
      store: this.store,
      images: NO_IMAGES,
      clock: systemClock,
      node: NODE,
      logger,
      version: '1.2.3',
      metrics: new Scrape({ registry: this.registry, clock: systemClock, logger }),
      system: {
        report: () => ({
          instance: 'test',
          kernel: '6.1.0',
          startedAt: '2026-01-01T00:00:00.000Z',
          components: [{ name: 'network', state: 'ok' }],
          conditions: [],
        }),
      },
      peer: this.peer,
      signal: this.life.signal,
      ...options,
    });
  }

  setStatus(object: Obj, state: State, error?: { code: string; message: string }): Promise<boolean> {
    const { kind, id, revision: observed } = object;
    return this.state.statuses.set({ kind, id, node: NODE, state, observed, conditions: [], error, detail: {} });
  }

  /** Each call noted, or failing as told. */
  #recorded<T extends object>(noun: string, target: T): T {
    return new Proxy(target, {
      get: (_, key) => {
        const method = Reflect.get(target, key) as (...words: unknown[]) => unknown;
        return async (...words: unknown[]) => {
          this.calls.push([`${noun}.${String(key)}`, ...words.slice(0, 1)].join(' '));
          if (this.failure) throw this.failure;
          return method.apply(target, words);
        };
      },
    });
  }

  /** Does to every object that is written what `fate` says, as controllers would: by the store's own news. */
  async #control(): Promise<void> {
    for await (const event of this.store.unfailing.watch(['cluster', `node/${NODE}`], 0, this.life.signal)) {
      if (event.type !== 'change') continue;
      for (const { key, value, revision } of event.change.entries) {
        if (value !== null && /^(network|sandbox|endpoint|service)\//.test(key)) {
          this.#settle({ ...(value as Obj), revision });
        }
      }
    }
  }

  #settle(object: Obj): void {
    const fate = this.fate(object);
    if (fate === 'nothing') return;
    systemClock.after(this.delayMs, () => {
      const error = fate.code ? { code: fate.code, message: fate.message ?? 'no reason' } : undefined;
      const done =
        object.removing && fate.state === 'ready' ? this.#forget(object) : this.setStatus(object, fate.state, error);
      done.catch((reason) => expect(reason).toBe(this.store.failure));
    });
  }

  #forget(object: Obj): Promise<void> {
    const { networks, sandboxes, endpoints, services } = this.state;
    if (object.kind === 'network') return networks.forget(object as Network);
    if (object.kind === 'sandbox') return sandboxes.forget(object as Sandbox);
    return object.kind === 'endpoint' ? endpoints.forget(object as Endpoint) : services.forget(object as Service);
  }
}
