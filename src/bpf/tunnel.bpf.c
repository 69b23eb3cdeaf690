// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * STAGE_FROM_TUNNEL: what comes out of a network's tunnel for an endpoint of this host goes straight to it. Who may send into the tunnel
 * was asked before (the VXLAN table), and its host's guard saw the frame.
 */
#include "shortcut.h"

SEC("tc") int from_tunnel(struct __sk_buff *skb)
{
	return shortcut(skb, skb->ifindex);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
