/**
 * Output templates as Docker's fingers type them: the part of Go's text/template that listings need. Fields (`{{.Spec.Driver}}`,
 * whatever their case), variables, pipes, parentheses, `if`, `range`, `with`, `{{-` and `-}}`, and the functions of functions.ts.
 * A field that is not there prints `<no value>`, as with Go's maps.
 */
import { UsageError } from '../command/command.ts';
import { callFunction, format, isFunction, isTrue } from './functions.ts';
import { type Token, tokenize } from './token.ts';

type Operand =
  | { readonly type: 'value'; readonly value: unknown }
  | { readonly type: 'path'; readonly of: 'dot' | string | Pipe; readonly fields: readonly string[] }
  | { readonly type: 'function'; readonly name: string };
interface Pipe {
  /** Variables that take the value: one, or key and value of a range. */
  readonly names: readonly string[];
  /** `=` rather than `:=`: a variable that is there already. */
  readonly assigns: boolean;
  readonly commands: readonly (readonly Operand[])[];
}
type Part =
  | { readonly type: 'text'; readonly text: string }
  | { readonly type: 'print'; readonly pipe: Pipe }
  | {
      readonly type: 'if' | 'with' | 'range';
      readonly pipe: Pipe;
      readonly body: readonly Part[];
      readonly other: readonly Part[];
    };

/** What `.Name` means at the root beside the fields of the data: computed columns. */
export type Extras = Readonly<Record<string, () => unknown>>;
export type Template = (data: unknown, extras?: Extras) => string;

/** Fails with UsageError where the text is no template. */
export function compile(text: string): Template {
  const parser = new Parser(tokenize(text));
  const parts = parser.all();
  return (data, extras = {}) => {
    const scope = new Scope(null);
    scope.declare('$', data);
    return evaluate(parts, { dot: data, scope, root: data, extras });
  };
}

