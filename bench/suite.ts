/** What a suite is: rows that stay the same, and arms that exist while it is open. */
import type { Curve } from './curve.ts';
import type { Rule } from './stats.ts';

/**
 * Numbers of one block by name: `rate`, `p99Us` … or the events of the block, in the order they happened. `failed` counts what
 * went wrong in it.
 */
export type Sample = Readonly<Record<string, number | readonly number[]>> & { readonly failed: number };

/** One of those that are compared. */
export interface Arm {
  /** `ours`, `direct`, `haproxy` … */
  readonly name: string;
  /** Runs so much (seconds, cycles: the family says what) and says what it measured. Fails when it measured nothing. */
  block(amount: number): Promise<Sample>;
}

/** How much of it one block is. */
export interface Amount {
  readonly block: number;
  /** Before each block, dropped; 0: none. */
  readonly warmup: number;
  /** Instead of `block` with `--quick`, and then without a warm-up. */
  readonly quick: number;
}

/** A row of the result; its id never changes. */
export interface Row extends Omit<Rule, 'bar'> {
  /** `suite/what/peer`. */
  readonly id: string;
  readonly unit: string;
  /** Arms that run interleaved are one family. */
  readonly family: string;
  /** Name of the arm that is ours; default `ours`. */
  readonly ours?: string;
  /** Name of the arm that is the peer; absent where there is none. */
  readonly peer?: string;
  /** Which number of a block counts. */
  readonly metric: string;
  /** One sentence: what is measured, and for events what starts and what stops the clock. */
  readonly what: string;
}

export interface OpenSuite {
  /** By family. An arm that no wanted row needs may be absent. */
  readonly arms: Readonly<Record<string, readonly Arm[]>>;
  /** Rows that cannot be measured here, and why. */
  readonly skipped: Readonly<Record<string, string>>;
  /** What each arm was given: versions, configuration, placement. */
  readonly given: Readonly<Record<string, string>>;
  /** Numbers that belong to a row but are no part of it: what the kernel holds beside a process's memory. */
  apart?(): Promise<Readonly<Record<string, Readonly<Record<string, number>>>>>;
  /** What is to be drawn beside the rows. */
  curves?(): readonly Curve[];
  /** Removes everything; fails when something stays behind. */
  close(): Promise<void>;
}

export interface Suite {
  readonly name: string;
  readonly families: Readonly<Record<string, Amount>>;
  readonly rows: readonly Row[];
  /** Makes what the wanted rows need. Progress goes to `say`. `quick`: for smoke; what takes long to make may be smaller. */
  open(wanted: readonly Row[], say: (line: string) => void, quick: boolean): Promise<OpenSuite>;
}

/** The arms that the rows compare: name of ours, and of the peer. */
export const armsOf = (row: Row): readonly string[] => [row.ours ?? 'ours', ...(row.peer ? [row.peer] : [])];
