/** A terminal for command lines that run in the process of the test. */
import type { Terminal } from '../src/cli/print/terminal.ts';

export interface Said {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

export interface Catcher extends Terminal {
  readonly said: () => Omit<Said, 'status'>;
}

/** A terminal that keeps what is printed. */
export function catcher(options: Partial<Terminal> = {}): Catcher {
  let out = '';
  let err = '';
  return {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    columns: undefined,
    colour: false,
    live: false,
    write: async (stream, data) => {
      if (stream === 'stdout') out += Buffer.from(data).toString();
      else err += Buffer.from(data).toString();
    },
    input: () => ({
      isTerminal: false,
      bytes: (async function* () {})(),
      raw: () => undefined,
      size: () => undefined,
      onResize: () => () => undefined,
      close: () => undefined,
    }),
    onSignal: () => () => undefined,
    ask: async () => null,
    ...options,
    said: () => ({ out, err }),
  };
}
