/**
 * The real controllers of containers and volumes over a runtime and images in memory, beside the API's world, whose own controller makes
 * sandboxes and endpoints ready.
 */
import { existsSync, rmSync } from 'node:fs';
import { createFakeRuntime, type FakeRuntime } from '../../runtime/fake.ts';
import { createStreams, type StreamServer } from '../../src/api/container/stream.ts';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import { systemClock } from '../../src/clock.ts';
import type { LiveContainers } from '../../src/contracts/live.ts';
import { ContainerController } from '../../src/controller/container/container.ts';
import { liveContainers } from '../../src/controller/container/live.ts';
import { VolumeController } from '../../src/controller/container/volume.ts';
import type { Context } from '../../src/controller/context.ts';
import { Loop } from '../../src/controller/loop.ts';
import { PublishController } from '../../src/controller/publish/publish.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { World as Desired } from '../../src/controller/world.ts';
import type { SluiceError } from '../../src/errors.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { createLogger } from '../../src/log.ts';
import type { Obj, Status } from '../../src/model/object.ts';
import { makeFolder } from '../folder.ts';
import { NODE, type World } from './api-world.ts';

export interface ContainerBed {
  readonly runtime: FakeRuntime;
  readonly live: LiveContainers;
  readonly streams: StreamServer;
  readonly controller: ContainerController;
  readonly tracker: Tracker;
  readonly context: Context;
  /** Names of containers whose place changed, in order. */
  readonly placed: string[];
  /** The controllers end, as with the daemon; what the runtime runs goes on. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

export async function openContainerBed(
  world: World,
  options: { readonly runtime?: FakeRuntime; readonly folder?: string } = {},
): Promise<ContainerBed> {
  const clock = systemClock;
  const logger = createLogger('silent');
  const folder = options.folder ?? makeFolder('container');
  const runtime = options.runtime ?? createFakeRuntime({ clock });
  const store = world.store.unfailing;
  const seen = new Desired({ store, clock, node: NODE, logger });
  const tracker = new Tracker({ sink: world.state.statuses, clock, node: NODE });
  const cgroups: string[] = [];
  const context = {
    instance: 'test',
    node: NODE,
    runDir: folder,
    stateDir: folder,
    cgroupBase: '/cgroup',
    kernel: {
      host: { path: '/proc/1/ns/net' },
      cgroups: { ensure: (path: string) => cgroups.push(path), remove: async () => undefined },
    },
    publisher: createNftPublisher({ kernel: createFakeKernel(), instance: 'test', runDir: folder }),
    desired: world.state,
    world: seen,
    tracker,
    clock,
    logger,
    runtime,
    images: world.images,
  } as unknown as Context;

  const placed: string[] = [];
  const loop = (reconcile: (id: string) => Promise<void>, objects: () => ReadonlyMap<string, Obj>): Loop =>
    new Loop({
      name: 'test',
      clock,
      reconcile,
      onError: (id: string, error: SluiceError, retryMs: number) => {
        const object = objects().get(id);
        if (object) void tracker.failed(object, error, retryMs);
      },
    });
  const published = new PublishController(context, { closed: () => [] });
  const controller = new ContainerController(context, {
    published,
    trigger: (id) => containers.trigger(id),
    placed: ({ name }) => placed.push(name),
    leaving: async ({ name }) => void placed.push(`${name} leaves`),
  });
  const volumeController = new VolumeController(context);
  const containers = loop(
    (id) => controller.reconcile(id),
    () => seen.containers,
  );
  const volumes = loop(
    (id) => volumeController.reconcile(id),
    () => seen.volumes,
  );
  const live = liveContainers(context, controller);
  const ending = new AbortController();
  const signal = AbortSignal.any([world.life.signal, ending.signal]);

  controller.listen();
  tracker.load((await store.list<Status>('status/')).items.map(({ value }) => value));
  await seen.start();
  seen.onChange((kind, id, now) => {
    if (kind !== 'container' && kind !== 'volume') return;
    const its = kind === 'container' ? containers : volumes;
    if (now) its.renew(id);
    else its.forget(id);
  });
  const follow = async (): Promise<void> => {
    for await (const event of store.watch([`node/${NODE}`, 'cluster'], 0, signal)) {
      if (event.type !== 'change') continue;
      for (const { key, value } of event.change.entries) {
        if (!/^status\/(sandbox|endpoint)\//.test(key) || value === null) continue;
        tracker.load([value as Status]);
        for (const { id } of seen.containers.values()) containers.trigger(id);
      }
    }
  };
  const following = follow().catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
  await controller.adopt();
  for (const id of seen.volumes.keys()) volumes.trigger(id);
  for (const id of seen.containers.keys()) containers.trigger(id);

  const stop = async (): Promise<void> => {
    ending.abort();
    seen.stop();
    controller.stop();
    await Promise.all([containers.stop(), volumes.stop(), following]);
  };
  return {
    runtime,
    live,
    controller,
    tracker,
    context,
    placed,
    streams: createStreams({ desired: world.desired, live, clock, logger, signal }),
    stop,
    async close() {
      await stop();
      if (existsSync(folder)) rmSync(folder, { recursive: true });
    },
  };
}
