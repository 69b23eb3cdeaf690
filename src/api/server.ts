/** The Hono app with every resource in it, and the listener that serves it on a unix socket. */
import { chmod, chown, lstat, mkdir, readFile, rename, unlink } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { getRequestListener } from '@hono/node-server';
import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context, MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { routePath } from 'hono/route';
import { type Clock, withTimeLimit } from '../clock.ts';
import { SluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { apiRequests } from '../metrics.ts';
import { clusterTopic, nodeTopic } from '../model/keys.ts';
import { cluster } from './cluster.ts';
import { containers } from './container/containers.ts';
import { live } from './container/live.ts';
import type { StreamServer } from './container/stream.ts';
import { volumes } from './container/volumes.ts';
import { type Api, type ApiApp, type ApiEnv, type ApiOptions, parseDuration, WAIT_MS_MAX } from './context.ts';
import { diffs } from './diagnosis/diff.ts';
import { traces } from './diagnosis/trace.ts';
import { endpoints } from './endpoints.ts';
import { errorHandler, errorResponse, notFoundHandler, refuseInvalid } from './errors.ts';
import { images, isUpload } from './image/images.ts';
import { collectObjects, metrics } from './metrics.ts';
import { networks } from './networks.ts';
import { nodes } from './nodes.ts';
import { openapi } from './openapi.ts';
import { sandboxes } from './sandboxes.ts';
import { services } from './services.ts';
import { system } from './system.ts';
import { Waits } from './wait.ts';
import { watch } from './watch.ts';

export const BODY_BYTES_MAX = 1024 * 1024;
const TIME_LIMIT_MS = 30_000;

/** Node keeps the descriptor of a socket to itself; a socket that is closed has none. */
function descriptorOf(socket: Socket): number {
  return (socket as Socket & { readonly _handle?: { readonly fd?: number } })._handle?.fd ?? -1;
}

function actorFinder(peer: ApiOptions['peer']): Api['actor'] {
  const known = new WeakMap<Socket, string | undefined>();
  return (c) => {
    const socket = (c.env as ApiEnv['Bindings'] | undefined)?.incoming?.socket;
    if (!peer || !socket) return undefined;
    if (!known.has(socket)) {
      const fd = descriptorOf(socket);
      const caller = fd < 0 ? null : peer(fd);
      known.set(socket, caller ? `uid:${caller.uid} pid:${caller.pid}` : undefined);
    }
    return known.get(socket);
  };
}

/** Duration by method, route pattern and status; a debug line for reads, an info line with the actor for writes. */
function observe(clock: Clock, logger: Logger, actor: Api['actor']): MiddlewareHandler {
  return async (c, next) => {
    const start = clock.monotonic();
    await next();
    const seconds = (clock.monotonic() - start) / 1000;
    const route = routePath(c, -1);
    apiRequests.observe(
      { method: c.req.method, route: route.endsWith('*') ? 'unknown' : route, status: c.res.status },
      seconds,
    );
    const reads = c.req.method === 'GET' || c.req.method === 'HEAD';
    const line = { method: c.req.method, path: c.req.path, status: c.res.status, seconds };
    if (reads) logger.debug(line, 'request');
    else logger.info({ ...line, actor: actor(c) }, 'request');
  };
}

/** The answer within the limit and what the caller asked to wait. A watch answers at once and then goes on. */
function limitTime(clock: Clock, limitMs: number): MiddlewareHandler {
  return async (c: Context, next) => {
    const wait = Math.min(parseDuration(c.req.query('wait') ?? '0') ?? 0, WAIT_MS_MAX);
    const ms = limitMs + wait;
    const late = (): Error =>
      new SluiceError('request.timeout', `${c.req.method} ${c.req.path} took over ${ms} ms`, { limitMs: ms });
    await withTimeLimit(clock, ms, next(), late);
  };
}

const limitBody = bodyLimit({
  maxSize: BODY_BYTES_MAX,
  onError: () => {
    throw new SluiceError('request.toolarge', `the body is larger than ${BODY_BYTES_MAX} bytes`);
  },
});

/** By what its head says, to which Node holds it. To count the body the whole Request is made, which takes longer than most routes. */
function isShort({ env }: Context<ApiEnv>): boolean {
  const { incoming } = env ?? {};
  if (!incoming || incoming.headers['transfer-encoding'] !== undefined) return false;
  return Number(incoming.headers['content-length'] ?? 0) <= BODY_BYTES_MAX;
}

function newApp(logger: Logger): ApiApp {
  const app = new OpenAPIHono<ApiEnv>({ defaultHook: refuseInvalid });
  app.onError(errorHandler(logger));
  return app;
}

/** Every route of the daemon. The equivalent of a call is `curl --unix-socket /run/sluice/sluice.sock http://localhost/v1/…`. */
export function createApi(options: ApiOptions): ApiApp {
  const { store, clock, node, logger, signal = new AbortController().signal, timeLimitMs = TIME_LIMIT_MS } = options;
  const topics = [clusterTopic, nodeTopic(node)];
  const waits = new Waits({ store, topics, node, statuses: options.desired.statuses, clock, logger, signal });
  const api: Api = { ...options, signal, waits, actor: actorFinder(options.peer) };
  options.metrics.add('objects', () => collectObjects(store, node, options.desired.statuses));

  const app = newApp(logger);
  app.use(observe(clock, logger, api.actor), limitTime(clock, timeLimitMs));
  app.use((c, next) => (isUpload(c.req.method, c.req.path) || isShort(c) ? next() : limitBody(c, next)));
  for (const register of [
    networks,
    sandboxes,
    endpoints,
    services,
    nodes,
    cluster,
    containers,
    live,
    volumes,
    images,
    watch,
    diffs,
    traces,
    system,
    metrics,
  ])
    register(app, api);
  openapi(app, options.version);
  app.notFound(notFoundHandler(app.routes));
  return app;
}

/** Serves /metrics alone, for the TCP listener of the setting `metricsListen`. */
export function createMetricsApp(options: Pick<ApiOptions, 'metrics' | 'logger'>): ApiApp {
  const app = newApp(options.logger);
  metrics(app, options);
  app.notFound(notFoundHandler(app.routes));
  return app;
}

export interface ListenOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Milliseconds in which a request's head, and then the whole of it, must have arrived. Default 10 000 and 30 000. */
  readonly headMsMax?: number;
  readonly requestMsMax?: number;
  /** Default 1024; more are closed at once. */
  readonly connectionsMax?: number;
  /** Milliseconds that `close` gives requests in flight. Default 5000. */
  readonly graceMs?: number;
  /** Takes the connections that ask to become streams to processes. */
  readonly streams?: StreamServer;
}
export interface ServeOptions extends ListenOptions {
  /** Path of the unix socket. */
  readonly socket: string;
  /** May use the socket too, when the host has such a group; else root alone. */
  readonly group?: string;
}

