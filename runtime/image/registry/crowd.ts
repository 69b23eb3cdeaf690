/** Runs `work` for each item, some at once; the first failure stops the others and is thrown when all have ended. */
export async function eachOf<T>(
  items: readonly T[],
  atOnce: number,
  signal: AbortSignal,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const left = [...items];
  let failure: { readonly error: unknown } | null = null;
  const lane = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined && !failure; item = left.shift()) {
      try {
        await work(item, either);
      } catch (error) {
        failure ??= { error };
        stop.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
  const failed = failure as { readonly error: unknown } | null;
  if (failed) throw failed.error;
}

/** Waits until all have ended, then fails with the first that did. */
export async function settled(works: readonly Promise<unknown>[]): Promise<void> {
  for (const result of await Promise.allSettled(works)) if (result.status === 'rejected') throw result.reason;
}
