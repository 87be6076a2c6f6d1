/* INT: shim, header and stack, wherever they are carried. Free of branches inside a hop. */
#ifndef INTCOLLECTOR_STACK_H
#define INTCOLLECTOR_STACK_H

#include "scratch.h"
#include "wire.h"

/* Section 2.3: do the bytes behind a TCP header begin INT, or its options? */
inline_always bool looks_like_shim(const struct shim *shim)
{
	u8 b0 = shim->b[0], b1 = shim->b[1], b2 = shim->b[2];

	if (b0 == 1 || b0 == 2)
		return b1 == 0 && b2 >= 3;
	return (b0 == 0x10 || b0 == 0x20 || b0 == 0x30) && b1 >= 3;
}

inline_always u32 popcount16(u32 x)
{
	x = x - (x >> 1 & 0x5555);
	x = (x & 0x3333) + (x >> 2 & 0x3333);
	x = (x + (x >> 4)) & 0x0F0F;
	return (x + (x >> 8)) & 31;
}

/* Words that only the source of a domain adds, behind the stack (section 2.7). */
inline_always u32 source_only_words(const struct settings *set, u32 domain)
{
	u32 words = 0;

#pragma unroll
	for (int i = 0; i < MAX_DOMAINS; i++)
		if (set->domains[i] == domain)
			words = set->domain_words[i];
	return words;
}

/* The shim over TCP or UDP, section 2.4, into s->shim. */
inline_always u32 parse_shim(struct cursor *c, const struct profile *profile, struct scratch *s)
{
	const struct inner *inner = &s->inner;
	struct shim_said *said = &s->shim;
	struct stack *stack = &s->stack;
	struct shim *shim;
	u32 at = inner->payload;

	if (inner->after_options != inner->payload && profile->tcp_int_position != TCP_INT_BEFORE_OPTIONS) {
		c->at = inner->payload;
		shim = profile->tcp_int_position == TCP_INT_AUTO ? TAKE(c, struct shim) : 0;
		if (!shim || !looks_like_shim(shim))
			at = inner->after_options;
	}
	c->at = meet(at, &s->meeting) & MAX_AT;
	c->end = reread(&s->end);
	if (c->at > c->end)
		return OUTCOME_TRUNC_INNER;
	shim = TAKE(c, struct shim);
	if (!shim)
		return OUTCOME_TRUNC_SHIM;

	u32 b0 = shim->b[0];

	said->v2 = (b0 & 0xF0) != 0;
	said->type = b0 & 0xF0 ? b0 >> 4 : b0;
	said->length = b0 & 0xF0 ? shim->b[1] : shim->b[2];
	said->tail = 1;
	said->at = c->at;
	if (b0 & 0xF0 && (b0 & 3 || (b0 & 12) == 12))
		return OUTCOME_BAD_SHIM_TYPE;
	stack->npt = b0 & 0xF0 ? b0 >> 2 & 3 : 0;
	stack->by_npt = shim->b[2] << 8 | shim->b[3];
	stack->original = c->at + said->length * 4;
	return OUTCOME_OK;
}

/* The INT header, section 2.5. Leaves in s->stack where the hops are and what they hold; nothing of the record is set
 * before all of it is right. */
inline_always u32 parse_int_header(struct cursor *c, const struct settings *set, const struct profile *profile,
				   struct scratch *s)
{
	struct report *r = &s->report;
	struct stack *stack = &s->stack;
	const struct shim_said *said = &s->shim;
	u32 length = said->length, type = said->type, version, bitmap, wide, w0, words, stride, hop_ml, behind = 0,
	    mode = 0;
	bool v2 = said->v2;

	if (v2 ? type < INT_TYPE_MD || type > INT_TYPE_MX : (type != INT_TYPE_MD && type != INT_TYPE_DESTINATION))
		return OUTCOME_BAD_SHIM_TYPE;
	stack->hops = 0;
	stack->version = 0;
	if (type == INT_TYPE_DESTINATION)
		return OUTCOME_OK; /* contents undefined: a flow without hops */
	if (length < 3)
		return OUTCOME_BAD_SHIM_LEN;
	c->at = reread(&said->at) & MAX_AT;
	c->end = reread(&s->end);

	struct int_header *header = TAKE(c, struct int_header);

