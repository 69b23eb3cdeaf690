/** A node of the cluster as its daemon wires it: everything real but kernel, data plane, name server and runtime, which are in memory. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayDriver } from '../../../plugins/overlay/overlay.ts';
import { createFakeRuntime } from '../../../runtime/fake.ts';
import { createFakeDataplane } from '../../../src/balancer/fake.ts';
import { createNftPublisher } from '../../../src/balancer/nft/nft.ts';
import { systemClock as clock } from '../../../src/clock.ts';
import { Membership } from '../../../src/cluster/membership.ts';
import { Scheduler } from '../../../src/cluster/placement/scheduler.ts';
import { Registration } from '../../../src/cluster/registration.ts';
import { openReplica, type ReplicaOptions } from '../../../src/cluster/replica/replica.ts';
import { Controllers } from '../../../src/controller/controllers.ts';
import { Tracker } from '../../../src/controller/tracker.ts';
import { World } from '../../../src/controller/world.ts';
import { createDesired } from '../../../src/desired/desired.ts';
import { FakeNameServer } from '../../../src/dns/fake.ts';
import { createIpam } from '../../../src/ipam/ipam.ts';
import { createFakeKernel } from '../../../src/kernel/fake.ts';
import { createLogger } from '../../../src/log.ts';
import { statusPrefix, topicsOf } from '../../../src/model/keys.ts';
import type { HostSpec } from '../../../src/model/node.ts';
import type { Status } from '../../../src/model/object.ts';
import { openSqliteStore } from '../../../src/store/sqlite.ts';
import { createFakeImages } from '../../../test/unit/image-fake.ts';

/** Twice the daemon's default: 500 daemons share two processors here, and one that is late for a second is not to be missed. */
export const SESSION_MS = 6_000;
/** The daemon's default: when replicas of a lost node are placed elsewhere. */
const RESCHEDULE_MS = 30_000;
/** None falls into a window: one reads a kernel, and these are in memory; and whoever stood still has all of those that it missed at once. */
const AUDIT_MS = 24 * 3_600_000;
/** Copies are kept in memory: all nodes would have one disk, and wait for each other there. So are few changes, which nobody reads. */
const LOCAL_LOG_MAX = 100;

export type Connect = ReplicaOptions['connect'];

export interface ScaleNode {
  /** Changes an endpoint of this node; the revision at which that was committed. */
  change(endpoint: string): Promise<number>;
  /** Whether it is settled: it gives signs of life, and takes every other node for alive. */
  settled(nodes: number): boolean;
  close(): Promise<void>;
}

/** `applied` hears the revision of every endpoint that the node's World took over. */
export async function startNode(
  name: string,
  host: HostSpec,
  connect: Connect,
  dir: string,
  applied: (revision: number) => void,
): Promise<ScaleNode> {
  for (const sub of ['netns', 'sandbox']) mkdirSync(join(dir, sub), { recursive: true });
  const logger = createLogger('error', { node: name });
  const local = await openSqliteStore({ path: ':memory:', clock, logMax: LOCAL_LOG_MAX });
  const store = await openReplica({
    connect,
    local,
    node: name,
    clock,
    logger,
  });
  const cgroupBase = `/sys/fs/cgroup/scale-${name}`;
  const kernel = createFakeKernel({ clock });
  kernel.cgroups.ensure(cgroupBase);
  const underlay = () => ({ address: host.address, port: host.port, ifname: 'eth0', mtu: 1500 });
  const driver = new OverlayDriver({ instance: 'scale', kernel, underlay }, clock);
  const drivers = { get: () => driver, names: () => ['overlay'] };
  const ipams = new Map([['default', createIpam({ store, clock, pools: [], node: name })]]);
  const images = createFakeImages();
  const desired = createDesired({ store, local, clock, node: name, drivers, ipams, images, hostPrefixes: () => [] });
  const world = new World({ store, clock, node: name, logger, shared: true });
  const tracker = new Tracker({ sink: desired.statuses, clock, node: name });
  const dataplane = createFakeDataplane();
  await dataplane.start();
  const registration = new Registration({ store, clock, logger, node: name, describe: () => host });
  const membership = new Membership({
    store,
    clock,
    logger,
    node: name,
    ttlMs: SESSION_MS,
    prober: { answers: async () => true },
    nodes: () => world.nodes.values(),
    applied: () => world.revision,
    onStates: (states) => world.judge(states),
  });
  membership.start();
  await registration.start();
  const statuses = (await store.list<Status>(statusPrefix(), { concerning: name })).items.map(({ value }) => value);
  const scheduler = new Scheduler({
    store,
    clock,
    logger,
    node: name,
    ttlMs: SESSION_MS,
    graceMs: RESCHEDULE_MS,
    stateOf: (node) => membership.sessionOf(node).state,
    count: () => world.nodes.size,
  });
  const context = {
    instance: 'scale',
    node: name,
    runDir: dir,
    stateDir: dir,
    cgroupBase,
    kernel,
    dataplane,
    publisher: createNftPublisher({ kernel, instance: 'scale', runDir: dir }),
    names: new FakeNameServer(),
    runtime: createFakeRuntime({ clock }),
    images,
    desired,
    drivers,
    world,
    tracker,
    clock,
    logger,
    resolvConf: () => '',
    collects: () => scheduler.leads,
  };
  world.onChange((kind, _id, now) => {
    if (kind === 'endpoint' && now) applied(now.revision);
  });
  const controllers = new Controllers({ context, drivers: [driver], ipams, underlay, auditMs: AUDIT_MS, statuses });
  await controllers.start();
  scheduler.start();
  const { records } = desired.endpoints;
  return {
    async change(id) {
      const endpoint = (await records.byId(id))!;
      const spec = { ...endpoint.spec, serving: !endpoint.spec.serving };
      const topics = topicsOf(endpoint, spec.network);
      return store.transact([records.change(endpoint, { spec })], { topics });
    },
    settled(nodes) {
      const { size } = world.nodes;
      if (membership.sessionOf(name).epoch === undefined || size < nodes || !membership.isCalm) return false;
      return world.nodes.values().every((node) => membership.sessionOf(node.name).state === 'ready');
    },
    async close() {
      registration.stop();
      await scheduler.stop();
      await membership.stop();
      await controllers.stop();
      await store.close();
    },
  };
}
