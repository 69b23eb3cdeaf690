import type { Clock } from '../../../src/clock.ts';
import type { ImageProgress, TransferOptions } from '../../../src/contracts/image.ts';

/** Between two words about the bytes of one layer, milliseconds. */
const EVERY_MS = 100;

/** Words about one blob; those about bytes not too often. */
export class BlobProgress {
  readonly #clock: Clock;
  readonly #what: string;
  readonly #total: number;
  readonly #say: TransferOptions['onProgress'];
  #said = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, what: string, total: number, say: TransferOptions['onProgress']) {
    this.#clock = clock;
    this.#what = what;
    this.#total = total;
    this.#say = say;
  }

  say(text: ImageProgress['text']): void {
    this.#say?.({ type: 'layer', what: this.#what, text });
  }

  bytes(text: ImageProgress['text'], current: number): void {
    const now = this.#clock.monotonic();
    if (now - this.#said < EVERY_MS && current < this.#total) return;
    this.#said = now;
    this.#say?.({ type: 'layer', what: this.#what, text, current, total: this.#total });
  }
}
