import { describe, expect, test } from 'vitest';
import { command, type Tree } from '../../src/cli/command/command.ts';
import {
  commandLine,
  duration,
  integer,
  many,
  one,
  optionalWord,
  pairs,
  text,
  toggle,
  word,
  words,
} from '../../src/cli/command/flag.ts';
import { nearest } from '../../src/cli/command/nearest.ts';
import { ParseError, parse } from '../../src/cli/command/parse.ts';

const run = async (): Promise<void> => undefined;
const create = command({
  summary: 'Create',
  flags: {
    driver: one('DRIVER', text, 'driver', { short: 'd' }),
    ipRange: many('CIDR', text, 'range'),
    internal: toggle('internal', { short: 'i' }),
    quiet: toggle('quiet', { short: 'q' }),
    ipv4: toggle('ipv4'),
    priority: one('N', integer, 'priority'),
    waitTimeout: one('TIME', duration, 'time'),
    opt: pairs('KEY=VALUE', 'option', { short: 'o' }),
    alias: many('NAME', text, 'alias', { also: ['--network-alias'] }),
  },
  args: { name: word('name'), more: optionalWord('more') },
  run,
});
const rm = command({ summary: 'Remove', flags: {}, args: { name: words('names') }, aliases: ['remove'], run });
const exec = command({
  summary: 'Run',
  flags: { env: pairs('KEY=VALUE', 'variable', { short: 'e' }), tty: toggle('tty', { short: 't' }) },
  args: { sandbox: word('name'), command: commandLine('command') },
  run,
});
const tree: Tree = {
  network: {
    summary: 'Networks',
    aliases: ['net'],
    load: async () => ({ summary: 'Networks', commands: { create, rm, exec } }),
  },
  version: { summary: 'Version', load: async () => command({ summary: 'Version', flags: {}, args: {}, run }) },
};
const read = (line: string) => parse(tree, line === '' ? [] : line.split(' '));
/** What was given: without what was not. */
const given = async (line: string) => {
  const { flags, args } = await read(line);
  const kept = Object.entries(flags).filter(
    ([, value]) => value !== undefined && !(Array.isArray(value) && value.length === 0),
  );
  return { ...Object.fromEntries(kept), ...args };
};
const failure = async (line: string): Promise<string> => {
  const error = await read(line).then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(ParseError);
  return (error as ParseError).message;
};

