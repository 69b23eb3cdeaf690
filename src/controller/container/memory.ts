/** What the controller remembers of a container between two looks: pauses of the restart policy, and a stop under way. */
import type { Clock, Timer } from '../../clock.ts';
import type { ContainerState } from '../../contracts/runtime.ts';
import { livedLong, pauseOf } from './decide.ts';

export class Memory {
  readonly #clock: Clock;
  readonly #trigger: () => void;
  #exit = '';
  #generation = 0;
  #streak = 0;
  #dueAt = 0;
  #waking: Timer | undefined;
  #stopping: { timer: Timer; over: boolean } | undefined;
  #killing: Timer | undefined;

  constructor(clock: Clock, trigger: () => void) {
    this.#clock = clock;
    this.#trigger = trigger;
  }

  /** Counts a life that ended, once; sets the pause after it. */
  mourn(state: ContainerState): void {
    this.stopped();
    const exit = `${state.generation} ${state.exitedAt ?? ''} ${state.exitCode ?? ''}`;
    if (this.#exit === exit) return;
    if (this.#generation !== state.generation || livedLong(state)) this.#streak = 0;
    this.#exit = exit;
    this.#generation = state.generation;
    this.#streak++;
    this.#dueAt = this.#clock.monotonic() + pauseOf(this.#streak);
  }

  get due(): boolean {
    return this.#clock.monotonic() >= this.#dueAt;
  }

  /** Looks again when the pause is over. */
  wake(): void {
    this.#waking?.cancel();
    this.#waking = this.#clock.after(Math.ceil(this.#dueAt - this.#clock.monotonic()), this.#trigger);
  }

  get stopping(): { readonly over: boolean } | undefined {
    return this.#stopping;
  }

  /** The grace period begins; at its end `kill` is called. */
  stop(graceMs: number, kill: () => Promise<void>): void {
    const stopping = {
      over: false,
      timer: this.#clock.after(graceMs, () => {
        stopping.over = true;
        void kill();
      }),
    };
    this.#stopping = stopping;
  }

  stopped(): void {
    this.#stopping?.timer.cancel();
    this.#stopping = undefined;
  }

  get killed(): boolean {
    return this.#killing !== undefined;
  }

  /** It was killed: its end is waited for so long. */
  kill(ms: number): void {
    this.#killing = this.#clock.after(ms, this.#trigger);
  }

  cancel(): void {
    this.stopped();
    this.#waking?.cancel();
    this.#killing?.cancel();
  }
}

export class Memories {
  readonly #clock: Clock;
  readonly #trigger: (id: string) => void;
  readonly #all = new Map<string, Memory>();

  constructor(clock: Clock, trigger: (id: string) => void) {
    this.#clock = clock;
    this.#trigger = trigger;
  }

  of(id: string): Memory {
    const known = this.#all.get(id);
    if (known) return known;
    const memory = new Memory(this.#clock, () => this.#trigger(id));
    this.#all.set(id, memory);
    return memory;
  }

  forget(id: string): void {
    this.#all.get(id)?.cancel();
    this.#all.delete(id);
  }

  stop(): void {
    for (const memory of this.#all.values()) memory.cancel();
  }
}
