/* The short way: a report in which nothing is news, as nearly all are.
 *
 * Telemetry Report 1.0 over UDP, INT-MD over TCP or UDP in it, of a flow whose path and source are known. What it says
 * goes from the packet straight into the maps; there is no struct report. Whatever is not as usual (another version, an
 * encapsulation, a new path, a value beyond its threshold, the least thing wrong) leaves here with false, and goes the
 * long way, which knows everything and begins at the first byte again. All that is done here before that is known does
 * no harm if it is done twice; what would is noted, in s->counted_hops and s->numbered.
 *
 * Headers with options go the long way too: so the place of each header follows from which branches were taken, which the
 * processor guesses, and not from what a field says, which it would have to wait for.
 *
 * So this way has no opinion of its own: tests compare both, map by map, on whatever packets there are. */
#ifndef INTCOLLECTOR_STEADY_H
#define INTCOLLECTOR_STEADY_H

#include "parse.h"
#include "remember.h"

/* Section 1.3: version 1, four words, none of them optional, neither D nor Q. */
#define STEADY_MASK 0xFF1F8180U
#define STEADY_REPORT 0x14000000U

/* All that goes into the maps; of a queue word of 8 and 24 bits. */
#define FULL                                                                                                           \
	(INSTRUCTION(BIT_SWITCH_ID) | INSTRUCTION(BIT_PORTS) | INSTRUCTION(BIT_HOP_LATENCY) | INSTRUCTION(BIT_QUEUE) | \
	 INSTRUCTION(BIT_TX_UTILIZATION))
#define PATH_ONLY INSTRUCTION(BIT_SWITCH_ID)

/* What the INT header says. */
struct steady_stack {
	u64 at; /* of the first hop */
	u64 words;
	u64 hop_words;
	u64 bitmap;
	u64 wide;    /* bits whose item takes 8 bytes */
	u64 version; /* 10, 20 */
};

#define FURTHEST 511 /* a mask: no header begins further behind */

/* Where ways meet that led to different places: the verifier is to go on with one that could be any. As meet(), but the
 * processor does not wait for memory. */
inline_always u64 unknown(u64 at, struct scratch *s)
{
	u64 nothing = *(volatile u64 *)&s->nothing;

	FENCE(at);
	at ^= nothing;
	return at & FURTHEST;
}

/* A header at a place in the packet; where it does not fit, the function is left with what is given. */
#define THERE(c, place, type, otherwise)                                                                               \
	({                                                                                                             \
		type *_p = (c)->data + (place);                                                                        \
		FENCE(_p); /* what was compared is what is read by */                                                  \
		if ((void *)(_p + 1) > (c)->data_end)                                                                  \
			return otherwise;                                                                              \
		_p;                                                                                                    \
	})

/* Tags: what follows, and at behind it. */
inline_always u16 behind_tags(const struct cursor *c, u16 type, u64 *at)
{
#pragma unroll
	for (int i = 0; i < MAX_VLANS; i++) {
		struct vlan_tag *tag;

		if (!is_tag(type))
			break;
		tag = THERE(c, *at, struct vlan_tag, 0);
		*at += sizeof(*tag);
		type = tag->type;
	}
	return type; /* a third tag is no type that is known */
}

struct udp_report {
	struct udp udp;
	struct report_10 report;
};

/* Ethernet to the report header. Leaves the exporter in s->report, the cursor at the inner packet, and which layer that
 * begins with in *first. any: a report of version 1 with optional words, D and Q will do. */