	if (!header || (v2 && !take(c, 4)))
		return OUTCOME_TRUNC_MD_HDR;
	w0 = BE32(header->w0);
	bitmap = BE32(header->w1) >> 16;
	words = length - 3;
	hop_ml = w0 >> 8 & 31;
	if (v2) {
		u32 domain = BE32(header->w1) & 0xFFFF;

		if (w0 >> 28 != 2)
			return OUTCOME_BAD_INT_VER;
		version = 20;
		if (type == INT_TYPE_MX) {
			mode = REPORT_INT_MX;
			words = 0;
			stride = 1;
			wide = 0;
			goto known;
		}
		wide = WIDE_2X;
		if (domain)
			behind = source_only_words(set, domain);
		if (words < behind)
			return OUTCOME_STACK_NOT_MULTIPLE;
		words -= behind;
		if (!hop_ml && (words || bitmap))
			return OUTCOME_HOP_ML_ZERO;
		stride = popcount16(bitmap) + popcount16(bitmap & wide);
		if (hop_ml < stride || (!domain && hop_ml != stride))
			return OUTCOME_HOP_ML_MISMATCH;
		stride = hop_ml;
	} else if (w0 >> 28 == 1 || (w0 >> 28 == 0 && !(w0 >> 16 & 0x7F))) {
		u32 bits = popcount16(bitmap);

		if (w0 >> 28 == 0 && !profile->accept_int_version_0)
			return OUTCOME_BAD_INT_VER;
		version = 10;
		if (!hop_ml && (words || bitmap))
			return OUTCOME_HOP_ML_ZERO;
		wide = profile->wide_v1;
		stride = bits + popcount16(bitmap & wide);
		if (hop_ml != (profile->hop_ml_is_bit_count ? bits : stride))
			return OUTCOME_HOP_ML_MISMATCH;
	} else if (w0 >> 28 == 0) {
		version = 5;
		wide = 0;
		behind = said->tail; /* section 2.8 */
		if (words < behind)
			return OUTCOME_BAD_SHIM_LEN;
		words -= behind;
		stride = popcount16(bitmap);
		if ((w0 >> 16 & 31) != stride)
			return OUTCOME_BAD_INS_CNT;
		if (!stride && words)
			return OUTCOME_HOP_ML_ZERO;
	} else {
		return OUTCOME_BAD_INT_VER;
	}
known:
	stack->version = version;
	stack->wide = wide;
	stack->bitmap = bitmap;
	stack->at = c->at;
	stack->words = words;
	stack->behind = behind;
	stack->mode = mode;

	stack->stride = stride;
	r->hop_ml = hop_ml;
	r->remaining_hop_count = w0;
	return OUTCOME_OK;
}

/* How many hops, and are they all there? */
inline_always u32 count_hops(struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	struct stack *stack = &s->stack;
	u32 stride = stack->stride & 63, words = stack->words, hops = 0;

	if (stride) {
		hops = words / stride;
		if (hops * stride != words)
			return OUTCOME_STACK_NOT_MULTIPLE;
	}
	if (stack->at + (words + stack->behind) * 4 > c->end)
		return OUTCOME_TRUNC_STACK;
	stack->hops = hops;
	stack->stride = stride * 4;
	r->flags |= REPORT_INT | stack->mode;
	r->int_version = stack->version;
	r->instruction_bitmap = stack->bitmap;
	r->hop_count = hops;
	return OUTCOME_OK;
}

/* All ones if the bit's item takes 8 bytes. */
inline_always u32 wide_mask(u32 wide, int bit)
{
	u32 one = wide >> (15 - bit) & 1;

	FENCE(one);
	return 0 - one;
}

/* From the bitmap, once a packet: where each item stands in a hop's words, and how wide it is. */
inline_always void locate_items(struct stack *stack, u32 queue_word_16_16)
{
	struct widths *w = &stack->widths;
	u32 bitmap = stack->bitmap, wide = stack->wide & bitmap, at = 0;

#pragma unroll
	for (int bit = 0; bit <= BIT_BUFFER; bit++) {
		u32 present = bitmap >> (15 - bit) & 1, absent = present - 1;

		stack->items[bit].at = at & ~absent; /* an absent item reads the hop's first word, to no effect */
		stack->items[bit].absent = absent;
		at += present * 4 + (present & wide >> (15 - bit)) * 4;
	}
	u32 absent = (bitmap & 1) - 1;

	stack->checksum.at = (stack->stride - 4) & ~absent;
	stack->checksum.absent = absent;
	if (stack->version == 5) { /* bit 6 is another thing there, shaped like the buffer word of 2.x */
		stack->items[BIT_BUFFER] = stack->items[BIT_L2_PORTS];
		stack->items[BIT_L2_PORTS].absent = NONE32;
	} else if (stack->version == 10) {
		stack->items[BIT_BUFFER].absent = NONE32;
	}
	w->ingress_timestamp = wide_mask(wide, BIT_INGRESS_TIMESTAMP);
	w->egress_timestamp = wide_mask(wide, BIT_EGRESS_TIMESTAMP);
	w->l2_ports = wide_mask(wide, BIT_L2_PORTS);
	w->apart = NONE32 | (u64)(w->ingress_timestamp & w->egress_timestamp) << 32;
	w->queue_shift = 24 - (queue_word_16_16 & 1) * 8;
	w->queue_mask = (1U << w->queue_shift) - 1;
}

