// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The balancer at connect time: a socket of a sandbox that asks for a VIP is given a backend before the first packet exists,
 * so connected sockets cost nothing afterwards. Attached once, at the cgroup root; a socket of a namespace that is not ours
 * leaves after one lookup.
 */
#include "balance.h"

#define ECONNREFUSED 111
/* Neighbouring slots tried when one vanishes between two lookups, has the wrong family, or would confuse two VIPs. */
#define TRIES 8

enum outcome { UNTOUCHED, TRANSLATED, REFUSED };

static __always_inline struct socket_state *state_of(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	return sk ? bpf_sk_storage_get(&sockets, sk, 0, 0) : NULL;
}

static __always_inline struct socket_state *make_state(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct socket_state *state = sk ? bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
	if (state)
		state->version = SOCKET_STATE_VERSION;
	return state;
}

/* The element of `state`, from `first` on, that stands for this backend address, or NULL. */
static __always_inline struct translation *translation_by_backend(struct socket_state *state, int first,
								   const struct destination *from)
{
	for (int i = first; i < TRANSLATIONS; i++) {
		struct translation *t = &state->translations[i];
		if (t->set && t->backend_port == from->port && addr_equal(&t->backend, &from->addr))
			return t;
	}
	return NULL;
}

static __always_inline bool leads_from(const struct translation *t, const struct destination *vip)
{
	return t->set && t->vip_port == vip->port && addr_equal(&t->vip, &vip->addr);
}

/* A destination of this unconnected socket. */
static __always_inline struct translation *translation_by_vip(struct socket_state *state, const struct destination *vip)
{
	for (int i = TRANSLATION_PEER + 1; i < TRANSLATIONS; i++)
		if (leads_from(&state->translations[i], vip))
			return &state->translations[i];
	return NULL;
}

/*
 * A datagram to what is no VIP: answers from there must show it as it is, even where a VIP led there before. The connected peer
 * stays: a v4-mapped socket's plain send() comes this way too, with the backend as its destination.
 */
static __always_inline void forget(struct socket_state *state, const struct destination *to)
{
	struct translation *t = translation_by_backend(state, TRANSLATION_PEER + 1, to);
	if (t)
		t->set = 0;
}

static __always_inline void forget_peer(struct bpf_sock_addr *ctx, struct socket_state *state)
{
	state->translations[TRANSLATION_PEER].set = 0;
	if (!(state->flags & SOCKET_UDP_CONNECTED))
		return;
	__u64 cookie = bpf_get_socket_cookie(ctx);
	bpf_map_delete_elem(&udp_peers, &cookie);
	state->flags &= ~SOCKET_UDP_CONNECTED;
}

/*
 * Random start, then the neighbours. With `state` (UDP) backends that already stand for another VIP of this socket are passed
 * over, since an answer from one could not be told apart; when there is no other, the older meaning gives way in remember().
 */
static __always_inline __u32 choose(__u32 set_number, const struct destination *vip, struct socket_state *state,
				    struct destination *out)
{
	bool ipv4 = addr_is_ipv4(&vip->addr);
	__u32 start = bpf_get_prandom_u32();
	struct destination candidate;
	__u32 found = 0;

	for (__u32 i = 0; i < TRIES; i++) {
		struct set *set = bpf_map_lookup_elem(&sets, &set_number);
		__u32 count = set ? *(volatile __u32 *)&set->count : 0;
		if (!count || i >= count + 2)
			break; /* two more than there are: a slot may have moved under us */
		struct slot_key key = { .set = set_number, .index = (start + i) % count };
		struct slot *slot = bpf_map_lookup_elem(&slots, &key);
		if (!slot)
			continue;
		__u32 number = slot->backend;
		if (!read_backend(set_number, number, vip->port, &candidate) || addr_is_ipv4(&candidate.addr) != ipv4)
			continue;
		if (!found) {
			found = number;
			*out = candidate;
		}
		if (!state)
			break;
		struct translation *t = translation_by_backend(state, TRANSLATION_PEER, &candidate);
		if (!t || leads_from(t, vip)) {
			found = number;
			*out = candidate;
			break;
		}
	}
	return found;
}

