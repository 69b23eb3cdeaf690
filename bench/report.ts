/** A suite's result as JSON (raw samples included), as a Markdown table, and as files beside an SVG plot. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Curve } from './curve.ts';
import type { Machine } from './machine.ts';
import { plot } from './plot.ts';
import type { RowResult, Verdict } from './round.ts';
import type { Samples } from './stats.ts';
import type { Row } from './suite.ts';

export interface RowReport {
  readonly id: string;
  readonly kind: Row['kind'];
  readonly unit: string;
  readonly better: Row['better'];
  readonly what: string;
  /** Median of our samples, in `unit`. */
  readonly ours: number | null;
  readonly peer: number | null;
  readonly peerName: string | null;
  /** What the bar is held against: ratio, difference, or ours. */
  readonly value: number | null;
  /** Ours ÷ peer, of a ratio row. */
  readonly ratio: number | null;
  /** Ends of the 95 % interval of `value`. */
  readonly low: number | null;
  readonly high: number | null;
  readonly bar: number | null;
  readonly rounds: number;
  readonly verdict: Verdict;
  /** Why it was skipped. */
  readonly why?: string;
  /** The peer against itself in the same rounds. */
  readonly control?: { readonly ratio: number; readonly low: number; readonly high: number };
  /** Failed requests over all rounds. */
  readonly failed?: { readonly ours: number; readonly peer: number };
  /** What belongs to the row and is no part of it. */
  readonly apart?: Readonly<Record<string, number>>;
  readonly samples: Samples;
}

export interface SuiteReport {
  readonly suite: string;
  /** ISO 8601. */
  readonly date: string;
  /** True for a smoke run, which claims nothing. */
  readonly quick: boolean;
  readonly machine: Machine;
  readonly commit: string;
  /** Of the bootstrap. */
  readonly seed: number;
  /** What each arm was given. */
  readonly given: Readonly<Record<string, string>>;
  readonly rows: readonly RowReport[];
  /** Drawn beside the rows. */
  readonly curves?: readonly Curve[];
}

/** Seven digits are more than any machine repeats. */
const round = (value: number): number => Number(value.toPrecision(7));
const rounded = (values: readonly number[]): number[] => values.map(round);

const head = (row: Row, bar: number | null) => ({
  id: row.id,
  kind: row.kind,
  unit: row.unit,
  better: row.better,
  what: row.what,
  peerName: row.peer ?? null,
  bar,
});

export function reportRow(result: RowResult, apart?: Readonly<Record<string, number>>): RowReport {
  const { row, bar, measured, control, samples } = result;
  return {
    ...head(row, bar),
    ours: round(measured.ours),
    peer: measured.peer === null ? null : round(measured.peer),
    value: round(measured.value),
    ratio: measured.ratio === null ? null : round(measured.ratio),
    low: round(measured.low),
    high: round(measured.high),
    rounds: result.rounds,
    verdict: result.verdict,
    ...(control && {
      control: { ratio: round(control.value), low: round(control.low), high: round(control.high) },
    }),
    failed: result.failed,
    ...(apart && { apart }),
    samples: { ours: rounded(samples.ours), peer: rounded(samples.peer), control: rounded(samples.control) },
  };
}

export function reportSkip(row: Row, bar: number | null, why: string): RowReport {
  const nothing = { ours: null, peer: null, value: null, ratio: null, low: null, high: null };
  const samples = { ours: [], peer: [], control: [] };
  return { ...head(row, bar), ...nothing, rounds: 0, verdict: 'skipped', why, samples };
}

/** Three digits, thousands apart: `0.984`, `12,300`, `1.02`. */
export function digits(value: number | null): string {
  if (value === null) return '–';
  const size = Math.abs(value);
  if (size >= 1_000) return Number(value.toPrecision(3)).toLocaleString('en-US');
  return String(Number(value.toPrecision(3)));
}

const withUnit = (value: number | null, unit: string): string =>
  value === null ? '–' : `${digits(value)}${unit === '' ? '' : ` ${unit}`}`;

const unitOfValue = ({ kind, unit }: RowReport): string => (kind === 'ratio' ? '' : unit);

/** Cells of the row's line in the table. */
function cells(row: RowReport): string[] {
  if (row.verdict === 'skipped') return [row.id, '', '', '', barText(row), '', `skipped: ${row.why}`];
  const { failed, control } = row;
  const remarks = [
    row.verdict === 'void' && control ? `void (control ${digits(control.low)}…${digits(control.high)})` : row.verdict,
    failed && failed.ours + failed.peer > 0 ? `failed: ours ${failed.ours}, peer ${failed.peer}` : '',
  ];
  return [
    row.id,
    withUnit(row.ours, row.unit),
    row.peerName === null ? '–' : withUnit(row.peer, row.unit),
    withUnit(row.value, unitOfValue(row)),
    barText(row),
    `${digits(row.low)} … ${digits(row.high)}`,
    `${remarks.filter(Boolean).join('; ')} (${row.rounds} rounds)`,
  ];
}

const barText = (row: RowReport): string =>
  row.bar === null ? '–' : `${row.better === 'higher' ? '≥' : '≤'} ${withUnit(row.bar, unitOfValue(row))}`;

const COLUMNS = ['row', 'ours', 'peer', 'value', 'bar', '95 %', 'verdict'];

/** Columns aligned for a terminal. */
export function toText(report: SuiteReport): string {
  const table = [COLUMNS, ...report.rows.map(cells)];
  const widths = COLUMNS.map((_, column) => Math.max(...table.map((line) => line[column]!.length)));
  return table
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

export function toMarkdown(report: SuiteReport): string {
  const { machine, suite } = report;
  const line = (row: readonly string[]): string => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const apart = report.rows.filter((row) => row.apart);
  const versions = Object.entries(machine.versions).map(([name, version]) => `${name} ${version}`);
  return [
    `# ${suite}`,
    '',
    ...(report.quick ? ['A smoke run: nothing here is a claim.', ''] : []),
    `${report.date.slice(0, 10)}, commit ${report.commit}. Linux ${machine.kernel}, ${machine.cpus} × ${machine.cpu}, ` +
      `${machine.memoryGB} GB, load ${machine.load} before the run. ${versions.join(', ')}.`,
    '',
    line(COLUMNS),
    line(COLUMNS.map(() => '---')),
    ...report.rows.map((row) => line(cells(row))),
    '',
    `![plot](${suite}.svg)`,
    '',
    ...(apart.length > 0 ? ['## Apart', ''] : []),
    ...apart.flatMap((row) => [
      `${row.id}: ${Object.entries(row.apart!)
        .map(([name, value]) => `${name} ${digits(value)}`)
        .join(', ')}.`,
      '',
    ]),
    '## What each row measures',
    '',
    ...report.rows.map((row) => `- \`${row.id}\`: ${row.what}`),
    '',
    '## What each arm was given',
    '',
    ...Object.entries(report.given).flatMap(([name, text]) => [`**${name}**`, '', '```', text.trim(), '```', '']),
  ].join('\n');
}

/** Writes `NAME.json`, `NAME.md` and `NAME.svg`; returns their paths. */
export function writeReport(folder: string, name: string, report: SuiteReport): string[] {
  mkdirSync(folder, { recursive: true });
  const files: Readonly<Record<string, string>> = {
    json: `${JSON.stringify(report, null, 1)}\n`,
    md: toMarkdown(report).replace(`](${report.suite}.svg)`, `](${name}.svg)`),
    svg: plot(report),
  };
  return Object.entries(files).map(([ending, text]) => {
    const path = join(folder, `${name}.${ending}`);
    writeFileSync(path, text);
    return path;
  });
}
