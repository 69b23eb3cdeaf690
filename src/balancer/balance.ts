/** Frontends, sets, slots and backends in their maps, written in an order that a reader may meet at any point. */
import type { DataplaneBackend, DataplaneFrontend, Drift, Repair, SetCounters } from '../contracts/dataplane.ts';
import { fault } from '../fault.ts';
import { checkBackends, checkFrontend, type FrontendKey, frontendName } from './input.ts';
import { Counters } from './maps/counters.ts';
import {
  ALGORITHM_RANDOM,
  BACKEND,
  BACKEND_KEY,
  FRONTEND,
  FRONTEND_KEY,
  NUMBER,
  PROTOCOL,
  SET,
  SET_COUNTERS,
  SLOT_KEY,
} from './maps/layout.ts';
import { Table } from './maps/table.ts';
import { planSlots } from './slots.ts';

interface Backend {
  readonly addr: string;
  readonly port: number;
  readonly self: { readonly set: number; readonly number: number };
}

export class Balance {
  readonly #frontends: Table<{ addr: string; view: number; port: number; protocol: number }, { set: number }>;
  readonly #sets: Table<{ number: number }, { count: number; algorithm: number }>;
  /** Backends by index, to be drawn. */
  readonly #slots: Table<{ set: number; index: number }, Backend>;
  /** The same by number, to tell that they live. */
  readonly #backends: Table<{ set: number; number: number }, Backend>;
  readonly #counters: Counters<{ readonly connects: bigint; readonly refused: bigint }>;
  /** A step may have been cut short: slots beyond a count, backends in no slot. */
  #unswept = true;

  constructor(fdOf: (map: string) => number) {
    this.#frontends = new Table('frontends', fdOf('frontends'), FRONTEND_KEY, FRONTEND);
    this.#sets = new Table('sets', fdOf('sets'), NUMBER, SET);
    this.#slots = new Table('slots', fdOf('slots'), SLOT_KEY, BACKEND);
    this.#backends = new Table('backends', fdOf('backends'), BACKEND_KEY, BACKEND);
    this.#counters = new Counters(fdOf('set_counters'), SET_COUNTERS);
  }

  ensureFrontend(frontend: DataplaneFrontend): void {
    checkFrontend(frontend);
    this.#frontends.put(keyOf(frontend), { set: frontend.set });
  }

  removeFrontend(frontend: FrontendKey): void {
    checkFrontend(frontend);
    this.#frontends.delete(keyOf(frontend));
  }

