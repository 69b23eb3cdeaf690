// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The balancer at connect time: a socket of a sandbox that asks for a VIP is given a backend before the first packet exists,
 * so connected sockets cost nothing afterwards. Attached once, at the cgroup root; a socket of a namespace that is not ours
 * leaves after one lookup.
 */
#include "balance.h"

#define ECONNREFUSED 111
#define ESTABLISHED 1 /* TCP_ESTABLISHED: a connected socket, UDP too */
/* Neighbouring slots tried when one vanishes between two lookups, has the wrong family, or would confuse two VIPs. */
#define TRIES 8

enum outcome { UNTOUCHED, TRANSLATED, REFUSED };

static __always_inline bool is_vip(const struct addr *addr, __be16 port, const struct destination *vip)
{
	return port == vip->port && addr_equal(addr, &vip->addr);
}

/* ---- what a socket remembers ---- */

static __always_inline struct peer *peer_of(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct peer *peer = bpf_map_lookup_elem(&peers, &cookie);
	if (peer)
		return peer;
	struct bpf_sock *sk = ctx->sk;
	peer = sk ? bpf_sk_storage_get(&peers_overflow, sk, 0, 0) : NULL;
	return peer && peer->set ? peer : NULL;
}

static __always_inline struct datagrams *datagrams_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	return sk ? bpf_sk_storage_get(&datagrams, sk, 0, 0) : NULL;
}

static __always_inline struct translation *translation_by_backend(struct datagrams *all, const struct destination *from)
{
	for (int i = 0; i < TRANSLATIONS; i++) {
		struct translation *t = &all->translations[i];
		if (t->set && t->backend_port == from->port && addr_equal(&t->backend, &from->addr))
			return t;
	}
	return NULL;
}

static __always_inline struct translation *translation_by_vip(struct datagrams *all, const struct destination *vip)
{
	for (int i = 0; i < TRANSLATIONS; i++) {
		struct translation *t = &all->translations[i];
		if (t->set && is_vip(&t->vip, t->vip_port, vip))
			return t;
	}
	return NULL;
}

/* The connected peer is no longer what a VIP led to. */
static __always_inline void forget_peer(struct bpf_sock_addr *ctx)
{
	struct peer *peer = peer_of(ctx);
	if (!peer)
		return;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	if (bpf_map_delete_elem(&peers, &cookie))
		peer->set = 0;
}

/*
 * A datagram to what is no VIP: answers from there must show it as it is, even where a VIP led there before. A connected peer is
 * not touched by it: a v4-mapped socket's plain send() comes this way too, with the backend as its destination.
 */
static __always_inline void forget_datagrams(struct bpf_sock_addr *ctx, const struct destination *to)
{
	struct datagrams *all = datagrams_of(ctx);
	struct translation *t = all ? translation_by_backend(all, to) : NULL;
	if (t)
		t->set = 0;
}

