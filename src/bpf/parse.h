/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reading headers out of a packet whose data may lie anywhere: copies to the stack, so no bound is ever forgotten. */
#ifndef SLUICE_PARSE_H
#define SLUICE_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff

#ifndef IPPROTO_HOPOPTS
#define IPPROTO_HOPOPTS 0
#define IPPROTO_ROUTING 43
#define IPPROTO_FRAGMENT 44
#define IPPROTO_ICMPV6 58
#define IPPROTO_DSTOPTS 60
#endif

#define ICMP_DEST_UNREACH 3

/* linux/icmp.h and linux/if_arp.h draw in the C library's headers, which have no 32-bit half here. */
struct icmphdr {
	__u8 type, code;
	__be16 checksum;
	__be32 rest;
};

/* More than any honest sender chains; a longer chain is unresolved. */
#define EXTENSIONS_MAX 8

struct extension {
	__u8 next;
	__u8 length; /* of 8 octets beyond the first (4, for the authentication header) */
	__be16 fragment;
};

enum walk {
	WALK_FOUND,	 /* `protocol` begins at `offset` */
	WALK_FRAGMENT,	 /* a later fragment: what it carries was judged with the first one */
	WALK_UNRESOLVED, /* cut short, or too long a chain */
};

struct upper {
	__u32 offset;
	__u8 protocol;
	bool fragmented;
};

/* Walks IPv6 extension headers from `upper` (protocol and offset of the first) to the upper-layer header. */
static __always_inline enum walk walk_extensions(struct __sk_buff *skb, struct upper *upper)
{
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		struct extension header;
		__u8 protocol = upper->protocol;

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS &&
		    protocol != IPPROTO_FRAGMENT && protocol != IPPROTO_AH)
			return WALK_FOUND;
		if (bpf_skb_load_bytes(skb, upper->offset, &header, sizeof(header)))
			return WALK_UNRESOLVED;
		if (protocol == IPPROTO_FRAGMENT) {
			if (header.fragment & bpf_htons(0xfff8))
				return WALK_FRAGMENT;
			upper->fragmented = true;
			upper->offset += 8;
		} else if (protocol == IPPROTO_AH) {
			upper->offset += ((__u32)header.length + 2) * 4;
		} else {
			upper->offset += ((__u32)header.length + 1) * 8;
		}
		upper->protocol = header.next;
	}
	return WALK_UNRESOLVED;
}

#endif
