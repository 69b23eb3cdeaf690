/** Talking to one repository of a registry: who we are, what its errors mean, what is worth another attempt. */
import type { Clock } from '../../../src/clock.ts';
import { isSluiceError, SluiceError } from '../../../src/errors.ts';
import { type Challenge, parseChallenges } from './challenge.ts';
import type { Login } from './credentials.ts';
import type { Endpoint } from './endpoint.ts';
import { type Answer, type Asked, ERROR_BYTES_MAX, type Http } from './http.ts';

export interface SessionOptions {
  readonly http: Http;
  readonly clock: Clock;
  readonly endpoint: Endpoint;
  readonly credentials: { get(account: string): Promise<Login | null> };
  /** `library/busybox`; empty: the registry itself. */
  readonly repository: string;
  readonly actions: 'pull' | 'pull,push';
}

export interface Call extends Omit<Asked, 'url' | 'signal'> {
  /** Path below /v2/, or an absolute URL that the registry gave. */
  readonly path: string;
  /** Statuses that are answers; others are failures. */
  readonly expect: readonly number[];
  /** For errors: "the manifest of x". */
  readonly what: string;
  /** Repository that may be read too, for a mount across repositories. */
  readonly alsoFrom?: string;
}

/** Attempts at what failed for reasons that pass: 429 and 5xx. */
const ATTEMPTS_MAX = 4;
const BACKOFF_MS = 250;
const BACKOFF_MS_MAX = 10_000;
/** A token is renewed so long before it ends. */
const TOKEN_MARGIN_MS = 5_000;
const TOKEN_SECONDS = 60;
const TOKEN_BYTES_MAX = 1024 * 1024;

interface Token {
  readonly header: string;
  /** Monotonic milliseconds. */
  readonly until: number;
}

export class Session {
  readonly #options: SessionOptions;
  /** By scopes; `''` for what has none. */
  readonly #tokens = new Map<string, Token>();

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  get endpoint(): Endpoint {
    return this.#options.endpoint;
  }
  get http(): Http {
    return this.#options.http;
  }
  get clock(): Clock {
    return this.#options.clock;
  }
  get repository(): string {
    return this.#options.repository;
  }

