/** What every resource file shares: what the API is made of, the pieces of a route's description, and the wait. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { type OpenAPIHono, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Clock } from '../clock.ts';
import type { Images } from '../contracts/image.ts';
import type { LiveContainers, LiveDiagnosis, LivePeers } from '../contracts/live.ts';
import type { Store } from '../contracts/store.ts';
import type { Desired } from '../desired/desired.ts';
import type { Logger } from '../log.ts';
import type { JoinAnswer, SystemReport } from '../model/answer.ts';
import type { NodeRequest, NodeView } from '../model/node.ts';
import type { Obj } from '../model/object.ts';
import type { JoinRequest, View } from '../model/request.ts';
import { name, ref } from '../model/schema.ts';
import type { Scrape } from './metrics.ts';
import type { Target, Waits } from './wait.ts';

/** What the API needs of src/desired. A `ref` is a name, an id or the beginning of one. */
export interface DesiredState {
  readonly networks: Pick<Desired['networks'], 'put' | 'get' | 'list' | 'remove' | 'prune' | 'addSubnets'>;
  readonly sandboxes: Pick<Desired['sandboxes'], 'put' | 'get' | 'list' | 'remove'>;
  readonly endpoints: Pick<Desired['endpoints'], 'connect' | 'disconnect' | 'get' | 'list'>;
  readonly services: Pick<Desired['services'], 'put' | 'update' | 'change' | 'assignments' | 'get' | 'list' | 'remove'>;
  readonly containers: Pick<
    Desired['containers'],
    'put' | 'get' | 'list' | 'remove' | 'start' | 'stop' | 'restart' | 'rename'
  >;
  readonly volumes: Pick<Desired['volumes'], 'put' | 'get' | 'list' | 'remove' | 'prune'>;
  readonly statuses: Pick<Desired['statuses'], 'view' | 'kept' | 'onKept'>;
}

/** Nodes and their sessions, as src/cluster knows them. */
export interface NodesOfCluster {
  list(): Promise<NodeView[]>;
  get(ref: string): Promise<NodeView>;
  update(ref: string, request: NodeRequest, options: { readonly actor?: string }): Promise<NodeView>;
  remove(ref: string, options: { readonly actor?: string }): Promise<NodeView>;
}

/** The way into a cluster. */
export interface ClusterDoor {
  join(request: JoinRequest): Promise<JoinAnswer>;
}

export interface ApiOptions {
  readonly desired: DesiredState;
  readonly live: LiveContainers;
  readonly peers: LivePeers;
  readonly diagnosis: LiveDiagnosis;
  readonly nodes: NodesOfCluster;
  readonly cluster: ClusterDoor;
  readonly store: Store;
  readonly images: Images;
  readonly clock: Clock;
  /** The node whose statuses are shown and waited for. */
  readonly node: string;
  readonly logger: Logger;
  readonly version: string;
  readonly metrics: Scrape;
  readonly system: { report(): SystemReport };
  /** SO_PEERCRED of a connected unix socket; absent: the change log has no actor. */
  readonly peer?: (fd: number) => { readonly uid: number; readonly pid: number } | null;
  /** The daemon's life: at its end waits fail with `daemon.stopping` and watches end. */
  readonly signal?: AbortSignal;
  /** Milliseconds from a request's head to its answer, without what `wait` adds. Default 30 000. */
  readonly timeLimitMs?: number;
  /** Watches at once. Default 256. */
  readonly watchersMax?: number;
  /** Milliseconds between two signs of life on an idle watch. Default 15 000. */
  readonly heartbeatMs?: number;
}

export interface Api extends ApiOptions {
  readonly waits: Waits;
  readonly signal: AbortSignal;
  /** `uid:0 pid:4242` of who called, where the kernel tells. */
  actor(c: Context): string | undefined;
}

/** Both are there when the request came through a socket. */
export type ApiEnv = { Bindings: { readonly incoming?: IncomingMessage; readonly outgoing?: ServerResponse } };
export type ApiApp = OpenAPIHono<ApiEnv>;

export const WAIT_MS_MAX = 600_000;
const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000 };

/** Milliseconds of `0`, `30`, `30s`, `500ms`, `2m`; a bare number counts seconds. null: not a duration. */
export function parseDuration(text: string): number | null {
  const match = /^(\d{1,7})(ms|s|m)?$/.exec(text);
  return match ? Number(match[1]) * UNIT_MS[match[2] ?? 's']! : null;
}

const wait = z
  .string()
  .refine((text) => parseDuration(text) !== null, 'a duration such as 30s, 500ms or 2m')
  .refine((text) => (parseDuration(text) ?? 0) <= WAIT_MS_MAX, 'more than ten minutes')
  .optional()
  .openapi({
    description: 'How long to hold the answer until the change is programmed; `0`, the default, answers at once.',
    example: '30s',
  });
export const waitMs = (query: { readonly wait?: string }): number => parseDuration(query.wait ?? '0') ?? 0;

export const waitQuery = z.strictObject({ wait });
export const removeQuery = z.strictObject({
  wait,
  force: z
    .enum(['true', 'false'])
    .optional()
    .openapi({ description: 'Also disconnects and removes what depends on it.' }),
});
export const noQuery = z.strictObject({});
export const nameParam = z.object({ name: name.openapi({ description: 'Name of the object.' }) });
export const refParam = z.object({ name: ref.openapi({ description: 'Name, id, or the beginning of an id.' }) });
export const createOnlyHeader = z.object({
  'if-none-match': z
    .literal('*', { error: 'only * is understood: create, never change' })
    .optional()
    .openapi({ description: '`*`: create only, `object.exists` when it is there.' }),
});

export function json<T extends z.ZodType>(schema: T, description: string) {
  return { description, content: { 'application/json': { schema } } };
}
export function jsonBody<T extends z.ZodType>(schema: T) {
  return { required: true, content: { 'application/json': { schema } } };
}

/** Aborts when the caller hangs up, or has its answer. Not `c.req.raw.signal` where that can be helped: with it the whole Request is made. */
function leaving(c: Context): AbortSignal {
  const { outgoing } = (c.env ?? {}) as ApiEnv['Bindings'];
  if (!outgoing) return c.req.raw.signal;
  const gone = new AbortController();
  outgoing.once('close', () => gone.abort());
  return gone.signal;
}

/** The views of a list, each with its status. */
export const views = <O extends Obj>(api: Api, objects: readonly O[]): Promise<View<O>[]> =>
  Promise.all(objects.map((object) => api.desired.statuses.view(object)));

/**
 * Answer to a write: at once, or when the targets (default: the object) are ready; then as the object is by now.
 * `get` reads it again by id.
 */
export async function written<O extends Obj>(
  api: Api,
  c: Context,
  object: O,
  ms: number,
  get: (id: string) => Promise<O>,
  targets: () => Promise<readonly Target[]> = async () => [object],
): Promise<View<O>> {
  if (ms > 0) {
    await api.waits.ready(await targets(), ms, leaving(c));
    object = await get(object.id);
  }
  return api.desired.statuses.view(object);
}

/** Answer to a removal: the object as it was last seen, 202 while it is still taken apart, 200 when it was seen to go. */
export async function removed<O extends Obj>(
  api: Api,
  c: Context,
  objects: readonly O[],
  ms: number,
  targets: () => Promise<readonly Target[]> = async () => objects,
): Promise<{ readonly views: View<O>[]; readonly status: 200 | 202 }> {
  const last = await views(api, objects);
  if (ms === 0) return { views: last, status: 202 };
  await api.waits.gone(await targets(), ms, leaving(c));
  return { views: last, status: 200 };
}
