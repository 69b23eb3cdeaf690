// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * STAGE_FROM_SANDBOX: what an endpoint may send. It stands at the ingress of the host-side veth, before bridge, FDB and stack
 * see the frame; the trampoline has put the attachment's number into cb[0]. An endpoint speaks only as itself: source MAC,
 * source address, ARP sender, ND target and link-layer options. Always legal: DHCP and ARP probes from 0.0.0.0, DAD and MLD
 * from ::, the EUI-64 link-local address. What it may send takes the shortcut where there is one.
 */
#include <linux/udp.h>
#include "address.h"
#include "maps.h"
#include "parse.h"
#include "shortcut.h"

#define ALLOWED (-1)
#define ARPHRD_ETHER 1

#define ND_ROUTER_SOLICIT 133
#define ND_ROUTER_ADVERT 134
#define ND_NEIGHBOUR_SOLICIT 135
#define ND_NEIGHBOUR_ADVERT 136
#define ND_REDIRECT 137
#define MLD_REPORT 131
#define MLD_DONE 132
#define MLD2_REPORT 143

#define ND_OPTION_SOURCE_MAC 1
#define ND_OPTION_TARGET_MAC 2
/* Honest neighbour discovery carries one or two. */
#define ND_OPTIONS_MAX 8

struct arp_ipv4 {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

struct nd_header {
	__u8 type, code;
	__be16 checksum;
	__be32 reserved;
	struct addr target; /* solicitations and advertisements of neighbours */
};

struct nd_option {
	__u8 type;
	__u8 length; /* of 8 octets */
	__u8 mac[6];
};

static __always_inline bool mac_equal(const __u8 *a, const __u8 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3] && a[4] == b[4] && a[5] == b[5];
}

static __always_inline bool owns(const struct endpoint *endpoint, __u32 attachment, const struct addr *addr)
{
	for (int i = 0; i < ENDPOINT_ADDRESSES; i++)
		if (i < endpoint->address_count && addr_equal(&endpoint->addresses[i], addr))
			return true;
	if (addr_equal(&endpoint->link_local, addr))
		return true;
	if (!(endpoint->flags & ENDPOINT_ALLOW))
		return false;
	struct allowed_key key = { .prefixlen = 32 + 128, .attachment = attachment, .addr = *addr };
	return bpf_map_lookup_elem(&allowed, &key) != NULL;
}

static __always_inline int check_ipv4(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 attachment)
{
	struct iphdr ip;
	struct udphdr udp;
	struct addr source;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return DROP_MALFORMED;
	addr_from_ipv4(&source, ip.saddr);
	if (owns(endpoint, attachment, &source))
		return ALLOWED;
	if (ip.saddr || ip.protocol != IPPROTO_UDP || ip.frag_off & bpf_htons(IP_MORE_FRAGMENTS | IP_OFFSET_MASK))
		return DROP_SOURCE_IP;
	if (bpf_skb_load_bytes(skb, ETH_HLEN + ip.ihl * 4, &udp, sizeof(udp)))
		return DROP_MALFORMED;
	return udp.source == bpf_htons(68) && udp.dest == bpf_htons(67) ? ALLOWED : DROP_SOURCE_IP;
}

static __always_inline int check_arp(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 attachment)
{
	struct arp_ipv4 arp;
	struct addr sender, target;
	__be32 ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &arp, sizeof(arp)) || arp.hardware != bpf_htons(ARPHRD_ETHER) ||
	    arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_length != 6 || arp.protocol_length != 4)
		return DROP_MALFORMED;
	if (!mac_equal(arp.sender_mac, endpoint->mac))
		return DROP_ARP;
	__builtin_memcpy(&ip, arp.sender_ip, 4);
	addr_from_ipv4(&sender, ip);
	if (owns(endpoint, attachment, &sender))
		return ALLOWED;
	__builtin_memcpy(&ip, arp.target_ip, 4);
	addr_from_ipv4(&target, ip);
	return !sender.words[3] && owns(endpoint, attachment, &target) ? ALLOWED : DROP_ARP;
}

/* A link-layer address in an option overwrites neighbours' caches as an ARP sender does: it must be the endpoint's own. */
static __always_inline int check_nd_options(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 offset, bool none)
{
	for (int i = 0; i < ND_OPTIONS_MAX; i++) {
		struct nd_option option;

		if (offset >= skb->len)
			return ALLOWED;
		if (bpf_skb_load_bytes(skb, offset, &option, sizeof(option)) || !option.length)
			return DROP_MALFORMED;
		if (option.type == ND_OPTION_SOURCE_MAC || option.type == ND_OPTION_TARGET_MAC)
			if (none || option.length != 1 || !mac_equal(option.mac, endpoint->mac))
				return DROP_NDP;
		offset += (__u32)option.length * 8;
	}
	return DROP_MALFORMED;
}

