/**
 * Runs containers: a bundle on disk, conmon as the monitor that stays, crun or runc as the runtime that makes them. Everything this daemon
 * must know of them is in their folders, so that the next one goes on. By hand: `crun --root <runDir>/oci list`.
 */
import { type FSWatcher, readFileSync, watch } from 'node:fs';
import { join, relative } from 'node:path';
import type { Clock, Timer } from '../../src/clock.ts';
import type { ContainerPlan, ContainerState, Runtime } from '../../src/contracts/runtime.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Logger } from '../../src/log.ts';
import { hexId } from '../../src/model/id.ts';
import { Bundles, type Record } from './bundle.ts';
import { halfMade, readText } from './half.ts';
import { startMonitor } from './monitor.ts';
import { bootId, describeProcesses, signalOf, signalProcess, startOf } from './process.ts';
import { boundingSet } from './spec/capability.ts';
import { configOf } from './spec/config.ts';
import { userIn } from './spec/rootfs.ts';
import { execSpec } from './spec/spec.ts';
import { clearStrays, isInBooks, killStrays, type StrayPlace } from './stray.ts';
import { attachTo } from './stream/attach.ts';
import { copyIn, copyOut } from './stream/copy.ts';
import { scratchOf, startExec } from './stream/exec.ts';
import { readLog } from './stream/log.ts';
import { ociError, runTool, type Tools } from './tool.ts';
import { Turns } from './turns.ts';
import { cgroupMounts, killCgroup, processesOf, usageOf } from './usage.ts';

export interface EngineOptions {
  /** Folder that lasts. */
  readonly dir: string;
  /** Folder that goes with the machine. */
  readonly runDir: string;
  readonly tools: Tools;
  /** Mount point of cgroup v2. */
  readonly cgroupMount: string;
  /** Host paths that no container may mount: the daemon's folders, its socket, its pins. */
  readonly own: readonly string[];
  readonly clock: Clock;
  readonly logger: Logger;
}

const CALL_MS_MAX = 20_000;
/** How long a killed container may take to be gone. */
const KILL_MS_MAX = 10_000;
const STEP_MS = 10;
/** How often it is looked whether monitors still live. */
const AUDIT_MS = 1_000;
/** Exit status of a container whose end nobody saw: the machine went down, or its monitor was killed with it. */
const UNSEEN = 255;
const KILL = signalOf('KILL');
const KILLED = 128 + KILL;

interface Life {
  record: Record;
  readonly plan: ContainerPlan;
  /** Readers of its log that wait for more. */
  readonly listeners: Set<() => void>;
  monitorMissing?: boolean;
}

export async function createEngine(options: EngineOptions): Promise<Runtime> {
  const engine = new Engine(options);
  await engine.adopt();
  return engine;
}

