/**
 * The overlay driver: on every host that takes part a VXLAN device and a bridge a network, a veth pair an endpoint (src/kernel/port).
 * Nothing learns: forwarding entries and neighbours are programmed ahead (src/controller/peer). Gateway addresses and the bridge's MAC are
 * the same on every host. By hand:
 *
 *     ip link add slNET address GWMAC type bridge; ip addr add GATEWAY dev slNET nodad
 *     ip link add sxNET type vxlan id VNI dstport 4789 local VTEP nolearning ttl 64
 *     ip link set sxNET master slNET; bridge link set dev sxNET learning off flood off neigh_suppress on; ip link set sxNET up
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
  Underlay,
} from '../../src/contracts/driver.ts';
import type { Link } from '../../src/contracts/kernel.ts';
import { isSluiceError, SluiceError } from '../../src/errors.ts';
import { inventoryOf, ownLink, Ports } from '../../src/kernel/port/port.ts';
import { deriveMac } from '../../src/model/id.ts';
import { contains, familyOf, parseCidr } from '../../src/model/ip.ts';
import { formatMark, parseMark } from '../../src/model/mark.ts';
import { mtuBudget } from '../../src/model/network.ts';
import { bridgeName, parseOptions, vxlanName } from './names.ts';

/** Ethernet, VXLAN, UDP and IP around a packet (RFC 7348). */
const OVERHEAD = { ipv4: 50, ipv6: 70 } as const;
/** Of the outer packet, as of any other of the host's. */
const TTL = 64;
const VNI_MAX = 0xff_ffff;

export class OverlayDriver implements NetworkDriver, Inventory, BulkDelete {
  readonly name = 'overlay';
  readonly #host: DriverHost;
  readonly #ports: Ports;

  constructor(host: DriverHost, clock: Clock = systemClock) {
    this.#host = host;
    this.#ports = new Ports(host.kernel, host.instance, clock);
  }

  capabilities(): DriverCapabilities {
    return { scope: 'global', addresses: true, overhead: OVERHEAD };
  }

  validate(network: DriverNetwork): void {
    parseOptions(network.options);
  }

