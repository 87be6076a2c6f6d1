/* Wire -> struct report. One function a header; every report version ends in struct report. Pure: no maps, no clock.
 * The order of the checks is docs/wire.md's, which the Python decoder follows as well.
 *
 * Here: what is outside, and the report headers. inner.h: the packet in a report; stack.h: INT in that. */
#ifndef INTCOLLECTOR_PARSE_H
#define INTCOLLECTOR_PARSE_H

#include "inner.h"

/* --- outside ---------------------------------------------------------------------------------------------------------- */
inline_always bool is_report_port(const struct settings *set, u16 port)
{
	if (port == set->ports[0])
		return true;
#pragma unroll
	for (int i = 1; i < MAX_PORTS; i++)
		if (port == set->ports[i])
			return true;
	return false;
}

/* Ethernet to UDP, section 5, steps 1 and 2. Leaves the cursor at the report, its end at the end of the datagram. */
inline_always u32 parse_outer(struct cursor *c, const struct settings *set, struct scratch *s)
{
	struct report *r = &s->report;
	struct ethernet *ethernet = TAKE(c, struct ethernet);
	u32 ip_end; /* where the IP header's length field says the packet ends */
	u16 type;

	if (!ethernet)
		return OUTCOME_PASS_SHORT_L2;
	type = ethernet->type;
#pragma unroll
	for (int i = 0; i <= MAX_VLANS; i++) {
		struct vlan_tag *tag;

		if (!is_tag(type))
			break;
		if (i == MAX_VLANS)
			return OUTCOME_PASS_VLAN_DEPTH;
		tag = TAKE(c, struct vlan_tag);
		if (!tag)
			return OUTCOME_PASS_SHORT_L2;
		type = tag->type;
	}
	c->at = meet(c->at, &s->meeting);

	if (type == BE16(ETHER_IPV4)) {
		u32 start = c->at, header;
		struct ipv4 *ip = TAKE(c, struct ipv4);

		if (!ip)
			return OUTCOME_PASS_SHORT_L3;
		header = (ip->version_ihl & 15) * 4;
		if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
			return OUTCOME_PASS_BAD_IP;
		if (start + header > c->end)
			return OUTCOME_PASS_SHORT_L3;
		if (ip->fragment & BE16(0x3FFF))
			return OUTCOME_PASS_FRAGMENT;
		if (ip->protocol != PROTOCOL_UDP)
			return OUTCOME_PASS_NOT_UDP;
		copy_ipv4(r->source, ip->source);
		r->flags = 0;
		ip_end = start + BE16(ip->total_length);
		c->at = start + header;
	} else if (type == BE16(ETHER_IPV6)) {
		struct ipv6 *ip = TAKE(c, struct ipv6);

		if (!ip)
			return OUTCOME_PASS_SHORT_L3;
		if (BE32(ip->version_class_flow) >> 28 != 6)
			return OUTCOME_PASS_BAD_IP;
		if (ip->next_header == PROTOCOL_IPV6_FRAGMENT)
			return OUTCOME_PASS_FRAGMENT;
		if (ip->next_header != PROTOCOL_UDP)
			return OUTCOME_PASS_NOT_UDP;
		copy_ipv6(r->source, ip->source);
		r->flags = REPORT_SOURCE_IPV6;
		ip_end = c->at + BE16(ip->payload_length);
	} else {
		return OUTCOME_PASS_NOT_IP;
	}
	c->at = meet(c->at, &s->meeting) & MAX_AT;

	u32 start = c->at;
	struct udp *udp = TAKE(c, struct udp);

	if (!udp)
		return OUTCOME_PASS_SHORT_L4;
	if (!is_report_port(set, udp->destination_port)) {
		s->udp_port = BE16(udp->destination_port);
		return OUTCOME_PASS_PORT;
	}

	u32 length = BE16(udp->length);

	/* Ours. The IP length may end before the UDP header, hence no subtraction. */
	if (ip_end < start + sizeof(*udp))
		return OUTCOME_BAD_IP_LEN;
	if (ip_end > c->end)
		return OUTCOME_TRUNC_FRAME;
	if (length < sizeof(*udp) || start + length > ip_end)
		return OUTCOME_BAD_UDP_LEN;
	c->end = meet(start + length, &s->end);
	return OUTCOME_OK;
}

/* --- the report header ------------------------------------------------------------------------------------------------ */

inline_always void no_values(struct hop *hop)
{
	u64 *words = (u64 *)hop;

#pragma unroll
	for (int i = 0; i < sizeof(*hop) / 8; i++)
		words[i] = NONE64;
}

