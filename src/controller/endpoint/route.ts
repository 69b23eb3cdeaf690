/** Which endpoint gives a sandbox its default route, one family apart from the other. */
import type { JoinResult } from '../../contracts/driver.ts';
import type { Namespace } from '../../contracts/kernel.ts';

const RT_TABLE_MAIN = 254;

export interface Candidate {
  /** ifindex of its interface in the sandbox. */
  readonly link: number;
  readonly network: string;
  readonly priority: number;
  readonly joined: JoinResult;
}

export interface DefaultRoute {
  readonly dst: '0.0.0.0/0' | '::/0';
  readonly via: string;
  /** ifindex of the interface it leaves by. */
  readonly link: number;
}

/** The highest priority wins; among equals the first network by name, as in Docker. */
export function planRoutes(candidates: readonly Candidate[]): DefaultRoute[] {
  const order = [...candidates].sort((a, b) => b.priority - a.priority || (a.network < b.network ? -1 : 1));
  const routes: DefaultRoute[] = [];
  for (const dst of ['0.0.0.0/0', '::/0'] as const) {
    for (const { link, joined } of order) {
      const via = joined.gateways.find((gateway) => gateway.includes(':') === (dst === '::/0'));
      if (!via) continue;
      routes.push({ dst, via, link });
      break;
    }
  }
  return routes;
}

/** Applies the plan. `keepForeign`: a default route that somebody else set stays, and ours is not added. */
export function syncDefaultRoutes(
  namespace: Namespace,
  wanted: readonly DefaultRoute[],
  keepForeign: boolean,
): string[] {
  const { netlink } = namespace;
  const present = netlink
    .routes(RT_TABLE_MAIN)
    .filter(({ dst, type }) => (dst === '0.0.0.0/0' || dst === '::/0') && type === 1);
  const changed: string[] = [];
  for (const dst of ['0.0.0.0/0', '::/0'] as const) {
    const route = wanted.find((candidate) => candidate.dst === dst);
    const there = present.filter((candidate) => candidate.dst === dst);
    const right = route && there.some(({ via, ifindex }) => via === route.via && ifindex === route.link);
    if (right || (keepForeign && there.length > 0)) continue;
    if (!keepForeign)
      for (const old of there) netlink.removeRoute({ dst, via: old.via, link: old.ifindex, metric: old.metric });
    if (!route || !netlink.link(route.link)?.up) continue;
    netlink.ensureRoute({ dst, via: route.via, link: route.link });
    changed.push(`default route via ${route.via} set`);
  }
  return changed;
}
