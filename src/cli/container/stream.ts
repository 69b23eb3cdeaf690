/** This command's terminal and a process's streams, one to the other: raw mode, size, signals, the keys that let go. */
import type { Session } from '../../client/container/session.ts';
import { isSluiceError } from '../../errors.ts';
import { UsageError } from '../command/command.ts';
import type { Input, Terminal } from '../print/terminal.ts';

export interface StreamOptions {
  readonly tty: boolean;
  /** Standard input is passed on. */
  readonly stdin: boolean;
  /** Bytes of the keys that let go; empty: none. */
  readonly detachKeys: readonly number[];
  /** Signals that this command gets are the process's. */
  readonly signals: boolean;
}

/** `ctrl-p,ctrl-q` → bytes. */
export function readKeys(given: string): number[] {
  return given
    .split(',')
    .filter((key) => key !== '')
    .map((key) => {
      const control = /^ctrl-([a-z@[\\\]^_])$/i.exec(key)?.[1];
      if (control !== undefined) return control.toUpperCase().charCodeAt(0) & 0x1f;
      if (key.length === 1) return key.charCodeAt(0);
      throw new UsageError(`"${key}" in "${given}" is not a character or ctrl-CHARACTER`);
    });
}

export const DETACH_KEYS = 'ctrl-p,ctrl-q';

/** Finds the keys in what is typed. What was held back because it might have become them goes on when it does not. */
export class KeyWatch {
  readonly #keys: readonly number[];
  #matched = 0;

  constructor(keys: readonly number[]) {
    this.#keys = keys;
  }

  /** What is to be passed on, and whether the keys were typed: nothing after them counts. */
  push(bytes: Uint8Array): { readonly pass: Uint8Array; readonly detach: boolean } {
    if (this.#keys.length === 0) return { pass: bytes, detach: false };
    const pass: number[] = [];
    for (const byte of bytes) {
      while (this.#matched > 0 && byte !== this.#keys[this.#matched]) {
        // The longest beginning of the keys that what was typed ends in.
        const typed = this.#keys.slice(0, this.#matched);
        let keep = this.#matched - 1;
        while (keep > 0 && !typed.slice(-keep).every((key, n) => key === this.#keys[n])) keep--;
        pass.push(...typed.slice(0, this.#matched - keep));
        this.#matched = keep;
      }
      if (byte !== this.#keys[this.#matched]) pass.push(byte);
      else if (++this.#matched === this.#keys.length) return { pass: Uint8Array.from(pass), detach: true };
    }
    return { pass: Uint8Array.from(pass), detach: false };
  }
}

/** Until the process ends (its exit status) or the keys let go (null). */
export async function stream(terminal: Terminal, session: Session, options: StreamOptions): Promise<number | null> {
  const { tty, stdin, signals } = options;
  const input = stdin || tty ? terminal.input() : null;
  const undo: (() => void)[] = [];
  let detached = false;
  const letGo = (): void => {
    detached = true;
    session.detach();
  };
  try {
    if (tty && input?.isTerminal) {
      if (stdin) {
        input.raw(true);
        undo.push(() => input.raw(false));
      }
      const resize = (): void => {
        const size = input.size();
        if (size) void session.resize(size.columns, size.rows);
      };
      resize();
      undo.push(input.onResize(resize));
    }
    if (signals) undo.push(terminal.onSignal((name) => void session.signal(name)));
    // Input that breaks, as it does when it is closed at the end, is input that has ended.
    if (stdin && input)
      passInput(input, session, new KeyWatch(options.detachKeys), letGo).catch(() => session.closeInput());
    for await (const { stream, data } of session.output) await terminal.write(stream, data);
    return session.exitCode();
  } catch (error) {
    if (detached) return null;
    throw error;
  } finally {
    for (const step of undo.reverse()) step();
    input?.close();
  }
}

async function passInput(input: Input, session: Session, keys: KeyWatch, letGo: () => void): Promise<void> {
  for await (const bytes of input.bytes) {
    const { pass, detach } = keys.push(bytes);
    if (pass.length > 0) await session.write(pass);
    if (detach) {
      letGo();
      return;
    }
  }
  await session.closeInput();
}

/** Whether the daemon went away, as opposed to saying no. */
export const wentAway = (error: unknown): boolean => isSluiceError(error, 'daemon.unreachable', 'daemon.stopping');