  frontends(): DataplaneFrontend[] {
    return Array.from(this.#frontends.entries(), ([key, { set }]) => ({
      view: key.view,
      address: key.addr,
      port: key.port,
      protocol: key.protocol === 0 ? undefined : key.protocol === PROTOCOL.tcp ? 'tcp' : 'udp',
      set,
    }));
  }

  /** Backend, slots, then the count; what goes in reverse. Idempotent at every step. */
  ensureBackends(set: number, wanted: readonly DataplaneBackend[]): void {
    checkBackends(set, wanted);
    const byNumber = new Map(wanted.map((backend) => [backend.number, backend]));
    const plan = planSlots(this.#order(set), [...byNumber.keys()]);
    this.#counters.ensure(set);
    this.#unswept ||= plan.deletes.length + plan.gone.length > 0;
    const elements = new Map(
      Array.from(byNumber.values(), ({ number, address, port }) => [
        number,
        { addr: address, port, self: { set, number } },
      ]),
    );
    for (const [number, element] of elements) this.#backends.put({ set, number }, element);
    for (const [index, number] of plan.order.entries()) this.#slots.put({ set, index }, elements.get(number)!);
    fault('dataplane.slots');
    this.#sets.put({ number: set }, { count: plan.order.length, algorithm: ALGORITHM_RANDOM });
    fault('dataplane.count');
    for (const index of plan.deletes) this.#slots.delete({ set, index });
    for (const number of plan.gone) this.#backends.delete({ set, number });
  }

  removeBackends(set: number): void {
    const order = this.#order(set);
    this.#sets.delete({ number: set });
    for (const [index, number] of order.entries()) {
      this.#slots.delete({ set, index });
      this.#backends.delete({ set, number });
    }
    this.#counters.remove(set);
  }

  backends(): Map<number, DataplaneBackend[]> {
    return new Map(
      Array.from(this.#sets.keys(), ({ number: set }) => [
        set,
        this.#order(set).flatMap((number) => {
          const backend = this.#backends.get({ set, number });
          return backend ? [{ number, address: backend.addr, port: backend.port }] : [];
        }),
      ]),
    );
  }

  counters(set: number): SetCounters {
    const sum = { connects: 0, refused: 0 };
    for (const { connects, refused } of this.#counters.read(set)) {
      sum.connects += Number(connects);
      sum.refused += Number(refused);
    }
    return sum;
  }

  prune(keep: { readonly frontends: readonly DataplaneFrontend[]; readonly sets: ReadonlySet<number> }): number {
    let removed = 0;
    const wanted = new Set(keep.frontends.map(frontendName));
    for (const frontend of this.frontends()) {
      if (wanted.has(frontendName(frontend))) continue;
      this.removeFrontend(frontend);
      removed++;
    }
    for (const { number } of this.#sets.keys()) {
      if (keep.sets.has(number)) continue;
      this.removeBackends(number);
      removed++;
    }
    if (this.#unswept) this.#sweep();
    return removed;
  }

  audit(): Repair[] {
    const backends = new Map<number, string>();
    // What a reader needs first is mended first; what is foreign goes in the opposite order.
    const inBackends = this.#backends.mend();
    const inSlots = this.#slots.mend();
    const inSets = this.#sets.mend();
    const inFrontends = this.#frontends.mend();
    this.#frontends.evict(inFrontends);
    this.#sets.evict(inSets);
    this.#slots.evict(inSlots);
    this.#backends.evict(inBackends);
    for (const { key, was } of inSets) backends.set(key.number, `the set's count was ${was}`);
    for (const { key, was } of inSlots) backends.set(key.set, `slot ${key.index} was ${was}`);
    for (const { key, was } of inBackends) backends.set(key.set, `backend ${key.number} was ${was}`);
    return [
      ...Array.from(backends, ([set, what]): Repair => ({ object: 'backends', id: String(set), what })),
      ...inFrontends.map(({ key, was }): Repair => {
        const protocol = key.protocol === PROTOCOL.tcp ? 'tcp' : 'udp';
        return {
          object: 'frontend',
          id: frontendName({ view: key.view, address: key.addr, port: key.port, protocol }),
          what: `its map entry was ${was}`,
        };
      }),
    ];
  }

  /** What `audit` would put right, set by set. */
  compare(): Drift[] {
    const backendOf = (held: Backend | undefined, number: number): string =>
      held
        ? `backend ${held.addr.includes(':') ? `[${held.addr}]` : held.addr}:${held.port || '*'}`
        : `backend number ${number}`;
    const look = (map: string): string => `bpftool map dump name ${map}`;
    const inSet = (set: number, what: string, is: Drift['is'], map: string): Drift => {
      return { object: 'backends', id: String(set), set, what, is, look: look(map) };
    };
    return [
      ...this.#backends.drifts().map(({ key, was }) => {
        return inSet(
          key.set,
          `${backendOf(this.#backends.get(key), key.number)} in the map of backends`,
          was,
          'backends',
        );
      }),
      ...this.#slots.drifts().map(({ key, was }) => {
        const held = this.#slots.get(key);
        return inSet(
          key.set,
          `${backendOf(held, held?.self.number ?? 0)} in slot ${key.index}, from which it is drawn`,
          was,
          'slots',
        );
      }),
      ...this.#sets
        .drifts()
        .map(({ key, was }) => inSet(key.number, 'the number of backends to draw from', was, 'sets')),
      ...this.#frontends.drifts().map(({ key, was }): Drift => {
        const protocol = key.protocol === PROTOCOL.tcp ? 'tcp' : 'udp';
        const id = frontendName({ view: key.view, address: key.addr, port: key.port, protocol });
        const set = this.#frontends.get(key)?.set;
        return {
          object: 'frontend',
          id,
          set,
          what: `VIP ${id.slice(id.indexOf('/') + 1)} in view ${key.view}`,
          is: was,
          look: look('frontends'),
        };
      }),
    ];
  }

  highest(): { view: number; set: number; backend: number } {
    const top = { view: 0, set: 0, backend: 0 };
    for (const [{ view }, { set }] of this.#frontends.entries()) {
      top.view = Math.max(top.view, view);
      top.set = Math.max(top.set, set);
    }
    for (const { number } of this.#sets.keys()) top.set = Math.max(top.set, number);
    for (const { set, number } of this.#backends.keys()) {
      top.set = Math.max(top.set, set);
      top.backend = Math.max(top.backend, number);
    }
    return top;
  }

  /** Backend number by slot; 0 where a slot is missing. */
  #order(set: number): number[] {
    const count = this.#sets.get({ number: set })?.count ?? 0;
    return Array.from({ length: count }, (_, index) => this.#slots.get({ set, index })?.self.number ?? 0);
  }

  #sweep(): void {
    const live = new Map(Array.from(this.#sets.keys(), ({ number }) => [number, this.#order(number)]));
    for (const key of this.#slots.keys()) if (key.index >= (live.get(key.set)?.length ?? 0)) this.#slots.delete(key);
    for (const key of this.#backends.keys()) if (!live.get(key.set)?.includes(key.number)) this.#backends.delete(key);
    for (const set of this.#counters.known()) if (!live.has(set)) this.#counters.remove(set);
    this.#unswept = false;
  }
}

function keyOf({ address, view, port, protocol }: FrontendKey) {
  return { addr: address, view, port, protocol: port === 0 || !protocol ? 0 : PROTOCOL[protocol] };
}
