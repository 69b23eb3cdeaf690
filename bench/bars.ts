/** The bars: one committed table, `row id → ">= 0.98"` or `"<= 250 ns"`. A ratio's bar has no unit. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../src/errors.ts';
import type { Row } from './suite.ts';

export interface Bar {
  readonly value: number;
  readonly better: 'higher' | 'lower';
  /** `ns`, `MB`; empty for ratios. */
  readonly unit: string;
}

export function parseBar(id: string, text: string): Bar {
  const match = /^(>=|<=) (-?\d+(?:\.\d+)?)(?: (\S+))?$/.exec(text);
  if (!match) throw new SluiceError('internal', `bars.json: ${id}: "${text}" is no bar: ">= 0.98" or "<= 250 ns" is`);
  return { value: Number(match[2]), better: match[1] === '>=' ? 'higher' : 'lower', unit: match[3] ?? '' };
}

export function readBars(file = join(import.meta.dirname, 'bars.json')): Readonly<Record<string, Bar>> {
  const table = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
  return Object.fromEntries(Object.entries(table).map(([id, text]) => [id, parseBar(id, text)]));
}

/** The bars of the rows as numbers. Fails when one speaks of another unit or direction than its row. */
export function barsOf(rows: readonly Row[], bars: Readonly<Record<string, Bar>>): Readonly<Record<string, number>> {
  return Object.fromEntries(
    rows.flatMap((row) => {
      const bar = bars[row.id];
      if (!bar) return [];
      const unit = row.kind === 'ratio' ? '' : row.unit;
      if (bar.better !== row.better || bar.unit !== unit)
        throw new SluiceError('internal', `bars.json: ${row.id} is ${row.better} is better, in "${unit}"`);
      return [[row.id, bar.value]];
    }),
  );
}
