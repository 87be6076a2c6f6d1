/* What a report leaves in the maps: its source, its flow, the ports and queues of its hops; and what of that is news. */
#ifndef INTCOLLECTOR_REMEMBER_H
#define INTCOLLECTOR_REMEMBER_H

#include "scratch.h"
#include "stack.h"
#include "detect.h"
#include "maps.h"

#define NOBODY 0 /* index of ports, queues and sources */

#ifdef NO_COARSE_CLOCK /* Linux before 5.11 */
#define NOW() bpf_ktime_get_ns()
#else
#define NOW() bpf_ktime_get_coarse_ns()
#endif

/* How this source writes: the index of its profile. The last one looked up is remembered. */
inline_always u32 find_profile(const struct settings *set, struct scratch *s)
{
	struct source_prefix prefix = {};
	u64 *address = (u64 *)s->report.source;
	u32 *index, ip_version = s->report.flags & REPORT_SOURCE_IPV6 ? 6 : 4;
	u32 generation;

	if (!set->by_source)
		return 0;
	generation = reread(&set->generation); /* before the look-up: what is found is not older */
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

/* --- who reported ----------------------------------------------------------------------------------------------------- */

inline_always struct allocator *the_allocator(struct scratch *s)
{
	s->index = 0;
	return allocators.lookup(&s->index);
}

inline_always struct source *source_of(struct scratch *s, u32 index)
{
	s->index = index;
	return sources.lookup(&s->index);
}

inline_always void new_source(struct scratch *s)
{
	struct allocator *allocator = the_allocator(s);
	struct source_key *key = &s->source;
	struct source *source;
	u32 index = NOBODY;

	if (!allocator)
		return;
	bpf_spin_lock(&allocator->lock);
	if (allocator->next_source + 1 < MAX_SOURCES)
		index = ++allocator->next_source;
	bpf_spin_unlock(&allocator->lock);
	source = source_of(s, index);
	if (!source || index == NOBODY)
		return;
	copy_ipv6(source->address, (u64 *)key->address);
	source->switch_id = key->switch_id;
	source->reporter = key->switch_id;
	source->hw_id = key->hw_id;
	source->ip_version = key->ip_version;
	source->report_version = key->report_version;
	/* If another CPU was first, its entry stays and this index is never used. */
	source_index.insert(key, &s->index);
}

inline_always bool is_source(const struct source *source, const u64 *address, u32 switch_id, u32 hw_id, u32 ip_version,
			     u32 report_version)
{
	u32 word = *(u32 *)&source->hw_id & 0xFFFFFF; /* but flags */

	return source->switch_id == switch_id && word == (hw_id | ip_version << 8 | report_version << 16) &&
	       ((u64 *)source->address)[0] == address[0] && ((u64 *)source->address)[1] == address[1];
}

/* The index of whoever sent s->report; the flow remembers it from its last report. */
inline_always u32 find_source(struct scratch *s, u32 remembered)
{
	struct report *r = &s->report;
	struct source_key *key = &s->source;
	struct source *source = source_of(s, remembered);
	u64 *address = (u64 *)r->source;
	u8 ip_version = r->flags & REPORT_SOURCE_IPV6 ? 6 : 4;
	u32 *index, switch_id = r->report_version == 5 ? NONE32 : r->switch_id;

	if (remembered && source && is_source(source, address, switch_id, r->hw_id, ip_version, r->report_version))
		return remembered;
	copy_ipv6(key->address, address);
	key->switch_id = switch_id;
	key->hw_id = r->hw_id;
	key->ip_version = ip_version;
	key->report_version = r->report_version;
	index = source_index.lookup(key);
	if (index)
		return *index;
	new_source(s);
	index = source_index.lookup(key);
	return index ? *index : NOBODY;
}

#define NARROW_20 (32 - 22) /* bits that sequence numbers of Telemetry Report 2.0 have less than 32 */

/* Called with the lock held. */
inline_always void number_received(struct source *source, u32 number, u32 narrow)
{
	settle_run(source, narrow);
	sequence(source, number, narrow);
	open_run(source, narrow);
}

/* The exporter, and its sequence number. All individual reports of a packet have one number. A report that is refused
 * behind its header was not lost on the way; and the number of a group that goes up whole counts now, among those that
 * come before and after it, but both are not among those received. flow: the report's, or 0. */
inline_always void remember_source(struct counters *count, struct scratch *s, struct flow *flow, bool accepted, u64 now)
{
	struct report *r = &s->report;
	struct source *source;
	u32 at, narrow;
	bool is_named;

	if (s->group.active) {
		r->report_version = 20;
		r->switch_id = s->group.switch_id;
		r->hw_id = GROUP_HW_ID(s->group.w0);
		r->sequence_number = GROUP_SEQUENCE(s->group.w0);
	}
	at = find_source(s, flow ? flow->source : NOBODY);
	if (flow)
		flow->source = at;
	source = source_of(s, at);
	if (!source || at == NOBODY) {
		count->sources_refused++;
		return;
	}
	narrow = r->report_version == 20 ? NARROW_20 : 0;
	is_named = r->report_version != 5 || !(r->flags & REPORT_LOCAL) || source->reporter == r->switch_id;
	if (accepted && is_named && s->counted &&
	    (s->numbered || continue_run(source, r->sequence_number, narrow))) { /* as most: the lock is dear */
		source->seen_ns = now;
		return;
	}
	bpf_spin_lock(&source->lock);
	if (s->numbered)
		; /* before it came to this CPU */
	else if (s->counted)
		number_received(source, r->sequence_number, narrow);
	else
		source->received++; /* its number counted when it went up */
	if (s->counted && !accepted) {
		settle_run(source, narrow);
		source->received--;
		if (all_received(source)) /* else the next one is the first */
			open_run(source, narrow);
	}
	source->seen_ns = now;
	if (r->report_version == 5 && r->flags & REPORT_LOCAL && source->reporter != r->switch_id) {
		source->reporter = source->flags & SOURCE_NAMED ? NONE32 : r->switch_id;
		source->flags |= SOURCE_NAMED;
	}
	bpf_spin_unlock(&source->lock);
}

/* --- ports and queues ------------------------------------------------------------------------------------------------- */

inline_always struct level *port_of(struct points *points, u64 index)
{
	FENCE(index); /* the mask is for the verifier, and stays */
	return &points->port_levels[index & (MAX_POINTS - 1)];
}

inline_always struct level *queue_of(struct points *points, u64 index)
{
	FENCE(index);
	return &points->queue_levels[index & (MAX_POINTS - 1)];
}

inline_always void new_point(struct points *points, struct scratch *s)
{
	struct allocator *allocator = the_allocator(s);
	struct point_key *key = &s->point;
	struct level *level;
	struct point *point;
	u32 index = NOBODY;
	u64 at;

	if (!allocator)
		return;
	bpf_spin_lock(&allocator->lock);
	if (key->kind == POINT_PORT) {
		if (allocator->next_port + 1 < MAX_POINTS)
			index = ++allocator->next_port;
	} else {
		if (allocator->next_queue + 1 < MAX_POINTS)
			index = ++allocator->next_queue;
	}
	bpf_spin_unlock(&allocator->lock);
	if (index == NOBODY)
		return;
	level = key->kind == POINT_PORT ? port_of(points, index) : queue_of(points, index);
	at = index;
	FENCE(at);
	at &= MAX_POINTS - 1;
	point = key->kind == POINT_PORT ? &points->ports[at] : &points->queues[at];
	point->switch_id = key->switch_id;
	point->id = key->id;
	point->kind = key->kind;
	level->value = NONE32;
	level->told = NONE32;
	s->index = index;
	point_index.insert(key, &s->index);
}

/* The index of a switch's port or queue; NOBODY where the switch gave no id of itself. A port without a number has an
 * entry too, for the switch's histogram; a queue without one has nothing to keep. */
inline_always u32 find_point(struct counters *count, struct points *points, struct scratch *s, u32 switch_id, u32 id,
			     u32 kind)
{
	u32 *index;

	if (switch_id == NONE32 || (kind == POINT_QUEUE && id == 0xFFFF))
		return NOBODY;
	s->point.switch_id = switch_id;
	s->point.id = id;
	s->point.kind = kind;
	index = point_index.lookup(&s->point);
	if (index)
		return *index;
	new_point(points, s);
	index = point_index.lookup(&s->point);
	if (index)
		return *index;
	count->points_refused++;
	return NOBODY;
}

/* What follows is free of branches, of which each would double the verifier's ways through a hop: what a hop does not say
 * is remembered of index 0, which is nobody's. */

/* A hop in its port's histogram. latency: all ones: none. */
inline_always void count_latency(const struct settings *set, const struct profile *profile,
				 struct statistics *statistics, u64 port_at, u64 latency)
{
	u64 none = ones_if_none32(latency), bucket;

	FENCE(port_at);
	port_at &= MAX_POINTS - 1;
	latency = (latency & ~none) * profile->time_multiplier >> (profile->time_shift & 63);
	statistics->latency_sums[port_at] += latency;
	bucket = (latency_bucket(set, latency) & ~none) | (NO_LATENCY & none);
	FENCE(bucket);
	if (bucket < LATENCY_BUCKETS) /* always */
		statistics->buckets[bucket].hops[port_at]++;
}

/* All ones: the hop says this of a port or queue that has a place. */
inline_always u64 is_said(u64 index, u64 value)
{
	u64 said = is_nonzero64(index) & (ones_if_none32(value) + 1);

	FENCE(said);
	return 0 - said;
}

inline_always u64 remember_value(struct level *level, u64 value, u32 unit)
{
	level->value = value;
	level->unit = unit;
	return level->told;
}

/* What a hop says of its port, all ones where it does not. Gives what was told of it last. */
inline_always u64 remember_port(const struct profile *profile, struct points *points, const struct flow_hop *at,
				u64 utilization, u64 *said)
{
	u64 unnamed = (at->egress_port_id + 1ULL) >> 16; /* a port without a number has latencies only */

	*said = is_said(at->port, utilization) & (unnamed - 1);
	FENCE(*said);
	return remember_value(port_of(points, at->port & *said), utilization, profile->utilization_unit);
}

/* ... and of its queue. */
inline_always u64 remember_queue(const struct profile *profile, struct points *points, struct statistics *statistics,
				 const struct flow_hop *at, u64 occupancy, u64 *said)
{
	u32 *largest;
	u64 index, more;

	*said = is_said(at->queue, occupancy);
	index = at->queue & *said;
	FENCE(index);
	largest = &statistics->occupancy_max[index & (MAX_POINTS - 1)];
	more = occupancy + 1 - *largest;
	FENCE(more);
	more &= ~(u64)((s64)more >> 63); /* 0, if it is not more */
	*largest += more & *said;
	return remember_value(queue_of(points, index), occupancy, profile->occupancy_unit);
}

/* --- the flow --------------------------------------------------------------------------------------------------------- */

/* The kernel's hash of 40 bytes costs more than all else of a look-up; of 8 bytes, next to nothing. A product loses what is
 * high in a word, as the last bytes of an IPv6 prefix and of an interface id are. So high halves count again, by numbers
 * of their own: all but one, of which alone nothing is lost. */
inline_always u64 flow_hash(const struct settings *set, const struct flow_key *key)
{
	const u64 *words = (const u64 *)key;

	return words[0] * set->hash[0] + words[1] * set->hash[1] + words[2] * set->hash[2] + words[3] * set->hash[3] +
	       words[4] * set->hash[4] + (words[0] >> 32) * set->hash[5] + (words[1] >> 32) * set->hash[6] +
	       (words[2] >> 32) * set->hash[7];
}

inline_always bool is_flow(const struct flow *flow, const struct flow_key *key)
{
	const u64 *a = (const u64 *)&flow->key, *b = (const u64 *)key;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]));
}

