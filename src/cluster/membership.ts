/**
 * This node's part in a cluster: a session under which it gives signs of life, and looks at the others' (judgement.ts). While all is well a look
 * asks only for those who have given none for a while, which is nobody; else it lists everybody's. Nobody is told of a sign of life.
 */
import { type Clock, type Timer, withTimeLimit } from '../clock.ts';
import type { PeerProber } from '../contracts/prober.ts';
import type { Entry, Session, Store } from '../contracts/store.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { beatKey, beatPrefix } from '../model/keys.ts';
import type { Node, NodeSession, NodeState } from '../model/node.ts';
import { type Beat, Judgement } from './judgement.ts';

/** Turns a session's time, and how many of them go by between two signs of life. */
const LOOKS = 6;
const LOOKS_A_BEAT = 2;
/**
 * Nodes up to which every turn is a look. The store goes through a record of each node for it: beyond, looks become as much rarer as there are more
 * nodes, so that all of them together cost it in proportion to their number.
 */
const LOOKS_NODES_MAX = 200;
/** While somebody has been lost for long, one look in so many is at everybody: others may get an answer again. */
const WHOLE_EVERY = 6;
/** Looks of which it is remembered how far the store was then. */
const MARKS_MAX = 16;
/** Looks, at least, without a new sign of life before a session counts as ended. */
const LOOKS_MISSED_MIN = 3;

/** The name of a node's session. */
export const sessionName = (node: string): string => `node/${node}`;

export interface MembershipOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly node: string;
  /** How long a session lasts without a sign of life, milliseconds. */
  readonly ttlMs: number;
  readonly prober: PeerProber;
  /** The nodes that are registered. */
  readonly nodes: () => Iterable<Node>;
  /** Revision up to which this node has read. */
  readonly applied: () => number;
  /** What has become of the others, whenever something about it has changed. */
  readonly onStates: (states: ReadonlyMap<string, NodeState>) => void;
}

