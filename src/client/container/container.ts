/** Containers and volumes of the client. */
import { isSluiceError } from '../../errors.ts';
import type {
  AttachRequest,
  ContainerRequest,
  ExecRequest,
  ExitAnswer,
  LogAnswer,
  ProcessAnswer,
  StatsAnswer,
  VolumeRequest,
} from '../../model/container/request.ts';
import type { Volume } from '../../model/container/volume.ts';
import type { Container } from '../../model/container.ts';
import type { View } from '../../model/request.ts';
import type { PutOptions, WaitOptions } from '../client.ts';
import type { Caller } from '../http.ts';
import type { Session } from './session.ts';

export interface StopOptions extends WaitOptions {
  /** Milliseconds between the stop signal and SIGKILL; absent: the container's own. */
  readonly timeoutMs?: number;
}

export interface LogsOptions {
  readonly follow?: boolean;
  /** The last lines only. */
  readonly tail?: number;
  /** Milliseconds since 1970. */
  readonly since?: number;
  readonly until?: number;
  /** Ends the iteration without an error. */
  readonly signal?: AbortSignal;
}

export interface ContainerClient {
  list(): Promise<readonly View<Container>[]>;
  get(ref: string): Promise<View<Container>>;
  put(name: string, request: ContainerRequest, options?: PutOptions): Promise<View<Container>>;
  remove(
    ref: string,
    options?: WaitOptions & { readonly force?: boolean; readonly volumes?: boolean },
  ): Promise<View<Container>>;
  start(ref: string, options?: WaitOptions): Promise<View<Container>>;
  stop(ref: string, options?: StopOptions): Promise<View<Container>>;
  restart(ref: string, options?: StopOptions): Promise<View<Container>>;
  kill(ref: string, signal?: string): Promise<View<Container>>;
  rename(ref: string, name: string): Promise<View<Container>>;
  /** Waits for the end of its present life, or of that generation; goes on over a restart of the daemon. */
  exit(ref: string, options?: { readonly generation?: number; readonly signal?: AbortSignal }): Promise<ExitAnswer>;
  logs(ref: string, options?: LogsOptions): AsyncIterable<LogAnswer>;
  exec(ref: string, request: ExecRequest): Promise<Session>;
  attach(ref: string, request: AttachRequest): Promise<Session>;
  top(ref: string): Promise<readonly ProcessAnswer[]>;
  stats(ref: string): Promise<StatsAnswer>;
  /** A path as a tar stream. */
  read(ref: string, path: string): Promise<AsyncIterable<Uint8Array>>;
  /** Unpacks a tar stream into a directory. */
  write(ref: string, path: string, tar: AsyncIterable<Uint8Array>): Promise<void>;
}

export interface VolumeClient {
  list(): Promise<readonly View<Volume>[]>;
  get(ref: string): Promise<View<Volume>>;
  put(name: string, request: VolumeRequest, options?: PutOptions): Promise<View<Volume>>;
  remove(ref: string, options?: WaitOptions): Promise<View<Volume>>;
  prune(options?: WaitOptions & { readonly all?: boolean }): Promise<readonly View<Volume>[]>;
}

/** One question of an endless wait. */
const EXIT_WAIT_MS = 300_000;
/** How long a daemon that is away is waited for, and how often it is asked. */
const AWAY_MS_MAX = 60_000;
const AWAY_MS = 200;

type Resource<V, R> = {
  list: () => Promise<readonly V[]>;
  get: (ref: string) => Promise<V>;
  put: (name: string, request: R, options?: PutOptions) => Promise<V>;
};

const at = (ref: string, verb?: string): string =>
  `/v1/containers/${encodeURIComponent(ref)}${verb === undefined ? '' : `/${verb}`}`;

export function containerClient(
  call: Caller,
  resource: Resource<View<Container>, ContainerRequest>,
  clock: { monotonic(): number; sleep(ms: number, signal?: AbortSignal): Promise<void> },
): ContainerClient {
  const post = (ref: string, verb: string, { waitMs, timeoutMs }: StopOptions = {}): Promise<View<Container>> =>
    call.json('POST', at(ref, verb), {
      waitMs,
      query: { timeout: timeoutMs === undefined ? undefined : `${Math.round(timeoutMs)}ms` },
    });
  const session = async (ref: string, verb: string, request: object): Promise<Session> =>
    (await import('./session.ts')).openSession(call, at(ref, verb), request);
  return {
    ...resource,
    remove: (ref, { waitMs, ...query } = {}) => call.json('DELETE', at(ref), { waitMs, query }),
    start: (ref, options) => post(ref, 'start', options),
    stop: (ref, options) => post(ref, 'stop', options),
    restart: (ref, options) => post(ref, 'restart', options),
    kill: (ref, signal) => call.json('POST', at(ref, 'kill'), { query: { signal } }),
    rename: (ref, name) => call.json('POST', at(ref, 'rename'), { body: { name } }),
    async exit(ref, { generation, signal } = {}) {
      const object = generation === undefined ? await resource.get(ref) : null;
      const life = generation ?? object!.spec.generation;
      let since: number | null = null;
      for (;;) {
        try {
          return await call.json<ExitAnswer>('GET', at(object?.id ?? ref, 'exit'), {
            waitMs: EXIT_WAIT_MS,
            // What was only created has no end to wait for.
            query: { generation: object?.spec.wanted === 'created' ? undefined : life },
            signal,
          });
        } catch (error) {
          if (isSluiceError(error, 'wait.timeout')) since = null;
          else {
            if (signal?.aborted || !isSluiceError(error, 'daemon.unreachable', 'daemon.stopping')) throw error;
            since ??= clock.monotonic();
            if (clock.monotonic() - since > AWAY_MS_MAX) throw error;
          }
          if (since !== null) await clock.sleep(AWAY_MS, signal);
        }
      }
    },
    async *logs(ref, { signal, ...query } = {}) {
      try {
        const answer = await call.open('GET', at(ref, 'logs'), { query, signal });
        answer.setEncoding('utf8');
        let rest = '';
        for await (const chunk of answer as AsyncIterable<string>) {
          const lines = (rest + chunk).split('\n');
          rest = lines.pop()!;
          for (const line of lines) yield JSON.parse(line) as LogAnswer;
        }
      } catch (error) {
        if (!signal?.aborted) throw error;
      }
    },
    exec: (ref, request) => session(ref, 'exec', request),
    attach: (ref, request) => session(ref, 'attach', request),
    top: async (ref) => (await call.json<{ readonly items: readonly ProcessAnswer[] }>('GET', at(ref, 'top'))).items,
    stats: (ref) => call.json('GET', at(ref, 'stats')),
    read: async (ref, path) => (await call.open('GET', at(ref, 'archive'), { query: { path } })) as never,
    async write(ref, path, tar) {
      const stream = await session(ref, 'archive', { path });
      // The daemon's word ends it, well or not, and may come before the archive's end.
      const ended = (async () => {
        for await (const _ of stream.output);
      })();
      let over = false;
      const stop = (): void => {
        over = true;
      };
      ended.then(stop, stop);
      for await (const bytes of tar) {
        if (over) break;
        await stream.write(bytes);
      }
      if (!over) await stream.closeInput();
      await ended;
    },
  };
}

export function volumeClient(
  call: Caller,
  resource: Resource<View<Volume>, VolumeRequest> & Pick<VolumeClient, 'remove'>,
): VolumeClient {
  return {
    ...resource,
    prune: async ({ waitMs, ...query } = {}) =>
      (await call.json<{ readonly items: readonly View<Volume>[] }>('POST', '/v1/volumes/prune', { waitMs, query }))
        .items,
  };
}
