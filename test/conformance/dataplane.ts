/** What every form of the data plane must do, seen through its contract and through sockets that ask for addresses. */
import { expect, test } from 'vitest';
import {
  type Dataplane,
  type DataplaneBackend,
  type DataplaneEndpoint,
  type DataplaneFrontend,
  type DataplaneSandbox,
  type DataplaneSegment,
  type FrontendProtocol,
  HOST_VIEW,
} from '../../src/contracts/dataplane.ts';

/** Where a new socket went: the backend's address and port, refused at once, or where it asked to go. */
export type Outcome = { readonly address: string; readonly port: number } | 'refused' | 'untouched';

/** A socket that stays open. */
export interface Held {
  open(): Promise<boolean>;
  close(): Promise<void>;
}

export interface DataplaneHarness {
  dataplane: Dataplane;
  /** In views 1 and 2. Backends need not exist: nobody answers. */
  readonly sandboxes: readonly [DataplaneSandbox, DataplaneSandbox];
  readonly endpoints: readonly [DataplaneEndpoint, DataplaneEndpoint];
  /** ifindex on the host, to play a network's tunnel. */
  readonly tunnel: number;
  /** The host itself, to be connected from as from a sandbox. */
  readonly host: DataplaneSandbox;
  /** `n` new sockets of the sandbox, one after the other. */
  connect(
    sandbox: DataplaneSandbox,
    address: string,
    port: number,
    protocol: FrontendProtocol,
    n?: number,
  ): Promise<Outcome[]>;
  hold(sandbox: DataplaneSandbox, address: string, port: number, protocol: FrontendProtocol): Promise<Held>;
  /** The daemon dies and another takes over; `dataplane` is the new one, started. */
  restart(): Promise<void>;
  /** Somebody else takes a part of it away. */
  damage(): void;
  close(): Promise<void>;
}

export interface DataplaneCase {
  readonly name: string;
  run(harness: DataplaneHarness): Promise<void>;
}

interface Family {
  readonly vip: string;
  readonly other: string;
  /** Another way to write the VIP. */
  readonly long: string;
  readonly backend: (n: number) => string;
}
const FAMILIES: Readonly<Record<string, Family>> = {
  ipv4: { vip: '10.96.0.10', other: '10.96.0.11', long: '10.96.0.10', backend: (n) => `10.77.0.${200 + n}` },
  ipv6: { vip: 'fd96::10', other: 'fd96::11', long: 'FD96:0::0010', backend: (n) => `fd77::${200 + n}` },
};

const backend = (family: Family, number: number, port = 8080): DataplaneBackend => ({
  number,
  address: family.backend(number),
  port,
});
const at = ({ address, port }: DataplaneBackend): Outcome => ({ address, port });
const sorted = (backends: readonly DataplaneBackend[] | undefined): DataplaneBackend[] =>
  [...(backends ?? [])].sort((a, b) => a.number - b.number);
/** A network that spans hosts, and MACs of others. */
const SEGMENT: Omit<DataplaneSegment, 'tunnel'> = { id: 'ab'.repeat(32), number: 4711, direct: true };
const FAR = ['02:42:0a:32:00:01', '02:42:0a:32:00:02', '02:42:0a:32:00:03'] as const;
const distinct = (outcomes: readonly Outcome[]): Set<string> =>
  new Set(outcomes.map((outcome) => JSON.stringify(outcome)));
const same = (outcomes: readonly Outcome[], ...wanted: readonly Outcome[]): void =>
  expect(distinct(outcomes)).toEqual(distinct(wanted));
const NONE = {
  sandboxes: new Set<string>(),
  endpoints: new Set<string>(),
  segments: new Set<string>(),
  frontends: [],
  sets: new Set<number>(),
};

function perFamily(name: string, run: (harness: DataplaneHarness, family: Family) => Promise<void>): DataplaneCase[] {
  return Object.entries(FAMILIES).map(([label, family]) => ({
    name: `${name} (${label})`,
    run: (harness) => run(harness, family),
  }));
}

/** Set 1 with backends 1 to 3 behind vip:80, both protocols, in view 1. */
function programme({ dataplane, sandboxes }: DataplaneHarness, family: Family): DataplaneBackend[] {
  const backends = [1, 2, 3].map((number) => backend(family, number));
  for (const sandbox of sandboxes) dataplane.ensureSandbox(sandbox);
  dataplane.ensureBackends(1, backends);
  for (const protocol of ['tcp', 'udp'] as const)
    dataplane.ensureFrontend({ view: 1, address: family.vip, port: 80, protocol, set: 1 });
  return backends;
}

