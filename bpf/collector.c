/* The collector: parse, remember, tell, count.
 *
 *   packet -- parse.h --> struct report -- remember() --> maps -- tell() --> ring or perf buffer
 *
 * One way in, one way out: every packet ends in one outcome, which is counted and made a verdict at the end of
 * collector(). What is not recognised as ours is passed on. bcc rewrites map calls in this file only, so all of them are
 * here; what can be decided without a map is in the headers.
 *
 * A packet with several reports (2.0), or one inside another (VXLAN, ...), goes through the program several times: it
 * calls itself, by a tail call, and finds in struct scratch where to go on. */
#include "report.h"
#include "cursor.h"
#include "wire.h"
#include "scratch.h"
#include "stack.h"
#include "inner.h"
#include "parse.h"
#include "detect.h"
#include "maps.h"

#define NOBODY 0     /* index of ports, queues and sources */
#define MAX_CALLS 32 /* tail calls a packet; the kernel allows 33 */

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
	source->reporter = key->switch_id;
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
	u32 *index, switch_id = r->report_version == 5 ? NONE32 : r->switch_id;

	if (remembered && source && source->switch_id == switch_id && source->hw_id == r->hw_id &&
	    source->ip_version == ip_version && source->report_version == r->report_version &&
	    ((u64 *)source->address)[0] == address[0] && ((u64 *)source->address)[1] == address[1])
		return remembered;
	copy_ipv6(key->address, address);
	key->switch_id = switch_id;
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

/* The exporter, and its sequence number. All individual reports of a packet have one number. A report that is refused
 * behind its header was not lost on the way; and the number of a group that goes up whole counts now, among those that
 * come before and after it, but both are not among those received. flow: the report's, or 0. */
