/** What a transaction is, whatever keeps it: pure. */
import type { Op } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';

export type Write = Exclude<Op, { readonly op: 'check' }>;

/** The operations that change something. One key is written once at most: the log has one entry a key. */
export function writesOf(ops: readonly Op[]): Write[] {
  const writes = ops.filter((op) => op.op !== 'check');
  if (new Set(writes.map(({ key }) => key)).size === writes.length) return writes;
  const twice = writes.find(({ key }, at) => writes.findIndex((other) => other.key === key) !== at)!;
  throw new SluiceError('internal', `one transaction writes ${twice.key} twice`, { key: twice.key });
}

/** Fails with `store.conflict` unless the key is at the revision that the operation expects; 0: it is absent. */
export function expectRevision({ key, expect }: Op, actual: number): void {
  if (expect === undefined || expect === actual) return;
  throw new SluiceError('store.conflict', `${key} is at revision ${actual}, not ${expect}`, {
    key,
    expected: expect,
    actual,
  });
}

/** Fails with `store.conflict` where the write was meant for another term. */
export function expectTerm(wanted: string | undefined, actual: string): void {
  if (wanted !== undefined && wanted !== actual)
    throw new SluiceError('store.conflict', 'another server of the store took over since this was decided', {
      key: 'term',
    });
}

/** A value as JSON text. */
export function textOf(key: string, value: unknown): string {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new SluiceError('internal', `the value of ${key} is not JSON`, { key });
  return text;
}

/** `Change.entries` as JSON text, from values that are text already; null: deleted. */
export const entriesText = (
  entries: readonly { readonly key: string; readonly text: string | null }[],
  revision: number,
): string =>
  `[${entries.map(({ key, text }) => `{"key":${JSON.stringify(key)},"value":${text},"revision":${revision}}`).join(',')}]`;
