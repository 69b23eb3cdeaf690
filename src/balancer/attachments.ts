/**
 * Programs on interfaces: a trampoline each, which says which attachment it is and tail-calls the stage. They are attached as clsact
 * filters, at once. A container may remove a filter from its own lo, a tcx link not; but making a link waits for a grace period with
 * the kernel's routing lock held, 10 ms and more, and so does its end. So, where there are links, `harden` moves the programs on
 * sandboxes' lo and on tunnels to them at leisure.
 */
import type { DataplaneCapabilities, Drift, Repair } from '../contracts/dataplane.ts';
import type { Namespace } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import {
  ATTACH,
  closeFd,
  linkCreate,
  linkInfo,
  linkUpdate,
  loadClassifier,
  programInfo,
  programNameById,
} from '../kernel/bpf/bpf.ts';
import { type Direction, type TcHook, tcAttach, tcAttachFirst, tcDetach, tcQuery } from '../kernel/bpf/tc.ts';
import { STAGE, type Stage, VERDICT_PASS } from './maps/layout.ts';
import type { Pins } from './pins.ts';

/** Where each stage stands, and what its pins are called. */
const PLACE = {
  from_sandbox: { prefix: 'veth', direction: 'ingress', object: 'endpoint' },
  dns: { prefix: 'lo', direction: 'egress', object: 'sandbox' },
  from_tunnel: { prefix: 'tunnel', direction: 'ingress', object: 'network' },
} as const satisfies Record<Stage, { prefix: string; direction: Direction; object: Repair['object'] }>;

/** By links where there are any, in time: a container could remove the filter on its lo, and a tunnel's packets, which are many, come cheaper by them. */
const HARDENED: readonly Stage[] = ['dns', 'from_tunnel'];

const TCX = { ingress: ATTACH.tcxIngress, egress: ATTACH.tcxEgress } as const;

/** Offset of `cb` in struct __sk_buff. */
const CB_OFFSET = 48;
const TAIL_CALL = 12;

/**
 * cb[0] = number, tail call of the stage's slot, and when the slot is empty VERDICT_PASS. `stages`: descriptor of the program array.
 *
 * A slot that the kernel knows when it loads the program becomes a jump that it patches into the code, the fastest for packets; but
 * patching makes loading it three times as long, since all processors stop for it. Where few packets pass, on lo, the slot is read from cb[1].
 */
export function trampoline(number: number, stages: number, stage: Stage): Buffer {
  const isPatched = stage !== 'dns';
  const instructions: Buffer[] = [];
  const put = (code: number, dst: number, src: number, offset: number, immediate: number): void => {
    const out = Buffer.alloc(8);
    out.writeUInt8(code, 0);
    out.writeUInt8((src << 4) | dst, 1);
    out.writeInt16LE(offset, 2);
    out.writeInt32LE(immediate | 0, 4);
    instructions.push(out);
  };
  put(0xb4, 2, 0, 0, number); // w2 = number
  put(0x63, 1, 2, CB_OFFSET, 0); // *(u32 *)(r1 + cb) = w2
  put(0xb7, 3, 0, 0, STAGE[stage]); // r3 = slot
  if (!isPatched) {
    put(0x63, 1, 3, CB_OFFSET + 4, 0); // *(u32 *)(r1 + cb + 4) = w3
    put(0x61, 3, 1, CB_OFFSET + 4, 0); // r3 = *(u32 *)(r1 + cb + 4)
  }
  put(0x18, 2, 1, 0, stages); // r2 = map
  put(0x00, 0, 0, 0, 0);
  put(0x85, 0, 0, 0, TAIL_CALL);
  put(0xb7, 0, 0, 0, VERDICT_PASS); // r0 = pass
  put(0x95, 0, 0, 0, 0); // exit
  return Buffer.concat(instructions);
}

export interface Target {
  /** Of the endpoint, sandbox or network. */
  readonly id: string;
  readonly number: number;
  readonly stage: Stage;
  /** In `namespace`. */
  readonly ifindex: number;
  readonly namespace: Namespace;
}

/** The cookie tells namespaces apart in which interfaces have equal numbers: every lo is 1. */
const pinName = ({ number, stage, namespace }: Target): string =>
  `${PLACE[stage].prefix}-${number}-${namespace.cookie.toString(16)}`;

const numberOfPin = (name: string): number | null => {
  const found = /^(?:veth|lo|tunnel)-(\d+)-[0-9a-f]+$/.exec(name);
  return found && Number(found[1]);
};

const stageOfPin = (name: string): Stage =>
  (Object.keys(PLACE) as Stage[]).find((stage) => name.startsWith(`${PLACE[stage].prefix}-`))!;

