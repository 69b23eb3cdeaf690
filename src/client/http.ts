/** One call on node:http, and how its failures become coded errors. */
import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Clock } from '../clock.ts';
import { ERROR_CODES, type ErrorCode, SluiceError, toSluiceError } from '../errors.ts';

export interface CallOptions {
  readonly waitMs?: number;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Instead of `body`: a tar of any length. */
  readonly archive?: AsyncIterable<Uint8Array>;
  readonly signal?: AbortSignal;
}

export interface Caller {
  readonly host: string;
  json<T>(method: string, path: string, options?: CallOptions): Promise<T>;
  text(method: string, path: string, options?: CallOptions): Promise<string>;
  /** The open answer, its head already judged. The time limit ends with the head. */
  open(method: string, path: string, options?: CallOptions): Promise<IncomingMessage>;
  /** The connection, once the daemon has agreed to speak something else than HTTP on it. */
  upgrade(path: string, protocol: string): Promise<{ readonly socket: Duplex; readonly head: Uint8Array }>;
}

/** A list of 100 000 objects has about 64 MiB. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;

/** Connections that wait for the next call, and for how long, milliseconds: the daemon closes one after 5 s or more, never while a call is on its way. */
const IDLE_MAX = 8;
const IDLE_MS_MAX = 3_000;

interface Place {
  readonly host: string;
  readonly connect: Pick<RequestOptions, 'socketPath' | 'host' | 'port'>;
}

function placeOf(host: string): Place {
  if (host.startsWith('/')) return placeOf(`unix://${host}`);
  const socketPath = /^unix:\/\/(\/.+)$/.exec(host)?.[1];
  if (socketPath) return { host, connect: { socketPath } };
  if (URL.canParse(host)) {
    const url = new URL(host);
    const name = url.hostname.replace(/^\[|\]$/g, '');
    if (url.protocol === 'http:' && url.pathname === '/') {
      return { host: `http://${url.host}`, connect: { host: name, port: url.port || 80 } };
    }
  }
  const message = `${host} is no address of a daemon: unix:///path/of/socket or http://host:port is`;
  throw new SluiceError('config.invalid', message, { host });
}

/** What failed below HTTP: the socket's own error (it has a code), or else a defect of ours. */
function broken(host: string, error: NodeJS.ErrnoException): SluiceError {
  if (!error.code) return toSluiceError(error);
  const fix =
    error.code === 'EACCES' || error.code === 'EPERM'
      ? 'be root or in the group of the socket (sluice)'
      : 'start it with "systemctl start sluiced" or "sluiced", or name another with -H or SLUICE_HOST';
  const message = `the daemon does not answer at ${host} (${error.message}); ${fix}`;
  return new SluiceError('daemon.unreachable', message, { host, reason: error.code ?? error.message }, error);
}

/** The value, or undefined for what is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function stranger(status: number, body: string): SluiceError {
  const message = `what answers is not a Sluice daemon: HTTP ${status} ${body.slice(0, 200)}`;
  return new SluiceError('daemon.unreachable', message, { status });
}

/** An error answer as the daemon meant it; a code that only a newer daemon knows is kept in the details. */
function errorOf(status: number, body: string): SluiceError {
  const said = parseJson(body) as { code?: unknown; message?: unknown; details?: object } | null | undefined;
  if (typeof said?.code !== 'string' || typeof said.message !== 'string') return stranger(status, body);
  const known = Object.hasOwn(ERROR_CODES, said.code);
  const details = known ? { ...said.details } : { ...said.details, code: said.code };
  return new SluiceError(known ? (said.code as ErrorCode) : 'internal', said.message, details);
}

