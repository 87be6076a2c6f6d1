/* What goes up: a report in which something is news, or a packet that user space has to take apart. */
#ifndef INTCOLLECTOR_TELL_H
#define INTCOLLECTOR_TELL_H

#include "remember.h"

/* s->report goes up, as whole cells. Gives 0, or why not: no room. */
inline_always int send_up(struct xdp_md *ctx, struct scratch *s)
{
	struct report *r = &s->report;
	u32 hops = r->hop_count, size;

	if (hops > MAX_HOPS)
		hops = MAX_HOPS;
	FENCE(hops); /* the verifier is to see the bound: the compiler must not know it */
	if (hops > MAX_HOPS)
		return 0;
	r->received_ns = s->resume.received_ns ? s->resume.received_ns : bpf_ktime_get_ns();
	r->cell1 = 1;
	r->cell2 = 2;
	r->local.cell = HEAD_CELLS;
	copy_ipv6(r->flow_source, (u64 *)s->key.source);
	copy_ipv6(r->flow_destination, (u64 *)s->key.destination);
	size = (HEAD_CELLS + 1 + hops) * CELL;
#ifdef PERF
	return events.perf_submit(ctx, (void *)r + 12, size - 12);
#else
	return events.ringbuf_output((void *)r + 8, size - 8, BPF_RB_NO_WAKEUP);
#endif
}

/* What went up is what the next report is compared with; what found no room stays news. */
inline_always void mark_told(struct points *points, struct scratch *s, struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	u32 changes = r->hop_latency_changes | r->tx_utilization_changes | r->queue_occupancy_changes;

	flow->told = now >> 20;
	flow->flags |= FLOW_TOLD;
	if (r->flags & REPORT_CONGESTED_QUEUE)
		flow->flags |= FLOW_CONGESTED;
	if (r->changes & (CHANGE_NEW_FLOW | CHANGE_PATH | CHANGE_FLOW_LATENCY | CHANGE_KEEPALIVE) &&
	    (has_stack(r) || r->flags & REPORT_POSTCARD)) {
		flow->told_latency = r->flow_latency;
		flow->flags &= ~FLOW_PATH_UNTOLD;
	}
	if (r->changes & CHANGE_LOCAL_HOP_LATENCY)
		flow->hops[s->placing.place & (MAX_HOPS - 1)].told_latency = r->local.latency;
	if (!changes)
		return;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		if (!(changes >> i))
			break;
		struct flow_hop *hop = &flow->hops[i];

		if (r->hop_latency_changes >> i & 1)
			hop->told_latency = hop->latency;
		if (r->tx_utilization_changes >> i & 1)
			port_of(points, hop->port)->told = r->hops[i].egress_port_tx_utilization;
		if (r->queue_occupancy_changes >> i & 1)
			queue_of(points, hop->queue)->told = r->hops[i].queue_occupancy;
	}
}

inline_always void mark_local_told(struct points *points, struct scratch *s, const struct flow *flow)
{
	struct report *r = &s->report;
	const struct flow_hop *last = &s->own;

	if (flow && r->flags & REPORT_POSTCARD)
		last = &flow->hops[s->placing.place & (MAX_HOPS - 1)];
	if (r->changes & CHANGE_LOCAL_TX_UTILIZATION)
		port_of(points, last->port)->told = r->local.egress_port_tx_utilization;
	if (r->changes & CHANGE_LOCAL_QUEUE_OCCUPANCY)
		queue_of(points, last->queue)->told = r->local.queue_occupancy;
}

/* A flow's places as the hops of the postcard that is told; user space puts them in order. */
inline_always void show_places(struct scratch *s, const struct flow *flow)
{
	struct report *r = &s->report;

	r->hop_count = 0;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		const struct flow_hop *said = &flow->hops[i & (MAX_HOPS - 1)];
		const struct flow_place *place = &flow->places[i & (MAX_HOPS - 1)];
		struct hop *hop;

		REREAD();
		if (!place->seen)
			continue;
		hop = &r->hops[r->hop_count & (MAX_HOPS - 1)];
		no_values(hop);
		hop->pad = 0;
		hop->cell = HEAD_CELLS + 1 + r->hop_count;
		hop->ingress_timestamp = place->order;
		hop->switch_id = said->switch_id;
		hop->latency = said->latency;
		hop->egress_port_id = said->egress_port_id;
		hop->queue_id = said->queue_id;
		r->hop_count++;
	}
	REREAD();
}