inline_always bool steady_report(struct cursor *c, const struct settings *set, struct scratch *s, u64 *first, bool any)
{
	struct report *r = &s->report;
	struct ethernet *ethernet = THERE(c, 0, struct ethernet, false);
	u64 at = sizeof(*ethernet), ip_end, length, w0;
	struct udp_report *header;
	u16 type;

	type = behind_tags(c, ethernet->type, &at);
	if (type == BE16(ETHER_IPV4)) {
		struct ipv4 *ip = THERE(c, at, struct ipv4, false);

		if (ip->version_ihl != 0x45 || ip->fragment & BE16(0x3FFF) || ip->protocol != PROTOCOL_UDP)
			return false;
		copy_ipv4(r->source, ip->source);
		r->flags = 0;
		ip_end = at + BE16(ip->total_length);
		at += sizeof(*ip);
	} else if (type == BE16(ETHER_IPV6)) {
		struct ipv6 *ip = THERE(c, at, struct ipv6, false);

		if (BE32(ip->version_class_flow) >> 28 != 6 || ip->next_header != PROTOCOL_UDP)
			return false;
		copy_ipv6(r->source, ip->source);
		r->flags = REPORT_SOURCE_IPV6;
		at += sizeof(*ip);
		ip_end = at + BE16(ip->payload_length);
	} else {
		return false;
	}
	at = unknown(at, s);
	header = THERE(c, at, struct udp_report, false);
	if (!is_report_port(set, header->udp.destination_port))
		return false;
	length = BE16(header->udp.length);
	if (length < sizeof(*header) || at + length > ip_end || ip_end > c->data_end - c->data)
		return false;
	c->end = at + length;

	w0 = BE32(header->report.w0);
	if (any) {
		u64 words = REPORT_LENGTH(w0);

		if (REPORT_VERSION(w0) != 1 || words < 4 + popcount16(REPORT_MD_BITS(w0)) ||
		    length < sizeof(header->udp) + words * 4)
			return false;
		c->at = unknown(at + sizeof(header->udp) + words * 4, s);
	} else {
		if ((w0 & STEADY_MASK) != STEADY_REPORT)
			return false;
		c->at = at + sizeof(*header);
	}
	r->switch_id = BE32(header->report.switch_id);
	r->sequence_number = BE32(header->report.sequence_number);
	r->hw_id = REPORT_HW_ID(w0);
	*first = REPORT_NPROTO(w0);
	return true;
}

/* The inner packet's flow, into s->key. Leaves the cursor behind its TCP or UDP header, where INT is. */
inline_always bool steady_flow(struct cursor *c, const struct settings *set, const struct profile *profile,
			       struct scratch *s, u64 first)
{
	u64 *key = (u64 *)&s->key, at = c->at, protocol, dscp, version;
	u16 type = first == LAYER_IPV4 ? BE16(ETHER_IPV4) : first == LAYER_IPV6 ? BE16(ETHER_IPV6) : 0;
	struct udp *l4;

	if (first == LAYER_ETHERNET) {
		struct ethernet *ethernet = THERE(c, at, struct ethernet, false);

		at += sizeof(*ethernet);
		type = behind_tags(c, ethernet->type, &at);
		at = unknown(at, s);
	}
	if (type == BE16(ETHER_IPV4)) {
		struct ipv4 *ip = THERE(c, at, struct ipv4, false);

		if (ip->version_ihl != 0x45 || ip->fragment & BE16(0x1FFF))
			return false;
		protocol = ip->protocol;
		dscp = ip->tos >> 2;
		version = 4;
		copy_ipv4(s->key.source, ip->source);
		copy_ipv4(s->key.destination, ip->destination);
		at += sizeof(*ip);
	} else if (type == BE16(ETHER_IPV6)) {
		struct ipv6 *ip = THERE(c, at, struct ipv6, false);

		if (BE32(ip->version_class_flow) >> 28 != 6)
			return false;
		protocol = ip->next_header;
		dscp = BE32(ip->version_class_flow) >> 22 & 63;
		version = 6;
		copy_ipv6(s->key.source, ip->source);
		copy_ipv6(s->key.destination, ip->destination);
		at += sizeof(*ip);
	} else {
		return false;
	}
	at = unknown(at, s);
	l4 = THERE(c, at, struct udp, false);

