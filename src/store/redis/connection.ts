/**
 * A connection to Redis that fails fast and comes back by itself: a command waits for the connection and for its answer, both within one
 * time limit, and is never sent twice. When Redis has been away for longer than the limit, commands fail at once.
 */
import { createRequire } from 'node:module';
import type { Cluster, Redis, RedisOptions } from 'ioredis';
import { type Clock, withTimeLimit } from '../../clock.ts';
import { SluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Script } from './script.ts';
import { nameOf, type RedisPlace } from './url.ts';

/** Time for one command, milliseconds, the wait for a connection included. */
export const COMMAND_MS_MAX = 1_000;
/** Time for a list, milliseconds: of a large cluster it is dozens of megabytes, and after an outage all nodes ask for theirs at once. */
export const LIST_MS_MAX = 10_000;
/** Time to read an answer that arrived while the process was busy, milliseconds. */
const READ_MS = 20;
/** Pauses between attempts to connect: by 50 ms longer each up to this. */
const RECONNECT_MS_MAX = 250;

type Argument = string | number;

export class Connection {
  readonly #place: RedisPlace;
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  readonly #client: Redis | Cluster;
  #closed = false;
  #up = Promise.withResolvers<void>();
  /** Monotonic time since which it is away; undefined: it is there. */
  #awaySince: number | undefined;
  #reason = 'no answer yet';

  constructor(place: RedisPlace, clock: Clock, logger?: Logger) {
    this.#place = place;
    this.#clock = clock;
    this.#logger = logger;
    this.#awaySince = clock.monotonic();
    this.#client = connect(place);
    this.#client.on('ready', () => {
      if (this.#awaySince === undefined) return;
      this.#logger?.info({ redis: nameOf(place), awayMs: Math.round(clock.monotonic() - this.#awaySince) }, 'redis up');
      this.#awaySince = undefined;
      this.#up.resolve();
    });
    this.#client.on('error', (error: Error) => {
      this.#reason = error.message;
    });
    this.#client.on('close', () => this.#lost());
  }

  /** Whether it answered when last heard of. */
  get isUp(): boolean {
    return this.#awaySince === undefined;
  }

  /** Runs a script; its answer, which is to be here within `ms`. Fails with `store.unavailable` or `store.full`. */
  async run(script: Script, keys: readonly string[], args: readonly Argument[], ms = COMMAND_MS_MAX): Promise<unknown> {
    return this.#limited(ms, async () => {
      try {
        return await this.#client.evalsha(script.sha, keys.length, ...keys, ...args);
      } catch (error) {
        if (!(error as Error).message.startsWith('NOSCRIPT')) throw error;
        return this.#client.eval(script.source, keys.length, ...keys, ...args);
      }
    });
  }

  /** Replicas that have all that this connection wrote, after `ms` at most. */
  async acknowledgements(replicas: number, ms: number, key: string): Promise<number> {
    return this.#limited(COMMAND_MS_MAX + ms, async () => {
      const client = this.#client;
      if (!(client instanceof ioredis().Cluster)) return client.wait(replicas, ms);
      throw new SluiceError('config.invalid', `acknowledgements of replicas (${key}) need a single Redis or Sentinel`);
    });
  }

  /** What the streams have after `after`, as soon as one has something, at most `count` entries of each; null: none had within `ms`. */
  async awaitStreams(streams: readonly string[], after: number, count: number, ms: number): Promise<unknown> {
    const places = streams.map(() => `${after}-0`);
    return this.#limited(ms + COMMAND_MS_MAX, () =>
      this.#client.xread('COUNT', count, 'BLOCK', ms, 'STREAMS', ...streams, ...places),
    );
  }

  /** Another connection to the same Redis. */
  another(): Connection {
    return new Connection(this.#place, this.#clock);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#lost();
    this.#up.resolve();
    this.#client.disconnect();
  }

  async #limited<T>(ms: number, work: () => Promise<T>): Promise<T> {
    const away = (): SluiceError =>
      new SluiceError('store.unavailable', `Redis at ${nameOf(this.#place)} is away: ${this.#reason}`, {
        redis: nameOf(this.#place),
      });
    if (this.#closed) throw new SluiceError('store.unavailable', 'the store is closed');
    if (this.#awaySince !== undefined) {
      const left = this.#awaySince + COMMAND_MS_MAX - this.#clock.monotonic();
      if (left <= 0) throw away();
      await withTimeLimit(this.#clock, left, this.#up.promise, away);
      if (this.#closed) throw new SluiceError('store.unavailable', 'the store is closed');
    }
    try {
      return await this.#inTime(ms, work(), () => {
        this.#reason = `no answer within ${ms} ms`;
        // It hangs or the way there is cut: only a new connection can tell. The first of many who wait in vain asks for it.
        if (!this.#closed && this.#awaySince === undefined) {
          this.#lost();
          this.#client.disconnect(true);
        }
        return away();
      });
    } catch (error) {
      throw this.#meaning(error as Error);
    }
  }

  /** As `withTimeLimit`; a process that was busy longer than that reads what has arrived first. */
  async #inTime<T>(ms: number, work: Promise<T>, late: () => Error): Promise<T> {
    const limit = Promise.withResolvers<never>();
    let timer = this.#clock.after(ms, () => {
      timer = this.#clock.after(READ_MS, () => limit.reject(late()));
    });
    try {
      return await Promise.race([work, limit.promise]);
    } finally {
      timer.cancel();
    }
  }

  #lost(): void {
    if (this.#awaySince !== undefined) return;
    this.#awaySince = this.#clock.monotonic();
    this.#up = Promise.withResolvers<void>();
    if (!this.#closed) this.#logger?.warn({ redis: nameOf(this.#place), reason: this.#reason }, 'redis away');
  }

  #meaning(error: Error): Error {
    if (error instanceof SluiceError) return error;
    const redis = nameOf(this.#place);
    if (error.message.startsWith('OOM'))
      return new SluiceError('store.full', `Redis at ${redis} is full: ${error.message}`, { redis }, error);
    return new SluiceError('store.unavailable', `Redis at ${redis}: ${error.message}`, { redis }, error);
  }
}

