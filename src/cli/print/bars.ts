/** A transfer on standard error: a bar a layer that is written over, or, where that cannot be, a line for each thing that has happened. */
import type { ImageProgress } from '../../model/image/image.ts';
import { bytesText } from './amount.ts';
import { clean } from './table.ts';
import type { Terminal } from './terminal.ts';

const BAR_CHARS = 30;
const EVERY_MS = 80;
const COLUMNS = 80;
/** More than a screen cannot be written over. */
const LINES_MAX = 20;
/** Words that are news where nothing is written over. */
const NEWS = new Set(['exists', 'mounted', 'done', 'compressing']);

const nameOf = (what: string): string => (what.startsWith('sha256:') ? what.slice(7, 19) : what);

/** `0123456789ab downloading  [=====>    ] 1.2MB/4.5MB`; pure. */
export function barOf({ what, text, current, total }: ImageProgress): string {
  const head = `${nameOf(what)} ${text}`;
  if (current === undefined || !total) return current === undefined ? head : `${head} ${bytesText(current)}`;
  const filled = Math.min(BAR_CHARS, Math.floor((current / total) * BAR_CHARS));
  const bar = filled === BAR_CHARS ? '='.repeat(BAR_CHARS) : `${'='.repeat(filled)}>`.padEnd(BAR_CHARS);
  return `${head.padEnd(25)} [${bar}] ${bytesText(current)}/${bytesText(total)}`;
}

export class Bars {
  readonly #terminal: Terminal;
  readonly #latest = new Map<string, ImageProgress>();
  #lines = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  readonly show = (progress: ImageProgress): void => {
    const before = this.#latest.get(progress.what);
    this.#latest.set(progress.what, progress);
    if (this.#terminal.live) {
      this.#timer ??= setTimeout(() => this.#draw(), EVERY_MS);
      return;
    }
    const news = progress.type === 'status' ? progress.current === undefined : NEWS.has(progress.text);
    if (news && before?.text !== progress.text)
      this.#terminal.err(`${clean(`${nameOf(progress.what)}: ${progress.text}`)}\n`);
  };

  /** Leaves the last picture standing. */
  end(): void {
    if (this.#timer) clearTimeout(this.#timer);
    if (this.#terminal.live && this.#latest.size > 0) this.#draw();
  }

  #draw(): void {
    this.#timer = null;
    const width = (this.#terminal.columns ?? COLUMNS) - 1;
    const lines = [...this.#latest.values()]
      .slice(-LINES_MAX)
      .map((each) => [...clean(barOf(each))].slice(0, width).join(''));
    const up = this.#lines > 0 ? `\u001b[${this.#lines}A` : '';
    this.#terminal.err(up + lines.map((line) => `\r\u001b[K${line}\n`).join(''));
    this.#lines = lines.length;
  }
}
