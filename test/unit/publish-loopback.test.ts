/** Published ports on ::1: what they make of the data plane, over restarts and changes. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createFakeDataplane, type FakeDataplane } from '../../src/balancer/fake.ts';
import type { PublishedPort } from '../../src/contracts/publisher.ts';
import type { Context } from '../../src/controller/context.ts';
import { LoopbackPorts } from '../../src/controller/publish/loopback.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { makeWorld, type World } from './desired-world.ts';

const kernel = createFakeKernel();
let world: World;
let dataplane: FakeDataplane;
let ports: LoopbackPorts;
/** The daemon begins anew over what is pinned. */
async function begin(): Promise<void> {
  dataplane = createFakeDataplane(dataplane?.state);
  await dataplane.start();
  ports = new LoopbackPorts({ desired: world.desired, dataplane, kernel } as unknown as Context);
  await ports.load();
}
beforeEach(async () => {
  world = await makeWorld();
  await begin();
});
afterEach(async () => {
  dataplane.off();
  await world.close();
});

const port = (published: number, address: string, ...backends: string[]): PublishedPort => ({
  address,
  port: published,
  protocol: 'tcp',
  from: 'any',
  backends: backends.map((one) => ({ address: one, port: 80, ifname: 'br0', subnet: '' })),
});
const reach = (published: number): string => {
  const outcome = dataplane.connectOnHost(kernel.host, '::1', published, 'tcp');
  return typeof outcome === 'string' ? outcome : outcome.backend.address;
};
const numbers = async (): Promise<number> =>
  (await world.desired.numbers.all('set')).size + (await world.desired.numbers.all('backend')).size;

test('what is published on ::1 and on every IPv6 address, and nothing else', async () => {
  await ports.ensure('a', [
    port(1, '0.0.0.0', '10.0.0.2'),
    port(1, '::1', '10.0.0.2'),
    port(2, '::', 'fd00::2'),
    port(3, 'fd00::1', 'fd00::2'),
  ]);
  expect([1, 2, 3].map(reach)).toEqual(['10.0.0.2', 'fd00::2', 'untouched']);
  await ports.ensure('a', [port(2, '::', 'fd00::3')]);
  expect([1, 2].map(reach)).toEqual(['untouched', 'fd00::3']);
});

test('the host is served while there is something, and numbers go with what had them', async () => {
  await ports.collect();
  await ports.ensure('a', [port(1, '::1', '10.0.0.2')]);
  await ports.ensure('b', [port(2, '::1', '10.0.0.3')]);
  const open = dataplane.connectOnHost(kernel.host, '::1', 1, 'tcp');
  ports.withdraw('a');
  expect(open).toMatchObject({ open: false });
  expect([1, 2].map(reach)).toEqual(['untouched', '10.0.0.3']);
  ports.prune(new Set());
  expect(dataplane.state.servesHost).toBe(false);
  expect(await numbers()).toBe(4);
  await ports.collect();
  expect(await numbers()).toBe(0);
  expect([...dataplane.state.frontends, ...dataplane.state.sets]).toEqual([]);
});

test('after a restart it goes on, and what nobody wants goes when that is known', async () => {
  await ports.ensure('a', [port(1, '::1', '10.0.0.2')]);
  await ports.ensure('b', [port(2, '::1', '10.0.0.3')]);
  await begin();
  ports.withdraw('b');
  expect([1, 2].map(reach)).toEqual(['10.0.0.2', '10.0.0.3']);
  await ports.ensure('a', [port(1, '::1', '10.0.0.2')]);
  const { frontends, sets } = ports.wanted();
  dataplane.prune({
    sandboxes: new Set(),
    endpoints: new Set(),
    segments: new Set<string>(),
    frontends,
    sets: new Set(sets),
  });
  await ports.collect();
  expect([1, 2].map(reach)).toEqual(['10.0.0.2', 'untouched']);
  expect(await numbers()).toBe(2);
  await begin();
  await ports.collect();
  expect(dataplane.state.servesHost).toBe(false);
  expect(await numbers()).toBe(0);
});
