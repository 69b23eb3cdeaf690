/**
 * The bridge driver: a Linux bridge a network, a veth pair an endpoint. The host-side end is a port that neither learns nor
 * receives unknown unicast; each endpoint's MAC stands in the bridge's FDB as a static entry of its port, so one spoofed
 * frame cannot move it. By hand:
 *
 *     ip link add slNET type bridge; ip addr add GATEWAY dev slNET; ip link set slNET up
 *     ip link add svEP type veth peer name … address MAC; ip link set svEP master slNET
 *     bridge link set dev svEP learning off flood off; bridge fdb replace MAC dev svEP master static
 */
import { type Clock, systemClock } from '../../src/clock.ts';
import type {
  BulkDelete,
  DriverCapabilities,
  DriverEndpoint,
  DriverHost,
  DriverNetwork,
  EndpointResult,
  Inventory,
  JoinResult,
  NetworkDriver,
  NetworkResult,
} from '../../src/contracts/driver.ts';
import type { Kernel, Link } from '../../src/contracts/kernel.ts';
import { SluiceError } from '../../src/errors.ts';
import { deriveMac } from '../../src/model/id.ts';
import { formatMark, type Mark, parseMark } from '../../src/model/mark.ts';
import { mtuBudget } from '../../src/model/mtu.ts';
import { bridgeName, hostName, parseOptions, peerName } from './names.ts';
import { Reaper } from './reaper.ts';
import { underlayMtu } from './underlay.ts';

export class BridgeDriver implements NetworkDriver, Inventory, BulkDelete {
  readonly name = 'bridge';
  readonly #kernel: Kernel;
  readonly #instance: string;
  readonly #reaper: Reaper;

  constructor(host: DriverHost, clock: Clock = systemClock) {
    this.#kernel = host.kernel;
    this.#instance = host.instance;
    this.#reaper = new Reaper(host.kernel.host.netlink, clock);
  }

  capabilities(): DriverCapabilities {
    return { scope: 'local', addresses: true, overhead: { ipv4: 0, ipv6: 0 } };
  }

  validate(network: DriverNetwork): void {
    parseOptions(network.options);
    for (const family of [4, 6]) {
      const count = network.subnets.filter(({ cidr }) => cidr.includes(':') === (family === 6)).length;
      if (count > 1)
        throw new SluiceError(
          'request.invalid',
          `network ${network.name}: a bridge has at most one IPv${family} subnet`,
          { network: network.name },
        );
    }
  }

  async createNetwork(network: DriverNetwork): Promise<NetworkResult> {
    const { host } = this.#kernel;
    const changed: string[] = [];
    const name = bridgeName(network);
    const mtu = mtuBudget(network.mtu, underlayMtu(host.netlink));
    const alias = formatMark(this.#instance, { what: 'network', id: network.id });
    const found = this.#ours(name, alias);
    if (!found) changed.push(`bridge ${name} made`);
    const gateway4 = network.subnets.find(({ gateway }) => gateway && !gateway.includes(':'))?.gateway;
    const bridge = host.netlink.ensureBridge(name, { mac: deriveMac(network.id, gateway4), mtu, alias });
    if (!found) {
      // A neighbour that plays router must not configure the host (CVE-2020-10749).
      host.setSysctl(`net.ipv6.conf.${name}.accept_ra`, '0');
      host.setSysctl(`net.ipv6.conf.${name}.disable_ipv6`, network.ipv6 ? '0' : '1');
    }
    if (!bridge.up || found?.up === false) {
      host.netlink.setLink(bridge.ifindex, { up: true });
      if (found) changed.push(`bridge ${name} brought up`);
    }
    const present = new Set(host.netlink.addresses(bridge.ifindex).map(({ cidr }) => cidr));
    for (const { cidr, gateway } of network.subnets) {
      if (!gateway) continue;
      const address = `${gateway}/${cidr.split('/')[1]}`;
      if (present.has(address)) continue;
      host.netlink.ensureAddress(bridge.ifindex, address, { nodad: true });
      changed.push(`address ${address} set on ${name}`);
    }
    return { ifname: name, ifindex: bridge.ifindex, mtu, routed: true, changed };
  }

  async deleteNetwork(networkId: string): Promise<void> {
    const { netlink } = this.#kernel.host;
    for (const link of netlink.links()) {
      const mark = parseMark(this.#instance, link.alias);
      if (mark?.what === 'network' && mark.id === networkId) netlink.removeLink(link.ifindex);
    }
  }

  async createEndpoint(network: DriverNetwork, endpoint: DriverEndpoint, netnsPath?: string): Promise<EndpointResult> {
    const { netlink } = this.#kernel.host;
    const changed: string[] = [];
    const bridge = netlink.link(bridgeName(network));
    if (!bridge)
      throw new SluiceError(
        'driver.failed',
        `bridge ${bridgeName(network)} of network ${network.name} is not there yet`,
        { network: network.id },
      );
    const name = hostName(endpoint.id);
    const alias = formatMark(this.#instance, { what: 'endpoint', id: endpoint.id, network: network.id });
    let link = this.#ours(name, alias);
    const made = link === null;
    if (!link) {
      link = this.#makeVeth(name, alias, bridge.mtu, endpoint, netnsPath);
      changed.push(`veth ${name} made`);
    }
    const port = { learning: false, unicastFlood: false, isolated: !parseOptions(network.options).icc };
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
        mtu: bridge.mtu,
      },
      changed,
    };
  }

  async join(network: DriverNetwork): Promise<JoinResult> {
    const gateways = network.internal ? [] : network.subnets.flatMap(({ gateway }) => (gateway ? [gateway] : []));
    return { ifprefix: 'eth', gateways, routes: [], neighbours: [] };
  }

  async leave(): Promise<void> {
    // Nothing of ours is inside the sandbox: the link goes with deleteEndpoint.
  }

  async deleteEndpoint(_networkId: string, endpointId: string): Promise<void> {
    await this.deleteEndpoints([endpointId]);
  }

  async deleteEndpoints(ids: readonly string[]): Promise<void> {
    const doomed: number[] = [];
    for (const id of ids) {
      const link = this.#kernel.host.netlink.link(hostName(id));
      if (link && parseMark(this.#instance, link.alias)?.id === id) doomed.push(link.ifindex);
    }
    await this.#reaper.remove(doomed);
  }

  async inventory(): Promise<{ networks: string[]; endpoints: string[] }> {
    const marks = this.#kernel.host.netlink.links().flatMap((link): Mark[] => {
      const mark = parseMark(this.#instance, link.alias);
      return mark ? [mark] : [];
    });
    const ids = (what: Mark['what']): string[] => marks.filter((mark) => mark.what === what).map(({ id }) => id);
    return { networks: ids('network'), endpoints: ids('endpoint') };
  }

  /** The link of that name when it is ours; somebody else's is an error, not a thing to take over. */
  #ours(name: string, alias: string): Link | null {
    const link = this.#kernel.host.netlink.link(name);
    if (link && link.alias !== alias) {
      // Made a moment before we could mark it (kill -9 between two requests) or a stranger's: only the unmarked one is taken.
      if (link.alias === '') return link;
      throw new SluiceError('kernel.exists', `link ${name} exists and is not ours (alias "${link.alias}")`, {
        link: name,
      });
    }
    return link;
  }

  #makeVeth(name: string, alias: string, mtu: number, endpoint: DriverEndpoint, netnsPath?: string): Link {
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

export const create = (host: DriverHost): NetworkDriver => new BridgeDriver(host);
