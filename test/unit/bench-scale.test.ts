/** The suite `scale`: what a cluster of a size holds, what is drawn of it, and what its numbers come from. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { drawCurves } from '../../bench/curve.ts';
import { startNode } from '../../bench/suites/scale/node.ts';
import { hostOfNode, nodeName, planNetworks, slopeOf, TEN } from '../../bench/suites/scale/population.ts';
import { populate } from '../../bench/suites/scale/seed.ts';
import { ordinary } from '../../bench/suites/scale.ts';
import { systemClock } from '../../src/clock.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { makeFolder } from '../folder.ts';

describe('a cluster of a size', () => {
  it.each([50, 100, 200, 500])('holds all of 10,000 endpoints and 500 services on %i nodes', (nodes) => {
    const networks = planNetworks({ nodes, endpoints: 10_000, services: 500 });
    const total = (of: 'endpoints' | 'services'): number => networks.reduce((sum, network) => sum + network[of], 0);
    expect([total('endpoints'), total('services')]).toEqual([10_000, 500]);
    expect(networks[0]!.participants).toHaveLength(nodes);
    for (const { participants } of networks.slice(1)) expect(participants).toHaveLength(TEN);
    // Every node takes part, and what is measured is the same at every size.
    expect(new Set(networks.slice(2).flatMap(({ participants }) => participants)).size).toBe(nodes);
    expect(networks[1]).toMatchObject({ endpoints: 20, services: 5 });
  });

  it.each([50, 500])(
    'changes one percent of its endpoints a second, as much of it on the network of ten: %i nodes',
    (nodes) => {
      const streams = ordinary({ nodes, endpoints: 10_000, services: 500 });
      expect(streams.reduce((sum, { rate }) => sum + rate, 0)).toBeCloseTo(100);
      expect(streams[0]).toEqual({ network: 'ten', rate: 10 });
    },
  );

  it('is made of records as requests write them, on the nodes that they belong to', async () => {
    const store = createMemoryStore({ clock: systemClock });
    const made = await populate(store, { nodes: 20, endpoints: 100, services: 10 });
    const { items } = await store.list<Endpoint>('endpoint/');
    expect(items).toHaveLength(100);
    const owners = new Map(items.map(({ value }) => [value.id, value.owner]));
    for (const { id, node } of made) expect(owners.get(id)).toBe(nodeName(node));
    expect((await store.list('service/')).items).toHaveLength(10);
    expect((await store.list('lease/')).items.length).toBeGreaterThanOrEqual(110);
    await store.close();
  });
});

describe('a node', () => {
  it('programmes what it takes part in, changes what is its own, and hears of the others', {
    timeout: 20_000,
  }, async () => {
    const memory = createMemoryStore({ clock: systemClock });
    const made = await populate(memory, { nodes: 20, endpoints: 100, services: 10 });
    const absent = (await memory.list<{ name: string }>('node/')).items.filter(({ value }) => value.name > nodeName(2));
    expect(absent).toHaveLength(17);
    await memory.transact(absent.map(({ key }) => ({ op: 'delete', key })));
    // Three of the twenty run; each one's end is not the store's.
    const store = new Proxy(memory, {
      get(target, key) {
        if (key === 'close') return async () => undefined;
        const value = Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const folder = makeFolder('scale-node');
    const heard: number[][] = [[], [], []];
    const nodes = await Promise.all(
      heard.map((revisions, at) =>
        startNode(
          nodeName(at),
          hostOfNode(at),
          async () => store,
          join(folder, nodeName(at)),
          (revision) => revisions.push(revision),
        ),
      ),
    );
    const soon = async (holds: () => boolean): Promise<void> => {
      for (let tries = 0; tries < 100 && !holds(); tries++) await systemClock.sleep(50);
      expect(holds()).toBe(true);
    };
    await soon(() => nodes.every((node) => node.settled(3)));
    const own = made.find(({ node, network }) => node === 1 && network === 'ten')!;
    const revision = await nodes[1]!.change(own.id);
    await soon(() => heard.every((revisions) => revisions.includes(revision)));
    const status = await memory.get<{ state: string }>(`status/endpoint/${own.id}/${nodeName(1)}`);
    expect(status?.value.state).toBe('ready');
    for (const node of nodes) await node.close();
    await memory.close();
    rmSync(folder, { recursive: true });
  });
});

describe('the slope', () => {
  const points = (of: (nodes: number) => number) => [50, 100, 200, 500].map((x) => ({ x, y: of(x) }));
  it('is 1 of what is proportional, 2 of a square, 0 of what stays', () => {
    expect(slopeOf(points((n) => 7 * n))).toBeCloseTo(1);
    expect(slopeOf(points((n) => 3 * n * n))).toBeCloseTo(2);
    expect(slopeOf(points(() => 5))).toBeCloseTo(0);
  });
});

describe('curves', () => {
  const curve = { title: 'a < b', unit: 'ms', over: 'nodes' };
  it('are drawn point by point, with their numbers', () => {
    const [svg, height] = drawCurves([{ ...curve, points: [50, 500].map((x) => ({ x, y: 10 * x })) }], 100, (text) =>
      text.replace('<', '&lt;'),
    );
    expect(svg.match(/<circle/g)).toHaveLength(2);
    expect(svg).toContain('a &lt; b, ms');
    expect(svg).toContain('>5,000<');
    expect(svg).not.toContain('NaN');
    expect(height).toBeGreaterThan(0);
  });
  it('are left out where nothing was measured', () => {
    expect(
      drawCurves(
        [
          { ...curve, points: [] },
          { ...curve, points: [{ x: 50, y: 0 }] },
        ],
        0,
        String,
      ),
    ).toEqual(['', 0]);
  });
});
