/** The cgroup links: attached once at the cgroup root, pinned, their programs swapped in place. */
import { closeSync, openSync } from 'node:fs';
import type { Drift, Repair } from '../contracts/dataplane.ts';
import type { Cgroups } from '../contracts/kernel.ts';
import { fault } from '../fault.ts';
import { ATTACH, closeFd, linkCreate, linkDetach, linkInfo, linkUpdate, programInfo } from '../kernel/bpf/bpf.ts';
import { errnoOf, kernelError } from '../kernel/libc.ts';
import type { Pins } from './pins.ts';

/** Program, pin and attach type bear one name. */
export const HOOKS = [
  // What brings answers back stands before what sends questions out.
  'recvmsg4',
  'recvmsg6',
  'getpeername4',
  'getpeername6',
  'sock_release',
  'sendmsg4',
  'sendmsg6',
  'connect4',
  'connect6',
] as const;
type Hook = (typeof HOOKS)[number];

const EPERM = 1;

export class CgroupHooks {
  readonly #pins: Pins;
  readonly #cgroups: Cgroups;
  readonly #root: string;
  readonly #programs: ReadonlyMap<string, number>;
  /** Held open: a pin that somebody removes does not end the link. */
  readonly #links = new Map<Hook, number>();

  constructor(options: { pins: Pins; cgroups: Cgroups; root: string; programs: ReadonlyMap<string, number> }) {
    this.#pins = options.pins;
    this.#cgroups = options.cgroups;
    this.#root = options.root;
    this.#programs = options.programs;
  }

  /** Attaches what is not, swaps the program of what is. Links of older generations are taken over when `all`. */
  attach(all: boolean): void {
    for (const hook of HOOKS) {
      if (this.#links.has(hook)) continue;
      const link = this.#adopt(hook, all);
      if (link === null) continue;
      this.#links.set(hook, link);
      fault('dataplane.attached');
    }
  }

  audit(): Repair[] {
    const repairs: Repair[] = [];
    const report = (id: string, what: string): void => void repairs.push({ object: 'hook', id, what });
    const pinned = new Set(this.#pins.names('links'));
    const root = this.#cgroups.ensure(this.#root);
    for (const [hook, link] of this.#links) {
      const { cgroupId, programId } = linkInfo(link);
      if (cgroupId !== root) {
        this.#links.set(hook, this.#create(hook));
        closeFd(link);
        report(hook, cgroupId === 0n ? 'it was detached' : `cgroup ${this.#root} had been made anew under it`);
      } else if (!pinned.has(hook)) {
        this.#pins.put('links', hook, link);
        report(hook, 'its pin was gone');
      } else if (programId !== programInfo(this.#program(hook)).id) {
        linkUpdate(link, this.#program(hook));
        report(hook, 'it ran another program');
      }
    }
    return repairs;
  }

  /** What `audit` would put right. */
  compare(): Drift[] {
    const pinned = new Set(this.#pins.names('links'));
    const root = this.#cgroups.id(this.#root);
    const drifts: Drift[] = [];
    const report = (hook: Hook, what: string, is: Drift['is']): void =>
      void drifts.push({ object: 'hook', id: hook, what, is, look: `bpftool cgroup show ${this.#root}` });
    for (const [hook, link] of this.#links) {
      const { cgroupId, programId } = linkInfo(link);
      if (cgroupId !== root) report(hook, `program ${hook} at cgroup ${this.#root}`, 'missing');
      else if (!pinned.has(hook)) report(hook, `the pin of program ${hook}`, 'missing');
      else if (programId !== programInfo(this.#program(hook)).id) report(hook, `program ${hook}`, 'changed');
    }
    return drifts;
  }

  detach(): void {
    for (const [hook, link] of this.#links) {
      linkDetach(link);
      this.#pins.remove('links', hook);
    }
    this.close();
  }

  close(): void {
    for (const link of this.#links.values()) closeFd(link);
    this.#links.clear();
  }

  #adopt(hook: Hook, all: boolean): number | null {
    const older = this.#pins.older();
    const root = this.#cgroups.ensure(this.#root);
    for (const generation of [this.#pins.generation, ...older]) {
      const link = this.#pins.open('links', hook, generation);
      if (link === null) continue;
      const own = generation === this.#pins.generation;
      if (!own && !all) {
        closeFd(link);
        return null;
      }
      if (linkInfo(link).cgroupId !== root) {
        closeFd(link);
        continue;
      }
      linkUpdate(link, this.#program(hook));
      if (!own) this.#pins.put('links', hook, link);
      this.#removeOlder(hook, older);
      return link;
    }
    const link = this.#create(hook);
    this.#removeOlder(hook, older);
    return link;
  }

  #removeOlder(hook: Hook, older: readonly number[]): void {
    for (const generation of older) this.#pins.remove('links', hook, generation);
  }

  /** The new link works before the old one's pin goes. */
  #create(hook: Hook): number {
    const cgroup = openSync(this.#root, 'r');
    try {
      const link = linkCreate(this.#program(hook), cgroup, ATTACH[hook]);
      this.#pins.put('links', hook, link);
      return link;
    } catch (error) {
      if (errnoOf(error) !== EPERM) throw error;
      throw kernelError(
        EPERM,
        `attach ${hook} to cgroup ${this.#root}`,
        'refused: CAP_BPF or CAP_NET_ADMIN is missing, or a program is attached exclusively to a cgroup above',
      );
    } finally {
      closeSync(cgroup);
    }
  }

  #program(hook: Hook): number {
    return this.#programs.get(hook)!;
  }
}