/** Loaded by who needs it: a tenth of a second of every other daemon's start. */
const ioredis = (): typeof import('ioredis') => createRequire(import.meta.url)('ioredis');

function connect(place: RedisPlace): Redis | Cluster {
  const { Cluster, Redis } = ioredis();
  const pause = (times: number): number => Math.min(50 * times, RECONNECT_MS_MAX);
  const tls = place.tls && { ...place.tls };
  const options: RedisOptions = {
    username: place.username,
    password: place.password,
    db: place.db,
    tls,
    protocol: 2,
    connectTimeout: COMMAND_MS_MAX,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    maxLoadingRetryTime: RECONNECT_MS_MAX,
    keepAlive: 5_000,
    noDelay: true,
    connectionName: 'sluice',
    // What was the primary became a replica: look for the new one.
    reconnectOnError: (error) => /^(?:READONLY|MASTERDOWN)/.test(error.message),
  };
  if (place.cluster)
    return new Cluster(
      place.hosts.map(({ host, port }) => ({ host, port })),
      {
        enableOfflineQueue: false,
        clusterRetryStrategy: pause,
        slotsRefreshTimeout: COMMAND_MS_MAX,
        redisOptions: options,
      },
    );
  if (place.sentinel !== undefined)
    return new Redis({
      ...options,
      sentinels: place.hosts.map(({ host, port }) => ({ host, port })),
      name: place.sentinel,
      sentinelPassword: place.sentinelPassword,
      sentinelRetryStrategy: pause,
      sentinelCommandTimeout: COMMAND_MS_MAX,
      enableTLSForSentinelMode: place.tls !== undefined,
      sentinelTLS: tls,
      retryStrategy: pause,
    });
  const [at] = place.hosts;
  return new Redis({
    ...options,
    retryStrategy: pause,
    ...(place.path ? { path: place.path } : { host: at!.host, port: at!.port }),
  });
}
