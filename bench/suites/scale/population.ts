/** What a cluster of a size holds: networks, endpoints and services, and which nodes take part in which network. Pure. */
import type { HostSpec } from '../../../src/model/node.ts';

export interface Scale {
  readonly nodes: number;
  /** In all of the cluster. */
  readonly endpoints: number;
  readonly services: number;
}

export interface PlannedNetwork {
  readonly name: string;
  readonly cidr: string;
  /** Numbers of the nodes that have an endpoint on it. */
  readonly participants: readonly number[];
  readonly endpoints: number;
  readonly services: number;
}

/** Nodes of every network but the wide one. */
export const TEN = 10;
/** The same at every size: what is done to it must cost the same, however large the cluster is. */
const FIXED = { endpoints: 20, services: 5 } as const;
/** Part of the services that stand on the network of all nodes. */
const WIDE_SERVICES = 0.1;
export const BACKENDS = 2;

export const nodeName = (at: number): string => `n${String(at).padStart(3, '0')}`;
export const addressOfNode = (at: number): string => `198.18.${at >> 8}.${at & 255}`;
/** What the node finds on its host. */
export const hostOfNode = (at: number): HostSpec => {
  const address = addressOfNode(at);
  return { address, vtep: address, port: 4789, hostRoutes: ['198.18.0.0/16'] };
};

/** `all` with an endpoint of every node, `ten` of the first ten, and the rest on networks of ten nodes each. */
export function planNetworks({ nodes, endpoints, services }: Scale): readonly PlannedNetwork[] {
  const groups = Math.floor(nodes / TEN);
  const first = (count: number, from = 0): number[] => Array.from({ length: count }, (_, at) => from + at);
  const wideServices = Math.round(services * WIDE_SERVICES);
  const share = (all: number, at: number): number =>
    Math.floor((all * (at + 1)) / groups) - Math.floor((all * at) / groups);
  const rest = { endpoints: endpoints - nodes - FIXED.endpoints, services: services - wideServices - FIXED.services };
  return [
    { name: 'all', cidr: '10.64.0.0/16', participants: first(nodes), endpoints: nodes, services: wideServices },
    { name: 'ten', cidr: '10.65.0.0/16', participants: first(TEN), ...FIXED },
    ...first(groups).map((at) => ({
      name: `group-${at}`,
      cidr: `10.${100 + at}.0.0/16`,
      participants: first(TEN, at * TEN),
      endpoints: share(rest.endpoints, at),
      services: share(rest.services, at),
    })),
  ];
}

/** Rise of the logarithm of `y` with that of `x`, by least squares: 1 where one is proportional to the other. */
export function slopeOf(points: readonly { readonly x: number; readonly y: number }[]): number {
  const logs = points.map(({ x, y }) => [Math.log(x), Math.log(y)] as const);
  const mean = (at: 0 | 1): number => logs.reduce((sum, point) => sum + point[at], 0) / logs.length;
  const [x, y] = [mean(0), mean(1)];
  const above = logs.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0);
  return above / logs.reduce((sum, point) => sum + (point[0] - x) ** 2, 0);
}
