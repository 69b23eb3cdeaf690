/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the data plane keeps in maps, and the numbers that the programs and src/balancer/maps/layout.ts share. Every structure is
 * laid out without holes and is compared with the TypeScript side through the objects' BTF (test/kernel/dataplane-layout).
 * Configuration structures may change together with LAYOUT; flow structures (per socket) only grow into their spare bytes.
 */
#ifndef SLUICE_STRUCTS_H
#define SLUICE_STRUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/types.h>

/* 16 bytes in network order; IPv4 as ::ffff:a.b.c.d, so that one code path and one key serve both families. */
struct addr {
	union {
		__u8 bytes[16];
		__u32 words[4];
		__u64 halves[2];
	};
};

/* Slots of the pinned program array. Append only: a trampoline of an earlier version names its slot. */
enum stage {
	STAGE_FROM_SANDBOX = 0, /* ingress of an endpoint's host-side veth */
	STAGE_DNS = 1,		/* egress of a sandbox's own lo */
	STAGE_FROM_TUNNEL = 2,	/* ingress of a network's tunnel, after decapsulation */
	STAGES = 16,		/* room for policy, the packet balancer, DNS answers */
};

/* Why a packet was dropped: index into struct drops. Append only. */
enum drop_reason {
	DROP_SOURCE_MAC = 0,
	DROP_SOURCE_IP = 1,
	DROP_ARP = 2,
	DROP_NDP = 3,
	DROP_VLAN = 4,
	DROP_ETHERTYPE = 5,
	DROP_MALFORMED = 6,
	DROP_REASONS = 16,
};

/* What a stage decides. PASS leaves the packet to foreign programs on the same hook (TC_ACT_UNSPEC, TCX_NEXT). */
enum verdict {
	VERDICT_PASS = -1,
	VERDICT_DROP = 2, /* TC_ACT_SHOT */
};

enum algorithm {
	ALGORITHM_RANDOM = 0,
};

/* ---- identity ---- */

/* By network namespace cookie: which view of the frontends a socket's namespace has. */
struct sandbox {
	__u32 view;
	__u32 number;
	__u32 spare[2];
	__u8 id[32];
};

enum endpoint_flag {
	ENDPOINT_SPOOF = 1, /* nothing is checked */
	ENDPOINT_ALLOW = 2, /* the LPM map holds more addresses for it */
};

#define ENDPOINT_ADDRESSES 4

/* By attachment number: what frames from this endpoint may carry. */
struct endpoint {
	__u8 mac[6];
	__u8 flags;
	__u8 address_count;
	__u32 ifindex;
	__u32 identity;
	struct addr link_local; /* EUI-64, of the MAC */
	struct addr addresses[ENDPOINT_ADDRESSES];
	__u32 tunnel; /* ifindex of its network's; 0: the network has none */
	__u32 spare[3];
	__u8 id[32];
};

/* ---- shortcut: network -> station ---- */

/* By ifindex of a network's tunnel; for user space, which sets the stations' flags by it. */
struct segment {
	__u32 number;
	__u32 flags; /* of all its stations */
	__u32 spare[2];
	__u8 id[32];
};

struct station_key {
	__u32 tunnel;
	__u8 mac[6];
	__u8 spare[2];
};

enum station_flag {
	STATION_DIRECT = 1, /* frames may go past the bridge */
	STATION_QUEUED = 2, /* and leave by the veth's host end, not at the other at once */
};

/* Where frames for a MAC leave: the endpoint's host-side veth, or the tunnel for one on another host. */
struct station {
	__u32 ifindex;
	__u32 flags;
};

struct allowed_key {
	__u32 prefixlen; /* 32 bits of attachment, then those of the address */
	__u32 attachment;
	struct addr addr;
};

struct drops {
	__u64 packets[DROP_REASONS];
};

/* By attachment number of a sandbox: where its questions to 127.0.0.11:53 go. */
struct resolver {
	__be16 port; /* the daemon's in the same namespace; 0: no hand-over */
	__u8 spare8[2];
	__u32 view;
	__u32 spare[2];
};

/* ---- balancer: frontend -> set -> slot -> backend ---- */

struct frontend_key {
	struct addr addr;
	__u32 view;
	__be16 port; /* 0 with protocol 0: every port without an entry of its own */
	__u8 protocol;
	__u8 spare;
};

struct frontend {
	__u32 set;
	__u32 spare[3];
};

struct set {
	__u32 count;
	__u8 algorithm;
	__u8 spare8[3];
	__u32 spare[2];
};

struct slot_key {
	__u32 set;
	__u32 index;
};

/* A backend of a set: that two sets share a number does not tie their lives together. */
struct backend_key {
	__u32 set;
	__u32 number;
};

/* Stands twice: under its number, to tell that it lives, and in a slot, to be drawn with one look. */
struct backend {
	struct addr addr;
	__be16 port; /* 0: the port that was asked for */
	__u8 spare8[2];
	struct backend_key self; /* tells a reader that the element was reused under it */
	__u32 spare;
};

struct set_counters {
	__u64 connects;
	__u64 refused;
};

/* ---- flow state: append only, never copied ---- */

#define FLOW_VERSION 1

/* Where the connected peer of a TCP or UDP socket is, and what it is shown as. */
struct peer {
	__u8 version;
	__u8 spare8[3];
	__u32 number;
	struct addr vip;
	struct addr backend;
	__be16 vip_port;
	__be16 backend_port;
	__u32 set; /* 0: none */
	__u64 netns; /* cookie: what a sandbox leaves behind is found by it */
	__u64 spare;
};

/* One destination of an unconnected UDP socket. */
struct translation {
	struct addr vip;
	struct addr backend;
	__be16 vip_port;
	__be16 backend_port;
	__u32 number;
	__u32 set; /* written last, cleared first: 0 is an empty element */
	__u32 spare;
};

#define TRANSLATIONS 4

struct datagrams {
	__u8 version;
	__u8 spare8[3];
	__u32 next;
	__u64 spare;
	struct translation translations[TRANSLATIONS];
};

/* The value of the map that says which LAYOUT filled the others. The enumerations are members so that BTF records them. */
struct layout {
	__u32 version;
	enum stage stage;
	enum verdict verdict;
	enum drop_reason drop_reason;
	enum algorithm algorithm;
	enum endpoint_flag endpoint_flag;
	enum station_flag station_flag;
};

#endif
