/** Kinds of flags and words, and the readers of their texts. */
import { type Arg, type Flag, UsageError } from './command.ts';

type FlagOptions = Pick<Flag, 'short' | 'also' | 'absent'>;
/** What a text means; throws UsageError with the sentence that follows the flag's name. */
export type Reader<T> = (text: string) => T;

/** On, off, or not said. */
export const toggle = (help: string, options: FlagOptions = {}): Flag<boolean | undefined> => ({
  help,
  many: false,
  ...options,
  read: (texts, name) => {
    const text = texts.at(-1);
    if (text === undefined) return undefined;
    if (!/^(true|false)$/.test(text)) throw new UsageError(`${name} is either true or false, not "${text}"`);
    return text === 'true';
  },
});

/** At most one value; the last one counts. */
export const one = <T>(
  value: string,
  read: Reader<T>,
  help: string,
  options: FlagOptions = {},
): Flag<T | undefined> => ({
  help,
  value,
  many: false,
  ...options,
  read: (texts, name) => (texts.length === 0 ? undefined : reading(name, read, texts.at(-1)!)),
});

/** A list, by repetition. */
export const many = <T>(
  value: string,
  read: Reader<T>,
  help: string,
  options: FlagOptions = {},
): Flag<readonly T[]> => ({
  help,
  value,
  many: true,
  ...options,
  read: (texts, name) => texts.map((text) => reading(name, read, text)),
});

/** `KEY=VALUE`, by repetition; the last value of a key counts. */
export const pairs = (
  value: string,
  help: string,
  options: FlagOptions = {},
): Flag<Readonly<Record<string, string>> | undefined> => ({
  help,
  value,
  many: true,
  ...options,
  read: (texts, name) =>
    texts.length === 0 ? undefined : Object.fromEntries(texts.map((text) => reading(name, pair, text))),
});

function reading<T>(name: string, read: Reader<T>, text: string): T {
  try {
    return read(text);
  } catch (error) {
    throw error instanceof UsageError ? new UsageError(`${name}: ${error.message}`) : error;
  }
}

export const text: Reader<string> = (given) => {
  if (given === '') throw new UsageError('the value is empty');
  return given;
};

/** A label may be a key alone. */
const pair: Reader<readonly [string, string]> = (given) => {
  const at = given.indexOf('=');
  const key = at < 0 ? given : given.slice(0, at);
  if (key === '') throw new UsageError(`"${given}" is not KEY=VALUE`);
  return [key, at < 0 ? '' : given.slice(at + 1)];
};

export const integer: Reader<number> = (given) => {
  if (!/^-?\d{1,15}$/.test(given)) throw new UsageError(`"${given}" is not a whole number`);
  return Number(given);
};

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Milliseconds of `30s`, `1m30s`, `500ms`, `2h`; a bare number is seconds. */
export const duration: Reader<number> = (given) => {
  if (/^\d+(\.\d+)?$/.test(given)) return Number(given) * 1_000;
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(given)) throw new UsageError(`"${given}" is not a time such as 30s or 1m30s`);
  let ms = 0;
  for (const [, number, unit] of given.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) ms += Number(number) * UNITS[unit!]!;
  return Math.round(ms);
};

type ArgOptions = Pick<Arg, 'of'>;

export const word = (help: string, options: ArgOptions = {}): Arg<string> => ({
  help,
  optional: false,
  many: false,
  command: false,
  ...options,
  read: ([first]) => first!,
});

export const optionalWord = (help: string, options: ArgOptions = {}): Arg<string | undefined> => ({
  ...word(help, options),
  optional: true,
  read: ([first]) => first,
});

/** One or more. */
export const words = (help: string, options: ArgOptions = {}): Arg<readonly string[]> => ({
  ...word(help, options),
  many: true,
  read: (all) => all,
});

/** A command to run with its own arguments: everything from its first word on. */
export const commandLine = (help: string): Arg<readonly string[]> => ({ ...words(help), command: true });

/** The same where there may be none. */
export const optionalCommandLine = (help: string): Arg<readonly string[]> => ({ ...commandLine(help), optional: true });

/** None or more. */
export const optionalWords = (help: string, options: ArgOptions = {}): Arg<readonly string[]> => ({
  ...words(help, options),
  optional: true,
});
