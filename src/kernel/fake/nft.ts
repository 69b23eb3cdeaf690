/**
 * As much of nft as what we write needs: tables with chains, rules, sets, maps and their elements, added, replaced and deleted in atomic
 * transactions. Rules are kept as their text; whether one makes sense only the kernel knows.
 */
import { SluiceError } from '../../errors.ts';

type Kind = 'chain' | 'set' | 'map';
interface Part {
  readonly kind: Kind;
  readonly name: string;
  /** `type filter hook forward priority 0`, `type ipv4_addr` and the like. */
  head: string[];
  rules: { readonly handle: number; readonly text: string }[];
  elements: Set<string>;
  readonly handle: number;
}
interface Table {
  readonly family: string;
  readonly name: string;
  readonly handle: number;
  readonly parts: Map<string, Part>;
}

const FAMILIES = ['ip', 'ip6', 'inet', 'arp', 'bridge', 'netdev'];

/** Splits at newlines and semicolons (or commas) outside braces and quotes. */
function split(text: string, separators: string): string[] {
  const found: string[] = [];
  let depth = 0;
  let quoted = false;
  let word = '';
  for (const char of text.replaceAll(/(^|\s)#.*$/gm, '')) {
    if (char === '"') quoted = !quoted;
    if (!quoted && char === '{') depth++;
    if (!quoted && char === '}') depth--;
    if (depth === 0 && !quoted && separators.includes(char)) {
      found.push(word.trim());
      word = '';
    } else word += char;
  }
  if (depth !== 0 || quoted) throw refused(text, 'syntax error, unexpected end of file', 'kernel.failed');
  return [...found, word.trim()].filter((part) => part !== '');
}

/** What stands in the outermost braces, and what stands before them. */
function body(statement: string): { readonly head: string; readonly inside: string | undefined } {
  const open = statement.indexOf('{');
  if (open < 0) return { head: statement, inside: undefined };
  return { head: statement.slice(0, open).trim(), inside: statement.slice(open + 1, statement.lastIndexOf('}')) };
}

function refused(statement: string, words: string, code: 'kernel.failed' | 'kernel.notfound' | 'kernel.exists') {
  return new SluiceError(code, `nft "${statement.split('\n')[0]!.slice(0, 120)}": Error: ${words}`, { nft: words });
}
const missing = (statement: string): SluiceError =>
  refused(statement, 'Could not process rule: No such file or directory', 'kernel.notfound');

export class NftRuleset {
  #tables = new Map<string, Table>();
  #handles = 0;

  /** All of it or nothing. */
  apply(ruleset: string): void {
    const before = structuredClone(this.#tables);
    try {
      for (const statement of split(ruleset, '\n;')) this.#statement(statement);
    } catch (error) {
      this.#tables = before;
      throw error;
    }
  }

  tables(): string[] {
    return [...this.#tables.keys()];
  }

  list(what: string): Record<string, unknown>[] | null {
    const [kind, ...words] = what.trim().split(/\s+/);
    if (kind === 'tables') return [...this.#tables.values()].map((table) => this.#describeTable(table));
    if (kind === 'ruleset') return [...this.#tables.values()].flatMap((table) => this.#describe(table));
    const path = this.#path(words);
    const table = this.#tables.get(path.table);
    if (!table) return null;
    if (kind === 'table') return this.#describe(table);
    const part = table.parts.get(`${kind} ${path.rest[0]}`);
    return part ? this.#describePart(table, part) : null;
  }

  #statement(statement: string): void {
    const { head, inside } = body(statement);
    const words = head.split(/\s+/);
    const verb = ['add', 'create', 'insert', 'delete', 'destroy', 'flush'].includes(words[0]!) ? words.shift()! : 'add';
    const what = words.shift();
    if (what === 'ruleset' && verb === 'flush') this.#tables.clear();
    else if (what === 'table') this.#table(verb, words, inside, statement);
    else if (what === 'chain' || what === 'set' || what === 'map') this.#part(verb, what, words, inside, statement);
    else if (what === 'rule') this.#rule(words, inside, statement);
    else if (what === 'element') this.#element(verb, words, inside, statement);
    else throw refused(statement, `syntax error, unexpected ${what ?? verb}`, 'kernel.failed');
  }

  #table(verb: string, words: string[], inside: string | undefined, statement: string): void {
    const { table: key } = this.#path(words);
    const found = this.#tables.get(key);
    if (verb === 'delete' || verb === 'destroy') {
      if (!found && verb === 'delete') throw missing(statement);
      this.#tables.delete(key);
      return;
    }
    if (verb === 'flush') {
      if (!found) throw missing(statement);
      for (const part of found.parts.values()) part.rules = [];
      return;
    }
    if (found && verb === 'create') throw refused(statement, 'Could not process rule: File exists', 'kernel.exists');
    const [family, name] = key.split(' ') as [string, string];
    const table = found ?? { family, name, handle: ++this.#handles, parts: new Map() };
    this.#tables.set(key, table);
    for (const part of split(inside ?? '', '\n;')) {
      const { head, inside: content } = body(part);
      const [kind, partName] = head.split(/\s+/) as [Kind, string];
      if (/^(?:comment|flags)$/.test(kind)) continue;
      if (!['chain', 'set', 'map'].includes(kind))
        throw refused(part, `syntax error, unexpected ${kind}`, 'kernel.failed');
      this.#fill(this.#ensurePart(table, kind, partName), content ?? '');
    }
  }

  #part(verb: string, kind: Kind, words: string[], inside: string | undefined, statement: string): void {
    const path = this.#path(words);
    const table = this.#tables.get(path.table);
    if (!table) throw missing(statement);
    const key = `${kind} ${path.rest[0]}`;
    const found = table.parts.get(key);
    if (!found && (verb === 'delete' || verb === 'flush')) throw missing(statement);
    if (verb === 'delete' || verb === 'destroy') table.parts.delete(key);
    else if (verb === 'flush') {
      found!.rules = [];
      found!.elements.clear();
    } else this.#fill(this.#ensurePart(table, kind, path.rest[0]!), inside ?? '');
  }

  #rule(words: string[], inside: string | undefined, statement: string): void {
    const path = this.#path(words);
    const chain = this.#tables.get(path.table)?.parts.get(`chain ${path.rest[0]}`);
    if (!chain) throw missing(statement);
    const text = path.rest.slice(1).join(' ') + (inside === undefined ? '' : statement.slice(statement.indexOf('{')));
    chain.rules.push({ handle: ++this.#handles, text });
  }

  #element(verb: string, words: string[], inside: string | undefined, statement: string): void {
    const path = this.#path(words);
    const table = this.#tables.get(path.table);
    const part = table?.parts.get(`set ${path.rest[0]}`) ?? table?.parts.get(`map ${path.rest[0]}`);
    if (!part) throw missing(statement);
    for (const element of split(inside ?? '', ',')) {
      if (verb !== 'delete') part.elements.add(element);
      else if (!part.elements.delete(element)) throw missing(statement);
    }
  }

  #fill(part: Part, content: string): void {
    for (const line of split(content, '\n;')) {
      const { head, inside } = body(line);
      if (part.kind !== 'chain' && /^elements\s*=$/.test(head)) {
        for (const element of split(inside ?? '', ',')) part.elements.add(element);
      } else if (part.kind !== 'chain' || /^(type|policy)\s/.test(line)) {
        if (!part.head.includes(line)) part.head.push(line);
      } else part.rules.push({ handle: ++this.#handles, text: line });
    }
  }

  #ensurePart(table: Table, kind: Kind, name: string): Part {
    const key = `${kind} ${name}`;
    const part = table.parts.get(key) ?? {
      kind,
      name,
      head: [],
      rules: [],
      elements: new Set<string>(),
      handle: ++this.#handles,
    };
    table.parts.set(key, part);
    return part;
  }

  /** `[inet] sluice chain …` → the table's key and what follows. */
  #path(words: readonly string[]): { readonly table: string; readonly rest: readonly string[] } {
    const [family, ...rest] = FAMILIES.includes(words[0] ?? '') ? words : ['ip', ...words];
    return { table: `${family} ${rest[0] ?? ''}`, rest: rest.slice(1) };
  }

  #describeTable = ({ family, name, handle }: Table): Record<string, unknown> => ({ table: { family, name, handle } });

  #describe(table: Table): Record<string, unknown>[] {
    const parts = [...table.parts.values()].flatMap((part) => this.#describePart(table, part));
    // Chains stand before all rules, as nft lists them.
    return [
      this.#describeTable(table),
      ...parts.filter((one) => !('rule' in one)),
      ...parts.filter((one) => 'rule' in one),
    ];
  }

  #describePart({ family, name: table }: Table, part: Part): Record<string, unknown>[] {
    const { kind, name, handle } = part;
    const common = { family, table, name, handle };
    const head = part.head.join('; ');
    if (kind !== 'chain')
      return [{ [kind]: { ...common, type: /\btype(?:of)? ([^;]+)/.exec(head)?.[1], elem: [...part.elements] } }];
    const hook = /type (\S+) hook (\S+) (?:device \S+ )?priority ([^;]+)/.exec(head);
    const policy = /policy (\w+)/.exec(head)?.[1];
    const base = hook ? { type: hook[1], hook: hook[2], prio: hook[3]!.trim(), policy: policy ?? 'accept' } : {};
    return [
      { chain: { ...common, ...base } },
      ...part.rules.map((rule) => ({
        rule: { family, table, chain: name, handle: rule.handle, expr: [{ text: rule.text }] },
      })),
    ];
  }
}
