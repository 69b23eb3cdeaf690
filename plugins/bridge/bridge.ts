/**
 * The bridge driver: a Linux bridge a network, a veth pair an endpoint (src/kernel/port). By hand:
 *
 *     ip link add slNET type bridge; ip addr add GATEWAY dev slNET; ip link set slNET up
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
import type { Kernel } from '../../src/contracts/kernel.ts';
import { SluiceError } from '../../src/errors.ts';
import { inventoryOf, ownLink, Ports } from '../../src/kernel/port/port.ts';
import { deriveMac } from '../../src/model/id.ts';
import { formatMark, parseMark } from '../../src/model/mark.ts';
import { mtuBudget } from '../../src/model/network.ts';
import { bridgeName, parseOptions } from './names.ts';
import { underlayMtu } from './underlay.ts';

export class BridgeDriver implements NetworkDriver, Inventory, BulkDelete {
  readonly name = 'bridge';
  readonly #kernel: Kernel;
  readonly #instance: string;
  readonly #ports: Ports;

  constructor(host: DriverHost, clock: Clock = systemClock) {
    this.#kernel = host.kernel;
    this.#instance = host.instance;
    this.#ports = new Ports(host.kernel, host.instance, clock);
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
    const found = ownLink(host.netlink, name, alias);
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
    const bridge = this.#kernel.host.netlink.link(bridgeName(network));
    if (!bridge)
      throw new SluiceError(
        'driver.failed',
        `bridge ${bridgeName(network)} of network ${network.name} is not there yet`,
        { network: network.id },
      );
    const isolated = !parseOptions(network.options).icc;
    return this.#ports.ensure(endpoint, { network: network.id, bridge, isolated, netnsPath });
  }

  async join(network: DriverNetwork): Promise<JoinResult> {
    const gateways = network.internal ? [] : network.subnets.flatMap(({ gateway }) => (gateway ? [gateway] : []));
    return { ifprefix: 'eth', gateways, routes: [], neighbours: [] };
  }

  async leave(): Promise<void> {
    // Nothing of ours is inside the sandbox: the link goes with deleteEndpoint.
  }

  deleteEndpoint(_networkId: string, endpointId: string): Promise<void> {
    return this.#ports.remove([endpointId]);
  }

  deleteEndpoints(ids: readonly string[]): Promise<void> {
    return this.#ports.remove(ids);
  }

  async inventory(): Promise<{ networks: string[]; endpoints: string[] }> {
    return inventoryOf(this.#kernel.host.netlink, this.#instance);
  }
}

export const create = (host: DriverHost): NetworkDriver => new BridgeDriver(host);
