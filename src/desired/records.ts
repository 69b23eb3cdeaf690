/** How objects are written, found and removed: what every noun of the desired state has in common. */
import type { Clock } from '../clock.ts';
import type { DriverRegistry, IpamDriver } from '../contracts/driver.ts';
import type { Entry, Op, Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { hexId, ID_BYTES, isId, NAME_PATTERN } from '../model/id.ts';
import { nameKey, objectKey, objectPrefix, statusPrefix, topicsOf } from '../model/keys.ts';
import type { Kind, Obj } from '../model/object.ts';

export interface WriteOptions {
  /** Who asks, for the change log. */
  readonly actor?: string;
}
export interface PutOptions extends WriteOptions {
  /** Fails with `object.exists` instead of answering with one that is there. */
  readonly create?: boolean;
}
export interface Put<O> {
  readonly object: O;
  /** False: it was there. */
  readonly created: boolean;
}

export interface Parts {
  readonly store: Store;
  readonly clock: Clock;
  readonly node: string;
  readonly drivers: DriverRegistry;
  readonly ipams: ReadonlyMap<string, IpamDriver>;
  /** Prefixes that the host has routes to. */
  readonly hostPrefixes: () => readonly string[];
}

/** Layout version of the specs. */
export const SCHEMA = 1;
/** Attempts of a read-change-write against others. */
const ATTEMPTS_MAX = 16;
/** The shortest abbreviation of an id. */
const REF_MIN = 4;

export function checkName(kind: Kind, name: string): void {
  if (!NAME_PATTERN.test(name))
    throw new SluiceError(
      'request.invalid',
      `"${name}" cannot name a ${kind}: letters, digits, "_", "." and "-", 63 at most, the first a letter or digit`,
      { name },
    );
}

export class Records<K extends Kind, O extends Obj<K>> {
  readonly #kind: K;
  readonly #parts: Parts;

  constructor(kind: K, parts: Parts) {
    this.#kind = kind;
    this.#parts = parts;
  }

  newId(): string {
    return hexId(this.#parts.clock.random(ID_BYTES));
  }

  /** The envelope of a new object. */
  fresh(id: string, name: string, owner: string | null, labels: Readonly<Record<string, string>>, spec: O['spec']): O {
    const createdAt = new Date(this.#parts.clock.now()).toISOString();
    return { kind: this.#kind, id, name, revision: 0, schema: SCHEMA, owner, labels, createdAt, spec } as unknown as O;
  }

  /** Writes of a new object: itself and its name, which only one can claim. */
  creation(object: O): Op[] {
    return [
      { op: 'put', key: objectKey(this.#kind, object.id), value: object, expect: 0 },
      { op: 'put', key: nameKey(this.#kind, object.owner, object.name), value: { id: object.id }, expect: 0 },
    ];
  }

  change(object: O, change: Partial<O>): Op {
    return {
      op: 'put',
      key: objectKey(this.#kind, object.id),
      value: { ...object, ...change },
      expect: object.revision,
    };
  }

  /** Writes that begin a removal: the mark, and the name free for a successor. */
  removal(object: O): Op[] {
    return [
      this.change(object, { removing: true } as Partial<O>),
      { op: 'delete', key: nameKey(this.#kind, object.owner, object.name) },
    ];
  }

  /** Fails the transaction when the object has changed or gone since it was read. */
  check(object: O): Op {
    return { op: 'check', key: objectKey(this.#kind, object.id), expect: object.revision };
  }

  /** Removes the record and its statuses; absent succeeds. */
  async forget(object: O, network?: string): Promise<void> {
    const { store } = this.#parts;
    const statuses = await store.list(statusPrefix(this.#kind, object.id));
    const ops: Op[] = [
      { op: 'delete', key: objectKey(this.#kind, object.id) },
      ...statuses.items.map(({ key }) => ({ op: 'delete', key }) as const),
    ];
    await store.transact(ops, { topics: topicsOf(object, network) });
  }

  async list(): Promise<O[]> {
    return (await this.#parts.store.list<O>(objectPrefix(this.#kind))).items.map(withRevision);
  }

  async byId(id: string): Promise<O | null> {
    const entry = await this.#parts.store.get<O>(objectKey(this.#kind, id));
    return entry && withRevision(entry);
  }

  /** The object that claims the name: this node's first, then the cluster's. */
  async byName(name: string): Promise<O | null> {
    for (const owner of [this.#parts.node, null]) {
      const claim = await this.#parts.store.get<{ id: string }>(nameKey(this.#kind, owner, name));
      if (claim) return this.byId(claim.value.id);
    }
    return null;
  }

  /** By name, id, or the beginning of an id. `object.notfound`, `object.ambiguous`. */
  async get(ref: string): Promise<O> {
    const exact = (await this.byName(ref)) ?? (isId(ref) ? await this.byId(ref) : null);
    if (exact) return exact;
    if (/^[0-9a-f]+$/.test(ref) && ref.length >= REF_MIN) {
      const { items } = await this.#parts.store.list<O>(`${objectPrefix(this.#kind)}${ref}`);
      if (items.length === 1) return withRevision(items[0]!);
      if (items.length > 1) {
        const ids = items.map(({ value }) => value.id);
        throw new SluiceError(
          'object.ambiguous',
          `several ${this.#kind}s have an id that begins with ${ref}: ${ids.map((id) => id.slice(0, 12)).join(', ')}`,
          { ref, ids },
        );
      }
    }
    throw new SluiceError('object.notfound', `there is no ${this.#kind} ${ref}`, { kind: this.#kind, ref });
  }

  /** Like `get`, and refuses what is being removed. */
  async living(ref: string): Promise<O> {
    const object = await this.get(ref);
    if (object.removing)
      throw new SluiceError('object.removing', `${this.#kind} ${object.name} is being removed`, {
        kind: this.#kind,
        id: object.id,
      });
    return object;
  }
}

export const withRevision = <O extends Obj>({ value, revision }: Entry<O>): O => ({ ...value, revision });

/** Repeats a read-change-write while others are faster. */
export async function retrying<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (!isSluiceError(error, 'store.conflict') || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

/** Runs `work`; when it fails, what was registered on the way is undone, the last first. The original error wins. */
export async function undoing<T>(work: (undo: (step: () => Promise<void>) => void) => Promise<T>): Promise<T> {
  const steps: (() => Promise<void>)[] = [];
  try {
    return await work((step) => steps.push(step));
  } catch (error) {
    const failures: unknown[] = [];
    for (const step of steps.reverse()) await step().catch((failure: unknown) => failures.push(failure));
    // What could not be undone is an orphaned lease: the collector frees it.
    if (failures.length > 0 && error instanceof SluiceError)
      throw new SluiceError(error.code, error.message, { ...error.details, undo: failures.map(String) }, error);
    throw error;
  }
}
