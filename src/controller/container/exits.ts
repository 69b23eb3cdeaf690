/** Ends of processes for those who wait for them; remembered for a while after the container is gone. */
import type { ContainerState } from '../../contracts/runtime.ts';
import { SluiceError } from '../../errors.ts';

/** Ends of removed containers that are remembered. */
const REMEMBERED_MAX = 1_024;
const WAITERS_MAX = 4_096;

interface Waiter {
  readonly generation: number;
  readonly settle: (state: ContainerState | null, error?: Error) => void;
}

export class Exits {
  readonly #last = new Map<string, ContainerState>();
  readonly #waiters = new Map<string, Set<Waiter>>();
  #waiting = 0;

  note(state: ContainerState): void {
    this.#last.delete(state.id);
    this.#last.set(state.id, state);
    if (this.#last.size > REMEMBERED_MAX) this.#last.delete(this.#last.keys().next().value!);
    for (const waiter of [...(this.#waiters.get(state.id) ?? [])])
      if (state.generation >= waiter.generation) waiter.settle(state);
  }

  /** It will not begin, or is no more: whoever waits learns why. */
  fail(id: string, error: Error): void {
    for (const waiter of [...(this.#waiters.get(id) ?? [])]) waiter.settle(null, error);
  }

  recent(id: string, generation: number): ContainerState | undefined {
    const state = this.#last.get(id);
    return state && state.generation >= generation ? state : undefined;
  }

  wait(id: string, generation: number, signal: AbortSignal): Promise<ContainerState> {
    const known = this.recent(id, generation);
    if (known) return Promise.resolve(known);
    if (this.#waiting >= WAITERS_MAX)
      return Promise.reject(new SluiceError('request.busy', `${WAITERS_MAX} callers wait for containers already`));
    const { promise, resolve, reject } = Promise.withResolvers<ContainerState>();
    const leave = (): void => waiter.settle(null, signal.reason as Error);
    const waiter: Waiter = {
      generation,
      settle: (state, error) => {
        signal.removeEventListener('abort', leave);
        const waiters = this.#waiters.get(id);
        if (waiters?.delete(waiter)) this.#waiting--;
        if (waiters?.size === 0) this.#waiters.delete(id);
        if (state) resolve(state);
        else reject(error ?? new SluiceError('container.stopped', 'the container has ended'));
      },
    };
    const waiters = this.#waiters.get(id) ?? new Set();
    this.#waiters.set(id, waiters.add(waiter));
    this.#waiting++;
    if (signal.aborted) leave();
    else signal.addEventListener('abort', leave);
    return promise;
  }
}
