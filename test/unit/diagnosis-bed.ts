/** Two nodes of a cluster in this process: real controllers, driver and questions, over kernels and a store in memory. */
import { rmSync } from 'node:fs';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import { createFakeRuntime } from '../../runtime/fake.ts';
import { createFakeDataplane } from '../../src/balancer/fake.ts';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import { systemClock as clock } from '../../src/clock.ts';
import { sessionName } from '../../src/cluster/membership.ts';
import { Questions } from '../../src/cluster/question/questions.ts';
import { Registration } from '../../src/cluster/registration.ts';
import type { Session, Store } from '../../src/contracts/store.ts';
import { Controllers } from '../../src/controller/controllers.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { World } from '../../src/controller/world.ts';
import { createDesired } from '../../src/desired/desired.ts';
import { FakeNameServer } from '../../src/dns/fake.ts';
import { createIpam } from '../../src/ipam/ipam.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { createLogger } from '../../src/log.ts';
import { makeFolder } from '../folder.ts';
import { until } from '../kernel/kernel-bed.ts';
import { createFakeImages } from './image-fake.ts';

const HOUR_MS = 3_600_000;

export class DiagnosisNode {
  readonly name: string;
  readonly address: string;
  readonly kernel = createFakeKernel();
  readonly dataplane = createFakeDataplane();
  readonly controllers: Controllers;
  readonly world: World;
  readonly desired;
  readonly questions: Questions;
  /** Whether the kernels of others answer this one. */
  echo: boolean | undefined = true;
  readonly #store: Store;
  readonly #tracker: Tracker;
  readonly #runDir: string;
  #session: Session | undefined;

  constructor(name: string, address: string, store: Store) {
    [this.name, this.address, this.#store] = [name, address, store];
    this.#runDir = makeFolder(`diagnosis-${name}`);
    const logger = createLogger('silent');
    const { kernel, dataplane } = this;
    const underlay = () => ({ address, port: 4789, ifname: 'eth0', mtu: 1500 });
    const driver = new OverlayDriver({ instance: 't', kernel, underlay });
    const ipams = new Map([
      ['default', createIpam({ store, clock, pools: [{ base: '10.96.0.0/12', size: 24 }], node: name })],
    ]);
    const images = createFakeImages();
    const drivers = { get: () => driver, names: () => ['overlay'] };
    this.desired = createDesired({ store, clock, node: name, drivers, ipams, images, hostPrefixes: () => [] });
    this.world = new World({ store, clock, node: name, logger, shared: true });
    this.#tracker = new Tracker({ sink: this.desired.statuses, clock, node: name });
    this.questions = new Questions({
      store,
      clock,
      logger,
      node: name,
      session: () => this.#session,
      sessionName,
      answer: (about, body) => this.controllers.diagnosis.answer(about, body),
    });
    this.world.onRecord((key, value, revision) => this.questions.heard(key, value, revision));
    this.controllers = new Controllers({
      context: {
        instance: 't',
        node: name,
        runDir: this.#runDir,
        stateDir: this.#runDir,
        cgroupBase: `/sys/fs/cgroup/t-${name}`,
        kernel,
        dataplane,
        publisher: createNftPublisher({ kernel, instance: 't', runDir: this.#runDir }),
        names: new FakeNameServer(),
        runtime: createFakeRuntime({ clock }),
        images,
        desired: this.desired,
        drivers,
        world: this.world,
        tracker: this.#tracker,
        clock,
        logger,
        resolvConf: () => '',
      },
      drivers: [driver],
      ipams,
      underlay,
      // Nothing is repaired while a test looks.
      auditMs: HOUR_MS,
      statuses: [],
      rehearse: (_name, rehearsed) => new OverlayDriver({ instance: 't', kernel: rehearsed, underlay }),
      others: {
        sessionOf: () => ({ state: 'ready', silentMs: 0 }),
        answers: async () => this.echo,
        ask: (to, about, body) => this.questions.ask(to, about, body),
      },
    });
  }

  async start(): Promise<void> {
    const { name: node, address } = this;
    const describe = () => ({ address, vtep: address, port: 4789, mtu: 1500, hostRoutes: [] });
    const logger = createLogger('silent');
    await new Registration({ store: this.#store, clock, logger, node, describe }).refresh();
    await this.dataplane.start();
    this.#session = await this.#store.session(sessionName(node), HOUR_MS);
    await this.controllers.start();
  }

  /** A sandbox on the network, ready; its address and MAC. */
  async box(
    name: string,
    network: string,
  ): Promise<{ readonly id: string; readonly ip: string; readonly mac: string }> {
    const { object } = await this.desired.sandboxes.put(name, { networks: [{ network }] });
    await until(`${name} is ready`, () => {
      const endpoints = this.world.endpointsOfSandbox(object.id);
      return endpoints.length === 1 && endpoints.every(({ id }) => this.#tracker.isReady('endpoint', id));
    });
    const { id, spec } = this.world.endpointsOfSandbox(object.id)[0]!;
    return { id, ip: spec.addresses[0]!.split('/')[0]!, mac: spec.mac };
  }

  /** Its namespace. */
  inside(sandbox: string) {
    const { id } = [...this.world.sandboxes.values()].find(({ name }) => name === sandbox)!;
    return this.kernel.namespaces.open(`${this.#runDir}/netns/${id}`);
  }

  link(name: string): number {
    return this.kernel.host.netlink.link(name)!.ifindex;
  }

  async close(): Promise<void> {
    await this.questions.stop();
    await this.controllers.stop();
    this.kernel[Symbol.dispose]();
    rmSync(this.#runDir, { recursive: true, force: true });
  }
}