static __always_inline void fill(struct translation *t, const struct destination *vip, const struct destination *backend,
				 __u32 set, __u32 number)
{
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

static __always_inline void remember(struct socket_state *state, const struct destination *vip,
				     const struct destination *backend, __u32 set, __u32 number)
{
	forget(state, backend);
	struct translation *t = translation_by_vip(state, vip);
	if (!t)
		t = &state->translations[TRANSLATION_PEER + 1 +
					 __sync_fetch_and_add(&state->next, 1) % (TRANSLATIONS - TRANSLATION_PEER - 1)];
	fill(t, vip, backend, set, number);
}

static __always_inline void remember_peer(struct bpf_sock_addr *ctx, struct socket_state *state, const struct destination *vip,
					  const struct destination *backend, __u32 set, __u32 number, bool udp)
{
	struct translation *t = &state->translations[TRANSLATION_PEER];
	fill(t, vip, backend, set, number);
	if (!udp)
		return;
	forget(state, backend);
	__u64 cookie = bpf_get_socket_cookie(ctx);
	struct udp_peer peer = { .version = SOCKET_STATE_VERSION, .number = number, .translation = *t };
	if (!bpf_map_update_elem(&udp_peers, &cookie, &peer, BPF_ANY))
		state->flags |= SOCKET_UDP_CONNECTED;
}

/* A datagram of an unconnected socket stays with the backend that this VIP led to, while that backend lives. */
static __always_inline bool stick(struct socket_state *state, const struct destination *vip, __u32 set, struct destination *out)
{
	struct translation *t = translation_by_vip(state, vip);
	if (!t && leads_from(&state->translations[TRANSLATION_PEER], vip))
		t = &state->translations[TRANSLATION_PEER];
	if (!t || t->set != set)
		return false;
	if (!read_backend(set, t->number, vip->port, out))
		return false;
	return out->port == t->backend_port && addr_equal(&out->addr, &t->backend);
}

static __always_inline enum outcome translate(struct bpf_sock_addr *ctx, struct destination *to, bool connecting)
{
	__u64 cookie = bpf_get_netns_cookie(ctx);
	struct sandbox *sandbox = bpf_map_lookup_elem(&sandboxes, &cookie);
	if (!sandbox)
		return UNTOUCHED;

	__u32 protocol = ctx->protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return UNTOUCHED;
	bool udp = protocol == IPPROTO_UDP;

	struct socket_state *state;
	struct frontend *frontend = find_frontend(sandbox->view, to, protocol);
	if (!frontend) {
		state = state_of(ctx);
		if (state) {
			forget(state, to);
			if (connecting)
				forget_peer(ctx, state);
		}
		return UNTOUCHED;
	}

	__u32 set = frontend->set;
	struct destination backend;
	state = udp ? make_state(ctx) : NULL;
	if (state && !connecting && stick(state, to, set, &backend)) {
		*to = backend;
		return TRANSLATED;
	}
	__u32 number = choose(set, to, state, &backend);
	if (!number) {
		count_refused(set);
		bpf_set_retval(-ECONNREFUSED);
		return REFUSED;
	}
	count_connect(set);
	if (!state)
		state = make_state(ctx);
	if (state && connecting)
		remember_peer(ctx, state, to, &backend, set, number, udp);
	else if (state)
		remember(state, to, &backend, set, number);
	*to = backend;
	return TRANSLATED;
}

/* The other way: what came from a backend is shown as coming from the VIP that led there. */
static __always_inline bool untranslate(struct bpf_sock_addr *ctx, struct destination *from)
{
	struct socket_state *state = state_of(ctx);
	struct translation *t = state ? translation_by_backend(state, TRANSLATION_PEER, from) : NULL;
	if (!t)
		return false;
	from->addr = t->vip;
	from->port = t->vip_port;
	return true;
}

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

#define TOWARDS(NAME, FAMILY, CONNECTING)                                                                                      \
	SEC("cgroup/" #NAME) int NAME(struct bpf_sock_addr *ctx)                                                               \
	{                                                                                                                      \
		struct destination to;                                                                                         \
		load##FAMILY(ctx, &to);                                                                                        \
		enum outcome outcome = translate(ctx, &to, CONNECTING);                                                        \
		if (outcome == TRANSLATED)                                                                                     \
			store##FAMILY(ctx, &to);                                                                               \
		return outcome != REFUSED;                                                                                     \
	}

#define BACK(NAME, FAMILY)                                                                                                     \
	SEC("cgroup/" #NAME) int NAME(struct bpf_sock_addr *ctx)                                                               \
	{                                                                                                                      \
		struct destination from;                                                                                       \
		load##FAMILY(ctx, &from);                                                                                      \
		if (untranslate(ctx, &from))                                                                                   \
			store##FAMILY(ctx, &from);                                                                             \
		return 1;                                                                                                      \
	}

TOWARDS(connect4, 4, true)
TOWARDS(connect6, 6, true)
TOWARDS(sendmsg4, 4, false)
TOWARDS(sendmsg6, 6, false)
BACK(recvmsg4, 4)
BACK(recvmsg6, 6)
BACK(getpeername4, 4)
BACK(getpeername6, 6)

SEC("cgroup/sock_release") int sock_release(struct bpf_sock *sk)
{
	struct socket_state *state = bpf_sk_storage_get(&sockets, sk, 0, 0);
	if (state && state->flags & SOCKET_UDP_CONNECTED) {
		__u64 cookie = bpf_get_socket_cookie(sk);
		bpf_map_delete_elem(&udp_peers, &cookie);
	}
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
