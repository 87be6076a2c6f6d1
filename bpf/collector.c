/* The collector: parse, remember, tell, count.
 *
 *   packet -- parse.h --> struct report -- remember() --> maps -- tell() --> ring or perf buffer
 *
 * One way in, one way out: every packet ends in one outcome, which is counted and made a verdict at the end of
 * collector(). What is not recognised as ours is passed on. bcc rewrites map calls in this file only, so all of them are
 * here; what can be decided without a map is in the headers. */
#include "report.h"
#include "cursor.h"
#include "wire.h"
#include "parse.h"
#include "detect.h"
#include "maps.h"

#define NOBODY 0 /* index of ports, queues and sources */

#ifdef NO_COARSE_CLOCK /* Linux before 5.11 */
#define NOW() bpf_ktime_get_ns()
#else
#define NOW() bpf_ktime_get_coarse_ns()
#endif

/* --- remember: who reported ------------------------------------------------------------------------------------------- */

inline_always u32 new_source(const struct source_key *key)
{
	u32 zero = 0, index = NOBODY;
	struct allocator *allocator = allocators.lookup(&zero);
	struct source *source;

	if (!allocator)
		return NOBODY;
	bpf_spin_lock(&allocator->lock);
	if (allocator->next_source + 1 < MAX_SOURCES)
		index = ++allocator->next_source;
	bpf_spin_unlock(&allocator->lock);
	source = sources.lookup(&index);
	if (!source || index == NOBODY)
		return NOBODY;
	copy_ipv6(source->address, (u64 *)key->address);
	source->switch_id = key->switch_id;
	source->hw_id = key->hw_id;
	source->ip_version = key->ip_version;
	source->report_version = key->report_version;
	/* If another CPU was first, its entry stays and this index is never used. */
	source_index.insert((struct source_key *)key, &index);
	return index;
}

/* The index of whoever sent s->report; the flow remembers it from its last report. */
inline_always u32 find_source(struct scratch *s, u32 remembered)
{
	struct report *r = &s->report;
	struct source_key *key = &s->source;
	struct source *source = sources.lookup(&remembered);
	u64 *address = (u64 *)r->source;
	u8 ip_version = r->flags & REPORT_SOURCE_IPV6 ? 6 : 4;
	u32 *index;

	if (remembered && source && source->switch_id == r->switch_id && source->hw_id == r->hw_id &&
	    source->ip_version == ip_version && ((u64 *)source->address)[0] == address[0] &&
	    ((u64 *)source->address)[1] == address[1])
		return remembered;
	copy_ipv6(key->address, address);
	key->switch_id = r->switch_id;
	key->hw_id = r->hw_id;
	key->ip_version = ip_version;
	key->report_version = r->report_version;
	index = source_index.lookup(key);
	if (index)
		return *index;
	new_source(key);
	index = source_index.lookup(key);
	return index ? *index : NOBODY;
}

inline_always void remember_source(struct counters *count, const struct report *r, u32 index, u64 now)
{
	struct source *source = sources.lookup(&index);

	if (!source || index == NOBODY) {
		count->sources_refused++;
		return;
	}
	bpf_spin_lock(&source->lock);
	sequence(source, r->sequence_number);
	source->seen_ns = now;
	bpf_spin_unlock(&source->lock);
}

/* --- remember: ports and queues --------------------------------------------------------------------------------------- */

inline_always u32 new_point(struct point_key *key)
{
	u32 zero = 0, index = NOBODY;
	struct allocator *allocator = allocators.lookup(&zero);
	struct point *point;

	if (!allocator)
		return NOBODY;
	bpf_spin_lock(&allocator->lock);
	if (key->kind == POINT_PORT) {
		if (allocator->next_port + 1 < MAX_POINTS)
			index = ++allocator->next_port;
	} else {
		if (allocator->next_queue + 1 < MAX_POINTS)
			index = ++allocator->next_queue;
	}
	bpf_spin_unlock(&allocator->lock);
	point = key->kind == POINT_PORT ? ports.lookup(&index) : queues.lookup(&index);
	if (!point || index == NOBODY)
		return NOBODY;
	point->switch_id = key->switch_id;
	point->id = key->id;
	point->kind = key->kind;
	point->value = NONE32;
	point->told = NONE32;
	point_index.insert(key, &index);
	return index;
}

