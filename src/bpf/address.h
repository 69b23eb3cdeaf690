/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef SLUICE_ADDRESS_H
#define SLUICE_ADDRESS_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include "structs.h"

static __always_inline bool addr_equal(const struct addr *a, const struct addr *b)
{
	return a->halves[0] == b->halves[0] && a->halves[1] == b->halves[1];
}

static __always_inline bool addr_is_zero(const struct addr *a)
{
	return !a->halves[0] && !a->halves[1];
}

static __always_inline bool addr_is_ipv4(const struct addr *a)
{
	return a->halves[0] == 0 && a->words[2] == bpf_htonl(0xffff);
}

static __always_inline bool addr_is_loopback6(const struct addr *a)
{
	return a->halves[0] == 0 && a->halves[1] == bpf_cpu_to_be64(1);
}

static __always_inline void addr_from_ipv4(struct addr *a, __be32 ip)
{
	a->halves[0] = 0;
	a->words[2] = bpf_htonl(0xffff);
	a->words[3] = ip;
}

#endif
