/** Plain tables: columns two blanks apart, cut to the terminal's width with an ellipsis. Pure. */

const GAP = '  ';
/** A column is not cut below this many characters, nor below its title. */
const SHRUNK_MIN = 8;

/** Text of others on somebody's terminal: no control character of it gets there. */
export const clean = (text: string): string => text.replace(/\p{Cc}+/gu, ' ');

const lengthOf = (text: string): number => [...text].length;

const cut = (text: string, width: number): string =>
  lengthOf(text) <= width ? text : `${[...text].slice(0, width - 1).join('')}…`;

export interface TableOptions {
  /** Characters a line; undefined: nothing is cut. */
  readonly columns?: number;
  /** Which columns may be cut. */
  readonly shrink?: readonly boolean[];
  /** Colours a cell that is already padded. */
  readonly paint?: (padded: string, row: number, column: number) => string;
}

/** Widths of the columns: as wide as their content, or the widest of those that may shrink brought down until all fit. */
export function widths(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  options: TableOptions,
): number[] {
  const wide = titles.map((title, i) => Math.max(lengthOf(title), ...rows.map((row) => lengthOf(row[i] ?? ''))));
  const { columns, shrink = [] } = options;
  if (columns === undefined) return wide;
  let excess = wide.reduce((sum, width) => sum + width, 0) + GAP.length * (wide.length - 1) - columns;
  while (excess > 0) {
    let widest = -1;
    for (const [i, width] of wide.entries()) {
      const floor = Math.max(SHRUNK_MIN, lengthOf(titles[i]!));
      if (shrink[i] && width > floor && (widest < 0 || width > wide[widest]!)) widest = i;
    }
    if (widest < 0) break;
    wide[widest]!--;
    excess--;
  }
  return wide;
}

export function renderTable(
  titles: readonly string[],
  rows: readonly (readonly string[])[],
  options: TableOptions = {},
): string {
  const cleaned = rows.map((row) => row.map(clean));
  const wide = widths(titles, cleaned, options);
  const line = (cells: readonly string[], row: number): string =>
    cells
      .map((cell, i) => {
        const text = cut(cell, wide[i]!);
        const padded = i === cells.length - 1 ? text : text + ' '.repeat(wide[i]! - lengthOf(text));
        return row >= 0 && options.paint ? options.paint(padded, row, i) : padded;
      })
      .join(GAP)
      .trimEnd();
  return [line(titles, -1), ...cleaned.map(line)].map((text) => `${text}\n`).join('');
}
