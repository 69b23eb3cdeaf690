/** How writers get along: those of this process wait for their turn, those of others are met by trying again; what failed half-way is undone. */
import { isSluiceError, SluiceError } from '../errors.ts';

/** Attempts of a read-change-write against others. */
const ATTEMPTS_MAX = 16;

/** Repeats a read-change-write while others are faster; then `store.conflict` as it was. */
export async function retrying<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isSluiceError(error, 'store.conflict') || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

export type Undo = (step: () => Promise<void>) => void;

/**
 * Runs `work`; when it fails, what was registered on the way is undone, the last first. The original error wins. When the store went away
 * nobody knows whether the last write is in it: then nothing is undone, and what has no owner in the end is collected.
 */
export async function undoing<T>(work: (undo: Undo) => Promise<T>): Promise<T> {
  const steps: (() => Promise<void>)[] = [];
  try {
    return await work((step) => steps.push(step));
  } catch (error) {
    if (isSluiceError(error, 'store.unavailable')) throw error;
    const failures: unknown[] = [];
    for (const step of steps.reverse()) await step().catch((failure: unknown) => failures.push(failure));
    // What could not be undone is a lease without an owner: the collector frees it.
    if (failures.length > 0 && error instanceof SluiceError)
      throw new SluiceError(error.code, error.message, { ...error.details, undo: failures.map(String) }, error);
    throw error;
  }
}

/** One at a time for each key, in the order of asking. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  async take<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const turn = (async () => {
      await before;
      return work();
    })();
    // The next one's turn comes however this one ends.
    const end = turn.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(key, end);
    try {
      return await turn;
    } finally {
      if (this.#last.get(key) === end) this.#last.delete(key);
    }
  }
}
