/** docs/generated/cli.md: the command tree for readers, from the declarations that also make `-h`. */
import {
  argLabel,
  type Command,
  type Flags,
  flagName,
  GLOBAL_FLAGS,
  isGroup,
  type Node,
  type Tree,
} from '../src/cli/command/command.ts';
import { flagText, usage } from '../src/cli/command/help.ts';

const cell = (text: string): string => text.replaceAll('|', '\\|');

function flagTable(flags: Flags): string[] {
  const rows = Object.entries(flags).map(([key, flag]) => {
    const spellings = [...(flag.short ? [`-${flag.short}`] : []), flagName(key), ...(flag.also ?? [])];
    const value = flag.value ? ` ${flag.value}` : '';
    return `| ${cell(spellings.map((spelling) => `\`${spelling}${value}\``).join(', '))} | ${cell(flagText(flag))} |`;
  });
  return rows.length > 0 ? ['| flag | |', '|---|---|', ...rows, ''] : [];
}

function commandSection(path: readonly string[], node: Command, level: string): string[] {
  const { summary, about, examples = [], aliases = [], args } = node;
  const words = Object.entries(args).map(([key, arg]) => `- \`${argLabel(key, arg)}\`: ${arg.help}`);
  const others = aliases.map((alias) => `\`${['sluice', ...path.slice(0, -1), alias].join(' ')}\``);
  return [
    `${level} ${usage(path, node)}`,
    '',
    `${summary}.${others.length > 0 ? ` Also ${others.join(', ')}.` : ''}`,
    '',
    ...(about ? [about, ''] : []),
    ...(words.length > 0 ? [...words, ''] : []),
    ...flagTable(node.flags),
    ...(examples.length > 0 ? [...examples.map((line) => `    ${line}`), ''] : []),
  ];
}

function section(path: readonly string[], node: Node): string[] {
  if (!isGroup(node)) return commandSection(path, node, '##');
  return [
    `## sluice ${path.join(' ')}`,
    '',
    `${node.summary}.`,
    '',
    ...Object.entries(node.commands).flatMap(([name, child]) =>
      isGroup(child) ? section([...path, name], child) : commandSection([...path, name], child, '###'),
    ),
  ];
}

export async function cliReference(tree: Tree): Promise<string> {
  const sections: string[] = [];
  for (const [name, entry] of Object.entries(tree)) sections.push(...section([name], await entry.load()));
  return [
    '# Command line',
    '',
    'Made from the declarations in src/cli, as `-h` is. Flags stand before or after the words, up to a command to run; after `--` there are',
    'no more flags. Exit status: 0, 1 for an error (`sluice: sentence (code)`, see [errors.md](errors.md)), 2 for words that are no command;',
    '`sandbox exec` returns that of its program, and 125 for a failure of Sluice.',
    '',
    'Formats: `table`, `json`, or a template as Docker has them: `{{.Name}}`, `{{json .Spec}}`, `{{range .Spec.Subnets}}{{.Cidr}} {{end}}`,',
    '`{{join .Spec.Vips ","}}`. A template sees the fields that `inspect` shows, whatever their case, and the columns of the table by',
    'their names without blanks (`{{.ID}}` for the id).',
    '',
    'Every command has these:',
    '',
    ...flagTable(GLOBAL_FLAGS),
    ...sections,
  ].join('\n');
}
