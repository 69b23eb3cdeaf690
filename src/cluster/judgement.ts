/**
 * What has become of the other nodes, judged by what this one has seen: signs of life in the store, counted on this node's own monotonic clock,
 * and answers of their kernels. Wall clocks play no part, and a clock that runs fast or slow on another host does not matter. Pure but for
 * memory: time comes with every call.
 */
import type { NodeSession, NodeState } from '../model/node.ts';

/** A node's sign of life. */
export interface Beat {
  /** Of the session under which it is written. */
  readonly epoch: number;
  /** Grows with every one. */
  readonly count: number;
  /** Revision up to which the node has read. */
  readonly applied: number;
  /** Nodes that were silent of late and whose kernel answers this one. */
  readonly hears: readonly string[];
}

/** What a look has asked for. */
export interface Look {
  readonly partial: boolean;
  /** When a node's last sign of life was there first; of those that are not in it at this look. */
  readonly sinceMs: ReadonlyMap<string, number>;
}

interface Seen {
  beat?: Beat;
  /** A later one, which no look has been told of. */
  told?: Beat;
  /** When it was last seen to be alive. */
  atMs: number;
  /** Its session has ended: until it is heard of again. */
  ended: boolean;
  lost: boolean;
  answers: boolean;
  /** Probes in a row without an answer. */
  misses: number;
}

const WHOLE: Look = { partial: false, sinceMs: new Map() };
const ALIVE = { told: undefined, ended: false, lost: false, answers: false, misses: 0 };
/** One lost packet, or two, are no sign of a lost host. */
const MISSES_MIN = 3;

export class Judgement {
  /** Time without a new sign of life after which a session has ended: longer where looks are rare. */
  ttlMs: number;
  readonly #self: string;
  readonly #seen = new Map<string, Seen>();
  #lookedAtMs: number | undefined;
  /** Until then nobody is given up. */
  #graceUntilMs = 0;

  constructor(options: { readonly node: string; readonly ttlMs: number }) {
    this.#self = options.node;
    this.ttlMs = options.ttlMs;
  }

  /**
   * All nodes there are, and their signs of life as the store has them now. A look that comes long after the last one (the store was away, or
   * this daemon) proves nothing about the time between: whoever was alive counts as alive a moment ago. After a look that asked only for those who
   * have been silent for a while (`partial`), whoever is not among them is alive.
   */
  look(nowMs: number, nodes: Iterable<string>, beats: ReadonlyMap<string, Beat>, how: Look = WHOLE): void {
    if (this.isLate(nowMs)) {
      this.#graceUntilMs = nowMs + this.ttlMs;
      for (const seen of this.#seen.values()) if (!seen.ended) seen.atMs = nowMs;
    }
    this.#lookedAtMs = nowMs;
    const names = new Set(nodes);
    names.delete(this.#self);
    for (const name of this.#seen.keys()) if (!names.has(name)) this.#seen.delete(name);
    for (const name of names) {
      const beat = beats.get(name);
      const seen = this.#seen.get(name);
      if (!seen) this.#seen.set(name, { beat, atMs: nowMs, ended: false, lost: false, answers: false, misses: 0 });
      else if (beat && (beat.epoch !== seen.beat?.epoch || beat.count !== seen.beat.count))
        Object.assign(seen, { ...ALIVE, beat, atMs: how.sinceMs.get(name) ?? nowMs });
      else if (!beat && how.partial && seen.beat) Object.assign(seen, { ...ALIVE, atMs: nowMs });
      if (seen && nowMs - seen.atMs >= this.ttlMs && nowMs >= this.#graceUntilMs) seen.ended = true;
    }
  }

  /** Whether what was looked at last says nothing about now. */
  isLate(nowMs: number): boolean {
    return this.#lookedAtMs === undefined || nowMs - this.#lookedAtMs > this.ttlMs / 2;
  }

  /**
   * Whether it is enough to ask for those who have been silent: what the others hear matters only for a silent one whose kernel was asked, does
   * not answer here, and who is not given up. Otherwise a single daemon that is gone for long, or late for once, would have every node ask for
   * every other.
   */
  isSettled(nowMs: number, nodes: Iterable<string>): boolean {
    const suspects = new Set(this.suspects(nowMs));
    for (const name of nodes) {
      if (name === this.#self) continue;
      const seen = this.#seen.get(name);
      if (!seen || (!seen.beat && !seen.lost)) return false;
      if (suspects.has(name) && !seen.lost && seen.misses > 0) return false;
    }
    return true;
  }

  /** Whether somebody is given up. */
  get someLost(): boolean {
    return [...this.#seen.values()].some(({ lost }) => lost);
  }

  /** What nodes say of themselves, for who asks; it is no look. */
  told(beats: ReadonlyMap<string, Beat>): void {
    for (const [name, beat] of beats) {
      const seen = this.#seen.get(name);
      if (seen?.beat) seen.told = beat;
    }
  }

  /** Nodes that have been silent for a while: their kernels are to be asked. */
  suspects(nowMs: number): string[] {
    return [...this.#seen]
      .filter(([, { ended, atMs }]) => ended || nowMs - atMs >= this.ttlMs / 2)
      .map(([name]) => name);
  }

  /** Undefined: it could not be asked. That is no answer, and no sign of a loss either. */
  probed(name: string, answers: boolean | undefined): void {
    const seen = this.#seen.get(name);
    if (!seen) return;
    seen.answers = answers ?? false;
    if (answers === true) seen.misses = 0;
    if (answers === false) seen.misses++;
  }

  /** For this node's own sign of life. */
  hears(nowMs: number): string[] {
    return this.suspects(nowMs)
      .filter((name) => this.#seen.get(name)?.answers)
      .sort();
  }

  /** The state of every other node. */
  states(nowMs: number): Map<string, NodeState> {
    const states = new Map<string, NodeState>();
    for (const [name, seen] of this.#seen) {
      if (!seen.ended || seen.answers || this.#isHeard(name)) seen.lost = false;
      else if (seen.misses >= MISSES_MIN && nowMs >= this.#graceUntilMs) seen.lost = true;
      states.set(name, seen.lost ? 'lost' : seen.ended ? 'unreachable' : 'ready');
    }
    return states;
  }

  session(name: string, nowMs: number): NodeSession | undefined {
    const seen = this.#seen.get(name);
    if (!seen) return undefined;
    const state = seen.lost ? 'lost' : seen.ended ? 'unreachable' : 'ready';
    const { epoch, applied } = seen.told ?? seen.beat ?? {};
    return { state, epoch, silentMs: Math.max(0, Math.round(nowMs - seen.atMs)), applied };
  }

  /** Whether a node that is alive itself gets an answer from it. */
  #isHeard(name: string): boolean {
    for (const [other, { beat, ended }] of this.#seen)
      if (other !== name && !ended && beat?.hears.includes(name)) return true;
    return false;
  }
}
