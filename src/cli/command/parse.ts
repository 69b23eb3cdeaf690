/** The words of a command line, by the declarations of the tree. Pure but for loading the noun. */
import {
  type Args,
  type ArgValues,
  argLabel,
  type Flag,
  type Flags,
  type FlagValues,
  flagName,
  GLOBAL_FLAGS,
  type Group,
  isGroup,
  type Node,
  type Tree,
  UsageError,
} from './command.ts';

export interface Parsed {
  /** Words that lead to the command or group: `['network', 'create']`. Empty: the top. */
  readonly path: readonly string[];
  /** Null: the top. */
  readonly node: Node | null;
  /** Help was asked for. Without it, a `node` that is no command means that the line ended too early. */
  readonly help: boolean;
  readonly host: string | undefined;
  readonly flags: FlagValues<Flags>;
  readonly args: ArgValues<Args>;
}

/** The words could not be read; `path` and `node` say how far they led. */
export class ParseError extends UsageError {
  readonly path: readonly string[];
  readonly node: Node | null;

  constructor(message: string, path: readonly string[], node: Node | null) {
    super(message);
    this.path = path;
    this.node = node;
  }
}

interface Given {
  readonly flags: Map<string, string[]>;
  readonly words: string[];
}

export async function parse(tree: Tree, argv: readonly string[]): Promise<Parsed> {
  const given: Given = { flags: new Map(), words: [] };
  const path: string[] = [];
  let node: Node | null = null;
  let at = 0;
  try {
    while (at < argv.length && (node === null || isGroup(node))) {
      const token = argv[at]!;
      if (token.startsWith('-') && token !== '-') {
        if (token !== '--') at = readFlag(GLOBAL_FLAGS, argv, at, given.flags, path);
        at++;
        continue;
      }
      const [name, next] = await step(tree, node, token, path);
      path.push(name);
      node = next;
      at++;
    }
    if (node === null || isGroup(node)) return parsed(path, node, {}, {}, given);
    readRest({ ...node.flags, ...GLOBAL_FLAGS }, node.args, argv, at, given, path);
    return parsed(path, node, node.flags, node.args, given);
  } catch (error) {
    throw error instanceof UsageError ? new ParseError(await advised(error), path, node) : error;
  }
}

function parsed(path: readonly string[], node: Node | null, flags: Flags, args: Args, given: Given): Parsed {
  const help = given.flags.has('help');
  const host = GLOBAL_FLAGS.host.read(given.flags.get('host') ?? []);
  if (help || node === null || isGroup(node)) return { path, node, help, host, flags: {}, args: {} };
  return { path, node, help, host, flags: readFlags(flags, given), args: readArgs(args, given.words, path) };
}

const nameOf = (path: readonly string[]): string => ['sluice', ...path].join(' ');

/** Names and aliases → name. */
export function spellings(
  nodes: Readonly<Record<string, { readonly aliases?: readonly string[] }>>,
): Map<string, string> {
  const known = new Map<string, string>();
  for (const [name, { aliases = [] }] of Object.entries(nodes))
    for (const word of [name, ...aliases]) known.set(word, name);
  return known;
}

async function step(tree: Tree, group: Group | null, word: string, path: string[]): Promise<[string, Node]> {
  const nodes = group?.commands ?? tree;
  const name = spellings(nodes).get(word);
  if (name === undefined) {
    const { nearest } = await import('./nearest.ts');
    const close = nearest(word, spellings(nodes).keys());
    const said = `there is no command "${[...path, word].join(' ')}"`;
    throw new UsageError(close ? `${said}; did you mean "${[...path, close].join(' ')}"?` : said);
  }
  return [name, group ? group.commands[name]! : await tree[name]!.load()];
}