/* The index of a switch's port or queue; NOBODY where the switch gave no id of itself. A port without a number has an
 * entry too, for the switch's histogram; a queue without one has nothing to keep. */
static u32 find_point(struct counters *count, u32 switch_id, u32 id, u32 kind)
{
	struct point_key key = {.switch_id = switch_id, .id = id, .kind = kind};
	u32 *index;

	if (switch_id == NONE32 || (kind == POINT_QUEUE && id == 0xFFFF))
		return NOBODY;
	index = point_index.lookup(&key);
	if (index)
		return *index;
	new_point(&key);
	index = point_index.lookup(&key);
	if (index)
		return *index;
	count->points_refused++;
	return NOBODY;
}

/* What a hop says of its port and queue. Gives bit 0: the TX utilisation is news, bit 1: the queue occupancy is. */
inline_always u32 remember_points(const struct settings *set, const struct hop *hop, u32 port_at, u32 queue_at, u64 now)
{
	struct port_statistics *port_sum = port_statistics.lookup(&port_at);
	struct queue_statistics *queue_sum = queue_statistics.lookup(&queue_at);
	struct point *port = ports.lookup(&port_at), *queue = queues.lookup(&queue_at);
	u64 latency = hop->latency, none = ones_if_none32(latency);
	u32 news = 0, bucket = latency_bucket(latency);

	if (!port_sum || !queue_sum || !port || !queue)
		return 0;
	FENCE(bucket);
	bucket &= 63;
	if (bucket < LATENCY_BUCKETS)
		port_sum->buckets[bucket]++;
	port_sum->latency_sum += latency & ~none;
	if (port_at) {
		port->seen_ns = now;
		if (hop->egress_port_tx_utilization != NONE32 && port->id != 0xFFFF) {
			port->value = hop->egress_port_tx_utilization;
			news |= is_news32(port->told, port->value, set->tx_utilization_threshold, set->event_mode);
		}
	}
	if (queue_at && hop->queue_occupancy != NONE32) {
		queue->seen_ns = now;
		queue->value = hop->queue_occupancy;
		if (queue_sum->occupancy_max <= queue->value)
			queue_sum->occupancy_max = queue->value + 1;
		news |= is_news32(queue->told, queue->value, set->queue_occupancy_threshold, set->event_mode) << 1;
	}
	return news;
}

/* --- remember: the flow ----------------------------------------------------------------------------------------------- */

inline_always struct flow *find_flow(struct counters *count, struct flow_key *key)
{
	u32 zero = 0;
	struct flow *flow = flows.lookup(key), *first;

	if (flow)
		return flow;
	first = new_flow.lookup(&zero);
	if (first)
		flows.insert(key, first);
	flow = flows.lookup(key);
	if (!flow)
		count->flows_refused++;
	return flow;
}

inline_always bool has_stack(const struct report *r)
{
	return (r->flags & (REPORT_INT | REPORT_INT_MX)) == REPORT_INT;
}

