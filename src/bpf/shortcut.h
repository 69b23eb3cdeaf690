/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Past the bridge: a frame for a known endpoint of its network goes straight into that one's sandbox, or to the tunnel when it is on another host.
 * The bridge would send it to the same place, after all hooks of all filters of the host. What nobody is known for, and what the
 * bridge itself answers or spreads (ARP, neighbour discovery, broadcast, the gateway), goes on to the bridge.
 */
#ifndef SLUICE_SHORTCUT_H
#define SLUICE_SHORTCUT_H

#include "maps.h"
#include "parse.h"

#define MULTICAST 1 /* of the first octet of a MAC */
#define MTU_LEAST 576 /* every host takes that much (RFC 791): smaller packets are not measured */

static __always_inline int shortcut(struct __sk_buff *skb, __u32 tunnel)
{
	struct station_key key = { .tunnel = tunnel };
	__u32 mtu = 0;
	__u8 protocol;

	if (!tunnel || skb->vlan_present || bpf_skb_load_bytes(skb, 0, key.mac, sizeof(key.mac)) || key.mac[0] & MULTICAST)
		return VERDICT_PASS;
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &protocol, 1) ||
		    protocol == IPPROTO_ICMPV6)
			return VERDICT_PASS;
	} else if (skb->protocol != bpf_htons(ETH_P_IP)) {
		return VERDICT_PASS;
	}
	struct station *station = bpf_map_lookup_elem(&stations, &key);
	if (!station || !(station->flags & STATION_DIRECT))
		return VERDICT_PASS;
	/* Nothing goes back to where it came from; what is too large is the bridge's to drop, as ever. What will be cut fits. */
	__u32 out = station->ifindex;
	if (out == skb->ifindex)
		return VERDICT_PASS;
	if (!skb->gso_size && skb->len > MTU_LEAST && bpf_check_mtu(skb, out, &mtu, 0, 0))
		return VERDICT_PASS;
	return out == tunnel || station->flags & STATION_QUEUED ? bpf_redirect(out, 0) : bpf_redirect_peer(out, 0);
}

#endif
