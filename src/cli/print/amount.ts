/** Bytes and times as people read them. Pure. */

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** `1.24MB`, as Docker counts: in thousands, three digits. */
export function bytesText(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const text = unit === 0 ? String(value) : value.toPrecision(3);
  return `${text.includes('.') ? text.replace(/\.?0+$/, '') : text}${UNITS[unit]}`;
}

const SPANS: readonly (readonly [seconds: number, name: string])[] = [
  [365 * 86_400, 'year'],
  [30 * 86_400, 'month'],
  [7 * 86_400, 'week'],
  [86_400, 'day'],
  [3_600, 'hour'],
  [60, 'minute'],
  [1, 'second'],
];

/** `3 weeks ago`; `N/A` for what has no time, as images without one are of 1970. */
export function agoText(iso: string, nowMs: number): string {
  const then = Date.parse(iso);
  if (!(then > 0)) return 'N/A';
  const seconds = Math.max(0, (nowMs - then) / 1000);
  const [length, name] = SPANS.find(([each]) => seconds >= each * 2) ?? [1, 'second'];
  const count = Math.floor(seconds / length);
  return `${count} ${name}${count === 1 ? '' : 's'} ago`;
}
