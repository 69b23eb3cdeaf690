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
  /** Asks a person and resolves with the answer; null when there is nobody to ask. */
  ask(question: string): Promise<string | null>;
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

/** Standard streams of this process. A reader that went away (`| head`) ends it quietly. */
export function processTerminal(): Terminal {
  const { stdout, env } = process;
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit(0);
  });
  const isTerminal = stdout.isTTY === true;
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void process.stderr.write(text),
    columns: isTerminal ? stdout.columns : undefined,
    colour: isTerminal && !env.NO_COLOR && env.TERM !== 'dumb',
    get live() {
      return process.stderr.isTTY === true && env.TERM !== 'dumb';
    },
    async ask(question) {
      if (!process.stdin.isTTY || !process.stderr.isTTY) return null;
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