	u64 source_port = BE16(l4->source_port), port = BE16(l4->destination_port);
	bool marked = (dscp & profile->int_dscp_mask) == profile->int_dscp_value;

	if (protocol == PROTOCOL_TCP) {
		struct tcp *tcp = THERE(c, at, struct tcp, false);

		if (tcp->data_offset >> 4 != sizeof(*tcp) / 4) /* with options there is a choice */
			return false;
		at += sizeof(*tcp);
	} else if (protocol == PROTOCOL_UDP) {
		if (port == PORT_VXLAN || port == PORT_VXLAN_GPE || port == PORT_GENEVE)
			return false;
		at += sizeof(*l4);
		marked |= port == set->int_udp_port;
	} else {
		return false;
	}
	if (profile->int_dscp_marked && !marked)
		return false;
	key[4] = source_port | port << 16 | protocol << 32 | version << 40;
	c->at = unknown(at, s);
	return true;
}

struct shim_and_header {
	u32 shim;
	struct int_header header;
};

/* Shim and INT header, sections 2.4 and 2.5. */
inline_always bool steady_int(const struct cursor *c, const struct profile *profile, struct steady_stack *stack)
{
	u64 at = c->at, shim, w0, w1, length;
	struct shim_and_header *int_md = THERE(c, at, struct shim_and_header, false);

	shim = BE32(int_md->shim);
	w0 = BE32(int_md->header.w0);
	w1 = BE32(int_md->header.w1);
	at += sizeof(*int_md);
	if (shim >> 24 == INT_TYPE_MD) {
		length = shim >> 8 & 0xFF;
		if (w0 >> 28 != 1 && !(w0 >> 28 == 0 && !(w0 >> 16 & 0x7F) && profile->accept_int_version_0))
			return false;
		stack->version = 10;
		stack->wide = profile->wide_v1;
	} else if (shim >> 24 == INT_TYPE_MD << 4) { /* NPT 0 */
		length = shim >> 16 & 0xFF;
		if (w0 >> 28 != 2 || w1 & 0xFFFF) /* of a domain: there may be words that only the source adds */
			return false;
		stack->version = 20;
		stack->wide = WIDE_2X;
		at += 4;
	} else {
		return false;
	}
	stack->at = at;
	stack->words = length - 3;
	stack->hop_words = w0 >> 8 & 31;
	stack->bitmap = w1 >> 16;
	return length > 3;
}

/* How a hop begins that has the first four instructions, section 2.6. */
struct full_hop {
	u32 switch_id;
	u16 ingress_port_id;
	u16 egress_port_id;
	u32 hop_latency;
	u32 queue; /* id 8 | occupancy 24 */
};

/* What the loops over hops need. */
struct steady {
	const struct settings *set;
	const struct profile *profile;
	struct points *points;
	struct statistics *statistics;
	struct flow *flow;
	u64 hops;
	u64 at; /* of the first */
	u64 now;
	u64 latency_threshold;
	u64 latency; /* sum */
};

/* A hop into the maps, if it is the one that the flow remembers, and says nothing that is news. */
inline_always bool steady_hop(struct steady *y, struct scratch *s, u64 i, u64 switch_id, u64 egress_port_id,
			      u64 queue_id, u64 latency, u64 utilization, u64 occupancy)
{
	struct flow_hop *last = &y->flow->hops[i];
	u64 none = ones_if_none32(latency), far, said;

	far = (latency - last->told_latency + y->latency_threshold) | ones_if_none32(last->told_latency);
	if (last->switch_id != switch_id || last->egress_port_id != egress_port_id || last->queue_id != queue_id ||
	    (far & ~none) > 2 * y->latency_threshold) {
		s->counted_hops = i;
		return false;
	}
	last->latency = latency;
	count_latency(y->set, y->profile, y->statistics, last->port, latency);
	s->counted_hops = i + 1;
	far = remember_port(y->profile, y->points, last, utilization, &said);
	far = (utilization - far + y->set->tx_utilization_threshold) | ones_if_none32(far);
	if ((far & said) > 2 * (u64)y->set->tx_utilization_threshold)
		return false;
	far = remember_queue(y->profile, y->points, y->statistics, last, occupancy, &said);
	far = (occupancy - far + y->set->queue_occupancy_threshold) | ones_if_none32(far);
	return (far & said) <= 2 * (u64)y->set->queue_occupancy_threshold;
}