inline_always void remember_source(struct counters *count, struct scratch *s, struct flow *flow, bool accepted, u64 now)
{
	struct report *r = &s->report;
	struct source *source;
	u32 at;

	if (s->group.active) {
		r->report_version = 20;
		r->switch_id = s->group.switch_id;
		r->hw_id = GROUP_HW_ID(s->group.w0);
		r->sequence_number = GROUP_SEQUENCE(s->group.w0);
	}
	at = find_source(s, flow ? flow->source : NOBODY);
	if (flow)
		flow->source = at;
	source = sources.lookup(&at);
	if (!source || at == NOBODY) {
		count->sources_refused++;
		return;
	}
	bpf_spin_lock(&source->lock);
	if (s->counted)
		sequence(source, r->sequence_number, r->report_version == 20 ? 32 - 22 : 0);
	else
		source->received++; /* its number counted when it went up */
	if (s->counted && !accepted)
		source->received--;
	source->seen_ns = now;
	if (r->report_version == 5 && r->flags & REPORT_LOCAL && source->reporter != r->switch_id) {
		source->reporter = source->flags & SOURCE_NAMED ? NONE32 : r->switch_id;
		source->flags |= SOURCE_NAMED;
	}
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
inline_always u32 remember_points(const struct settings *set, const struct profile *profile, const struct hop *hop,
				  u32 port_at, u32 queue_at, u64 now)
{
	struct port_statistics *port_sum = port_statistics.lookup(&port_at);
	struct queue_statistics *queue_sum = queue_statistics.lookup(&queue_at);
	struct point *port = ports.lookup(&port_at), *queue = queues.lookup(&queue_at);
	u64 latency = hop->latency, none = ones_if_none32(latency);
	u32 news = 0, bucket;

	if (!port_sum || !queue_sum || !port || !queue)
		return 0;
	latency = (latency & ~none) * profile->time_multiplier >> (profile->time_shift & 63);
	bucket = latency_bucket(latency, none);
	FENCE(bucket);
	bucket &= 63;
	if (bucket < LATENCY_BUCKETS)
		port_sum->buckets[bucket]++;
	port_sum->latency_sum += latency;
	if (port_at) {
		port->seen_ns = now;
		if (hop->egress_port_tx_utilization != NONE32 && port->id != 0xFFFF) {
			port->value = hop->egress_port_tx_utilization;
			port->unit = profile->utilization_unit;
			news |= is_news32(port->told, port->value, set->tx_utilization_threshold, set->event_mode);
		}
	}
	if (queue_at && hop->queue_occupancy != NONE32) {
		queue->seen_ns = now;
		queue->value = hop->queue_occupancy;
		queue->unit = profile->occupancy_unit;
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

/* The stack of a whole packet: not one that a transit node flushed, which is a part of a path. */
inline_always bool has_stack(const struct report *r)
{
	return (r->flags & (REPORT_INT | REPORT_INT_MX | REPORT_INTERMEDIATE)) == REPORT_INT;
}

/* 0.5 has a header of its own for it. */
inline_always bool is_drop(const struct report *r)
{
	return r->flags & REPORT_DROPPED || (r->report_version == 5 && r->local_bitmap == LOCAL_05_DROP);
}

/* The reporting switch speaks of a flow of which there never was a stack: one of the postcards that make its path. */
inline_always bool is_postcard(const struct report *r, const struct flow *flow)
{
	return (r->flags & (REPORT_LOCAL | REPORT_TRACKED_FLOW)) == (REPORT_LOCAL | REPORT_TRACKED_FLOW) &&
	       !is_drop(r) && !has_stack(r) && !(r->flags & REPORT_INTERMEDIATE) && r->local.switch_id != NONE32 &&
	       !(flow->flags & FLOW_PATH);
}

/* What each hop says of its port, queue and latency: the reporting switch itself (0), then those of the stack, which the
 * flow's entry remembers, as it does a postcard's. What is news goes into r. */
inline_always void remember_hops(const struct settings *set, const struct profile *profile, struct counters *count,
				 struct scratch *s, struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	u32 hops = has_stack(r) ? r->hop_count : 0, postcard = r->flags & REPORT_POSTCARD;

	s->utilization_news = 0;
	s->occupancy_news = 0;
	s->latency_news = 0;
	s->own.switch_id = r->local.switch_id;
	s->own.egress_port_id = ~r->local.egress_port_id; /* another one: nothing is remembered of it */
	s->own.told_latency = NONE32;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i <= MAX_HOPS; i++) {
		FENCE(i);
		if (i > hops)
			break;
		struct hop *hop = &r->local + i; /* hops are behind it */
		struct flow_hop *last = &s->own;

		if (!i && !(r->flags & REPORT_LOCAL))
			continue;
		if (i || postcard) {
			if (!flow)
				break;
			last = &flow->hops[(i ? i - 1 : s->placing.place) & (MAX_HOPS - 1)];
		}
		if (last->switch_id != hop->switch_id) {
			s->path_differs = 1;
			last->told_latency = NONE32;
		}
		if (last->switch_id != hop->switch_id || last->egress_port_id != hop->egress_port_id ||
		    last->queue_id != hop->queue_id) {
			last->port = find_point(count, hop->switch_id, hop->egress_port_id, POINT_PORT);
			last->queue = find_point(count, hop->switch_id, hop->queue_id, POINT_QUEUE);
			REREAD(); /* another CPU that sees these ids finds the indexes right */
			last->switch_id = hop->switch_id;
			last->egress_port_id = hop->egress_port_id;
			last->queue_id = hop->queue_id;
		}
		last->latency = hop->latency;

		u32 news = remember_points(set, profile, hop, last->port, last->queue, now);

		/* into memory at once: in a register each outcome would be a way of its own for the verifier */
		s->utilization_news |= (news & 1) << i;
		s->occupancy_news |= (news >> 1) << i;
		s->latency_news |=
			is_news32(last->told_latency, hop->latency, set->hop_latency_threshold, set->event_mode) << i;
		REREAD();
	}
	REREAD();
	r->tx_utilization_changes = s->utilization_news >> 1;
	r->queue_occupancy_changes = s->occupancy_news >> 1;
	r->hop_latency_changes = s->latency_news >> 1;
	r->changes |= (s->utilization_news & 1) * CHANGE_LOCAL_TX_UTILIZATION |
		      (s->occupancy_news & 1) * CHANGE_LOCAL_QUEUE_OCCUPANCY;
	if (postcard)
		r->changes |= (s->latency_news & 1) * CHANGE_LOCAL_HOP_LATENCY;
}

/* A flow's path and latency, as a stack or all of its postcards have them. */
inline_always void remember_path(const struct settings *set, struct scratch *s, struct flow *flow)
{
	struct report *r = &s->report;

	if (s->path_differs || !(flow->flags & (FLOW_PATH | FLOW_POSTCARDS)))
		flow->flags |= FLOW_PATH_UNTOLD;
	if ((flow->flags & (FLOW_PATH_UNTOLD | FLOW_TOLD)) == (FLOW_PATH_UNTOLD | FLOW_TOLD))
		r->changes |= CHANGE_PATH; /* of a flow that is told for the first time it goes without saying */
	flow->hop_count = r->hop_count;
	flow->flags = (flow->flags & ~FLOW_POSTCARDS) | (r->flags & REPORT_POSTCARD ? FLOW_POSTCARDS : FLOW_PATH);
	flow->latency = r->flow_latency;
	flow->time_unit = r->time_unit;
	if (is_news(flow->told_latency, r->flow_latency, NONE64, set->flow_latency_threshold, set->event_mode))
		r->changes |= CHANGE_FLOW_LATENCY;
}

/* A time for flow_hop.seen. */
inline_always u32 seen_at(u64 now)
{
	return ((u32)(now >> 20) & ~3U) | SEEN_PLACE;
}

/* A postcard's place among those of its flow, and the nearest other of them, into s->placing. Places not heard of for the
 * timeout are given up, unless the whole flow was silent for as long. */
inline_always void find_place(const struct settings *set, struct scratch *s, struct flow *flow, u32 stamp, u64 now)
{
	struct placing *placing = &s->placing;

	placing->seen = seen_at(now);
	placing->silent = (s64)(now - flow->seen_ns) > (s64)set->postcard_timeout << 20;
	placing->stamp = stamp;
	placing->behind = now;
	placing->distance = NONE32;
	placing->place = NONE32;
	placing->free = NONE32;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		struct flow_hop *other = &flow->hops[i & (MAX_HOPS - 1)];
		s32 apart;
		u32 distance;

		REREAD();
		if (other->seen && placing->silent)
			other->seen = placing->seen | (other->seen & SEEN_STAMP);
		if (other->seen && other->switch_id == s->report.local.switch_id) {
			placing->place = i;
			continue;
		}
		if (other->seen && (s32)(placing->seen - other->seen) > (s32)set->postcard_timeout) {
			other->seen = 0;
			s->path_differs = 1;
		}
		if (!other->seen) {
			placing->free = i;
			continue;
		}
		if (other->order >= placing->behind)
			placing->behind = other->order + 1;
		if (!(other->seen & SEEN_STAMP))
			continue;
		apart = placing->stamp - other->ingress_timestamp;
		distance = apart < 0 ? -(u32)apart : apart;
		if (distance < placing->distance) {
			placing->distance = distance;
			placing->apart = (s64)apart;
			placing->order = other->order;
		}
	}
	REREAD();
}

/* Where in the path a place is: order is when the flow's packet was there, by the collector's clock. Two postcards whose
 * ingress timestamps are nearly the same are of one packet, and their distance orders them. Nearly: within the window,
 * and by far nearer than the switch's own last report, which was of another packet. */
inline_always void put_in_order(const struct settings *set, const struct profile *profile, struct scratch *s,
				struct flow_hop *last, u32 known, u64 stamp)
{
	struct placing *placing = &s->placing;
	s32 own = (u32)stamp - last->ingress_timestamp;
	u64 distance = placing->distance, gap = own < 0 ? -(u32)own : own;
	bool apart_from_own = !known || !(last->seen & SEEN_STAMP) || distance < gap / 2;
	bool together = distance != NONE32 && stamp != NONE64 && apart_from_own;
	s64 apart = placing->apart;

	distance = distance * profile->time_multiplier >> (profile->time_shift & 63);
	together = together && distance <= set->postcard_window_ns;
	apart = apart < 0 ? -(s64)distance : (s64)distance;
	if (!known) {
		last->order = together ? placing->order + apart : placing->behind;
	} else if (together &&
		   ((apart > 0 && last->order <= placing->order) || (apart < 0 && last->order >= placing->order))) {
		last->order = placing->order + apart;
		s->path_differs = 1;
	}
}

/* The path that a flow's postcards make: how many switches, and the sum of their latencies, into s->report. */
inline_always void sum_places(struct scratch *s, const struct flow *flow)
{
	struct report *r = &s->report;

	s->placing.sum = 0;
	s->placing.found = 0;
	r->hop_count = 0;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		const struct flow_hop *hop = &flow->hops[i & (MAX_HOPS - 1)];
		u64 none;

		REREAD();
		if (!hop->seen)
			continue;
		r->hop_count++;
		none = ones_if_none32(hop->latency);
		s->placing.sum += hop->latency & ~none;
		s->placing.found |= ~none;
	}
	REREAD();
	r->flow_latency = s->placing.sum | ((u64)(s->placing.found & 1) - 1);
}

