/**
 * What a daemon of the next version writes, met by one of this: objects with schema 2 and fields, choices and kinds that nobody here knows. Whatever this
 * version does with them, what it does not know stays as it was, and the rest works.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { joinedKey, planJoin } from '../../src/cluster/join/plan.ts';
import { Nodes } from '../../src/cluster/nodes.ts';
import { Registration } from '../../src/cluster/registration.ts';
import { concerns, isForeign, isKnownToAll, knownOf } from '../../src/cluster/replica/concern.ts';
import { type Mine, planRestore } from '../../src/cluster/replica/plan.ts';
import type { Entry } from '../../src/contracts/store.ts';
import { planService } from '../../src/controller/service/balance.ts';
import { callOfService } from '../../src/controller/service/record.ts';
import { createLogger } from '../../src/log.ts';
import * as keys from '../../src/model/keys.ts';
import { KINDS, type Kind, type Obj } from '../../src/model/object.ts';
import type { Service } from '../../src/model/service.ts';
import { makeWorld, NODE, refused, type World } from './desired-world.ts';

/** What the next version has more, on every level. */
const later = { text: 'of the next version', list: [1, { deep: true }] };

describe.each(['memory', 'sqlite'] as const)('objects of the next version, on %s', (kind) => {
  let world: World;
  let desired: World['desired'];
  beforeEach(async () => {
    world = await makeWorld(kind);
    desired = world.desired;
    await desired.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
    world.images.put('app');
    world.images.put('app:2');
  });
  afterEach(async () => {
    await world.settle();
    await world.close();
  });

  const read = async <O extends Obj>(of: Kind, id: string) => (await world.store.get<O>(`${of}/${id}`))!.value;
  /** As the next version would have written it. */
  async function upgrade<O extends Obj>({ kind: of, id }: O, spec: (spec: O['spec']) => object): Promise<O> {
    const value = await read<O>(of, id);
    const next = { ...value, schema: 2, later, spec: { ...spec(value.spec), later } };
    await world.store.transact([{ op: 'put', key: `${of}/${id}`, value: next }]);
    return next as unknown as O;
  }
  async function kept<O extends Obj>({ kind: of, id }: O): Promise<O> {
    const value = await read<O>(of, id);
    expect(value).toMatchObject({ schema: 2, later, spec: { later } });
    return value;
  }

  test('networks keep it through new subnets and the mark of removal', async () => {
    const { object } = await desired.networks.put('far', { driver: 'wide', subnets: [{ cidr: '10.40.0.0/24' }] });
    await upgrade(object, (spec) => ({ ...spec, subnets: [{ ...spec.subnets[0], later }] }));
    expect((await desired.networks.put('far', { driver: 'wide', subnets: [{ cidr: '10.40.0.0/24' }] })).created).toBe(
      false,
    );
    await desired.networks.addSubnets('far', [{ cidr: '10.41.0.0/24' }]);
    expect((await kept(object)).spec.subnets).toMatchObject([
      { cidr: '10.40.0.0/24', later },
      { cidr: '10.41.0.0/24' },
    ]);
    await desired.networks.remove('far');
    await kept(object);
  });

  test('containers, with sandbox and endpoints, keep it through their life, a new name and their end', async () => {
    const request = { image: 'app', networks: [{ network: 'web' }] };
    const { object } = await desired.containers.put('api', request);
    await upgrade(object, (spec) => spec);
    const sandbox = await upgrade(await desired.sandboxes.get('api'), (spec) => spec);
    const [first] = await desired.endpoints.list();
    const endpoint = await upgrade(first!, (spec) => spec);
    // The same request is no other one.
    expect((await desired.containers.put('api', request)).created).toBe(false);
    await desired.containers.start('api');
    await desired.containers.restart('api', { timeoutMs: 5 });
    await desired.containers.stop('api');
    await desired.containers.rename('api', 'renamed');
    await desired.endpoints.serve(await desired.endpoints.get('renamed.web'), true);
    for (const one of [object, sandbox, endpoint]) expect((await kept(one)).name).toMatch(/^renamed/);
    await desired.containers.remove('renamed');
    for (const one of [object, sandbox, endpoint]) expect((await kept(one)).removing).toBe(true);
  });

  test('services keep it in each port, backend and published port, whatever else is changed of them', async () => {
    for (const name of ['a', 'b']) await desired.sandboxes.put(name, { networks: [{ network: 'web' }] });
    const ports = [{ port: 80 }, { port: 53, protocol: 'udp' as const }];
    const publish = [{ published: 8080, target: 80 }];
    const request = { network: 'web', ports, publish, backends: [{ sandbox: 'a' }, { address: '192.0.2.7', port: 9 }] };
    const { object } = await desired.services.put('shop', request);
    const more = <T extends object>(list: readonly T[] = []): object[] => list.map((one) => ({ ...one, later }));
    const sctp = { port: 9, target: 9, protocol: 'sctp' };
    const [queue, topic] = [{ queue: 'orders' }, { queue: 'bills' }];
    await upgrade(object, (spec) => ({
      ...spec,
      ports: [sctp, ...more(spec.ports)],
      publish: [{ ...sctp, published: 9, mode: 'host' }, ...more(spec.publish)],
      backends: [queue, ...more(spec.backends), topic],
    }));
    const { revision } = await desired.services.get('shop');
    // Another backend goes and comes, and what is known is put as another front end would.
    await desired.services.update('shop', { addBackends: [{ sandbox: 'b' }, { sandbox: 'a' }] });
    await desired.services.update('shop', { removeBackends: [{ sandbox: 'b' }] });
    expect((await kept(object)).spec.backends).toMatchObject([
      queue,
      { later },
      { address: '192.0.2.7', later },
      topic,
    ]);
    await desired.services.put('shop', {
      ...request,
      ports: [{ port: 80, target: 81 }, { port: 443 }],
      backends: [{ sandbox: 'b' }, { sandbox: 'a' }],
      aliases: ['store'],
      labels: { team: 'x' },
    });
    const { spec, labels } = await kept(object);
    expect({ ...spec, labels }).toMatchObject({
      aliases: ['store'],
      labels: { team: 'x' },
      ports: [{ port: 80, target: 81, later }, { port: 443 }, sctp],
      publish: [
        { published: 8080, later },
        { published: 9, protocol: 'sctp' },
      ],
      backends: [{}, { later }, queue, topic],
    });
    expect(spec.ports[1]).not.toHaveProperty('later');
    expect(spec.backends[0]).not.toHaveProperty('later');
    expect((await desired.services.get('shop')).revision).toBeGreaterThan(revision);
    await desired.services.remove('shop');
    await kept(object);
  });

  test('replicas keep it through another number, another image and the whole request anew, which is no new version', async () => {
    const container = { image: 'app', env: ['A=1'] };
    const request = { network: 'web', replicas: { count: 2, container, placement: { perNodeMax: 3 } } };
    const { object } = await desired.services.put('shop', request);
    const replicas = { later, container: { later }, placement: { later } };
    await upgrade(object, (spec) => ({
      ...spec,
      replicas: {
        ...spec.replicas,
        later,
        container: { ...spec.replicas!.container, later },
        placement: { ...spec.replicas!.placement, later },
      },
    }));
    const { revision } = await desired.services.get('shop');
    expect((await desired.services.put('shop', request)).object.revision).toBe(revision);
    await desired.services.change('shop', { count: 5, updateParallelism: 2 });
    expect((await kept(object)).spec.replicas).toMatchObject({ ...replicas, count: 5, version: 1 });
    await desired.services.change('shop', { image: 'app:2' });
    expect((await kept(object)).spec.replicas).toMatchObject({ ...replicas, version: 2 });
    await desired.services.put('shop', { network: 'web', replicas: { count: 1, container: { image: 'app' } } });
    const after = (await kept(object)).spec.replicas!;
    expect(after).toMatchObject({ ...replicas, count: 1, version: 3 });
    expect(after.container).not.toHaveProperty('env');
    expect(after.placement).not.toHaveProperty('perNodeMax');
  });

  test('what a template is made of keeps it: health, restart, mounts by their place, and mounts of a kind that is new', async () => {
    const container = {
      image: 'app',
      health: { test: ['CMD', 'true'] },
      restart: { name: 'on-failure' as const },
      mounts: [{ type: 'tmpfs' as const, target: '/tmp' }],
    };
    const { object } = await desired.services.put('shop', { network: 'web', replicas: { count: 1, container } });
    const image = { type: 'image', target: '/data', later };
    await upgrade(object, (spec) => ({
      ...spec,
      replicas: {
        ...spec.replicas,
        container: {
          ...spec.replicas!.container,
          health: { ...spec.replicas!.container.health, later },
          restart: { ...spec.replicas!.container.restart, later },
          mounts: [{ ...spec.replicas!.container.mounts![0], later }, image],
        },
      },
    }));
    const again = async (more: object) => {
      await desired.services.put('shop', {
        network: 'web',
        replicas: { count: 1, container: { ...container, ...more } },
      });
      return (await kept(object)).spec.replicas!;
    };
    expect((await again({})).version).toBe(1);
    const changed = await again({
      health: { test: ['CMD', 'false'] },
      mounts: [
        { type: 'tmpfs', target: '/var' },
        { type: 'tmpfs', target: '/tmp', readOnly: true },
      ],
    });
    expect(changed.version).toBe(2);
    expect(changed.container).toMatchObject({
      health: { test: ['CMD', 'false'], later },
      restart: { name: 'on-failure', later },
    });
    expect(changed.container.mounts).toEqual([
      { type: 'tmpfs', target: '/var' },
      { type: 'tmpfs', target: '/tmp', readOnly: true, later },
      image,
    ]);
    // Whoever asks for none takes away what it knows.
    const bare = (await again({ health: undefined, mounts: undefined })).container;
    expect(bare.mounts).toEqual([image]);
    expect(bare.health).toBeUndefined();
  });

  test('volumes and nodes keep it', async () => {
    const { object } = await desired.volumes.put('data', {});
    await upgrade(object, (spec) => spec);
    await desired.volumes.remove('data');
    await kept(object);

    const host = { address: '192.0.2.1', port: 4789, hostRoutes: ['192.0.2.0/24'] };
    const { store, clock } = world;
    const seen: { spec: object } = { spec: host };
    const logger = createLogger('silent');
    const registration = new Registration({
      store,
      clock,
      logger,
      node: NODE,
      describe: () => seen.spec as typeof host,
    });
    await registration.refresh();
    const sessionOf = () => ({ state: 'ready', silentMs: 0 }) as const;
    const nodes = new Nodes({ store, clock, node: NODE, desired, sessionOf });
    const node = await upgrade(await nodes.records.get(NODE), (spec) => spec);
    await nodes.update(NODE, { labels: { zone: 'a' }, availability: 'drained' });
    seen.spec = { ...host, hostRoutes: [] };
    expect(await registration.refresh()).toBe(true);
    expect(await kept(node)).toMatchObject({
      labels: { zone: 'a' },
      spec: { availability: 'drained', hostRoutes: [] },
    });
  });

  test('an address of a kind that is not known is not collected, nor is its network taken away', async () => {
    const network = await desired.networks.get('web');
    const gateway = { kind: 'gateway', id: '9'.repeat(64), name: 'out', owner: null, schema: 2, spec: { later } };
    const pool = network.spec.subnets[0]!.pool;
    await world.store.transact([{ op: 'put', key: `gateway/${gateway.id}`, value: gateway }]);
    await world.ipam.requestAddress({ pool, owner: gateway.id, address: '10.20.0.77' });
    await world.ipam.requestAddress({ pool, owner: '8'.repeat(64), address: '10.20.0.78' });
    const live = new Set([network.id]);
    for (const _ of [1, 2]) {
      await world.ipam.collect(live);
      world.clock.advance(1_000);
    }
    await world.ipam.collect(live);
    expect((await world.ipam.leases(pool)).map(({ address }) => address).sort()).toEqual(['10.20.0.1', '10.20.0.77']);

    expect(await refused(desired.networks.remove('web'))).toMatchObject({
      code: 'object.inuse',
      details: { users: ['gateway out'] },
    });
    expect(await desired.networks.prune()).toEqual([]);
    await world.store.transact([{ op: 'delete', key: `gateway/${gateway.id}` }]);
    expect(await desired.networks.prune()).toMatchObject([{ name: 'web' }]);
  });
});

