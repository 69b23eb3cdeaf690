/** One verb at a time for a container: the next begins when the one before has ended, well or not. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  take<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(id) ?? Promise.resolve();
    const next = before.then(work, work);
    const quiet = next.then(
      () => undefined,
      () => undefined,
    );
    this.#last.set(id, quiet);
    quiet.then(() => {
      if (this.#last.get(id) === quiet) this.#last.delete(id);
    });
    return next;
  }
}