/* Its entry, which is made if it is not there. Two flows may have the same hash: then one is at the next number. */
inline_always struct flow *find_flow(const struct settings *set, struct counters *count, struct scratch *s)
{
	u64 hash = flow_hash(set, &s->key);

#pragma unroll
	for (int i = 0; i < FLOW_PROBES; i++, hash++) {
		struct flow *flow = (void *)flows.lookup(&hash), *first;

		if (!flow) {
			s->index = !s->counted;
			first = (void *)new_flow.lookup(&s->index);
			if (!first)
				break; /* cannot be */
			first->key = s->key;
			flows.insert(&hash, (void *)first);
			flow = (void *)flows.lookup(&hash);
			if (!flow)
				break;
		}
		if (is_flow(flow, &s->key))
			return flow;
	}
	count->flows_refused++;
	return 0;
}

#define LATE_NS (1ULL << 40)

inline_always u64 seen_ns(const struct flow *flow)
{
	return ((u64)flow->seen_high << 32 | flow->seen) << 20;
}

inline_always void was_seen(struct flow *flow, u64 now)
{
	flow->seen = now >> 20;
	flow->seen_high = now >> 52;
}

/* Nothing went up of the flow for so long that it is told again. */
inline_always bool is_silent(const struct settings *set, const struct flow *flow, u64 now)
{
	u64 silent = (u64)((u32)(now >> 20) - flow->told) << 20;

	return set->keepalive_ns && silent >= set->keepalive_ns;
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
				 struct points *points, struct statistics *statistics, struct scratch *s,
				 struct flow *flow)
{
	struct report *r = &s->report;
	u32 hops = has_stack(r) ? r->hop_count : 0, postcard = r->flags & REPORT_POSTCARD;