/* Finds a place for a switch of a flow's path; REPORT_POSTCARD: there is one. Called with a lock of the flow held: its
 * switches' postcards come at once, and on several CPUs. */
inline_always void place_postcard(const struct settings *set, const struct profile *profile, struct scratch *s,
				  struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	struct placing *placing = &s->placing;
	struct flow_hop *last;
	u64 stamp = r->report_version == 20 ? r->local.ingress_timestamp : r->ingress_timestamp;
	u32 place, known;

	find_place(set, s, flow, stamp, now);
	known = placing->place != NONE32;
	if (!known)
		placing->place = placing->free;
	place = reread(&placing->place);
	if (place == NONE32)
		return;
	last = &flow->hops[place & (MAX_HOPS - 1)];
	put_in_order(set, profile, s, last, known, stamp);
	if (!known) {
		s->path_differs = 1;
		last->switch_id = r->local.switch_id;
		last->latency = r->local.latency;
		last->told_latency = NONE32;
		last->egress_port_id = ~r->local.egress_port_id; /* whatever was here before */
	}
	last->ingress_timestamp = stamp;
	last->seen = seen_at(now) | (stamp != NONE64 ? SEEN_STAMP : 0);
	r->flags |= REPORT_POSTCARD;
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
inline_always struct flow *remember(const struct settings *set, const struct profile *profile, struct counters *count,
				    struct scratch *s, u64 now)
{
	struct report *r = &s->report;
	struct flow *flow = 0;

	if (r->flags & (REPORT_FLOW_IPV4 | REPORT_FLOW_IPV6))
		flow = find_flow(count, &s->key);
	if (is_drop(r)) {
		r->changes |= CHANGE_DROPPED;
		remember_drop(count, r);
	}
	s->path_differs = 0;
	REREAD();
	if (flow && is_postcard(r, flow)) {
		u32 at = (s->key.source_port ^ s->key.destination_port ^ s->key.destination[3]) & (FLOW_LOCKS - 1);
		struct flow_lock *lock = flow_locks.lookup(&at);

		if (lock) {
			bpf_spin_lock(&lock->lock);
			place_postcard(set, profile, s, flow, now);
			bpf_spin_unlock(&lock->lock);
		}
		REREAD();
		if (!(r->flags & REPORT_POSTCARD))
			count->places_refused++;
	}
	REREAD();
	remember_hops(set, profile, count, s, flow, now);
	REREAD();
	if (!flow) {
		if (r->flags & REPORT_CONGESTED_QUEUE)
			r->changes |= CHANGE_CONGESTED_QUEUE;
		return 0;
	}
	if (!(r->flags & REPORT_CONGESTED_QUEUE))
		flow->flags &= ~FLOW_CONGESTED;
	else if (!(flow->flags & FLOW_CONGESTED))
		r->changes |= CHANGE_CONGESTED_QUEUE;
	if (r->flags & REPORT_POSTCARD)
		sum_places(s, flow);
	REREAD();
	if (has_stack(r))
		s->path_differs |= flow->hop_count ^ r->hop_count;
	if (has_stack(r) || r->flags & REPORT_POSTCARD)
		remember_path(set, s, flow);
	REREAD();
	if (!(flow->flags & FLOW_TOLD))
		r->changes |= CHANGE_NEW_FLOW;
	else if (set->keepalive_ns && (s64)(now - flow->told_ns) >= (s64)set->keepalive_ns)
		r->changes |= CHANGE_KEEPALIVE;
	if ((s64)(now - flow->seen_ns) > 0) /* one that went up whole comes late */
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
inline_always void mark_told(struct scratch *s, struct flow *flow, u64 now)
{
	struct report *r = &s->report;
	u32 changes = r->hop_latency_changes | r->tx_utilization_changes | r->queue_occupancy_changes;

	flow->told_ns = now;
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

inline_always void mark_local_told(struct scratch *s, const struct flow *flow)
{
	struct report *r = &s->report;
	const struct flow_hop *last = &s->own;

	if (flow && r->flags & REPORT_POSTCARD)
		last = &flow->hops[s->placing.place & (MAX_HOPS - 1)];
	if (r->changes & CHANGE_LOCAL_TX_UTILIZATION) {
		u32 at = last->port;
		struct point *port = ports.lookup(&at);

		if (port)
			port->told = r->local.egress_port_tx_utilization;
	}
	if (r->changes & CHANGE_LOCAL_QUEUE_OCCUPANCY) {
		u32 at = last->queue;
		struct point *queue = queues.lookup(&at);

		if (queue)
			queue->told = r->local.queue_occupancy;
	}
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
		const struct flow_hop *place = &flow->hops[i & (MAX_HOPS - 1)];
		struct hop *hop;

		REREAD();
		if (!place->seen)
			continue;
		hop = &r->hops[r->hop_count & (MAX_HOPS - 1)];
		no_values(hop);
		hop->pad = 0;
		hop->cell = HEAD_CELLS + 1 + r->hop_count;
		hop->ingress_timestamp = place->order;
		hop->switch_id = place->switch_id;
		hop->latency = place->latency;
		hop->egress_port_id = place->egress_port_id;
		hop->queue_id = place->queue_id;
		r->hop_count++;
	}
	REREAD();
}

inline_always void tell(struct xdp_md *ctx, const struct settings *set, struct counters *count, struct scratch *s,
			struct flow *flow, u64 now)
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
		mark_local_told(s, flow);
	if (flow)
		mark_told(s, flow, now);
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

/* The packet itself goes up, to be decoded there. False: it finds no room, and is counted as undecoded. */
inline_always bool send_whole(struct xdp_md *ctx, const struct settings *set, const struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	u8 *cells = (u8 *)r->hops, *byte;
	u32 size = s->size, words = size / 4, to = 0;
	u64 count;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_WHOLE; i++) {
		FENCE(i);
		((struct whole *)cells)[i].cell = HEAD_CELLS + 1 + i;
	}
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_WHOLE * WHOLE_BYTES / 4; i++) {
		u32 *from = c->data + i * 4;

		FENCE(i);
		if ((void *)(from + 1) > c->data_end)
			break;
		*(u32 *)(cells + (to & (MAX_WHOLE * CELL - 4))) = *from;
		to += 4;
		to += ((to & (CELL - 1)) == 12) * 4; /* the cell's number */
		to = meet(to, &s->meeting);
	}
	to = meet(to, &s->meeting);
	words = meet(words, &s->meeting);
	if (size > MAX_WHOLE_BYTES || set->cut)
		return false;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < 3; i++) {
		FENCE(i);
		byte = c->data + ((words * 4 + i) & MAX_AT);
		if ((void *)(byte + 1) > c->data_end)
			break;
		cells[(to + i) & (MAX_WHOLE * CELL - 1)] = *byte;
	}
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
	return !events.perf_submit(ctx, (void *)r + 12, size - 12);
