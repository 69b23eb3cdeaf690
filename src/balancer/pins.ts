/**
 * Where things are pinned: `<bpffs>/<instance>/v<N>/{maps,progs,links}`. N is a generation: a new one is begun when the maps that are
 * pinned do not fit, filled while the old one goes on, and taken over in one go. A bpffs has no files, only pins and folders.
 */
import { mkdirSync, readdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import { closeFd, linkDetach, objectGet, objectPin } from '../kernel/bpf/bpf.ts';
import { errnoOf } from '../kernel/libc.ts';

export type PinKind = 'maps' | 'progs' | 'links';
const KINDS: readonly PinKind[] = ['maps', 'progs', 'links'];

/** Suffix of a pin that is about to take another's name. */
const NEXT = '_next';

export class Pins {
  readonly #root: string;
  /** 0 until `use`. */
  generation = 0;
  #older: readonly number[] = [];

  constructor(bpffs: string, instance: string) {
    this.#root = join(bpffs, instance);
  }

  /** Existing generations, newest first. */
  generations(): number[] {
    return list(this.#root)
      .flatMap((name) => (/^v[1-9]\d*$/.test(name) ? [Number(name.slice(1))] : []))
      .sort((a, b) => b - a);
  }

  /** Generations before the one in use: programs there still run, or their removal was cut short. */
  older(): readonly number[] {
    return this.#older;
  }

  use(generation: number): void {
    this.generation = generation;
    this.#older = this.generations().filter((other) => other < generation);
    for (const kind of KINDS) mkdirSync(this.#dir(kind), { recursive: true });
    for (const kind of KINDS) for (const name of this.names(kind)) if (name.endsWith(NEXT)) this.remove(kind, name);
  }

  names(kind: PinKind, generation = this.generation): string[] {
    return list(this.#dir(kind, generation));
  }

  /** A descriptor, or null when nothing is pinned there. */
  open(kind: PinKind, name: string, generation = this.generation): number | null {
    return objectGet(this.#path(kind, name, generation));
  }

  has(kind: PinKind, name: string): boolean {
    const fd = this.open(kind, name);
    if (fd === null) return false;
    closeFd(fd);
    return true;
  }

  /** Pins, or takes the name over from another in one step. */
  put(kind: PinKind, name: string, fd: number): void {
    const path = this.#path(kind, name);
    try {
      objectPin(fd, path);
    } catch (error) {
      if (errnoOf(error) !== EEXIST) throw error;
      const next = this.#path(kind, `${name}${NEXT}`);
      unlink(next);
      objectPin(fd, next);
      renameSync(next, path);
    }
  }

  /** Absent succeeds. A link ends with its pin, once nobody holds a descriptor of it. */
  remove(kind: PinKind, name: string, generation = this.generation): void {
    unlink(this.#path(kind, name, generation));
  }

  /** As `remove`, and the link is detached whoever else holds it. */
  detach(name: string, generation = this.generation): void {
    const fd = this.open('links', name, generation);
    if (fd !== null) {
      linkDetach(fd);
      closeFd(fd);
    }
    this.remove('links', name, generation);
  }

  /** Links first: a program never runs over maps that are being taken away. */
  removeGeneration(generation: number): void {
    for (const name of this.names('links', generation)) this.detach(name, generation);
    for (const kind of ['progs', 'maps', 'links'] as const) {
      for (const name of this.names(kind, generation)) this.remove(kind, name, generation);
      rmdir(this.#dir(kind, generation));
    }
    rmdir(join(this.#root, `v${generation}`));
    this.#older = this.#older.filter((other) => other !== generation);
  }

  removeRoot(): void {
    rmdir(this.#root);
  }

  #dir(kind: PinKind, generation = this.generation): string {
    return join(this.#root, `v${generation}`, kind);
  }

  #path(kind: PinKind, name: string, generation = this.generation): string {
    return join(this.#dir(kind, generation), name);
  }
}

const EEXIST = 17;

function list(dir: string): string[] {
  return ignoring('ENOENT', () => readdirSync(dir)) ?? [];
}

const unlink = (path: string): void => void ignoring('ENOENT', () => unlinkSync(path));
const rmdir = (path: string): void => void ignoring('ENOENT', () => rmdirSync(path));

function ignoring<T>(code: string, fn: () => T): T | undefined {
  try {
    return fn();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== code) throw error;
    return undefined;
  }
}
