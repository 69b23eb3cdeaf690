/** Where output goes, and what it can show. */

export interface Terminal {
  out(text: string): void;
  err(text: string): void;
  /** Characters a line of standard output; undefined when it is not a terminal. */
  readonly columns: number | undefined;
  /** Standard output shows colours. */
  readonly colour: boolean;
  /** Standard error is a terminal: a line may be written over. */
  readonly live: boolean;
  /** Bytes as they are; resolves when there is room for more. */
  write(stream: 'stdout' | 'stderr', data: Uint8Array): Promise<void>;
  /** Standard input, opened at the first call. */
  input(): Input;
  /** Signals that would end this process go to the listener instead, until the returned function is called. */
  onSignal(listener: (name: string) => void): () => void;
  /** Asks a person and resolves with the answer; null when there is nobody to ask. */
  ask(question: string): Promise<string | null>;
}

/** Standard input, and the terminal that it may be. */
export interface Input {
  readonly isTerminal: boolean;
  /** Ends at the end of input, or with `close`. */
  readonly bytes: AsyncIterable<Uint8Array>;
  /** Every key as it is typed, unseen and unheeded by the terminal itself. */
  raw(on: boolean): void;
  size(): { readonly columns: number; readonly rows: number } | undefined;
  onResize(listener: () => void): () => void;
  close(): void;
}

export type Colour = 'green' | 'yellow' | 'red' | 'gray' | 'bold';

/** SGR numbers on and off (ECMA-48). */
const CODES: Readonly<Record<Colour, readonly [number, number]>> = {
  bold: [1, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  gray: [90, 39],
};

export const paint = (colour: Colour, text: string): string =>
  `\u001b[${CODES[colour][0]}m${text}\u001b[${CODES[colour][1]}m`;

/**
 * Standard streams of this process. None is opened before it is used: Node makes a pipe non-blocking when it opens it, and that would
 * stay so for a program that this process becomes. A reader that went away (`| head`) ends it quietly.
 */
export function processTerminal(): Terminal {
  const { env } = process;
  const { isatty } = process.getBuiltinModule('node:tty');
  let stdout: typeof process.stdout | undefined;
  const open = (): typeof process.stdout => {
    stdout ??= process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit(0);
    });
    return stdout;
  };
  return {
    out: (text) => void open().write(text),
    err: (text) => void process.stderr.write(text),
    get columns() {
      return isatty(1) ? open().columns || undefined : undefined;
    },
    get colour() {
      return isatty(1) && !env.NO_COLOR && env.TERM !== 'dumb';
    },
    get live() {
      return isatty(2) && env.TERM !== 'dumb';
    },
    async write(stream, data) {
      const target = stream === 'stdout' ? open() : process.stderr;
      if (!target.write(data)) await new Promise<void>((resolve) => target.once('drain', () => resolve()));
    },
    input: () => processInput(),
    onSignal(listener) {
      const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const).map((name) => {
        const handler = (): void => listener(name);
        process.on(name, handler);
        return () => void process.off(name, handler);
      });
      return () => {
        for (const stop of handlers) stop();
      };
    },
    async ask(question) {
      if (!isatty(0) || !isatty(2)) return null;
      const { createInterface } = await import('node:readline/promises');
      const lines = createInterface({ input: process.stdin, output: process.stderr });
      try {
        return await lines.question(question);
      } finally {
        lines.close();
      }
    },
  };
}

function processInput(): Input {
  const { stdin } = process;
  const isTerminal = stdin.isTTY === true;
  return {
    isTerminal,
    bytes: stdin as AsyncIterable<Uint8Array>,
    raw: (on) => void (isTerminal && stdin.setRawMode(on)),
    size() {
      const { columns, rows } = process.stdout.isTTY ? process.stdout : process.stderr;
      return columns && rows ? { columns, rows } : undefined;
    },
    onResize(listener) {
      // Node asks the terminal for its size only where it looks at one.
      const watched = process.stdout.isTTY ? process.stdout : process.stderr;
      watched.on('resize', listener);
      return () => void watched.off('resize', listener);
    },
    close: () => void stdin.destroy(),
  };
}
