/**
 * Foreign names: asked at the upstream servers, kept, and told to everybody who waits for the same. Whoever asks what is being asked
 * already joins those who wait, so a loop through ourselves (an upstream that asks a sandbox that asks us) goes round once and ends
 * at the time limit instead of multiplying; a probe then finds out that it is one.
 */
import type { Clock } from '../clock.ts';
import type { Logger } from '../log.ts';
import { failure, type Reply, ReplyCache } from './reply.ts';
import { Exchanges, type Outcome, probeQuery, type Query, type Server } from './upstream.ts';
import { RCODE, TYPE } from './wire.ts';

/** Questions of one sandbox, and of all, that may wait at once. */
const WAITING_PER_SANDBOX_MAX = 256;
const WAITING_MAX = 4096;
/** One server's time, and that of a question in all, milliseconds. The latter is glibc's own limit for one try. */
const SERVER_MS_MAX = 2000;
const QUESTION_MS_MAX = 5000;
/** With less left than this a server is not asked any more. */
const SERVER_MS_MIN = 50;
/** A server that was silent is asked last for so long. */
const DOUBT_MS = 30_000;
/** A failure is kept for so long (RFC 9520 asks for at least a second). */
const FAILURE_MS = 1000;
const CACHE_BYTES_MAX = 8 << 20;
/** A server that leads back to us is not asked for so long, and not probed more often. */
const LOOP_MS = 60_000;
/** Servers that we remember something of. */
const SERVERS_MAX = 1024;

export interface Ask {
  readonly sandbox: string;
  /** What makes two questions the same, without the servers. */
  readonly key: string;
  readonly query: Query;
  readonly servers: readonly Server[];
  /** Called once, possibly at once. `ageS`: seconds that the reply was kept. `fresh`: it was asked for. */
  readonly done: (reply: Reply, ageS: number, fresh: boolean) => void;
}

/** Which limit forbids a question. */
export type Refusal = 'sandbox-limit' | 'limit';

interface Pending {
  readonly sandboxes: Set<string>;
  readonly waiting: Ask[];
}

interface ServerState {
  doubtUntil: number;
  loopUntil: number;
  probedAt: number;
}

export class Forwarder {
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  readonly #exchanges: Exchanges;
  readonly #cache = new ReplyCache(CACHE_BYTES_MAX);
  readonly #pending = new Map<string, Pending>();
  readonly #perSandbox = new Map<string, number>();
  readonly #servers = new Map<string, ServerState>();
  /** Names of probes that are out, with the server that each was sent to. */
  readonly #probes = new Map<string, Server>();
  #waiting = 0;
  #closed = false;

  constructor(clock: Clock, logger?: Logger) {
    this.#clock = clock;
    this.#logger = logger;
    this.#exchanges = new Exchanges(clock);
  }

  /** Questions that wait now, and the cache's size; for tests and metrics. */
  get load(): { readonly waiting: number; readonly asking: number; readonly kept: number; readonly bytes: number } {
    return {
      waiting: this.#waiting,
      asking: this.#pending.size,
      kept: this.#cache.size,
      bytes: this.#cache.bytes,
    };
  }

  /** Asks, or says which limit forbids it; then `done` is not called. */
  ask(ask: Ask): Refusal | undefined {
    const key = `${ask.servers.map(({ text }) => text).join(',')} ${ask.key}`;
    const kept = this.#cache.get(key, this.#clock.monotonic());
    if (kept) {
      ask.done(kept.reply, kept.ageS, false);
      return undefined;
    }
    if (this.#waiting >= WAITING_MAX) return 'limit';
    const own = this.#perSandbox.get(ask.sandbox) ?? 0;
    if (own >= WAITING_PER_SANDBOX_MAX) return 'sandbox-limit';
    this.#perSandbox.set(ask.sandbox, own + 1);
    this.#waiting++;
    // The transport does not change what the answer is, only who must not wait for whom.
    const pendingKey = ask.query.stream ? `${key} tcp` : key;
    const pending = this.#pending.get(pendingKey);
    if (pending) {
      pending.waiting.push(ask);
      pending.sandboxes.add(ask.sandbox);
      return undefined;
    }
    const begun: Pending = { waiting: [ask], sandboxes: new Set([ask.sandbox]) };
    this.#pending.set(pendingKey, begun);
    void this.#settle(ask, key, pendingKey, begun);
    return undefined;
  }

  /**
   * True when a question that arrived from a sandbox is a probe of ours: then its server leads back to us. Cheap to ask: probes are HINFO
   * questions, which nobody else asks.
   */
  isProbe(name: string, type: number, sandbox: string): boolean {
    if (type !== TYPE.HINFO) return false;
    const server = this.#probes.get(name);
    if (!server) return false;
    this.#probes.delete(name);
    this.#stateOf(server).loopUntil = this.#clock.monotonic() + LOOP_MS;
    this.#logger?.error(
      { server: server.text, sandbox, forMs: LOOP_MS },
      'a DNS server asks us what we ask it (a loop through a sandbox); it is not asked for a while',
    );
    return true;
  }

