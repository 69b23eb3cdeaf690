/** The fake's cgroups: directories with numbers and processes. */
import { dirname } from 'node:path';
import type { Cgroups } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import type { World } from './world.ts';

export class FakeCgroups implements Cgroups {
  readonly mount = '/sys/fs/cgroup';
  readonly #world: World;
  readonly #ids = new Map<string, bigint>([[this.mount, 1n]]);
  readonly #processes = new Map<number, string>();
  #last = 1n;

  constructor(world: World) {
    this.#world = world;
  }

  ensure(path: string): bigint {
    this.#world.attempt('cgroup.ensure');
    if (!path.startsWith(`${this.mount}/`) && path !== this.mount)
      throw new SluiceError('kernel.failed', `${path} is not below a cgroup v2 mount`, { path });
    const known = this.#ids.get(path);
    if (known !== undefined) return known;
    this.ensure(dirname(path));
    this.#last++;
    this.#ids.set(path, this.#last);
    return this.#last;
  }

  async remove(path: string, options: { readonly kill?: boolean } = {}): Promise<void> {
    this.#world.attempt('cgroup.remove');
    if (!this.#ids.has(path)) return;
    const inside = this.processes(path);
    if (inside.length > 0 && !options.kill)
      throw new SluiceError('object.inuse', `cgroup ${path} has processes: ${inside.join(', ')}`, { path });
    for (const pid of inside) this.#processes.delete(pid);
    for (const one of [...this.#ids.keys()]) if (this.#within(one, path)) this.#ids.delete(one);
  }

  processes(path: string): number[] {
    return [...this.#processes].filter(([, where]) => this.#within(where, path)).map(([pid]) => pid);
  }

  id(path: string): bigint | null {
    return this.#ids.get(path) ?? null;
  }

  /** Puts a process into a cgroup, from wherever it was; null ends it. */
  enter(pid: number, path: string | null): void {
    if (path === null) this.#processes.delete(pid);
    else this.#processes.set(pid, path);
  }

  paths(): string[] {
    return [...this.#ids.keys()];
  }

  #within = (path: string, parent: string): boolean => path === parent || path.startsWith(`${parent}/`);
}
