/** DNS over a TCP connection (RFC 7766): length-prefixed questions, several under way at once, bounded in number, size and idle time. */
import type { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.ts';
import { QUERY_BYTES_MAX } from './wire.ts';

/** A connection ends after so long without a whole question, milliseconds (RFC 7766 §6.2.3: seconds). */
const IDLE_MS = 10_000;
/** Questions of one connection that are under way; reading stops until some are answered. */
const OPEN_MAX = 64;
/** Answers that the client has not taken, octets; likewise. */
const UNSENT_BYTES_MAX = 256 << 10;

/** Takes a question; `answer` is called at most once, with null when there is none. */
export type Ask = (question: Buffer, answer: (message: Uint8Array | null) => void) => void;

export class Stream {
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #ask: Ask;
  readonly #onEnd: () => void;
  #received: Buffer = Buffer.alloc(0);
  #open = 0;
  #ended = false;
  #halfClosed = false;
  #idle: Timer;
  /** Monotonic milliseconds of the last question. */
  lastUsed: number;

  constructor(socket: Socket, clock: Clock, ask: Ask, onEnd: () => void) {
    this.#socket = socket;
    this.#clock = clock;
    this.#ask = ask;
    this.#onEnd = onEnd;
    this.lastUsed = clock.monotonic();
    this.#idle = clock.after(IDLE_MS, () => this.close());
    socket.on('data', (chunk) => this.#take(chunk));
    socket.on('drain', () => this.#go());
    // A client may close its side and still wait for what it asked.
    socket.on('end', () => {
      this.#halfClosed = true;
      this.#go();
    });
    socket.on('error', () => this.close());
    socket.on('close', () => this.close());
  }

  close(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#idle.cancel();
    this.#socket.destroy();
    this.#onEnd();
  }

  #take(chunk: Buffer): void {
    this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    this.#go();
  }

  /** Asks what has arrived whole, as far as the bounds allow, and reads on or stops reading. */
  #go(): void {
    let at = 0;
    while (!this.#ended && !this.#full() && this.#received.length - at >= 2) {
      const size = this.#received.readUInt16BE(at);
      // No question is that long, and no sense follows.
      if (size > QUERY_BYTES_MAX) {
        this.close();
        return;
      }
      if (this.#received.length - at < 2 + size) break;
      const question = this.#received.subarray(at + 2, at + 2 + size);
      at += 2 + size;
      this.#used();
      this.#open++;
      this.#ask(question, (message) => this.#answer(message));
    }
    if (this.#ended) return;
    this.#received = this.#received.subarray(at);
    if (this.#full()) this.#socket.pause();
    else if (this.#socket.isPaused()) this.#socket.resume();
    if (this.#halfClosed && this.#open === 0) this.#socket.end(() => this.close());
  }

  #answer(message: Uint8Array | null): void {
    this.#open--;
    if (this.#ended) return;
    if (message) {
      const framed = Buffer.allocUnsafe(2 + message.length);
      framed.writeUInt16BE(message.length, 0);
      framed.set(message, 2);
      this.#socket.write(framed);
    }
    // Not at once: #go may have called us.
    if (this.#halfClosed || (this.#socket.isPaused() && !this.#full())) setImmediate(() => this.#go());
  }

  #full(): boolean {
    return this.#open >= OPEN_MAX || this.#socket.writableLength > UNSENT_BYTES_MAX;
  }

  #used(): void {
    this.lastUsed = this.#clock.monotonic();
    this.#idle.cancel();
    this.#idle = this.#clock.after(IDLE_MS, () => this.close());
  }
}
