/**
 * A kernel in memory for unit tests and the simulation. It passes the conformance suite of the contract, fails on demand, loses
 * notifications on demand, and prints itself as sorted text. Times and turns come from the clock that it is given.
 */
import { type Clock, systemClock } from '../clock.ts';
import type { Features, Kernel, LinkEvent, Monitor, Namespace, Namespaces, Netlink, Nft } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { FakeCgroups } from './fake/cgroup.ts';
import { FakeNetlink } from './fake/netlink.ts';
import { FakePorts } from './fake/ports.ts';
import { FakeSockets } from './fake/sockets.ts';
import type { Space } from './fake/space.ts';
import { readSetting, writeSetting } from './fake/sysctl.ts';
import { dumpWorld } from './fake/text.ts';
import { type Listener, World } from './fake/world.ts';
import { kernelError } from './libc.ts';

const HOST_PATH = '/proc/self/ns/net';
const ENOENT = 2;
const EBADF = 9;

export interface FakeKernelOptions {
  readonly clock?: Clock;
  /** What this kernel lacks, or has; everything but netem and IPVS by default. */
  readonly features?: Partial<Features>;
}

export interface FakeKernel extends Kernel {
  readonly cgroups: FakeCgroups;
  readonly sockets: FakeSockets;
  readonly ports: FakePorts;
  /** Paths at which a bpffs was asked for. */
  readonly bpffs: ReadonlySet<string>;
  /** The next calls of an operation (`ensureVeth`, `setLink`, `netns.ensure`, `nft.apply`, `cgroup.ensure` …) fail and do nothing. */
  fail(op: string, error?: SluiceError, times?: number): void;
  /** The next notification is lost, and every monitor that it was meant for is told. */
  lose(): void;
  /** Everything, sorted, one thing a line: for golden files and for comparing two moments. */
  dump(): string;
}

class FakeNamespace implements Namespace {
  readonly fd: number;
  readonly path: string;
  readonly cookie: bigint;
  readonly identity: string;
  readonly netlink: Netlink;
  readonly space: Space;
  #closed = false;

  constructor(path: string, space: Space) {
    this.path = path;
    this.space = space;
    this.fd = space.world.openSpace(space);
    this.cookie = space.cookie;
    this.identity = space.identity;
    this.netlink = new FakeNetlink(space);
  }

  run<T>(fn: () => T): T {
    if (this.#closed) throw kernelError(EBADF, `enter network namespace ${this.path}`, 'it was closed');
    const result = fn();
    if (typeof (result as PromiseLike<unknown> | null | undefined)?.then === 'function')
      throw new TypeError('a visit to a network namespace must be synchronous');
    return result;
  }

  setSysctl(name: string, value: string): void {
    this.run(() => writeSetting(this.space, name, value));
  }

  getSysctl(name: string): string {
    return this.run(() => readSetting(this.space, name));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.space.world.closeSpace(this.fd);
  }
}

class FakeNamespaces implements Namespaces {
  readonly host: FakeNamespace;
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
    this.host = new FakeNamespace(HOST_PATH, world.createSpace());
  }

  ensure(path: string): FakeNamespace {
    this.#world.attempt('netns.ensure');
    let space = this.#world.mounts.get(path);
    if (!space) {
      space = this.#world.createSpace();
      space.hold();
      this.#world.mounts.set(path, space);
    }
    for (const link of space.links.values()) if (link.kind === 'loopback') space.setUp(link, true);
    return new FakeNamespace(path, space);
  }

  open(path: string): FakeNamespace {
    this.#world.attempt('netns.open');
    const space = path === HOST_PATH ? this.host.space : this.#world.mounts.get(path);
    if (!space) throw kernelError(ENOENT, `open network namespace ${path}`);
    return new FakeNamespace(path, space);
  }

  remove(path: string): void {
    this.#world.attempt('netns.remove');
    const space = this.#world.mounts.get(path);
    this.#world.mounts.delete(path);
    space?.release();
  }

  exists(path: string): boolean {
    return this.#world.mounts.has(path);
  }
}

export function createFakeKernel({ clock = systemClock, features = {} }: FakeKernelOptions = {}): FakeKernel {
  const world = new World(clock);
  const namespaces = new FakeNamespaces(world);
  const cgroups = new FakeCgroups(world);
  const sockets = new FakeSockets(world);
  const bpffs = new Set<string>();

  const spaceOf = (namespace: Namespace): Space => world.spaceOf(namespace.fd, `use ${namespace.path}`);

  const nft = (namespace: Namespace = namespaces.host): Nft => {
    const space = spaceOf(namespace);
    return {
      apply(ruleset) {
        world.attempt('nft.apply');
        space.nft.apply(ruleset);
        space.emit('nft', 0);
      },
      list(what) {
        world.attempt('nft.list');
        return space.nft.list(what);
      },
      tables: () => space.nft.tables(),
      [Symbol.dispose]() {
        // Nothing is held.
      },
    };
  };

  const monitor = (
    namespace: Namespace,
    groups: readonly LinkEvent['type'][],
    onEvent: (event: LinkEvent) => void,
    onLoss: () => void,
  ): Monitor => {
    const listener: Listener = { space: spaceOf(namespace), types: new Set(groups), onEvent, onLoss, losses: 0 };
    world.listeners.add(listener);
    return {
      get losses() {
        return listener.losses;
      },
      [Symbol.dispose]: () => void world.listeners.delete(listener),
    };
  };

  return {
    namespaces,
    host: namespaces.host,
    cgroups,
    sockets,
    // Nothing flows here that could be tracked.
    conntrack: { remove: () => 0 },
    ports: new FakePorts(world),
    features: {
      release: '6.18.0-fake',
      tcx: true,
      netnsCookieInSockAddr: true,
      cgroupBpf: true,
      sockDestroy: true,
      vxlan: true,
      nftables: true,
      overlayfs: true,
      netem: false,
      ipvs: false,
      ...features,
    },
    nft,
    monitor,
    bpffs,
    ensureBpffs(path) {
      world.attempt('ensureBpffs');
      bpffs.add(path);
    },
    peer: () => ({ uid: 0, pid: process.pid }),
    fail(op, error = new SluiceError('kernel.failed', `${op}: made to fail`), times = 1) {
      world.fail(op, error, times);
    },
    lose() {
      world.lossy = true;
    },
    dump: () => dumpWorld(namespaces.host.space, world, cgroups),
    [Symbol.dispose]: () => namespaces.host[Symbol.dispose](),
  };
}
