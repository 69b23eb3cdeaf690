/**
 * HTTP to a registry: one request, its redirects, and time limits on all that is waited for. On node:http, because fetch(3) of Node takes no
 * certificates of one's own.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest, type RequestOptions } from 'node:https';
import type { Readable } from 'node:stream';
import type { Clock } from '../../../src/clock.ts';
import { SluiceError } from '../../../src/errors.ts';
import { type Endpoint, trustedBy } from './endpoint.ts';

export interface Asked {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer | { readonly stream: Readable; readonly length: number };
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  /** Where it came from in the end. */
  readonly url: string;
  readonly body: IncomingMessage;
}

const REDIRECTS_MAX = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const SOCKETS_MAX = 16;
const IDLE_MS = 15_000;
/** Error documents; what is longer is not worth reading. */
export const ERROR_BYTES_MAX = 64 * 1024;

/** Failures below HTTP after which another endpoint, or a second attempt, may do better. */
export const isUnreachable = (error: unknown): boolean =>
  error instanceof SluiceError && (error.code === 'image.timeout' || error.details.unreachable === true);

export const stalled = (url: string, stallMs: number): SluiceError =>
  new SluiceError('image.timeout', `${new URL(url).host} sent nothing for ${stallMs / 1000} s`, { url, stallMs });

const unreachable = (url: string, error: Error): SluiceError =>
  new SluiceError(
    'image.registry',
    `${new URL(url).host} cannot be reached: ${error.message}`,
    { url, unreachable: true },
    error,
  );

export class Http {
  readonly #clock: Clock;
  readonly #stallMs: number;
  readonly #plain = new HttpAgent({ keepAlive: true, maxSockets: SOCKETS_MAX, timeout: IDLE_MS });
  readonly #secure = new HttpsAgent({ keepAlive: true, maxSockets: SOCKETS_MAX, timeout: IDLE_MS });

  constructor(clock: Clock, stallMs: number) {
    this.#clock = clock;
    this.#stallMs = stallMs;
  }

  close(): void {
    this.#plain.destroy();
    this.#secure.destroy();
  }

  /** The answer's head, redirects followed; credentials go to the endpoint's own host alone. */
  async ask(endpoint: Endpoint, asked: Asked): Promise<Answer> {
    let { url } = asked;
    let headers = asked.headers ?? {};
    for (let hop = 0; hop <= REDIRECTS_MAX; hop++) {
      const body = await this.#once(endpoint, { ...asked, url, headers });
      const status = body.statusCode ?? 0;
      const { location } = body.headers;
      const follows =
        REDIRECTS.has(status) && location !== undefined && (asked.method === 'GET' || asked.method === 'HEAD');
      if (!follows) return { status, headers: body.headers, url, body };
      body.destroy();
      const next = new URL(location, url);
      if (!['http:', 'https:'].includes(next.protocol)) break;
      if (url.startsWith('https:') && next.protocol === 'http:' && !endpoint.unverified)
        throw new SluiceError('image.registry', `${new URL(url).host} leads from https to ${next.origin}`, { url });
      if (next.origin !== new URL(url).origin) {
        const { authorization: _, ...rest } = headers as Record<string, string>;
        headers = rest;
      }
      url = next.href;
    }
    throw new SluiceError('image.registry', `${new URL(asked.url).host} leads on more than ${REDIRECTS_MAX} times`);
  }

  #once(endpoint: Endpoint, { method, url, headers, body, signal }: Asked): Promise<IncomingMessage> {
    signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const secure = url.startsWith('https:');
    const length = body === undefined ? undefined : Buffer.isBuffer(body) ? body.length : body.length;
    const options: RequestOptions = {
      method,
      signal,
      headers: {
        'user-agent': 'sluice',
        ...headers,
        ...(length === undefined ? {} : { 'content-length': length }),
      },
      agent: secure ? this.#secure : this.#plain,
      ...(secure ? { rejectUnauthorized: !endpoint.unverified, ca: trustedBy(endpoint) } : {}),
    };
    const request = (secure ? httpsRequest : httpRequest)(url, options);
    const late = (): void => void request.destroy(stalled(url, this.#stallMs));
    let timer = this.#clock.after(this.#stallMs, late);
    let answered = false;
    const again = (): void => {
      if (answered) return;
      timer.cancel();
      timer = this.#clock.after(this.#stallMs, late);
    };
    request.on('response', (answer) => {
      answered = true;
      timer.cancel();
      resolve(answer);
    });
    request.on('error', (error) => {
      timer.cancel();
      if (signal.aborted) reject(signal.reason);
      else reject(error instanceof SluiceError ? error : unreachable(url, error));
    });
    if (body !== undefined && !Buffer.isBuffer(body)) {
      const { stream } = body;
      // What is taken from us is a sign of life too.
      stream.on('data', again);
      stream.on('error', (error) => request.destroy(error));
      request.on('close', () => stream.destroy());
      stream.pipe(request);
    } else request.end(body);
    return promise;
  }

  /** The pieces of a body; fails with `image.timeout` when nothing comes for a while. */
  async *read({ body, url }: Answer, signal: AbortSignal): AsyncGenerator<Buffer> {
    const late = (): void => void body.destroy(stalled(url, this.#stallMs));
    let timer = this.#clock.after(this.#stallMs, late);
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        timer.cancel();
        yield chunk;
        timer = this.#clock.after(this.#stallMs, late);
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof SluiceError) throw error;
      throw unreachable(url, error as Error);
    } finally {
      timer.cancel();
    }
  }

  /** The whole of a small body; fails with `image.limit` when it is larger. */
  async whole(answer: Answer, bytesMax: number, signal: AbortSignal): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of this.read(answer, signal)) {
      size += chunk.length;
      if (size > bytesMax) {
        answer.body.destroy();
        throw new SluiceError('image.limit', `${new URL(answer.url).host} answers with more than ${bytesMax} bytes`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}
