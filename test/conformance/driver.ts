/** What every network driver does, whatever it is made of. Each driver is also run through JSON, as a remote one would be. */
import { describe, expect, test } from 'vitest';
import type { DriverEndpoint, DriverNetwork, EndpointResult, NetworkDriver } from '../../src/contracts/driver.ts';
import type { Kernel } from '../../src/contracts/kernel.ts';

export interface DriverUnderTest {
  readonly driver: NetworkDriver;
  readonly kernel: Kernel;
  /** A network that the driver accepts, with the given number in its id and subnets. */
  readonly network: (n: number) => DriverNetwork;
  close(): Promise<void>;
}

/** The same driver as it would be behind a wire. */
export function throughJson(driver: NetworkDriver): NetworkDriver {
  const wire = <T>(value: T): T => (value === undefined ? value : (JSON.parse(JSON.stringify(value)) as T));
  return {
    name: driver.name,
    capabilities: () => wire(driver.capabilities()),
    validate: (network) => driver.validate(wire(network)),
    createNetwork: async (network) => wire(await driver.createNetwork(wire(network))),
    deleteNetwork: (id) => driver.deleteNetwork(id),
    createEndpoint: async (network, endpoint, path) =>
      wire(await driver.createEndpoint(wire(network), wire(endpoint), path)),
    join: async (network, endpoint) => wire(await driver.join(wire(network), wire(endpoint))),
    leave: (network, endpoint) => driver.leave(wire(network), wire(endpoint)),
    deleteEndpoint: (network, endpoint) => driver.deleteEndpoint(network, endpoint),
  };
}

export const testNetwork = (n: number, options: Record<string, string> = {}, name = `net${n}`): DriverNetwork => ({
  id: String(n).padStart(2, '0').repeat(32),
  name,
  subnets: [
    { cidr: `10.${n}.0.0/24`, gateway: `10.${n}.0.1` },
    { cidr: `fd00:${n}::/64`, gateway: `fd00:${n}::1` },
  ],
  internal: false,
  ipv4: true,
  ipv6: true,
  vni: 7000 + n,
  options,
});

export const testEndpoint = (n: number, host: number): DriverEndpoint => ({
  id: (n * 1000 + host).toString(16).padStart(8, '0').repeat(8),
  mac: `02:42:0a:${n.toString(16).padStart(2, '0')}:00:${host.toString(16).padStart(2, '0')}`,
  addresses: [`10.${n}.0.${host}/24`, `fd00:${n}::${host}/64`],
});

/** The cases by name, so that a test can run them against a broken driver and see which complain. */
export const DRIVER_CASES: Readonly<Record<string, (on: DriverUnderTest) => Promise<void>>> = {
  async 'everything it returns survives JSON'({ driver, network }) {
    const results = [
      driver.capabilities(),
      await driver.createNetwork(network(21)),
      await driver.createEndpoint(network(21), testEndpoint(21, 2)),
      await driver.join(network(21), testEndpoint(21, 2)),
    ];
    for (const result of results) expect(JSON.parse(JSON.stringify(result))).toEqual(stripUndefined(result));
  },
  async 'createNetwork and createEndpoint asked again change nothing and report the same'({ driver, network }) {
    const first = await driver.createNetwork(network(22));
    const again = await driver.createNetwork(network(22));
    expect({ ...again, changed: [] }).toEqual({ ...first, changed: [] });
    expect(again.changed ?? []).toEqual([]);
    const endpoint = await driver.createEndpoint(network(22), testEndpoint(22, 2));
    const same = await driver.createEndpoint(network(22), testEndpoint(22, 2));
    expect({ ...same, changed: [] }).toEqual({ ...endpoint, changed: [] });
    expect(same.changed ?? []).toEqual([]);
  },
  async 'the link it reports exists, has the MAC, and its host end is up'({ driver, kernel, network }) {
    await driver.createNetwork(network(23));
    const { link } = await driver.createEndpoint(network(23), testEndpoint(23, 2));
    if (!link) return;
    const inner = kernel.host.netlink.link(link.ifname);
    expect(inner).toMatchObject({ ifindex: link.ifindex, mac: testEndpoint(23, 2).mac, mtu: link.mtu });
    expect(inner?.up).toBe(false);
    if (link.hostIfname)
      expect(kernel.host.netlink.link(link.hostIfname)).toMatchObject({ ifindex: link.hostIfindex, up: true });
  },
  async 'endpoints are apart: removing one leaves the other'({ driver, kernel, network }) {
    await driver.createNetwork(network(24));
    const one = await driver.createEndpoint(network(24), testEndpoint(24, 2));
    const two = await driver.createEndpoint(network(24), testEndpoint(24, 3));
    if (one.link && two.link) expect(one.link.hostIfname).not.toBe(two.link.hostIfname);
    await driver.deleteEndpoint(network(24).id, testEndpoint(24, 2).id);
    expectGone(kernel, one);
    if (two.link) expect(kernel.host.netlink.link(two.link.ifname)?.ifindex).toBe(two.link.ifindex);
  },
  async 'deleting what is absent succeeds, twice'({ driver, network }) {
    await driver.deleteEndpoint(network(25).id, testEndpoint(25, 9).id);
    await driver.deleteEndpoint(network(25).id, testEndpoint(25, 9).id);
    await driver.deleteNetwork(network(25).id);
    await driver.deleteNetwork(network(25).id);
  },
  async 'nothing is left when all is deleted'({ driver, kernel, network }) {
    const before = kernel.host.netlink
      .links()
      .map(({ name }) => name)
      .sort();
    await driver.createNetwork(network(26));
    await driver.createEndpoint(network(26), testEndpoint(26, 2));
    await driver.join(network(26), testEndpoint(26, 2));
    await driver.leave(network(26), testEndpoint(26, 2));
    await driver.deleteEndpoint(network(26).id, testEndpoint(26, 2).id);
    await driver.deleteNetwork(network(26).id);
    expect(
      kernel.host.netlink
        .links()
        .map(({ name }) => name)
        .sort(),
    ).toEqual(before);
  },
  async 'what somebody removed by hand is made anew and told'({ driver, kernel, network }) {
    await driver.createNetwork(network(27));
    const { link } = await driver.createEndpoint(network(27), testEndpoint(27, 2));
    if (!link?.hostIfindex) return;
    kernel.host.netlink.removeLink(link.hostIfindex);
    const again = await driver.createEndpoint(network(27), testEndpoint(27, 2));
    expect(again.changed?.length).toBeGreaterThan(0);
    expect(kernel.host.netlink.link(again.link!.ifname)).not.toBeNull();
  },
};

function expectGone(kernel: Kernel, { link }: EndpointResult): void {
  if (link)
    expect([
      kernel.host.netlink.link(link.ifname),
      link.hostIfname ? kernel.host.netlink.link(link.hostIfname) : null,
    ]).toEqual([null, null]);
}

const stripUndefined = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(stripUndefined);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, item]) => (item === undefined ? [] : [[key, stripUndefined(item)]])),
  );
};

/** Declares the suite for one driver; `make` gives a fresh one for each case. */
export function driverConformance(name: string, make: () => Promise<DriverUnderTest>): void {
  describe(`driver contract: ${name}`, () => {
    test.each(Object.keys(DRIVER_CASES))('%s', async (which) => {
      const on = await make();
      try {
        await DRIVER_CASES[which]!(on);
      } finally {
        await on.close();
      }
    });
  });
}