inline_always void tell(struct xdp_md *ctx, const struct settings *set, struct counters *count, struct points *points,
			struct scratch *s, struct flow *flow, u64 now)
{
	struct report *r = &s->report;

	if (!(r->changes | r->hop_latency_changes | r->tx_utilization_changes | r->queue_occupancy_changes) &&
	    !set->tell_all)
		return;
	if (flow && r->flags & REPORT_POSTCARD)
		show_places(s, flow);
	if (send_up(ctx, s)) {
		count->events_lost++;
		return;
	}
	count->events++;
	if (r->changes & (CHANGE_LOCAL_TX_UTILIZATION | CHANGE_LOCAL_QUEUE_OCCUPANCY))
		mark_local_told(points, s, flow);
	if (flow)
		mark_told(points, s, flow, now);
}

inline_always bool is_accepted(u32 outcome)
{
	return outcome == OUTCOME_OK || outcome == OUTCOME_UNKNOWN_ENCAPSULATION;
}

/* A packet that is no report, for decode, which wants to hear of every one. */
inline_always void tell_refused(struct xdp_md *ctx, struct counters *count, struct scratch *s)
{
	s->report.outcome = s->outcome;
	s->report.flags &= REPORT_SOURCE_IPV6;
	s->report.hop_count = 0;
	if (send_up(ctx, s))
		count->events_lost++;
	else
		count->events++;
}

/* What the last cell has of a packet, which does not fill it: words, then bytes. whole: cells that are full. */
inline_always void copy_tail(struct cursor *c, struct scratch *s, u8 *cells, u64 whole)
{
	u64 at = whole * WHOLE_BYTES & MAX_AT, words;
	u32 *from = c->data + at, *to = (u32 *)(cells + (whole & (MAX_WHOLE - 1)) * CELL);
	u8 *byte;

	FENCE(from);
	FENCE(to);
	s->meeting = 0;
#pragma unroll
	for (int i = 0; i < WHOLE_BYTES / 4 - 1; i++) {
		if ((void *)(from + i + 1) > c->data_end)
			break;
		to[i + (i >= 3)] = from[i]; /* the fourth is the cell's number */
		s->meeting = i + 1;
	}
	find_ends(c);
	words = reread(&s->meeting) & 15;
	byte = c->data + (at + words * 4);
	to += words + (words + 13) / 16; /* behind the fourth, if there are three */
	FENCE(byte);
	FENCE(to);
#pragma unroll
	for (int i = 0; i < 3; i++) {
		if ((void *)(byte + i + 1) > c->data_end)
			break;
		((u8 *)to)[i] = byte[i];
	}
}

/* The packet itself goes up, to be decoded there. False: it finds no room, and is counted as undecoded. */
inline_always bool send_whole(struct cursor *c, const struct settings *set, struct scratch *s)
{
	struct report *r = &s->report;
	u8 *cells = (u8 *)r->hops;
	u32 size = s->size;
	u64 count;

	s->meeting = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_WHOLE; i++) {
		FENCE(i);
		((struct whole *)cells)[i].cell = HEAD_CELLS + 1 + i;
	}
	find_ends(c);
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < MAX_WHOLE; i++) {
		FENCE(i);
		u32 *from = c->data + i * WHOLE_BYTES, *to = (u32 *)(cells + i * CELL);

		FENCE(from);
		if ((void *)from + WHOLE_BYTES > c->data_end)
			break;
#pragma unroll
		for (int j = 0; j < WHOLE_BYTES / 4; j++)
			to[j + (j >= 3)] = from[j];
		s->meeting = i + 1;
	}
	find_ends(c);
	copy_tail(c, s, cells, reread(&s->meeting));
	if (size > MAX_WHOLE_BYTES || set->cut)
		return false;
	r->flags = (r->flags & REPORT_SOURCE_IPV6) | REPORT_WHOLE;
	r->outcome = OUTCOME_UNDECODED;
	r->ingress_timestamp = size;
	r->received_ns = bpf_ktime_get_ns();
	r->cell1 = 1;
	r->cell2 = 2;
	r->local.cell = HEAD_CELLS;
	count = (size + WHOLE_BYTES - 1) / WHOLE_BYTES;
	FENCE(count);
	if (count > MAX_WHOLE)
		return false;
	size = (HEAD_CELLS + 1 + count) * CELL;
#ifdef PERF
	return !events.perf_submit(c->ctx, (void *)r + 12, size - 12);
#else
	return !events.ringbuf_output((void *)r + 8, size - 8, BPF_RB_NO_WAKEUP);
#endif
}

#endif
