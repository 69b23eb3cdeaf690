/** Links of the host's namespace that moved. A bridge moves whenever a port comes or goes: one look for all of that. */
import type { Clock, Timer } from '../clock.ts';

/** How long what the kernel reports is gathered before it is looked at, milliseconds. */
export const NOTICED_MS = 250;

export class MovedLinks {
  readonly #clock: Clock;
  readonly #look: (moved: ReadonlyMap<number, boolean>) => void;
  #moved = new Map<number, boolean>();
  #timer: Timer | undefined;

  /** `look` is told the indices of the links that moved, and whether they went. */
  constructor(clock: Clock, look: (moved: ReadonlyMap<number, boolean>) => void) {
    this.#clock = clock;
    this.#look = look;
  }

  note(ifindex: number, went: boolean): void {
    this.#moved.set(ifindex, went || this.#moved.get(ifindex) === true);
    this.#timer ??= this.#clock.after(NOTICED_MS, () => {
      const moved = this.#moved;
      this.#moved = new Map();
      this.#timer = undefined;
      this.#look(moved);
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }
}
