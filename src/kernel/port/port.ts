/**
 * Veth pairs whose host end is a port of a bridge: what drivers that switch on the host make of an endpoint. A port neither learns nor
 * receives unknown unicast; the endpoint's MAC stands in the bridge's FDB as a static entry of its port, so one spoofed frame cannot
 * move it. By hand:
 *
 *     ip link add svEP type veth peer name … address MAC; ip link set svEP master slNET
 *     bridge link set dev svEP learning off flood off; bridge fdb replace MAC dev svEP master static
 */
import type { Clock } from '../../clock.ts';
import type { DriverEndpoint, EndpointResult } from '../../contracts/driver.ts';
import type { Kernel, Link, Netlink } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { formatMark, type Mark, parseMark } from '../../model/mark.ts';
import { Reaper } from './reaper.ts';

/** Name of an endpoint's host end. */
export const hostName = (endpointId: string): string => `sv${endpointId.slice(0, 12)}`;
/** The sandbox's end, until it is given its real name inside. */
export const peerName = (endpointId: string): string => `sp${endpointId.slice(0, 12)}`;

/** The link of that name when it is ours; somebody else's is `kernel.exists`, not a thing to take over. */
export function ownLink(netlink: Netlink, name: string, alias: string): Link | null {
  const link = netlink.link(name);
  // Unmarked: made a moment before it could be marked (kill -9 between two requests). Only that one is taken.
  if (!link || link.alias === alias || link.alias === '') return link;
  throw new SluiceError('kernel.exists', `link ${name} exists and is not ours (alias "${link.alias}")`, { link: name });
}

/** What bears the mark of an instance on the host: object ids. */
export function inventoryOf(netlink: Netlink, instance: string): { networks: string[]; endpoints: string[] } {
  const marks = netlink.links().flatMap((link): Mark[] => {
    const mark = parseMark(instance, link.alias);
    return mark ? [mark] : [];
  });
  const ids = (what: Mark['what']): string[] => [
    ...new Set(marks.filter((mark) => mark.what === what).map(({ id }) => id)),
  ];
  return { networks: ids('network'), endpoints: ids('endpoint') };
}

export interface PortPlace {
  readonly network: string;
  readonly bridge: Link;
  /** Ports of the network cannot reach each other. */
  readonly isolated: boolean;
  /** Namespace in which a new pair's inner end is made at once. */
  readonly netnsPath?: string;
}

export class Ports {
  readonly #kernel: Kernel;
  readonly #instance: string;
  readonly #reaper: Reaper;

  constructor(kernel: Kernel, instance: string, clock: Clock) {
    this.#kernel = kernel;
    this.#instance = instance;
    this.#reaper = new Reaper(kernel.host.netlink, clock);
  }

  /** The endpoint's pair, as it must be. */
  ensure(endpoint: DriverEndpoint, { network, bridge, isolated, netnsPath }: PortPlace): EndpointResult {
    const { netlink } = this.#kernel.host;
    const changed: string[] = [];
    const name = hostName(endpoint.id);
    const alias = formatMark(this.#instance, { what: 'endpoint', id: endpoint.id, network });
    let link = ownLink(netlink, name, alias);
    const made = link === null;
    if (!link) {
      link = this.#make(name, alias, bridge.mtu, endpoint, netnsPath);
      changed.push(`veth ${name} made`);
    }
    if (link.mtu !== bridge.mtu) {
      netlink.setLink(link.ifindex, { mtu: bridge.mtu });
      changed.push(`MTU of ${name} set to ${bridge.mtu}`);
    }
    const port = { learning: false, unicastFlood: false, isolated };
    if (
      link.master !== bridge.ifindex ||
      link.port?.learning ||
      link.port?.unicastFlood ||
      link.port?.isolated !== port.isolated ||
      !link.up
    ) {
      if (changed.length === 0) changed.push(`port ${name} put back on ${bridge.name}`);
      // A port has no business with addresses: without a link-local one it says nothing of its own on the network.
      const master = link.master === bridge.ifindex ? undefined : bridge.ifindex;
      netlink.setLink(link.ifindex, { master, addrGenMode: 1, port, up: true });
    }
    this.#pin(link.ifindex, endpoint.mac, made, changed);
    return {
      link: {
        ifname: peerName(endpoint.id),
        ifindex: link.peer,
        hostIfname: name,
        hostIfindex: link.ifindex,
        hostQueued: link.qdisc !== undefined,
        mtu: bridge.mtu,
      },
      changed,
    };
  }

  /** Resolves when the endpoints' pairs are gone; absent ones are. */
  async remove(ids: readonly string[]): Promise<void> {
    const doomed: number[] = [];
    for (const id of ids) {
      const link = this.#kernel.host.netlink.link(hostName(id));
      if (link && parseMark(this.#instance, link.alias)?.id === id) doomed.push(link.ifindex);
    }
    await this.#reaper.remove(doomed);
  }

  #make(name: string, alias: string, mtu: number, endpoint: DriverEndpoint, netnsPath?: string): Link {
    const namespace = netnsPath ? this.#kernel.namespaces.open(netnsPath) : undefined;
    try {
      const peer = { name: peerName(endpoint.id), mac: endpoint.mac, mtu, netnsFd: namespace?.fd };
      return this.#kernel.host.netlink.ensureVeth(name, { mtu, alias, peer });
    } finally {
      namespace?.[Symbol.dispose]();
    }
  }

  #pin(port: number, mac: string, made: boolean, changed: string[]): void {
    const { netlink } = this.#kernel.host;
    const pinned =
      !made &&
      netlink.fdb(port).some((entry) => entry.mac === mac && entry.table === 'master' && entry.permanent === false);
    if (pinned) return;
    netlink.ensureFdb([{ link: port, mac, table: 'master' }]);
    if (changed.length === 0) changed.push(`FDB entry ${mac} set`);
  }
}
