/** Links of the host's namespace that moved. A bridge moves whenever a port comes or goes: one look for all of that. */

import type { Clock, Timer } from '../clock.ts';
import type { EndpointDetail } from '../model/endpoint.ts';
import type { Context } from './context.ts';
import type { PolicyNetwork } from './firewall/policy.ts';
import type { TunnelDetail } from './peer/peer.ts';

/** How long what the kernel reports is gathered before it is looked at, milliseconds. */
export const NOTICED_MS = 250;

export class MovedLinks {
  readonly #clock: Clock;
  readonly #look: (moved: ReadonlyMap<number, boolean>) => void;
  #moved = new Map<number, boolean>();
  #timer: Timer | undefined;

  /** `look` is told the indices of the links that moved, and whether they went. */
  constructor(clock: Clock, look: (moved: ReadonlyMap<number, boolean>) => void) {
    this.#clock = clock;
    this.#look = look;
  }

  note(ifindex: number, went: boolean): void {
    this.#moved.set(ifindex, went || this.#moved.get(ifindex) === true);
    this.#timer ??= this.#clock.after(NOTICED_MS, () => {
      const moved = this.#moved;
      this.#moved = new Map();
      this.#timer = undefined;
      this.#look(moved);
    });
  }

  stop(): void {
    this.#timer?.cancel();
  }
}

/** The objects that these interfaces belong to. `moved`: by ifindex; true: it went. */
export function touchedBy(
  moved: ReadonlyMap<number, boolean>,
  { world, tracker }: Pick<Context, 'world' | 'tracker'>,
  interfaces: ReadonlyMap<string, PolicyNetwork>,
): { readonly kind: 'network' | 'endpoint'; readonly id: string }[] {
  const touched: { kind: 'network' | 'endpoint'; id: string }[] = [];
  for (const [id, { ifname }] of interfaces) {
    const { ifindex, tunnel } = tracker.detail<TunnelDetail>('network', id);
    const went = tunnel !== undefined && moved.get(tunnel.ifindex) === true;
    if (ifname && ifindex !== undefined && (went || moved.has(ifindex))) touched.push({ kind: 'network', id });
  }
  for (const { id, removing } of world.endpoints.values()) {
    const { hostIfindex } = tracker.detail<EndpointDetail>('endpoint', id);
    if (!removing && hostIfindex !== undefined && moved.get(hostIfindex)) touched.push({ kind: 'endpoint', id });
  }
  return touched;
}