/* All hops of a stack with all of FULL, each with all values, and with a port and a queue that have places. Gives
 * whether all was as usual. First everything is looked at, then written: nothing stands between the two but this hop. */
inline_always bool steady_full(const struct cursor *c, struct scratch *s, struct steady *y)
{
	const struct settings *set = y->set;
	const struct profile *profile = y->profile;
	struct flow_hop *last = y->flow->hops;
	u64 i = 0, sum = 0, at = y->at, stride = s->steady.stride & 127;
	u64 last_word = s->steady.items[BIT_TX_UTILIZATION].at & 63;

#pragma clang loop unroll(disable)
	for (; i < MAX_HOPS; i++, last++) {
		FENCE(i);
		if (i >= y->hops)
			break;
		struct full_hop *hop = c->data + at;
		u32 *behind = c->data + at + last_word;

		FENCE(hop); /* or the pointers that are read by are not those that were compared */
		FENCE(behind);
		if ((void *)(hop + 1) > c->data_end || (void *)(behind + 1) > c->data_end)
			goto other; /* cannot be: the stack's length was compared */
		u64 queue = BE32(hop->queue), latency = BE32(hop->hop_latency);
		u64 utilization = BE32(*behind), occupancy = queue & 0xFFFFFF;
		u64 port_at = last->port & (MAX_POINTS - 1), queue_at = last->queue & (MAX_POINTS - 1), ns, bucket;
		struct level *port = &y->points->port_levels[port_at], *of_queue = &y->points->queue_levels[queue_at];
		u32 *largest = &y->statistics->occupancy_max[queue_at];
		u64 *latency_sum = &y->statistics->latency_sums[port_at];

		FENCE(port); /* far apart: once computed, they stay */
		FENCE(of_queue);
		ns = latency * profile->time_multiplier >> (profile->time_shift & 63);
		/* what is missing is all ones, and above half the range nothing is near what was not told yet */
		if ((latency | utilization) >> 31 || occupancy == 0xFFFFFF || last->switch_id != BE32(hop->switch_id) ||
		    last->egress_port_id != BE16(hop->egress_port_id) || last->queue_id != queue >> 24 ||
		    latency - last->told_latency + set->hop_latency_threshold > set->hop_latency_span ||
		    utilization - port->told + set->tx_utilization_threshold > set->tx_utilization_span ||
		    occupancy - of_queue->told + set->queue_occupancy_threshold > set->queue_occupancy_span || ns >> 32)
			goto other;
		last->latency = latency;
		remember_value(port, utilization, profile->utilization_unit);
		remember_value(of_queue, occupancy, profile->occupancy_unit);
		if (*largest <= occupancy)
			*largest = occupancy + 1;
		sum += latency;
		*latency_sum += ns;
		bucket = near_bucket(set, ns);
		FENCE(bucket);
		if (bucket < LATENCY_BUCKETS) /* always */
			y->statistics->buckets[bucket].hops[port_at]++;
		at += stride;
	}
	y->latency = sum;
	return true;
other:
	s->counted_hops = i;
	return false;
}