class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  all(): Part[] {
    const { parts, end } = this.#parts();
    if (end !== 'end of template') throw new UsageError(`template: {{${end}}} without a beginning`);
    return parts;
  }

  get #next(): Token {
    return this.#tokens[this.#at] ?? { type: 'close', text: 'end of template' };
  }

  #take(): Token {
    const token = this.#next;
    this.#at++;
    return token;
  }

  #is(text: string): boolean {
    return this.#next.type !== 'string' && this.#next.text === text;
  }

  /** Up to `end`, `else` or the end of the template; the words after `else` are left to be read. */
  #parts(): { parts: Part[]; end: string } {
    const parts: Part[] = [];
    while (this.#at < this.#tokens.length) {
      const token = this.#take();
      if (token.type === 'text') {
        parts.push({ type: 'text', text: token.text });
        continue;
      }
      const word = this.#next;
      if (word.type === 'word' && (word.text === 'end' || word.text === 'else')) {
        this.#take();
        if (word.text === 'end') this.#close();
        return { parts, end: word.text };
      }
      if (word.type === 'word' && (word.text === 'if' || word.text === 'range' || word.text === 'with')) {
        this.#take();
        parts.push(this.#block(word.text));
      } else if (word.type === 'close') this.#take();
      else {
        parts.push({ type: 'print', pipe: this.#pipe() });
        this.#close();
      }
    }
    return { parts, end: 'end of template' };
  }

  #block(type: 'if' | 'range' | 'with'): Part {
    const pipe = this.#pipe();
    this.#close();
    const { parts: body, end } = this.#parts();
    if (end === 'end') return { type, pipe, body, other: [] };
    if (end !== 'else') throw new UsageError(`template: {{${type}}} without {{end}}`);
    const chained = this.#next;
    if (chained.type === 'word' && (chained.text === 'if' || chained.text === 'with')) {
      this.#take();
      // `else if` shares the end of its `if`.
      return { type, pipe, body, other: [this.#block(chained.text)] };
    }
    this.#close();
    const { parts: other, end: last } = this.#parts();
    if (last !== 'end') throw new UsageError(`template: {{${type}}} without {{end}}`);
    return { type, pipe, body, other };
  }

  #close(): void {
    const token = this.#take();
    if (token.type !== 'close') throw new UsageError(`template: "${token.text}" where }} was expected`);
  }

  #pipe(): Pipe {
    const names: string[] = [];
    let assigns = false;
    const start = this.#at;
    while (this.#next.type === 'variable') {
      names.push(this.#take().text);
      if (this.#is(',')) this.#take();
      else break;
    }
    if (names.length > 0 && (this.#is(':=') || this.#is('='))) assigns = this.#take().text === '=';
    else {
      names.length = 0;
      this.#at = start;
    }
    const commands = [this.#command()];
    while (this.#is('|')) {
      this.#take();
      commands.push(this.#command());
    }
    return { names, assigns, commands };
  }

  #command(): Operand[] {
    const operands: Operand[] = [];
    for (let operand = this.#operand(); operand; operand = this.#operand()) operands.push(operand);
    if (operands.length === 0) throw new UsageError(`template: "${this.#next.text}" where a value was expected`);
    const [first] = operands;
    if (operands.length > 1 && first?.type !== 'function')
      throw new UsageError('template: only a function takes arguments');
    return operands;
  }

  #operand(): Operand | null {
    const { type, text } = this.#next;
    if (type === 'string' || type === 'number') {
      this.#take();
      return { type: 'value', value: type === 'number' ? Number(text) : text };
    }
    if (type === 'word') {
      this.#take();
      if (text === 'true' || text === 'false') return { type: 'value', value: text === 'true' };
      if (text === 'nil') return { type: 'value', value: null };
      if (!isFunction(text)) throw new UsageError(`template: there is no function "${text}"`);
      return { type: 'function', name: text };
    }
    if (type === 'field') return { type: 'path', of: 'dot', fields: this.#fields() };
    if (type === 'variable') return { type: 'path', of: this.#take().text, fields: this.#fields() };
    if (type !== 'sign' || text !== '(') return null;
    this.#take();
    const of = this.#pipe();
    if (!this.#is(')')) throw new UsageError('template: a ( is not closed');
    this.#take();
    return { type: 'path', of, fields: this.#fields() };
  }

  /** `.A.B` directly behind each other; `.` alone is the dot itself. */
  #fields(): string[] {
    const fields: string[] = [];
    for (let first = true; this.#next.type === 'field' && (first || this.#next.joined); first = false) {
      const { text } = this.#take();
      if (text !== '') fields.push(text);
    }
    return fields;
  }
}

class Scope {
  readonly #values = new Map<string, unknown>();
  readonly #outer: Scope | null;

  constructor(outer: Scope | null) {
    this.#outer = outer;
  }

  declare(name: string, value: unknown): void {
    this.#values.set(name, value);
  }

  assign(name: string, value: unknown): void {
    if (this.#values.has(name)) this.#values.set(name, value);
    else if (this.#outer) this.#outer.assign(name, value);
    else throw new UsageError(`template: there is no variable ${name}`);
  }

  get(name: string): unknown {
    if (this.#values.has(name)) return this.#values.get(name);
    if (!this.#outer) throw new UsageError(`template: there is no variable ${name}`);
    return this.#outer.get(name);
  }
}

interface State {
  readonly dot: unknown;
  readonly scope: Scope;
  readonly root: unknown;
  readonly extras: Extras;
}

function evaluate(parts: readonly Part[], state: State): string {
  return parts.map((part) => evaluatePart(part, state)).join('');
}

function evaluatePart(part: Part, state: State): string {
  if (part.type === 'text') return part.text;
  const inner: State = { ...state, scope: new Scope(state.scope) };
  if (part.type === 'print') {
    const value = evaluatePipe(part.pipe, state);
    return part.pipe.names.length > 0 ? '' : format(value);
  }
  if (part.type === 'range') return evaluateRange(part, state);
  const value = evaluatePipe(part.pipe, inner);
  if (!isTrue(value)) return evaluate(part.other, inner);
  return evaluate(part.body, part.type === 'with' ? { ...inner, dot: value } : inner);
}

function evaluateRange(part: Extract<Part, { type: 'range' | 'if' | 'with' }>, state: State): string {
  const { names, ...pipe } = part.pipe;
  const value = evaluatePipe({ ...pipe, names: [] }, state);
  const entries = entriesOf(value);
  if (entries.length === 0) return evaluate(part.other, { ...state, scope: new Scope(state.scope) });
  return entries
    .map(([key, item]) => {
      const scope = new Scope(state.scope);
      if (names.length === 1) scope.declare(names[0]!, item);
      if (names.length > 1) {
        scope.declare(names[0]!, key);
        scope.declare(names[1]!, item);
      }
      return evaluate(part.body, { ...state, scope, dot: item });
    })
    .join('');
}

/** Arrays by index, objects by sorted key, a number counts from 0. */
function entriesOf(value: unknown): (readonly [unknown, unknown])[] {
  if (typeof value === 'number')
    return Array.from({ length: Math.max(0, Math.min(value, 1_000_000)) }, (_, i) => [i, i]);
  if (Array.isArray(value)) return value.map((item, i) => [i, item]);
  if (value === null || value === undefined) return [];
  if (typeof value === 'object') return Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  throw new UsageError(`template: range cannot go over ${format(value)}`);
}

function evaluatePipe(pipe: Pipe, state: State): unknown {
  let value: unknown;
  for (const [i, operands] of pipe.commands.entries()) value = evaluateCommand(operands, i > 0 ? [value] : [], state);
  for (const name of pipe.names) {
    if (pipe.assigns) state.scope.assign(name, value);
    else state.scope.declare(name, value);
  }
  return value;
}

function evaluateCommand([first, ...rest]: readonly Operand[], piped: readonly unknown[], state: State): unknown {
  if (first!.type === 'function')
    return callFunction(first!.name, [...rest.map((operand) => evaluateOperand(operand, state)), ...piped]);
  if (piped.length > 0) throw new UsageError('template: what stands behind a | is a function');
  return evaluateOperand(first!, state);
}

function evaluateOperand(operand: Operand, state: State): unknown {
  if (operand.type === 'value') return operand.value;
  if (operand.type === 'function') return callFunction(operand.name, []);
  const { of, fields } = operand;
  let value = of === 'dot' ? state.dot : typeof of === 'string' ? state.scope.get(of) : evaluatePipe(of, state);
  for (const field of fields) value = fieldOf(value, field, state);
  return value;
}

function fieldOf(value: unknown, field: string, { root, extras }: State): unknown {
  const lower = field.toLowerCase();
  if (value === root) {
    const extra = Object.keys(extras).find((key) => key.toLowerCase() === lower);
    if (extra !== undefined) return extras[extra]!();
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const key = Object.hasOwn(value, field) ? field : Object.keys(value).find((name) => name.toLowerCase() === lower);
  return key === undefined ? undefined : (value as Record<string, unknown>)[key];
}