static __always_inline void remember_peer(struct bpf_sock_addr *ctx, const struct destination *vip,
					  const struct destination *backend, __u32 set, __u32 number, bool udp)
{
	struct bpf_sock *sk = ctx->sk;
	struct peer value = {
		.version = FLOW_VERSION,
		.number = number,
		.vip = vip->addr,
		.backend = backend->addr,
		.vip_port = vip->port,
		.backend_port = backend->port,
		.set = set,
		.netns = bpf_get_netns_cookie(ctx),
	};
	__u64 cookie = bpf_get_socket_cookie(ctx);

	if (udp)
		forget_datagrams(ctx, backend);
	if (!bpf_map_update_elem(&peers, &cookie, &value, BPF_ANY) || !sk)
		return;
	struct peer *peer = bpf_sk_storage_get(&peers_overflow, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (peer)
		*peer = value;
}

static __always_inline void remember_datagrams(struct datagrams *all, const struct destination *vip,
					       const struct destination *backend, __u32 set, __u32 number)
{
	struct translation *t = translation_by_backend(all, backend);
	if (t)
		t->set = 0;
	t = translation_by_vip(all, vip);
	if (!t)
		t = &all->translations[__sync_fetch_and_add(&all->next, 1) % TRANSLATIONS];
	/* Threads may share the socket: a half-written element is an empty one. */
	*(volatile __u32 *)&t->set = 0;
	__asm__ volatile("" ::: "memory");
	t->vip = vip->addr;
	t->vip_port = vip->port;
	t->backend = backend->addr;
	t->backend_port = backend->port;
	t->number = number;
	__asm__ volatile("" ::: "memory");
	*(volatile __u32 *)&t->set = set;
}

/* ---- towards a backend ---- */

/*
 * This and the next are global functions: the verifier looks at each once, by itself, and not once for every way that leads there,
 * which took half a second of every start. That is why they ask for what is never NULL.
 */

/* Whether answers of this backend would be taken for another VIP's. */
__noinline bool confuses(struct peer *peer, struct datagrams *all, const struct destination *vip, const struct destination *backend)
{
	if (!vip || !backend)
		return false;
	if (peer && peer->backend_port == backend->port && addr_equal(&peer->backend, &backend->addr) &&
	    !is_vip(&peer->vip, peer->vip_port, vip))
		return true;
	struct translation *t = all ? translation_by_backend(all, backend) : NULL;
	return t && !is_vip(&t->vip, t->vip_port, vip);
}

/*
 * Random start, then the neighbours, past those that would confuse two VIPs of one UDP socket; when there is no other, the newer
 * meaning wins. Backends are of the VIP's family; what is published on ::1 may be IPv4's, which a TCP socket reaches by its mapped
 * address. Returns the backend's number, 0 for none.
 */
__noinline __u32 choose(__u32 set_number, const struct destination *vip, struct peer *peer, struct datagrams *all,
			struct destination *out)
{
	if (!vip || !out)
		return 0;
	bool ipv4 = addr_is_ipv4(&vip->addr), either = addr_is_loopback6(&vip->addr);
	__u32 start = bpf_get_prandom_u32();
	struct destination candidate;
	__u32 found = 0;

	for (__u32 i = 0; i < TRIES; i++) {
		struct set *set = bpf_map_lookup_elem(&sets, &set_number);
		__u32 count = set ? *(volatile __u32 *)&set->count : 0;
		if (!count || i >= count + 2)
			break; /* two more than there are: a slot may have moved under us */
		struct slot_key key = { .set = set_number, .index = (start + i) % count };
		struct backend *slot = bpf_map_lookup_elem(&slots, &key);
		if (!slot)
			continue;
		__u32 number = *(volatile __u32 *)&slot->self.number;
		if (!read_backend(slot, set_number, number, vip->port, &candidate) ||
		    (!either && addr_is_ipv4(&candidate.addr) != ipv4))
			continue;
		bool confusing = confuses(peer, all, vip, &candidate);
		if (found && confusing)
			continue;
		found = number;
		*out = candidate;
		if (!confusing)
			break;
	}
	return found;
}

/* A datagram of an unconnected socket stays with the backend that this VIP led to, while that backend lives. */
static __always_inline bool stick(struct peer *peer, struct datagrams *all, const struct destination *vip, __u32 set,
				  struct destination *out)
{
	struct translation *t = translation_by_vip(all, vip);
	if (t)
		return t->set == set && find_backend(set, t->number, vip->port, out) && out->port == t->backend_port &&
		       addr_equal(&out->addr, &t->backend);
	return peer && peer->set == set && is_vip(&peer->vip, peer->vip_port, vip) &&
	       find_backend(set, peer->number, vip->port, out) && out->port == peer->backend_port &&
	       addr_equal(&out->addr, &peer->backend);
}

static __always_inline enum outcome refuse(__u32 set)
{
	count_refused(set);
	bpf_set_retval(-ECONNREFUSED);
	return REFUSED;
}

static __always_inline struct frontend *frontend_for(struct bpf_sock_addr *ctx, const struct destination *to, bool *ours)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sandbox *sandbox = bpf_map_lookup_elem(&sandboxes, &cookie);
	*ours = sandbox;
	if (!sandbox || (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP))
		return NULL;
	return find_frontend(sandbox->view, to, ctx->protocol);
}

/* From ::1 nothing leaves the loopback: such a socket is refused there instead of waiting for an answer that cannot come. */
static __always_inline bool is_bound6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	return sk && (sk->src_ip6[0] || sk->src_ip6[1] || sk->src_ip6[2] || sk->src_ip6[3]);
}

static __always_inline enum outcome connecting(struct bpf_sock_addr *ctx, struct destination *to)
{
	bool ours, udp = ctx->protocol == IPPROTO_UDP;
	struct frontend *frontend = frontend_for(ctx, to, &ours);

	if (!ours)
		return UNTOUCHED;
	if (!frontend) {
		forget_peer(ctx);
		if (udp)
			forget_datagrams(ctx, to);
		return UNTOUCHED;
	}
	if (addr_is_loopback6(&to->addr) && is_bound6(ctx))
		return UNTOUCHED;
	__u32 set = frontend->set;
	struct destination backend;
	__u32 number = choose(set, to, NULL, udp ? datagrams_of(ctx) : NULL, &backend);
	if (!number)
		return refuse(set);
	count_connect(set);
	remember_peer(ctx, to, &backend, set, number, udp);
	*to = backend;
	return TRANSLATED;
}