/* Telemetry Report 1.0's optional words, one for each bit: section 1.3. What the reporting switch says of itself. */
inline_always u32 parse_local_10(struct cursor *c, struct scratch *s, u32 bits)
{
	struct report *r = &s->report;
	struct hop *local = &r->local;

	no_values(local);
	local->pad = 0;
	local->switch_id = r->switch_id;
	r->flags |= REPORT_LOCAL;
	r->local_bitmap = bits;
#pragma unroll
	for (int bit = 0; bit < 6; bit++) {
		if (bits & 0x20 >> bit) {
			u32 *at = TAKE(c, u32), word;

			if (!at)
				return OUTCOME_TRUNC_REPORT_MD;
			word = BE32(*at);
			switch (bit) {
			case 0:
				local->ingress_port_id = word >> 16;
				local->egress_port_id = word;
				break;
			case 1:
				local->hop_latency = word;
				local->latency = word;
				break;
			case 2:
				local->queue_id = widen(word >> 24, 8);
				local->queue_occupancy = widen(word & 0xFFFFFF, 24);
				break;
			case 3:
				local->egress_timestamp = word | ones_if_none32(word) << 32;
				if (local->latency == NONE32 && word != NONE32)
					local->latency = word - r->ingress_timestamp;
				break;
			case 4:
				r->drop_queue_id = word >> 24;
				r->drop_reason = word >> 16;
				break;
			case 5:
				local->egress_port_tx_utilization = word;
				break;
			}
		}
		c->at = meet(c->at, &s->meeting);
	}
	return OUTCOME_OK;
}

/* Section 1.3. Leaves the cursor at the inner packet, and what its first layer is in s->inner. */
inline_always u32 parse_report_10(struct cursor *c, const struct profile *profile, struct scratch *s)
{
	struct report *r = &s->report;
	u32 start = c->at;
	struct report_10 *header = TAKE(c, struct report_10);
	u32 w0, length, bits;

	if (!header)
		return OUTCOME_TRUNC_REPORT;
	w0 = BE32(header->w0);
	length = REPORT_LENGTH(w0);
	bits = REPORT_MD_BITS(w0);
	if (length == 1 && profile->accept_report_length_1)
		length = 4;
	/* popcount of 6 bits */
	u32 words = bits - (bits >> 1 & 0x15);

	words = (words & 0x33) + (words >> 2 & 0x33);
	words = (words & 0x0F) + (words >> 4);
	if (length < 4 + words)
		return OUTCOME_BAD_REPORT_LEN;
	if (start + length * 4 > c->end)
		return OUTCOME_TRUNC_REPORT_MD;

	r->report_version = 10;
	r->switch_id = BE32(header->switch_id);
	r->sequence_number = BE32(header->sequence_number);
	r->ingress_timestamp = BE32(header->ingress_timestamp);
	r->hw_id = REPORT_HW_ID(w0);
	r->flags |= REPORT_D(w0) * REPORT_DROPPED | REPORT_Q(w0) * REPORT_CONGESTED_QUEUE |
		    REPORT_F(w0) * REPORT_TRACKED_FLOW;
	if (bits) {
		u32 outcome = parse_local_10(c, s, bits);

		if (outcome)
			return outcome;
	}
	s->inner.first = REPORT_NPROTO(w0);
	if (REPORT_NPROTO(w0) > LAYER_IPV6)
		return OUTCOME_UNSUPPORTED_NPROTO;
	s->inner.at = meet(start + length * 4, &s->meeting);
	return OUTCOME_OK;
}

/* Section 1.2: what 0.5's drop and switch-local headers hold, told in 1.0's bits. */
inline_always u32 parse_local_05(struct cursor *c, struct scratch *s, u32 nproto)
{
	struct report *r = &s->report;
	struct hop *local = &r->local;
	struct local_05 *header = TAKE(c, struct local_05);
	u32 word;

	if (!header)
		return OUTCOME_TRUNC_REPORT_MD;
	no_values(local);
	local->pad = 0;
	r->switch_id = BE32(header->switch_id);
	local->switch_id = r->switch_id;
	word = BE32(header->ports);
	local->ingress_port_id = word >> 16;
	local->egress_port_id = word;
	word = BE32(header->queue);
	r->flags |= REPORT_LOCAL;
	if (nproto == NPROTO_05_DROP) {
		r->local_bitmap = LOCAL_05_DROP;
		r->drop_queue_id = word >> 24;
		r->drop_reason = word >> 16;
	} else {
		u32 *stamp = TAKE(c, u32);

		if (!stamp)
			return OUTCOME_TRUNC_REPORT_MD;
		r->local_bitmap = LOCAL_05_LOCAL;
		local->queue_id = widen(word >> 24, 8);
		local->queue_occupancy = widen(word & 0xFFFFFF, 24);
		word = BE32(*stamp);
		local->egress_timestamp = word | ones_if_none32(word) << 32;
		if (word != NONE32)
			local->latency = word - r->ingress_timestamp;
	}
	return OUTCOME_OK;
}

