/** How objects are written, found and removed: what every noun of the desired state has in common. */
import type { Clock } from '../clock.ts';
import type { DriverRegistry, IpamDriver } from '../contracts/driver.ts';
import type { Images } from '../contracts/image.ts';
import type { Ports } from '../contracts/kernel.ts';
import type { Entry, ListOptions, Op, Store } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { hexId, ID_BYTES, isId, NAME_PATTERN, shortId } from '../model/id.ts';
import { nameKey, objectKey, objectPrefix, referenceKey, statusPrefix, topicsOf } from '../model/keys.ts';
import type { Kind, Obj } from '../model/object.ts';
import type { Numbers } from './numbers.ts';
import { retrying, type Turns } from './turn.ts';

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
  /** Keeps what is this node's alone; absent: the store does. */
  readonly local?: Store;
  readonly clock: Clock;
  readonly node: string;
  readonly drivers: DriverRegistry;
  readonly ipams: ReadonlyMap<string, IpamDriver>;
  readonly images: Pick<Images, 'get'>;
  /** Ports of the host, where they can be asked about: published ports that are chosen are free ones then. */
  readonly ports?: Ports;
  /** Prefixes that the host has routes to; for a global network those of every node. */
  readonly hostPrefixes: (scope: 'local' | 'global') => readonly string[] | Promise<readonly string[]>;
  /** Writers of this process that would get in each other's way. */
  readonly turns: Turns;
  readonly numbers: Numbers;
}

