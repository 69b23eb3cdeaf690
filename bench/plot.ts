/**
 * A suite's rows as an SVG: a dot for the value, a line for its 95 % interval, faint dots for the rounds, a mark for the bar.
 * Ratios share one logarithmic axis; of other rows each value is drawn as a share of its bar, on a second one.
 */
import { drawCurves } from './curve.ts';
import type { RowReport, SuiteReport } from './report.ts';

const WIDTH = 960;
const LEFT = 310;
const RIGHT = 150;
const LINE = 26;
const HEAD = 56;

const COLOURS: Readonly<Record<RowReport['verdict'], string>> = {
  pass: '#1a7f37',
  fail: '#cf222e',
  undecided: '#9a6700',
  void: '#9a6700',
  skipped: '#8b949e',
  shown: '#57606a',
};

const escapeXml = (text: string): string =>
  text.replace(/[&<>"]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[char]!);

/** Marks at most on an axis that spans less than a power of ten. */
const TICKS_MAX = 10;

/** Round numbers between two: 1, 2 and 5 times the powers of ten, or within a power of ten multiples of one such number. */
export function ticks(low: number, high: number): number[] {
  const round = (value: number): number => Number(value.toPrecision(6));
  const powers = (from: number, to: number): number[] => {
    const first = Math.floor(Math.log10(from));
    const count = Math.ceil(Math.log10(to)) - first + 1;
    return Array.from({ length: count }, (_, at) => [1, 2, 5].map((digit) => round(digit * 10 ** (first + at)))).flat();
  };
  const within = (value: number): boolean => value >= low && value <= high;
  if (high / low >= 10) return powers(low, high).filter(within);
  const least = (high - low) / TICKS_MAX;
  const step = powers(least, 10 * least).find((size) => size >= least)!;
  const first = Math.ceil(low / step);
  return Array.from({ length: TICKS_MAX + 1 }, (_, at) => round((first + at) * step)).filter(within);
}

interface Drawn {
  readonly row: RowReport;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly bar: number | null;
  readonly dots: readonly number[];
}

/** What of a row can be drawn on a logarithmic axis; null for what cannot. */
function drawn(row: RowReport): Drawn | null {
  if (row.value === null || row.low === null || row.high === null) return null;
  const ratio = row.kind === 'ratio';
  const scale = ratio ? 1 : row.bar;
  if (!scale || scale < 0 || row.low <= 0 || row.value <= 0) return null;
  const quotients = row.samples.ours.map((ours, round) => ours / row.samples.peer[round]!);
  const differences = row.samples.ours.map((ours, round) => ours - (row.samples.peer[round] ?? 0));
  const dots = ratio ? quotients : row.kind === 'difference' ? differences : row.samples.ours;
  return {
    row,
    value: row.value / scale,
    low: row.low / scale,
    high: row.high / scale,
    bar: row.bar === null ? null : row.bar / scale,
    dots: dots.map((dot) => dot / scale).filter((dot) => dot > 0),
  };
}

function panel(title: string, rows: readonly Drawn[], top: number): readonly [svg: string, height: number] {
  if (rows.length === 0) return ['', 0];
  const all = [1, ...rows.flatMap(({ low, high, bar, dots }) => [low, high, ...dots, ...(bar === null ? [] : [bar])])];
  const [low, high] = [Math.min(...all) / 1.05, Math.max(...all) * 1.05];
  const x = (value: number): string =>
    (LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(value / low)) / Math.log(high / low)).toFixed(1);
  const bottom = top + HEAD + rows.length * LINE;
  const out = [`<text x="12" y="${top + 20}" font-weight="600">${escapeXml(title)}</text>`];
  for (const tick of ticks(low, high)) {
    const at = x(tick);
    const strong = tick === 1 ? '#57606a' : '#d0d7de';
    out.push(`<line x1="${at}" y1="${top + HEAD - 12}" x2="${at}" y2="${bottom}" stroke="${strong}"/>`);
    out.push(`<text x="${at}" y="${top + HEAD - 18}" text-anchor="middle" fill="#57606a">${tick}</text>`);
  }
  for (const [index, { row, value, low: from, high: to, bar, dots }] of rows.entries()) {
    const y = top + HEAD + index * LINE + LINE / 2;
    const colour = COLOURS[row.verdict];
    out.push(`<text x="12" y="${y + 4}">${escapeXml(row.id)}</text>`);
    for (const dot of dots) out.push(`<circle cx="${x(dot)}" cy="${y}" r="2" fill="${colour}" opacity="0.25"/>`);
    if (bar !== null)
      out.push(`<line x1="${x(bar)}" y1="${y - 9}" x2="${x(bar)}" y2="${y + 9}" stroke="#0969da" stroke-width="2"/>`);
    out.push(`<line x1="${x(from)}" y1="${y}" x2="${x(to)}" y2="${y}" stroke="${colour}" stroke-width="2"/>`);
    out.push(`<circle cx="${x(value)}" cy="${y}" r="4.5" fill="${colour}"/>`);
    const unit = row.kind === 'ratio' ? '' : ` ${row.unit}`;
    const text = `${Number(row.value!.toPrecision(3))}${unit} ${row.verdict}`;
    out.push(`<text x="${WIDTH - RIGHT + 12}" y="${y + 4}" fill="${colour}">${escapeXml(text)}</text>`);
  }
  return [out.join('\n'), bottom - top + 20];
}

export function plot(report: SuiteReport): string {
  const rows = report.rows.map(drawn).filter((row) => row !== null);
  const ratios = rows.filter(({ row }) => row.kind === 'ratio');
  const others = rows.filter(({ row }) => row.kind !== 'ratio');
  const [first, firstHeight] = panel('ours ÷ peer (blue: the bar)', ratios, 40);
  const [second, secondHeight] = panel('share of the bar (blue: the bar)', others, 40 + firstHeight);
  const below = 40 + firstHeight + secondHeight;
  const [third, thirdHeight] = drawCurves(report.curves ?? [], below, escapeXml);
  const height = below + thirdHeight + 10;
  const title = `${report.suite} at ${report.commit}${report.quick ? ' (a smoke run)' : ''}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="12" y="26" font-size="16" font-weight="600">${escapeXml(title)}</text>
${first}
${second}
${third}
</svg>
`;
}
