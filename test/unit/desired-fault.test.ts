/** Every fault point of the desired state, failing instead of killing: what was asked for can be asked for again, and nothing is left over. */
import { afterEach, expect, test, vi } from 'vitest';
import type { SluiceError } from '../../src/errors.ts';

const POINTS = [
  'network.leased',
  'network.stored',
  'network.released',
  'sandbox.leased',
  'sandbox.stored',
  'endpoint.leased',
  'endpoint.stored',
  'endpoint.released',
  'service.leased',
  'service.stored',
  'service.released',
];
afterEach(() => {
  vi.unstubAllEnvs();
  vi.resetModules();
});

test.each(POINTS)('%s', async (point) => {
  vi.stubEnv('SLUICE_FAULT', `${point}:throw`);
  vi.resetModules();
  const { isLasting, makeWorld } = await import('./desired-world.ts');
  const world = await makeWorld();
  const { networks, sandboxes, endpoints, services } = world.desired;
  const failures: string[] = [];
  /** Whoever meets the fault tries again, as a caller or a controller would. */
  const again = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      failures.push((error as SluiceError).message);
      // What was taken apart half-way is whole again after the next attempt only.
      if (!point.endsWith('released')) await world.check();
      return work();
    }
  };
  await again(() => networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }], ipv6: true }));
  await again(() => networks.put('db', {}));
  await again(() => sandboxes.put('box', { networks: [{ network: 'web' }] }));
  await again(() => endpoints.connect('box', { network: 'db' }));
  await again(() => services.put('shop', { network: 'web', backends: [{ sandbox: 'box' }] }));
  await world.check();
  await again(() => services.remove('shop'));
  await again(() => sandboxes.remove('box', { force: true }));
  await again(() => world.settle());
  await again(() => networks.prune());
  await again(() => world.settle());
  expect(failures).toEqual([`fault point ${point}`]);
  expect((await world.keys()).filter((key) => !isLasting(key))).toEqual([]);
  await world.close();
});
