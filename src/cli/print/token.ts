/** A template cut into text and the tokens of its actions. */
import { UsageError } from '../command/command.ts';

export interface Token {
  /** `field`: a name behind a dot, empty for the dot alone; `close`: the end of an action. */
  readonly type: 'text' | 'open' | 'close' | 'field' | 'variable' | 'word' | 'string' | 'number' | 'sign';
  readonly text: string;
  /** No blank before it. */
  readonly joined?: boolean;
}

const ACTION =
  /(\s+)|\.([\p{L}_][\p{L}\p{N}_]*)?|(\$[\p{L}\p{N}_]*)|("(?:\\.|[^"\\])*"|`[^`]*`)|(-?\d+(?:\.\d+)?)|([\p{L}_][\p{L}\p{N}_]*)|(:=|[=|(),])/uy;

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\', '"': '"', "'": "'" };
const unescapeText = (text: string): string => text.replace(/\\(.)/gs, (all, char: string) => ESCAPES[char] ?? all);

export function tokenize(template: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let trimNext = false;
  const addText = (raw: string): void => {
    const text = trimNext ? raw.trimStart() : raw;
    if (text) tokens.push({ type: 'text', text });
  };
  while (at < template.length) {
    const open = template.indexOf('{{', at);
    const before = template.slice(at, open < 0 ? undefined : open);
    if (open < 0) {
      addText(before);
      break;
    }
    const trimmed = /^-\s/.test(template.slice(open + 2));
    addText(trimmed ? before.trimEnd() : before);
    at = open + (trimmed ? 3 : 2);
    const comment = /\s*\/\*[\s\S]*?\*\/\s*/y;
    comment.lastIndex = at;
    if (comment.test(template)) at = comment.lastIndex;
    else tokens.push({ type: 'open', text: '{{' });
    const isComment = tokens.at(-1)?.type !== 'open';
    const end = readAction(template, at, isComment ? [] : tokens);
    at = end.at;
    trimNext = end.trims;
    if (!isComment) tokens.push({ type: 'close', text: '}}' });
  }
  return tokens;
}

function readAction(template: string, from: number, tokens: Token[]): { at: number; trims: boolean } {
  let at = from;
  let joined = false;
  for (;;) {
    const closing = /\s-\}\}|-\}\}|\}\}/y;
    closing.lastIndex = at;
    const close = closing.exec(template)?.[0];
    if (close) return { at: at + close.length, trims: close.includes('-') };
    if (at >= template.length) throw new UsageError(`template: a {{ is not closed in ${template}`);
    ACTION.lastIndex = at;
    const match = ACTION.exec(template);
    if (!match) throw new UsageError(`template: "${template.slice(at, at + 10)}" cannot be read in ${template}`);
    at = ACTION.lastIndex;
    const [all, blank, field, variable, string, number, word, sign] = match;
    if (blank === undefined) {
      if (variable !== undefined) tokens.push({ type: 'variable', text: variable, joined });
      else if (string !== undefined)
        tokens.push({
          type: 'string',
          text: string[0] === '`' ? string.slice(1, -1) : unescapeText(string.slice(1, -1)),
          joined,
        });
      else if (number !== undefined) tokens.push({ type: 'number', text: number, joined });
      else if (word !== undefined) tokens.push({ type: 'word', text: word, joined });
      else if (sign !== undefined) tokens.push({ type: 'sign', text: sign, joined });
      else tokens.push({ type: 'field', text: field ?? '', joined });
    }
    joined = blank === undefined && all !== '';
  }
}