static __always_inline int check_ipv6(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 attachment)
{
	struct ipv6hdr ip;
	struct nd_header nd;
	struct addr source;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.version != 6)
		return DROP_MALFORMED;
	__builtin_memcpy(&source, &ip.saddr, sizeof(source));
	bool unspecified = addr_is_zero(&source);
	if (!unspecified && !owns(endpoint, attachment, &source))
		return DROP_SOURCE_IP;
	if (!unspecified && (ip.nexthdr == IPPROTO_TCP || ip.nexthdr == IPPROTO_UDP))
		return ALLOWED;

	struct upper upper = { .offset = ETH_HLEN + sizeof(ip), .protocol = ip.nexthdr };
	switch (walk_extensions(skb, &upper)) {
	case WALK_UNRESOLVED:
		return DROP_MALFORMED;
	case WALK_FRAGMENT:
		return unspecified ? DROP_SOURCE_IP : ALLOWED;
	case WALK_FOUND:
		break;
	}
	if (upper.protocol != IPPROTO_ICMPV6)
		return unspecified ? DROP_SOURCE_IP : ALLOWED;
	if (bpf_skb_load_bytes(skb, upper.offset, &nd, 8))
		return DROP_MALFORMED;

	bool solicits_router = nd.type == ND_ROUTER_SOLICIT;
	bool neighbour = nd.type == ND_NEIGHBOUR_SOLICIT || nd.type == ND_NEIGHBOUR_ADVERT;
	if (nd.type == ND_ROUTER_ADVERT || nd.type == ND_REDIRECT)
		return DROP_NDP;
	if (!neighbour && !solicits_router) {
		if (!unspecified)
			return ALLOWED;
		return nd.type == MLD_REPORT || nd.type == MLD_DONE || nd.type == MLD2_REPORT ? ALLOWED : DROP_SOURCE_IP;
	}
	if (upper.fragmented)
		return DROP_NDP; /* RFC 6980: nobody may listen to it */
	if (solicits_router)
		return check_nd_options(skb, endpoint, upper.offset + 8, unspecified);
	if (bpf_skb_load_bytes(skb, upper.offset, &nd, sizeof(nd)))
		return DROP_MALFORMED;
	if ((unspecified || nd.type == ND_NEIGHBOUR_ADVERT) && !owns(endpoint, attachment, &nd.target))
		return DROP_NDP;
	if (unspecified && nd.type == ND_NEIGHBOUR_ADVERT)
		return DROP_SOURCE_IP;
	return check_nd_options(skb, endpoint, upper.offset + sizeof(nd), unspecified);
}

static __always_inline int check(struct __sk_buff *skb, const struct endpoint *endpoint, __u32 attachment)
{
	struct ethhdr eth;

	if (skb->vlan_present)
		return DROP_VLAN;
	if (bpf_skb_load_bytes(skb, 0, &eth, sizeof(eth)))
		return DROP_MALFORMED;
	if (!mac_equal(eth.h_source, endpoint->mac))
		return DROP_SOURCE_MAC;
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return check_ipv4(skb, endpoint, attachment);
	case bpf_htons(ETH_P_IPV6):
		return check_ipv6(skb, endpoint, attachment);
	case bpf_htons(ETH_P_ARP):
		return check_arp(skb, endpoint, attachment);
	case bpf_htons(ETH_P_8021Q):
	case bpf_htons(ETH_P_8021AD):
		return DROP_VLAN;
	}
	return DROP_ETHERTYPE;
}

SEC("tc") int from_sandbox(struct __sk_buff *skb)
{
	__u32 attachment = skb->cb[0];
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &attachment);

	if (!endpoint)
		return VERDICT_DROP; /* detached before its entry goes, so nobody honest is here */
	if (endpoint->flags & ENDPOINT_SPOOF)
		return shortcut(skb, endpoint->tunnel);
	int reason = check(skb, endpoint, attachment);
	if (reason == ALLOWED)
		return shortcut(skb, endpoint->tunnel);
	struct drops *drops = bpf_map_lookup_elem(&endpoint_drops, &attachment);
	if (drops && reason >= 0 && reason < DROP_REASONS)
		drops->packets[reason]++;
	return VERDICT_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