const object = (kind: string, id: string, owner: string | null, spec: object = {}): Obj =>
  ({ kind, id, name: id, revision: 0, schema: 2, owner, labels: {}, createdAt: '', spec }) as unknown as Obj;
const entry = (key: string, value: unknown, revision: number): Entry => ({ key, value, revision });

describe('records of a kind that is not known', () => {
  const gateway = (at: number, owner: string | null = null): Entry =>
    entry('gateway/g', object('gateway', 'g', owner), at);
  const its = (at: number): Entry[] => [
    entry('name/gateway/*/g', { id: 'g' }, at),
    entry('reference/gateway/g', {}, at),
    entry('lease/p/10.0.0.9', { owner: 'g', later }, at),
    entry('ruleset/all', { later }, at),
  ];
  const mine = (copies: readonly Entry[]): Mine => ({ node: 'a', incarnation: 'old', revision: 90, copies });

  test('are all that no key of this version begins with', () => {
    const made = Object.values(keys).flatMap((one) => (typeof one === 'string' ? one : []));
    for (const key of [
      ...made.filter((text) => text.includes('/')),
      ...KINDS.map((of) => keys.objectKey(of, 'id')),
      keys.nameKey('node', null, 'a'),
      keys.referenceKey('node', 'id'),
      keys.vniKey(7),
      keys.nodePrefix('a'),
      joinedKey,
      'restore/origin',
    ])
      expect(isForeign(key), key).toBe(false);
    expect(made.length).toBeGreaterThan(6);
    for (const { key } of [gateway(1), ...its(1)].filter(({ key }) => /^(?:gateway|ruleset)/.test(key)))
      expect(isForeign(key), key).toBe(true);
  });

  test('are copied, whosever they are, with what is theirs, and put back with it', () => {
    for (const owner of [null, 'a', 'b']) {
      const all = [gateway(40, owner), ...its(41)];
      const known = knownOf(all, 'a');
      expect(all.filter(({ key, value }) => concerns(key, value, 'a', known))).toEqual(all);
      const origin = entry('restore/origin', { from: 'old', to: 'new', base: 100, followed: 90, node: 'b' }, 101);
      const { puts, deletes } = planRestore(mine(all), 'new', [origin], 110);
      expect(puts.map(({ key }) => key)).toEqual(all.map(({ key }) => key));
      expect(puts.find(({ key }) => key.startsWith('lease/'))?.value).toMatchObject({ owner: 'g', later });
      expect(deletes).toEqual([]);
    }
  });

  test('are not deleted because this node has never heard of them', () => {
    const mark = entry('restore/mark/b/1', { to: 'new', revisions: { 'gateway/g': 40, 'name/gateway/*/g': 40 } }, 104);
    const there = [gateway(104), { ...its(104)[0]!, revision: 104 }, entry('ruleset/all', { later }, 30)];
    const origin = entry('restore/origin', { from: 'old', to: 'new', base: 100, followed: 90, node: 'b' }, 101);
    expect(planRestore(mine([]), 'new', [origin, mark, ...there], 110).deletes).toEqual([]);
    for (const { key, value } of there) expect(isKnownToAll(key, value)).toBe(false);
  });

  test('go along into a cluster, and do not take the place of what the cluster has', () => {
    const { puts, conflicts } = planJoin([gateway(4), ...its(4)], [entry('ruleset/all', { of: 'the cluster' }, 70)]);
    expect(puts.map(({ key }) => key)).toEqual([gateway(4), ...its(4).slice(0, -1)].map(({ key }) => key));
    expect(conflicts).toEqual([]);
  });
});

test('names and balancing of a service go on beside what they do not know of it', () => {
  const service = object('service', 'shop', null, {
    network: 'n',
    vips: ['10.0.0.9'],
    ports: [
      { port: 9, target: 9, protocol: 'sctp' },
      { port: 80, target: 80, protocol: 'tcp', later },
    ],
    backends: [{ queue: 'orders' }, { address: '192.0.2.7', later }],
    aliases: [],
  }) as Service;
  expect(planService(service, [])).toMatchObject([
    { port: 80, protocol: 'tcp', backends: [{ address: '192.0.2.7', port: 80 }] },
  ]);
  const { records } = callOfService(service, 'web', () => []);
  expect(records.find(({ name }) => name === 'tasks.shop')?.a).toEqual(['192.0.2.7']);
  expect(records.find(({ name }) => name === 'shop')?.a).toEqual(['10.0.0.9']);
});