/* Section 1.2. As parse_report_10. */
inline_always u32 parse_report_05(struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	struct report_05 *header = TAKE(c, struct report_05);
	u32 w0, nproto;

	if (!header)
		return OUTCOME_TRUNC_REPORT;
	w0 = BE32(header->w0);
	nproto = REPORT_05_NPROTO(w0);
	if (nproto > NPROTO_05_LOCAL)
		return OUTCOME_UNSUPPORTED_NPROTO;
	r->report_version = 5;
	r->switch_id = NONE32;
	r->sequence_number = BE32(header->sequence_number);
	r->ingress_timestamp = BE32(header->ingress_timestamp);
	r->hw_id = REPORT_HW_ID(w0);
	r->flags |= REPORT_05_D(w0) * REPORT_DROPPED | REPORT_05_Q(w0) * REPORT_CONGESTED_QUEUE |
		    REPORT_05_F(w0) * REPORT_TRACKED_FLOW;
	if (nproto != NPROTO_05_ETHERNET) {
		u32 outcome = parse_local_05(c, s, nproto);

		if (outcome)
			return outcome;
	}
	s->inner.first = LAYER_ETHERNET;
	s->inner.at = meet(c->at, &s->meeting);
	return OUTCOME_OK;
}

/* Section 1.4: the group header. Leaves the first individual report in s->group. */
inline_always u32 parse_group(struct cursor *c, struct scratch *s)
{
	struct group *group = &s->group;
	struct group_20 *header = TAKE(c, struct group_20);

	if (!header)
		return OUTCOME_TRUNC_REPORT;
	group->active = 1;
	group->count = 0;
	group->telling = 0;
	group->unknown = 0;
	group->end = c->end;
	group->w0 = BE32(header->w0);
	group->switch_id = BE32(header->node_id);
	group->first = c->at;
	group->at = c->at;
	return OUTCOME_OK;
}

/* --- individual reports, section 1.4 -------------------------------------------------------------------------------------- */

/* What the reporting node says of itself: laid out as a hop's words, but for the last bit. */
inline_always bool parse_local_20(struct cursor *c, struct scratch *s, u32 bits, u32 at)
{
	struct report *r = &s->report;
	struct stack *stack = &s->stack;
	struct hop *local = &r->local;

	stack->bitmap = bits;
	stack->wide = WIDE_2X;
	stack->version = 20;
	stack->stride = (popcount16(bits) + popcount16(bits & WIDE_2X)) * 4;
	REREAD();
	locate_items(stack, 0);
	REREAD();
	if (!parse_hop(c, stack, &stack->widths, at, local, &s->sums))
		return false;
	REREAD();
	local->switch_id = r->switch_id;
	local->checksum_complement = NONE32;
	r->flags |= REPORT_LOCAL;
	r->local_bitmap = bits;
	if (bits & 1) {
		u32 word = WORD(c, at + stack->checksum.at);

		r->drop_queue_id = word >> 24;
		r->drop_reason = word >> 16;
	}
	return true;
}

/* The TLVs of an individual report: the first that is a packet is the inner one. */
inline_always u32 parse_tlvs(struct cursor *c, struct scratch *s, u32 at, u32 end)
{
	struct group *group = &s->group;
	struct inner *inner = &s->inner;

	group->tlv_at = at;
	group->found = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_TLVS; i++) {
		u32 *word, w0, length, type;

		FENCE(i);
		c->at = reread(&group->tlv_at) & MAX_AT;
		if (c->at + 4 > end)
			return OUTCOME_OK;
		word = TAKE(c, u32);
		if (!word)
			return OUTCOME_BAD_TLV;
		w0 = BE32(*word);
		length = (w0 >> 16 & 0xFF) * 4;
		if (c->at + length > end)
			return OUTCOME_BAD_TLV;
		type = w0 >> 28;
		if (type >= 1 && type <= 3 && !group->found) {
			group->found = 1;
			inner->first = type - 1;
			inner->at = c->at;
			s->end = c->at + length;
		}
		group->tlv_at = c->at + length;
		REREAD();
	}
	/* more than are walked here */
	return group->tlv_at + 4 > end ? OUTCOME_OK : OUTCOME_UNDECODED;
}

