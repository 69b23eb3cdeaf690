/** The desired state over a store, with drivers that do nothing, and what must hold of it at any moment. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { DriverNetwork, Lease, NetworkDriver } from '../../src/contracts/driver.ts';
import type { Entry, Store } from '../../src/contracts/store.ts';
import { createDesired, type Desired } from '../../src/desired/desired.ts';
import { SluiceError } from '../../src/errors.ts';
import { type CollectingIpam, createIpam } from '../../src/ipam/ipam.ts';
import type { Volume } from '../../src/model/container/volume.ts';
import type { Container } from '../../src/model/container.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { contains, parseCidr } from '../../src/model/ip.ts';
import { attachmentKey, nameKey } from '../../src/model/keys.ts';
import type { Network } from '../../src/model/network.ts';
import type { Kind, Obj } from '../../src/model/object.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import type { Service } from '../../src/model/service.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { createManualClock, type ManualClock } from '../clock.ts';
import { makeFolder } from '../folder.ts';
import { createFakeImages, type FakeImages } from './image-fake.ts';

export const NODE = 'node-1';
export const ACTOR = 'uid:0 pid:4242';

function driver(name: string): NetworkDriver {
  return {
    name,
    capabilities: () => ({
      scope: name === 'wide' ? 'global' : 'local',
      addresses: name !== 'host' && name !== 'none',
      overhead: { ipv4: 0, ipv6: 0 },
    }),
    validate({ options }: DriverNetwork) {
      const odd = Object.keys(options).find((key) => key !== 'spoof');
      if (odd) throw new SluiceError('request.invalid', `driver ${name} knows no option ${odd}`, { option: odd });
    },
    createNetwork: async () => ({ routed: true }),
    deleteNetwork: async () => undefined,
    createEndpoint: async () => ({}),
    join: async () => ({ ifprefix: 'eth', gateways: [], routes: [], neighbours: [] }),
    leave: async () => undefined,
    deleteEndpoint: async () => undefined,
  };
}

export interface World {
  readonly store: Store;
  readonly clock: ManualClock;
  readonly desired: Desired;
  readonly ipam: CollectingIpam;
  /** Another daemon on the same node's state, with an IPAM driver of its own. */
  readonly other: Desired;
  readonly routes: string[];
  readonly images: FakeImages;
  /** Runs once, before the next transaction that writes a key with the beginning. */
  before(keyPrefix: string, work: () => Promise<unknown>): void;
  /** Takes apart what is being removed, as controllers do. */
  settle(): Promise<void>;
  /** Everything that must hold whenever no request is under way. */
  check(): Promise<void>;
  keys(prefix?: string): Promise<string[]>;
  close(): Promise<void>;
}

export async function makeWorld(kind: 'memory' | 'sqlite' = 'memory'): Promise<World> {
  const clock = createManualClock();
  const folder = kind === 'sqlite' ? makeFolder('desired') : undefined;
  const kept = folder
    ? await openSqliteStore({ path: join(folder, 'sluice.db'), clock })
    : createMemoryStore({ clock });
  let ambush: { readonly keyPrefix: string; readonly work: () => Promise<unknown> } | null = null;
  const store: Store = {
    incarnation: kept.incarnation,
    get: (key) => kept.get(key),
    list: (prefix, options) => kept.list(prefix, options),
    async transact(ops, options) {
      const due = ambush;
      if (due && ops.some(({ op, key }) => op !== 'check' && key.startsWith(due.keyPrefix))) {
        ambush = null;
        await due.work();
      }
      return kept.transact(ops, options);
    },
    watch: (topics, from, signal) => kept.watch(topics, from, signal),
    session: (name, ttlMs) => kept.session(name, ttlMs),
    close: () => kept.close(),
  };
  const routes: string[] = [];
  const images = createFakeImages();
  const drivers = new Map(['bridge', 'host', 'none', 'wide'].map((name) => [name, driver(name)]));
  const ipamOver = (over: Store): CollectingIpam =>
    createIpam({
      store: over,
      clock,
      pools: [
        { base: '172.17.0.0/12', size: 16 },
        { base: 'fdb5:1ce0::/32', size: 64 },
      ],
      graceMs: 1_000,
    });
  const desiredOver = (over: Store, ipam: CollectingIpam): Desired =>
    createDesired({
      store: over,
      clock,
      node: NODE,
      drivers: {
        get(name) {
          const found = drivers.get(name);
          if (!found) throw new SluiceError('driver.unknown', `there is no network driver ${name}`, { driver: name });
          return found;
        },
        names: () => [...drivers.keys()],
      },
      ipams: new Map([['default', ipam]]),
      images,
      hostPrefixes: () => routes,
    });
  const ipam = ipamOver(store);
  const desired = desiredOver(store, ipam);
  const world: World = {
    store: kept,
    clock,
    desired,
    ipam,
    other: desiredOver(kept, ipamOver(kept)),
    routes,
    images,
    before(keyPrefix, work) {
      ambush = { keyPrefix, work };
    },
    settle: () => settle(desired),
    check: () => check(kept, ipam),
    keys: async (prefix = '') => (await kept.list(prefix)).items.map(({ key }) => key),
    close: async () => {
      await kept.close();
      if (folder) rmSync(folder, { recursive: true });
    },
  };
  return world;
}

/** What stays in an empty store: the list of all pools, and how far numbers have risen. */
export const isLasting = (key: string): boolean => key === 'poolspace/all' || key.startsWith(`local/${NODE}/counter/`);

