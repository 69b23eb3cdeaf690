/** What the published ports of a container or service come to on this host: pure. */
import type { PublishedPort } from '../../contracts/publisher.ts';
import type { PublishSpec, ShownPort } from '../../model/container.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';

/** An endpoint as the host reaches it, in one family. */
export interface Candidate {
  readonly network: string;
  readonly priority: number;
  readonly address: string;
  /** Interface of the host, and the subnet behind it. */
  readonly ifname: string;
  readonly subnet: string;
  /** Instead of the published port's target. */
  readonly port?: number;
}

const isV6 = (address: string): boolean => address.includes(':');
const ALL = ['0.0.0.0', '::'] as const;
const LOOPBACK6 = '::1';

/**
 * Of each family the endpoint that has the default route, which answers to strangers leave by: highest priority, then first network by name
 * (as endpoint/route.ts has it).
 */
export function planWays(candidates: readonly Candidate[]): Candidate[] {
  const order = [...candidates].sort((a, b) => b.priority - a.priority || (a.network < b.network ? -1 : 1));
  return [false, true].flatMap((family) => order.find(({ address }) => isV6(address) === family) ?? []);
}

export interface Defaults {
  /** Where a port without an address of its own is published; absent: on all of the host's. */
  readonly address?: string;
  /** The host keeps strangers out: a port for which nobody said who may come is for the loopback. */
  readonly closed: boolean;
  /** Whether the host's loopback has `::1`. */
  readonly loopback6: boolean;
}

/** Whether a port is left to the loopback because nobody said otherwise. */
export const isKeptIn = ({ address, from }: PublishSpec, defaults: Omit<Defaults, 'loopback6'>): boolean =>
  defaults.closed && address === undefined && defaults.address === undefined && from === undefined;

/**
 * A port leads to all ways of its family. `families`: those in which it is published although there is no way at the moment. Where there is none of
 * IPv6, the host's own clients of `::1` are led to IPv4 over TCP: they are given their backend as they connect, which can be of either family.
 * Null: in none could it be reached by that address.
 */
export function planPort(
  spec: PublishSpec,
  ways: readonly Candidate[],
  defaults: Defaults,
  families: readonly (4 | 6)[] = [],
): PublishedPort[] | null {
  const given = spec.address ?? defaults.address;
  const at = (address: string): PublishedPort[] => planAddress(spec, address, ways, families);
  const ownLoopback = (): PublishedPort[] => (defaults.loopback6 ? at(LOOPBACK6) : []);
  const everywhere = (): PublishedPort[] => {
    const [four, six] = ALL.map(at) as [PublishedPort[], PublishedPort[]];
    return [...four, ...(six.length > 0 ? six : ownLoopback())];
  };
  const ports =
    given !== undefined ? at(given) : isKeptIn(spec, defaults) ? [...at('127.0.0.1'), ...ownLoopback()] : everywhere();
  return ports.length > 0 ? ports : null;
}

/** One or none. */
function planAddress(
  { protocol, published, target, from = 'any' }: PublishSpec,
  address: string,
  ways: readonly Candidate[],
  families: readonly (4 | 6)[],
): PublishedPort[] {
  const isLoopback6 = address === LOOPBACK6;
  const of = (family: 4 | 6): readonly Candidate[] | null => {
    const own = ways.filter((one) => isV6(one.address) === (family === 6));
    return own.length > 0 || families.includes(family) ? own : null;
  };
  const own = of(isV6(address) ? 6 : 4) ?? (isLoopback6 && protocol === 'tcp' ? of(4) : null);
  if (!own) return [];
  const backends = own.map((way) => ({
    address: way.address,
    port: way.port ?? target,
    ifname: way.ifname,
    subnet: way.subnet,
  }));
  // The host itself always may.
  const clients = from === 'any' || isLoopback6 ? 'any' : from.filter((cidr) => isV6(cidr) === isV6(address));
  return [{ address, port: published, protocol, from: clients, backends }];
}

/** As `ps` and `port` show it. */
export const shownPorts = (ports: readonly PublishedPort[], { target }: PublishSpec): ShownPort[] =>
  ports.map(({ address, port, protocol }) => ({ address, published: port, target, protocol }));

/** What is published against what should be. */
export function publishDifferences(want: readonly PublishedPort[], have: readonly PublishedPort[]): Difference[] {
  const what = ({ address, port, protocol }: PublishedPort): string =>
    `published port ${isV6(address) ? `[${address}]` : address}:${port}/${protocol}`;
  const where = ({ backends }: PublishedPort): string =>
    `leads to ${backends.map(({ address, port }) => `${isV6(address) ? `[${address}]` : address}:${port}`).join(', ') || 'nobody'}`;
  const all = new Map([...want, ...have].map((port) => [what(port), port]));
  return [...all.keys()].flatMap((key) => {
    const [wanted, present] = [want, have].map((ports) => ports.find((port) => what(port) === key));
    if (JSON.stringify(wanted) === JSON.stringify(present)) return [];
    return [{ what: key, want: wanted && where(wanted), have: present && where(present) }];
  });
}
