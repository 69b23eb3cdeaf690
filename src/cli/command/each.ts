/** Commands over several names: one that fails does not keep the others from their turn. */
import { toSluiceError } from '../../errors.ts';
import { printAll } from '../print/listing.ts';
import { progress } from '../print/progress.ts';
import type { Context } from './command.ts';

/** Calls at once: a thousand names must not be a thousand connections. */
const AT_ONCE = 16;

type Outcome<T> = { readonly value: T } | { readonly error: unknown };

/** Outcomes in the order of `names`, as they come; work goes ahead of the reader by at most `AT_ONCE`. */
async function* each<T>(names: readonly string[], work: (name: string) => Promise<T>): AsyncGenerator<Outcome<T>> {
  const begin = (name: string): Promise<Outcome<T>> =>
    work(name).then(
      (value) => ({ value }),
      (error: unknown) => ({ error }),
    );
  const running: Promise<Outcome<T>>[] = [];
  let next = 0;
  while (next < names.length || running.length > 0) {
    while (next < names.length && running.length < AT_ONCE) running.push(begin(names[next++]!));
    yield await running.shift()!;
  }
}

function complain({ terminal }: Context, error: unknown): void {
  const { message, code } = toSluiceError(error);
  terminal.err(`sluice: ${message} (${code})\n`);
}

/** Does `work` for every name and prints the name of what is done. Exit status 1 when one failed. `done`: "removed". */
export async function forEach(
  context: Context,
  done: string,
  names: readonly string[],
  work: (name: string) => Promise<unknown>,
): Promise<number> {
  const run = async (): Promise<number> => {
    let status = 0;
    let at = 0;
    for await (const outcome of each(names, work)) {
      const name = names[at++]!;
      if ('value' in outcome) context.terminal.out(`${name}\n`);
      else {
        complain(context, outcome.error);
        status = 1;
      }
    }
    return status;
  };
  const label = names.length === 1 ? `${names[0]} is ${done}` : `${names.length} objects are ${done}`;
  return progress(context.terminal, label, run());
}

/** Prints all of every object that is found (a name may mean several), then what was not. */
export async function inspectEach<V extends object>(
  context: Context,
  names: readonly string[],
  get: (name: string) => Promise<V | readonly V[]>,
  format: string | undefined,
): Promise<number> {
  const found: V[] = [];
  const errors: unknown[] = [];
  for await (const outcome of each(names, get)) {
    if ('value' in outcome) found.push(...([outcome.value].flat() as V[]));
    else errors.push(outcome.error);
  }
  if (found.length > 0) await printAll(context, found, format);
  for (const error of errors) complain(context, error);
  return errors.length > 0 ? 1 : 0;
}
