/** Replicas of a service over three hosts, with real controllers, networks and schedulers; containers are in memory. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock as clock } from '../../src/clock.ts';
import { Scheduler } from '../../src/cluster/placement/scheduler.ts';
import { createLogger } from '../../src/log.ts';
import { objectPrefix } from '../../src/model/keys.ts';
import type { Node, NodeState } from '../../src/model/node.ts';
import { ClusterBed, type ClusterNode } from './cluster-bed.ts';
import { until } from './kernel-bed.ts';

const GRACE_MS = 1_000;

describe('replicas over three hosts', () => {
  let bed: ClusterBed;
  let a: ClusterNode;
  let b: ClusterNode;
  let c: ClusterNode;
  let service: string;
  const states = new Map<string, NodeState>();
  const schedulers: Scheduler[] = [];
  /** Those whose daemon runs. */
  const alive = (): ClusterNode[] => bed.nodes.filter(({ host }) => states.get(host.name) !== 'lost');
  const judged = (node: ClusterNode, state: NodeState): void => {
    states.set(node.host.name, state);
    for (const each of alive()) each.world.judge(new Map(states));
  };
  const own = (node: ClusterNode): number =>
    node.world.replicasOf(service).filter(({ spec, removing }) => !removing && spec.wanted === 'running').length;
  const backends = (node: ClusterNode): number | undefined =>
    node.tracker.detail<{ backends: number }>('service', service).backends;
  const spread = (): Record<string, number> => Object.fromEntries(alive().map((node) => [node.host.name, own(node)]));
  const all = async (what: string, counts: readonly number[]): Promise<void> => {
    const total = counts.reduce((sum, count) => sum + count, 0);
    await until(
      what,
      () =>
        JSON.stringify(Object.values(spread())) === JSON.stringify(counts) &&
        alive().every((node) => backends(node) === total && node.resolves('tasks.shop').length === total),
      20_000,
    );
  };
  const change = async (node: ClusterNode, { labels, availability }: { labels?: object; availability?: string }) => {
    const { items } = await bed.store.list<Node>(objectPrefix('node'));
    const { key, value } = items.find((item) => item.value.name === node.host.name)!;
    const spec = { ...value.spec, ...(availability && { availability }) };
    await bed.store.transact([{ op: 'put', key, value: { ...value, labels: labels ?? value.labels, spec } }]);
  };

  beforeAll(async () => {
    bed = await ClusterBed.open('repl', 3);
    [a, b, c] = bed.nodes as [ClusterNode, ClusterNode, ClusterNode];
    for (const node of bed.nodes) {
      node.images.put('shop:1');
      const scheduler = new Scheduler({
        store: bed.store,
        clock,
        logger: createLogger(process.env.SLUICE_TEST_LOG ?? 'silent'),
        node: node.host.name,
        ttlMs: 1_500,
        graceMs: GRACE_MS,
        stateOf: (name) => states.get(name) ?? 'ready',
        count: () => bed.nodes.length,
      });
      scheduler.start();
      schedulers.push(scheduler);
    }
    await a.desired.networks.put('mesh', { driver: 'overlay', subnets: [{ cidr: '10.70.0.0/24' }] });
    // Every host has a part in the network, so that each sees what the others say.
    for (const [n, node] of bed.nodes.entries()) await node.box(`client${n}`, 'mesh');
  }, 60_000);
  afterAll(async () => {
    for (const scheduler of schedulers) await scheduler.stop();
    await bed.close();
  }, 30_000);

  test('are spread, and balanced over and named on every host alike', { timeout: 60_000 }, async () => {
    const replicas = { count: 3, container: { image: 'shop:1' } };
    const { object } = await a.desired.services.put('shop', { network: 'mesh', ports: [{ port: 80 }], replicas });
    service = object.id;
    await all('one on each', [1, 1, 1]);
    expect(schedulers.filter(({ leads }) => leads)).toHaveLength(1);
    await b.desired.services.change('shop', { count: 5 });
    await all('two more', [2, 2, 1]);
  });

  test('one that does not serve leaves balancing and names on the other hosts, too', { timeout: 60_000 }, async () => {
    const [replica] = c.world.replicasOf(service);
    await c.desired.containers.stop(replica!.id);
    await until('it is made up for', () => c.world.replicasOf(service).some(({ id }) => id !== replica!.id), 10_000);
    await all('all serve again', [2, 2, 1]);
    await until('its endpoint is gone', () => c.world.endpointsOfSandbox(replica!.spec.sandbox).length === 0);
  });

  test('of a lost host start elsewhere after the grace time; the surplus stops on its return', {
    timeout: 60_000,
  }, async () => {
    await c.stop();
    const before = performance.now();
    judged(c, 'lost');
    await until('it is out of the balancing', () => backends(a) === 4 && backends(b) === 4);
    expect(spread()).toEqual({ [a.host.name]: 2, [b.host.name]: 2 });
    await until('another is there', () => own(a) + own(b) === 5, 10_000);
    expect(performance.now() - before).toBeGreaterThan(GRACE_MS);
    await until('it serves', () => backends(a) === 5 && backends(b) === 5, 10_000);
    expect((await c.runtime.list()).filter(({ state }) => state === 'running')).toHaveLength(1);
    judged(c, 'ready');
    await c.start();
    await all('the surplus is gone', [3, 2, 0]);
    // It left the balancing first.
    await expect.poll(() => c.runtime.list(), { timeout: 5_000 }).toEqual([]);
  });

  test('leave a host that is drained, and go by labels', { timeout: 60_000 }, async () => {
    await change(a, { availability: 'drained' });
    await all('none on it', [0, 3, 2]);
    await change(a, { availability: 'active' });
    await change(b, { labels: { zone: 'x' } });
    const replicas = { count: 2, container: { image: 'shop:1' } };
    const placement = { constraints: ['node.labels.zone==x'], perNodeMax: 1 };
    await a.desired.services.put('shop', { network: 'mesh', replicas: { ...replicas, placement } });
    await all('one where it may be, and no more', [0, 1, 0]);
    await a.desired.services.put('shop', { network: 'mesh', replicas: { ...replicas, placement: { mode: 'global' } } });
    await all('one on each', [1, 1, 1]);
  });

  test('when it is to be another, one host after the other replaces its own', { timeout: 60_000 }, async () => {
    const living = (node: ClusterNode) =>
      node.world.replicasOf(service).filter(({ spec, removing }) => !removing && spec.wanted === 'running');
    const container = { image: 'shop:1', env: ['WHAT=other'] };
    const replicas = { count: 1, container, placement: { mode: 'global' as const } };
    const { object } = await b.desired.services.put('shop', { network: 'mesh', replicas });
    const { version } = object.spec.replicas!;
    // How many of them are of it, each time that this changes.
    const steps: number[] = [];
    const done = until(
      'all are of it',
      () => bed.nodes.every((node) => living(node).every(({ spec }) => spec.replica!.version === version)),
      20_000,
    );
    const sampling = setInterval(() => {
      const ours = bed.nodes.filter((node) => living(node).some(({ spec }) => spec.replica!.version === version));
      if (ours.length !== steps.at(-1)) steps.push(ours.length);
    }, 1);
    await done.finally(() => clearInterval(sampling));
    expect(steps.filter((count) => count > 0 && count < 3)).toEqual([1, 2]);
    await all('one on each still', [1, 1, 1]);
  });

  test('an image that a host has not is pulled there; another one of that name is refused', {
    timeout: 60_000,
  }, async () => {
    a.images.put('late:1');
    b.images.pull = async (name) => b.images.put(name);
    c.images.pull = async () => c.images.put('other:1');
    const replicas = { count: 1, container: { image: 'late:1' }, placement: { mode: 'global' as const } };
    const { object } = await a.desired.services.put('late', { network: 'mesh', replicas });
    const failed = () =>
      c.tracker.get('service', object.id)?.conditions.find(({ type, active }) => type === 'ReplicaFailed' && active);
    await until('it runs where it may', () => b.world.replicasOf(object.id).length === 1 && failed() !== undefined);
    expect(failed()!.message).toContain('late:1 is another image');
    expect(c.world.replicasOf(object.id)).toEqual([]);
    await a.desired.services.remove('late');
    await until('it is gone', () => bed.nodes.every(({ world }) => !world.services.has(object.id)), 10_000);
  });

  test('go with their service, and nothing is left', { timeout: 60_000 }, async () => {
    await a.desired.services.remove('shop');
    await until('it is gone everywhere', () => bed.nodes.every(({ world }) => !world.services.has(service)), 15_000);
    for (const kind of ['container', 'assignment', 'service'] as const)
      expect((await bed.store.list(objectPrefix(kind))).items).toEqual([]);
    for (const { runtime } of bed.nodes) expect(await runtime.list()).toEqual([]);
  });
});
