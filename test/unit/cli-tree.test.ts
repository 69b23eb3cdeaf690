/** Rules that every declaration of the tree keeps, whoever adds one. */
import { describe, expect, test } from 'vitest';
import { type Command, type Flags, flagName, GLOBAL_FLAGS, isGroup, type Node } from '../../src/cli/command/command.ts';
import { helpOf, wrap } from '../../src/cli/command/help.ts';
import { spellings } from '../../src/cli/command/parse.ts';
import { run } from '../../src/cli/main.ts';
import { tree } from '../../src/cli/tree.ts';
import { catcher } from '../terminal.ts';

async function nodes(): Promise<(readonly [string, Node])[]> {
  const found: (readonly [string, Node])[] = [];
  const walk = (path: string, node: Node): void => {
    found.push([path, node]);
    if (isGroup(node)) for (const [name, child] of Object.entries(node.commands)) walk(`${path} ${name}`, child);
  };
  for (const [name, entry] of Object.entries(tree)) walk(name, await entry.load());
  return found;
}
const all = await nodes();
const commands = all.filter((pair): pair is readonly [string, Command] => !isGroup(pair[1]));

const CONTAINER_VERBS =
  'run create start stop restart kill wait ls inspect logs exec attach top stats cp port rename rm'.split(' ');

test('what is due is there', () => {
  expect(commands.map(([path]) => path).sort()).toEqual(
    [
      ...['ls', 'inspect', 'label', 'drain', 'undrain', 'rm'].map((verb) => `node ${verb}`),
      ...['create', 'ls', 'inspect', 'update', 'rm', 'connect', 'disconnect', 'prune'].map((verb) => `network ${verb}`),
      ...['ls', 'inspect'].map((verb) => `endpoint ${verb}`),
      ...['create', 'ls', 'inspect', 'rm', 'exec', 'attach'].map((verb) => `sandbox ${verb}`),
      ...['create', 'ls', 'inspect', 'update', 'scale', 'ps', 'logs', 'rm'].map((verb) => `service ${verb}`),
      ...CONTAINER_VERBS.filter((verb) => verb !== 'ls' && verb !== 'inspect'),
      'ps',
      ...CONTAINER_VERBS.map((verb) => `container ${verb}`),
      ...['create', 'ls', 'inspect', 'rm', 'prune'].map((verb) => `volume ${verb}`),
      ...['up', 'ls', 'exec', 'partition', 'loss', 'heal', 'kill', 'down'].map((verb) => `lab ${verb}`),
      ...[
        'pull',
        'push',
        'load',
        'import',
        'save',
        'tag',
        'ls',
        'inspect',
        'history',
        'rm',
        'prune',
        'login',
        'logout',
      ].map((verb) => `image ${verb}`),
      ...['pull', 'push', 'load', 'images', 'rmi', 'login', 'logout'],
      ...['version', 'status', 'events', 'inspect', 'system off', 'system purge', 'cluster join', 'diff', 'trace'],
    ].sort(),
  );
});

describe.each(all)('%s', (path, node) => {
  test('has a summary that is one phrase, and help that fits', async () => {
    expect(node.summary).toMatch(/^[A-Z].*[^.]$/);
    expect(node.summary.length).toBeLessThanOrEqual(90);
    const terminal = catcher({ columns: 80 });
    expect(await run([...path.split(' '), '-h'], terminal, {})).toBe(0);
    const { out, err } = terminal.said();
    expect(err).toBe('');
    expect(out).toContain(`sluice ${path}`);
    // Examples are to be copied, and stay whole.
    const lines = out.split('\nExamples:')[0]!.split('\n');
    expect(lines.filter((line) => line.length > 80)).toEqual([]);
  });
});

describe.each(commands)('%s', (path, command) => {
  const flags: Flags = { ...command.flags, ...GLOBAL_FLAGS };

  test('no flag hides another', () => {
    expect(Object.keys(command.flags).filter((key) => key in GLOBAL_FLAGS)).toEqual([]);
    const names = Object.entries(flags).flatMap(([key, flag]) => [flagName(key), ...(flag.also ?? [])]);
    expect(new Set(names).size).toBe(names.length);
    const letters = Object.values(flags).flatMap(({ short }) => short ?? []);
    expect(new Set(letters).size).toBe(letters.length);
    for (const letter of letters) expect(letter).toMatch(/^[a-zA-Z]$/);
  });

  test('flags of a kind mean the same everywhere', () => {
    const { quiet, force, detach, format } = command.flags;
    if (quiet) expect(quiet.short).toBe('q');
    if (force) expect(force.short).toBe('f');
    // Docker's network create gives -d to the driver.
    if (detach) expect(detach.short).toBe(path === 'network create' ? undefined : 'd');
    if (/ (ls|inspect)$/.test(path)) expect(format).toBeDefined();
  });

  test('optional and repeated words come last, and a command to run is the last of all', () => {
    const args = Object.values(command.args);
    for (const [n, arg] of args.slice(0, -1).entries())
      expect(arg).toMatchObject({ many: false, optional: arg.optional && args[n + 1]!.optional, command: false });
  });

  test('its examples are command lines of it', async () => {
    for (const example of command.examples ?? []) expect(example).toMatch(new RegExp(`^sluice ${path}\\b`));
  });
});

test('no name stands for two commands', () => {
  const groups: Readonly<Record<string, { readonly aliases?: readonly string[] }>>[] = [
    tree,
    ...all.flatMap(([, node]) => (isGroup(node) ? [node.commands] : [])),
  ];
  for (const group of groups) {
    const words = Object.entries(group).flatMap(([name, { aliases = [] }]) => [name, ...aliases]);
    expect(spellings(group).size).toBe(words.length);
  }
});

test('the top: help as an answer, half a command as an error', async () => {
  for (const argv of [[], ['-h'], ['--help']]) {
    const terminal = catcher();
    expect(await run(argv, terminal, {})).toBe(0);
    for (const name of Object.keys(tree)) expect(terminal.said().out).toContain(`  ${name} `);
  }
  const half = catcher();
  expect(await run(['network'], half, {})).toBe(2);
  expect(half.said()).toMatchObject({ out: '', err: expect.stringContaining('Usage: sluice network COMMAND') });
  expect(helpOf(tree, [], null, 200)).toBe(helpOf(tree, [], null, undefined));
});

test('text is wrapped between words; a word that is too long stands alone', () => {
  expect(wrap('a bb ccc averylongwordindeed d', 6)).toEqual(['a bb', 'ccc', 'averylongwordindeed', 'd']);
});
