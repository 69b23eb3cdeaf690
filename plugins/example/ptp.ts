/** Point-to-point links: one veth pair an endpoint, the host routes between them. The driver of the README, whole. */
import type {
  DriverEndpoint,
  DriverHost,
  DriverNetwork,
  EndpointResult,
  JoinResult,
  NetworkDriver,
} from '../../src/contracts/driver.ts';

/** Every host-side end has the same MAC: the sandbox's gateway, whichever link it is behind. */
const GATEWAY_MAC = '02:70:74:70:00:01';
const MTU = 1500;
const bare = (address: string): string => address.split('/')[0]!;
const hostRoute = (address: string): string => `${bare(address)}/${address.includes(':') ? 128 : 32}`;

export function create({ kernel, instance }: DriverHost): NetworkDriver {
  const { netlink } = kernel.host;
  const hostName = (endpointId: string): string => `pt${endpointId.slice(0, 12)}`;

  return {
    name: 'ptp',
    capabilities: () => ({ scope: 'local', addresses: true, overhead: { ipv4: 0, ipv6: 0 } }),
    validate() {
      // No options of its own.
    },
    async createNetwork() {
      return { routed: true };
    },
    async deleteNetwork() {
      // Nothing belongs to the network itself: its links went with its endpoints.
    },

    async createEndpoint(network: DriverNetwork, endpoint: DriverEndpoint): Promise<EndpointResult> {
      const name = hostName(endpoint.id);
      const alias = `sluice:${instance}:endpoint:${endpoint.id}:${network.id}`;
      const peer = { name: `pp${endpoint.id.slice(0, 12)}`, mac: endpoint.mac, mtu: network.mtu ?? MTU };
      const changed = netlink.link(name) ? [] : [`veth ${name} made`];
      const link = netlink.ensureVeth(name, { mac: GATEWAY_MAC, mtu: peer.mtu, alias, peer });
      if (!link.up) netlink.setLink(link.ifindex, { up: true });
      // The gateway's address stands on every link, as a host address; the way back is one route an endpoint.
      for (const { gateway } of network.subnets)
        if (gateway) netlink.ensureAddress(link.ifindex, hostRoute(gateway), { nodad: true });
      for (const address of endpoint.addresses) netlink.ensureRoute({ dst: hostRoute(address), link: link.ifindex });
      netlink.ensureNeighbours(
        endpoint.addresses.map((address) => ({ link: link.ifindex, ip: bare(address), mac: endpoint.mac })),
      );
      return {
        link: { ifname: peer.name, ifindex: link.peer, hostIfname: name, hostIfindex: link.ifindex, mtu: peer.mtu },
        changed,
      };
    },

    async join(network: DriverNetwork): Promise<JoinResult> {
      const gateways = network.internal ? [] : network.subnets.flatMap(({ gateway }) => (gateway ? [gateway] : []));
      return {
        ifprefix: 'eth',
        gateways,
        pointToPoint: true,
        // Neighbours of the subnet are reached through the host, too.
        routes: network.subnets.flatMap(({ cidr, gateway }) => (gateway ? [{ destination: cidr, gateway }] : [])),
        neighbours: network.subnets.flatMap(({ gateway }) => (gateway ? [{ ip: gateway, mac: GATEWAY_MAC }] : [])),
      };
    },
    async leave() {
      // The link goes with deleteEndpoint.
    },
    async deleteEndpoint(_networkId: string, endpointId: string): Promise<void> {
      const link = netlink.link(hostName(endpointId));
      if (link) netlink.removeLink(link.ifindex);
    },
  };
}
