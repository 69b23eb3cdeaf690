/**
 * Frames of a stream to a process: what follows `HTTP/1.1 101` on exec, attach and the way in of cp. One byte of type, three of zero, four of
 * length (big-endian), then that many bytes. Both sides speak the same form; the first frame is the caller's `open`.
 */

export const FRAME = {
  /** Caller: JSON of what is asked for. */
  open: 0,
  /** Daemon: it runs; output follows. */
  ready: 1,
  stdin: 2,
  /** Caller: end of standard input. */
  end: 3,
  stdout: 4,
  stderr: 5,
  /** Caller: `{columns, rows}` of the terminal. */
  resize: 6,
  /** Caller: `{signal}` for the process. */
  signal: 7,
  /** Daemon: `{exitCode}`; nothing follows. */
  exit: 8,
  /** Daemon: `{code, message, details}`; nothing follows. */
  error: 9,
  /** Daemon: the streams ended, the process may go on. */
  detached: 10,
} as const;

export interface Frame {
  readonly type: number;
  readonly data: Uint8Array;
}

export const FRAME_HEAD_BYTES = 8;
/** Longer ones are refused; output is cut into such. */
export const FRAME_BYTES_MAX = 1024 * 1024;

export function encodeFrame(type: number, data: Uint8Array | string = new Uint8Array()): Uint8Array {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  const frame = Buffer.alloc(FRAME_HEAD_BYTES + bytes.length);
  frame[0] = type;
  frame.writeUInt32BE(bytes.length, 4);
  frame.set(bytes, FRAME_HEAD_BYTES);
  return frame;
}

/** Frames out of bytes as they arrive. Throws a RangeError for what is no frame. */
export class FrameReader {
  #rest = Buffer.alloc(0);

  *push(bytes: Uint8Array): Generator<Frame> {
    this.#rest = this.#rest.length === 0 ? Buffer.from(bytes) : Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= FRAME_HEAD_BYTES) {
      const length = this.#rest.readUInt32BE(4);
      if (length > FRAME_BYTES_MAX) throw new RangeError(`a frame of ${length} bytes, more than ${FRAME_BYTES_MAX}`);
      if (this.#rest.length < FRAME_HEAD_BYTES + length) return;
      const frame = {
        type: this.#rest[0]!,
        data: this.#rest.subarray(FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + length),
      };
      this.#rest = this.#rest.subarray(FRAME_HEAD_BYTES + length);
      yield frame;
    }
  }
}