  /** One call, with credentials when they are asked for. The body of a failure is read, that of a success is the caller's. */
  async call(call: Call, signal: AbortSignal): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      const answer = await this.#authorized(call, signal);
      if (call.expect.includes(answer.status)) return answer;
      const passes = answer.status === 429 || answer.status >= 500;
      // A stream that was sent cannot be sent again.
      const repeatable = call.body === undefined || Buffer.isBuffer(call.body);
      if (!passes || !repeatable || attempt >= ATTEMPTS_MAX) throw await this.#failure(answer, call, signal);
      answer.body.destroy();
      const asked = Number(answer.headers['retry-after']) * 1000;
      const pause = asked > 0 ? asked : BACKOFF_MS * 2 ** attempt;
      await this.clock.sleep(Math.min(pause, BACKOFF_MS_MAX), signal);
    }
  }

  /** As `call`, for what has no body that matters. */
  async done(call: Call, signal: AbortSignal): Promise<Answer> {
    const answer = await this.call(call, signal);
    await this.http.whole(answer, ERROR_BYTES_MAX, signal);
    return answer;
  }

  async #authorized(call: Call, signal: AbortSignal): Promise<Answer> {
    const url = new URL(call.path, `${this.endpoint.base}/v2/`).href;
    const scopes = this.#scopes(call);
    const key = scopes.join(' ');
    const ask = (token: Token | undefined): Promise<Answer> => {
      // Credentials are for the registry, not for wherever it sends us.
      const own = new URL(url).origin === new URL(this.endpoint.base).origin;
      const headers = token && own ? { ...call.headers, authorization: token.header } : call.headers;
      return this.http.ask(this.endpoint, { ...call, url, headers, signal });
    };
    const known = this.#tokens.get(key);
    const token = known && known.until > this.clock.monotonic() ? known : undefined;
    const answer = await ask(token);
    if (answer.status !== 401) return answer;
    if (call.body !== undefined && !Buffer.isBuffer(call.body)) return answer;
    const fresh = await this.#authorize(answer, scopes, signal);
    if (!fresh) return answer;
    answer.body.destroy();
    this.#tokens.set(key, fresh);
    return ask(fresh);
  }

  #scopes({ alsoFrom }: Call): string[] {
    const { repository, actions } = this.#options;
    if (repository === '') return [];
    const own = `repository:${repository}:${actions}`;
    return alsoFrom === undefined ? [own] : [own, `repository:${alsoFrom}:pull`];
  }

  /** What the registry wants to see, from its challenge; null: nothing that we have. */
  async #authorize(answer: Answer, scopes: readonly string[], signal: AbortSignal): Promise<Token | null> {
    const challenges = parseChallenges(answer.headers['www-authenticate'] ?? '');
    const login = await this.#options.credentials.get(this.endpoint.account);
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    if (bearer) return this.#token(bearer, scopes, login, signal);
    if (!login || !challenges.some(({ scheme }) => scheme === 'basic')) return null;
    return { header: basic(login), until: Number.POSITIVE_INFINITY };
  }

  async #token(
    { parameters }: Challenge,
    scopes: readonly string[],
    login: Login | null,
    signal: AbortSignal,
  ): Promise<Token | null> {
    const { realm, service, scope } = parameters;
    const url = realm !== undefined && URL.canParse(realm) ? new URL(realm) : null;
    const host = new URL(this.endpoint.base).host;
    if (!url || !['http:', 'https:'].includes(url.protocol))
      throw new SluiceError('image.registry', `${host} asks for a token from nowhere: ${realm}`, { realm });
    if (login && url.protocol === 'http:' && !this.endpoint.base.startsWith('http:') && !this.endpoint.unverified)
      throw new SluiceError('image.registry', `${host} wants the password sent to ${url.origin} in the clear`, {
        realm,
      });
    if (service !== undefined) url.searchParams.set('service', service);
    const wanted = scopes.length > 0 ? scopes : scope === undefined ? [] : [scope];
    for (const text of wanted) url.searchParams.append('scope', text);
    if (login) url.searchParams.set('account', login.user);
    const headers: Record<string, string> = login ? { authorization: basic(login) } : {};
    const answer = await this.http.ask(this.endpoint, { method: 'GET', url: url.href, headers, signal });
    const body = await this.http.whole(answer, TOKEN_BYTES_MAX, signal);
    if (answer.status === 401 || answer.status === 403) return null;
    let said: { token?: unknown; access_token?: unknown; expires_in?: unknown };
    try {
      said = JSON.parse(body.toString('utf8')) as typeof said;
    } catch {
      said = {};
    }
    const token = said.token ?? said.access_token;
    if (answer.status !== 200 || typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token))
      throw new SluiceError('image.registry', `${url.host} gives no token (HTTP ${answer.status})`, { realm });
    const seconds = Number(said.expires_in) > 0 ? Number(said.expires_in) : TOKEN_SECONDS;
    return { header: `Bearer ${token}`, until: this.clock.monotonic() + seconds * 1000 - TOKEN_MARGIN_MS };
  }

  /** A refusal in our words, with the registry's own. */
  async #failure(answer: Answer, call: Call, signal: AbortSignal): Promise<SluiceError> {
    const { status } = answer;
    const host = new URL(this.endpoint.base).host;
    let said = '';
    try {
      said = reasonOf(await this.http.whole(answer, ERROR_BYTES_MAX, signal));
    } catch (error) {
      // The status is what counts; that its explanation cannot be read is part of it.
      if (!isSluiceError(error)) throw error;
      said = error.message;
    }
    const why = `HTTP ${status}${said ? `: ${said}` : ''}`;
    const details = { status, registry: host, reason: said };
    if (status === 401 || status === 403)
      return new SluiceError('image.denied', `${host} denies ${call.what} (${why}); "sluice login ${host}"?`, details);
    if (status === 404)
      return new SluiceError('image.notfound', `${host} does not have ${call.what} (${why})`, details);
    return new SluiceError('image.registry', `${host} refuses ${call.what} (${why})`, details);
  }
}

const basic = ({ user, password }: Login): string => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

/** `{"errors":[{"code":"…","message":"…"}]}`, or whatever text came. */
function reasonOf(body: Buffer): string {
  const text = body.toString('utf8').trim();
  try {
    const { errors } = JSON.parse(text) as { errors?: readonly { code?: unknown; message?: unknown }[] };
    const words = (errors ?? []).map(({ code, message }) => [code, message].filter(Boolean).join(' '));
    if (words.length > 0) return words.join('; ').slice(0, 500);
  } catch {
    // No JSON: a page of a proxy in between, of which the beginning tells enough.
  }
  return text.replace(/\s+/g, ' ').slice(0, 200);
}
