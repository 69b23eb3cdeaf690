/** Statuses: written by the node that is named in them, shown beside the object. */
import type { Store } from '../contracts/store.ts';
import { nodeTopic, objectKey, statusKey } from '../model/keys.ts';
import type { Kind, Obj, Status } from '../model/object.ts';
import type { View } from '../model/request.ts';
import { sameJson } from './records.ts';
import { retrying } from './turn.ts';

export class Statuses {
  readonly #store: Store;
  readonly #node: string;

  constructor(store: Store, node: string) {
    this.#store = store;
    this.#node = node;
  }

  /**
   * Written when it differs from what is there. That of an object that is gone by now is not: nobody would remove it. A node's own has no
   * object. Conditions come counted (controller/tracker.ts); here they are taken as they are.
   */
  async set(status: Status): Promise<void> {
    const statusAt = statusKey(status.kind, status.id, status.node);
    const objectAt = objectKey(status.kind, status.id);
    await retrying(async () => {
      const there = await this.#store.get<Status>(statusAt);
      if (there && sameJson(there.value, status)) return;
      const object = status.kind === 'node' ? null : await this.#store.get(objectAt);
      if (status.kind !== 'node' && !object) return;
      const check = object ? [{ op: 'check', key: objectAt, expect: object.revision } as const] : [];
      await this.#store.transact([{ op: 'put', key: statusAt, value: status }, ...check], {
        topics: [nodeTopic(this.#node)],
      });
    });
  }

  /** What this node says of the object, null: nothing yet. */
  async get(kind: Kind, id: string): Promise<Status | null> {
    return (await this.#store.get<Status>(statusKey(kind, id, this.#node)))?.value ?? null;
  }

  /** With what its owner says of it; of what the cluster owns, this node. */
  async view<O extends Obj>(object: O): Promise<View<O>> {
    const { kind, id, owner } = object;
    const entry = await this.#store.get<Status>(statusKey(kind, id, owner ?? this.#node));
    return { ...object, status: entry?.value ?? null };
  }
}