describe('flags', () => {
  test.each([
    ['before', 'network create --driver bridge web'],
    ['after', 'network create web --driver bridge'],
    ['with =', 'network create --driver=bridge web'],
    ['short', 'network create -d bridge web'],
    ['short and joined', 'network create -dbridge web'],
    ['short with =', 'network create web -d=bridge'],
    ['the last one counts', 'network create --driver x -d bridge web'],
    ['with --', 'network create -d bridge -- web'],
    ['by an alias of the group', 'net create -d bridge web'],
  ])('%s', async (_, line) => {
    expect(await given(line)).toEqual({ driver: 'bridge', name: 'web', more: undefined });
  });

  test('switches: alone, joined, with a value', async () => {
    expect(await given('network create -iq web')).toMatchObject({ internal: true, quiet: true });
    expect(await given('network create -iqd bridge web')).toMatchObject({
      internal: true,
      quiet: true,
      driver: 'bridge',
    });
    expect(await given('network create --ipv4=false --internal=true web')).toMatchObject({
      ipv4: false,
      internal: true,
    });
    expect(await failure('network create --ipv4=maybe web')).toBe('--ipv4 is either true or false, not "maybe"');
  });

  test('lists, pairs, numbers, times, other spellings', async () => {
    expect(await given('network create --ip-range a web --ip-range=b -o x=1 -o y=a=b -o z --priority -5')).toEqual({
      ipRange: ['a', 'b'],
      opt: { x: '1', y: 'a=b', z: '' },
      priority: -5,
      name: 'web',
      more: undefined,
    });
    expect(await given('network create web --network-alias a --alias b')).toMatchObject({ alias: ['a', 'b'] });
    expect(await given('network create web --wait-timeout 1m30s')).toMatchObject({ waitTimeout: 90_000 });
    expect([duration('500ms'), duration('2h'), duration('30'), duration('1.5s')]).toEqual([
      500, 7_200_000, 30_000, 1_500,
    ]);
  });

  test.each([
    ['network create web --driver', '--driver needs a value: --driver DRIVER'],
    ['network create web --priority 1.5', '--priority: "1.5" is not a whole number'],
    ['network create web --wait-timeout soon', '--wait-timeout: "soon" is not a time such as 30s or 1m30s'],
    ['network create web -o =x', '--opt: "=x" is not KEY=VALUE'],
    ['network create web --driver=', '--driver: the value is empty'],
    ['network create web --drivr x', 'sluice network create has no flag --drivr; did you mean --driver?'],
    ['network create web --zzz', 'sluice network create has no flag --zzz'],
    ['network create web -z', 'sluice network create has no flag -z'],
    ['--format json version', 'sluice has no flag --format'],
    ['network create', 'sluice network create needs NAME: name'],
    ['network create a b c', 'sluice network create takes no further "c"'],
    ['netwrok create', 'there is no command "netwrok"; did you mean "network"?'],
    ['network craete', 'there is no command "network craete"; did you mean "network create"?'],
    ['network xyzzy', 'there is no command "network xyzzy"'],
    ['network rm', 'sluice network rm needs NAME…: names'],
  ])('%s', async (line, message) => {
    expect(await failure(line)).toBe(message);
  });
});

describe('words', () => {
  test('of the address of the daemon, anywhere', async () => {
    for (const line of ['-H /x network rm a', 'network -H /x rm a', 'network rm a -H=/x', '--host /x network rm a'])
      expect((await read(line)).host).toBe('/x');
  });

  test('help is asked for anywhere, and needs nothing else to be right', async () => {
    for (const line of ['-h', 'network -h', 'network create -h', 'network create --help', 'network rm -h'])
      expect((await read(line)).help).toBe(true);
    expect(await read('network')).toMatchObject({ help: false, path: ['network'] });
    expect(await read('')).toMatchObject({ help: false, node: null });
  });

  test('many, also by an alias of the command; a lone dash is a word', async () => {
    expect(await given('network remove a b')).toEqual({ name: ['a', 'b'] });
    expect(await given('network rm - a')).toEqual({ name: ['-', 'a'] });
    expect(await given('network rm -- -a')).toEqual({ name: ['-a'] });
  });

  test.each([
    ['network exec box ls -l -h', ['ls', '-l', '-h'], {}],
    ['network exec box -- ls --env x', ['ls', '--env', 'x'], {}],
    ['network exec -- box ls -t', ['ls', '-t'], {}],
    ['network exec -e A=1 box -t ls -t', ['ls', '-t'], { env: { A: '1' }, tty: true }],
    ['network exec box sh -- -x', ['sh', '--', '-x'], {}],
    ['network exec box -- -odd', ['-odd'], {}],
  ])('a command to run keeps its own: %s', async (line, expected, flags) => {
    expect(await given(line)).toEqual({ sandbox: 'box', command: expected, ...flags });
  });

  test('a command to run must be there', async () => {
    expect(await failure('network exec box')).toBe('sluice network exec needs COMMAND…: command');
  });
});

test('the nearest word, when it is near', () => {
  const known = ['network', 'sandbox', 'service', 'status', 'system', 'version'];
  expect(nearest('netwrok', known)).toBe('network');
  expect(nearest('net', known)).toBe('network');
  expect(nearest('servise', known)).toBe('service');
  expect(nearest('stats', known)).toBe('status');
  expect(nearest('docker', known)).toBe(undefined);
  expect(nearest('x', known)).toBe(undefined);
});
