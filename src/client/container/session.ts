/** A stream to a process at the caller's end: frames in both directions, with the process's exit status at the end. */
import { ERROR_CODES, type ErrorCode, SluiceError } from '../../errors.ts';
import { Channel } from '../../model/container/channel.ts';
import { FRAME } from '../../model/container/frame.ts';
import type { Caller } from '../http.ts';

/** As src/api/container/stream.ts names it. */
const UPGRADE = 'sluice-stream';

export interface Output {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

export interface Session {
  /** Ends with the process. Rejects with the daemon's error, or `daemon.unreachable` when the connection breaks. */
  readonly output: AsyncIterable<Output>;
  /** Known when `output` has ended; null: the caller let go. */
  exitCode(): number | null;
  /** Resolves when there is room for more. */
  write(data: Uint8Array): Promise<void>;
  closeInput(): Promise<void>;
  resize(columns: number, rows: number): Promise<void>;
  signal(name: string): Promise<void>;
  /** Lets go; the process goes on. */
  detach(): void;
}

function errorOf(data: Uint8Array): SluiceError {
  const { code, message, details } = JSON.parse(Buffer.from(data).toString('utf8')) as {
    readonly code: string;
    readonly message: string;
    readonly details?: Record<string, unknown>;
  };
  const known = Object.hasOwn(ERROR_CODES, code);
  return new SluiceError(known ? (code as ErrorCode) : 'internal', message, known ? details : { ...details, code });
}

/** Resolves when the daemon says that it runs. */
export async function openSession(call: Caller, path: string, request: object): Promise<Session> {
  const { socket, head } = await call.upgrade(path, UPGRADE);
  const channel = new Channel(socket, head);
  const frames = channel.frames();
  const broken = (): SluiceError =>
    new SluiceError('daemon.unreachable', `the connection to the daemon at ${call.host} broke`, { host: call.host });
  await channel.send(FRAME.open, JSON.stringify(request));
  const { value: first, done } = await frames.next();
  if (done || first.type !== FRAME.ready) {
    channel.destroy();
    throw done ? broken() : errorOf(first.data);
  }
  let exitCode: number | null = null;
  let detached = false;
  async function* output(): AsyncGenerator<Output> {
    for await (const { type, data } of frames) {
      if (type === FRAME.stdout) yield { stream: 'stdout', data };
      else if (type === FRAME.stderr) yield { stream: 'stderr', data };
      else if (type === FRAME.error) {
        channel.destroy();
        throw errorOf(data);
      } else if (type === FRAME.exit) {
        exitCode = (JSON.parse(Buffer.from(data).toString('utf8')) as { readonly exitCode: number }).exitCode;
        channel.destroy();
        return;
      }
    }
    if (!detached) throw broken();
  }
  return {
    output: output(),
    exitCode: () => exitCode,
    write: (data) => channel.send(FRAME.stdin, data),
    closeInput: () => channel.send(FRAME.end),
    resize: (columns, rows) => channel.send(FRAME.resize, JSON.stringify({ columns, rows })),
    signal: (signal) => channel.send(FRAME.signal, JSON.stringify({ signal })),
    detach() {
      detached = true;
      channel.destroy();
    },
  };
}
