/** Statuses: written by the node that is named in them, shown beside the object. */
import type { Store } from '../contracts/store.ts';
import { nodeTopic, objectKey, statusKey } from '../model/keys.ts';
import type { Obj, Status } from '../model/object.ts';
import type { View } from '../model/request.ts';
import { retrying } from './records.ts';

export class Statuses {
  readonly #store: Store;
  readonly #node: string;

  constructor(store: Store, node: string) {
    this.#store = store;
    this.#node = node;
  }

  /** A status of an object that is gone by now is not written: nobody would remove it. A node's own has no object. */
  async set(status: Status): Promise<void> {
    const put = { op: 'put', key: statusKey(status.kind, status.id, status.node), value: status } as const;
    await retrying(async () => {
      const key = objectKey(status.kind, status.id);
      const object = status.kind === 'node' ? null : await this.#store.get(key);
      if (status.kind !== 'node' && !object) return;
      const check = object ? [{ op: 'check', key, expect: object.revision } as const] : [];
      await this.#store.transact([put, ...check], { topics: [nodeTopic(this.#node)] });
    });
  }

  async view<O extends Obj>(object: O): Promise<View<O>> {
    const entry = await this.#store.get<Status>(statusKey(object.kind, object.id, this.#node));
    return { ...object, status: entry?.value ?? null };
  }
}
