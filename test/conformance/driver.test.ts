import { describe, expect, test } from 'vitest';
import { create as createBridge } from '../../plugins/bridge/bridge.ts';
import { create as createPtp } from '../../plugins/example/ptp.ts';
import { create as createHost } from '../../plugins/host/host.ts';
import { create as createNone } from '../../plugins/none/none.ts';
import { create as createOverlay } from '../../plugins/overlay/overlay.ts';
import type { DriverFactory, NetworkDriver } from '../../src/contracts/driver.ts';
import type { Kernel } from '../../src/contracts/kernel.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { DRIVER_CASES, type DriverUnderTest, driverConformance, testNetwork, throughJson } from './driver.ts';

const DRIVERS: Record<string, { create: DriverFactory; name?: string }> = {
  bridge: { create: createBridge },
  host: { create: createHost, name: 'host' },
  none: { create: createNone, name: 'none' },
  overlay: { create: createOverlay },
  example: { create: createPtp },
};

const UNDERLAY = { address: '198.18.0.1', port: 4789, ifname: 'lo', mtu: 1500 };
let count = 0;

/** A real kernel whose host namespace is a throw-away one. */
function throwAway(): { kernel: Kernel; close: () => void } {
  const base = createKernel();
  const path = `/run/netns/drv-${process.pid}-${count++}`;
  base.namespaces.ensure(path)[Symbol.dispose]();
  const kernel = createKernel({ host: path });
  return {
    kernel,
    close: () => {
      kernel[Symbol.dispose]();
      base.namespaces.remove(path);
      base[Symbol.dispose]();
    },
  };
}

function underTest(
  create: DriverFactory,
  where: 'real' | 'fake',
  name?: string,
  wrap = (driver: NetworkDriver) => driver,
): DriverUnderTest {
  const fake = where === 'fake' ? createFakeKernel() : undefined;
  const { kernel, close } = fake ? { kernel: fake, close: () => undefined } : throwAway();
  return {
    driver: wrap(create({ instance: `d${process.pid % 10000}`, kernel, underlay: () => UNDERLAY })),
    kernel,
    network: (n) => testNetwork(n, {}, name),
    close: async () => close(),
  };
}

for (const [name, { create, name: only }] of Object.entries(DRIVERS)) {
  driverConformance(name, async () => underTest(create, 'real', only));
  driverConformance(`${name} through JSON`, async () => underTest(create, 'real', only, throughJson));
  driverConformance(`${name} on the fake kernel`, async () => underTest(create, 'fake', only));
}

describe('the suite fails on a broken driver', () => {
  const broken: Record<string, (driver: NetworkDriver) => Partial<NetworkDriver>> = {
    'forgets to delete links': () => ({ deleteEndpoint: async () => undefined }),
    'returns what JSON cannot carry': () => ({
      join: async () => ({ ifprefix: 'eth', gateways: [], routes: [], neighbours: [], when: new Date() }) as never,
    }),
    'makes a new link each time': (driver) => ({
      createEndpoint: async (network, endpoint) => {
        await driver.deleteEndpoint(network.id, endpoint.id);
        return driver.createEndpoint(network, endpoint);
      },
    }),
    'fails to delete what is absent': () => ({
      deleteNetwork: async () => {
        throw new Error('no such network');
      },
    }),
    'reports another link': (driver) => ({
      createEndpoint: async (network, endpoint) => {
        const result = await driver.createEndpoint(network, endpoint);
        return { ...result, link: { ...result.link!, ifindex: 1 } };
      },
    }),
  };
  test.each(Object.keys(broken))('%s', async (how) => {
    const complaints: string[] = [];
    for (const [which, run] of Object.entries(DRIVER_CASES)) {
      const on = underTest(createBridge, 'real', undefined, (driver) =>
        Object.assign(Object.create(driver) as NetworkDriver, bound(driver), broken[how]!(driver)),
      );
      await run(on).catch(() => complaints.push(which));
      await on.close();
    }
    expect(complaints.length).toBeGreaterThan(0);
  });
});

/** Private fields want the real object as `this`. */
const bound = (driver: NetworkDriver): NetworkDriver => ({
  name: driver.name,
  capabilities: () => driver.capabilities(),
  validate: (network) => driver.validate(network),
  createNetwork: (network) => driver.createNetwork(network),
  deleteNetwork: (id) => driver.deleteNetwork(id),
  createEndpoint: (network, endpoint, path) => driver.createEndpoint(network, endpoint, path),
  join: (network, endpoint) => driver.join(network, endpoint),
  leave: (network, endpoint) => driver.leave(network, endpoint),
  deleteEndpoint: (network, endpoint) => driver.deleteEndpoint(network, endpoint),
});
