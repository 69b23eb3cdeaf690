/** Callers who want a process's streams from its first instruction on: they are attached between its creation and its start. */
import type { Runtime, Streams } from '../../contracts/runtime.ts';
import { SluiceError } from '../../errors.ts';

const WAITING_MAX = 1_024;

interface Waiting {
  readonly generation: number;
  readonly settle: (streams: Streams | null, error?: Error) => boolean;
}

export interface Meeting {
  begun(): void;
  /** The streams are let go of; whoever waits goes on doing so. */
  failed(): void;
}

export class Attachers {
  readonly #runtime: Pick<Runtime, 'attach' | 'state'>;
  readonly #waiting = new Map<string, Set<Waiting>>();
  #count = 0;

  constructor(runtime: Pick<Runtime, 'attach' | 'state'>) {
    this.#runtime = runtime;
  }

  async attach(id: string, generation?: number, signal?: AbortSignal): Promise<Streams> {
    if (generation === undefined) {
      if ((await this.#runtime.state(id))?.state !== 'running')
        throw new SluiceError('container.stopped', 'the container does not run', { id });
      return this.#runtime.attach(id);
    }
    if (this.#count >= WAITING_MAX) throw new SluiceError('request.busy', `${WAITING_MAX} callers wait to be attached`);
    const { promise, resolve, reject } = Promise.withResolvers<Streams>();
    const leave = (): void => void waiting.settle(null, signal?.reason as Error);
    const waiting: Waiting = {
      generation,
      settle: (streams, error) => {
        const all = this.#waiting.get(id);
        if (!all?.delete(waiting)) return false;
        this.#count--;
        if (all.size === 0) this.#waiting.delete(id);
        signal?.removeEventListener('abort', leave);
        if (streams) resolve(streams);
        else reject(error);
        return true;
      },
    };
    const all = this.#waiting.get(id) ?? new Set();
    this.#waiting.set(id, all.add(waiting));
    this.#count++;
    if (signal?.aborted) leave();
    else signal?.addEventListener('abort', leave);
    // It may have begun meanwhile.
    const state = await this.#runtime.state(id);
    if (state && state.generation >= generation && state.state === 'running') (await this.#meet(id, [waiting])).begun();
    return promise;
  }

  /** Called between creation and start; its result once it is known whether that began. */
  meet(id: string, generation: number): Promise<Meeting> {
    return this.#meet(
      id,
      [...(this.#waiting.get(id) ?? [])].filter((waiting) => waiting.generation <= generation),
    );
  }

  fail(id: string, error: Error): void {
    for (const waiting of [...(this.#waiting.get(id) ?? [])]) waiting.settle(null, error);
  }

  async #meet(id: string, all: readonly Waiting[]): Promise<Meeting> {
    const met: (readonly [Waiting, Streams])[] = [];
    for (const waiting of all) {
      try {
        met.push([waiting, await this.#runtime.attach(id)]);
      } catch (error) {
        waiting.settle(null, error as Error);
      }
    }
    return {
      begun() {
        // Whoever left meanwhile has no use for them.
        for (const [waiting, streams] of met) if (!waiting.settle(streams)) streams.detach();
      },
      failed() {
        for (const [, streams] of met) streams.detach();
      },
    };
  }
}
