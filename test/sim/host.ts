/** A simulated host: a kernel and pinned maps that outlive daemons, and the daemon's life of the moment with all of its real parts. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import { createFakeRuntime } from '../../runtime/fake.ts';
import { createFakeDataplane, FakeState } from '../../src/balancer/fake.ts';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import { Membership } from '../../src/cluster/membership.ts';
import { Registration } from '../../src/cluster/registration.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Kernel, Monitor, Namespace } from '../../src/contracts/kernel.ts';
import type { Store } from '../../src/contracts/store.ts';
import { Controllers } from '../../src/controller/controllers.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { World } from '../../src/controller/world.ts';
import { createDesired, type Desired } from '../../src/desired/desired.ts';
import { FakeNameServer } from '../../src/dns/fake.ts';
import { isSluiceError } from '../../src/errors.ts';
import { createIpam } from '../../src/ipam/ipam.ts';
import { createFakeKernel, type FakeKernel } from '../../src/kernel/fake.ts';
import { createLogger, type Logger } from '../../src/log.ts';
import { statusPrefix } from '../../src/model/keys.ts';
import type { Node } from '../../src/model/node.ts';
import type { Status } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createFakeImages } from '../unit/image-fake.ts';
import { openSimClient, type SimClient } from './client.ts';
import { type HostTime, LifeClock, type SimTime } from './clock.ts';
import { linkOf, type Weather } from './link.ts';
import type { SimServer } from './server.ts';

/** Long ones, as a cluster that is simulated for days needs them: what matters is their order, not their length. */
export const SESSION_MS = 60_000;
export const AUDIT_MS = 600_000;
const START_RETRY_MS = 5_000;

/** One life of a daemon. */
export interface Life {
  readonly clock: LifeClock;
  readonly store: Store;
  readonly client: SimClient;
  readonly desired: Desired;
  readonly world: World;
  readonly tracker: Tracker;
  readonly membership: Membership;
  readonly names: FakeNameServer;
  /** Everything is programmed for the first time. */
  synced: boolean;
}

export interface HostOptions {
  readonly name: string;
  readonly address: string;
  readonly server: SimServer;
  /** A connection, by what a planted fault makes of it. */
  readonly plant: (store: Store) => Store;
  readonly time: SimTime;
  /** Whether the kernel of another host answers this one. */
  readonly answers: (from: string, address: string) => boolean;
  /** Told of what should never happen. */
  readonly broken: (what: string) => void;
}

export class SimHost {
  readonly name: string;
  readonly address: string;
  readonly weather: Weather = { cut: false, lateRate: 0, lateMs: 0, lossRate: 0 };
  readonly hostTime: HostTime;
  readonly runDir: string;
  kernel: FakeKernel;
  pinned = new FakeState();
  life: Life | undefined;
  /** The node's own file: copies and numbers. */
  readonly disk: Store;
  /** The machine runs. */
  up = true;
  /** Lives so far. */
  lives = 0;
  readonly #options: HostOptions;
  #kill: (() => void) | undefined;

  constructor(options: HostOptions) {
    const { name, address, time } = options;
    this.#options = options;
    this.name = name;
    this.address = address;
    // A clock may be two seconds a minute off and hours away: nobody compares them.
    const wallMs = time.between(-3, 3) * 3_600_000;
    this.hostTime = { rate: time.between(0.97, 1.03), wallMs, pausedUntil: 0 };
    this.runDir = mkdtempSync(join(tmpdir(), `sluice-sim-${name}-`));
    this.disk = outliving(createMemoryStore({ clock: this.#clockOfKernel(), logMax: 1 }));
    this.kernel = this.#kernel();
  }

  /** Starts a daemon, which tries until the store lets it. */
  start(): void {
    if (this.#kill || !this.up) return;
    const { time } = this.#options;
    this.lives++;
    const clock = new LifeClock(time, this.hostTime);
    const held = new Set<Disposable>();
    this.#kill = () => {
      clock.alive = false;
      for (const each of held) each[Symbol.dispose]();
    };
    // As the unit's Restart= does it.
    this.#boot(clock, held).catch((error: unknown) => {
      if (!clock.alive) return;
      if (!(isSluiceError(error) && /^(?:store|kernel)\./.test(error.code)))
        this.#options.broken(`${this.name} does not start: ${(error as Error).stack}`);
      this.kill();
      time.after(START_RETRY_MS, () => this.start());
    });
  }

  /** The shared store with this host's copies of it, which outlive the life. */
  async #open(clock: LifeClock, logger: Logger): Promise<{ store: Store; client: SimClient }> {
    const { time, server, plant } = this.#options;
    const { name, weather, disk } = this;
    const ask = linkOf({ time, clock, weather });
    let client: SimClient | undefined;
    const store = await openReplica({
      async connect(seen, onTerm) {
        client = await openSimClient(server, { clock, ask, seen, onTerm });
        return plant(client);
      },
      local: disk,
      node: name,
      clock,
      logger,
      lockMs: SESSION_MS,
    });
    return { store, client: client! };
  }

