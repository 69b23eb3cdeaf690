/** A table of nft as text. Pure. */

/**
 * What the kernel holds of the table, as text that two equal tables have in common: handles and counters left out, set elements
 * in order. Input: the objects of `nft -j list table …`.
 */
export function digestTable(objects: readonly Record<string, unknown>[]): string {
  const ignore = new Set(['handle', 'packets', 'bytes', 'index', 'metainfo']);
  const clean = (value: unknown, key?: string): unknown => {
    if (Array.isArray(value)) {
      const items = value.map((item) => clean(item));
      return key === 'elem' ? items.map((item) => JSON.stringify(item)).sort() : items;
    }
    if (value === null || typeof value !== 'object') return value;
    const kept = Object.entries(value).filter(([name]) => !ignore.has(name));
    return Object.fromEntries(
      kept.sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, item]) => [name, clean(item, name)]),
    );
  };
  return JSON.stringify(clean(objects));
}
