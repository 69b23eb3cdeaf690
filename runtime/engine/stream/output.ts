/** Output of a process as chunks that wait for a reader, a bounded number of bytes of them. */
import type { OutputChunk } from '../../../src/contracts/runtime.ts';

/** A reader that is further behind holds its writer up, or, where that is not to be, is let go. */
const BYTES_MAX = 4 << 20;

export class Output implements AsyncIterable<OutputChunk> {
  readonly #chunks: OutputChunk[] = [];
  #bytes = 0;
  #ended = false;
  #news = Promise.withResolvers<void>();
  #room: (() => void) | null = null;
  readonly #onDetach: () => void;

  /** `onDetach`: its reader stopped reading. */
  constructor(onDetach: () => void) {
    this.#onDetach = onDetach;
  }

  /** False when the reader is far behind. */
  push(chunk: OutputChunk): boolean {
    if (this.#ended) return true;
    this.#chunks.push(chunk);
    this.#bytes += chunk.data.length;
    this.#news.resolve();
    return this.#bytes < BYTES_MAX;
  }

  /** Called once, when there is room again. */
  onRoom(listener: () => void): void {
    this.#room = listener;
  }

  end(): void {
    this.#ended = true;
    this.#news.resolve();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    try {
      for (;;) {
        const chunk = this.#chunks.shift();
        if (chunk) {
          this.#bytes -= chunk.data.length;
          if (this.#room && this.#bytes < BYTES_MAX / 2) {
            this.#room();
            this.#room = null;
          }
          yield chunk;
        } else if (this.#ended) return;
        else {
          this.#news = Promise.withResolvers();
          await this.#news.promise;
        }
      }
    } finally {
      this.#onDetach();
    }
  }
}
