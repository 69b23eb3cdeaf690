/**
 * What a command is. Every command is declared once, as data: parsing, help, the reference in docs/generated, and whatever else is
 * made from the tree, read the same declaration.
 */
import type { Client } from '../../client/client.ts';
import type { Terminal } from '../print/terminal.ts';

/** The words on the command line were not a command; exit status 2. */
export class UsageError extends Error {}

/** `--name`: what it takes, and what becomes of the texts that were given. */
export interface Flag<T = unknown> {
  readonly help: string;
  /** Placeholder of its value, upper case; absent: a switch, which also takes `=true` and `=false`. */
  readonly value?: string;
  /** One letter. */
  readonly short?: string;
  /** Other long spellings, dashes included. */
  readonly also?: readonly string[];
  readonly many: boolean;
  /** For help: what its absence means. */
  readonly absent?: string;
  /** The values in the order given; none when the flag was not. `name` as typed by people, for errors. */
  readonly read: (texts: readonly string[], name: string) => T;
}

/** A word that is not a flag. The key of it in `args`, in capitals, is its name in help. */
export interface Arg<T = unknown> {
  readonly help: string;
  readonly optional: boolean;
  readonly many: boolean;
  /** The first word of a command to run: nothing from here on is ours to read. */
  readonly command: boolean;
  /** Kind of object whose names fit here. */
  readonly of?: 'network' | 'sandbox' | 'endpoint' | 'service' | 'container' | 'volume' | 'image' | 'node';
  readonly read: (words: readonly string[]) => T;
}

export type Flags = Readonly<Record<string, Flag>>;
export type Args = Readonly<Record<string, Arg>>;
export type FlagValues<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never };
export type ArgValues<A extends Args> = { readonly [K in keyof A]: A[K] extends Arg<infer T> ? T : never };

/** What a command has to work with. */
export interface Context {
  readonly terminal: Terminal;
  readonly env: NodeJS.ProcessEnv;
  /** `-H` or SLUICE_HOST; undefined: the default socket. */
  readonly host: string | undefined;
  /** Loads the client at the first call. */
  readonly client: () => Promise<Client>;
}

export interface Command<F extends Flags = Flags, A extends Args = Args> {
  readonly summary: string;
  /** Paragraphs for help, between the summary and the flags. */
  readonly about?: string;
  /** Lines that can be typed as they stand. */
  readonly examples?: readonly string[];
  readonly aliases?: readonly string[];
  readonly flags: F;
  /** In the order in which they are typed. */
  readonly args: A;
  /** Exit status of a failure of ours, 125 for what else returns the status of a program it runs; default 1, and 2 for usage. */
  readonly failure?: number;
  /** Exit status; none: 0. */
  readonly run: (context: Context, flags: FlagValues<F>, args: ArgValues<A>) => Promise<number> | Promise<void>;
}

export interface Group {
  readonly summary: string;
  readonly about?: string;
  readonly aliases?: readonly string[];
  readonly commands: Readonly<Record<string, Node>>;
}

export type Node = Command | Group;

/** A word at the top: known by its summary, loaded when it is used. */
export interface Entry {
  readonly summary: string;
  readonly aliases?: readonly string[];
  readonly load: () => Promise<Node>;
}
export type Tree = Readonly<Record<string, Entry>>;

export const isGroup = (node: Node): node is Group => 'commands' in node;

/** A command with the types of its flags and words known to `run`. */
export function command<F extends Flags, A extends Args>(declaration: Command<F, A>): Command {
  return declaration as unknown as Command;
}

/** `ipRange` → `--ip-range`. */
export const flagName = (key: string): string => `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

/** Flags that every command has. */
export const GLOBAL_FLAGS = {
  host: {
    help: 'Where the daemon listens: unix:///path or http://host:port',
    value: 'ADDRESS',
    short: 'H',
    many: false,
    absent: 'SLUICE_HOST, else unix:///run/sluice/sluice.sock',
    read: (texts) => texts.at(-1),
  },
  help: { help: 'Show this help', short: 'h', many: false, read: (texts) => texts.length > 0 },
} as const satisfies Flags;

/** Name of an argument in help: `NAME`, `[NAME]`, `NAME…`. */
export function argLabel(key: string, arg: Arg): string {
  const name = key.replace(/[A-Z]/g, (letter) => `-${letter}`).toUpperCase();
  const label = arg.many ? `${name}…` : name;
  return arg.optional ? `[${label}]` : label;
}
