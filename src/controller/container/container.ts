/**
 * Containers: root mounted, created in the sandbox's namespaces, started when its endpoints are ready, ended and started again as is wanted.
 * A look takes one step and leaves what lasts (a grace period, a pause) to timers and to the runtime's own news.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Image } from '../../contracts/image.ts';
import type { ContainerPlan, ContainerState } from '../../contracts/runtime.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import { fault } from '../../fault.ts';
import { argsOf } from '../../model/container/args.ts';
import { signalName } from '../../model/container/signal.ts';
import { type Container, type ContainerDetail, shiftOf } from '../../model/container.ts';
import type { Sandbox } from '../../model/sandbox.ts';
import { type Context, sandboxDir } from '../context.ts';
import type { PublishController } from '../publish/publish.ts';
import { withdrawFromPeers } from '../replica/leave.ts';
import type { SandboxDetail } from '../sandbox.ts';
import { Attachers } from './attacher.ts';
import { decide, EXIT_UNSEEN, placeOf } from './decide.ts';
import { Exits } from './exits.ts';
import { hostnameOf, writeFiles } from './files.ts';
import { type Health, HealthChecks } from './health.ts';
import { Memories, type Memory } from './memory.ts';
import { fillVolumes } from './volume.ts';

/** How long a removal waits for the end of a process it has killed, milliseconds. */
const KILLED_MS = 2_000;
/** Failures of a start that another try would not mend. */
const FINAL = [
  'runtime.notfound',
  'runtime.notexecutable',
  'runtime.spec',
  'runtime.failed',
  'runtime.missing',
  'image.notfound',
  'port.inuse',
  'port.address',
  'port.unreachable',
] as const;

export interface ContainerHooks {
  readonly published: PublishController;
  readonly trigger: (id: string) => void;
  /** Its name, or its place among backends, came or went. */
  readonly placed: (container: Container) => void;
  /** It is about to be told to end: resolves when no new connection goes there. */
  readonly leaving: (container: Container) => Promise<void>;
}

export class ContainerController {
  readonly exits = new Exits();
  readonly attachers: Attachers;
  readonly #context: Context;
  readonly #hooks: ContainerHooks;
  readonly #publish: PublishController;
  readonly #health: HealthChecks;
  readonly #memories: Memories;
  readonly #places = new Map<string, string>();

  constructor(context: Context, hooks: ContainerHooks) {
    const { clock, runtime, logger } = context;
    this.#context = context;
    this.#hooks = hooks;
    this.#publish = hooks.published;
    this.attachers = new Attachers(runtime);
    this.#memories = new Memories(clock, hooks.trigger);
    this.#health = new HealthChecks({ clock, runtime, logger, onChange: hooks.trigger });
  }