#else
	return !events.ringbuf_output((void *)r + 8, size - 8, BPF_RB_NO_WAKEUP);
#endif
}

/* --- the program ------------------------------------------------------------------------------------------------------ */

/* How this source writes: the index of its profile. The last one looked up is remembered. */
inline_always u32 find_profile(const struct settings *set, struct scratch *s)
{
	struct source_prefix prefix = {};
	u64 *address = (u64 *)s->report.source;
	u32 *index, ip_version = s->report.flags & REPORT_SOURCE_IPV6 ? 6 : 4;
	u32 generation = reread(&set->generation); /* before the look-up: what is found is not older */

	if (!set->by_source)
		return 0;
	if (s->generation != generation || s->known_version != ip_version || s->known_source[0] != address[0] ||
	    s->known_source[1] != address[1]) {
		prefix.length = 8 * (1 + (ip_version == 6 ? 16 : 4));
		prefix.ip_version = ip_version;
		__builtin_memcpy(prefix.address, s->report.source, 16);
		index = source_profiles.lookup(&prefix);
		s->known_profile = index ? *index : 0;
		s->generation = generation;
		s->known_version = ip_version;
		s->known_source[0] = address[0];
		s->known_source[1] = address[1];
	}
	return s->known_profile;
}

/* What user space put in front of a packet that it runs through the program, if it did. */
inline_always struct resume *resumed(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *meta = (void *)(long)ctx->data_meta;
	struct resume *resume = meta;

	return (void *)(resume + 1) > data || resume->magic != RESUME_MAGIC ? 0 : resume;
}