/* The word at a place in the packet; WORD leaves the function where the packet ends before it, which cannot happen after
 * count_hops() has compared the stack's length, but the verifier was not there. */
#define WORD(c, place)                                                                                                 \
	({                                                                                                             \
		u32 *_p = (c)->data + ((place) & MAX_AT);                                                              \
		if ((void *)(_p + 1) > (c)->data_end)                                                                  \
			return false;                                                                                  \
		(u64) BE32(*_p);                                                                                       \
	})

/* An item of one word; all ones where it is absent. */
#define ITEM(c, stack, hop_at, bit) (WORD(c, (hop_at) + (stack)->items[bit].at) | (stack)->items[bit].absent)

/* A timestamp of 4 or 8 bytes. */
inline_always u64 timestamp(u64 first, u64 last, u64 wide, u64 absent)
{
	u64 high = (first & wide) | (ones_if_none32(last) & ~wide);

	return (high | absent) << 32 | last | absent;
}

/* The hop's latency and timestamps, and the sums over all hops. A hop without a latency but with both timestamps has one
 * by subtraction, in their width; more than 32 bits of it is nothing that could be shown. */
inline_always bool parse_times(struct cursor *c, const struct stack *stack, const struct widths *w, u64 at,
			       struct hop *hop, struct sums *sums)
{
	u64 latency = ITEM(c, stack, at, BIT_HOP_LATENCY), none, ingress, egress, apart, missing;
	u64 place = at + stack->items[BIT_INGRESS_TIMESTAMP].at;
	u64 first = WORD(c, place), last = WORD(c, place + (w->ingress_timestamp & 4));

	ingress = timestamp(first, last, w->ingress_timestamp, stack->items[BIT_INGRESS_TIMESTAMP].absent);
	place = at + stack->items[BIT_EGRESS_TIMESTAMP].at;
	first = WORD(c, place);
	last = WORD(c, place + (w->egress_timestamp & 4));
	egress = timestamp(first, last, w->egress_timestamp, stack->items[BIT_EGRESS_TIMESTAMP].absent);
	hop->hop_latency = latency;
	hop->ingress_timestamp = ingress;
	hop->egress_timestamp = egress;

	none = ones_if_none32(latency);
	sums->latency += latency & ~none;
	sums->found |= ~none;
	apart = (egress - ingress) & w->apart;
	missing = is_nonzero64(apart >> 32) | ((is_nonzero64(~ingress) & is_nonzero64(~egress)) ^ 1);
	FENCE(missing);
	missing = (0 - missing) & NONE32;
	latency = (latency & ~none) | ((apart | missing) & NONE32 & none);
	hop->latency = latency;
	none = ones_if_none32(latency);
	sums->flow_latency += latency & ~none;
	sums->flow_found |= ~none;
	return true;
}

inline_always bool parse_hop(struct cursor *c, const struct stack *stack, const struct widths *w, u64 at,
			     struct hop *hop, struct sums *sums)
{
	u64 word, last, absent, place, l2 = w->l2_ports;

	hop->switch_id = ITEM(c, stack, at, BIT_SWITCH_ID);

	word = ITEM(c, stack, at, BIT_PORTS);
	hop->ingress_port_id = word >> 16;
	hop->egress_port_id = word;

	word = ITEM(c, stack, at, BIT_QUEUE);
	hop->queue_id = widen(word >> w->queue_shift, 32 - w->queue_shift);
	hop->queue_occupancy = widen(word & w->queue_mask, w->queue_shift);

	place = at + stack->items[BIT_L2_PORTS].at;
	word = WORD(c, place);
	last = WORD(c, place + (l2 & 4));
	absent = stack->items[BIT_L2_PORTS].absent;
	hop->l2_ingress_port_id = (word & l2) | (widen(word >> 16, 16) & ~l2) | absent;
	hop->l2_egress_port_id = (last & l2) | (widen(word & 0xFFFF, 16) & ~l2) | absent;

	hop->egress_port_tx_utilization = ITEM(c, stack, at, BIT_TX_UTILIZATION);

	word = ITEM(c, stack, at, BIT_BUFFER);
	hop->buffer_id = word >> 24;
	hop->buffer_occupancy = widen(word & 0xFFFFFF, 24);
	hop->pad = 0;
	hop->checksum_complement = WORD(c, at + stack->checksum.at) | stack->checksum.absent;
	return parse_times(c, stack, w, at, hop, sums);
}