	s->utilization_news = 0;
	s->occupancy_news = 0;
	s->latency_news = 0;
	s->gaps = 0;
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
			last->port = find_point(count, points, s, hop->switch_id, hop->egress_port_id, POINT_PORT);
			last->queue = find_point(count, points, s, hop->switch_id, hop->queue_id, POINT_QUEUE);
			REREAD(); /* another CPU that sees these ids finds the indexes right */
			last->switch_id = hop->switch_id;
			last->egress_port_id = hop->egress_port_id;
			last->queue_id = hop->queue_id;
		}
		last->latency = hop->latency;
		if (i)
			s->gaps |= ~is_said(last->port, hop->latency) | ~is_said(last->queue, hop->queue_occupancy) |
				   ones_if_none32(hop->egress_port_tx_utilization) | (hop->egress_port_id + 1ULL) >> 16;
		if (!i || i > s->counted_hops)
			count_latency(set, profile, statistics, last->port, hop->latency);

		u64 utilization = hop->egress_port_tx_utilization, occupancy = hop->queue_occupancy;
		u64 of_port, of_queue, told_utilization, told_occupancy, told_latency = last->told_latency;
		u64 further[3];

		told_utilization = remember_port(profile, points, last, utilization, &of_port);
		told_occupancy = remember_queue(profile, points, statistics, last, occupancy, &of_queue);
		if (set->event_mode == EVENT_INTERVAL) {
			further[0] = is_elsewhere(told_utilization, utilization, set->tx_utilization_width);
			further[1] = is_elsewhere(told_occupancy, occupancy, set->queue_occupancy_width);
			further[2] = is_elsewhere(told_latency, hop->latency, set->hop_latency_width);
		} else {
			further[0] = is_further(told_utilization, utilization, set->tx_utilization_threshold);
			further[1] = is_further(told_occupancy, occupancy, set->queue_occupancy_threshold);
			further[2] = is_further(told_latency, hop->latency, set->hop_latency_threshold);
		}
		s->utilization_news |= (is_news32(told_utilization, utilization, further[0]) & of_port) << i;
		s->occupancy_news |= (is_news32(told_occupancy, occupancy, further[1]) & of_queue) << i;
		s->latency_news |= is_news32(told_latency, hop->latency, further[2]) << i;
		REREAD();
	}
	REREAD();
	r->tx_utilization_changes = s->utilization_news >> 1;
	r->queue_occupancy_changes = s->occupancy_news >> 1;
	r->hop_latency_changes = s->latency_news >> 1;
	r->changes |= (s->utilization_news & 1) * CHANGE_LOCAL_TX_UTILIZATION |
		      (s->occupancy_news & 1) * CHANGE_LOCAL_QUEUE_OCCUPANCY;
	if (r->flags & REPORT_POSTCARD) /* read anew: what was known of it is one way more through the loop */
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
	flow->instruction_bitmap = r->instruction_bitmap;
	flow->flags = (flow->flags & ~(FLOW_POSTCARDS | FLOW_GAPS)) | (s->gaps ? FLOW_GAPS : 0) |
		      (r->flags & REPORT_POSTCARD ? FLOW_POSTCARDS : FLOW_PATH);
	flow->latency = r->flow_latency;
	flow->time_unit = r->time_unit;
	if (is_news(flow->told_latency, r->flow_latency, NONE64, set->flow_latency_threshold, set->event_mode))
		r->changes |= CHANGE_FLOW_LATENCY;
}