export const dataplaneCases: readonly DataplaneCase[] = [
  ...perFamily('a frontend leads to its backends, all of them, in both protocols', async (h, family) => {
    const backends = programme(h, family);
    for (const protocol of ['tcp', 'udp'] as const)
      same(await h.connect(h.sandboxes[0], family.vip, 80, protocol, 40), ...backends.map(at));
  }),
  ...perFamily('what is no frontend is left alone', async (h, family) => {
    programme(h, family);
    same(await h.connect(h.sandboxes[0], family.vip, 81, 'tcp'), 'untouched');
    same(await h.connect(h.sandboxes[0], family.other, 80, 'tcp'), 'untouched');
    same(await h.connect(h.sandboxes[0], family.backend(1), 8080, 'tcp'), 'untouched');
  }),
  ...perFamily('frontends belong to a view, and a sandbox to one at a time', async (h, family) => {
    programme(h, family);
    const [, second] = h.sandboxes;
    same(await h.connect(second, family.vip, 80, 'tcp'), 'untouched');
    h.dataplane.ensureBackends(2, [backend(family, 9)]);
    h.dataplane.ensureFrontend({ view: 2, address: family.vip, port: 80, protocol: 'tcp', set: 2 });
    same(await h.connect(second, family.vip, 80, 'tcp', 5), at(backend(family, 9)));
    h.dataplane.ensureSandbox({ ...second, view: 1 });
    const outcomes = await h.connect(second, family.vip, 80, 'tcp', 20);
    expect(outcomes).not.toContainEqual(at(backend(family, 9)));
    h.dataplane.removeSandbox(second.id);
    h.dataplane.removeSandbox(second.id);
    same(await h.connect(second, family.vip, 80, 'tcp'), 'untouched');
  }),
  ...perFamily(
    'the entry for all ports serves both protocols and keeps the port; an exact one wins',
    async (h, family) => {
      programme(h, family);
      h.dataplane.ensureBackends(2, [backend(family, 9, 0)]);
      h.dataplane.ensureFrontend({ view: 1, address: family.vip, port: 0, set: 2 });
      const [client] = h.sandboxes;
      for (const protocol of ['tcp', 'udp'] as const)
        same(await h.connect(client, family.vip, 4321, protocol, 5), at(backend(family, 9, 4321)));
      expect(await h.connect(client, family.vip, 80, 'tcp', 10)).not.toContainEqual(at(backend(family, 9, 80)));
      h.dataplane.removeFrontend({ view: 1, address: family.vip, port: 0 });
      same(await h.connect(client, family.vip, 4321, 'tcp'), 'untouched');
    },
  ),
  ...perFamily('backends are replaced: new ones are used at once, those that left never again', async (h, family) => {
    const [first, second] = programme(h, family);
    const fourth = backend(family, 4, 9090);
    h.dataplane.ensureBackends(1, [second!, fourth]);
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 40), at(second!), at(fourth));
    h.dataplane.ensureBackends(1, [first!]);
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 10), at(first!));
    expect(h.dataplane.backends().get(1)).toEqual([first]);
  }),
  ...perFamily('a set without backends refuses at once; so does one that is no more', async (h, family) => {
    programme(h, family);
    h.dataplane.ensureBackends(1, []);
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 3), 'refused');
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'udp', 2), 'refused');
    expect(h.dataplane.setCounters(1)).toEqual({ connects: 0, refused: 5 });
    h.dataplane.removeBackends(1);
    h.dataplane.removeBackends(1);
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp'), 'refused');
    expect(h.dataplane.backends().has(1)).toBe(false);
  }),
  ...perFamily('a backend may be of several sets, and leaves each by itself', async (h, family) => {
    const [first, second] = programme(h, family);
    h.dataplane.ensureBackends(2, [first!, second!]);
    h.dataplane.ensureFrontend({ view: 1, address: family.other, port: 80, protocol: 'tcp', set: 2 });
    h.dataplane.ensureBackends(1, [second!]);
    same(await h.connect(h.sandboxes[0], family.other, 80, 'tcp', 30), at(first!), at(second!));
    h.dataplane.removeBackends(1);
    same(await h.connect(h.sandboxes[0], family.other, 80, 'tcp', 30), at(first!), at(second!));
  }),
  ...perFamily('connects are counted by set', async (h, family) => {
    programme(h, family);
    await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 4);
    await h.connect(h.sandboxes[0], family.vip, 80, 'udp', 3);
    await h.connect(h.sandboxes[0], family.vip, 81, 'udp', 3);
    expect(h.dataplane.setCounters(1)).toEqual({ connects: 7, refused: 0 });
    expect(h.dataplane.setCounters(77)).toEqual({ connects: 0, refused: 0 });
  }),
  ...perFamily(
    'frontends and backends read back as they were given, addresses in canonical form',
    async (h, family) => {
      const backends = programme(h, family);
      h.dataplane.ensureFrontend({ view: 1, address: family.long, port: 80, protocol: 'tcp', set: 1 });
      h.dataplane.ensureFrontend({ view: 3, address: family.other, port: 0, set: 1 });
      const found = h.dataplane
        .frontends()
        .map(({ view, address, port, protocol, set }) => ({ view, address, port, protocol, set }));
      expect(found).toHaveLength(3);
      expect(found).toContainEqual({ view: 1, address: family.vip, port: 80, protocol: 'udp', set: 1 });
      expect(found).toContainEqual({ view: 3, address: family.other, port: 0, protocol: undefined, set: 1 });
      expect(sorted(h.dataplane.backends().get(1))).toEqual(backends);
      h.dataplane.ensureFrontend({ view: 1, address: family.vip, port: 80, protocol: 'tcp', set: 5 });
      expect(h.dataplane.frontends()).toContainEqual(
        expect.objectContaining({ address: family.vip, protocol: 'tcp', set: 5 }),
      );
      h.dataplane.removeFrontend({ view: 1, address: family.long, port: 80, protocol: 'tcp' });
      h.dataplane.removeFrontend({ view: 1, address: family.long, port: 80, protocol: 'tcp' });
      expect(h.dataplane.frontends()).toHaveLength(2);
    },
  ),
  ...perFamily('open connections outlive their backend`s place in the set, and are counted', async (h, family) => {
    const [first] = programme(h, family);
    h.dataplane.ensureBackends(1, [first!]);
    const [client, stranger] = h.sandboxes;
    const held = [await h.hold(client, family.vip, 80, 'tcp'), await h.hold(client, family.vip, 80, 'udp')];
    expect(h.dataplane.connections(first!, [client.namespace])).toBe(2);
    expect(h.dataplane.connections(first!, [stranger.namespace])).toBe(0);
    expect(h.dataplane.connections(backend(family, 2), [client.namespace])).toBe(0);
    h.dataplane.ensureBackends(1, []);
    expect(await Promise.all(held.map((one) => one.open()))).toEqual([true, true]);
    expect(h.dataplane.connections(first!, [client.namespace])).toBe(2);
    await held[0]!.close();
    expect(h.dataplane.connections(first!, [client.namespace])).toBe(1);
    await held[1]!.close();
  }),
  ...perFamily('a reset ends what came by a VIP to that backend, and nothing else', async (h, family) => {
    const [first, second] = programme(h, family);
    const [client, stranger] = h.sandboxes;
    h.dataplane.ensureBackends(1, [first!]);
    const gone = [await h.hold(client, family.vip, 80, 'tcp'), await h.hold(client, family.vip, 80, 'udp')];
    const direct = [
      await h.hold(client, first!.address, first!.port, 'tcp'),
      await h.hold(client, first!.address, first!.port, 'udp'),
    ];
    h.dataplane.ensureBackends(1, [second!]);
    const kept = await h.hold(client, family.vip, 80, 'tcp');
    expect(h.dataplane.reset(first!, [stranger.namespace])).toBe(0);
    expect(h.dataplane.reset(first!, [stranger.namespace, client.namespace])).toBe(2);
    expect(await Promise.all(gone.map((one) => one.open()))).toEqual([false, false]);
    expect(await Promise.all([...direct, kept].map((one) => one.open()))).toEqual([true, true, true]);
    expect(h.dataplane.reset(first!, [client.namespace])).toBe(0);
    for (const one of [...gone, ...direct, kept]) await one.close();
  }),
  ...perFamily('after a restart everything is as it was, before anything is said', async (h, family) => {
    const backends = programme(h, family);
    for (const endpoint of h.endpoints) h.dataplane.ensureEndpoint(endpoint);
    await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 2);
    const held = await h.hold(h.sandboxes[0], family.vip, 80, 'tcp');
    const frontends = h.dataplane.frontends();
    const highest = h.dataplane.highest();
    await h.restart();
    expect(h.dataplane.frontends()).toEqual(expect.arrayContaining(frontends));
    expect(sorted(h.dataplane.backends().get(1))).toEqual(backends);
    expect(h.dataplane.highest()).toEqual(highest);
    expect(h.dataplane.setCounters(1).connects).toBe(3);
    expect(backends.reduce((sum, one) => sum + h.dataplane.connections(one, [h.sandboxes[0].namespace]), 0)).toBe(1);
    same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 40), ...backends.map(at));
    expect(await held.open()).toBe(true);
    await held.close();
    programme(h, family);
    expect(h.dataplane.audit()).toEqual([]);
  }),
  {
    name: 'while the host is served its clients of ::1 are led to IPv6, and over TCP to IPv4',
    async run(h) {
      const [four, six] = [backend(FAMILIES.ipv4!, 1), backend(FAMILIES.ipv6!, 2)];
      h.dataplane.ensureSandbox(h.sandboxes[0]);
      h.dataplane.ensureBackends(1, [four]);
      h.dataplane.ensureBackends(2, [six]);
      const at1 = (port: number, protocol: FrontendProtocol, set: number): void =>
        h.dataplane.ensureFrontend({ view: HOST_VIEW, address: '::1', port, protocol, set });
      at1(8080, 'tcp', 1);
      at1(8081, 'tcp', 2);
      at1(8081, 'udp', 2);
      same(await h.connect(h.host, '::1', 8081, 'udp'), 'untouched');
      h.dataplane.serveHost(true);
      h.dataplane.serveHost(true);
      same(await h.connect(h.host, '::1', 8080, 'tcp', 3), at(four));
      same(await h.connect(h.host, '::1', 8081, 'tcp', 3), at(six));
      same(await h.connect(h.host, '::1', 8081, 'udp', 3), at(six));
      same(await h.connect(h.host, '::1', 8082, 'udp'), 'untouched');
      same(await h.connect(h.sandboxes[0], '::1', 8081, 'udp'), 'untouched');
      const held = await h.hold(h.host, '::1', 8080, 'tcp');
      expect(h.dataplane.connections(four, [h.host.namespace])).toBe(1);
      await h.restart();
      same(await h.connect(h.host, '::1', 8081, 'udp'), at(six));
      const keep = { ...NONE, frontends: h.dataplane.frontends(), sets: new Set([1, 2]) };
      expect(h.dataplane.prune(keep)).toBe(1);
      same(await h.connect(h.host, '::1', 8081, 'udp'), at(six));
      expect(h.dataplane.audit()).toEqual([]);
      expect(h.dataplane.reset(four, [h.host.namespace])).toBe(1);
      expect(await held.open()).toBe(false);
      await held.close();
      h.dataplane.serveHost(false);
      same(await h.connect(h.host, '::1', 8081, 'udp'), 'untouched');
      h.dataplane.serveHost(true);
      h.dataplane.off();
      same(await h.connect(h.host, '::1', 8081, 'udp'), 'untouched');
      await h.restart();
      expect(h.dataplane.highest()).toEqual({ attachment: 0, view: 0, set: 0, backend: 0 });
    },
  },
  {
    name: 'drops of an endpoint are counted by reason, zero for one that is not known',
    async run(h) {
      const reasons = ['source-mac', 'source-ip', 'arp', 'ndp', 'vlan', 'ethertype', 'malformed'];
      const zeros = Object.fromEntries(reasons.map((reason) => [reason, 0]));
      expect(h.dataplane.endpointCounters(h.endpoints[0].id).drops).toEqual(zeros);
      h.dataplane.ensureEndpoint(h.endpoints[0]);
      h.dataplane.ensureEndpoint(h.endpoints[0]);
      expect(h.dataplane.endpointCounters(h.endpoints[0].id).drops).toEqual(zeros);
      h.dataplane.removeEndpoint(h.endpoints[0].id);
      h.dataplane.removeEndpoint(h.endpoints[0].id);
    },
  },
  {
    name: 'stations behind a tunnel follow what is told of them, and outlive the daemon',
    async run(h) {
      const { tunnel } = h;
      const stations = (): string[] => [...h.dataplane.stations(tunnel)].sort();
      h.dataplane.ensureSegment({ ...SEGMENT, tunnel });
      expect(stations()).toEqual([]);
      h.dataplane.syncStations(tunnel, new Set([FAR[0], FAR[1]]));
      expect(stations()).toEqual([FAR[0], FAR[1]]);
      h.dataplane.syncStations(tunnel, new Set([FAR[1], FAR[2]]));
      expect(stations()).toEqual([FAR[1], FAR[2]]);
      h.dataplane.changeStations(tunnel, { come: [FAR[0], FAR[0]], gone: [FAR[1], FAR[1]] });
      expect(stations()).toEqual([FAR[0], FAR[2]]);
      h.dataplane.ensureSegment({ ...SEGMENT, tunnel, direct: false });
      expect(stations()).toEqual([FAR[0], FAR[2]]);
      await h.restart();
      expect(stations()).toEqual([FAR[0], FAR[2]]);
      expect(h.dataplane.highest().attachment).toBe(SEGMENT.number);
      expect(h.dataplane.stations(tunnel + 1)).toEqual(new Set());
      h.dataplane.removeSegment(SEGMENT.id);
      h.dataplane.removeSegment(SEGMENT.id);
      expect(stations()).toEqual([]);
    },
  },
  {
    name: 'a MAC that this host has is not taken to be behind the tunnel, before or after',
    async run(h) {
      const { tunnel } = h;
      const [endpoint] = h.endpoints;
      h.dataplane.ensureSegment({ ...SEGMENT, tunnel });
      h.dataplane.syncStations(tunnel, new Set([endpoint.mac, FAR[0]]));
      h.dataplane.ensureEndpoint({ ...endpoint, tunnel });
      expect(h.dataplane.stations(tunnel)).toEqual(new Set([FAR[0]]));
      h.dataplane.syncStations(tunnel, new Set([endpoint.mac, FAR[0]]));
      h.dataplane.changeStations(tunnel, { come: [endpoint.mac], gone: [] });
      expect(h.dataplane.stations(tunnel)).toEqual(new Set([FAR[0]]));
      h.dataplane.removeEndpoint(endpoint.id);
      h.dataplane.changeStations(tunnel, { come: [endpoint.mac], gone: [] });
      expect(h.dataplane.stations(tunnel)).toEqual(new Set([FAR[0], endpoint.mac]));
      expect(h.dataplane.audit()).toEqual([]);
      expect(h.dataplane.prune({ ...NONE, segments: new Set([SEGMENT.id]) })).toBe(0);
      expect(h.dataplane.prune(NONE)).toBe(1);
      expect(h.dataplane.stations(tunnel)).toEqual(new Set());
    },
  },
  {
    name: 'prune keeps what it is told to and removes the rest',
    async run(h) {
      const family = FAMILIES.ipv4!;
      programme(h, family);
      for (const endpoint of h.endpoints) h.dataplane.ensureEndpoint(endpoint);
      h.dataplane.ensureBackends(2, [backend(family, 9)]);
      h.dataplane.ensureFrontend({ view: 1, address: family.vip, port: 0, set: 2 });
      const kept: DataplaneFrontend = { view: 1, address: family.vip, port: 80, protocol: 'tcp', set: 1 };
      const keep = {
        sandboxes: new Set([h.sandboxes[0].id]),
        endpoints: new Set([h.endpoints[1].id]),
        segments: new Set<string>(),
        frontends: [kept],
        sets: new Set([1]),
      };
      // A sandbox, an endpoint, two frontends and a set.
      expect(h.dataplane.prune(keep)).toBe(5);
      expect(h.dataplane.prune(keep)).toBe(0);
      expect(h.dataplane.frontends()).toEqual([kept]);
      expect([...h.dataplane.backends().keys()]).toEqual([1]);
      expect(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp')).not.toContain('untouched');
      same(await h.connect(h.sandboxes[1], family.vip, 80, 'tcp'), 'untouched');
      expect(h.dataplane.prune(NONE)).toBe(4);
      expect(h.dataplane.highest()).toEqual({ attachment: 0, view: 0, set: 0, backend: 0 });
    },
  },
  {
    name: 'the highest numbers in use are known, so that a fresh store starts above them',
    async run(h) {
      expect(h.dataplane.highest()).toEqual({ attachment: 0, view: 0, set: 0, backend: 0 });
      programme(h, FAMILIES.ipv4!);
      h.dataplane.ensureEndpoint(h.endpoints[1]);
      h.dataplane.ensureFrontend({ view: 70, address: '10.96.0.99', port: 0, set: 500 });
      expect(h.dataplane.highest()).toEqual({ attachment: h.endpoints[1].number, view: 70, set: 500, backend: 3 });
      h.dataplane.ensureSandbox({ ...h.sandboxes[0], view: 80 });
      expect(h.dataplane.highest().view).toBe(80);
    },
  },
  {
    name: 'an audit reports what was amiss once, and it is right again',
    async run(h) {
      const family = FAMILIES.ipv4!;
      const backends = programme(h, family);
      h.dataplane.ensureEndpoint(h.endpoints[0]);
      expect(h.dataplane.audit()).toEqual([]);
      expect(h.dataplane.compare()).toEqual([]);
      h.damage();
      // To look is not to mend.
      const drifts = h.dataplane.compare();
      expect(drifts.length).toBeGreaterThan(0);
      for (const { id, what } of drifts) expect([id, what]).not.toContain('');
      expect(h.dataplane.compare()).toEqual(drifts);
      const repairs = h.dataplane.audit();
      expect(repairs.length).toBeGreaterThan(0);
      for (const { id, what } of repairs) expect([id, what]).not.toContain('');
      expect(h.dataplane.audit()).toEqual([]);
      expect(h.dataplane.compare()).toEqual([]);
      same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp', 40), ...backends.map(at));
    },
  },
  {
    name: 'nonsense is refused and changes nothing',
    async run(h) {
      programme(h, FAMILIES.ipv4!);
      const { dataplane } = h;
      expect(() => dataplane.ensureFrontend({ view: 1, address: '10.96.0.10', port: 80, set: 1 })).toThrow(
        expect.objectContaining({ code: 'request.invalid' }),
      );
      expect(() =>
        dataplane.ensureFrontend({ view: 1, address: 'nowhere', port: 80, protocol: 'tcp', set: 1 }),
      ).toThrow(expect.objectContaining({ code: 'request.invalid' }));
      expect(() => dataplane.ensureBackends(0, [])).toThrow();
      expect(() => dataplane.ensureBackends(1, [{ number: 0, address: '10.77.0.9', port: 1 }])).toThrow();
      expect(() => dataplane.ensureBackends(1, [{ number: 8, address: 'nowhere', port: 1 }])).toThrow();
      expect(() => dataplane.ensureSandbox({ ...h.sandboxes[0], id: 'short' })).toThrow();
      expect(dataplane.frontends()).toHaveLength(2);
      expect(dataplane.backends().get(1)).toHaveLength(3);
      expect(dataplane.audit()).toEqual([]);
    },
  },
  {
    name: 'off takes everything away; a start after it begins empty',
    async run(h) {
      const family = FAMILIES.ipv4!;
      programme(h, family);
      h.dataplane.off();
      h.dataplane.off();
      same(await h.connect(h.sandboxes[0], family.vip, 80, 'tcp'), 'untouched');
      await h.restart();
      expect(h.dataplane.frontends()).toEqual([]);
      expect(h.dataplane.backends().size).toBe(0);
    },
  },
  {
    name: 'nothing can be asked before the start, nor after the end',
    async run(h) {
      h.dataplane.close();
      expect(() => h.dataplane.frontends()).toThrow('not started');
      await h.restart();
      await expect(h.dataplane.start()).rejects.toThrow('already');
      expect(h.dataplane.capabilities()).toMatchObject({ connectTime: true });
    },
  },
];

/** Registers every case for one implementation. */
export function dataplaneConformance(name: string, make: () => Promise<DataplaneHarness>): void {
  test.each(dataplaneCases.map((one) => [one.name, one] as const))(`${name}: %s`, async (_, { run }) => {
    const harness = await make();
    try {
      await run(harness);
    } finally {
      await harness.close();
    }
  });
}
