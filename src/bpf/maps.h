/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Every pinned map. Each object carries all definitions; the loader makes each map once and hands the same one to all objects.
 * Configuration maps are not preallocated: a host pays for what it has. A full map is an error of the call that filled it.
 */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "structs.h"

#ifndef SANDBOXES_MAX
#define SANDBOXES_MAX 16384
#endif
#ifndef ENDPOINTS_MAX
#define ENDPOINTS_MAX 16384
#endif
#ifndef SEGMENTS_MAX
#define SEGMENTS_MAX 4096
#endif
/* Endpoints of all hosts on networks that this one takes part in; the bridge serves what has no room. */
#ifndef STATIONS_MAX
#define STATIONS_MAX 65536
#endif
#ifndef FRONTENDS_MAX
#define FRONTENDS_MAX 65536
#endif
#ifndef SETS_MAX
#define SETS_MAX 32768
#endif
#ifndef BACKENDS_MAX
#define BACKENDS_MAX 65536
#endif
#ifndef PEERS_MAX
#define PEERS_MAX 32768
#endif

#define CONFIG_MAP(NAME, TYPE, KEY, VALUE, MAX)                                                                                \
	struct {                                                                                                               \
		__uint(type, TYPE);                                                                                            \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                          \
		__uint(max_entries, MAX);                                                                                      \
		__type(key, KEY);                                                                                              \
		__type(value, VALUE);                                                                                          \
	} NAME SEC(".maps")

CONFIG_MAP(sandboxes, BPF_MAP_TYPE_HASH, __u64, struct sandbox, SANDBOXES_MAX);
CONFIG_MAP(resolvers, BPF_MAP_TYPE_HASH, __u32, struct resolver, SANDBOXES_MAX);
CONFIG_MAP(endpoints, BPF_MAP_TYPE_HASH, __u32, struct endpoint, ENDPOINTS_MAX);
CONFIG_MAP(allowed, BPF_MAP_TYPE_LPM_TRIE, struct allowed_key, __u32, ENDPOINTS_MAX);
CONFIG_MAP(endpoint_drops, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct drops, ENDPOINTS_MAX);

CONFIG_MAP(segments, BPF_MAP_TYPE_HASH, __u32, struct segment, SEGMENTS_MAX);
CONFIG_MAP(stations, BPF_MAP_TYPE_HASH, struct station_key, struct station, STATIONS_MAX);

CONFIG_MAP(frontends, BPF_MAP_TYPE_HASH, struct frontend_key, struct frontend, FRONTENDS_MAX);
CONFIG_MAP(sets, BPF_MAP_TYPE_HASH, __u32, struct set, SETS_MAX);
CONFIG_MAP(slots, BPF_MAP_TYPE_HASH, struct slot_key, struct backend, BACKENDS_MAX);
CONFIG_MAP(backends, BPF_MAP_TYPE_HASH, struct backend_key, struct backend, BACKENDS_MAX);
CONFIG_MAP(set_counters, BPF_MAP_TYPE_PERCPU_HASH, __u32, struct set_counters, SETS_MAX);

/* Stages by number. Must be pinned: its slots are cleared when the last user reference goes. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} stages SEC(".maps");

/* Element 0: the LAYOUT that filled these maps. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct layout);
} layout SEC(".maps");

#define SOCKET_MAP(NAME, VALUE)                                                                                                \
	struct {                                                                                                               \
		__uint(type, BPF_MAP_TYPE_SK_STORAGE);                                                                         \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                          \
		__type(key, int);                                                                                              \
		__type(value, VALUE);                                                                                          \
	} NAME SEC(".maps")

/*
 * Connected sockets by cookie, preallocated: an element costs a third of what socket storage does (two charged allocations), which
 * was most of a connect, and connected UDP sockets can be found by it. When it is full, storage takes over.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PEERS_MAX);
	__type(key, __u64);
	__type(value, struct peer);
} peers SEC(".maps");
SOCKET_MAP(peers_overflow, struct peer);

SOCKET_MAP(datagrams, struct datagrams);

#endif
