/** What `diff` answers: how the kernel of one node differs from what should be. */
import type { Kind } from '../object.ts';

/** One thing that is not as it should be: without `have` it is missing, without `want` it is surplus. */
export interface Difference {
  /** `address 10.20.0.1/24 of sl0123456789ab` */
  readonly what: string;
  readonly want?: string;
  readonly have?: string;
  /** A command that shows it, or puts it right by hand. */
  readonly command?: string;
}

/** Beside kinds of objects: `firewall`, an nft table of ours; `host`, what belongs to no object. */
export const DIFF_KINDS = ['network', 'sandbox', 'endpoint', 'service', 'container', 'firewall', 'host'] as const;
export type DiffKind = (typeof DIFF_KINDS)[number];

export interface DiffItem {
  readonly kind: DiffKind;
  /** Absent for what is no object. */
  readonly id?: string;
  readonly name: string;
  readonly differences: readonly Difference[];
  /** Why it is not programmed, where its controller has said so. */
  readonly error?: { readonly code: string; readonly message: string };
}

export interface DiffQuery {
  readonly kind?: DiffKind;
  /** Name, id, or the beginning of one; only with a kind. */
  readonly name?: string;
}

export interface DiffAnswer {
  /** Whose kernel was compared. */
  readonly node: string;
  /** How many of each kind were compared. */
  readonly compared: Readonly<Partial<Record<DiffKind, number>>>;
  /** Those that differ. */
  readonly items: readonly DiffItem[];
  /** What could not be compared, and why. */
  readonly skipped: readonly { readonly kind: DiffKind; readonly name: string; readonly reason: string }[];
}

/** Kinds of the store among them. */
export const isObjectKind = (kind: DiffKind): kind is DiffKind & Kind => kind !== 'firewall' && kind !== 'host';