/* A time for flow_place.seen. */
inline_always u32 seen_at(u64 now)
{
	return ((u32)(now >> 20) & ~3U) | SEEN_PLACE;
}

/* A postcard's place among those of its flow, and the nearest other of them, into s->placing. Places not heard of for the
 * timeout are given up, unless the whole flow was silent for as long. Masks instead of branches, as in a stack. */
inline_always void find_place(const struct settings *set, struct scratch *s, struct flow *flow, u32 stamp, u64 now)
{
	struct placing *placing = &s->placing;

	placing->seen = seen_at(now);
	placing->silent = (s64)(now - seen_ns(flow)) > (s64)set->postcard_timeout << 20 ? NONE32 : 0;
	placing->stamp = stamp;
	placing->behind = now;
	placing->distance = NONE32;
	placing->place = NONE32;
	placing->free = NONE32;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_HOPS; i++) {
		FENCE(i);
		struct flow_place *other = &flow->places[i & (MAX_HOPS - 1)];
		u64 seen = other->seen, taken = ones_if(seen), own, old, near, later;
		s64 apart, distance, sign;

		REREAD();
		seen = either(taken & placing->silent, placing->seen | (seen & SEEN_STAMP), seen);
		own = taken & ~ones_if(flow->hops[i & (MAX_HOPS - 1)].switch_id ^ s->report.local.switch_id);
		placing->place = either(own, i, placing->place);

		/* not heard of for too long: free */
		distance = (s64)set->postcard_timeout - (s32)(placing->seen - (u32)seen);
		FENCE(distance);
		old = taken & ~own & (u64)(distance >> 63);
		s->path_differs |= old & 1;
		seen &= ~old;
		taken &= ~old;
		other->seen = seen;
		placing->free = either(taken, placing->free, i);

		/* another one: the path goes on behind it; and how far is it? */
		taken &= ~own;
		later = placing->behind - 1 - other->order; /* below 0: it is the last so far */
		later = taken & (u64)((s64)later >> 63);
		placing->behind = either(later, other->order + 1, placing->behind);
		apart = (s32)(placing->stamp - other->ingress_timestamp);
		sign = apart >> 63;
		distance = (apart ^ sign) - sign;
		FENCE(distance);
		near = (u64)((distance - (s64)placing->distance) >> 63) & taken & (0 - (seen & SEEN_STAMP));
		FENCE(near);
		placing->distance = either(near, distance, placing->distance);
		placing->apart = either(near, apart, placing->apart);
		placing->order = either(near, other->order, placing->order);
		REREAD();
	}
	REREAD();
}

