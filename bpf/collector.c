/* The collector: parse, remember, tell, count.
 *
 *   packet -- parse.h --> struct report -- remember.h --> maps -- tell.h --> ring or perf buffer
 *
 * One way in, one way out: every packet ends in one outcome, which is counted and made a verdict at the end of
 * collector(). What is not recognised as ours is passed on.
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
#include "remember.h"
#include "steady.h"
#include "tell.h"

#define MAX_CALLS 32 /* tail calls a packet; the kernel allows 33 */

/* What user space put in front of a packet that it runs through the program, if it did. */
inline_always struct resume *resumed(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *meta = (void *)(long)ctx->data_meta;
	struct resume *resume = meta;

	return (void *)(resume + 1) > data || resume->magic != RESUME_MAGIC ? 0 : resume;
}

/* Did spread() send it? */
inline_always bool is_spread(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *meta = (void *)(long)ctx->data_meta;
	struct resume *said = meta;

	return (void *)(said + 1) <= data && said->magic == SPREAD_MAGIC;
}

/* Go on with another part of the packet: a tail call, which does not come back. All that it needs is in s. */
inline_always void go_to(struct xdp_md *ctx, struct scratch *s, u32 stage)
{
	s->stage = stage;
	s->calls++;
	again.call(ctx, 0);
	s->stage = STAGE_PACKET; /* it did come back: too many calls */
}

/* What becomes of a packet. */
inline_always int verdict(const struct settings *set, u32 outcome)
{
	if (is_accepted(outcome) || outcome == OUTCOME_UNDECODED)
		return set->verdict_ok;
	return outcome > OUTCOME_PASS_PORT ? set->verdict_malformed : XDP_PASS;
}

/* Malformed; or accepted, of a TCP or UDP flow, with neither INT nor anything of the reporting switch: maybe it was read
 * wrong. */
inline_always bool is_kept(const struct scratch *s)
{
	if (s->outcome == OUTCOME_OK)
		return (s->report.flags & (REPORT_INT | REPORT_LOCAL | REPORT_FLOW_PORTS)) == REPORT_FLOW_PORTS;
	return s->outcome > OUTCOME_PASS_PORT && s->outcome < OUTCOME_UNKNOWN_ENCAPSULATION;
}

/* The long way: any packet. */
int any_packet(struct xdp_md *ctx)
{
	struct resume *resume = resumed(ctx);
	u32 zero = 0, which = resume != 0, cpu = bpf_get_smp_processor_id(), outcome = OUTCOME_OK, stage;
	struct points *all_points = (void *)points.lookup(&zero);
	struct statistics *own = (void *)statistics.lookup(&cpu);
	struct settings *set = settings.lookup(&zero);
	struct counters *count = (void *)counters.lookup(&which);
	struct scratch *s = (void *)scratches.lookup(&which);
	struct profile *profile;
	struct group *group;
	struct cursor c = {.ctx = ctx};

	if (!set || !count || !s || !all_points || !own)
		return XDP_PASS; /* cannot be: all are arrays */
	find_ends(&c);
	group = &s->group;
	stage = s->stage;
	s->stage = STAGE_PACKET;
	if (stage == STAGE_PACKET) {
		s->calls = 0;
		s->numbered = s->numbered_ahead | (set->cpu_count && is_spread(ctx));
		s->numbered_ahead = 0;
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
	find_ends(&c);
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
		flow = remember(set, profile, count, all_points, own, s, now);
		REREAD();
		tell(ctx, set, count, all_points, s, flow, now);
	} else if (s->outcome == OUTCOME_UNDECODED && s->counted && send_whole(&c, set, s)) {
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
	if (outcome == OUTCOME_PASS_PORT && s->counted)
		own->udp_ports[s->udp_port & 0xFFFF]++;
	s->outcome = outcome;
	if (s->counted && !s->waits && is_kept(s))
		again.call(ctx, 2);
	return verdict(set, outcome);
}

/* A report that is malformed or says nothing, and was counted: keep who sent it, and what the first one looked like. */
int refused(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	u32 zero = 0, kept = 0;
	struct settings *set = settings.lookup(&zero);
	struct scratch *s = (void *)scratches.lookup(&zero);
	struct refusal_key key = {};
	struct refusal *refusal;

	if (!set || !s)
		return XDP_PASS; /* cannot be */
	copy_ipv6(key.address, (u64 *)s->report.source);
	key.ip_version = s->report.flags & REPORT_SOURCE_IPV6 ? 6 : 4;
	key.outcome = s->outcome;
	refusal = (void *)refusals.lookup(&key);
	if (!refusal) {
		refusal = (void *)s->more;
		refusal->packets = 0;
		refusal->length = data_end - data;
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < SPECIMEN; i++) {
			u8 *from = data + i;

			FENCE(from);
			if ((void *)(from + 1) > data_end)
				break;
			refusal->bytes[i] = *from;
			kept = i + 1;
		}
		refusal->kept = kept;
		refusals.insert(&key, (struct refusal_bytes *)refusal);
		refusal = (void *)refusals.lookup(&key);
		if (!refusal)
			return verdict(set, s->outcome);
	}
	__sync_fetch_and_add(&refusal->packets, 1);
	refusal->seen_ns = NOW();
	return verdict(set, s->outcome);
}

