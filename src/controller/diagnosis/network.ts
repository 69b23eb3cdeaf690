/** What this host has of a network otherwise than it should: its driver's verbs, played through, and the tables by which hosts find each other. */
import type { NetworkDriver, Underlay } from '../../contracts/driver.ts';
import type { PeerDifference } from '../../model/answer.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import { parseMark } from '../../model/mark.ts';
import type { Network } from '../../model/network.ts';
import { type Context, driverNetwork } from '../context.ts';
import { ensurePath } from '../firewall/path.ts';
import { networkMtu } from '../network.ts';
import { keepOff } from '../offload/device.ts';
import type { PeerController, TunnelDetail } from '../peer/peer.ts';
import { troubleOf } from '../tracker.ts';
import type { Rehearsal } from './rehearsal.ts';

export interface NetworkParts {
  readonly context: Context;
  readonly peers: Pick<PeerController, 'inspect'>;
  readonly underlay: () => Underlay;
}

/** Where entries of peers stand. */
export interface TunnelPlace {
  readonly bridge: string;
  readonly device: string;
}

/** Bridge, device, addresses, way through the host. Null: there is no tunnel here whose entries could be compared. */
export async function compareNetwork(
  { context, underlay }: NetworkParts,
  network: Network,
  driver: NetworkDriver,
  rehearsal: Rehearsal,
): Promise<TunnelPlace | null> {
  const { world, tracker, kernel, instance } = context;
  const { differences } = rehearsal;
  const isGlobal = network.spec.scope === 'global';
  const host = rehearsal.namespace(kernel.host);
  if (isGlobal && world.endpointsOfNetwork(network.id).length === 0) {
    for (const { name, alias } of kernel.host.netlink.links()) {
      const mark = parseMark(instance, alias);
      if (mark?.what === 'network' && mark.id === network.id)
        differences.push({ what: `link ${name}`, have: 'there', command: `ip link del ${name}` });
    }
    return null;
  }
  const mtu = networkMtu(world, underlay, network, driver);
  const { routed, ifindex, ifname, tunnel } = await driver.createNetwork({ ...driverNetwork(network), mtu });
  if (routed && network.spec.ipv4) host.setSysctl('net.ipv4.ip_forward', '1');
  if (routed && network.spec.ipv6) host.setSysctl('net.ipv6.conf.all.forwarding', '1');
  if (!isGlobal) return null;
  if (tunnel && troubleOf(tracker, 'node', context.node, 'ChecksumOffload')) keepOff(host.netlink, tunnel.ifindex);
  const { slot } = tracker.detail<TunnelDetail>('network', network.id);
  // What leads by a bridge goes with it.
  if (ifindex === undefined || ifindex < 0) return null;
  if (slot !== undefined) ensurePath(host.netlink, { slot, link: ifindex, subnets: network.spec.subnets });
  const device = tunnel && tunnel.ifindex > 0 ? kernel.host.netlink.link(tunnel.ifindex) : null;
  return device && { bridge: ifname ?? '', device: device.name };
}

/** An entry of the tables by which hosts find each other's endpoints, in words. */
export function peerDifference(
  { table, key, want, have }: PeerDifference,
  { bridge, device }: TunnelPlace,
): Difference {
  const remove = want === undefined;
  switch (table) {
    case 'forwarding':
      return {
        what: `forwarding entry ${key} of ${device}`,
        want: want && `towards ${want}`,
        have: have && `towards ${have}`,
        command: remove
          ? `bridge fdb del ${key} dev ${device} dst ${have} self`
          : `bridge fdb replace ${key} dev ${device} dst ${want} self static`,
      };
    case 'bridge':
      return {
        what: `forwarding entry ${key} of ${bridge}`,
        want: want && `behind ${device}`,
        have: have && `behind ${device}`,
        command: remove
          ? `bridge fdb del ${key} dev ${device} master`
          : `bridge fdb replace ${key} dev ${device} master static`,
      };
    case 'broadcast':
      return {
        what: `host ${key} on the broadcast list of ${device}`,
        want: want && 'there',
        have: have && 'there',
        command: `bridge fdb ${remove ? 'del' : 'append'} 00:00:00:00:00:00 dev ${device} dst ${key} self`,
      };
    case 'neighbour':
      return {
        what: `neighbour ${key} on ${bridge}`,
        want,
        have,
        command: remove
          ? `ip neigh del ${key} dev ${bridge}`
          : `ip neigh replace ${key} lladdr ${want} nud permanent dev ${bridge}`,
      };
  }
}