/* The individual report at group->at. Leaves what its inner packet is in s->inner: LAYER_NONE where there is none. */
inline_always u32 parse_individual(struct cursor *c, struct scratch *s)
{
	struct report *r = &s->report;
	struct group *group = &s->group;
	struct inner *inner = &s->inner;
	u32 at = group->at, end, *word, w0, contents, in, outcome;

	c->at = meet(at, &s->meeting);
	c->end = reread(&group->end);
	if (c->at > MAX_AT / 2)
		return OUTCOME_UNDECODED;
	at = c->at;
	if (!group->count && at + 4 > c->end)
		return at == c->end ? OUTCOME_NO_INDIVIDUAL : OUTCOME_TRUNC_INDIV;
	word = TAKE(c, u32);
	if (!word)
		return OUTCOME_TRUNC_INDIV;
	w0 = BE32(*word);
	end = INDIVIDUAL_LENGTH(w0) == 0xFF ? c->end : at + 4 + INDIVIDUAL_LENGTH(w0) * 4;
	if (end > c->end)
		return OUTCOME_BAD_INDIV_LEN;
	group->next = end;
	r->report_version = 20;
	r->switch_id = group->switch_id;
	r->sequence_number = GROUP_SEQUENCE(group->w0);
	r->hw_id = GROUP_HW_ID(group->w0);
	r->flags |= INDIVIDUAL_D(w0) * REPORT_DROPPED | INDIVIDUAL_Q(w0) * REPORT_CONGESTED_QUEUE |
		    INDIVIDUAL_F(w0) * REPORT_TRACKED_FLOW | INDIVIDUAL_I(w0) * REPORT_INTERMEDIATE;
	if (group->count)
		r->flags |= REPORT_CONTINUED;
	contents = at + 4;
	in = INDIVIDUAL_IN(w0);
	if (INDIVIDUAL_TYPE(w0) == REP_INT) {
		u32 bits, words = INDIVIDUAL_MD_LENGTH(w0);

		contents += 8 + words * 4;
		if (contents > end)
			return OUTCOME_BAD_INDIV_LEN;
		word = TAKE(c, u32);
		if (!word)
			return OUTCOME_BAD_INDIV_LEN;
		bits = BE32(*word) >> 16;
		if (words < popcount16(bits) + popcount16(bits & WIDE_2X))
			return OUTCOME_MD_LEN_TOO_SMALL;
		if (bits && !parse_local_20(c, s, bits, at + 12))
			return OUTCOME_BAD_INDIV_LEN;
		REREAD();
	} else if (INDIVIDUAL_TYPE(w0) != REP_INNER_ONLY) {
		in = 0;
	}
	inner->first = LAYER_NONE;
	s->end = end;
	contents = meet(contents, &s->meeting);
	if (in == IN_TLV) {
		outcome = parse_tlvs(c, s, contents, end);
		if (outcome)
			return outcome;
	} else if (in >= IN_ETHERNET && in <= IN_IPV6) {
		inner->first = in - IN_ETHERNET;
		inner->at = contents;
	}
	REREAD();
	return OUTCOME_OK;
}

/* --- a report --------------------------------------------------------------------------------------------------------- */

inline_always void clear(struct scratch *s)
{
	struct report *r = &s->report;
	u64 *head = (u64 *)r, *key = (u64 *)&s->key;
	u16 flags = r->flags & REPORT_SOURCE_IPV6;

	/* all before the exporter's address, which is there already */
#pragma unroll
	for (int i = 2; i < __builtin_offsetof(struct report, source) / 8; i++)
		head[i] = 0;
	r->drop_queue_id = 0xFF;
	r->drop_reason = 0xFF;
	r->latency = NONE64;
	r->flow_latency = NONE64;
	r->flags = flags;
	key[4] = 0;
	s->inner.level = 0;
	s->inner.flow_only = 0;
	s->inner.no_l4_int = 0;
	s->inner.vlan_count = 0;
	s->inner.vlan_ids[0] = 0;
	s->inner.vlan_ids[1] = 0;
}

/* The header that every report version begins with. Leaves where the inner packet is in s->inner, or for 2.0 the group. */
inline_always u32 parse_report(struct cursor *c, const struct profile *profile, struct scratch *s)
{
	u32 *w0, start = c->at;

	s->group.active = 0;
	w0 = TAKE(c, u32);
	if (!w0)
		return OUTCOME_TRUNC_REPORT;
	c->at = start;
	switch (REPORT_VERSION(BE32(*w0))) {
	case 0:
		return parse_report_05(c, s);
	case 1:
		return parse_report_10(c, profile, s);
	case 2:
		return parse_group(c, s);
	default:
		return OUTCOME_BAD_REPORT_VER;
	}
}

#endif