static __always_inline enum outcome sending(struct bpf_sock_addr *ctx, struct destination *to)
{
	bool ours;
	struct frontend *frontend = frontend_for(ctx, to, &ours);

	if (!ours)
		return UNTOUCHED;
	if (!frontend) {
		forget_datagrams(ctx, to);
		return UNTOUCHED;
	}
	__u32 set = frontend->set;
	struct destination backend;
	struct bpf_sock *sk = ctx->sk;
	struct datagrams *all = sk ? bpf_sk_storage_get(&datagrams, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	struct peer *peer = sk && sk->state == ESTABLISHED ? peer_of(ctx) : NULL;
	if (!all || !stick(peer, all, to, set, &backend)) {
		__u32 number = choose(set, to, peer, all, &backend);
		if (!number)
			return refuse(set);
		count_connect(set);
		if (all) {
			all->version = FLOW_VERSION;
			remember_datagrams(all, to, &backend, set, number);
		}
	}
	*to = backend;
	return TRANSLATED;
}

/* ---- and back: what comes from a backend is shown as coming from the VIP that led there ---- */

static __always_inline bool show_peer(struct bpf_sock_addr *ctx, struct destination *from)
{
	struct peer *peer = peer_of(ctx);
	if (!peer || peer->backend_port != from->port || !addr_equal(&peer->backend, &from->addr))
		return false;
	from->addr = peer->vip;
	from->port = peer->vip_port;
	return true;
}

static __always_inline bool show_source(struct bpf_sock_addr *ctx, struct destination *from)
{
	struct datagrams *all = datagrams_of(ctx);
	struct translation *t = all ? translation_by_backend(all, from) : NULL;
	if (t) {
		from->addr = t->vip;
		from->port = t->vip_port;
		return true;
	}
	struct bpf_sock *sk = ctx->sk;
	return sk && sk->state == ESTABLISHED && show_peer(ctx, from);
}

/* ---- the hooks ---- */

static __always_inline void load4(struct bpf_sock_addr *ctx, struct destination *d)
{
	addr_from_ipv4(&d->addr, ctx->user_ip4);
	d->port = ctx->user_port;
}

static __always_inline void store4(struct bpf_sock_addr *ctx, const struct destination *d)
{
	ctx->user_ip4 = d->addr.words[3];
	ctx->user_port = d->port;
}

static __always_inline void load6(struct bpf_sock_addr *ctx, struct destination *d)
{
	d->addr.words[0] = ctx->user_ip6[0];
	d->addr.words[1] = ctx->user_ip6[1];
	d->addr.words[2] = ctx->user_ip6[2];
	d->addr.words[3] = ctx->user_ip6[3];
	d->port = ctx->user_port;
}

static __always_inline void store6(struct bpf_sock_addr *ctx, const struct destination *d)
{
	ctx->user_ip6[0] = d->addr.words[0];
	ctx->user_ip6[1] = d->addr.words[1];
	ctx->user_ip6[2] = d->addr.words[2];
	ctx->user_ip6[3] = d->addr.words[3];
	ctx->user_port = d->port;
}

#define TOWARDS(NAME, FAMILY, HOW)                                                                                             \
	SEC("cgroup/" #NAME) int NAME(struct bpf_sock_addr *ctx)                                                               \
	{                                                                                                                      \
		struct destination to;                                                                                         \
		load##FAMILY(ctx, &to);                                                                                        \
		enum outcome outcome = HOW(ctx, &to);                                                                          \
		if (outcome == TRANSLATED)                                                                                     \
			store##FAMILY(ctx, &to);                                                                               \
		return outcome != REFUSED;                                                                                     \
	}

#define BACK(NAME, FAMILY, HOW)                                                                                                \
	SEC("cgroup/" #NAME) int NAME(struct bpf_sock_addr *ctx)                                                               \
	{                                                                                                                      \
		struct destination from;                                                                                       \
		load##FAMILY(ctx, &from);                                                                                      \
		if (HOW(ctx, &from))                                                                                           \
			store##FAMILY(ctx, &from);                                                                             \
		return 1;                                                                                                      \
	}

TOWARDS(connect4, 4, connecting)
TOWARDS(connect6, 6, connecting)
TOWARDS(sendmsg4, 4, sending)
TOWARDS(sendmsg6, 6, sending)
BACK(recvmsg4, 4, show_source)
BACK(recvmsg6, 6, show_source)
BACK(getpeername4, 4, show_peer)
BACK(getpeername6, 6, show_peer)

SEC("cgroup/sock_release") int sock_release(struct bpf_sock *sk)
{
	if (sk->protocol != IPPROTO_TCP && sk->protocol != IPPROTO_UDP)
		return 1;
	__u64 cookie = bpf_get_netns_cookie(sk);
	if (!bpf_map_lookup_elem(&sandboxes, &cookie))
		return 1;
	cookie = bpf_get_socket_cookie(sk);
	/* A deletion takes the bucket's lock even where there is nothing. */
	if (bpf_map_lookup_elem(&peers, &cookie))
		bpf_map_delete_elem(&peers, &cookie);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
