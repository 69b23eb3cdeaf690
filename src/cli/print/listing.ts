/** Objects as a table, as JSON, or through a template: what `--format` and `--quiet` mean everywhere. */

import { shortId } from '../../model/id.ts';
import type { Obj, Status } from '../../model/object.ts';
import type { View } from '../../model/request.ts';
import type { Context } from '../command/command.ts';
import { one, text, toggle } from '../command/flag.ts';
import { renderTable } from './table.ts';
import type { Extras } from './template.ts';
import { type Colour, paint } from './terminal.ts';

export interface Column<V> {
  readonly title: string;
  /** Its name in a template: `{{.Driver}}`. */
  readonly field: string;
  readonly of: (item: V) => string;
  /** 64 hex digits, 12 of them in a table. */
  readonly id?: boolean;
  /** May be cut where the terminal is narrow. */
  readonly shrink?: boolean;
  readonly colour?: (item: V) => Colour | undefined;
}

export const formatFlag = one('FORMAT', text, "table, json, or a template such as '{{.Name}} {{json .Spec}}'", {
  absent: 'table',
});

export const listFlags = {
  format: formatFlag,
  quiet: toggle('Print ids only', { short: 'q' }),
  noTrunc: toggle('Do not abbreviate, nor cut columns to the terminal'),
};

export interface ListOptions {
  readonly format?: string;
  readonly quiet?: boolean;
  readonly noTrunc?: boolean;
}

/** Prints a listing, by name. `table TEMPLATE`, Docker's, makes a table of the columns that the template names. */
export async function printList<V extends Pick<Obj, 'id' | 'name'>>(
  { terminal }: Context,
  unsorted: readonly V[],
  columns: readonly Column<V>[],
  { format = 'table', quiet, noTrunc }: ListOptions,
): Promise<void> {
  const items = unsorted.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  if (quiet) {
    terminal.out(items.map(({ id }) => `${noTrunc ? id : shortId(id)}\n`).join(''));
    return;
  }
  if (format === 'json') {
    terminal.out(`${JSON.stringify(items, null, 2)}\n`);
    return;
  }
  const cell = (item: V, { of, id }: Column<V>): string => (id && !noTrunc ? shortId(of(item)) : of(item));
  if (format === 'table') {
    terminal.out(
      renderTable(
        columns.map(({ title }) => title),
        items.map((item) => columns.map((column) => cell(item, column))),
        {
          columns: noTrunc ? undefined : terminal.columns,
          shrink: columns.map(({ shrink }) => shrink ?? false),
          paint: (padded, row, i) => {
            const colour = terminal.colour ? columns[i]!.colour?.(items[row]!) : undefined;
            return colour ? paint(colour, padded) : padded;
          },
        },
      ),
    );
    return;
  }
  const { compile } = await import('./template.ts');
  const asTable = /^table\s/.test(format);
  const template = compile(lineOf(asTable ? format.slice('table'.length).trimStart() : format));
  const lines = items.map((item) =>
    template(item, Object.fromEntries(columns.map((column) => [column.field, () => cell(item, column)]))),
  );
  if (!asTable) {
    terminal.out(lines.map((line) => `${line}\n`).join(''));
    return;
  }
  const titles = template({}, Object.fromEntries(columns.map(({ title, field }) => [field, () => title])));
  const rows = lines.map((line) => line.split('\t'));
  terminal.out(renderTable(titles.split('\t'), rows));
}

/** A shell hands `\t` and `\n` through as two characters. */
const lineOf = (format: string): string => format.replaceAll('\\t', '\t').replaceAll('\\n', '\n');

/** Prints one thing through `--format`: `json`, a template, or what `table` makes of it. */
export async function printOne<T>(
  { terminal }: Context,
  value: T,
  format: string,
  table: (value: T) => string,
  extras?: Extras,
): Promise<void> {
  if (format === 'table') terminal.out(table(value));
  else if (format === 'json') terminal.out(`${JSON.stringify(value, null, 2)}\n`);
  else {
    const { compile } = await import('./template.ts');
    terminal.out(`${compile(lineOf(format))(value, extras)}\n`);
  }
}

export const inspectFlags = {
  format: one('FORMAT', text, "json, table, or a template such as '{{.Status.State}}'", { absent: 'json' }),
};

/** Prints all of some objects: as one JSON array, through a template each, or as indented text. */
export async function printAll<V>(context: Context, items: readonly V[], format = 'json'): Promise<void> {
  if (format === 'json') {
    context.terminal.out(`${JSON.stringify(items, null, 2)}\n`);
    return;
  }
  const { describe } = await import('./describe.ts');
  for (const [i, item] of items.entries()) {
    if (i > 0 && format === 'table') context.terminal.out('\n');
    await printOne(context, item, format, describe);
  }
}

/** `ready`, `ready (ForwardBlocked)`, `error (address.exhausted)`. */
export function stateText(view: View<Obj>): string {
  const { status } = view;
  const state = view.removing ? 'removing' : (status?.state ?? 'pending');
  const notes = [
    ...(status?.error && !view.removing ? [status.error.code] : []),
    ...troubles(status).map(({ type }) => type),
  ];
  return notes.length > 0 ? `${state} (${notes.join(', ')})` : state;
}

/** Active conditions that ask for something to be done. `Repaired` is a record of what is right again. */
export const troubles = (status: Status | null) =>
  (status?.conditions ?? []).filter(({ type, active }) => active && type !== 'Repaired');

const COLOURS = { ready: 'green', pending: 'yellow', error: 'red', removing: 'gray' } as const;

/** Columns that every kind of object has. */
export const idColumn = (title: string): Column<Obj> => ({ title, field: 'ID', of: ({ id }) => id, id: true });
export const nameColumn: Column<Obj> = { title: 'NAME', field: 'Name', of: ({ name }) => name, shrink: true };
export const stateColumn: Column<View<Obj>> = {
  title: 'STATE',
  field: 'State',
  of: stateText,
  shrink: true,
  colour: (view) =>
    troubles(view.status).length > 0
      ? 'yellow'
      : COLOURS[view.removing ? 'removing' : (view.status?.state ?? 'pending')],
};