/* The stack: each hop's port, queue and latency; what is news goes into r. */
inline_always void remember_stack(const struct settings *set, struct counters *count, struct scratch *s,
				  struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	u32 hops = r->hop_count;

	s->path_differs = flow->hop_count ^ hops;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		if (i >= hops)
			break;
		struct hop *hop = &r->hops[i];
		struct flow_hop *last = &flow->hops[i];

		if (last->switch_id != hop->switch_id) {
			s->path_differs = 1;
			last->told_latency = NONE32;
		}
		if (last->switch_id != hop->switch_id || last->egress_port_id != hop->egress_port_id ||
		    last->queue_id != hop->queue_id) {
			last->switch_id = hop->switch_id;
			last->egress_port_id = hop->egress_port_id;
			last->queue_id = hop->queue_id;
			last->port = find_point(count, hop->switch_id, hop->egress_port_id, POINT_PORT);
			last->queue = find_point(count, hop->switch_id, hop->queue_id, POINT_QUEUE);
		}
		last->latency = hop->latency;

		u32 news = remember_points(set, hop, last->port, last->queue, now);

		/* into memory at once: in a register each outcome would be a way of its own for the verifier */
		r->tx_utilization_changes |= (news & 1) << i;
		r->queue_occupancy_changes |= (news >> 1) << i;
		r->hop_latency_changes |=
			is_news32(last->told_latency, hop->latency, set->hop_latency_threshold, set->event_mode) << i;
		REREAD();
	}
	REREAD();
	if (s->path_differs || !(flow->flags & FLOW_PATH))
		flow->flags |= FLOW_PATH_UNTOLD;
	if ((flow->flags & (FLOW_PATH_UNTOLD | FLOW_TOLD)) == (FLOW_PATH_UNTOLD | FLOW_TOLD))
		r->changes |= CHANGE_PATH; /* of a flow that is told for the first time it goes without saying */
	flow->hop_count = r->hop_count;
	flow->flags |= FLOW_PATH;
	flow->latency = r->flow_latency;
	if (is_news(flow->told_latency, r->flow_latency, NONE64, set->flow_latency_threshold, set->event_mode))
		r->changes |= CHANGE_FLOW_LATENCY;
}

/* What the reporting switch said of itself: as a hop, but of no flow's path. */
inline_always void remember_local(const struct settings *set, struct counters *count, struct scratch *s, u64 now)
{
	struct report *r = &s->report;
	struct hop *local = &r->local;
	u32 port = find_point(count, local->switch_id, local->egress_port_id, POINT_PORT);
	u32 queue = find_point(count, local->switch_id, local->queue_id, POINT_QUEUE);
	u32 news = remember_points(set, local, port, queue, now);

	if (news & 1)
		r->changes |= CHANGE_LOCAL_TX_UTILIZATION;
	if (news & 2)
		r->changes |= CHANGE_LOCAL_QUEUE_OCCUPANCY;
}

inline_always void remember_drop(struct counters *count, const struct report *r)
{
	struct drop_key key = {.switch_id = r->switch_id, .reason = r->drop_reason};
	u64 zero = 0, *drop = drops.lookup_or_try_init(&key, &zero);

	if (drop)
		__sync_fetch_and_add(drop, 1);
	else
		count->drops_refused++;
}

/* An accepted report into the maps; what is news is left in it. Gives its flow, or 0. */
inline_always struct flow *remember(const struct settings *set, struct counters *count, struct scratch *s, u64 now)
{
	struct report *r = &s->report;
	struct flow *flow = 0;
	u32 source = NOBODY;

	if (r->flags & (REPORT_FLOW_IPV4 | REPORT_FLOW_IPV6)) {
		flow = find_flow(count, &s->key);
		if (flow)
			source = flow->source;
	}
	source = find_source(s, source);
	remember_source(count, r, source, now);
	if (r->flags & REPORT_DROPPED) {
		r->changes |= CHANGE_DROPPED;
		remember_drop(count, r);
	}
	if (r->flags & REPORT_LOCAL)
		remember_local(set, count, s, now);
	if (!flow) {
		if (r->flags & REPORT_CONGESTED_QUEUE)
			r->changes |= CHANGE_CONGESTED_QUEUE;
		return 0;
	}
	if (!(r->flags & REPORT_CONGESTED_QUEUE))
		flow->flags &= ~FLOW_CONGESTED;
	else if (!(flow->flags & FLOW_CONGESTED))
		r->changes |= CHANGE_CONGESTED_QUEUE;
	if (has_stack(r))
		remember_stack(set, count, s, flow, now);
	if (!(flow->flags & FLOW_TOLD))
		r->changes |= CHANGE_NEW_FLOW;
	else if (set->keepalive_ns && (s64)(now - flow->told_ns) >= (s64)set->keepalive_ns)
		r->changes |= CHANGE_KEEPALIVE;
	flow->source = source;
	flow->seen_ns = now;
	flow->reports++;
	return flow;
}