/* The same of any other bitmap: where its items are was found before. */
inline_always bool steady_any(const struct cursor *c, struct scratch *s, struct steady *y)
{
	const struct stack *stack = &s->steady;
	const struct widths *w = &stack->widths;
	u64 at = y->at, stride = stack->stride;

#pragma clang loop unroll(disable)
	for (u64 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		if (i >= y->hops)
			break;
		u64 switch_id = ITEM(c, stack, at, BIT_SWITCH_ID), port = ITEM(c, stack, at, BIT_PORTS) & 0xFFFF;
		u64 latency = ITEM(c, stack, at, BIT_HOP_LATENCY), queue = ITEM(c, stack, at, BIT_QUEUE);
		u64 utilization = ITEM(c, stack, at, BIT_TX_UTILIZATION), none = ones_if_none32(latency);

		if (none & stack->behind) { /* timestamps may tell it */
			s->counted_hops = i;
			return false;
		}
		u64 queue_id = widen(queue >> w->queue_shift, 32 - w->queue_shift) & 0xFFFF;
		u64 occupancy = widen(queue & w->queue_mask, w->queue_shift) & NONE32;

		if (!steady_hop(y, s, i, switch_id, port, queue_id, latency, utilization, occupancy))
			return false;
		s->sums.latency += latency & ~none; /* in memory: what is known of it would be a way of its own */
		s->sums.found |= ~none;
		at += stride;
	}
	return true;
}

/* Stacks of switch ids only, as the last one of this flow was. */
inline_always bool steady_path(const struct cursor *c, struct scratch *s, struct steady *y)
{
	const struct flow_hop *last = y->flow->hops;
	u64 i = 0, at = y->at;

#pragma clang loop unroll(disable)
	for (; i < MAX_HOPS; i++, last++) {
		FENCE(i);
		if (i >= y->hops)
			return true;
		u32 *switch_id = c->data + at;
		u64 *hops;

		FENCE(switch_id);
		if ((void *)(switch_id + 1) > c->data_end || last->switch_id != BE32(*switch_id))
			break;
		hops = &y->statistics->buckets[NO_LATENCY].hops[last->port & (MAX_POINTS - 1)];
		FENCE(hops);
		++*hops;
		at += sizeof(*switch_id);
	}
	s->counted_hops = i;
	return i >= y->hops;
}

/* The clock, which moves some hundred times a second and costs as much as four hops: read again when jiffies move. */
inline_always u64 coarse_now(struct scratch *s)
{
	u64 jiffies = bpf_jiffies64();

	if (s->jiffies != jiffies) {
		s->jiffies = jiffies;
		s->now = NOW();
	}
	return s->now;
}

/* Where the items of a hop are; the same as for the last packet, nearly always. */
inline_always bool find_items(struct scratch *s, const struct profile *profile, const struct steady_stack *said)
{
	struct stack *stack = &s->steady;
	u32 queue_word = profile->queue_word_16_16 & (said->version == 10), bits;

	if (stack->bitmap != said->bitmap || stack->wide != said->wide || stack->version != said->version ||
	    stack->words != queue_word) {
		bits = popcount16(said->bitmap);
		stack->bitmap = said->bitmap;
		stack->wide = said->wide;
		stack->version = said->version;
		stack->words = queue_word;
		stack->stride = (bits + popcount16(said->bitmap & said->wide)) * 4;
		stack->hops = bits;
		/* both timestamps, from which a latency could be told */
		stack->behind = (said->bitmap >> (15 - BIT_EGRESS_TIMESTAMP) & 3) == 3 ? NONE32 : 0;
		REREAD();
		locate_items(stack, queue_word);
		REREAD();
	}
	return said->hop_words * 4 ==
	       (profile->hop_ml_is_bit_count && said->version == 10 ? stack->hops * 4 : stack->stride);
}

/* False: not this way. */
inline_always bool is_steady(struct xdp_md *ctx, const struct settings *set, struct points *points,
			     struct statistics *statistics, struct scratch *s)
{
	struct cursor cursor = {.ctx = ctx}, *c = &cursor;
	struct steady steady = {.set = set, .points = points, .statistics = statistics}, *y = &steady;
	struct report *r = &s->report;
	struct profile *profile;
	struct source *source;
	struct steady_stack stack;
	struct flow *flow;
	u64 first, hops, hash;
	u32 at, known;
	bool is_known;

