/**
 * Nodes of a cluster in one process: the real controllers, drivers and kernel, each on a lab host of its own, over one store in memory.
 * Data plane and name server are the contracts' fakes: what crosses hosts is all there.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import { createFakeRuntime } from '../../runtime/fake.ts';
import { createFakeDataplane } from '../../src/balancer/fake.ts';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import { systemClock as clock } from '../../src/clock.ts';
import { Registration } from '../../src/cluster/registration.ts';
import type { NetworkDriver, Underlay } from '../../src/contracts/driver.ts';
import type { Kernel } from '../../src/contracts/kernel.ts';
import type { Store } from '../../src/contracts/store.ts';
import type { Context } from '../../src/controller/context.ts';
import { Controllers } from '../../src/controller/controllers.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { World } from '../../src/controller/world.ts';
import { createDesired, type Desired } from '../../src/desired/desired.ts';
import { FakeNameServer } from '../../src/dns/fake.ts';
import { createIpam } from '../../src/ipam/ipam.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { findUnderlay, ownPrefixes } from '../../src/kernel/netlink/underlay.ts';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { type RunResult, runAt } from '../../src/lab/place.ts';
import { createLogger } from '../../src/log.ts';
import { statusPrefix } from '../../src/model/keys.ts';
import type { Node } from '../../src/model/node.ts';
import type { Status } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createFakeImages } from '../unit/image-fake.ts';
import { until } from './kernel-bed.ts';

export class ClusterNode {
  readonly host: LabHost;
  readonly kernel: Kernel;
  readonly desired: Desired;
  readonly names = new FakeNameServer();
  readonly images = createFakeImages();
  /** Outlives the controllers, as a host's containers outlive its daemon. */
  readonly runtime = createFakeRuntime({ clock });
  world!: World;
  tracker!: Tracker;
  readonly #store: Store;
  readonly #auditMs: number;
  readonly #underlay: () => Underlay;
  readonly #driver: NetworkDriver;
  readonly #ipams;
  #controllers: Controllers | undefined;

  constructor(host: LabHost, store: Store, { auditMs, advertise }: { auditMs: number; advertise: string }) {
    this.host = host;
    this.#store = store;
    this.#auditMs = auditMs;
    this.kernel = createKernel({ host: host.netnsPath });
    this.#underlay = () => findUnderlay(this.kernel.host.netlink, { advertise, vxlanPort: 4789 });
    this.#driver = new OverlayDriver({ instance: host.instance, kernel: this.kernel, underlay: this.#underlay });
    const pools = [{ base: '10.96.0.0/12', size: 16 }];
    this.#ipams = new Map([['default', createIpam({ store, clock, pools, node: host.name })]]);
    this.desired = createDesired({
      store,
      clock,
      node: host.name,
      drivers: { get: () => this.#driver, names: () => ['overlay'] },
      ipams: this.#ipams,
      images: this.images,
      hostPrefixes: async () => (await store.list<Node>('node/')).items.flatMap(({ value }) => value.spec.hostRoutes),
    });
    for (const dir of ['netns', 'sandbox']) mkdirSync(join(host.runDir, dir), { recursive: true });
  }

  /** Registers the node and starts its controllers; again after `stop`: what a restarted daemon does. */
  async start(): Promise<void> {
    const logger = createLogger(process.env.SLUICE_TEST_LOG ?? 'silent', { node: this.host.name });
    const hostRoutes = ownPrefixes(this.kernel.host.netlink, this.host.instance);
    const { address, port, mtu } = this.#underlay();
    const describe = () => ({ address, vtep: address, port, mtu, hostRoutes });
    await new Registration({ store: this.#store, clock, logger, node: this.host.name, describe }).refresh();
    const dataplane = createFakeDataplane();
    await dataplane.start();
    this.world = new World({ store: this.#store, clock, node: this.host.name, logger, shared: true });
    this.tracker = new Tracker({ sink: this.desired.statuses, clock, node: this.host.name });
    const cgroupBase = join(this.host.cgroupRoot, 'sandboxes');
    this.kernel.cgroups.ensure(cgroupBase);
    const context: Context = {
      instance: this.host.instance,
      node: this.host.name,
      runDir: this.host.runDir,
      stateDir: this.host.stateDir,
      cgroupBase,
      kernel: this.kernel,
      dataplane,
      publisher: createNftPublisher({ kernel: this.kernel, instance: this.host.instance, runDir: this.host.runDir }),
      names: this.names,
      runtime: this.runtime,
      images: this.images,
      desired: this.desired,
      drivers: { get: () => this.#driver },
      world: this.world,
      tracker: this.tracker,
      clock,
      logger,
      resolvConf: () => '',
    };
    this.#controllers = new Controllers({
      context,
      drivers: [this.#driver],
      ipams: this.#ipams,
      underlay: this.#underlay,
      auditMs: this.#auditMs,
      statuses: (await this.#store.list<Status>(statusPrefix())).items.map(({ value }) => value),
    });
    await this.#controllers.start();
  }

  async stop(): Promise<void> {
    await this.#controllers?.stop();
    this.#controllers = undefined;
  }

  /** A sandbox on the network, ready. */
  async box(name: string, network: string, ip?: string): Promise<ClusterBox> {
    const { object } = await this.desired.sandboxes.put(name, { networks: [{ network, ip }] });
    await until(`${name} is ready`, () => {
      const endpoints = this.world.endpointsOfSandbox(object.id);
      return endpoints.length === 1 && endpoints.every(({ id }) => this.tracker.isReady('endpoint', id));
    });
    const [endpoint] = this.world.endpointsOfSandbox(object.id);
    const netnsPath = `${this.host.runDir}/netns/${object.id}`;
    return {
      name,
      node: this,
      netnsPath,
      addresses: endpoint!.spec.addresses.map((address) => address.split('/')[0]!),
      mac: endpoint!.spec.mac,
      run: (command) => runAt({ netnsPath }, command, { timeoutMs: 15_000 }),
      pings: async (address) =>
        (await runAt({ netnsPath }, ['ping', '-c', '1', '-W', '1', '-n', address], { timeoutMs: 5_000 })).code === 0,
    };
  }

  async remove({ name }: ClusterBox): Promise<void> {
    const { id } = await this.desired.sandboxes.remove(name, { force: true });
    await until(`${name} is gone`, () => !this.world.sandboxes.has(id));
  }

  /** What the node's sandboxes on that set of networks resolve. */
  resolves(name: string): readonly string[] {
    const records = this.names.records();
    return records.filter((record) => record.name === name).flatMap(({ a = [], aaaa = [] }) => [...a, ...aaaa]);
  }

  device(kind: 'sl' | 'sx', networkId: string) {
    return this.kernel.host.netlink.link(`${kind}${networkId.slice(0, 12)}`);
  }

  async close(): Promise<void> {
    await this.stop();
    for (const { id } of await this.desired.sandboxes.list())
      this.kernel.namespaces.remove(`${this.host.runDir}/netns/${id}`);
    this.kernel[Symbol.dispose]();
  }
}

export interface ClusterBox {
  readonly name: string;
  readonly node: ClusterNode;
  readonly netnsPath: string;
  readonly addresses: readonly string[];
  readonly mac: string;
  run(command: string | readonly [string, ...string[]]): Promise<RunResult>;
  pings(address: string): Promise<boolean>;
}

export class ClusterBed {
  readonly lab: Lab;
  readonly store: Store;
  readonly nodes: readonly ClusterNode[];

  constructor(lab: Lab, store: Store, nodes: readonly ClusterNode[]) {
    this.lab = lab;
    this.store = store;
    this.nodes = nodes;
  }

  static async open(
    name: string,
    count: number,
    options: { family?: 4 | 6; auditMs?: number } = {},
  ): Promise<ClusterBed> {
    const { family = 4, auditMs = 2_000 } = options;
    const lab = await createLab({ name, hosts: Array.from({ length: count }, (_, n) => `n${n}`) });
    const store = createMemoryStore({ clock });
    const nodes = lab.hosts.map(
      (host) => new ClusterNode(host, store, { auditMs, advertise: family === 4 ? host.address : host.address6 }),
    );
    for (const node of nodes) await node.start();
    return new ClusterBed(lab, store, nodes);
  }

  async close(): Promise<void> {
    for (const node of this.nodes) await node.close();
    await this.store.close();
    const left = await this.lab.close();
    if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
  }
}