export interface Listener {
  /** `unix:///run/sluice/sluice.sock`, `http://127.0.0.1:9100` */
  readonly address: string;
  /** No new connections; idle ones end at once, those in flight after `graceMs`. End the API's signal first. */
  close(): Promise<void>;
}

/** Cuts off a body that has not arrived within the limit; an upload has one of its own, on what comes. */
function limitBodyTime(request: IncomingMessage, limitMs: number, clock: Clock): void {
  if (request.complete || isUpload(request.method, request.url)) return;
  const timer = clock.after(limitMs, () => {
    const error = Object.assign(new Error('the body is slow'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
    if (!request.complete) refuseConnection(error, request.socket);
  });
  for (const event of ['end', 'close']) request.once(event, () => timer.cancel());
}

/** What Node itself refuses before there is a request. */
function refuseConnection(error: NodeJS.ErrnoException, socket: Socket): void {
  const answering = (socket as Socket & { readonly _httpMessage?: ServerResponse })._httpMessage;
  if (!socket.writable || answering?.headersSent) {
    socket.destroy();
    return;
  }
  const slow = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  const coded = slow
    ? new SluiceError('request.slow', 'the request did not arrive whole in time')
    : new SluiceError('request.invalid', `not an HTTP request: ${error.message}`, { reason: error.code });
  const body = JSON.stringify(coded);
  const head = [
    `HTTP/1.1 ${coded.status} ${slow ? 'Request Timeout' : 'Bad Request'}`,
    'Connection: close',
    'Content-Type: application/json',
    `Content-Length: ${Buffer.byteLength(body)}`,
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}

function httpServer(app: ApiApp, options: ListenOptions): Server {
  const { headMsMax = 10_000, requestMsMax = 30_000, connectionsMax = 1024, streams } = options;
  const refuse = (error: unknown): Response =>
    errorResponse(new SluiceError('request.invalid', `not a request: ${(error as Error).message}`));
  const server = createServer(
    {
      headersTimeout: headMsMax,
      // Ours below: Node's knows no exceptions.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.max(50, headMsMax / 4),
      requireHostHeader: false,
      shouldUpgradeCallback: (request: IncomingMessage) => streams?.wants(request) ?? false,
    },
    getRequestListener(app.fetch, { hostname: 'localhost', errorHandler: refuse }),
  );
  server.maxConnections = connectionsMax;
  server.on('request', (request: IncomingMessage) => limitBodyTime(request, requestMsMax, options.clock));
  server.on('clientError', refuseConnection);
  if (streams) server.on('upgrade', (request, socket, head) => streams.accept(request, socket, head));
  server.on('checkExpectation', (_request: IncomingMessage, response: ServerResponse) => {
    const coded = new SluiceError('request.invalid', 'the header Expect may only ask for 100-continue');
    const body = JSON.stringify(coded);
    response
      .writeHead(coded.status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
      .end(body);
  });
  return server;
}

function listening(
  server: Server,
  where: { readonly path: string } | { readonly host: string; readonly port: number },
) {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', (error) => {
    const at = 'path' in where ? where.path : `${where.host}:${where.port}`;
    reject(new SluiceError('config.invalid', `cannot listen on ${at}: ${error.message}`, { listen: at }, error));
  });
  server.listen(where, resolve);
  return promise;
}

async function closing(server: Server, options: ListenOptions): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  server.close(() => resolve());
  const timer = options.clock.after(options.graceMs ?? 5000, () => server.closeAllConnections());
  await promise;
  timer.cancel();
}

const absent = (error: NodeJS.ErrnoException): null => {
  if (error.code === 'ENOENT') return null;
  throw error;
};

async function probeSocket(path: string): Promise<'absent' | 'stale' | 'alive'> {
  const stat = await lstat(path).catch(absent);
  if (stat === null) return 'absent';
  if (!stat.isSocket()) throw new SluiceError('config.invalid', `${path} exists and is not a socket`, { socket: path });
  const { promise, resolve } = Promise.withResolvers<'stale' | 'alive'>();
  const probe = connect(path, () => resolve('alive'));
  probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'ECONNREFUSED' ? 'stale' : 'alive'));
  const answer = await promise;
  probe.destroy();
  return answer;
}