/* Where a packet comes in: most reports need no more than this. */
int collector(struct xdp_md *ctx)
{
	u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct settings *set = settings.lookup(&zero);
	struct scratch *s = (void *)scratches.lookup(&zero);
	struct points *all_points = (void *)points.lookup(&zero);
	struct statistics *own = (void *)statistics.lookup(&cpu);

	if (!set || !s || !all_points || !own)
		return XDP_PASS; /* cannot be: all are arrays */
	s->counted_hops = 0;
	s->numbered = 0;
	s->numbered_ahead = 0;
	if (set->cpu_count && is_spread(ctx)) {
		s->numbered = 1;
		own->arrived++;
	}
	if (set->steady && is_steady(ctx, set, all_points, own, s))
		return set->verdict_ok;
	again.call(ctx, 0);
	return XDP_PASS; /* cannot be */
}

#ifndef NO_CPUMAP_PROGRAMS
/* Where a packet comes in instead, if one CPU is not enough for all: sends reports of each flow to a CPU of its own, where
 * collector() takes them up. Numbers of a source are counted here, since on several CPUs they would overtake each other.
 * What is not plainly a report with a flow stays here. */
int spread(struct xdp_md *ctx)
{
	struct cursor cursor = {.ctx = ctx}, *c = &cursor;
	u32 zero = 0, cpu = bpf_get_smp_processor_id(), at;
	struct settings *set = settings.lookup(&zero);
	struct scratch *s = (void *)scratches.lookup(&zero);
	struct statistics *own = (void *)statistics.lookup(&cpu);
	struct profile *profile;
	struct source *source;
	struct resume *said;
	u64 *key, first, mixed;

	if (!set || !s || !own)
		return XDP_PASS; /* cannot be */
	find_ends(c);
	if (!set->cpu_count || !steady_report(c, set, s, &first, true))
		goto here;
	at = find_profile(set, s);
	profile = profiles.lookup(&at);
	if (!profile || !steady_flow(c, set, profile, s, first))
		goto here;
	s->report.report_version = 10;
	at = find_source(s, s->spread_source);
	s->spread_source = at;
	source = sources.lookup(&at);
	if (!source || at == NOBODY)
		goto here;
	said = (void *)(long)ctx->data_meta;
	if ((void *)(said + 1) > (void *)(long)ctx->data) { /* nothing, or not enough, was in front of it */
		if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*said)))
			goto here;
		said = (void *)(long)ctx->data_meta;
		if ((void *)(said + 1) > (void *)(long)ctx->data)
			goto here; /* cannot be */
	}
	*said = (struct resume){.magic = SPREAD_MAGIC};
	source->seen_ns = coarse_now(s);
	if (!continue_run(source, s->report.sequence_number, 0)) {
		bpf_spin_lock(&source->lock);
		number_received(source, s->report.sequence_number, 0);
		bpf_spin_unlock(&source->lock);
	}
	own->spread++;
	key = (u64 *)&s->key;
	mixed = (key[0] ^ key[1] ^ key[2] ^ key[3] ^ key[4] ^ key[2] << 32) * 0x9E3779B97F4A7C15ULL >> 32;
	at = mixed * set->cpu_count >> 32;
	return cpus.redirect_map(set->cpus[at & (MAX_SPREAD - 1)], 0);
here:
	said = (void *)(long)ctx->data_meta;
	if ((void *)(said + 1) <= (void *)(long)ctx->data && said->magic == SPREAD_MAGIC)
		said->magic = 0; /* left from an earlier life of its memory */
	again.call(ctx, 1);
	return XDP_PASS; /* cannot be */
}
#endif