/* Where in the path a place is: order is when the flow's packet was there, by the collector's clock. Two postcards whose
 * ingress timestamps are nearly the same are of one packet, and their distance orders them. Nearly: within the window,
 * and by far nearer than the switch's own last report, which was of another packet. */
inline_always void put_in_order(const struct settings *set, const struct profile *profile, struct scratch *s,
				struct flow_place *last, u32 known, u64 stamp)
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
		if (!flow->places[i & (MAX_HOPS - 1)].seen)
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
	struct flow_place *at;
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
	at = &flow->places[place & (MAX_HOPS - 1)];
	put_in_order(set, profile, s, at, known, stamp);
	if (!known) {
		s->path_differs = 1;
		last->switch_id = r->local.switch_id;
		last->latency = r->local.latency;
		last->told_latency = NONE32;
		last->egress_port_id = ~r->local.egress_port_id; /* whatever was here before */
	}
	at->ingress_timestamp = stamp;
	at->seen = seen_at(now) | (stamp != NONE64 ? SEEN_STAMP : 0);
	r->flags |= REPORT_POSTCARD;
}

inline_always void remember_drop(struct counters *count, struct scratch *s)
{
	u64 *drop;

	s->drop.switch_id = s->report.switch_id;
	s->drop.reason = s->report.drop_reason; /* the key's pad stays 0: nobody writes it */
	s->count = 0;
	drop = drops.lookup_or_try_init(&s->drop, &s->count);

	if (drop)
		__sync_fetch_and_add(drop, 1);
	else
		count->drops_refused++;
}

/* An accepted report into the maps; what is news is left in it. Gives its flow, or 0. */
inline_always struct flow *remember(const struct settings *set, const struct profile *profile, struct counters *count,
				    struct points *points, struct statistics *statistics, struct scratch *s, u64 now)
{
	struct report *r = &s->report;
	struct flow *flow = 0;

	if (r->flags & (REPORT_FLOW_IPV4 | REPORT_FLOW_IPV6))
		flow = find_flow(set, count, s);
	if (is_drop(r)) {
		r->changes |= CHANGE_DROPPED;
		remember_drop(count, s);
	}
	s->path_differs = 0;
	REREAD();
	if (flow && is_postcard(r, flow)) {
		struct flow_lock *lock;

		s->index = (s->key.source_port ^ s->key.destination_port ^ s->key.destination[3]) & (FLOW_LOCKS - 1);
		lock = flow_locks.lookup(&s->index);

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
	remember_hops(set, profile, count, points, statistics, s, flow);
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
	else if (is_silent(set, flow, now))
		r->changes |= CHANGE_KEEPALIVE;
	/* one that went up whole comes late, by no more than some minutes */
	if (now - seen_ns(flow) + LATE_NS > LATE_NS)
		was_seen(flow, now);
	flow->reports++;
	return flow;
}

#endif