  async createNetwork(network: DriverNetwork): Promise<NetworkResult> {
    const vni = vniOf(network);
    const underlay = this.#host.underlay();
    const mtu = mtuBudget(network.mtu, underlay.mtu, OVERHEAD[familyOf(underlay.address) === 6 ? 'ipv6' : 'ipv4']);
    const alias = formatMark(this.#host.instance, { what: 'network', id: network.id });
    const changed: string[] = [];
    const bridge = this.#bridge(network, mtu, alias, changed);
    const tunnel = this.#vxlan(network, bridge, { vni, mtu, alias, underlay }, changed);
    const { address, port } = underlay;
    return {
      ifname: bridge.name,
      ifindex: bridge.ifindex,
      mtu,
      routed: true,
      tunnel: { ifindex: tunnel.ifindex, address, port },
      changed,
    };
  }

  async deleteNetwork(networkId: string): Promise<void> {
    const { netlink } = this.#host.kernel.host;
    for (const link of netlink.links()) {
      const mark = parseMark(this.#host.instance, link.alias);
      if (mark?.what === 'network' && mark.id === networkId) netlink.removeLink(link.ifindex);
    }
  }

  async createEndpoint(network: DriverNetwork, endpoint: DriverEndpoint, netnsPath?: string): Promise<EndpointResult> {
    const bridge = this.#host.kernel.host.netlink.link(bridgeName(network));
    if (!bridge)
      throw new SluiceError(
        'driver.failed',
        `bridge ${bridgeName(network)} of network ${network.name} is not there yet`,
        { network: network.id },
      );
    const isolated = !parseOptions(network.options).icc;
    return this.#ports.ensure(endpoint, { network: network.id, bridge, isolated, netnsPath });
  }

  async join(network: DriverNetwork, endpoint: DriverEndpoint): Promise<JoinResult> {
    const addresses = endpoint.addresses.map((address) => address.split('/')[0]!);
    const mac = gatewayMac(network);
    const near = network.subnets.filter(({ cidr }) =>
      addresses.some((address) => familyOf(address) === familyOf(cidr) && contains(parseCidr(cidr), address)),
    );
    const families = new Set(addresses.map(familyOf));
    // Further subnets of the network are on the same link.
    const far = network.subnets.filter((subnet) => !near.includes(subnet) && families.has(familyOf(subnet.cidr)));
    const gateways = near.flatMap(({ gateway }) => (gateway ? [gateway] : []));
    return {
      ifprefix: 'eth',
      gateways: network.internal ? [] : gateways,
      routes: far.map(({ cidr }) => ({ destination: cidr })),
      neighbours: gateways.map((ip) => ({ ip, mac })),
    };
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
    return inventoryOf(this.#host.kernel.host.netlink, this.#host.instance);
  }

  #bridge(network: DriverNetwork, mtu: number, alias: string, changed: string[]): Link {
    const { host } = this.#host.kernel;
    const name = bridgeName(network);
    const found = ownLink(host.netlink, name, alias);
    const bridge = host.netlink.ensureBridge(name, { mac: gatewayMac(network), mtu, alias });
    if (!found) {
      changed.push(`bridge ${name} made`);
      // A neighbour that plays router must not configure the host (CVE-2020-10749).
      host.setSysctl(`net.ipv6.conf.${name}.accept_ra`, '0');
      host.setSysctl(`net.ipv6.conf.${name}.disable_ipv6`, network.ipv6 ? '0' : '1');
      // Two networks may have one subnet: whether a source is right is asked of the table that its mark leads to.
      host.setSysctl(`net.ipv4.conf.${name}.src_valid_mark`, '1');
    } else if (!found.up) changed.push(`bridge ${name} brought up`);
    const present = new Set(host.netlink.addresses(bridge.ifindex).map(({ cidr }) => cidr));
    for (const { cidr, gateway } of network.subnets) {
      if (!gateway) continue;
      const address = `${gateway}/${cidr.split('/')[1]}`;
      if (present.has(address)) continue;
      // Every host has it: duplicate detection would fail on all but the first.
      host.netlink.ensureAddress(bridge.ifindex, address, { nodad: true });
      changed.push(`address ${address} set on ${name}`);
    }
    return bridge;
  }

  #vxlan(
    network: DriverNetwork,
    bridge: Link,
    { vni, mtu, alias, underlay }: { vni: number; mtu: number; alias: string; underlay: Underlay },
    changed: string[],
  ): Link {
    const { netlink } = this.#host.kernel.host;
    const { address: local, port } = underlay;
    const name = vxlanName(network);
    const found = ownLink(netlink, name, alias);
    const { df } = parseOptions(network.options);
    let link: Link;
    try {
      // Its MAC is no endpoint's and not the gateway's: the bridge takes a port's for one of its own.
      const mac = deriveMac(network.id.slice(8));
      link = netlink.ensureVxlan(name, { vni, port, local, mtu, mac, alias, ttl: TTL, df });
    } catch (error) {
      throw isSluiceError(error, 'kernel.exists') ? this.#foreign(network, vni, port, error) : error;
    }
    if (link.ifindex !== found?.ifindex) changed.push(`VXLAN device ${name} made`);
    const { master, port: flags, up } = link;
    if (master !== bridge.ifindex || flags?.learning || flags?.unicastFlood || !flags?.neighSuppress || !up) {
      if (found?.ifindex === link.ifindex) changed.push(`VXLAN device ${name} put back on ${bridge.name}`);
      try {
        netlink.setLink(link.ifindex, {
          master: master === bridge.ifindex ? undefined : bridge.ifindex,
          addrGenMode: 1,
          port: { learning: false, unicastFlood: false, neighSuppress: true },
          up: true,
        });
      } catch (error) {
        if (!isSluiceError(error) || error.details.name !== 'EADDRINUSE') throw error;
        throw new SluiceError(
          'network.underlay',
          `network ${network.name}: something else on this host listens on UDP port ${port} (setting vxlanPort)`,
          { network: network.id, port },
          error,
        );
      }
    }
    return link;
  }

  /** Who has the VNI: a device here is named; one that was made here and moved away still has it. */
  #foreign(network: DriverNetwork, vni: number, port: number, cause: SluiceError): SluiceError {
    const other = this.#host.kernel.host.netlink
      .links()
      .find((link) => link.vxlan?.vni === vni && link.vxlan.port === port && link.name !== vxlanName(network));
    if (!other && cause.message.includes('of that name')) return cause;
    const where = other
      ? `device ${other.name}${other.alias ? ` ("${other.alias}")` : ''} of this host has it`
      : 'a device that was made on this host and moved into another network namespace has it';
    return new SluiceError(
      'network.vni',
      `network ${network.name}: VNI ${vni} on port ${port} is taken: ${where}; remove that device or make the network anew with another --vni`,
      { network: network.id, vni, port, device: other?.name },
      cause,
    );
  }
}

/** The gateway's on every host: a sandbox that moves finds it where it was. */
function gatewayMac(network: DriverNetwork): string {
  const gateway = network.subnets.find((subnet) => subnet.gateway && familyOf(subnet.gateway) === 4)?.gateway;
  return deriveMac(network.id, gateway);
}

function vniOf({ id, name, vni }: DriverNetwork): number {
  if (vni !== undefined && Number.isInteger(vni) && vni > 0 && vni <= VNI_MAX) return vni;
  throw new SluiceError('driver.failed', `network ${name} has no VNI`, { network: id });
}

export const create = (host: DriverHost): NetworkDriver => new OverlayDriver(host);