  async #boot(clock: LifeClock, held: Set<Disposable>): Promise<void> {
    const { answers } = this.#options;
    const { name, address } = this;
    const logger = createLogger(process.env.SLUICE_TEST_LOG ?? 'silent', { node: name, life: this.lives });
    const { store, client } = await this.#open(clock, logger);
    if (!clock.alive) return;
    const kernel = asProcess(this.kernel, held);
    const underlay = () => ({ address, port: 4789, ifname: 'eth0', mtu: 1500 });
    const driver = new OverlayDriver({ instance: 'sim', kernel, underlay }, clock);
    const ipams = new Map([
      ['default', createIpam({ store, clock, pools: [{ base: '10.96.0.0/12', size: 24 }], node: name })],
    ]);
    const images = createFakeImages();
    const desired = createDesired({
      store,
      local: this.disk,
      clock,
      node: name,
      drivers: { get: () => driver, names: () => ['overlay'] },
      ipams,
      images,
      hostPrefixes: () => [],
    });
    const world = new World({ store, clock, node: name, logger, shared: true });
    const tracker = new Tracker({ sink: desired.statuses, clock, node: name });
    const names = new FakeNameServer();
    const dataplane = createFakeDataplane(this.pinned);
    const describe = () => ({ address, vtep: address, port: 4789, hostRoutes: ['198.18.0.0/24'] });
    const registration = new Registration({ store, clock, logger, node: name, describe });
    const membership = new Membership({
      store,
      clock,
      logger,
      node: name,
      ttlMs: SESSION_MS,
      prober: {
        answers: async (to, timeoutMs) => {
          const answer = answers(name, to);
          await clock.sleep(answer ? 1 : timeoutMs);
          return answer;
        },
      },
      nodes: () => world.nodes.values() as Iterable<Node>,
      applied: () => world.revision,
      onStates: (states) => world.judge(states),
    });
    const life: Life = { clock, store, client, desired, world, tracker, membership, names, synced: false };
    this.life = life;
    held.add({ [Symbol.dispose]: () => dataplane.close() });
    await dataplane.start();
    membership.start();
    await registration.start();
    const statuses = (await store.list<Status>(statusPrefix())).items.map(({ value }) => value);
    const running = new Controllers({
      context: {
        instance: 'sim',
        node: name,
        runDir: this.runDir,
        stateDir: this.runDir,
        cgroupBase: `/sys/fs/cgroup/sim-${name}`,
        kernel,
        dataplane,
        publisher: createNftPublisher({ kernel, instance: 'sim', runDir: this.runDir }),
        names,
        runtime: createFakeRuntime({ clock }),
        images,
        desired,
        drivers: { get: () => driver },
        world,
        tracker,
        clock,
        logger,
        resolvConf: () => '',
      },
      drivers: [driver],
      ipams,
      underlay,
      auditMs: AUDIT_MS,
      statuses,
    });
    await running.start();
    life.synced = true;
  }

  /** kill -9 */
  kill(): void {
    this.#kill?.();
    this.#kill = undefined;
    this.life = undefined;
  }

  /** Whether its daemon has, and knows that it has, what the store had. */
  get isWhole(): boolean {
    return this.life?.client.isCurrent === true && this.life.store.incarnation === this.life.client.incarnation;
  }

  /** The machine loses its power, and with it all that a kernel holds. */
  lose(): void {
    this.kill();
    this.up = false;
    this.kernel = this.#kernel();
    this.pinned = new FakeState();
  }

  close(): void {
    this.kill();
    rmSync(this.runDir, { recursive: true, force: true });
  }

  #kernel(): FakeKernel {
    for (const dir of ['netns', 'sandbox']) mkdirSync(join(this.runDir, dir), { recursive: true });
    const kernel = createFakeKernel({ clock: this.#clockOfKernel() });
    kernel.cgroups.ensure(`/sys/fs/cgroup/sim-${this.name}`);
    return kernel;
  }

  #clockOfKernel(): LifeClock {
    return new LifeClock(this.#options.time, this.hostTime);
  }
}

/** A store that stays when a life closes it. */
const outliving = (store: Store): Store =>
  new Proxy(store, {
    get(target, key) {
      if (key === 'close') return async () => undefined;
      const value = Reflect.get(target, key);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

/** The kernel as one process sees it: what it holds open is let go of when it dies. */
function asProcess(kernel: FakeKernel, held: Set<Disposable>): Kernel {
  const keep = <T extends Disposable>(each: T): T => {
    held.add(each);
    return each;
  };
  return {
    ...kernel,
    namespaces: {
      host: kernel.namespaces.host,
      ensure: (path: string): Namespace => keep(kernel.namespaces.ensure(path)),
      open: (path: string): Namespace => keep(kernel.namespaces.open(path)),
      remove: (path: string) => kernel.namespaces.remove(path),
      exists: (path: string) => kernel.namespaces.exists(path),
    },
    ports: {
      hold(...words: Parameters<Kernel['ports']['hold']>) {
        const hold = kernel.ports.hold(...words);
        return hold && keep(hold);
      },
    },
    monitor: (...words: Parameters<Kernel['monitor']>): Monitor => keep(kernel.monitor(...words)),
  };
}
