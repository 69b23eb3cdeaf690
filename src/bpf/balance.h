/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Frontend -> set -> slot -> backend, as any hook that balances needs it. */
#ifndef SLUICE_BALANCE_H
#define SLUICE_BALANCE_H

#include <linux/in.h>
#include "address.h"
#include "maps.h"

struct destination {
	struct addr addr;
	__be16 port;
};

/* Exact port first, then the entry that stands for all ports and both protocols. */
static __always_inline struct frontend *find_frontend(__u32 view, const struct destination *to, __u8 protocol)
{
	struct frontend_key key = { .addr = to->addr, .view = view, .port = to->port, .protocol = protocol };
	struct frontend *frontend = bpf_map_lookup_elem(&frontends, &key);
	if (frontend)
		return frontend;
	key.port = 0;
	key.protocol = 0;
	return bpf_map_lookup_elem(&frontends, &key);
}

/* Copies a backend out of its element; false when that was reused for another meanwhile. */
static __always_inline bool read_backend(const struct backend *backend, __u32 set, __u32 number, __be16 asked_port,
					 struct destination *out)
{
	out->addr = backend->addr;
	out->port = backend->port ? backend->port : asked_port;
	__asm__ volatile("" ::: "memory");
	return backend->self.set == set && backend->self.number == number;
}

/* A backend of the set by its number; false when it is gone. */
static __always_inline bool find_backend(__u32 set, __u32 number, __be16 asked_port, struct destination *out)
{
	struct backend_key key = { .set = set, .number = number };
	struct backend *backend = bpf_map_lookup_elem(&backends, &key);
	return backend && read_backend(backend, set, number, asked_port, out);
}

static __always_inline void count_connect(__u32 set)
{
	struct set_counters *counters = bpf_map_lookup_elem(&set_counters, &set);
	if (counters)
		counters->connects++;
}

static __always_inline void count_refused(__u32 set)
{
	struct set_counters *counters = bpf_map_lookup_elem(&set_counters, &set);
	if (counters)
		counters->refused++;
}

#endif
