/** Functions of output templates, as Go's text/template and Docker have them, and how a value reads as text. */
import { UsageError } from '../command/command.ts';

/** Go's: false, 0, nothing, and what is empty. */
export function isTrue(value: unknown): boolean {
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return Boolean(value);
}

/** Go's `%v`. */
export function format(value: unknown): string {
  if (value === undefined || value === null) return '<no value>';
  if (Array.isArray(value)) return `[${value.map(format).join(' ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `map[${entries.map(([key, item]) => `${key}:${format(item)}`).join(' ')}]`;
  }
  return String(value);
}

const plain = (value: unknown): string => (value === undefined || value === null ? '' : format(value));

function lengthOf(value: unknown): number {
  if (typeof value === 'string') return [...value].length;
  if (Array.isArray(value)) return value.length;
  if (typeof value === 'object' && value !== null) return Object.keys(value).length;
  if (value === undefined || value === null) return 0;
  throw new UsageError(`template: ${format(value)} has no length`);
}

function listOf(value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value)) return value;
  throw new UsageError(`template: ${format(value)} is not a list`);
}

function index(value: unknown, keys: readonly unknown[]): unknown {
  let found = value;
  for (const key of keys) {
    if (found === undefined || found === null) return undefined;
    if (Array.isArray(found) && (typeof key !== 'number' || key < 0 || key >= found.length))
      throw new UsageError(`template: a list of ${found.length} has no element ${format(key)}`);
    const name = String(key);
    found =
      typeof found === 'object' && Object.hasOwn(found, name) ? (found as Record<string, unknown>)[name] : undefined;
  }
  return found;
}

function compare(a: unknown, b: unknown): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  const [left, right] = [plain(a), plain(b)];
  return left < right ? -1 : left > right ? 1 : 0;
}

function printf(pattern: unknown, args: readonly unknown[]): string {
  let at = 0;
  return plain(pattern).replace(
    /%(-?)(\d*)(?:\.(\d+))?([%a-zA-Z])/g,
    (_, left: string, width: string, digits, verb: string) => {
      if (verb === '%') return '%';
      if (at >= args.length) return `%!${verb}(MISSING)`;
      const value = args[at++];
      const texts: Readonly<Record<string, () => string>> = {
        s: () => plain(value),
        v: () => format(value),
        d: () => String(Math.trunc(Number(value))),
        q: () => JSON.stringify(plain(value)),
        t: () => String(isTrue(value)),
        x: () => Number(value).toString(16),
        f: () => Number(value).toFixed(digits === undefined ? 6 : Number(digits)),
      };
      const make = texts[verb];
      if (!make) throw new UsageError(`template: printf knows no %${verb}`);
      return left ? make().padEnd(Number(width)) : make().padStart(Number(width));
    },
  );
}

type Fn = (...args: readonly unknown[]) => unknown;

const FUNCTIONS: Readonly<Record<string, Fn>> = {
  json: (value) => JSON.stringify(value ?? null),
  join: (list, separator) => listOf(list).map(plain).join(plain(separator)),
  split: (text, separator) => plain(text).split(plain(separator)),
  upper: (text) => plain(text).toUpperCase(),
  lower: (text) => plain(text).toLowerCase(),
  title: (text) => plain(text).replace(/(?<=^|\s)\p{L}/gu, (letter) => letter.toUpperCase()),
  truncate: (text, length) => [...plain(text)].slice(0, Number(length)).join(''),
  len: lengthOf,
  index: (value, ...keys) => index(value, keys),
  print: (...values) => values.map(format).join(' '),
  println: (...values) => `${values.map(format).join(' ')}\n`,
  printf: (pattern, ...args) => printf(pattern, args),
  eq: (a, ...others) => others.some((b) => compare(a, b) === 0),
  ne: (a, b) => compare(a, b) !== 0,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  and: (...values) => (values.every(isTrue) ? values.at(-1) : values.find((value) => !isTrue(value))),
  or: (...values) => (values.some(isTrue) ? values.find(isTrue) : values.at(-1)),
  not: (value) => !isTrue(value),
};

export const isFunction = (name: string): boolean => Object.hasOwn(FUNCTIONS, name);

export function callFunction(name: string, args: readonly unknown[]): unknown {
  if (args.length === 0) throw new UsageError(`template: ${name} needs an argument`);
  return FUNCTIONS[name]!(...args);
}
