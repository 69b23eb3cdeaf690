/** Statuses: written by the node that is named in them, shown beside the object. */
import type { Op, Store } from '../contracts/store.ts';
import { isSluiceError } from '../errors.ts';
import { nodeTopic, objectKey, statusKey, unplacedKey } from '../model/keys.ts';
import type { Condition, ConditionType, Kind, Obj, Status } from '../model/object.ts';
import type { View } from '../model/request.ts';
import type { Unplaced } from '../model/service/placement.ts';
import { retrying } from './turn.ts';

export type StatusListener = (key: string, status: Status) => void;

export class Statuses {
  readonly #store: Store;
  readonly #node: string;
  /** Those that are told to nobody but who asks this node, by key. */
  readonly kept: ReadonlyMap<string, Status>;
  readonly #kept = new Map<string, Status>();
  readonly #listeners: StatusListener[] = [];

  constructor(store: Store, node: string) {
    this.#store = store;
    this.#node = node;
    this.kept = this.#kept;
  }

  /**
   * Written in one step while its object is as it was when that was found, which is nearly always. That of an object that is not there is not, and
   * false is the answer: nobody would remove it. A node's own has no object. Conditions come counted (controller/tracker.ts); here they are taken
   * as they are.
   */
  async set(status: Status): Promise<boolean> {
    const key = statusKey(status.kind, status.id, status.node);
    const objectAt = objectKey(status.kind, status.id);
    const write = (checks: readonly Op[]): Promise<number> =>
      this.#store.transact([{ op: 'put', key, value: status }, ...checks], { topics: [nodeTopic(this.#node)] });
    const writeAt = (revision: number): Promise<number> => write([{ op: 'check', key: objectAt, expect: revision }]);
    let isWritten = true;
    if (status.kind === 'node') await write([]);
    else if (status.observed === 0 || !(await unlessConflict(() => writeAt(status.observed))))
      isWritten = await retrying(async () => {
        const object = await this.#store.get(objectAt);
        if (object) await writeAt(object.revision);
        return object !== null;
      });
    this.#kept.delete(key);
    return isWritten;
  }

  /** Not written: a node that has nothing of its own to say of an object that is everybody's says so to who asks it. */
  keep(status: Status): void {
    const key = statusKey(status.kind, status.id, status.node);
    this.#kept.set(key, status);
    for (const listener of this.#listeners) listener(key, status);
  }

  /** The object is gone. What was written goes with its record. */
  forget(kind: Kind, id: string): void {
    this.#kept.delete(statusKey(kind, id, this.#node));
  }

  /** Hears of each status that is kept. */
  onKept(listener: StatusListener): void {
    this.#listeners.push(listener);
  }

  /** What this node says of the object, null: nothing yet. */
  async get(kind: Kind, id: string): Promise<Status | null> {
    return this.#read(statusKey(kind, id, this.#node));
  }

  /** With what its owner says of it; of what the cluster owns, this node; and of a service's replicas the scheduler. */
  async view<O extends Obj>(object: O): Promise<View<O>> {
    const { kind, id, owner } = object;
    const node = owner ?? this.#node;
    const own = await this.#read(statusKey(kind, id, node));
    const unplaced = kind === 'service' ? await this.#store.get<Unplaced>(unplacedKey(id)) : null;
    if (!unplaced) return { ...object, status: own };
    const { message, since } = unplaced.value;
    const status: Status = own ?? { kind, id, node, state: 'pending', observed: 0, conditions: [], detail: {} };
    const condition: Condition = { type: 'Unplaced' satisfies ConditionType, active: true, message, since, count: 1 };
    return { ...object, status: { ...status, conditions: [...status.conditions, condition] } };
  }

  async #read(key: string): Promise<Status | null> {
    return this.#kept.get(key) ?? (await this.#store.get<Status>(key))?.value ?? null;
  }
}

/** False where an expectation failed. */
async function unlessConflict(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!isSluiceError(error, 'store.conflict')) throw error;
    return false;
  }
}
