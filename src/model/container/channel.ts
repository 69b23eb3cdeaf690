/** Frames over a connection, the same at both ends: what is sent waits for the peer to take it, what arrives is read at the reader's pace. */
import type { Duplex } from 'node:stream';
import { encodeFrame, FRAME_BYTES_MAX, type Frame, FrameReader } from './frame.ts';

export class Channel {
  readonly #socket: Duplex;
  readonly #reader = new FrameReader();
  readonly #head: Uint8Array;
  #draining: Promise<void> | null = null;

  /** `head`: bytes that arrived with the upgrade. */
  constructor(socket: Duplex, head: Uint8Array) {
    this.#socket = socket;
    this.#head = head;
    // An error ends the iteration and the writes; without a listener it would end the process.
    socket.on('error', () => socket.destroy());
  }

  get closed(): boolean {
    return this.#socket.destroyed || this.#socket.writableEnded;
  }

  onClose(listener: () => void): void {
    if (this.#socket.destroyed) listener();
    else this.#socket.once('close', listener);
  }

  /** Ends when the peer does, or the connection breaks. RangeError for what is no frame. */
  async *frames(): AsyncGenerator<Frame> {
    yield* this.#reader.push(this.#head);
    try {
      for await (const bytes of this.#socket as AsyncIterable<Uint8Array>) yield* this.#reader.push(bytes);
    } catch (error) {
      if (error instanceof RangeError) throw error;
      // The connection broke: for the reader that is the end.
      if (!this.#socket.destroyed) this.#socket.destroy();
    }
  }

  /** Resolves when there is room for more; what the peer no longer takes is dropped. */
  async send(type: number, data: Uint8Array | string = new Uint8Array()): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    for (let at = 0; at === 0 || at < bytes.length; at += FRAME_BYTES_MAX) {
      if (this.closed) return;
      if (!this.#socket.write(encodeFrame(type, bytes.subarray(at, at + FRAME_BYTES_MAX)))) await this.#drained();
    }
  }

  /** Sends what is left and says that no more comes. */
  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #drained(): Promise<void> {
    this.#draining ??= new Promise<void>((resolve) => {
      const done = (): void => {
        this.#socket.off('drain', done);
        this.#socket.off('close', done);
        this.#draining = null;
        resolve();
      };
      this.#socket.once('drain', done);
      this.#socket.once('close', done);
    });
    return this.#draining;
  }
}
