// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * STAGE_DNS: at the egress of a sandbox's own lo, questions to 127.0.0.11:53 go to the daemon's port in the same namespace
 * and its answers come back from 53. So the container may bind port 53 itself, and no NAT rule or conntrack entry is needed.
 */
#include <linux/tcp.h>
#include <linux/udp.h>
#include "maps.h"
#include "parse.h"

#define RESOLVER bpf_htonl(0x7f00000b) /* 127.0.0.11 */
#define DOMAIN bpf_htons(53)

struct ports {
	__be16 source, destination;
};

/* With CHECKSUM_PARTIAL the field holds the pseudo header's sum, which has no ports: the helper then leaves it alone. */
static __always_inline void put_port(struct __sk_buff *skb, __u32 l4, __u32 port_offset, __u8 protocol, __be16 from, __be16 to)
{
	__u32 offset = l4 + port_offset;

	if (protocol == IPPROTO_UDP)
		bpf_l4_csum_replace(skb, l4 + offsetof(struct udphdr, check), from, to, BPF_F_MARK_MANGLED_0 | sizeof(to));
	else
		bpf_l4_csum_replace(skb, l4 + offsetof(struct tcphdr, check), from, to, sizeof(to));
	bpf_skb_store_bytes(skb, offset, &to, sizeof(to), 0);
}

/* Nobody listens on the daemon's port: the error quotes the rewritten question, and must quote what was asked. */
static __always_inline void restore_quoted(struct __sk_buff *skb, __u32 l4, __be16 port)
{
	struct icmphdr icmp;
	struct iphdr quoted;
	struct ports ports;
	__be16 to = DOMAIN;
	__u32 inner = l4 + sizeof(icmp);

	if (bpf_skb_load_bytes(skb, l4, &icmp, sizeof(icmp)) || icmp.type != ICMP_DEST_UNREACH)
		return;
	if (bpf_skb_load_bytes(skb, inner, &quoted, sizeof(quoted)) || quoted.daddr != RESOLVER || quoted.ihl < 5)
		return;
	if (quoted.protocol != IPPROTO_UDP && quoted.protocol != IPPROTO_TCP)
		return;
	inner += quoted.ihl * 4;
	if (bpf_skb_load_bytes(skb, inner, &ports, sizeof(ports)) || ports.destination != port)
		return;
	bpf_l4_csum_replace(skb, l4 + offsetof(struct icmphdr, checksum), port, to, sizeof(to));
	bpf_skb_store_bytes(skb, inner + offsetof(struct ports, destination), &to, sizeof(to), 0);
}

SEC("tc") int dns(struct __sk_buff *skb)
{
	__u32 attachment = skb->cb[0];
	struct iphdr ip;
	struct ports ports;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return VERDICT_PASS;
	if (ip.daddr != RESOLVER && ip.saddr != RESOLVER)
		return VERDICT_PASS;
	struct resolver *resolver = bpf_map_lookup_elem(&resolvers, &attachment);
	__be16 port = resolver ? resolver->port : 0;
	if (!port || ip.ihl < 5 || ip.frag_off & bpf_htons(IP_OFFSET_MASK))
		return VERDICT_PASS;

	__u32 l4 = ETH_HLEN + ip.ihl * 4;
	if (ip.protocol == IPPROTO_ICMP) {
		restore_quoted(skb, l4, port);
		return VERDICT_PASS;
	}
	if (ip.protocol != IPPROTO_UDP && ip.protocol != IPPROTO_TCP)
		return VERDICT_PASS;
	if (bpf_skb_load_bytes(skb, l4, &ports, sizeof(ports)))
		return VERDICT_PASS;
	if (ip.daddr == RESOLVER && ports.destination == DOMAIN)
		put_port(skb, l4, offsetof(struct ports, destination), ip.protocol, DOMAIN, port);
	else if (ip.saddr == RESOLVER && ports.source == port)
		put_port(skb, l4, offsetof(struct ports, source), ip.protocol, port, DOMAIN);
	return VERDICT_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