  /** Hears of exits from now on, also of those that an earlier daemon missed. */
  listen(): void {
    this.#context.runtime.onExit((state) => {
      this.exits.note(state);
      this.#hooks.trigger(state.id);
    });
  }

  /** Docker's `always`: whoever was stopped by hand begins again with the daemon; `unless-stopped` does not, nor does a replica that is to go. */
  async adopt(): Promise<void> {
    const { world, desired, logger } = this.#context;
    for (const { id, name, spec, removing } of world.containers.values()) {
      if (removing || spec.replica || spec.restart.name !== 'always' || spec.wanted !== 'stopped') continue;
      await desired.containers.start(id).catch((error: unknown) => {
        logger.warn({ container: name, err: toSluiceError(error).message }, 'could not be started again');
      });
    }
  }

  async reconcile(id: string): Promise<void> {
    const { world, runtime, tracker } = this.#context;
    const container = world.containers.get(id);
    if (!container) return;
    if (container.removing) return this.#remove(container);
    const memory = this.#memories.of(id);
    const state = await runtime.state(id);
    if (state?.state === 'exited') memory.mourn(state);
    const detail = tracker.detail<ContainerDetail>('container', id);
    const action = decide({ spec: container.spec, state, detail, due: memory.due });
    if (action.do === 'run') return this.#run(container, state, memory, action.again);
    if (action.do === 'stop') return this.#stop(container, memory);
    if (action.do === 'remove') return this.#goWithProcess(container, state);
    if (action.do === 'pause') {
      memory.wake();
      return this.#say(container, state, 'restarting');
    }
    if (action.phase !== 'created') return this.#say(container, state, action.phase);
    // What was only created is ready when its place is.
    if (tracker.isReady('sandbox', container.spec.sandbox)) await this.#say(container, state, 'created');
  }

  /** What the runtime and the image store hold and nobody wants. */
  async prune(): Promise<string[]> {
    const { world, runtime, images } = this.#context;
    const removed: string[] = [];
    for (const { id } of await runtime.list()) {
      if (world.containers.has(id)) continue;
      await runtime.delete(id);
      removed.push(`container ${id.slice(0, 12)} that is no more`);
    }
    for (const id of await images.roots()) {
      if (world.containers.has(id)) continue;
      await images.unmount(id);
      await images.removeRoot(id);
      removed.push(`root of container ${id.slice(0, 12)} that is no more`);
    }
    return [...removed, ...this.#publish.prune()];
  }

  stop(): void {
    this.#health.stopAll();
    this.#memories.stop();
    this.#publish.stop();
  }

  async #run(container: Container, state: ContainerState | null, memory: Memory, again: boolean): Promise<void> {
    const { world, runtime, images, tracker } = this.#context;
    const { id, spec } = container;
    const before = tracker.detail<ContainerDetail>('container', id);
    const restarts = before.generation === spec.generation ? (before.restarts ?? 0) + (again ? 1 : 0) : 0;
    try {
      const image = await this.#image(container);
      const rootfs = await images.mount(spec.imageId, id, { shift: shiftOf(container) });
      fault('container.mounted');
      // Its readiness triggers this again; so does that of each endpoint.
      const sandbox = world.sandboxes.get(spec.sandbox);
      if (!sandbox || !tracker.isReady('sandbox', sandbox.id)) return;
      if (state?.state !== 'created' || state.generation !== spec.generation) {
        await runtime.create(await this.#plan(container, sandbox, image, rootfs));
        fault('container.created');
      }
      const endpoints = world.endpointsOfSandbox(sandbox.id).filter(({ removing }) => !removing);
      if (!endpoints.every((endpoint) => tracker.isReady('endpoint', endpoint.id))) return;
      await this.#publish.ensure(container);
      fault('container.published');
      const meeting = await this.attachers.meet(id, spec.generation);
      const started = await runtime.start(id).catch((error: unknown) => {
        meeting.failed();
        throw error;
      });
      meeting.begun();
      fault('container.started');
      memory.stopped();
      await this.#say(container, started, 'running', restarts);
    } catch (error) {
      if (!isSluiceError(error, ...FINAL)) throw error;
      await this.#refuse(container, error, restarts);
    }
  }

  /** What it runs, which does not change. Said, so that whoever lists it need not have its image. */
  async #args({ id, spec }: Container): Promise<readonly string[] | undefined> {
    const { tracker, images } = this.#context;
    const { args } = tracker.detail<ContainerDetail>('container', id);
    if (args) return args;
    const image = await images.get(spec.imageId);
    return image ? argsOf(spec, image.config) : undefined;
  }

  async #image({ spec }: Container): Promise<Image> {
    const image = await this.#context.images.get(spec.imageId);
    if (!image) throw new SluiceError('image.notfound', `image ${spec.image} (${spec.imageId}) is gone`);
    return image;
  }

  async #plan(container: Container, sandbox: Sandbox, image: Image, rootfs: string): Promise<ContainerPlan> {
    const { world, tracker, kernel, cgroupBase } = this.#context;
    const { netnsPath, cgroupPath, resolvConf } = tracker.detail<SandboxDetail>('sandbox', sandbox.id);
    const cgroup = cgroupPath ?? join(cgroupBase, sandbox.id);
    kernel.cgroups.ensure(cgroup);
    const onHost = sandbox.spec.origin === 'host';
    return {
      id: container.id,
      name: container.name,
      spec: { ...container.spec, hostname: hostnameOf(container) },
      image: image.config,
      rootfs,
      shift: shiftOf(container),
      netnsPath: netnsPath ?? kernel.host.path,
      cgroupPath: cgroup,
      files: writeFiles(
        sandboxDir(this.#context, sandbox.id),
        onHost ? '/etc/resolv.conf' : resolvConf,
        container,
        world.endpointsOfSandbox(sandbox.id),
      ),
      volumes: await fillVolumes(this.#context, container, rootfs),
    };
  }

  /** A start that failed for good: said, with the exit status that shells have for it; with `--rm` it is gone after that. */
  async #refuse(container: Container, error: SluiceError, restarts: number): Promise<void> {
    const { id, spec } = container;
    const { clock, tracker } = this.#context;
    const exitCode = error.code === 'runtime.notfound' ? 127 : error.code === 'runtime.notexecutable' ? 126 : 125;
    const at = new Date(clock.now()).toISOString();
    const { code, message } = error;
    const detail: ContainerDetail = {
      phase: 'exited',
      args: await this.#args(container),
      generation: spec.generation,
      exitCode,
      finishedAt: at,
      restarts,
      failure: { code, message },
    };
    this.#memories.of(id).mourn({ id, state: 'exited', exitCode, exitedAt: at, generation: spec.generation });
    await tracker.refused(container, error, { ...detail });
    this.attachers.fail(id, error);
    this.exits.note({ id, state: 'exited', exitCode, exitedAt: at, generation: spec.generation });
    this.#place(container, detail);
    this.#hooks.trigger(id);
  }

  async #stop(container: Container, memory: Memory): Promise<void> {
    const { runtime, images, logger } = this.#context;
    const { id, spec } = container;
    this.#health.stop(id);
    const kill = async (): Promise<void> => {
      await runtime.kill(id, 'SIGKILL', { all: true }).catch((error: unknown) => {
        logger.warn({ container: container.name, err: toSluiceError(error).message }, 'could not be killed');
      });
    };
    if (memory.stopping) {
      // The grace period is over and it is still there.
      if (memory.stopping.over) await kill();
      return;
    }
    const image = await images.get(spec.imageId);
    const signal = signalName(spec.stopSignal ?? image?.config.stopSignal ?? 'SIGTERM');
    const graceMs = spec.stopWithinMs ?? spec.stopTimeoutMs;
    this.#place(container, this.#context.tracker.detail<ContainerDetail>('container', id));
    await this.#hooks.leaving(container);
    await withdrawFromPeers(this.#context, container);
    memory.stop(graceMs, kill);
    if (graceMs > 0) await runtime.kill(id, signal);
  }

  /** `--rm`: what it said last is said, then it goes. */
  async #goWithProcess(container: Container, state: ContainerState | null): Promise<void> {
    const { tracker, desired } = this.#context;
    const { failure } = tracker.detail<ContainerDetail>('container', container.id);
    if (!failure) await this.#say(container, state, 'exited');
    await desired.containers.remove(container.id, { force: true, volumes: true });
  }

  async #say(
    container: Container,
    state: ContainerState | null,
    phase: ContainerDetail['phase'],
    restarts?: number,
  ): Promise<void> {
    const { tracker, clock } = this.#context;
    const { id, spec } = container;
    const before = tracker.detail<ContainerDetail>('container', id);
    const own = before.generation === spec.generation;
    if (phase === 'running' && state) await this.#watchHealth(container, state, before);
    else this.#health.stop(id);
    if (phase === 'exited' && own && before.failure && spec.wanted === 'running')
      return tracker.refused(container, before.failure as SluiceError, { ...before });
    const ended = phase === 'exited' || phase === 'restarting';
    const unseen = ended && state === null && before.phase !== 'exited';
    const detail: ContainerDetail = {
      phase,
      args: await this.#args(container),
      generation: spec.generation,
      pid: phase === 'running' ? state?.pid : undefined,
      exitCode: ended ? (state?.exitCode ?? (unseen ? EXIT_UNSEEN : before.exitCode)) : undefined,
      oomKilled: ended ? (state?.oomKilled ?? before.oomKilled) : undefined,
      startedAt: state?.startedAt ?? (own ? before.startedAt : undefined),
      finishedAt: ended
        ? (state?.exitedAt ?? (unseen ? new Date(clock.now()).toISOString() : before.finishedAt))
        : undefined,
      restarts: restarts ?? (own ? (before.restarts ?? 0) : 0),
      health: phase === 'running' ? this.#health.of(id, spec.generation) : undefined,
      ports: phase === 'running' ? await this.#publish.ensure(container) : undefined,
    };
    const told = tracker.ready(container, { ...detail });
    // Whoever balances over it need not wait until its status is written.
    this.#place(container, detail);
    await told;
  }

  async #watchHealth(container: Container, state: ContainerState, before: Partial<ContainerDetail>): Promise<void> {
    const { id, spec } = container;
    if (this.#health.of(id, spec.generation)) return;
    const health = spec.health ?? (await this.#context.images.get(spec.imageId))?.config.health;
    if (!health) return;
    const known: Health | undefined = before.generation === spec.generation ? before.health : undefined;
    const age = state.startedAt ? Math.max(0, this.#context.clock.now() - Date.parse(state.startedAt)) : 0;
    this.#health.ensure(id, spec.generation, health, known, age);
  }

  #place(container: Container, detail: Partial<ContainerDetail>): void {
    const { named, serving } = placeOf(container.spec, detail);
    if (!named) this.#publish.withdraw(container.id);
    const place = JSON.stringify({ named, serving });
    if (this.#places.get(container.id) === place) return;
    this.#places.set(container.id, place);
    this.#hooks.placed(container);
  }

  async #remove(container: Container): Promise<void> {
    const { runtime, images, kernel, desired, tracker, cgroupBase } = this.#context;
    const { id, spec } = container;
    const memory = this.#memories.of(id);
    this.#health.stop(id);
    this.attachers.fail(id, new SluiceError('object.removing', `container ${container.name} is being removed`, { id }));
    const state = await runtime.state(id);
    if (state?.state === 'running' && !memory.killed) {
      // Whoever waits for its end is to learn of it before it is gone.
      memory.kill(KILLED_MS);
      await runtime.kill(id, 'SIGKILL', { all: true });
      return;
    }
    await runtime.delete(id);
    this.#publish.withdraw(id);
    fault('container.deleted');
    await images.unmount(id);
    await images.removeRoot(id);
    const sandbox = this.#context.world.sandboxes.get(spec.sandbox);
    if (sandbox?.spec.origin === 'host') {
      await kernel.cgroups.remove(join(cgroupBase, sandbox.id), { kill: true });
      rmSync(sandboxDir(this.#context, sandbox.id), { recursive: true, force: true });
    }
    fault('container.released');
    await desired.containers.forget(container);
    this.#memories.forget(id);
    this.#places.delete(id);
    tracker.forget('container', id);
    this.exits.fail(id, new SluiceError('object.notfound', `container ${container.name} was removed`, { id }));
  }
}
