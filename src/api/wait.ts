/**
 * `wait=30s`: holds the answer until what was stored is programmed, or gone. One watch of the store serves all who wait;
 * nothing polls. A waiter is fed with the records that it names as they are written, and reads them itself only when it
 * begins and when the watch had to start over.
 */
import type { Clock } from '../clock.ts';
import type { Change, Store } from '../contracts/store.ts';
import { ERROR_CODES, type ErrorCode, SluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { objectKey, statusKey } from '../model/keys.ts';
import type { Kind, Obj, Status } from '../model/object.ts';

/** What is waited for: this object, at this revision or later. */
export interface Target {
  readonly kind: Kind;
  readonly id: string;
  readonly name: string;
  readonly revision: number;
}

type Verdict = 'waiting' | 'done' | SluiceError;

const wireCode = (code: string): ErrorCode => (code in ERROR_CODES ? (code as ErrorCode) : 'internal');

const describe = (target: Target) => ({ kind: target.kind, name: target.name, id: target.id });

function failureOf(target: Target, status: Status | null): SluiceError | null {
  if (status?.state !== 'error' || status.observed < target.revision) return null;
  const error = status.error ?? { code: 'internal', message: 'the controller gave no reason' };
  const details = { ...describe(target), ...error, revision: target.revision, stored: true };
  return new SluiceError(wireCode(error.code), `${target.kind} ${target.name}: ${error.message}`, details);
}

/** Whether the object is programmed as of its revision. Pure: the records decide. */
export function judgeReady(target: Target, object: Obj | null, status: Status | null): Verdict {
  if (object === null) {
    const message = `${target.kind} ${target.name} was removed while its programming was waited for`;
    return new SluiceError('object.notfound', message, describe(target));
  }
  if (object.removing) {
    const message = `${target.kind} ${target.name} is being removed while its programming was waited for`;
    return new SluiceError('object.removing', message, describe(target));
  }
  if (status?.state === 'ready' && status.observed >= target.revision) return 'done';
  return failureOf(target, status) ?? 'waiting';
}

/** Whether the object is gone. */
export function judgeGone(target: Target, object: Obj | null, status: Status | null): Verdict {
  if (object === null) return 'done';
  return failureOf(target, status) ?? 'waiting';
}

interface Watched {
  readonly target: Target;
  readonly objectKey: string;
  readonly statusKey: string;
  /** undefined: not known yet. */
  object: Obj | null | undefined;
  status: Status | null | undefined;
  /** How often the watch brought something: a read that began before is then older. */
  news: number;
}

interface Waiter {
  readonly judge: typeof judgeReady;
  readonly open: Set<Watched>;
  readonly settle: (error?: Error) => void;
}

/** See `src/desired/status.ts`. */
export interface KeptStatuses {
  readonly kept: ReadonlyMap<string, Status>;
  onKept(listener: (key: string, status: Status) => void): void;
}

export interface WaitsOptions {
  readonly store: Store;
  readonly topics: readonly string[];
  /** The node whose status counts. */
  readonly node: string;
  /** Statuses that this node keeps to itself. */
  readonly statuses: KeptStatuses;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The daemon's life: at its end all who wait are told. */
  readonly signal: AbortSignal;
  /** Default 1024. */
  readonly waitersMax?: number;
}

const RETRY_MS = 100;
const RETRY_MS_MAX = 5000;

export class Waits {
  readonly #options: WaitsOptions;
  readonly #waiters = new Set<Waiter>();
  /** Store key → who looks at it. */
  readonly #byKey = new Map<string, Map<Watched, Waiter>>();
  #running = false;

  constructor(options: WaitsOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => {
      const error = new SluiceError('daemon.stopping', 'the daemon goes down while the change is programmed');
      for (const waiter of [...this.#waiters]) waiter.settle(error);
    });
  }

  get waiting(): number {
    return this.#waiters.size;
  }

  /** Resolves when every target is `ready` at its revision. Fails with the first target's error, or `wait.timeout` naming what is not ready. */
  ready(targets: readonly Target[], ms: number, signal?: AbortSignal): Promise<void> {
    return this.#wait(judgeReady, targets, ms, 'programmed', signal);
  }

  /** Resolves when every target is gone from the store. */
  gone(targets: readonly Target[], ms: number, signal?: AbortSignal): Promise<void> {
    return this.#wait(judgeGone, targets, ms, 'removed', signal);
  }

  #wait(judge: typeof judgeReady, targets: readonly Target[], ms: number, what: string, caller?: AbortSignal) {
    const { clock, node, signal, waitersMax = 1024 } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    if (targets.length === 0) resolve();
    else if (signal.aborted) reject(new SluiceError('daemon.stopping', `the daemon goes down; nothing is ${what} now`));
    else if (this.#waiters.size >= waitersMax) {
      const message = `${waitersMax} requests wait already; the change is stored`;
      reject(new SluiceError('request.busy', message, { waitersMax, stored: true }));
    } else {
      const open = new Set(
        targets.map(
          (target): Watched => ({
            target,
            objectKey: objectKey(target.kind, target.id),
            statusKey: statusKey(target.kind, target.id, node),
            object: undefined,
            status: undefined,
            news: 0,
          }),
        ),
      );
      const leave = (): void => waiter.settle(new Error('the caller left'));
      const timer = clock.after(ms, () => waiter.settle(timeout(open, ms, what)));
      const waiter: Waiter = {
        judge,
        open,
        settle: (error) => {
          timer.cancel();
          caller?.removeEventListener('abort', leave);
          this.#forget(waiter, [...open]);
          this.#waiters.delete(waiter);
          if (error) reject(error);
          else resolve();
        },
      };
      this.#waiters.add(waiter);
      for (const watched of open) this.#register(waiter, watched);
      if (caller?.aborted) leave();
      else caller?.addEventListener('abort', leave);
      if (this.#running) this.#read(waiter).catch((error) => waiter.settle(error as Error));
      else void this.#run();
    }
    return promise;
  }

  #register(waiter: Waiter, watched: Watched): void {
    for (const key of [watched.objectKey, watched.statusKey]) {
      const lookers = this.#byKey.get(key) ?? new Map<Watched, Waiter>();
      this.#byKey.set(key, lookers.set(watched, waiter));
    }
  }

  #forget(waiter: Waiter, those: readonly Watched[]): void {
    for (const watched of those) {
      for (const key of [watched.objectKey, watched.statusKey]) {
        const lookers = this.#byKey.get(key);
        if (lookers?.delete(watched) && lookers.size === 0) this.#byKey.delete(key);
      }
      waiter.open.delete(watched);
    }
  }

  #decide(waiter: Waiter, watched: Watched): void {
    if (watched.object === undefined || watched.status === undefined || !waiter.open.has(watched)) return;
    const verdict = waiter.judge(watched.target, watched.object, watched.status);
    if (verdict === 'waiting') return;
    if (verdict !== 'done') {
      waiter.settle(verdict);
      return;
    }
    this.#forget(waiter, [watched]);
    if (waiter.open.size === 0) waiter.settle();
  }

  /** Reads a waiter's records. What the watch brings meanwhile wins: it is newer, or followed by what is. */
  async #read(waiter: Waiter): Promise<void> {
    const { store, statuses } = this.#options;
    await Promise.all(
      [...waiter.open].map(async (watched) => {
        const before = watched.news;
        const status = statuses.kept.get(watched.statusKey) ?? (await store.get<Status>(watched.statusKey))?.value;
        const object = await store.get<Obj>(watched.objectKey);
        if (watched.news === before || watched.status === undefined) watched.status = status ?? null;
        if (watched.news === before || watched.object === undefined) watched.object = object?.value ?? null;
        this.#decide(waiter, watched);
      }),
    );
  }

  #apply(change: Change): void {
    for (const { key, value } of change.entries) this.#take(key, value);
  }

  #take(key: string, value: unknown): void {
    for (const [watched, waiter] of [...(this.#byKey.get(key) ?? [])]) {
      watched.news++;
      if (key === watched.statusKey) watched.status = value as Status | null;
      else watched.object = value as Obj | null;
      this.#decide(waiter, watched);
    }
  }

  /** The shared watch: begins with the first waiter, lives as long as the daemon, starts over after a failure. */
  async #run(): Promise<void> {
    const { store, topics, statuses, clock, logger, signal } = this.#options;
    this.#running = true;
    statuses.onKept((key, value) => this.#take(key, value));
    let retryMs = RETRY_MS;
    while (!signal.aborted) {
      try {
        const from = await store.transact([]);
        await Promise.all([...this.#waiters].map((waiter) => this.#read(waiter)));
        retryMs = RETRY_MS;
        for await (const event of store.watch(topics, from, signal)) {
          if (event.type === 'change') this.#apply(event.change);
          else await Promise.all([...this.#waiters].map((waiter) => this.#read(waiter)));
        }
        if (!signal.aborted) throw new SluiceError('store.unavailable', 'the watch of the store ended by itself');
      } catch (error) {
        if (signal.aborted) break;
        logger.warn({ err: error, retryMs }, 'the watch that serves waiting requests failed and starts over');
        await clock.sleep(retryMs, signal).catch((reason) => {
          if (!signal.aborted) throw reason;
        });
        retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
      }
    }
    this.#running = false;
  }
}

function timeout(open: ReadonlySet<Watched>, ms: number, what: string): SluiceError {
  const objects = [...open].map(({ target, status }) => ({
    ...describe(target),
    revision: target.revision,
    state: status?.state ?? 'unseen',
    observed: status?.observed ?? 0,
    conditions: (status?.conditions ?? []).filter((condition) => condition.active).map(({ type }) => type),
  }));
  const names = objects.map((object) => `${object.kind} ${object.name} (${object.state})`).join(', ');
  const message = `not ${what} within ${ms / 1000} s: ${names}; the change is stored and work on it goes on`;
  return new SluiceError('wait.timeout', message, { objects, stored: true });
}