async function readBody(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > ANSWER_BYTES_MAX) throw new Error(`the answer is larger than ${ANSWER_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Sends as fast as it is taken; a failure of the source ends the request with it. */
function sendArchive(request: ClientRequest, archive: AsyncIterable<Uint8Array>): void {
  const { Readable, pipeline } = process.getBuiltinModule('node:stream');
  let answered = false;
  request.once('response', () => {
    answered = true;
  });
  // The daemon may have hung up before it took all of it: then its answer tells why.
  pipeline(Readable.from(archive, { objectMode: false }), request, (error) => {
    if (error && !answered) request.destroy(error);
  });
}

/** Whether the call was not begun: its connection had waited, and the daemon had closed it before anything was written. */
const isUnsent = (request: ClientRequest, error: unknown): boolean =>
  request.reusedSocket && (error as NodeJS.ErrnoException).code === 'EPIPE';

export function createCaller(where: string, timeoutMs: number, clock: Clock): Caller {
  const { host, connect } = placeOf(where);
  let waiting: Agent | undefined;

  /** `alone`: by a connection of its own. */
  function send(method: string, path: string, options: CallOptions, alone: boolean): ClientRequest {
    // Not `import`: an ES import of node:http evaluates its getters, among them all of undici, 30 ms that a CLI feels.
    const http = process.getBuiltinModule('node:http');
    waiting ??= new http.Agent({ keepAlive: true, maxFreeSockets: IDLE_MAX, timeout: IDLE_MS_MAX });
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(options.query ?? {})) {
      if (value !== undefined) query.set(key, String(value));
    }
    if (options.waitMs) query.set('wait', `${Math.round(options.waitMs)}ms`);
    const { archive } = options;
    const body = options.body === undefined ? undefined : JSON.stringify(options.body);
    const entity = archive
      ? { 'content-type': 'application/x-tar' }
      : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body ?? '') };
    // With no name for TLS given, Node would compile its expression for IPv6 addresses to find one: 5 ms for nothing.
    const place: RequestOptions & { readonly servername: string } = { ...connect, servername: '' };
    const request = http.request({
      ...place,
      agent: alone || archive ? false : waiting,
      method,
      path: query.size > 0 ? `${path}?${query}` : path,
      headers: { host: 'sluice', ...(body === undefined && !archive ? {} : entity), ...options.headers },
      signal: options.signal,
    });
    if (archive) sendArchive(request, archive);
    else request.end(body);
    return request;
  }

  /** `use` the answer within the limit; a socket that fails is `daemon.unreachable`. */
  async function within<T>(
    method: string,
    path: string,
    options: CallOptions,
    use: (answer: IncomingMessage) => Promise<T>,
    alone = false,
  ): Promise<T> {
    const limitMs = timeoutMs + (options.waitMs ?? 0);
    let late = false;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = send(method, path, options, alone).on('response', resolve).on('error', reject);
    const timer = clock.after(limitMs, () => {
      late = true;
      request.destroy();
    });
    try {
      const answer = await promise;
      const status = answer.statusCode ?? 0;
      if (status < 200 || status >= 300) throw errorOf(status, await readBody(answer));
      return await use(answer);
    } catch (error) {
      if (error instanceof SluiceError || options.signal?.aborted) throw error;
      if (!late && isUnsent(request, error)) return within(method, path, options, use, true);
      if (!late) throw broken(host, error as NodeJS.ErrnoException);
      const message = `the daemon at ${host} did not answer ${method} ${path} within ${limitMs / 1000} s`;
      throw new SluiceError('daemon.unreachable', message, { host, limitMs }, error);
    } finally {
      timer.cancel();
    }
  }

  return {
    host,
    json: (method, path, options = {}) =>
      within(method, path, options, async (answer) => {
        const body = await readBody(answer);
        const value = parseJson(body);
        if (value === undefined) throw stranger(answer.statusCode ?? 0, body);
        return value as never;
      }),
    text: (method, path, options = {}) => within(method, path, options, readBody),
    open: (method, path, options = {}) => within(method, path, options, async (answer) => answer, true),
    async upgrade(path, protocol) {
      const { promise, resolve, reject } = Promise.withResolvers<{ socket: Duplex; head: Uint8Array }>();
      const request = send('POST', path, { headers: { connection: 'Upgrade', upgrade: protocol } }, true)
        .on('upgrade', (_, socket, head) => resolve({ socket, head }))
        .on('response', (answer) => {
          readBody(answer).then((body) => reject(errorOf(answer.statusCode ?? 0, body)), reject);
        })
        .on('error', (error: NodeJS.ErrnoException) => reject(broken(host, error)));
      const late = (): Error => new Error(`no answer to POST ${path} within ${timeoutMs / 1000} s`);
      const timer = clock.after(timeoutMs, () => request.destroy(late()));
      return promise.finally(() => timer.cancel());
    },
  };
}