export class Membership {
  readonly #options: MembershipOptions;
  readonly #judgement: Judgement;
  #session: Session | undefined;
  #states: ReadonlyMap<string, NodeState> = new Map();
  #count = 0;
  #turns = 0;
  /** Turns until the next look; it is taken with the last of them. */
  #untilLook = 1;
  #looks = 0;
  /** Past looks, the oldest first: when, and the store's revision then. */
  #marks: { readonly atMs: number; readonly revision: number }[] = [];
  #incarnation = '';
  #calm = false;
  #hears = '';
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  #failing = false;
  #stopped = false;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.#judgement = new Judgement({ node: options.node, ttlMs: options.ttlMs });
  }

  /** Begins in the background: a store that is away keeps no daemon from its work. */
  start(): void {
    this.#next(0);
  }

  /** Ends the session, so that the node's next life need not wait for its end. Others see this as silence, not as a loss. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#working;
    const ending = this.#session?.end();
    if (ending) await this.#limited(ending, 'the end of the session').catch((error) => this.#complain(error));
  }

  /** This node's session, while it has one. */
  get session(): Session | undefined {
    return this.#session?.alive ? this.#session : undefined;
  }

  /** What this node knows of one, itself included. */
  sessionOf(name: string): NodeSession {
    const { node, clock, applied } = this.#options;
    if (name === node)
      return {
        state: 'ready',
        epoch: this.#session?.alive ? this.#session.epoch : undefined,
        silentMs: 0,
        applied: applied(),
      };
    // One that came since the last look.
    return this.#judgement.session(name, clock.monotonic()) ?? { state: 'ready', silentMs: 0 };
  }

  #next(ms: number): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(ms, () => {
      this.#working = this.#turn().finally(() => {
        this.#working = undefined;
        this.#next(this.#options.ttlMs / LOOKS);
      });
    });
  }

  async #turn(): Promise<void> {
    try {
      if (--this.#untilLook <= 0) await this.#look();
      await this.#beat();
      this.#failing = false;
    } catch (error) {
      this.#complain(error);
    }
  }

  /** Whether all is well: the last look asked for the silent alone. */
  get isCalm(): boolean {
    return this.#calm;
  }

  /** Asks what the others say of themselves: how far they have read, for who wants to know now. */
  async refresh(): Promise<void> {
    const { items } = await this.#limited(this.#options.store.list<Beat>(beatPrefix), 'a look at the other nodes');
    this.#judgement.told(beatsOf(items));
  }

  async #look(): Promise<void> {
    const { store, clock, nodes, prober, ttlMs } = this.#options;
    const known = new Map([...nodes()].map((node) => [node.name, node]));
    const askedAtMs = clock.monotonic();
    const isLate = this.#judgement.isLate(askedAtMs);
    if (store.incarnation !== this.#incarnation) this.#marks = [];
    const upTo = this.#silentSince(askedAtMs, known.keys());
    const looking = store.list<Beat>(beatPrefix, upTo === undefined ? undefined : { upTo });
    const { items, revision } = await this.#limited(looking, 'a look at the other nodes');
    const beats = beatsOf(items);
    // When each of them was there first: looks see revisions in their order. After a time without looks it says nothing: the store may have been away.
    const sinceMs = new Map(
      (isLate ? [] : items).flatMap(({ key, revision: at }) => {
        const mark = this.#marks.find((one) => one.revision >= at);
        return mark ? [[key.slice(beatPrefix.length), mark.atMs]] : [];
      }),
    );
    // Another incarnation counts anew: who was asked for by the old one's numbers is not told by it.
    const partial = upTo !== undefined && store.incarnation === this.#incarnation;
    this.#calm = partial;
    this.#incarnation = store.incarnation;
    this.#marks = [...this.#marks, { atMs: clock.monotonic(), revision }].slice(-MARKS_MAX);
    this.#looks++;
    const rarely = Math.max(1, Math.ceil(Math.max(known.size, beats.size) / LOOKS_NODES_MAX));
    this.#untilLook = rarely;
    this.#judgement.ttlMs = Math.max(ttlMs, (LOOKS_MISSED_MIN * rarely * ttlMs) / LOOKS);
    if (upTo === undefined || partial)
      this.#judgement.look(clock.monotonic(), known.keys(), beats, { partial, sinceMs });
    await Promise.all(
      this.#judgement.suspects(clock.monotonic()).map(async (name) => {
        const { vtep, address } = known.get(name)!.spec;
        this.#judgement.probed(name, await prober.answers(vtep ?? address, ttlMs / LOOKS / 2));
      }),
    );
    this.#tell(this.#judgement.states(clock.monotonic()));
  }

  /** Revision of a look by whose time everybody must have given another sign of life; undefined: everybody is to be looked at. */
  #silentSince(nowMs: number, nodes: Iterable<string>): number | undefined {
    const { ttlMs } = this.#options;
    if (!this.#judgement.isSettled(nowMs, nodes)) return undefined;
    if (this.#judgement.someLost && this.#looks % WHOLE_EVERY === 0) return undefined;
    return this.#marks.findLast(({ atMs }) => nowMs - atMs >= ttlMs / 2)?.revision;
  }

  #tell(states: ReadonlyMap<string, NodeState>): void {
    const { logger, onStates } = this.#options;
    const before = this.#states;
    const changed = [...states].filter(([name, state]) => state !== (before.get(name) ?? 'ready'));
    this.#states = states;
    for (const [name, state] of changed) logger.info({ peer: name, state, before: before.get(name) }, 'node judged');
    if (changed.length > 0 || [...before.keys()].some((name) => !states.has(name))) onStates(states);
  }

  async #beat(): Promise<void> {
    const { store, clock, node, ttlMs, applied } = this.#options;
    const hears = this.#judgement.hears(clock.monotonic());
    const isDue = this.#turns++ % LOOKS_A_BEAT === 0 || this.#hears !== hears.join();
    if (!isDue) return;
    if (this.#session) {
      try {
        await this.#limited(this.#session.renew(), 'the renewal of the session');
      } catch (error) {
        if (!isSluiceError(error, 'store.fenced')) throw error;
        this.#session = undefined;
      }
    }
    // An earlier life of this node may hold it until its time is over.
    this.#session ??= await this.#limited(store.session(sessionName(node), ttlMs), 'a session');
    const beat: Beat = { epoch: this.#session.epoch, count: ++this.#count, applied: applied(), hears };
    const options = { topics: [], session: this.#session };
    await this.#limited(store.transact([{ op: 'put', key: beatKey(node), value: beat }], options), 'a sign of life');
    this.#hears = hears.join();
  }

  #limited<T>(work: Promise<T>, what: string): Promise<T> {
    const { clock, ttlMs } = this.#options;
    const late = () => new SluiceError('store.unavailable', `${what} took longer than ${ttlMs / LOOKS_A_BEAT} ms`);
    return withTimeLimit(clock, ttlMs / LOOKS_A_BEAT, work, late);
  }

  /** Once until it goes well again: every look would say the same. */
  #complain(error: unknown): void {
    const { logger } = this.#options;
    const { code, message } = toSluiceError(error);
    if (!this.#failing) logger.warn({ code, err: message }, 'no sign of life given; nobody is judged meanwhile');
    this.#failing = true;
  }
}

const beatsOf = (items: readonly Entry<Beat>[]): Map<string, Beat> =>
  new Map(items.map(({ key, value }) => [key.slice(beatPrefix.length), value]));
