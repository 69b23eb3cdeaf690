/** A world for API tests: a store and a desired state in memory, and a controller that does as it is told. */
import { Registry } from 'prom-client';
import { expect } from 'vitest';
import type { ApiOptions } from '../../src/api/context.ts';
import type { DesiredState, Put } from '../../src/api/desired.ts';
import { Scrape } from '../../src/api/metrics.ts';
import { createApi } from '../../src/api/server.ts';
import { systemClock } from '../../src/clock.ts';
import type { Entry, Op, Session, Store, TransactOptions, WatchEvent } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { hexId } from '../../src/model/id.ts';
import { objectKey, objectPrefix, statusKey, topicsOf } from '../../src/model/keys.ts';
import type { Network } from '../../src/model/network.ts';
import type { Kind, Obj, State, Status } from '../../src/model/object.ts';
import type { View } from '../../src/model/request.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import type { Service } from '../../src/model/service.ts';
import { createMemoryStore } from '../../src/store/sqlite.ts';

export const NODE = 'node-1';

/** The store in memory, whose calls can be made to fail or hang. */
export class FaultyStore implements Store {
  readonly #store = createMemoryStore({ clock: systemClock, logMax: 10 });
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
  async list<T>(prefix: string) {
    await this.#enter();
    return this.#store.list<T>(prefix);
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

/** What happens to an object once it is stored. */
export type Fate = { readonly state: State; readonly code?: string; readonly message?: string } | 'nothing';

export class World {
  readonly store = new FaultyStore();
  readonly life = new AbortController();
  readonly registry = new Registry();
  /** Every public call of the desired state: `networks.put web`. */
  readonly calls: string[] = [];
  /** Thrown by the next calls of the desired state, when set. */
  failure: unknown = null;
  /** What the controller makes of a stored object, and after how long. */
  fate: (object: Obj) => Fate = () => ({ state: 'ready' });
  delayMs = 5;
  peer: ApiOptions['peer'];

  api(options: Partial<ApiOptions> = {}) {
    const logger = createLogger('silent');
    return createApi({
      desired: this.desired,
      store: this.store,
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

  async setStatus(object: Obj, state: State, error?: { code: string; message: string }, observed = object.revision) {
    const status: Status = {
      kind: object.kind,
      id: object.id,
      node: NODE,
      state,
      observed,
      conditions: [],
      detail: {},
    };
    await this.store.transact(
      [{ op: 'put', key: statusKey(object.kind, object.id, NODE), value: error ? { ...status, error } : status }],
      { topics: topicsOf(object) },
    );
  }

  #control(object: Obj): void {
    const fate = this.fate(object);
    if (fate === 'nothing') return;
    systemClock.after(this.delayMs, () => {
      if (object.removing && fate.state === 'ready') {
        const keys = [objectKey(object.kind, object.id), statusKey(object.kind, object.id, NODE)];
        void this.store.transact(
          keys.map((key) => ({ op: 'delete', key })),
          { topics: topicsOf(object) },
        );
        return;
      }
      const error = fate.code ? { code: fate.code, message: fate.message ?? 'no reason' } : undefined;
      void this.setStatus(object, fate.state, error);
    });
  }

  async #write<O extends Obj>(object: O, expect?: number, actor?: string): Promise<O> {
    const key = objectKey(object.kind, object.id);
    const options = { topics: topicsOf(object), actor };
    // The revision is the write's own, so it is known only after: two records of one truth, as any store keeps them.
    const revision = await this.store.transact([{ op: 'put', key, value: object, expect }], options);
    const stored = { ...object, revision };
    this.#control(stored);
    return stored;
  }

  async #all<O extends Obj>(kind: Kind): Promise<O[]> {
    const { items } = await this.store.list<O>(objectPrefix(kind));
    return items.map((entry) => ({ ...entry.value, revision: entry.revision }));
  }
  async #find<O extends Obj>(kind: Kind, ref: string): Promise<O> {
    const all = await this.#all<O>(kind);
    const named = all.find((object) => object.name === ref || object.id === ref);
    if (named) return named;
    const begun = all.filter((object) => /^[0-9a-f]{4,}$/.test(ref) && object.id.startsWith(ref));
    if (begun.length > 1) {
      throw new SluiceError('object.ambiguous', `${ref} fits several`, { names: begun.map((object) => object.name) });
    }
    if (!begun[0]) throw new SluiceError('object.notfound', `no ${kind} ${ref}`, { kind, ref });
    return begun[0];
  }

  readonly #creating = new Map<string, Promise<unknown>>();
  /** One create of a name at a time, as the name key in the same transaction makes it. */
  async #put<O extends Obj>(kind: Kind, name: string, spec: O['spec'], create?: boolean, actor?: string) {
    const claim = `${kind}/${name}`;
    const before = this.#creating.get(claim) ?? Promise.resolve();
    const work = before.then(async (): Promise<Put<O>> => {
      const present = (await this.#all<O>(kind)).find((object) => object.name === name);
      if (present && create) throw new SluiceError('object.exists', `${kind} ${name} exists`, { name });
      if (present && JSON.stringify(present.spec) === JSON.stringify(spec)) return { object: present, created: false };
      const id = present?.id ?? hexId(systemClock.random(32));
      const createdAt = new Date(systemClock.now()).toISOString();
      const fresh = {
        kind,
        id,
        name,
        revision: 0,
        schema: 1,
        owner: NODE,
        labels: {},
        createdAt,
        spec,
      } as unknown as O;
      return { object: await this.#write(present ? { ...present, spec } : fresh, undefined, actor), created: !present };
    });
    this.#creating.set(claim, Promise.allSettled([work]));
    return work;
  }
  #call(name: string, ...words: unknown[]): void {
    this.calls.push([name, ...words].join(' '));
    if (this.failure) throw this.failure;
  }

  readonly desired: DesiredState = {
    networks: {
      put: async (name, request, { create, actor }) => {
        this.#call('networks.put', name);
        const spec: Network['spec'] = {
          driver: request.driver ?? 'bridge',
          scope: 'local',
          ipam: 'default',
          subnets: (request.subnets ?? []).map((subnet) => ({ cidr: subnet.cidr ?? '10.0.0.0/24', pool: 'p' })),
          ipv4: request.ipv4 ?? true,
          ipv6: request.ipv6 ?? false,
          internal: request.internal ?? false,
          options: request.options ?? {},
        };
        return this.#put<Network>('network', name, spec, create, actor);
      },
      get: async (ref) => {
        this.#call('networks.get', ref);
        return this.#find<Network>('network', ref);
      },
      list: async () => {
        this.#call('networks.list');
        return this.#all<Network>('network');
      },
      remove: async (ref, { actor }) => {
        this.#call('networks.remove', ref);
        const network = await this.#find<Network>('network', ref);
        const users = (await this.#all<Endpoint>('endpoint')).filter(({ spec }) => spec.network === network.id);
        if (users.length > 0) throw new SluiceError('object.inuse', `${ref} is used`, { users: users.length });
        return this.#write({ ...network, removing: true }, undefined, actor);
      },
      prune: async ({ actor }) => {
        this.#call('networks.prune');
        const used = new Set((await this.#all<Endpoint>('endpoint')).map((endpoint) => endpoint.spec.network));
        const unused = (await this.#all<Network>('network')).filter((network) => !used.has(network.id));
        return Promise.all(unused.map((network) => this.#write({ ...network, removing: true }, undefined, actor)));
      },
    },
    sandboxes: {
      put: async (name, request, { create, actor }) => {
        this.#call('sandboxes.put', name);
        const spec: Sandbox['spec'] = { origin: 'own', sysctls: request.sysctls ?? {} };
        const put = await this.#put<Sandbox>('sandbox', name, spec, create, actor);
        for (const attachment of request.networks ?? []) {
          await this.desired.endpoints.connect(name, attachment, { actor });
        }
        return put;
      },
      get: async (ref) => {
        this.#call('sandboxes.get', ref);
        return this.#find<Sandbox>('sandbox', ref);
      },
      list: async () => {
        this.#call('sandboxes.list');
        return this.#all<Sandbox>('sandbox');
      },
      remove: async (ref, { force, actor }) => {
        this.#call('sandboxes.remove', ref, force ? 'force' : '');
        return this.#write({ ...(await this.#find<Sandbox>('sandbox', ref)), removing: true }, undefined, actor);
      },
    },
    endpoints: {
      connect: async (sandbox, request, { actor }) => {
        this.#call('endpoints.connect', sandbox, request.network);
        const box = await this.#find<Sandbox>('sandbox', sandbox);
        const network = await this.#find<Network>('network', request.network);
        const spec: Endpoint['spec'] = {
          network: network.id,
          sandbox: box.id,
          addresses: [`${request.ip ?? '10.0.0.2'}/24`],
          mac: '02:42:0a:00:00:02',
          aliases: request.aliases ?? [],
          allow: request.allow ?? [],
          gwPriority: request.gwPriority ?? 0,
        };
        return this.#put<Endpoint>('endpoint', `${box.name}.${network.name}`, spec, false, actor);
      },
      disconnect: async (sandbox, network, { actor }) => {
        this.#call('endpoints.disconnect', sandbox, network);
        const endpoint = await this.#find<Endpoint>('endpoint', `${sandbox}.${network}`);
        return this.#write({ ...endpoint, removing: true }, undefined, actor);
      },
      get: async (ref) => {
        this.#call('endpoints.get', ref);
        return this.#find<Endpoint>('endpoint', ref);
      },
      list: async () => this.#all<Endpoint>('endpoint'),
    },
    services: {
      put: async (name, request, { create, actor }) => {
        this.#call('services.put', name);
        const network = await this.#find<Network>('network', request.network);
        const ports = (request.ports ?? []).map((port) => ({
          ...port,
          target: port.target ?? port.port,
          protocol: port.protocol ?? ('tcp' as const),
        }));
        const spec: Service['spec'] = {
          network: network.id,
          vips: request.ips ?? ['10.0.0.200'],
          ports,
          backends: request.backends ?? [],
          aliases: request.aliases ?? [],
        };
        return this.#put<Service>('service', name, spec, create, actor);
      },
      update: async (ref, { addBackends = [], removeBackends = [] }, { actor }) => {
        this.#call('services.update', ref, addBackends.length, removeBackends.length);
        const service = await this.#find<Service>('service', ref);
        const gone = new Set(removeBackends.map((backend) => JSON.stringify(backend)));
        const backends = [...service.spec.backends, ...addBackends].filter((b) => !gone.has(JSON.stringify(b)));
        return this.#write({ ...service, spec: { ...service.spec, backends } }, undefined, actor);
      },
      get: async (ref) => {
        this.#call('services.get', ref);
        return this.#find<Service>('service', ref);
      },
      list: async () => {
        this.#call('services.list');
        return this.#all<Service>('service');
      },
      remove: async (ref, { actor }) => {
        this.#call('services.remove', ref);
        return this.#write({ ...(await this.#find<Service>('service', ref)), removing: true }, undefined, actor);
      },
    },
    statuses: {
      view: async <O extends Obj>(object: O): Promise<View<O>> => {
        const entry = await this.store.get<Status>(statusKey(object.kind, object.id, NODE));
        return { ...object, status: entry?.value ?? null };
      },
    },
  };
}
