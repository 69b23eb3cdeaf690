/**
 * What this node says of each object: state, conditions, detail. Kept in memory, written through to the store when it changes.
 * Loaded at start, so that what was ready before a restart counts as ready until it is found otherwise.
 */
import type { Clock } from '../clock.ts';
import { isSluiceError, type SluiceError } from '../errors.ts';
import { repairs } from '../metrics.ts';
import type { Condition, ConditionType, Kind, Obj, State, Status } from '../model/object.ts';

export interface StatusSink {
  /** Whether it was written: not when its object is not there, be it gone for good or until a store that lost it has it again. */
  set(status: Status): Promise<boolean>;
  /** Told to who asks this node, and not written. */
  keep(status: Status): void;
  forget(kind: Kind, id: string): void;
}

export type StateListener = (kind: Kind, id: string, state: State | undefined, before: State | undefined) => void;

export class Tracker {
  readonly #statuses = new Map<string, Status>();
  /** Statuses that the store does not have, as far as is known. */
  readonly #unsent = new Set<string>();
  /** Those that it has: they are written over, whatever there is to say. */
  readonly #stored = new Set<string>();
  /** Objects of the cluster that this node takes no part in. */
  readonly #aside = new Set<string>();
  readonly #listeners: StateListener[] = [];
  readonly #sink: StatusSink;
  readonly #clock: Clock;
  readonly #node: string;

  constructor(options: { sink: StatusSink; clock: Clock; node: string }) {
    this.#sink = options.sink;
    this.#clock = options.clock;
    this.#node = options.node;
  }

  load(statuses: readonly Status[]): void {
    for (const status of statuses) {
      if (status.node !== this.#node) continue;
      this.#statuses.set(`${status.kind}/${status.id}`, status);
      this.#stored.add(`${status.kind}/${status.id}`);
    }
  }

  onChange(listener: StateListener): void {
    this.#listeners.push(listener);
  }

  get(kind: Kind, id: string): Status | undefined {
    return this.#statuses.get(`${kind}/${id}`);
  }

  isReady(kind: Kind, id: string): boolean {
    return this.get(kind, id)?.state === 'ready';
  }

  detail<T>(kind: Kind, id: string): Partial<T> {
    return (this.get(kind, id)?.detail ?? {}) as Partial<T>;
  }

  ready(object: Obj, detail: Record<string, unknown>): Promise<void> {
    this.#aside.delete(`${object.kind}/${object.id}`);
    return this.#ready(object, detail);
  }

  /**
   * Ready, and this node takes no part in it: nothing is written unless it was before, or there is a condition to tell. Of a service of a large
   * cluster every node would otherwise keep a record.
   */
  readyAside(object: Obj, detail: Record<string, unknown>): Promise<void> {
    this.#aside.add(`${object.kind}/${object.id}`);
    return this.#ready(object, detail);
  }

  #ready({ kind, id, revision }: Obj, detail: Record<string, unknown>): Promise<void> {
    return this.#set(kind, id, { state: 'ready', observed: revision, error: undefined, detail });
  }

  failed(object: Obj, error: SluiceError, retryMs: number): Promise<void> {
    const retryAt = new Date(this.#clock.now() + retryMs).toISOString();
    return this.#set(object.kind, object.id, {
      state: 'error',
      observed: object.revision,
      error: { code: error.code, message: error.message, retryAt },
    });
  }

  /** Failed for good: it is not tried again by itself. */
  refused(
    object: Obj,
    error: { readonly code: string; readonly message: string },
    detail: Record<string, unknown>,
  ): Promise<void> {
    const { code, message } = error;
    return this.#set(object.kind, object.id, {
      state: 'error',
      observed: object.revision,
      error: { code, message },
      detail,
    });
  }

  /** Turns a condition on or off; `count` grows at each turn to on and, for `again`, at each call. */
  condition(
    kind: Kind,
    id: string,
    type: ConditionType,
    active: boolean,
    message: string,
    again = false,
  ): Promise<void> {
    const conditions = this.get(kind, id)?.conditions ?? [];
    const old = conditions.find((condition) => condition.type === type);
    if (!old && !active) return Promise.resolve();
    if (old && old.active === active && old.message === message && !again) return Promise.resolve();
    const turned = !old || old.active !== active;
    const next: Condition = {
      type,
      active,
      message,
      since: turned || again ? new Date(this.#clock.now()).toISOString() : old.since,
      count: (old?.count ?? 0) + (active && (turned || again) ? 1 : 0),
    };
    return this.#set(kind, id, { conditions: [...conditions.filter((condition) => condition.type !== type), next] });
  }

  /** Something in the kernel was not as it should be and was put right. */
  repaired(kind: Kind, id: string, what: readonly string[]): Promise<void> {
    if (what.length === 0) return Promise.resolve();
    repairs.inc({ object: kind }, what.length);
    return this.condition(kind, id, 'Repaired', true, `found amiss and put right: ${what.join('; ')}`, true);
  }

  /** The object is gone, and its record with it. */
  forget(kind: Kind, id: string): void {
    const before = this.get(kind, id)?.state;
    this.#statuses.delete(`${kind}/${id}`);
    for (const keys of [this.#unsent, this.#stored, this.#aside]) keys.delete(`${kind}/${id}`);
    this.#sink.forget(kind, id);
    for (const listener of this.#listeners) listener(kind, id, undefined, before);
  }

  async #set(kind: Kind, id: string, change: Partial<Status>): Promise<void> {
    const key = `${kind}/${id}`;
    const before = this.#statuses.get(key);
    const base: Status = before ?? {
      kind,
      id,
      node: this.#node,
      state: 'pending',
      observed: 0,
      conditions: [],
      detail: {},
    };
    const next: Status = { ...base, ...change };
    if (before && same(before, next) && !this.#unsent.has(key)) return;
    this.#statuses.set(key, next);
    if (before?.state !== next.state)
      for (const listener of this.#listeners) listener(kind, id, next.state, before?.state);
    if (this.#aside.has(key) && !this.#stored.has(key) && isPlain(next)) {
      this.#sink.keep(next);
      return;
    }
    this.#stored.add(key);
    let isWritten = false;
    try {
      isWritten = await this.#sink.set(next);
    } catch (error) {
      // What is true of the kernel does not depend on the store: an audit says it again.
      if (!isSluiceError(error, 'store.unavailable')) throw error;
    } finally {
      // Of two at once the earlier one may be written last: then the later one is said again.
      if (isWritten && this.#statuses.get(key) === next) this.#unsent.delete(key);
      else if (this.#statuses.has(key)) this.#unsent.add(key);
    }
  }
}

/** Nothing that another node, or a reader after this daemon's death, would have to know. */
const isPlain = ({ state, conditions }: Status): boolean => state === 'ready' && conditions.length === 0;

const same = (a: Status, b: Status): boolean => JSON.stringify(a) === JSON.stringify(b);

/** What an active condition says; undefined: it is not active. */
export const troubleOf = (
  tracker: Pick<Tracker, 'get'>,
  kind: Kind,
  id: string,
  type: ConditionType,
): string | undefined => {
  const found = tracker.get(kind, id)?.conditions.find((condition) => condition.type === type);
  return found?.active ? found.message : undefined;
};
