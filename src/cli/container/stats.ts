/** `sluice stats`: what containers use, as it changes. */

import { isSluiceError } from '../../errors.ts';
import type { StatsAnswer } from '../../model/container/request.ts';
import { type Context, command } from '../command/command.ts';
import { one, optionalWords, text, toggle } from '../command/flag.ts';
import { renderTable } from '../print/table.ts';
import { detailOf } from './look.ts';

const EVERY_MS = 1_000;
const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

/** `12.5MiB` */
export function sizeText(bytes: number): string {
  const step = bytes < 1 ? 0 : Math.min(UNITS.length - 1, Math.floor(Math.log(bytes) / Math.log(1024)));
  const value = bytes / 1024 ** step;
  return `${step === 0 ? value : value.toPrecision(4).replace(/\.?0+$/, '')}${UNITS[step]}`;
}

/** Share of one processor between two readings, in percent; null without an earlier one. */
export function cpuShare(before: StatsAnswer | undefined, now: StatsAnswer): number | null {
  if (!before) return null;
  const passed = (Date.parse(now.time) - Date.parse(before.time)) * 1e6;
  return passed > 0 ? ((now.cpuNs - before.cpuNs) / passed) * 100 : null;
}

interface Row extends StatsAnswer {
  readonly id: string;
  readonly name: string;
  readonly cpuPercent: number | null;
}

const TITLES = ['CONTAINER ID', 'NAME', 'CPU %', 'MEM USAGE / LIMIT', 'MEM %', 'BLOCK I/O', 'PIDS'];
const cells = ({ id, name, cpuPercent, memoryBytes, memoryLimit, readBytes, writeBytes, pids }: Row): string[] => [
  id.slice(0, 12),
  name,
  cpuPercent === null ? '--' : `${cpuPercent.toFixed(2)}%`,
  `${sizeText(memoryBytes)} / ${memoryLimit ? sizeText(memoryLimit) : 'none'}`,
  memoryLimit ? `${((memoryBytes / memoryLimit) * 100).toFixed(2)}%` : '--',
  `${sizeText(readBytes)} / ${sizeText(writeBytes)}`,
  String(pids),
];

async function reading(
  context: Context,
  refs: readonly string[],
  last: ReadonlyMap<string, StatsAnswer>,
): Promise<Row[]> {
  const { containers } = await context.client();
  const all = await containers.list();
  const named = refs.length > 0 ? await Promise.all(refs.map((ref) => containers.get(ref))) : null;
  const shown = named ?? all.filter((view) => detailOf(view).phase === 'running');
  const rows = await Promise.all(
    shown.map(async ({ id, name }) => {
      const stats = await containers.stats(id).catch((error: unknown) => {
        // It ended between the list and the question.
        if (!named && isSluiceError(error, 'container.stopped', 'object.notfound')) return null;
        throw error;
      });
      return stats && { id, name, ...stats, cpuPercent: cpuShare(last.get(id), stats) };
    }),
  );
  return rows.filter((row) => row !== null);
}

export const stats = command({
  summary: 'What containers use: processor, memory, disk, processes',
  about: 'On a terminal until interrupted; else, and with --no-stream, once, over a second.',
  examples: ['sluice stats --no-stream api-1'],
  flags: {
    noStream: toggle('One reading'),
    format: one('FORMAT', text, "table, json, or a template such as '{{.name}} {{.memoryBytes}}'", { absent: 'table' }),
  },
  args: { container: optionalWords('names or ids; absent: all that run', { of: 'container' }) },
  async run(context, { noStream, format = 'table' }, { container }) {
    const { terminal } = context;
    const template =
      format === 'table' || format === 'json' ? null : (await import('../print/template.ts')).compile(format);
    const last = new Map<string, StatsAnswer>();
    const read = async (): Promise<Row[]> => {
      const rows = await reading(context, container, last);
      for (const row of rows) last.set(row.id, row);
      return rows;
    };
    const once = noStream || terminal.columns === undefined;
    await read();
    do {
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      const rows = await read();
      if (template) terminal.out(rows.map((row) => `${template(row)}\n`).join(''));
      else if (format === 'json') terminal.out(`${JSON.stringify(rows, null, 2)}\n`);
      else
        terminal.out(
          `${once ? '' : '\u001b[H\u001b[J'}${renderTable(TITLES, rows.map(cells), { columns: terminal.columns, shrink: [false, true] })}`,
        );
    } while (!once);
  },
});