/** Priorities of clsact filters: one of its own for an instance, the next when it is somebody else's. */
const PRIORITY_BASE = 1_000;
const PRIORITY_RANGE = 10_000;
const PRIORITY_TRIES = 8;

export class Attachments {
  readonly mode: DataplaneCapabilities['tc'];
  readonly #pins: Pins;
  readonly #stages: number;
  /** Name of our trampolines in the kernel (15 characters at most). */
  readonly #name: string;
  readonly #priority: number;
  /** What was ensured, by pin name. */
  readonly #known = new Map<string, Target>();
  readonly #pinned: Set<string>;

  constructor(options: { pins: Pins; stages: number; instance: string; mode: DataplaneCapabilities['tc'] }) {
    this.mode = options.mode;
    this.#pins = options.pins;
    this.#stages = options.stages;
    this.#name = `sl_${options.instance}`;
    let hash = 0;
    for (const char of options.instance) hash = (hash * 31 + char.charCodeAt(0)) % PRIORITY_RANGE;
    this.#priority = PRIORITY_BASE + hash;
    this.#pinned = new Set(
      [...this.#pins.names('links'), ...this.#pins.names('progs')].filter((name) => numberOfPin(name) !== null),
    );
  }

  /** Attaches unless that was done in this life; the audit looks after it from then on. Links of an earlier life stay what they are. */
  ensure(target: Target): void {
    const name = pinName(target);
    const known = this.#known.get(name);
    if (known?.ifindex !== target.ifindex && !this.#waits(name)) this.#attach(name, target);
    this.#known.set(name, target);
    for (const other of this.#pinsOf(target.number)) if (other !== name) this.#drop(other);
  }

  /** `where`: the interface, for an attachment that only an earlier life knew. */
  remove(number: number, where?: { readonly namespace: Namespace; readonly ifindex: number }): void {
    for (const name of this.#pinsOf(number)) this.#drop(name, where);
  }

  /** Pins whose number nobody uses. */
  sweep(used: ReadonlySet<number>): void {
    for (const name of this.#pinned) if (!used.has(numberOfPin(name)!)) this.#drop(name);
  }

  /** Moves attachments of an older generation to our stages, link by link in place. */
  takeOver(): void {
    for (const [name, target] of this.#known) this.#attach(name, target);
  }

  /** Moves up to `countMax` of the filters that are to become links; each takes about 10 ms. */
  harden(countMax: number, onError: (target: Target, error: unknown) => void): number {
    if (this.mode !== 'tcx') return 0;
    let count = 0;
    for (const [name, target] of this.#known) {
      if (count >= countMax) break;
      if (!HARDENED.includes(target.stage) || this.#waits(name) || !this.#pins.has('progs', name)) continue;
      count++;
      try {
        if (!this.#linkStands(name, target)) this.#attachLink(name, target);
        this.#removeFilter(target, target.stage);
        this.#pins.remove('progs', name);
      } catch (error) {
        onError(target, error);
      }
    }
    return count;
  }

  audit(onError: (target: Target, error: unknown) => void): Repair[] {
    const repairs: Repair[] = [];
    for (const [name, target] of this.#known) {
      try {
        if (this.#waits(name) || this.#stands(name, target)) continue;
        this.#attach(name, target);
        const { object, prefix, direction } = PLACE[target.stage];
        repairs.push({ object, id: target.id, what: `the tc program at ${direction} of ${prefix} was gone` });
      } catch (error) {
        // Its interface may have gone: whoever owns that says so, and the others are looked at.
        onError(target, error);
      }
    }
    return repairs;
  }

  /** What `audit` would put right. An interface that has gone is its owner's affair. */
  compare(): Drift[] {
    const drifts: Drift[] = [];
    for (const [name, target] of this.#known) {
      if (!target.namespace.netlink.link(target.ifindex) || this.#waits(name) || this.#stands(name, target)) continue;
      const { object, prefix, direction } = PLACE[target.stage];
      const what = `the tc program at ${direction} of its ${prefix}`;
      drifts.push({ object, id: target.id, what, is: 'missing', look: `tc filter show dev IF ${direction}` });
    }
    return drifts;
  }

  detach(): void {
    for (const name of [...this.#pinned, ...this.#known.keys()]) this.#drop(name);
  }

  /** An older generation serves it until everything is filled. */
  #waits(name: string): boolean {
    if (this.#pinned.has(name)) return false;
    return this.#pins
      .older()
      .some((generation) =>
        ['links', 'progs'].some((kind) => this.#pins.names(kind as 'links', generation).includes(name)),
      );
  }

  #pinsOf(number: number): string[] {
    return [...new Set([...this.#pinned, ...this.#known.keys()])].filter((name) => numberOfPin(name) === number);
  }

  #stands(name: string, target: Target): boolean {
    return this.#linkStands(name, target) || this.#filterStands(name, target);
  }

  #attach(name: string, target: Target): void {
    // All pins are known since the start: of a new name there is none.
    const isNew = !this.#pinned.has(name) && this.#pins.older().length === 0;
    if (!isNew && this.#stands(name, target)) {
      this.#pinned.add(name);
      return;
    }
    // One that leads to another interface, or to none.
    if (!isNew && this.#pins.has('links', name)) this.#pins.detach(name);
    this.#pinned.add(name);
    this.#withProgram(target, (program) => {
      const link = this.#takeLink(name, target, program);
      if (link === null) this.#attachFilter(name, target, program, isNew);
      else this.#pinLink(name, link);
    });
    for (const generation of this.#pins.older()) {
      this.#pins.remove('links', name, generation);
      this.#pins.remove('progs', name, generation);
    }
  }

  #drop(name: string, where?: { readonly namespace: Namespace; readonly ifindex: number }): void {
    const known = this.#known.get(name);
    const at = known ?? where;
    if (this.#pins.has('links', name)) this.#pins.detach(name);
    if (this.#pins.has('progs', name)) {
      if (at) this.#removeFilter(at, stageOfPin(name));
      this.#pins.remove('progs', name);
    }
    this.#pinned.delete(name);
    this.#known.delete(name);
  }

  #withProgram(target: Target, use: (program: number) => void): void {
    const program = loadClassifier(this.#name, trampoline(target.number, this.#stages, target.stage));
    try {
      use(program);
    } finally {
      closeFd(program);
    }
  }

  // ---- tcx ----

  #linkStands(name: string, { ifindex }: Target): boolean {
    const link = this.#pins.open('links', name);
    if (link === null) return false;
    try {
      return linkInfo(link).ifindex === ifindex;
    } finally {
      closeFd(link);
    }
  }

  #attachLink(name: string, target: Target): void {
    const { stage, ifindex, namespace } = target;
    this.#withProgram(target, (program) =>
      this.#pinLink(
        name,
        namespace.run(() => linkCreate(program, ifindex, TCX[PLACE[stage].direction])),
      ),
    );
  }

  #pinLink(name: string, link: number): void {
    try {
      this.#pins.put('links', name, link);
    } finally {
      closeFd(link);
    }
  }

  /** The living link of an older generation, its trampoline swapped for ours. */
  #takeLink(name: string, { ifindex }: Target, program: number): number | null {
    for (const generation of this.#pins.older()) {
      const link = this.#pins.open('links', name, generation);
      if (link === null) continue;
      if (linkInfo(link).ifindex === ifindex) {
        linkUpdate(link, program);
        return link;
      }
      closeFd(link);
    }
    return null;
  }

  // ---- clsact ----

  #filterStands(name: string, target: Target): boolean {
    const pin = this.#pins.open('progs', name);
    if (pin === null) return false;
    try {
      const { id } = programInfo(pin);
      return target.namespace.run(() => this.#hooks(target).some((hook) => tcQuery(hook) === id));
    } finally {
      closeFd(pin);
    }
  }

  /** The pin first: what it names can be looked for, whatever happens next. `isNew`: most likely nobody has anything there. */
  #attachFilter(name: string, target: Target, program: number, isNew: boolean): void {
    this.#pins.put('progs', name, program);
    target.namespace.run(() => {
      const hooks = this.#hooks(target);
      if (isNew && tcAttachFirst(hooks[0]!, program)) return;
      for (const hook of hooks) {
        const holder = tcQuery(hook);
        if (holder !== 0 && programNameById(holder) !== this.#name) continue;
        tcAttach(hook, program);
        return;
      }
      throw new SluiceError(
        'kernel.exists',
        `attach to interface ${target.ifindex}: priorities ${this.#priority} to ${this.#priority + PRIORITY_TRIES - 1} all belong to others`,
        { ifindex: target.ifindex },
      );
    });
  }

  #removeFilter(at: { readonly namespace: Namespace; readonly ifindex: number }, stage: Stage): void {
    // A filter goes with its interface, which has mostly gone by now.
    if (!at.namespace.netlink.link(at.ifindex)) return;
    at.namespace.run(() => {
      for (const hook of this.#hooks({ ifindex: at.ifindex, stage })) {
        const holder = tcQuery(hook);
        if (holder !== 0 && programNameById(holder) === this.#name) tcDetach(hook);
      }
    });
  }

  #hooks({ ifindex, stage }: Pick<Target, 'ifindex' | 'stage'>): TcHook[] {
    const { direction } = PLACE[stage];
    return Array.from({ length: PRIORITY_TRIES }, (_, i) => ({ ifindex, direction, priority: this.#priority + i }));
  }
}
