/**
 * The daemon. The only place that wires concrete parts together: settings → lock → store → kernel → data plane → names →
 * controllers → API. SIGTERM ends the process and leaves everything that runs running.
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { create as createBridge } from '../plugins/bridge/bridge.ts';
import { create as createHost } from '../plugins/host/host.ts';
import { create as createNone } from '../plugins/none/none.ts';
import { create as createOverlay } from '../plugins/overlay/overlay.ts';
import { createAbsentRuntime } from '../runtime/absent.ts';
import { createEngine } from '../runtime/engine/engine.ts';
import { findTools } from '../runtime/engine/tool.ts';
import { createImages } from '../runtime/image/images.ts';
import { createStreams } from './api/container/stream.ts';
import { Scrape } from './api/metrics.ts';
import { createApi, createMetricsApp, serve, serveTcp } from './api/server.ts';
import { createEbpfDataplane } from './balancer/ebpf.ts';
import { createNftPublisher } from './balancer/nft/nft.ts';
import { type Clock, systemClock, withTimeLimit } from './clock.ts';
import { isShared, joinCluster, openHome, type Stores } from './cluster/home.ts';
import { Membership, sessionName } from './cluster/membership.ts';
import { Nodes } from './cluster/nodes.ts';
import { Passage } from './cluster/passage.ts';
import { Scheduler } from './cluster/placement/scheduler.ts';
import { Questions } from './cluster/question/questions.ts';
import { Registration } from './cluster/registration.ts';
import { type Config, loadConfig, readFlags } from './config.ts';
import type { DriverFactory, DriverHost, NetworkDriver, Underlay } from './contracts/driver.ts';
import type { Runtime } from './contracts/runtime.ts';
import { guardDriver } from './controller/circuit.ts';
import type { Context } from './controller/context.ts';
import { Controllers } from './controller/controllers.ts';
import { collectCounters, liveStatuses } from './controller/live.ts';
import { OffloadController } from './controller/offload/offload.ts';
import { Tracker } from './controller/tracker.ts';
import { World } from './controller/world.ts';
import { createDesired } from './desired/desired.ts';
import { resolvConf } from './dns/resolv.ts';
import { createNameServer } from './dns/server.ts';
import { isSluiceError, SluiceError, toSluiceError } from './errors.ts';
import { createIpam } from './ipam/ipam.ts';
import { Echo } from './kernel/echo/echo.ts';
import { createRefusalProber } from './kernel/echo/refusal.ts';
import { tryFlock } from './kernel/fd.ts';
import { createKernel } from './kernel/kernel.ts';
import { findUnderlay, ownPrefixes } from './kernel/netlink/underlay.ts';
import { notifySystemd } from './kernel/notify.ts';
import { createLogger, type Logger } from './log.ts';
import { registry } from './metrics.ts';
import { objectPrefix, statusPrefix } from './model/keys.ts';
import { cgroupName } from './model/mark.ts';
import type { HostSpec, Node } from './model/node.ts';
import type { Status } from './model/object.ts';
import { lockState } from './store/lock.ts';
import { createMemoryStore } from './store/memory.ts';
import { openRedisStore } from './store/redis/redis.ts';
import { nameOf, parseRedisUrl } from './store/redis/url.ts';
import { openSqliteStore } from './store/sqlite.ts';

/** The built-in drivers: one visible table, no registration on import. */
const DRIVERS: Readonly<Record<string, DriverFactory>> = {
  bridge: createBridge,
  host: createHost,
  none: createNone,
  overlay: createOverlay,
};
/** Time that a third-party driver may take to load, milliseconds. */
const PLUGIN_LOAD_MS_MAX = 5_000;
/** Time for the answer to a host that has joined a cluster, milliseconds. */
const JOINED_MS = 50;

const root = join(import.meta.dirname, '..', '..');
const version = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }).version;