/** As the controllers take apart what is being removed. */
async function settle(desired: Desired): Promise<void> {
  const { networks, sandboxes, endpoints, services, containers, volumes, numbers } = desired;
  for (const container of await containers.list()) if (container.removing) await containers.forget(container);
  for (const volume of await volumes.list()) if (volume.removing) await volumes.forget(volume);
  for (const service of await services.list()) if (service.removing) await services.forget(service);
  for (const endpoint of await endpoints.list())
    if (endpoint.removing)
      await numbers.releaseWith('attachment', endpoint.id, (ops) => endpoints.forget(endpoint, ops));
  for (const sandbox of await sandboxes.list()) {
    if (!sandbox.removing) continue;
    await numbers.release('attachment', sandbox.id);
    await sandboxes.forget(sandbox);
  }
  for (const network of await networks.list()) if (network.removing) await networks.forget(network);
}

async function check(store: Store, ipam: CollectingIpam): Promise<void> {
  const all = new Map<string, Entry<Obj>>();
  const of = async <O extends Obj>(kind: Kind): Promise<Map<string, O>> => {
    const { items } = await store.list<O>(`${kind}/`);
    for (const item of items) all.set(item.value.id, item);
    return new Map(items.map(({ value }) => [value.id, value]));
  };
  const networks = await of<Network>('network');
  const sandboxes = await of<Sandbox>('sandbox');
  const endpoints = await of<Endpoint>('endpoint');
  const services = await of<Service>('service');
  const containers = await of<Container>('container');
  const volumes = [...(await of<Volume>('volume')).values()];

  // Who is on a network has a number, and nobody else.
  const numbered = (await store.list<number>(`local/${NODE}/number/attachment/`)).items;
  const attached = [...sandboxes.values()].filter(({ spec }) => spec.origin !== 'host');
  expect(numbered.map(({ key }) => key.split('/').at(-1)).sort()).toEqual(
    [...attached, ...endpoints.values()].map(({ id }) => id).sort(),
  );
  expect(new Set(numbered.map(({ value }) => value)).size).toBe(numbered.length);
  // Leases and what they are for are the same set.
  const leases = new Map(
    (await store.list<Lease>('lease/')).items.map(({ value }) => [`${value.pool} ${value.address}`, value.owner]),
  );
  const wanted = new Map<string, string>();
  const want = (network: Network, address: string, owner: string): void => {
    const subnet = network.spec.subnets.find(({ cidr }) => contains(parseCidr(cidr), address));
    wanted.set(`${subnet?.pool} ${address}`, owner);
  };
  for (const network of networks.values())
    for (const { gateway, aux = {} } of network.spec.subnets)
      for (const address of [gateway!, ...Object.values(aux)]) want(network, address, network.id);
  for (const { id, spec } of endpoints.values())
    for (const address of spec.addresses) want(networks.get(spec.network)!, address.split('/')[0]!, id);
  for (const { id, spec } of services.values()) for (const vip of spec.vips) want(networks.get(spec.network)!, vip, id);
  expect(leases).toEqual(wanted);
  const pools = (await ipam.pools()).map(({ id, owner }) => `${id} ${owner}`).sort();
  const wantedPools = [...networks.values()].flatMap(({ id, spec }) => spec.subnets.map(({ pool }) => `${pool} ${id}`));
  expect(pools).toEqual(wantedPools.sort());

  // A name for each object that lives, and none besides.
  const claims = new Map((await store.list<{ id: string }>('name/')).items.map(({ key, value }) => [key, value.id]));
  const names = new Map<string, string>();
  for (const { value } of all.values()) {
    if (value.removing) continue;
    const { kind, owner, name, id } = value;
    const { sandbox, network } = (value as Endpoint).spec;
    names.set(kind === 'endpoint' ? attachmentKey(sandbox, network) : nameKey(kind, owner, name), id);
  }
  expect(claims).toEqual(names);

  // Whatever refers to something refers to something that is there; what lives, to what lives.
  for (const { spec, removing } of endpoints.values()) {
    expect(networks.has(spec.network) && sandboxes.has(spec.sandbox)).toBe(true);
    if (removing) continue;
    expect(networks.get(spec.network)!.removing ?? false).toBe(false);
    expect(sandboxes.get(spec.sandbox)!.removing ?? false).toBe(false);
  }
  for (const { name, spec, removing } of containers.values()) {
    const sandbox = sandboxes.get(spec.sandbox);
    if (removing) continue;
    expect(sandbox).toMatchObject({ name });
    expect(sandbox!.removing ?? false).toBe(false);
    for (const { type, source } of spec.mounts)
      if (type === 'volume') expect(volumes.some((one) => one.name === source && !one.removing)).toBe(true);
  }
  for (const { spec, removing } of services.values()) {
    expect(networks.has(spec.network)).toBe(true);
    if (removing) continue;
    expect(networks.get(spec.network)!.removing ?? false).toBe(false);
    for (const backend of spec.backends)
      if ('sandbox' in backend) expect(sandboxes.get(backend.sandbox)).toMatchObject({ kind: 'sandbox' });
    for (const backend of spec.backends)
      if ('sandbox' in backend) expect(sandboxes.get(backend.sandbox)!.removing ?? false).toBe(false);
  }
  for (const key of ['status/', 'reference/'])
    for (const item of (await store.list(key)).items) expect(all.has(item.key.split('/')[2]!), item.key).toBe(true);
}

/** What was refused with: the error itself. */
export async function refused(work: Promise<unknown>): Promise<SluiceError> {
  try {
    await work;
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    return error as SluiceError;
  }
  throw new Error('was not refused');
}
