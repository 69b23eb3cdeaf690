/**
 * A node's own record: under which address others reach it, where its overlay packets leave and enter, which prefixes it has routes to.
 * Only its own daemon writes it, whenever one of these has changed.
 */
import type { Clock, Timer } from '../clock.ts';
import type { Op, Store } from '../contracts/store.ts';
import { sameJson } from '../desired/records.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { hexId, ID_BYTES } from '../model/id.ts';
import { clusterTopic, nameKey, objectKey } from '../model/keys.ts';
import type { HostSpec, Node } from '../model/node.ts';

/** How often the host is looked at again, milliseconds. */
const REFRESH_MS = 10_000;
/** Attempts against an earlier life of this node that still writes. */
const ATTEMPTS_MAX = 8;
/** Layout version of the spec. */
const SCHEMA = 1;

export interface RegistrationOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly node: string;
  /** What is true of this host now. */
  readonly describe: () => HostSpec;
}

export class Registration {
  readonly #options: RegistrationOptions;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /** Registers now and looks again from time to time. Rejects when that fails, but while the store is away: what runs here goes on without it. */
  async start(): Promise<void> {
    try {
      await this.refresh();
    } catch (error) {
      if (!isSluiceError(error, 'store.unavailable')) throw error;
      this.#options.logger.warn({ err: error.message }, 'node not registered yet');
    }
    this.#schedule();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** Writes the record where it is missing or says something else. True: it was written. */
  async refresh(): Promise<boolean> {
    const host = this.#options.describe();
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#write(host);
      } catch (error) {
        if (!isSluiceError(error, 'store.conflict') || attempt === ATTEMPTS_MAX) throw error;
      }
    }
  }

  async #write(host: HostSpec): Promise<boolean> {
    const { store, clock, node } = this.#options;
    const nameAt = nameKey('node', null, node);
    const claim = await store.get<{ readonly id: string }>(nameAt);
    const known = claim && (await store.get<Node>(objectKey('node', claim.value.id)));
    if (claim && !known)
      throw new SluiceError('store.damaged', `the name of node ${node} belongs to a record that is not there`, {
        node,
        id: claim.value.id,
      });
    const ops: Op[] = [];
    if (known) {
      // What others have set, and what a newer version knows, stays.
      const spec = { ...known.value.spec, vtep: undefined, ...host };
      if (sameJson(known.value.spec, spec)) return false;
      const value = { ...known.value, spec };
      ops.push({ op: 'put', key: known.key, value, expect: known.revision });
    } else {
      const id = hexId(clock.random(ID_BYTES));
      const value: Node = {
        kind: 'node',
        id,
        name: node,
        revision: 0,
        schema: SCHEMA,
        owner: node,
        labels: {},
        createdAt: new Date(clock.now()).toISOString(),
        spec: host,
      };
      ops.push({ op: 'put', key: objectKey('node', id), value, expect: 0 });
      ops.push({ op: 'put', key: nameAt, value: { id }, expect: 0 });
    }
    await store.transact(ops, { topics: [clusterTopic] });
    return true;
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(REFRESH_MS, () => {
      this.refresh()
        .catch((error) => this.#options.logger.warn({ err: toSluiceError(error).message }, 'node not registered anew'))
        .finally(() => this.#schedule());
    });
  }
}