  /** Forgets what was kept and what is thought of the servers. */
  clear(): void {
    this.#cache.clear();
    this.#servers.clear();
  }

  /** Ends what is under way; whoever waits is told of a failure. */
  close(): void {
    this.#closed = true;
    this.#exchanges.close();
    this.clear();
  }

  async #settle(ask: Ask, key: string, pendingKey: string, { waiting, sandboxes }: Pending): Promise<void> {
    const { head } = ask.query;
    let reply = failure(head, head.length, RCODE.SERVFAIL);
    try {
      reply = (await this.#resolve(ask)) ?? reply;
    } catch (error) {
      this.#logger?.error({ key, err: error }, 'a question could not be asked upstream');
    }
    const failed = reply.rcode !== RCODE.NOERROR && reply.rcode !== RCODE.NXDOMAIN;
    this.#cache.put(key, reply, failed ? FAILURE_MS : reply.lifetimeS * 1000, this.#clock.monotonic());
    this.#pending.delete(pendingKey);
    for (const { sandbox, done } of waiting) {
      this.#release(sandbox);
      done(reply, 0, true);
    }
    // Others asked meanwhile what failed: either many want it, or it came round.
    if (failed && sandboxes.size > 1) for (const server of ask.servers) this.#probe(server);
  }

  #release(sandbox: string): void {
    this.#waiting--;
    const left = (this.#perSandbox.get(sandbox) ?? 1) - 1;
    if (left === 0) this.#perSandbox.delete(sandbox);
    else this.#perSandbox.set(sandbox, left);
  }

  #stateOf(server: Server): ServerState {
    let state = this.#servers.get(server.text);
    if (!state) {
      state = { doubtUntil: 0, loopUntil: 0, probedAt: Number.NEGATIVE_INFINITY };
      this.#servers.set(server.text, state);
      if (this.#servers.size > SERVERS_MAX) this.#servers.delete(this.#servers.keys().next().value!);
    }
    return state;
  }

  /**
   * One server after the other, those in doubt last. Who is silent is asked again while there is time; who refuses or fails is not. Of
   * several failures the last server's own words are passed on.
   */
  async #resolve({ query, servers }: Ask): Promise<Reply | null> {
    const begun = this.#clock.monotonic();
    const left = (): number => begun + QUESTION_MS_MAX - this.#clock.monotonic();
    let order = servers.filter((server) => this.#stateOf(server).loopUntil <= begun);
    const inDoubt = (server: Server): boolean => this.#stateOf(server).doubtUntil > begun;
    order = [...order.filter((server) => !inDoubt(server)), ...order.filter(inDoubt)];
    let words: Reply | null = null;
    while (order.length > 0) {
      for (const server of [...order]) {
        const limitMs = Math.min(SERVER_MS_MAX, left());
        if (limitMs < SERVER_MS_MIN || this.#closed) return words;
        let outcome = await this.#exchanges.ask(server, query, true, limitMs);
        // Servers older than EDNS (1999) answer FORMERR or NOTIMP to it.
        if (isReply(outcome) && (outcome.rcode === RCODE.FORMERR || outcome.rcode === RCODE.NOTIMP) && left() > 0)
          outcome = await this.#exchanges.ask(server, query, false, Math.min(SERVER_MS_MAX, left()));
        const state = this.#stateOf(server);
        if (outcome === 'silent') {
          if (limitMs === SERVER_MS_MAX) state.doubtUntil = this.#clock.monotonic() + DOUBT_MS;
          continue;
        }
        if (isReply(outcome)) {
          state.doubtUntil = 0;
          if (outcome.rcode === RCODE.NOERROR || outcome.rcode === RCODE.NXDOMAIN) return outcome;
          words = outcome;
        }
        order = order.filter((other) => other !== server);
      }
    }
    return words;
  }

  /** Asks the server for a name that nobody else asks for; `isProbe` sees it when it comes back. */
  #probe(server: Server): void {
    const state = this.#stateOf(server);
    const now = this.#clock.monotonic();
    if (this.#closed || now - state.probedAt < LOOP_MS) return;
    state.probedAt = now;
    const label = (): string => Buffer.from(this.#clock.random(8)).toString('hex');
    // Two labels: some resolvers keep single ones to themselves.
    const name = `${label()}.${label()}`;
    this.#probes.set(name, server);
    void this.#exchanges.ask(server, probeQuery(name, TYPE.HINFO), true, SERVER_MS_MAX).then(() => {
      this.#probes.delete(name);
    });
  }
}

const isReply = (outcome: Outcome): outcome is Reply => typeof outcome === 'object';
