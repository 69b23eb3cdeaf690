import type { Netlink } from '../../src/contracts/kernel.ts';

/** MTU of the interface that the best default route leaves by, undefined without one. */
export function underlayMtu(netlink: Netlink): number | undefined {
  const [best] = netlink
    .routes()
    .filter(({ dst, ifindex }) => (dst === '0.0.0.0/0' || dst === '::/0') && ifindex > 0)
    .sort((a, b) => a.metric - b.metric);
  return best ? netlink.link(best.ifindex)?.mtu : undefined;
}