async function main(): Promise<void> {
  const config = loadConfig(readFlags(version));
  const logger = createLogger(config.logLevel, { node: config.node, instance: config.instance });
  if (process.getuid?.() !== 0)
    throw new SluiceError('kernel.denied', 'sluiced needs root: it makes network namespaces, links and BPF programs');
  // A pool thread that is born while the main thread visits another namespace would stay there: have them all now.
  await Promise.all(Array.from({ length: 4 }, () => stat('/')));
  for (const dir of [config.stateDir, config.runDir, join(config.runDir, 'netns'), join(config.runDir, 'sandbox')])
    mkdirSync(dir, { recursive: true, mode: 0o711 });

  const clock = systemClock;
  const lock = lockState(config.stateDir, tryFlock);
  const stores: Stores = {
    memory: () => createMemoryStore({ clock }),
    own: (path) => openSqliteStore({ path, clock }),
    shared: (place, seen, onTerm) => openRedisStore({ ...place, seen, onTerm, clock, logger }),
    nameOf: (url) => nameOf(parseRedisUrl(url)),
  };
  const { store, local, own: ownStore } = await openHome(config, { stores, clock, logger });
  const kernel = createKernel({ clock });
  kernel.ensureBpffs(config.bpffs);
  const cgroupRoot = config.cgroupRoot ?? kernel.cgroups.mount;
  const cgroupBase = join(cgroupRoot, cgroupName(config.instance));
  // For sluice-off, which finds there what this daemon had from flags and environment, also after its death.
  const { instance, runDir, stateDir, bpffs } = config;
  const settings = { instance, runDir, stateDir, bpffs, cgroupRoot };
  writeFileSync(join(runDir, 'settings.json'), `${JSON.stringify(settings, null, 2)}\n`);
  kernel.cgroups.ensure(cgroupBase);
  const dataplane = createEbpfDataplane({
    kernel,
    instance: config.instance,
    bpffs: config.bpffs,
    cgroupRoot,
    objectDir: join(root, 'dist', 'bpf'),
    logger,
  });
  await dataplane.start();
  const publisher = createNftPublisher({ kernel, instance, runDir });

  const names = createNameServer({ clock, logger, resolvers: config.dns });
  const underlay = (): Underlay => findUnderlay(kernel.host.netlink, config);
  const drivers = await loadDrivers({ instance: config.instance, kernel, underlay }, config.plugins, clock);
  const ipams = new Map([
    ['default', createIpam({ store, clock, pools: config.defaultAddressPools, node: config.node })],
  ]);
  const registryOfDrivers = {
    get(name: string): NetworkDriver {
      const driver = drivers.get(name);
      if (!driver)
        throw new SluiceError(
          'driver.unknown',
          `there is no network driver ${name} (known: ${[...drivers.keys()].join(', ')})`,
          { driver: name },
        );
      return driver;
    },
    names: () => [...drivers.keys()],
  };
  const hostPrefixes = async (scope: 'local' | 'global'): Promise<string[]> => {
    const own = ownPrefixes(kernel.host.netlink, config.instance);
    if (scope === 'local') return own;
    const nodes = (await store.list<Node>(objectPrefix('node'))).items;
    return [...new Set([...own, ...nodes.flatMap(({ value }) => value.spec.hostRoutes)])];
  };
  const images = createImages({
    dir: join(config.stateDir, 'images'),
    clock,
    logger,
    workerFile: join(import.meta.dirname, '..', 'runtime', 'image', 'layer', 'worker.js'),
    registries: {
      mirrors: config.registryMirrors,
      insecure: config.insecureRegistries,
      certificates: config.registryCertificates,
    },
  });
  const runtime = await openRuntime(config, { cgroupMount: kernel.cgroups.mount, clock, logger });
  const desired = createDesired({
    store,
    local,
    clock,
    node: config.node,
    drivers: registryOfDrivers,
    ipams,
    images,
    ports: kernel.ports,
    hostPrefixes,
  });
  await raiseFloors(desired, dataplane);
  await desired.networks.ensureBuiltin();

  const world = new World({ store, clock, node: config.node, logger, shared: isShared(config.store) });
  const tracker = new Tracker({ sink: desired.statuses, clock, node: config.node });
  const context: Context = {
    instance: config.instance,
    node: config.node,
    runDir: config.runDir,
    stateDir: config.stateDir,
    cgroupBase,
    kernel,
    dataplane,
    publisher,
    names,
    runtime,
    images,
    desired,
    drivers: registryOfDrivers,
    world,
    tracker,
    clock,
    logger,
    resolvConf: (sandbox) => resolvConf(readHostResolvConf(), sandbox.spec.dns ?? {}),
    collects: () => scheduler.leads,
  };
  const statuses = (await store.list<Status>(statusPrefix(), { concerning: config.node })).items.map(
    ({ value }) => value,
  );
  const controllers = new Controllers({
    context,
    drivers: [...drivers.values()],
    ipams,
    underlay,
    manageDockerUser: config.manageDockerUser,
    publishAddress: config.publishAddress,
    auditMs: config.auditSeconds * 1_000,
    offload: new OffloadController(context, createRefusalProber(clock)),
    others: {
      sessionOf: (name) => membership.sessionOf(name),
      answers: (address, timeoutMs) => echo.answers(address, timeoutMs),
      ask: (to, about, body) => questions.ask(to, about, body),
    },
    rehearse: (name, rehearsed) => DRIVERS[name]?.({ instance, kernel: rehearsed, underlay }) ?? null,
    statuses,
  });

  const describe = (): HostSpec => {
    const hostRoutes = ownPrefixes(kernel.host.netlink, config.instance).sort();
    const { vxlanPort: port, advertise } = config;
    try {
      const { address, mtu } = underlay();
      return { address: advertise ?? address, vtep: address, port, mtu, hostRoutes };
    } catch (error) {
      // A single host needs no way to others.
      if (isShared(config.store)) throw error;
      return { address: advertise ?? LOCALHOST, port, hostRoutes };
    }
  };
  const registration = new Registration({ store, clock, logger, node: config.node, describe });
  await registration.start();
  const echo = new Echo(clock);
  const membership = new Membership({
    store,
    clock,
    logger,
    node: config.node,
    ttlMs: config.sessionSeconds * 1_000,
    prober: echo,
    nodes: () => world.nodes.values(),
    applied: () => world.revision,
    onStates: (states) => world.judge(states),
  });
  const passage = new Passage({
    clock,
    logger,
    node: config.node,
    prober: echo,
    nodes: () => world.nodes.values(),
    onFound: (message) => tracker.condition('node', config.node, 'UnderlayMtu', message !== '', message),
  });
  const questions = new Questions({
    store,
    clock,
    logger,
    node: config.node,
    session: () => membership.session,
    sessionName,
    answer: (about, body) => controllers.diagnosis.answer(about, body),
  });
  if (isShared(config.store)) {
    world.onRecord((key, value, revision) => questions.heard(key, value, revision));
    questions.start();
    membership.start();
  }
  const nodes = new Nodes({
    store,
    clock,
    node: config.node,
    desired,
    sessionOf: (name) => membership.sessionOf(name),
    ...(isShared(config.store) && { refresh: () => membership.refresh() }),
  });

  const scheduler = new Scheduler({
    store,
    clock,
    logger,
    node: config.node,
    ttlMs: config.sessionSeconds * 1_000,
    graceMs: config.rescheduleSeconds * 1_000,
    stateOf: (name) => membership.sessionOf(name).state,
    count: () => world.nodes.size,
  });
  const ending = new AbortController();
  const startedAt = new Date(clock.now()).toISOString();
  const scrape = new Scrape({ registry, clock, logger });
  scrape.add('dataplane', () => collectCounters(world, tracker, dataplane));
  const { live, peers, diagnosis } = controllers;
  const streams = createStreams({ desired, live, clock, logger, signal: ending.signal });
  const app = createApi({
    live,
    peers,
    diagnosis,
    desired: { ...desired, statuses: liveStatuses(desired.statuses, dataplane) },
    nodes,
    cluster: {
      async join(request) {
        const answer = await joinCluster(ownStore, request, config, stores);
        // Nothing can be written here any more.
        clock.after(JOINED_MS, () => void stop('cluster join'));
        return answer;
      },
    },
    store,
    images,
    clock,
    node: config.node,
    logger,
    version,
    metrics: scrape,
    signal: ending.signal,
    peer: kernel.peer,
    system: {
      report: () => ({
        instance: config.instance,
        kernel: kernel.features.release,
        startedAt,
        components: controllers.health(),
        conditions: tracker.get('node', config.node)?.conditions ?? [],
      }),
    },
  });
  const listeners = [await serve(app, { socket: config.socket, group: config.socketGroup, clock, logger, streams })];
  if (config.metricsListen)
    listeners.push(
      await serveTcp(createMetricsApp({ metrics: scrape, logger }), config.metricsListen, { clock, logger }),
    );
  const pidFile = join(config.runDir, 'sluiced.pid');
  writeFileSync(pidFile, `${process.pid}\n`);
  notifySystemd('READY=1');
  logger.info(
    {
      version,
      pid: process.pid,
      socket: config.socket,
      store: isShared(config.store) ? 'redis' : config.store,
      kernel: kernel.features.release,
      tc: dataplane.capabilities().tc,
    },
    'ready',
  );

  let stopping = false;
  const stop = async (signal: string): Promise<void> => {
    if (stopping) return;
    stopping = true;
    logger.info({ signal }, 'stopping; what runs keeps running');
    notifySystemd('STOPPING=1');
    ending.abort(new SluiceError('daemon.stopping', 'the daemon is stopping'));
    await Promise.all(listeners.map((listener) => listener.close()));
    registration.stop();
    await scheduler.stop();
    await passage.stop();
    await questions.stop();
    await membership.stop();
    echo[Symbol.dispose]();
    await controllers.stop();
    await runtime.close();
    await images.close();
    await names.close();
    dataplane.close();
    publisher.close();
    await store.close();
    kernel[Symbol.dispose]();
    rmSync(pidFile, { force: true });
    lock.release();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(signal));
  // With --expose-gc: a collection that also gives memory back, so that what is measured is what is needed.
  process.on('SIGUSR2', () => globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' }));
  names.onResolversChange(() => controllers.resolversChanged());
  names.onPortChange((id) => controllers.sandboxChanged(id));
  await controllers.start();
  scheduler.start();
  if (isShared(config.store)) passage.start();
}

const LOCALHOST = '127.0.0.1';

/** Without what containers need there are networks, names and services all the same. */
async function openRuntime(
  { stateDir, runDir, socket, bpffs, instance }: Config,
  parts: { readonly cgroupMount: string; readonly clock: Clock; readonly logger: Logger },
): Promise<Runtime> {
  try {
    const tools = findTools({ root, mount: parts.cgroupMount });
    const own = [stateDir, runDir, socket, join(bpffs, instance)];
    return await createEngine({ ...parts, dir: join(stateDir, 'containers'), runDir, tools, own });
  } catch (error) {
    if (!isSluiceError(error, 'runtime.missing')) throw error;
    parts.logger.warn({ err: error.message }, 'this host cannot run containers');
    return createAbsentRuntime(error.message);
  }
}

/** Numbers that pinned maps hold must not be given to something else by a fresh store. */
async function raiseFloors(
  desired: ReturnType<typeof createDesired>,
  dataplane: ReturnType<typeof createEbpfDataplane>,
): Promise<void> {
  for (const [space, highest] of Object.entries(dataplane.highest()))
    await desired.numbers.floor(space as 'attachment', highest + 1);
}

function readHostResolvConf(): string {
  try {
    return readFileSync('/etc/resolv.conf', 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** A driver that was asked for and cannot be loaded is an error at start: a network of it would fail later, and less clearly. */
async function loadDrivers(
  host: DriverHost,
  plugins: Config['plugins'],
  clock: Clock,
): Promise<ReadonlyMap<string, NetworkDriver>> {
  const drivers = new Map(
    Object.entries(DRIVERS).map(([name, create]) => [name, guardDriver(create(host), { clock })]),
  );
  for (const [name, path] of Object.entries(plugins)) {
    if (drivers.has(name))
      throw new SluiceError('config.invalid', `plugins: ${name} is the name of a driver that exists`, { name });
    const late = (): Error =>
      new SluiceError('config.invalid', `plugins: ${name}: ${path} did not load within ${PLUGIN_LOAD_MS_MAX} ms`, {
        name,
        path,
      });
    const loading = import(pathToFileURL(path).href).catch((error: Error) => {
      throw new SluiceError('config.invalid', `plugins: ${name}: ${path}: ${error.message}`, { name, path }, error);
    });
    const module = (await withTimeLimit(clock, PLUGIN_LOAD_MS_MAX, loading, late)) as { create?: DriverFactory };
    if (typeof module.create !== 'function')
      throw new SluiceError('config.invalid', `plugins: ${name}: ${path} exports no function "create"`, { name, path });
    drivers.set(name, guardDriver(module.create(host), { clock }));
  }
  return drivers;
}

main().catch((error: unknown) => {
  const coded = toSluiceError(error);
  process.stderr.write(`sluiced: ${coded.message} (${coded.code})\n`);
  if (!isSluiceError(error)) process.stderr.write(`${(error as Error).stack}\n`);
  process.exit(1);
});
