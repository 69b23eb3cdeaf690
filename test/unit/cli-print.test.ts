import { execFileSync } from 'node:child_process';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, describe as group, test, vi } from 'vitest';
import { describe } from '../../src/cli/print/describe.ts';
import { type Column, printList } from '../../src/cli/print/listing.ts';
import { progress } from '../../src/cli/print/progress.ts';
import { renderTable } from '../../src/cli/print/table.ts';
import { catcher } from '../terminal.ts';

group('tables', () => {
  const rows = [
    ['a1', 'a-rather-long-name-of-a-thing', '10.20.0.0/24, fd00:20::/64', 'ready'],
    ['b2', 'web', '', 'error'],
  ];
  const titles = ['ID', 'NAME', 'SUBNETS', 'STATE'];
  const shrink = [false, true, true, false];

  test('columns two blanks apart, nothing behind the last', () => {
    expect(renderTable(titles, rows)).toBe(
      'ID  NAME                           SUBNETS                     STATE\n' +
        'a1  a-rather-long-name-of-a-thing  10.20.0.0/24, fd00:20::/64  ready\n' +
        'b2  web                                                        error\n',
    );
  });

  test('what is too wide is cut, the widest first, as far as it may be', () => {
    const lines = renderTable(titles, rows, { columns: 50, shrink }).trimEnd().split('\n');
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(50);
    expect(lines[1]).toBe('a1  a-rather-long-nam…  10.20.0.0/24, fd00…  ready');
    const narrow = renderTable(titles, rows, { columns: 5, shrink }).split('\n');
    expect(narrow[1]).toBe('a1  a-rathe…  10.20.0…  ready');
  });

  test('no control character of others gets to the terminal', () => {
    expect(renderTable(['NAME'], [['a\u001b[31mb\nc']])).toBe('NAME\na [31mb c\n');
    expect(describe({ label: 'x\u001b]0;y\u0007' })).toBe('label: x ]0;y \n');
  });
});

test('looking at the terminal leaves the streams as they are, for a program that this process becomes', () => {
  const module = join(import.meta.dirname, '../../src/cli/print/terminal.ts');
  const code = `
    const terminal = (await import('${module}')).processTerminal();
    if (terminal.columns || terminal.colour || terminal.live || (await terminal.ask('?'))) process.exit(1);
    process.execve('/bin/sh', ['sh', '-c', 'for n in 0 1 2; do cat <&$n /proc/$$/fdinfo/$n; done'], process.env);`;
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', code], { input: '', encoding: 'utf8' });
  const flags = [...said.matchAll(/^flags:\s*(\d+)/gm)].map((match) => Number.parseInt(match[1]!, 8));
  expect(flags).toHaveLength(3);
  for (const flag of flags) expect(flag & constants.O_NONBLOCK).toBe(0);
});

test('a description leaves out what is empty and keeps short lists on a line', () => {
  const value = {
    name: 'web',
    none: null,
    labels: {},
    ips: ['a', 'b'],
    spec: { subnets: [{ cidr: 'x', gateway: 'y' }, { cidr: 'z' }] },
  };
  expect(describe(value)).toBe(
    'name: web\nips: a, b\nspec:\n  subnets:\n    - cidr: x\n      gateway: y\n    - cidr: z\n',
  );
});

group('listings', () => {
  const items = [
    { id: 'b'.repeat(64), name: 'web', state: 'ready' },
    { id: 'a'.repeat(64), name: 'db', state: 'error' },
  ];
  const columns: Column<(typeof items)[number]>[] = [
    { title: 'NETWORK ID', field: 'ID', of: ({ id }) => id, id: true },
    { title: 'NAME', field: 'Name', of: ({ name }) => name },
    {
      title: 'STATE',
      field: 'State',
      of: ({ state }) => state,
      colour: ({ state }) => (state === 'ready' ? 'green' : 'red'),
    },
  ];
  const list = async (options: Parameters<typeof printList>[3], terminal = {}) => {
    const caught = catcher(terminal);
    const context = {
      terminal: caught,
      env: {},
      host: undefined,
      client: () => Promise.reject(new Error('no client')),
    };
    await printList(context, items, columns, options);
    return caught.said().out;
  };

  test.each([
    ['by name', {}, 'NETWORK ID    NAME  STATE\naaaaaaaaaaaa  db    error\nbbbbbbbbbbbb  web   ready\n'],
    ['ids', { quiet: true }, 'aaaaaaaaaaaa\nbbbbbbbbbbbb\n'],
    ['whole ids', { quiet: true, noTrunc: true }, `${'a'.repeat(64)}\n${'b'.repeat(64)}\n`],
    ['a template', { format: '{{.ID}} {{.Name}}' }, 'aaaaaaaaaaaa db\nbbbbbbbbbbbb web\n'],
    ['a template with escapes', { format: '{{.Name}}\\t{{.State}}' }, 'db\terror\nweb\tready\n'],
    [
      "Docker's table template",
      { format: 'table {{.Name}}\\t{{.ID}}' },
      'NAME  NETWORK ID\ndb    aaaaaaaaaaaa\nweb   bbbbbbbbbbbb\n',
    ],
  ])('%s', async (_, options, expected) => {
    expect(await list(options)).toBe(expected);
  });

  test('JSON is all of the objects', async () => {
    expect(JSON.parse(await list({ format: 'json' }))).toEqual([items[1], items[0]]);
  });

  test('colours on a terminal alone', async () => {
    expect(await list({}, { colour: true, columns: 80 })).toContain('\u001b[32mready\u001b[39m');
    expect(await list({}, { columns: 80 })).not.toContain('\u001b');
  });
});

group('progress', () => {
  test('nothing is said of what is quick', async () => {
    const caught = catcher();
    expect(await progress(caught, 'it is done', sleep(20, 'value'))).toBe('value');
    expect(caught.said().err).toBe('');
  });

  test('after a second one line, or a line written over on a terminal', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const dull = catcher();
    const live = catcher({ live: true });
    try {
      const work = new Promise<void>((resolve) => setTimeout(resolve, 1_900));
      const both = Promise.all([progress(dull, 'web is programmed', work), progress(live, 'web is programmed', work)]);
      await vi.advanceTimersByTimeAsync(1_900);
      await both;
    } finally {
      vi.useRealTimers();
    }
    expect(dull.said().err).toBe('sluice: waiting until web is programmed (1 s)\n');
    const written = live.said().err.split('\r\u001b[K').slice(1);
    expect(written.length).toBeGreaterThan(2);
    expect(written.pop()).toBe('');
    for (const line of written) expect(line).toMatch(/^. waiting until web is programmed \(1 s\)$/u);
  });

  test('a failure passes through', async () => {
    await expect(progress(catcher(), 'x', Promise.reject(new Error('no')))).rejects.toThrow('no');
  });
});
