/** One daemon's view of the simulated server: as that of Redis (src/store/redis/redis.ts), over messages that may be late or lost. */
import type { Clock } from '../../src/clock.ts';
import type { Entry, ListOptions, Op, Session, Store, TransactOptions, WatchEvent } from '../../src/contracts/store.ts';
import { isSluiceError, SluiceError } from '../../src/errors.ts';
import type { Ask } from './link.ts';
import type { SimServer } from './server.ts';

/** Pause before a server is asked again that is away, milliseconds. */
const AGAIN_MS = 2_000;
/** As in Redis: whose server it is may change that often in one call. */
const ROUNDS_MAX = 5;

export interface SimClientOptions {
  readonly clock: Clock;
  readonly ask?: Ask;
  readonly seen?: { readonly incarnation: string; readonly revision: number };
  readonly onTerm?: () => void;
}

const direct: Ask = async (work) => work();

export async function openSimClient(server: SimServer, options: SimClientOptions): Promise<SimClient> {
  const client = new SimClient(server, options);
  // As with Redis: who has seen the store before can wait for it.
  if (!options.seen) await client.get('hello');
  return client;
}

export class SimClient implements Store {
  readonly #server: SimServer;
  readonly #options: SimClientOptions;
  readonly #closing = new AbortController();
  #incarnation: string;
  #seen: number;
  #term = 0;

  constructor(server: SimServer, options: SimClientOptions) {
    this.#server = server;
    this.#options = options;
    this.#incarnation = options.seen?.incarnation ?? '';
    this.#seen = options.seen?.revision ?? 0;
  }

  get incarnation(): string {
    return this.#incarnation;
  }
  get term(): string {
    return `${this.#incarnation}:${this.#term}`;
  }
  /** Whether it knows of everything that the server lost. */
  get isCurrent(): boolean {
    return this.#incarnation === this.#server.incarnation && !this.#server.lacks(this.#seen);
  }

  async get<T>(key: string): Promise<Entry<T> | null> {
    return this.#call(() => this.#server.get<T>(key));
  }

  async list<T>(
    prefix: string,
    { upTo = Infinity }: ListOptions = {},
  ): Promise<{ items: Entry<T>[]; revision: number }> {
    return this.#call(() => ({
      items: this.#server.list<T>(prefix).filter(({ revision }) => revision <= upTo),
      revision: this.#server.revision,
    }));
  }

  async transact(ops: readonly Op[], options: TransactOptions = {}): Promise<number> {
    return this.#call(() => this.#server.write(ops, options, this.#incarnation), ops.length > 0);
  }

  async *watch(
    topics: string | readonly string[],
    from: number,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent, void, undefined> {
    const list = typeof topics === 'string' ? [topics] : topics;
    const ended = AbortSignal.any([signal, this.#closing.signal]);
    let [incarnation, at] = [this.#incarnation, from];
    while (!signal.aborted) {
      try {
        const [changes, revision] = await this.#call(
          () => [this.#server.read(list, at), this.#server.revision] as const,
        );
        if (!changes || this.#incarnation !== incarnation) {
          incarnation = this.#incarnation;
          at = revision;
          yield { type: 'relist', revision: at };
          continue;
        }
        for (const change of changes) {
          if (signal.aborted) return;
          at = change.revision;
          yield { type: 'change', change };
        }
        if (changes.length === 0) at = await this.#server.wait(list, Math.max(at, revision), ended);
      } catch (error) {
        if (!isSluiceError(error, 'store.unavailable') || this.#closing.signal.aborted) throw error;
        await this.#options.clock.sleep(AGAIN_MS, ended).catch(() => undefined);
      }
    }
  }

  async session(name: string, ttlMs: number): Promise<Session> {
    const begun = await this.#call(() => this.#server.sessions.begin(name, ttlMs));
    const incarnation = this.#incarnation;
    const { epoch } = begun;
    const isAlive = (): boolean => this.#incarnation === incarnation && begun.alive;
    return {
      name,
      epoch,
      get alive() {
        return isAlive();
      },
      renew: () => this.#call(() => this.#server.renew(begun)),
      end: () => this.#call(() => void begun.end()),
    };
  }

  async close(): Promise<void> {
    this.#closing.abort();
  }

  async #call<T>(work: () => T, bound = false): Promise<T> {
    const asked = this.#incarnation;
    const ask = this.#options.ask ?? direct;
    for (let round = 0; round < ROUNDS_MAX; round++) {
      if (this.#closing.signal.aborted) throw new SluiceError('store.unavailable', 'the store is closed');
      const head = { incarnation: this.#incarnation, seen: this.#seen };
      const answer = await ask(() => this.#server.serve(head, work));
      if (answer.status === 'ok') {
        this.#heard(head.incarnation, answer.revision, answer.term);
        if ('error' in answer) throw answer.error;
        return answer.value;
      }
      this.#become(answer.incarnation, head.incarnation);
      if (bound && asked !== '' && this.#incarnation !== asked)
        throw new SluiceError('store.conflict', 'the store was emptied or replaced since this was read', {
          key: 'incarnation',
        });
    }
    throw new SluiceError('store.unavailable', 'the store is emptied or replaced again and again');
  }

  #heard(incarnation: string, revision: number, term: number): void {
    if (incarnation !== this.#incarnation) return;
    this.#seen = Math.max(this.#seen, revision);
    if (term === this.#term) return;
    this.#term = term;
    this.#options.onTerm?.();
  }

  #become(incarnation: string, before: string): void {
    if (this.#incarnation !== before || incarnation === before) return;
    [this.#incarnation, this.#seen, this.#term] = [incarnation, 0, 0];
    this.#options.onTerm?.();
  }
}