/* Go on with another part of the packet: a tail call, which does not come back. All that it needs is in s. */
inline_always void go_to(struct xdp_md *ctx, struct scratch *s, u32 stage)
{
	s->stage = stage;
	s->calls++;
	again.call(ctx, 0);
	s->stage = STAGE_PACKET; /* it did come back: too many calls */
}

int collector(struct xdp_md *ctx)
{
	struct resume *resume = resumed(ctx);
	u32 zero = 0, which = resume != 0, outcome = OUTCOME_OK, stage;
	struct settings *set = settings.lookup(&zero);
	struct counters *count = counters.lookup(&which);
	struct scratch *s = scratches.lookup(&which);
	struct profile *profile;
	struct group *group;
	struct cursor c = {(void *)(long)ctx->data, (void *)(long)ctx->data_end, 0, 0};

	if (!set || !count || !s)
		return XDP_PASS; /* cannot be: all three are arrays */
	FENCE(c.data); /* or the compiler, which knows that they were 32 bits, computes with them before they are pointers */
	FENCE(c.data_end);
	group = &s->group;
	stage = s->stage;
	s->stage = STAGE_PACKET;
	if (stage == STAGE_PACKET) {
		s->calls = 0;
		s->counted = !resume;
		s->header = 0;
		s->resume = resume ? *resume : (struct resume){};
		c.end = c.data_end - c.data;
		s->size = c.end;
		c.end = meet(c.end + set->cut, &s->meeting);
		outcome = parse_outer(&c, set, s);
		if (outcome == OUTCOME_OK)
			s->profile = find_profile(set, s);
	}
	REREAD();
	profile = profiles.lookup(&s->profile);
	if (!profile)
		return XDP_PASS; /* cannot be */
	if (outcome == OUTCOME_OK && stage != STAGE_INNER) {
		clear(s);
		s->report.flags |= s->resume.flags;
		s->report.time_unit = profile->time_unit;
		s->report.resumed = !s->counted;
		if (stage == STAGE_PACKET)
			outcome = parse_report(&c, profile, s);
		REREAD();
		s->header |= outcome == OUTCOME_OK;
		if (outcome == OUTCOME_OK && group->active)
			outcome = set->cut ? OUTCOME_UNDECODED : parse_individual(&c, s);
	}
	outcome = meet(outcome, &s->meeting);
	REREAD();
	if (outcome == OUTCOME_OK && s->inner.first != LAYER_NONE) {
		outcome = parse_inside(&c, set, profile, s);
		REREAD();
		if (outcome == OUTCOME_OK && s->inner.where == IN_TUNNEL) {
			s->inner.first = s->inner.next;
			s->inner.at = s->inner.next_at;
			go_to(ctx, s, STAGE_INNER);
			outcome = OUTCOME_UNDECODED;
		}
	}
	outcome = meet(outcome, &s->meeting);
	REREAD();
	if (group->active && is_accepted(outcome)) {
		group->more = group->next + 4 <= group->end;
		group->unknown |= outcome;
		if (!group->telling &&
		    (group->more || group->count)) { /* several: all have to be right before one counts */
			if (group->more) {
				group->count++;
				group->at = group->next;
				go_to(ctx, s, STAGE_INDIVIDUAL);
			} else if (s->calls < MAX_CALLS / 2) {
				group->telling = 1;
				group->count = 0;
				group->at = group->first;
				go_to(ctx, s, STAGE_INDIVIDUAL);
			}
			outcome = OUTCOME_UNDECODED;
		}
	}
	s->outcome = outcome;
	s->report.outcome = outcome;
	s->waits = 0;
	REREAD();

	struct flow *flow = 0;
	u64 now = s->resume.received_ns;

	if (!now && s->header)
		now = NOW();

	if (is_accepted(reread(&s->outcome))) {
		flow = remember(set, profile, count, s, now);
		REREAD();
		tell(ctx, set, count, s, flow, now);
	} else if (s->outcome == OUTCOME_UNDECODED && s->counted && send_whole(ctx, set, &c, s)) {
		s->waits = 1; /* for user space, which counts it under what it was */
	} else if (set->tell_all) {
		tell_refused(ctx, count, s);
	}
	REREAD();
	if (s->header && (!is_accepted(s->outcome) || !(s->report.flags & REPORT_CONTINUED)))
		remember_source(count, s, flow, is_accepted(s->outcome), now);
	REREAD();
	if (group->active && is_accepted(reread(&s->outcome))) {
		if (group->telling && group->more) {
			group->count++;
			group->at = group->next;
			go_to(ctx, s, STAGE_INDIVIDUAL);
		}
		s->outcome = group->unknown;
	}
	outcome = reread(&s->outcome);
	if (s->counted && !s->waits)
		count->outcomes[outcome & (OUTCOMES - 1)]++;
	if (is_accepted(outcome) || outcome == OUTCOME_UNDECODED)
		return set->verdict_ok;
	return outcome > OUTCOME_PASS_PORT ? set->verdict_malformed : XDP_PASS;
}
