/**
 * Whether packets as large as the overlay networks make them get through to the other nodes' hosts. An MTU that the links of both ends have and
 * a switch between them has not shows as connections that open and then hang; here it is measured before. A question of full size that may not
 * be cut is sent to each host, whose kernel answers; where only small ones are answered the largest that gets through is searched for.
 */
import type { Clock, Timer } from '../clock.ts';
import type { PeerProber } from '../contracts/prober.ts';
import { toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { familyOf } from '../model/ip.ts';
import type { Node } from '../model/node.ts';

/** Between two tests of all nodes, milliseconds. */
const EVERY_MS = 30_000;
const ANSWER_MS = 500;
/** Questions of full size, one after the other, before a smaller one is asked: one may be lost by chance. */
const TRIES = 3;
/** Nodes asked at once. */
const AT_ONCE = 16;
/** What every path of the family must let through. */
const SMALL = { 4: 576, 6: 1280 } as const;
/** What VXLAN adds to a packet. */
const OVERHEAD = { 4: 50, 6: 70 } as const;

/** Packets of `size` bytes do not reach the node, those of `passes` bytes do. */
export interface Narrow {
  readonly node: string;
  readonly address: string;
  readonly size: number;
  readonly passes: number;
}

/** What was found about one way: the narrow place, none, or (nobody answers) nothing. */
type Finding = Narrow | 'wide' | 'unknown';

/** In words, with what helps; empty when nothing is narrow. */
export function describeNarrow(found: readonly Narrow[]): string {
  if (found.length === 0) return '';
  const ways = found.map(
    ({ node, address, size, passes }) =>
      `packets of ${size} bytes do not reach node ${node} (${address}), those of ${passes} do`,
  );
  const mtu = Math.min(...found.map(({ address, passes }) => passes - OVERHEAD[familyOf(address)]));
  return `${ways.join('; ')}: larger packets of overlay networks are lost there; to mend it: raise the MTU between the hosts, or make overlay networks with --mtu ${mtu}`;
}

/** The largest size of which `passes` says yes; `low` does, `high` does not. */
export async function largest(low: number, high: number, passes: (size: number) => Promise<boolean>): Promise<number> {
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (await passes(middle)) low = middle;
    else high = middle;
  }
  return low;
}

export interface PassageOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly node: string;
  readonly prober: PeerProber;
  /** The nodes that are registered. */
  readonly nodes: () => Iterable<Node>;
  /** What is narrow now, in words; empty: nothing. */
  readonly onFound: (message: string) => Promise<void>;
}

export class Passage {
  readonly #options: PassageOptions;
  readonly #narrow = new Map<string, Narrow>();
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  #stopped = false;

  constructor(options: PassageOptions) {
    this.#options = options;
  }

  /** Begins in the background. */
  start(): void {
    this.#next(0);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#working;
  }

  #next(ms: number): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(ms, () => {
      this.#working = this.test()
        .catch((error) => this.#options.logger.warn({ err: toSluiceError(error) }, 'the underlay could not be tested'))
        .finally(() => {
          this.#working = undefined;
          this.#next(EVERY_MS);
        });
    });
  }

  /** Tests the ways to all nodes once and tells what was found. */
  async test(): Promise<void> {
    const { node, nodes, onFound } = this.#options;
    const all = [...nodes()];
    // What a network's packets may have is what the host with the least can take.
    const size = Math.min(...all.map(({ spec }) => spec.mtu ?? Number.POSITIVE_INFINITY));
    const others = all.filter(({ name, spec }) => name !== node && spec.vtep !== undefined && spec.mtu !== undefined);
    for (const name of [...this.#narrow.keys()])
      if (!others.some((other) => other.name === name)) this.#narrow.delete(name);
    for (let at = 0; at < others.length && !this.#stopped; at += AT_ONCE) {
      await Promise.all(
        others.slice(at, at + AT_ONCE).map(async ({ name, spec }) => {
          const found = await this.#try(name, spec.vtep!, size);
          // While nobody answers, what was found stands.
          if (found === 'wide') this.#narrow.delete(name);
          else if (found !== 'unknown') this.#narrow.set(name, found);
        }),
      );
    }
    if (this.#stopped) return;
    const found = [...this.#narrow.values()].sort((a, b) => (a.node < b.node ? -1 : 1));
    await onFound(describeNarrow(found));
  }

  async #try(node: string, address: string, size: number): Promise<Finding> {
    const { prober } = this.#options;
    const passes = async (bytes: number): Promise<boolean> =>
      (await prober.answers(address, ANSWER_MS, bytes)) ?? false;
    for (let tries = 0; tries < TRIES; tries++) if (await passes(size)) return 'wide';
    const small = SMALL[familyOf(address)];
    if (size <= small || !(await passes(small))) return 'unknown';
    return { node, address, size, passes: await largest(small, size, passes) };
  }
}