/* --- tell ------------------------------------------------------------------------------------------------------------- */

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
	r->received_ns = bpf_ktime_get_ns();
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
inline_always void mark_told(struct scratch *s, struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	u32 changes = r->hop_latency_changes | r->tx_utilization_changes | r->queue_occupancy_changes;

	flow->told_ns = now;
	flow->flags |= FLOW_TOLD;
	if (r->flags & REPORT_CONGESTED_QUEUE)
		flow->flags |= FLOW_CONGESTED;
	if (r->changes & (CHANGE_NEW_FLOW | CHANGE_PATH | CHANGE_FLOW_LATENCY | CHANGE_KEEPALIVE) && has_stack(r)) {
		flow->told_latency = r->flow_latency;
		flow->flags &= ~FLOW_PATH_UNTOLD;
	}
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
		if (r->tx_utilization_changes >> i & 1) {
			struct point *port = ports.lookup(&hop->port);

			if (port)
				port->told = r->hops[i].egress_port_tx_utilization;
		}
		if (r->queue_occupancy_changes >> i & 1) {
			struct point *queue = queues.lookup(&hop->queue);

			if (queue)
				queue->told = r->hops[i].queue_occupancy;
		}
	}
}

inline_always void mark_local_told(struct counters *count, struct scratch *s)
{
	struct report *r = &s->report;
	struct hop *local = &r->local;

	if (r->changes & CHANGE_LOCAL_TX_UTILIZATION) {
		u32 at = find_point(count, local->switch_id, local->egress_port_id, POINT_PORT);
		struct point *port = ports.lookup(&at);

		if (port)
			port->told = local->egress_port_tx_utilization;
	}
	if (r->changes & CHANGE_LOCAL_QUEUE_OCCUPANCY) {
		u32 at = find_point(count, local->switch_id, local->queue_id, POINT_QUEUE);
		struct point *queue = queues.lookup(&at);

		if (queue)
			queue->told = local->queue_occupancy;
	}
}

inline_always void tell(struct xdp_md *ctx, const struct settings *set, struct counters *count, struct scratch *s,
			struct flow *flow, u64 now)
{
	struct report *r = &s->report;

	if (!(r->changes | r->hop_latency_changes | r->tx_utilization_changes | r->queue_occupancy_changes) &&
	    !set->tell_all)
		return;
	if (send_up(ctx, s)) {
		count->events_lost++;
		return;
	}
	count->events++;
	if (r->changes & (CHANGE_LOCAL_TX_UTILIZATION | CHANGE_LOCAL_QUEUE_OCCUPANCY))
		mark_local_told(count, s);
	if (flow)
		mark_told(s, flow, now);
}

/* A packet that is no report, for decode, which wants to hear of every one. */
inline_always void tell_refused(struct xdp_md *ctx, struct counters *count, struct scratch *s, u32 outcome)
{
	s->report.outcome = outcome;
	s->report.hop_count = 0;
	if (send_up(ctx, s))
		count->events_lost++;
	else
		count->events++;
}

/* --- the program ------------------------------------------------------------------------------------------------------ */

int collector(struct xdp_md *ctx)
{
	u32 zero = 0, outcome;
	struct settings *set = settings.lookup(&zero);
	struct counters *count = counters.lookup(&zero);
	struct scratch *s = scratches.lookup(&zero);
	struct cursor c = {(void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, 0};

	if (!set || !count || !s)
		return XDP_PASS; /* cannot be: all three are arrays of one */
	c.end = c.data_end - c.data + set->cut;
	outcome = parse_outer(&c, set, s);
	REREAD();
	if (outcome == OUTCOME_OK) {
		clear(s);
		outcome = parse_report(&c, set, s);
		REREAD();
		if (outcome == OUTCOME_OK) {
			u64 now = NOW();
			struct flow *flow = remember(set, count, s, now);

			REREAD();
			tell(ctx, set, count, s, flow, now);
		}
	}
	if (outcome && set->tell_all)
		tell_refused(ctx, count, s, outcome);
	count->outcomes[outcome & (OUTCOMES - 1)]++;
	if (outcome == OUTCOME_OK)
		return set->verdict_ok;
	return outcome > OUTCOME_PASS_PORT ? set->verdict_malformed : XDP_PASS;
}