class Engine implements Runtime {
  readonly #options: EngineOptions;
  readonly #bundles: Bundles;
  readonly #lives = new Map<string, Life>();
  readonly #turns = new Turns();
  readonly #listeners: ((state: ContainerState) => void)[] = [];
  readonly #mounts = cgroupMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  readonly #boot = bootId();
  readonly #capabilities = boundingSet(readFileSync('/proc/self/status', 'utf8'));
  readonly #watcher: FSWatcher;
  #audit: Timer | undefined;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#bundles = new Bundles(options.dir, join(options.runDir, 'attach'));
    this.#watcher = watch(this.#bundles.exits, (_event, name) => {
      if (name) this.#look(name);
    });
    this.#schedule();
  }

  /** Takes over what an earlier daemon left; what it left half made goes. */
  async adopt(): Promise<void> {
    for (const id of this.#bundles.all()) {
      const [record, plan] = [this.#bundles.record(id), this.#bundles.plan(id)];
      this.#bundles.sweepExecs(id);
      if (!record || !plan) {
        await this.#dispose(id);
        this.#bundles.clear(id, true);
        continue;
      }
      this.#lives.set(id, { record, plan, listeners: new Set() });
      // An end that the monitor wrote is true, also after a reboot.
      this.#look(id);
      if (record.boot !== this.#boot && this.#lives.get(id)!.record.exitCode === undefined)
        this.#finish(id, UNSEEN, this.#now());
    }
  }

  create(plan: ContainerPlan): Promise<ContainerState> {
    return this.#turns.take(plan.id, async () => {
      const { id, spec } = plan;
      const config = configOf(plan, {
        own: this.#options.own,
        mounts: this.#mounts,
        capabilities: this.#capabilities,
        cgroupsPath: this.#cgroupsPath(plan),
        init: this.#options.tools.init,
      });
      await this.#clear(id, true);
      this.#bundles.write(id, plan, config);
      const log = this.#bundles.path(id, 'oci.log');
      try {
        const { clock, tools } = this.#options;
        const pid = await startMonitor(clock, tools, this.#bundles, plan, {
          runtime: this.#runtime(),
          env: this.#env(plan),
          log,
        });
        const monitor = this.#bundles.number(id, 'monitor.pid') ?? 0;
        const record: Record = {
          generation: spec.generation,
          pid,
          start: startOf(pid) ?? '',
          monitor,
          monitorStart: startOf(monitor),
          boot: this.#boot,
        };
        this.#bundles.keep(id, record);
        this.#lives.set(id, { record, plan, listeners: new Set() });
        return this.#state(id)!;
      } catch (error) {
        const words = readText(log) || (error as Error).message;
        await this.#dispose(id);
        this.#bundles.clear(id, true);
        throw ociError(words, `container ${plan.name} could not be created`);
      }
    });
  }

  start(id: string): Promise<ContainerState> {
    return this.#turns.take(id, async () => {
      const life = this.#known(id);
      if (this.#state(id)!.state !== 'created') return this.#state(id)!;
      this.#keep(life, { startedAt: this.#now() });
      const { code, stderr, words } = await this.#oci(['start', id], life.plan);
      this.#look(id);
      if (code === 0 || this.#state(id)!.state === 'exited') return this.#state(id)!;
      // Whoever was to say so may have been killed after it was done.
      if (code > 128 && (await this.#isStarted(life.plan))) return this.#state(id)!;
      this.#keep(life, { startedAt: undefined });
      this.#signalAll(life.record, KILL);
      throw ociError(words || stderr, `container ${life.plan.name} could not be started`);
    });
  }

  async kill(id: string, signal: string, { all = false } = {}): Promise<void> {
    const { record } = this.#known(id);
    if (record.exitCode !== undefined) return;
    const name = signalOf(signal);
    if (!all) {
      signalProcess(record.pid, record.start, name);
      return;
    }
    this.#signalAll(record, name);
  }

  pause = (id: string): Promise<void> => this.#freeze(id, 'pause');
  resume = (id: string): Promise<void> => this.#freeze(id, 'resume');

  delete(id: string, { keepLogs = false } = {}): Promise<void> {
    return this.#turns.take(id, () => this.#clear(id, keepLogs));
  }

  async state(id: string): Promise<ContainerState | null> {
    return this.#state(id);
  }

  async list(): Promise<readonly ContainerState[]> {
    return [...this.#lives.keys()].map((id) => this.#state(id)!);
  }

  onExit(listener: (state: ContainerState) => void): void {
    this.#listeners.push(listener);
    for (const id of this.#lives.keys()) {
      const state = this.#state(id)!;
      if (state.state === 'exited') listener(state);
    }
  }

  async exec(id: string, plan: Parameters<Runtime['exec']>[1]) {
    const { plan: container } = this.#running(id);
    const user = userIn(container.rootfs, plan.user ?? container.spec.user ?? container.image.user);
    return startExec({
      clock: this.#options.clock,
      tools: this.#options.tools,
      runtime: this.#runtime(),
      env: this.#env(container),
      id,
      process: execSpec(container, plan, user, this.#capabilities),
      stdin: plan.stdin,
      scratch: scratchOf(this.#bundles.path(id), hexId(this.#options.clock.random(8))),
    });
  }

  async attach(id: string) {
    const { record } = this.#known(id);
    if (record.exitCode !== undefined) throw stopped(id);
    return attachTo(this.#options.clock, this.#bundles.socket(id), this.#bundles.path(id));
  }

  logs(id: string, options: Parameters<Runtime['logs']>[1]) {
    const life = this.#known(id);
    return readLog(this.#bundles.log(id), options, {
      running: () => this.#lives.get(id) === life && life.record.exitCode === undefined,
      onEnd(listener) {
        life.listeners.add(listener);
        return () => life.listeners.delete(listener);
      },
    });
  }

  async stats(id: string) {
    const { record } = this.#running(id);
    const found = startOf(record.pid) === record.start ? usageOf(record.pid, this.#mounts) : null;
    if (found) return found;
    throw stopped(id);
  }

  async processes(id: string) {
    const pids = this.#processes(this.#running(id).record);
    if (pids.length === 0) return [];
    return describeProcesses(this.#options.clock, this.#options.tools, pids);
  }

  copyOut(id: string, rootfs: string, path: string) {
    return copyOut(this.#options.clock, this.#options.tools, this.#root(id, rootfs), path);
  }

  copyIn(id: string, rootfs: string, path: string, tar: AsyncIterable<Uint8Array>): Promise<void> {
    return copyIn(this.#options.clock, this.#options.tools, this.#root(id, rootfs), path, tar);
  }

  async close(): Promise<void> {
    this.#watcher.close();
    this.#audit?.cancel();
  }

  // ---- what is behind the verbs

  #now(): string {
    return new Date(this.#options.clock.now()).toISOString();
  }

  #known(id: string): Life {
    const life = this.#lives.get(id);
    if (life) return life;
    throw new SluiceError('object.notfound', `the runtime knows no container ${id}`, { id });
  }

  #running(id: string): Life {
    const life = this.#known(id);
    if (this.#state(id)!.state !== 'running') throw stopped(id);
    return life;
  }

  #state(id: string): ContainerState | null {
    const life = this.#lives.get(id);
    if (!life) return null;
    const { generation, pid, startedAt, exitCode, exitedAt } = life.record;
    const base = { id, generation, startedAt };
    if (exitCode !== undefined)
      return { ...base, state: 'exited', exitCode, exitedAt, oomKilled: this.#bundles.oomKilled(id) };
    return { ...base, state: startedAt ? 'running' : 'created', pid };
  }

  #keep(life: Life, change: Partial<Record>): void {
    life.record = { ...life.record, ...change };
    this.#bundles.keep(life.plan.id, life.record);
  }

  /** Whether the monitor has written an end. */
  #look(id: string): void {
    const life = this.#lives.get(id);
    if (!life || life.record.exitCode !== undefined) return;
    const exit = this.#bundles.exit(id);
    if (exit) this.#finish(id, exit.exitCode, exit.exitedAt);
  }

  #finish(id: string, exitCode: number, exitedAt: string): void {
    const life = this.#lives.get(id)!;
    this.#keep(life, { exitCode, exitedAt });
    for (const listener of life.listeners) listener();
    const state = this.#state(id)!;
    for (const listener of this.#listeners) listener(state);
  }

  #schedule(): void {
    this.#audit = this.#options.clock.after(AUDIT_MS, () => {
      for (const id of this.#lives.keys()) this.#auditOne(id);
      this.#schedule();
    });
  }

  /** A container without its monitor is ended: nobody would take its output, or notice its end. */
  #auditOne(id: string): void {
    const life = this.#lives.get(id)!;
    this.#look(id);
    const { record } = life;
    // Also once more after its end: the last part may have begun since the look before.
    this.#bundles.keepLog(id);
    if (record.exitCode !== undefined || (record.monitorStart && startOf(record.monitor) === record.monitorStart))
      return;
    // It may have written the end since the look.
    if (!life.monitorMissing) {
      life.monitorMissing = true;
      return;
    }
    this.#options.logger.warn(
      { container: life.plan.name, monitor: record.monitor },
      'the monitor is gone; the container ends',
    );
    this.#signalAll(record, KILL);
    this.#finish(id, KILLED, this.#now());
  }

  /** Ends what runs of it and forgets it. */
  async #clear(id: string, keepLogs: boolean): Promise<void> {
    const life = this.#lives.get(id);
    await this.#dispose(id, life?.record);
    this.#lives.delete(id);
    for (const listener of life?.listeners ?? []) listener();
    this.#bundles.clear(id, keepLogs);
  }

  /** The container out of the kernel and out of the OCI runtime's books, its monitor gone. */
  async #dispose(id: string, known?: Record): Promise<void> {
    const { clock, tools } = this.#options;
    const plan = this.#bundles.plan(id);
    const stray = this.#strayPlace(id, plan);
    // Nothing was ever begun.
    if (!known && !plan && !isInBooks(stray)) return;
    const record = known ?? halfMade(this.#bundles, id, this.#boot, (plan) => this.#cgroupsPath(plan));
    const { monitor, monitorStart } = record;
    const monitorLives = (): boolean => monitorStart !== null && startOf(monitor) === monitorStart;
    const until = clock.monotonic() + KILL_MS_MAX;
    // A creation that a killed daemon left under way ends by itself: only then is there something to take apart.
    if (!known)
      while (monitorLives() && this.#bundles.number(id, 'pid') === null && clock.monotonic() < until)
        await clock.sleep(STEP_MS);
    const { exitCode } = record;
    if (exitCode === undefined)
      this.#signalAll(known ?? halfMade(this.#bundles, id, this.#boot, (plan) => this.#cgroupsPath(plan)), KILL);
    if (!known) await killStrays(clock, stray);
    const { code, stderr } = await runTool(clock, [tools.oci, ...this.#runtime(), 'delete', '--force', id], {
      env: tools.env,
      limitMs: CALL_MS_MAX,
    });
    if (code !== 0 && !/does not exist|not exist|no such/i.test(stderr))
      throw ociError(stderr, `container ${id} could not be taken apart`);
    clearStrays(stray);
    // Its last words, and its exit file, come from the monitor: it is to be gone before they are removed.
    while (monitorLives()) {
      if (clock.monotonic() > until) {
        signalProcess(monitor, monitorStart!, 'SIGKILL');
        return;
      }
      await clock.sleep(STEP_MS);
    }
  }

  /** Everything in the container's cgroup, while its first process is the one that was recorded. */
  #processes({ pid, start }: Record): number[] {
    return start !== '' && startOf(pid) === start ? processesOf(pid, this.#mounts) : [];
  }

  #signalAll(record: Record, signal: number): void {
    const { pid, start } = record;
    // At once, so that nobody who forks gets away; the first process with the rest.
    if (signal === KILL && start !== '' && startOf(pid) === start && killCgroup(pid, this.#mounts)) return;
    for (const pid of this.#processes(record)) signalProcess(pid, startOf(pid) ?? '', signal);
    signalProcess(record.pid, record.start, signal);
  }

  async #freeze(id: string, verb: 'pause' | 'resume'): Promise<void> {
    const { plan } = this.#running(id);
    const { code, stderr, words } = await this.#oci([verb, id], plan);
    if (code !== 0) throw ociError(words || stderr, `${verb} ${plan.name}`);
  }

  /** The OCI runtime on a container of ours, and what it logged. */
  async #oci(args: readonly string[], plan: ContainerPlan) {
    const { clock, tools } = this.#options;
    const log = this.#bundles.path(plan.id, 'verb.log');
    const result = await runTool(clock, [tools.oci, ...this.#runtime(), '--log', log, ...args], {
      env: this.#env(plan),
      limitMs: CALL_MS_MAX,
    });
    return { ...result, words: readText(log) };
  }

  async #isStarted(plan: ContainerPlan): Promise<boolean> {
    const { code, stdout } = await this.#oci(['state', plan.id], plan);
    return code === 0 && (JSON.parse(stdout) as { status?: string }).status === 'running';
  }

  #strayPlace(id: string, plan: ContainerPlan | null): StrayPlace {
    const cgroups = plan ? this.#mounts.map(({ path }) => join(path, this.#cgroupsPath(plan))) : [];
    return { id, books: this.#books, cgroups };
  }

  get #books(): string {
    return join(this.#options.runDir, 'oci');
  }

  #runtime(): string[] {
    return ['--root', this.#books];
  }

  #hybrid(): boolean {
    return this.#options.cgroupMount !== '/sys/fs/cgroup';
  }

  #env(plan: ContainerPlan) {
    return { ...this.#options.tools.env, ...(this.#hybrid() && { SLUICE_OCI_CGROUP: plan.cgroupPath }) };
  }

  /** Below the sandbox's; beside v1 the v2 cgroup is the sandbox's own, and v1's controllers have one each of their own. */
  #cgroupsPath({ id, cgroupPath }: ContainerPlan): string {
    return this.#hybrid() ? `/sluice-${id}` : `/${relative(this.#options.cgroupMount, cgroupPath)}/container`;
  }

  /** A running container's own view, with what is mounted in it; else its file system as it lies there. */
  #root(id: string, rootfs: string): string {
    const life = this.#lives.get(id);
    const { pid, start, exitCode } = life?.record ?? {};
    return exitCode === undefined && pid && startOf(pid) === start ? `/proc/${pid}/root` : rootfs;
  }
}

const stopped = (id: string): SluiceError =>
  new SluiceError('container.stopped', `container ${id} does not run`, { id });
