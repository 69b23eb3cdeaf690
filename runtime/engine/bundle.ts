/** What the engine keeps of a container on disk: `<dir>/<id>/`, the bundle, its plan, its state and its log. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerPlan, ContainerState } from '../../src/contracts/runtime.ts';
import { isId } from '../../src/model/id.ts';
import { formerOf, keepFormer, secondOf } from './stream/rotation.ts';

/** What a start of the daemon must know of a container that was created. */
export interface Record {
  readonly generation: number;
  readonly pid: number;
  /** Of the process, of its monitor: when they began, in ticks; and of the machine. */
  readonly start: string;
  readonly monitor: number;
  readonly monitorStart: string | null;
  readonly boot: string;
  /** ISO 8601; written before the start is asked for. */
  readonly startedAt?: string;
  /** Noticed ends. */
  readonly exitCode?: number;
  readonly exitedAt?: string;
}

export class Bundles {
  readonly #dir: string;
  readonly #sockets: string;

  /** `dir` lasts; `sockets` has short paths and goes with the machine. */
  constructor(dir: string, sockets: string) {
    this.#dir = dir;
    this.#sockets = sockets;
    for (const folder of [dir, sockets, this.exits]) mkdirSync(folder, { recursive: true, mode: 0o700 });
  }

  /** Where monitors write exit statuses, a file each. */
  get exits(): string {
    return join(this.#dir, 'exits');
  }

  path(id: string, name = ''): string {
    return join(this.#dir, id, name);
  }

  log(id: string): string {
    return this.path(id, 'log');
  }

  /** A full part of the log is kept as the former one. */
  keepLog(id: string): void {
    keepFormer(this.log(id));
  }

  /** Where the monitor makes the folder of its socket. */
  get sockets(): string {
    return this.#sockets;
  }

  socketName(id: string): string {
    return id.slice(0, 16);
  }

  socket(id: string): string {
    return join(this.#sockets, this.socketName(id), 'attach');
  }

  all(): string[] {
    return readdirSync(this.#dir).filter(isId);
  }

  write(id: string, plan: ContainerPlan, config: object): void {
    mkdirSync(this.path(id), { recursive: true, mode: 0o700 });
    writeFileSync(this.path(id, 'plan.json'), JSON.stringify(plan), { mode: 0o600 });
    writeFileSync(this.path(id, 'config.json'), JSON.stringify(config), { mode: 0o600 });
  }

  plan(id: string): ContainerPlan | null {
    return readJson(this.path(id, 'plan.json'));
  }

  record(id: string): Record | null {
    return readJson(this.path(id, 'state.json'));
  }

  keep(id: string, record: Record): void {
    const path = this.path(id, 'state.json');
    writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }

  /** A number that a tool wrote, null when it has not. */
  number(id: string, name: string): number | null {
    const text = readText(this.path(id, name))?.trim();
    return text && /^\d+$/.test(text) ? Number(text) : null;
  }

  /** The end as the monitor wrote it. */
  exit(id: string): Required<Pick<ContainerState, 'exitCode' | 'exitedAt'>> | null {
    const path = join(this.exits, id);
    const text = readText(path)?.trim();
    if (!text || !/^-?\d+$/.test(text)) return null;
    return { exitCode: Number(text) & 0xff, exitedAt: statSync(path).mtime.toISOString() };
  }

  oomKilled(id: string): boolean {
    return existsSync(this.path(id, 'oom'));
  }

  /** What execs that a killed daemon had begun left: their numbers are nobody's any more. */
  sweepExecs(id: string): void {
    for (const name of readdirSync(this.path(id)))
      if (name.startsWith('exec-')) rmSync(this.path(id, name), { force: true });
  }

  /** Forgets a life: everything but, with `keepLogs`, the log. */
  clear(id: string, keepLogs: boolean): void {
    rmSync(join(this.exits, id), { force: true });
    rmSync(join(this.#sockets, this.socketName(id)), { recursive: true, force: true });
    if (!keepLogs) rmSync(this.path(id), { recursive: true, force: true });
    if (!existsSync(this.path(id))) return;
    const logs = ['log', formerOf('log'), secondOf('log')];
    for (const name of readdirSync(this.path(id)))
      if (!logs.includes(name)) rmSync(this.path(id, name), { recursive: true, force: true });
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Null also for a file that a crash cut short: what it spoke of is then taken apart. */
function readJson<T>(path: string): T | null {
  const text = readText(path);
  if (text === null) return null;
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    if (error instanceof SyntaxError) return null;
    throw error;
  }
}
