/** Any value as indented text for people: `name: value` lines, lists with dashes, what is empty left out. */
import { clean } from './table.ts';

const isEmpty = (value: unknown): boolean =>
  value === undefined ||
  value === null ||
  value === '' ||
  (typeof value === 'object' && Object.keys(value).length === 0);

const isScalar = (value: unknown): boolean => typeof value !== 'object' || value === null;

/** Lists of plain values stay on one line. */
const inline = (value: unknown): string | null => {
  if (isScalar(value)) return clean(String(value));
  return Array.isArray(value) && value.every(isScalar) ? value.map((item) => clean(String(item))).join(', ') : null;
};

export function describe(value: unknown): string {
  return lines(value, '')
    .map((line) => `${line}\n`)
    .join('');
}

function lines(value: unknown, indent: string): string[] {
  if (Array.isArray(value)) {
    return value.flatMap((item) => {
      const [first = '', ...rest] = lines(item, `${indent}  `);
      return [`${indent}- ${first.trimStart()}`, ...rest];
    });
  }
  if (isScalar(value)) return [`${indent}${clean(String(value))}`];
  return Object.entries(value as object)
    .filter(([, item]) => !isEmpty(item))
    .flatMap(([key, item]) => {
      const text = inline(item);
      return text === null
        ? [`${indent}${clean(key)}:`, ...lines(item, `${indent}  `)]
        : [`${indent}${clean(key)}: ${text}`];
    });
}
