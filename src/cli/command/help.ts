/** Help, from the declarations alone. */
import {
  argLabel,
  type Command,
  type Flag,
  type Flags,
  flagName,
  GLOBAL_FLAGS,
  type Group,
  isGroup,
  type Node,
  type Tree,
} from './command.ts';

const WIDTH_DEFAULT = 100;
const INDENT = 2;

/** Breaks text into lines of at most `width` characters; a longer word stands alone. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line ? `${line} ${word}` : word;
  }
  return [...lines, line];
}

/** Two columns: the left as wide as it needs, the right wrapped. */
function rows(entries: readonly (readonly [string, string])[], width: number): string[] {
  const left = Math.max(...entries.map(([name]) => name.length)) + 2;
  return entries.flatMap(([name, text]) =>
    wrap(text, Math.max(20, width - INDENT - left)).map((line, i) =>
      `${' '.repeat(INDENT)}${(i === 0 ? name : '').padEnd(left)}${line}`.trimEnd(),
    ),
  );
}

/** `-d, --driver DRIVER`; room for the letter is kept so that the long names stand below each other. */
function flagLabel(key: string, flag: Flag): string {
  const short = flag.short ? `-${flag.short}, ` : '    ';
  return `${short}${flagName(key)}${flag.value ? ` ${flag.value}` : ''}`;
}

/** The text beside a flag: help, and in brackets what an absent flag means and whether it may be repeated. */
export function flagText(flag: Flag): string {
  const notes = [...(flag.absent ? [`default: ${flag.absent}`] : []), ...(flag.many ? ['repeatable'] : [])];
  return notes.length > 0 ? `${flag.help} (${notes.join('; ')})` : flag.help;
}

const flagRows = (flags: Flags): (readonly [string, string])[] =>
  Object.entries(flags).map(([key, flag]) => [flagLabel(key, flag), flagText(flag)]);

/** `sluice network create [FLAGS] NAME` */
export function usage(path: readonly string[], node: Command): string {
  const args = Object.entries(node.args).map(([key, arg]) => argLabel(key, arg));
  return ['sluice', ...path, ...(Object.keys(node.flags).length > 0 ? ['[FLAGS]'] : []), ...args].join(' ');
}

export function commandHelp(path: readonly string[], node: Command, width = WIDTH_DEFAULT): string {
  const { summary, about, examples = [], aliases = [], flags, args } = node;
  const section = (title: string, lines: readonly string[]): string[] =>
    lines.length > 0 ? ['', title, ...lines] : [];
  const argRows = Object.entries(args).map(([key, arg]) => [argLabel(key, arg), arg.help] as const);
  return [
    `Usage: ${usage(path, node)}`,
    '',
    ...wrap(`${summary}.`, width),
    ...(about ? ['', ...about.split('\n\n').flatMap((text, i) => [...(i > 0 ? [''] : []), ...wrap(text, width)])] : []),
    ...section('Words:', argRows.length > 0 ? rows(argRows, width) : []),
    ...section('Flags:', rows([...flagRows(flags), ...flagRows(GLOBAL_FLAGS)], width)),
    ...section(
      'Also:',
      aliases.length > 0 ? [`  ${aliases.map((word) => [...path.slice(0, -1), word].join(' ')).join(', ')}`] : [],
    ),
    ...section(
      'Examples:',
      examples.map((line) => `  ${line}`),
    ),
    '',
  ].join('\n');
}

export function groupHelp(path: readonly string[], node: Group, width = WIDTH_DEFAULT): string {
  const { summary, about, commands } = node;
  return [
    `Usage: sluice ${path.join(' ')} COMMAND`,
    '',
    ...wrap(`${summary}.`, width),
    ...(about ? ['', ...wrap(about, width)] : []),
    '',
    'Commands:',
    ...rows(
      Object.entries(commands).map(([name, child]) => [name, child.summary]),
      width,
    ),
    '',
    `"sluice ${path.join(' ')} COMMAND -h" tells more.`,
    '',
  ].join('\n');
}

export function treeHelp(tree: Tree, width = WIDTH_DEFAULT): string {
  return [
    'Usage: sluice COMMAND',
    '',
    'Networks, names and balanced services of this host, programmed into its kernel by the daemon sluiced.',
    '',
    'Commands:',
    ...rows(
      Object.entries(tree).map(([name, { summary }]) => [name, summary]),
      width,
    ),
    '',
    'Flags:',
    ...rows([...flagRows(GLOBAL_FLAGS), ['-v, --version', 'The same as "sluice version"']], width),
    '',
    '"sluice COMMAND -h" tells more.',
    '',
  ].join('\n');
}

export function helpOf(tree: Tree, path: readonly string[], node: Node | null, columns: number | undefined): string {
  const width = Math.max(40, Math.min(columns ?? WIDTH_DEFAULT, WIDTH_DEFAULT));
  if (node === null) return treeHelp(tree, width);
  return isGroup(node) ? groupHelp(path, node, width) : commandHelp(path, node, width);
}
