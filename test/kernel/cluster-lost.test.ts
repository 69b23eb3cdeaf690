import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { NodeState } from '../../src/model/node.ts';
import { ClusterBed, type ClusterNode } from './cluster-bed.ts';
import { until } from './kernel-bed.ts';

describe('backends of other hosts', () => {
  let bed: ClusterBed;
  let a: ClusterNode;
  let b: ClusterNode;
  let service: string;
  beforeAll(async () => {
    bed = await ClusterBed.open('lost', 2);
    [a, b] = bed.nodes as [ClusterNode, ClusterNode];
    await a.desired.networks.put('mesh', { driver: 'overlay', subnets: [{ cidr: '10.70.0.0/24' }] });
    await a.box('one', 'mesh', '10.70.0.11');
    await b.box('two', 'mesh', '10.70.0.12');
    const { object } = await a.desired.services.put('shop', {
      network: 'mesh',
      ports: [{ port: 80 }],
      backends: [{ sandbox: 'one' }],
    });
    service = object.id;
    await b.desired.services.update('shop', { addBackends: [{ sandbox: 'two' }] });
  }, 60_000);
  afterAll(() => bed.close());
  const backends = (node: ClusterNode): number | undefined =>
    node.tracker.detail<{ backends: number }>('service', service).backends;
  const judged = (state: NodeState): void => a.world.judge(new Map([[b.host.name, state]]));

  test('are named and balanced over while their host is ready or unreachable', async () => {
    await until('both are there', () => backends(a) === 2 && a.resolves('tasks.shop').length === 2);
    judged('unreachable');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(backends(a)).toBe(2);
    expect(a.resolves('two')).toEqual(['10.70.0.12']);
  });

  test('leave both at once when it is lost, and are back when it is', async () => {
    const before = performance.now();
    judged('lost');
    await until('it is out', () => backends(a) === 1 && a.resolves('tasks.shop').length === 1);
    expect(performance.now() - before).toBeLessThan(1_000);
    expect(a.resolves('two')).toEqual([]);
    // What is forwarded there stays, for when it answers again.
    expect(a.kernel.host.netlink.fdb().some(({ dst }) => dst === b.host.address)).toBe(true);
    judged('ready');
    await until('it is back', () => backends(a) === 2 && a.resolves('two').length === 1);
  });

  test('take no new connections on a host that is drained, and keep their names', async () => {
    const [entry] = (await bed.store.list<{ name: string; spec: object }>('node/')).items.filter(
      ({ value }) => value.name === b.host.name,
    );
    const put = (availability: string) =>
      bed.store.transact([
        { op: 'put', key: entry!.key, value: { ...entry!.value, spec: { ...entry!.value.spec, availability } } },
      ]);
    await put('drained');
    await until('it is out of the balancing, seen from both', () => backends(a) === 1 && backends(b) === 1);
    expect(a.resolves('two')).toEqual(['10.70.0.12']);
    await put('active');
    await until('it is back', () => backends(a) === 2 && backends(b) === 2);
  });
});