/** Reads the flag at `at`; returns the index of the last token that it took. */
function readFlag(
  flags: Flags,
  argv: readonly string[],
  at: number,
  into: Map<string, string[]>,
  path: readonly string[],
): number {
  const token = argv[at]!;
  const give = (key: string, text: string): void => void into.set(key, [...(into.get(key) ?? []), text]);
  const take = (key: string, flag: Flag, inline: string | undefined, spelling: string): number => {
    if (flag.value === undefined) {
      give(key, inline ?? 'true');
      return at;
    }
    const value = inline ?? argv[at + 1];
    if (value === undefined) throw new UsageError(`${spelling} needs a value: ${spelling} ${flag.value}`);
    give(key, value);
    return inline === undefined ? at + 1 : at;
  };
  if (token.startsWith('--')) {
    const equals = token.indexOf('=');
    const spelling = equals < 0 ? token : token.slice(0, equals);
    const key = Object.keys(flags).find(
      (candidate) => flagName(candidate) === spelling || flags[candidate]!.also?.includes(spelling),
    );
    if (key === undefined) throw new UnknownFlag(spelling, flags, path);
    return take(key, flags[key]!, equals < 0 ? undefined : token.slice(equals + 1), spelling);
  }
  for (let i = 1; i < token.length; i++) {
    const spelling = `-${token[i]}`;
    const found = Object.entries(flags).find(([, { short }]) => short === token[i]);
    if (!found) throw new UnknownFlag(spelling, flags, path);
    const [key, flag] = found;
    const rest = token.slice(i + 1);
    // A switch may be followed by more switches; the rest of a token after a flag with a value is the value.
    if (flag.value === undefined && !rest.startsWith('=')) give(key, 'true');
    else return take(key, flag, rest === '' ? undefined : rest.replace(/^=/, ''), spelling);
  }
  return at;
}

class UnknownFlag extends UsageError {
  readonly spelling: string;
  readonly known: readonly string[];

  constructor(spelling: string, flags: Flags, path: readonly string[]) {
    super(`${nameOf(path)} has no flag ${spelling}`);
    this.spelling = spelling;
    this.known = Object.keys(flags).map(flagName);
  }
}

/** With what the caller may have meant. */
async function advised(error: UsageError): Promise<string> {
  if (!(error instanceof UnknownFlag) || !error.spelling.startsWith('--')) return error.message;
  const { nearest } = await import('./nearest.ts');
  const close = nearest(error.spelling, error.known);
  return close ? `${error.message}; did you mean ${close}?` : error.message;
}

/** Flags and words of a command in any order, up to a command to run; after `--` there are no more flags. */
function readRest(
  flags: Flags,
  args: Args,
  argv: readonly string[],
  from: number,
  { flags: into, words }: Given,
  path: readonly string[],
): void {
  const commandAt = Object.values(args).findIndex(({ command }) => command);
  // Where the command may be absent (`run IMAGE [CMD…]`) what follows the word before it is the command's, flags too.
  const greedy = Object.values(args)[commandAt]?.optional ?? false;
  let onlyWords = false;
  for (let at = from; at < argv.length; at++) {
    const token = argv[at]!;
    if (
      commandAt >= 0 &&
      words.length === commandAt &&
      (greedy || onlyWords || !token.startsWith('-') || token === '-')
    ) {
      words.push(...argv.slice(at));
      return;
    }
    if (onlyWords || token === '-' || !token.startsWith('-')) words.push(token);
    else if (token === '--') onlyWords = true;
    else at = readFlag(flags, argv, at, into, path);
  }
}

function readFlags(flags: Flags, given: Given): FlagValues<Flags> {
  return Object.fromEntries(
    Object.entries(flags).map(([key, flag]) => [key, flag.read(given.flags.get(key) ?? [], flagName(key))]),
  );
}

function readArgs(args: Args, words: readonly string[], path: readonly string[]): ArgValues<Args> {
  const values: Record<string, unknown> = {};
  let at = 0;
  for (const [key, arg] of Object.entries(args)) {
    const own = arg.many ? words.slice(at) : words.slice(at, at + 1);
    if (own.length === 0 && !arg.optional) {
      throw new UsageError(`${nameOf(path)} needs ${argLabel(key, arg)}: ${arg.help}`);
    }
    values[key] = arg.read(own);
    at += own.length;
  }
  if (at < words.length) throw new UsageError(`${nameOf(path)} takes no further "${words[at]}"`);
  return values;
}
