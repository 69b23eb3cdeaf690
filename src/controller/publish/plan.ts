/** What the published ports of a container or service come to on this host: pure. */
import type { PublishedPort } from '../../contracts/publisher.ts';
import type { PublishSpec, ShownPort } from '../../model/container.ts';

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
/** The host's own; a client of `::1` cannot be translated to anything outside the loopback. */
const LOOPBACK = ['127.0.0.1'] as const;

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
}

/** Whether a port is left to the loopback because nobody said otherwise. */
export const isKeptIn = ({ address, from }: PublishSpec, defaults: Defaults): boolean =>
  defaults.closed && address === undefined && defaults.address === undefined && from === undefined;

/**
 * A port leads to all ways of its family. `families`: those in which it is published although there is no way at the moment. Null: in none of
 * them could it be reached by that address.
 */
export function planPort(
  spec: PublishSpec,
  ways: readonly Candidate[],
  defaults: Defaults,
  families: readonly (4 | 6)[] = [],
): PublishedPort[] | null {
  const given = spec.address ?? defaults.address;
  const addresses = given !== undefined ? [given] : isKeptIn(spec, defaults) ? LOOPBACK : ALL;
  const ports = addresses.flatMap((address): PublishedPort[] => {
    const own = ways.filter((one) => isV6(one.address) === isV6(address));
    if (address === '::1' || (own.length === 0 && !families.includes(isV6(address) ? 6 : 4))) return [];
    const { from = 'any', protocol, published, target } = spec;
    const backends = own.map((way) => ({
      address: way.address,
      port: way.port ?? target,
      ifname: way.ifname,
      subnet: way.subnet,
    }));
    const clients = from === 'any' ? from : from.filter((cidr) => isV6(cidr) === isV6(address));
    return [{ address, port: published, protocol, from: clients, backends }];
  });
  return ports.length > 0 ? ports : null;
}

/** As `ps` and `port` show it. */
export const shownPorts = (ports: readonly PublishedPort[], { target }: PublishSpec): ShownPort[] =>
  ports.map(({ address, port, protocol }) => ({ address, published: port, target, protocol }));