async function groupId(name: string): Promise<number | null> {
  const line = (await readFile('/etc/group', 'utf8')).split('\n').find((text) => text.startsWith(`${name}:`));
  return line ? Number(line.split(':')[2]) : null;
}

/** Binds beside the path, sets the rights, moves it into place; returns the inode that is now ours. */
async function bindSocket(server: Server, { socket: path, group, logger }: ServeOptions): Promise<number> {
  await mkdir(dirname(path), { recursive: true });
  if ((await probeSocket(path)) === 'alive') {
    throw new SluiceError('daemon.running', `another daemon listens on ${path}`, { socket: path });
  }
  const fresh = `${path}.new`;
  await unlink(fresh).catch(absent);
  await listening(server, { path: fresh });
  const gid = group === undefined ? null : await groupId(group);
  if (gid !== null) await chown(fresh, process.getuid?.() ?? 0, gid);
  else if (group !== undefined) logger.info({ group }, 'no such group: the socket is for root alone');
  await chmod(fresh, gid === null ? 0o600 : 0o660);
  await rename(fresh, path);
  return (await lstat(path)).ino;
}

/**
 * Serves the app on a unix socket, root:GROUP 0660, or 0600 without such a group. The socket is made under another name
 * and moved into place with its rights set, so it replaces that of a dead daemon and nobody ever sees it half open.
 * Fails with `daemon.running` when somebody answers there, `config.invalid` when the path cannot be used.
 */
export async function serve(app: ApiApp, options: ServeOptions): Promise<Listener> {
  const { socket: path } = options;
  const server = httpServer(app, options);
  const ino = await bindSocket(server, options).catch((error: Error) => {
    server.close();
    if (error instanceof SluiceError) throw error;
    throw new SluiceError('config.invalid', `cannot listen on ${path}: ${error.message}`, { socket: path }, error);
  });
  return {
    address: `unix://${path}`,
    close: async () => {
      // Only our own: a successor may have put its socket there by now.
      if ((await lstat(path).catch(absent))?.ino === ino) await unlink(path).catch(absent);
      await closing(server, options);
    },
  };
}

/** Serves an app (of /metrics alone) on ADDRESS:PORT, IPv6 in brackets. Fails with `config.invalid`. */
export async function serveTcp(app: ApiApp, listen: string, options: ListenOptions): Promise<Listener> {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]+)):(\d{1,5})$/.exec(listen);
  if (!match || Number(match[3]) > 65535) {
    throw new SluiceError('config.invalid', `${listen} is not ADDRESS:PORT`, { listen });
  }
  const server = httpServer(app, options);
  await listening(server, { host: match[1] ?? match[2]!, port: Number(match[3]) });
  const bound = server.address() as { readonly port: number };
  return { address: `http://${listen.replace(/\d+$/, String(bound.port))}`, close: () => closing(server, options) };
}