/** Layout version of the specs. */
export const SCHEMA = 1;
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
  readonly #parts: Pick<Parts, 'store' | 'clock' | 'node'>;
  readonly #claimKey: (object: O) => string;

  /** `claimKey`: the key that only one object can hold; default its name, on its owner or in the cluster. */
  constructor(
    kind: K,
    parts: Pick<Parts, 'store' | 'clock' | 'node'>,
    claimKey: (object: O) => string = (object) => nameKey(kind, object.owner, object.name),
  ) {
    this.#kind = kind;
    this.#parts = parts;
    this.#claimKey = claimKey;
  }

  newId(): string {
    return hexId(this.#parts.clock.random(ID_BYTES));
  }

  /** The envelope of a new object. */
  fresh(id: string, name: string, owner: string | null, labels: Readonly<Record<string, string>>, spec: O['spec']): O {
    const createdAt = new Date(this.#parts.clock.now()).toISOString();
    return { kind: this.#kind, id, name, revision: 0, schema: SCHEMA, owner, labels, createdAt, spec } as unknown as O;
  }

  /** Writes of a new object: itself, and the claim that only one can have. */
  creation(object: O): Op[] {
    return [
      { op: 'put', key: objectKey(this.#kind, object.id), value: object, expect: 0 },
      { op: 'put', key: this.#claimKey(object), value: { id: object.id }, expect: 0 },
    ];
  }

  change(object: O, change: Partial<O>): Op {
    const value = { ...object, ...change };
    return { op: 'put', key: objectKey(this.#kind, object.id), value, expect: object.revision };
  }

  /** Writes that begin a removal: the mark, and the name free for a successor. */
  removal(object: O): Op[] {
    return [this.change(object, { removing: true } as Partial<O>), { op: 'delete', key: this.#claimKey(object) }];
  }

  /** The same for what may stand without its name, which may be another's by now (`nameless`). */
  async removing(object: O): Promise<Op[]> {
    const [mark, freed] = this.removal(object);
    const claim = await this.#parts.store.get<{ readonly id: string }>(freed!.key);
    return claim?.value.id === object.id ? [mark!, { op: 'delete', key: freed!.key, expect: claim.revision }] : [mark!];
  }

  /**
   * Whose the name of an object is that was put back after a loss of the store; null: its own. One that is free becomes its own again: of many who say
   * so at once one does.
   */
  async nameless(object: O, options: WriteOptions = {}): Promise<string | null> {
    const key = this.#claimKey(object);
    const claim = await this.#parts.store.get<{ readonly id: string }>(key);
    if (claim) return claim.value.id === object.id ? null : claim.value.id;
    const ops: Op[] = [
      { op: 'check', key: objectKey(this.#kind, object.id), expect: object.revision },
      { op: 'put', key, value: { id: object.id }, expect: 0 },
    ];
    await this.#parts.store.transact(ops, { topics: topicsOf(object), actor: options.actor });
    return null;
  }

  /** Writes of another name, which only one can have. */
  renaming(object: O, name: string): Op[] {
    const renamed = { ...object, name };
    return [
      this.change(object, { name } as Partial<O>),
      { op: 'delete', key: this.#claimKey(object) },
      { op: 'put', key: this.#claimKey(renamed), value: { id: object.id }, expect: 0 },
    ];
  }

  /** Writes of whoever begins to refer to the object: it is as it was read, and a removal that has looked already fails. */
  reference(object: O): Op[] {
    return [
      { op: 'check', key: objectKey(this.#kind, object.id), expect: object.revision },
      { op: 'put', key: referenceKey(this.#kind, object.id), value: {} },
    ];
  }

  /** Read before a removal looks for those who refer to the object; its result fails the transaction when one came since. */
  async noNewReference(id: string): Promise<Op> {
    const key = referenceKey(this.#kind, id);
    return { op: 'check', key, expect: (await this.#parts.store.get(key))?.revision ?? 0 };
  }

  /** Removes the record, its statuses and what is left of its name, and does what else is to go with them; absent succeeds. */
  async forget(object: O, network?: string, more: readonly Op[] = []): Promise<void> {
    const { store } = this.#parts;
    const statuses = async (): Promise<Op[]> =>
      (await store.list(statusPrefix(this.#kind, object.id))).items.map(({ key }) => ({ op: 'delete', key }));
    const options = { topics: topicsOf(object, network) };
    await retrying(async () => {
      const claim = await store.get<{ readonly id: string }>(this.#claimKey(object));
      const ops: Op[] = [
        { op: 'delete', key: objectKey(this.#kind, object.id) },
        { op: 'delete', key: referenceKey(this.#kind, object.id) },
        ...(await statuses()),
        ...more,
      ];
      // By now the name may be a successor's.
      if (claim?.value.id === object.id)
        ops.push({ op: 'delete', key: this.#claimKey(object), expect: claim.revision });
      await store.transact(ops, options);
    });
    // A status that was written between the list and the end of its object; after that none is.
    const late = await statuses();
    if (late.length > 0) await store.transact(late, options);
  }

  async list(options?: ListOptions): Promise<O[]> {
    return (await this.#parts.store.list<O>(objectPrefix(this.#kind), options)).items.map(withRevision);
  }

  async byId(id: string): Promise<O | null> {
    const entry = await this.#parts.store.get<O>(objectKey(this.#kind, id));
    return entry && withRevision(entry);
  }

  async byClaim(key: string): Promise<O | null> {
    const claim = await this.#parts.store.get<{ readonly id: string }>(key);
    return claim && this.byId(claim.value.id);
  }

  /** The object that has the name: this node's first, then the cluster's. What is being removed has none. */
  async byName(name: string): Promise<O | null> {
    return (
      (await this.byClaim(nameKey(this.#kind, this.#parts.node, name))) ??
      (await this.byClaim(nameKey(this.#kind, null, name)))
    );
  }

  /** By name, id, or the beginning of an id. `object.notfound`, `object.ambiguous`. */
  async get(ref: string): Promise<O> {
    return (await this.byName(ref)) ?? this.byIdPrefix(ref);
  }

  async byIdPrefix(ref: string): Promise<O> {
    const exact = isId(ref) ? await this.byId(ref) : null;
    if (exact) return exact;
    if (/^[0-9a-f]+$/.test(ref) && ref.length >= REF_MIN) {
      const { items } = await this.#parts.store.list<O>(`${objectPrefix(this.#kind)}${ref}`);
      if (items.length === 1) return withRevision(items[0]!);
      if (items.length > 1) {
        const names = items.map(({ value }) => `${value.name} (${shortId(value.id)})`);
        throw new SluiceError(
          'object.ambiguous',
          `several ${this.#kind}s have an id that begins with ${ref}: ${names.join(', ')}`,
          { ref, ids: items.map(({ value }) => value.id) },
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

/** Whether two values are the same JSON, whatever the order of their keys; a key without a value is none. */
export function sameJson(a: unknown, b: unknown): boolean {
  const sorted = (_: string, value: unknown): unknown =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([x], [y]) => (x < y ? -1 : 1)))
      : value;
  return JSON.stringify(a, sorted) === JSON.stringify(b, sorted);
}