/* The latencies of the hops that are not kept, so that the sums are of all. Timestamps are not read for it: a hop that has
 * no latency of its own leaves the flow without one. */
inline_always void sum_the_rest(struct cursor *c, const struct stack *stack, u64 at, struct sums *sums)
{
	u64 hops = stack->hops, stride = stack->stride, absent = stack->items[BIT_HOP_LATENCY].absent;

	at += stack->items[BIT_HOP_LATENCY].at;
#pragma clang loop unroll(disable)
	for (u64 i = MAX_HOPS; i < MAX_STACK_WORDS; i++) {
		u32 *p = c->data + (at & MAX_AT);

		FENCE(i);
		if (i >= hops || (void *)(p + 1) > c->data_end)
			break;
		u64 latency = BE32(*p) | absent, none = ones_if_none32(latency);

		sums->latency += latency & ~none;
		sums->flow_latency += latency & ~none;
		sums->found |= ~none;
		sums->missing |= none;
		at += stride;
	}
	REREAD();
}

/* The hops, sections 2.6 and 2.7, nearest the sink first. MAX_HOPS are kept, the sums are over all.
 * Free of branches inside: a field that is not there is read from somewhere and or'ed to all ones. */
inline_always u32 parse_stack(struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	struct stack *stack = &s->stack;
	struct sums *sums = &s->sums;
	const struct widths *w = &stack->widths;
	u64 hops = stack->hops, at = stack->at, stride = stack->stride;

	*sums = (struct sums){};
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < MAX_HOPS; i++) {
		FENCE(i); /* or the compiler makes the end i != ..., in which the verifier sees no bound */
		if (i >= hops)
			break;
		r->hops[i].cell = HEAD_CELLS + 1 + i;
		if (!parse_hop(c, stack, w, at, &r->hops[i], sums))
			return OUTCOME_TRUNC_STACK;
		at += stride;
	}
	REREAD(); /* of hops, of which each way out of the loop knows something else */
	if (stack->hops > MAX_HOPS) {
		r->flags |= REPORT_HOPS_TRUNCATED;
		sum_the_rest(c, stack, at, sums);
	}
	r->latency = sums->latency | ((u64)(sums->found & 1) - 1);
	r->flow_latency = sums->flow_latency | ((u64)(sums->flow_found & ~sums->missing & 1) - 1);
	return OUTCOME_OK;
}

/* The flow as it was before the INT source took its UDP port (NPT 1), or put a UDP header in front (NPT 2): section 2.4. */
inline_always u32 original_flow(struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	struct flow_key *key = &s->key;
	struct stack *stack = &s->stack;
	u32 source_port = 0, destination_port = 0;

	if (stack->npt == NPT_PORT) {
		r->destination_port = stack->by_npt;
		key->destination_port = stack->by_npt;
		return OUTCOME_OK;
	}
	r->protocol = stack->by_npt;
	key->protocol = stack->by_npt;
	r->flags &= ~REPORT_FLOW_PORTS;
	if (r->protocol == PROTOCOL_TCP || r->protocol == PROTOCOL_UDP) {
		u32 *ports;

		c->at = meet(stack->original, &s->meeting) & MAX_AT;
		c->end = reread(&s->end);
		ports = TAKE(c, u32); /* source 16 | destination 16, in TCP and UDP */
		if (ports) {
			r->flags |= REPORT_FLOW_PORTS;
			source_port = BE32(*ports) >> 16;
			destination_port = BE32(*ports) & 0xFFFF;
		}
	}
	r->source_port = source_port;
	r->destination_port = destination_port;
	key->source_port = source_port;
	key->destination_port = destination_port;
	return OUTCOME_OK;
}

/* Section 5, steps 5 to 9. s->inner says where INT may be. */
inline_always u32 parse_int(struct cursor *c, const struct settings *set, const struct profile *profile,
			    struct scratch *s)
{
	u32 outcome;

	if (s->inner.where == INT_AT_L4) {
		outcome = parse_shim(c, profile, s);
		if (outcome)
			return outcome;
	} else {
		s->stack.npt = 0;
	}
	REREAD();
	find_ends(c);
	outcome = parse_int_header(c, set, profile, s);
	if (outcome)
		return outcome;
	REREAD();
	if (!s->stack.version)
		return OUTCOME_OK;
	outcome = count_hops(c, s);
	if (outcome)
		return outcome;
	REREAD();
	locate_items(&s->stack, profile->queue_word_16_16 & (s->stack.version == 10));
	REREAD();
	find_ends(c);
	outcome = parse_stack(c, s);
	if (outcome || !s->stack.npt)
		return outcome;
	REREAD();
	return original_flow(c, s);
}

#endif