	find_ends(c);
	if (!steady_report(c, set, s, &first, false))
		return false;
	at = find_profile(set, s);
	profile = profiles.lookup(&at);
	if (!profile || !steady_flow(c, set, profile, s, first))
		return false;

	/* The number is counted before the flow is looked for, if it comes from who sent the last one and is in sequence: a
	 * processor does nothing else beside a compare-and-swap, and has much to wait for later. */
	known = s->last_source;
	source = sources.lookup(&known);
	if (!source)
		return false; /* cannot be */
	is_known = known && is_source(source, (u64 *)r->source, r->switch_id, r->hw_id,
				      r->flags & REPORT_SOURCE_IPV6 ? 6 : 4, 10);
	if (is_known && !s->numbered)
		s->numbered = s->numbered_ahead = continue_run(source, r->sequence_number, 0);

	hash = flow_hash(set, &s->key);
	flow = (void *)flows.lookup(&hash);
	if (!flow || !is_flow(flow, &s->key))
		return false;
	reread(&flow->reports); /* many flows: have the processor fetch what is looked at later, */
	reread(&flow->hops[0].latency);
	reread(&flow->hops[2].told_latency);
	if (!steady_int(c, profile, &stack) || /* and do this meanwhile */
	    (flow->flags & (FLOW_PATH | FLOW_TOLD | FLOW_CONGESTED | FLOW_PATH_UNTOLD)) != (FLOW_PATH | FLOW_TOLD))
		return false;
	hops = flow->hop_count;
	if (flow->instruction_bitmap != stack.bitmap || flow->time_unit != profile->time_unit || hops > MAX_HOPS ||
	    stack.at + stack.words * 4 > c->end)
		return false;
	at = flow->source;
	if (at != known || !is_known) {
		source = sources.lookup(&at);
		if (!source || !at ||
		    !is_source(source, (u64 *)r->source, r->switch_id, r->hw_id, r->flags & REPORT_SOURCE_IPV6 ? 6 : 4,
			       10))
			return false;
		s->last_source = at;
	}
	y->now = coarse_now(s);
	if (is_silent(set, flow, y->now))
		return false;

	y->flow = flow;
	y->profile = profile;
	y->hops = hops;
	y->at = stack.at;
	y->latency_threshold = set->hop_latency_threshold;
	if (stack.bitmap == PATH_ONLY) {
		if (stack.hop_words != 1 || stack.words != hops || !steady_path(c, s, y))
			return false;
		goto steady; /* such a flow never had a latency */
	} else if (!find_items(s, profile, &stack) || stack.words * 4 != hops * s->steady.stride) {
		return false;
	} else if ((stack.bitmap & FULL) == FULL && !s->steady.words && !(flow->flags & FLOW_GAPS)) {
		if (!steady_full(c, s, y))
			return false;
	} else {
		s->sums.latency = 0;
		s->sums.found = 0;
		if (!steady_any(c, s, y))
			return false;
		REREAD();
		y->latency = s->sums.latency | ((u64)(s->sums.found & 1) - 1);
	}
	y->latency = meet64(y->latency, &s->meeting64);
	if (is_news(flow->told_latency, y->latency, NONE64, set->flow_latency_threshold, EVENT_THRESHOLD)) {
		s->counted_hops = hops;
		return false;
	}
	flow->latency = y->latency;
steady:
	was_seen(flow, y->now);
	flow->reports++;
	source->seen_ns = y->now;
	statistics->steady_reports++;
	if (s->numbered)
		return true;
	if (!continue_run(source, r->sequence_number, 0)) {
		bpf_spin_lock(&source->lock);
		number_received(source, r->sequence_number, 0);
		bpf_spin_unlock(&source->lock);
	}
	return true;
}

#endif
