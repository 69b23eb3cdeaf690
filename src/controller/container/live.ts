/** The controller's side of contracts/live.ts. */
import type { LiveContainers } from '../../contracts/live.ts';
import type { ContainerState } from '../../contracts/runtime.ts';
import { SluiceError } from '../../errors.ts';
import type { ContainerDetail } from '../../model/container.ts';
import type { Context } from '../context.ts';
import type { ContainerController } from './container.ts';

export function liveContainers(context: Context, controller: ContainerController): LiveContainers {
  const { runtime, images, world, tracker } = context;

  /** How it ended as far as is known without waiting. */
  const ended = async (id: string, generation: number): Promise<ContainerState | null> => {
    const recent = controller.exits.recent(id, generation);
    if (recent) return recent;
    const state = await runtime.state(id);
    if (state) return state.state === 'exited' && state.generation >= generation ? state : null;
    const detail = tracker.detail<ContainerDetail>('container', id);
    if (detail.phase !== 'exited' || (detail.generation ?? 0) < generation) return null;
    return {
      id,
      state: 'exited',
      exitCode: detail.exitCode,
      exitedAt: detail.finishedAt,
      generation: detail.generation!,
    };
  };

  return {
    runtime,
    attach: (id, generation, signal) => controller.attachers.attach(id, generation, signal),
    async exit(id, generation, signal) {
      const done = new AbortController();
      const waiting = controller.exits.wait(id, generation, AbortSignal.any([signal, done.signal]));
      // It is awaited below, or of no interest any more.
      waiting.catch((error: unknown) => error);
      const known = await ended(id, generation);
      if (!known && world.containers.has(id)) return waiting;
      done.abort(new SluiceError('object.notfound', `there is no container ${id.slice(0, 12)}`, { id }));
      return known ?? waiting;
    },
    async *copyOut({ id, spec }, path) {
      yield* runtime.copyOut(id, await images.mount(spec.imageId, id), path);
    },
    async copyIn({ id, spec }, path, tar) {
      await runtime.copyIn(id, await images.mount(spec.imageId, id), path, tar);
    },
  };
}
