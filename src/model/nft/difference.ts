/** How two states of one nft table differ, in words. Pure. */
import type { Difference } from '../diagnosis/diff.ts';
import { digestTable } from './digest.ts';

type Part = Readonly<Record<string, unknown>>;

/** Elements of sets and maps named one by one; of more, how many. */
const ELEMENTS_MAX = 20;

const elementsOf = (part: Part): string[] => (Array.isArray(part.elem) ? part.elem.map((one) => wordsOf(one)) : []);

/** `10.1.0.0/24`, `slweb . slweb`, `tcp . 80 . 0 : 10.1.0.2 . 80`: as nft prints them, near enough for people. */
function wordsOf(value: unknown): string {
  // Clean elements are kept as their JSON.
  const parsed: unknown = typeof value === 'string' && /^["[{]/.test(value) ? JSON.parse(value) : value;
  if (Array.isArray(parsed)) return parsed.map(wordsOf).join(' : ');
  if (parsed === null || typeof parsed !== 'object') return String(parsed);
  const { concat, prefix, range, elem } = parsed as Record<string, unknown>;
  if (Array.isArray(concat)) return concat.map(wordsOf).join(' . ');
  if (Array.isArray(range)) return range.map(wordsOf).join('-');
  if (prefix) return `${(prefix as Part).addr}/${(prefix as Part).len}`;
  return elem === undefined ? JSON.stringify(parsed) : wordsOf((elem as Part).val ?? elem);
}

const isRule = (object: Part): boolean => 'rule' in object;
const ruleText = (part: Part): string => {
  const comment = typeof part.comment === 'string' ? ` ("${part.comment}")` : '';
  return `a rule of chain ${part.chain}${comment}`;
};

/** Each object but rules by its kind and name. */
function named(objects: readonly Part[]): Map<string, Part> {
  const found = new Map<string, Part>();
  for (const object of objects) {
    if (isRule(object)) continue;
    const [kind, part] = Object.entries(object)[0] ?? ['', {}];
    found.set(`${kind} ${(part as Part).name}`, part as Part);
  }
  return found;
}

const withoutElements = ({ elem, ...rest }: Part): string => JSON.stringify(rest);

/**
 * `digest`: of the table as it was written (digest.ts); `present`: objects of `nft -j list table`, null where there is none. `table`: family and
 * name.
 */
export function tableDifferences(
  table: string,
  digest: string,
  present: readonly Record<string, unknown>[] | null,
): Difference[] {
  const command = `nft list table ${table}`;
  if (present === null) return [{ what: `nft table ${table}`, want: 'there', command }];
  const now = digestTable(present);
  if (now === digest) return [];
  const [want, have] = [JSON.parse(digest) as Part[], JSON.parse(now) as Part[]];
  const [wantNamed, haveNamed] = [named(want), named(have)];
  const found: Difference[] = [];
  for (const [key, part] of wantNamed) {
    const other = haveNamed.get(key);
    if (!other) found.push({ what: key, want: 'there', command });
    else {
      if (withoutElements(part) !== withoutElements(other))
        found.push({ what: key, want: 'as it was written', have: 'altered', command });
      found.push(...elementDifferences(key, elementsOf(part), elementsOf(other), command));
    }
  }
  for (const key of haveNamed.keys()) if (!wantNamed.has(key)) found.push({ what: key, have: 'there', command });
  found.push(...ruleDifferences(want, have, command));
  return found.length > 0
    ? found
    : [{ what: `nft table ${table}`, want: 'as it was written', have: 'altered', command }];
}

function elementDifferences(
  key: string,
  want: readonly string[],
  have: readonly string[],
  command: string,
): Difference[] {
  const missing = want.filter((one) => !have.includes(one));
  const surplus = have.filter((one) => !want.includes(one));
  const some = (all: readonly string[], of: (what: string) => Difference): Difference[] => [
    ...all.slice(0, ELEMENTS_MAX).map((one) => of(`${one} in ${key}`)),
    ...(all.length > ELEMENTS_MAX ? [of(`${all.length - ELEMENTS_MAX} more in ${key}`)] : []),
  ];
  return [
    ...some(missing, (what) => ({ what, want: 'there', command })),
    ...some(surplus, (what) => ({ what, have: 'there', command })),
  ];
}

/** Rules have no names: what of the one list is not in the other, and, where all are in both, their order. */
function ruleDifferences(want: readonly Part[], have: readonly Part[], command: string): Difference[] {
  const rules = (objects: readonly Part[]): { text: string; part: Part }[] =>
    objects.filter(isRule).map(({ rule }) => ({ text: JSON.stringify(rule), part: rule as Part }));
  const left = rules(have);
  const missing = rules(want).filter(({ text }) => {
    const at = left.findIndex((other) => other.text === text);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
  if (missing.length === 0 && left.length === 0) {
    const order = (objects: readonly Part[]): string =>
      rules(objects)
        .map(({ text }) => text)
        .join();
    if (order(want) === order(have)) return [];
    return [{ what: 'the order of the rules', want: 'as they were written', have: 'another', command }];
  }
  return [
    ...missing.map(({ part }) => ({ what: ruleText(part), want: 'there', command })),
    ...left.map(({ part }) => ({ what: ruleText(part), have: 'there', command })),
  ];
}
