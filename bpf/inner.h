/* The packet inside a report, and those inside of it: whose flow it is, and where INT may be. */
#ifndef INTCOLLECTOR_INNER_H
#define INTCOLLECTOR_INNER_H

#include "stack.h"

inline_always bool is_tag(u16 type)
{
	return type == BE16(ETHER_VLAN) || type == BE16(ETHER_QINQ);
}

/* --- the inner packet ------------------------------------------------------------------------------------------------- */

#define LAYERS 16 /* what gives an enum layer may also refuse: an outcome + LAYERS */

inline_always u32 layer_of(u16 type)
{
	if (type == BE16(ETHER_IPV4))
		return LAYER_IPV4;
	if (type == BE16(ETHER_IPV6))
		return LAYER_IPV6;
	if (type == BE16(ETHER_MPLS) || type == BE16(ETHER_MPLS_MULTICAST))
		return LAYER_MPLS;
	return type == BE16(ETHER_TRANSPARENT) ? LAYER_ETHERNET : LAYER_NONE;
}

/* Ethernet and up to two tags. Gives what comes next, or a refusal. */
inline_always u32 parse_inner_ethernet(struct cursor *c, struct scratch *s)
{
	struct inner *inner = &s->inner;
	struct ethernet *ethernet = TAKE(c, struct ethernet);
	u16 type;

	if (!ethernet)
		return OUTCOME_TRUNC_INNER + LAYERS;
	type = ethernet->type;
	inner->vlan_count = 0;
	inner->vlan_ids[0] = 0;
	inner->vlan_ids[1] = 0;
#pragma unroll
	for (int i = 0; i <= MAX_VLANS; i++) {
		struct vlan_tag *tag;

		if (!is_tag(type))
			break;
		if (i == MAX_VLANS)
			return OUTCOME_BAD_INNER_VLAN + LAYERS;
		tag = TAKE(c, struct vlan_tag);
		if (!tag)
			return OUTCOME_TRUNC_INNER + LAYERS;
		inner->vlan_ids[i] = BE16(tag->control) & 0xFFF;
		inner->vlan_count = i + 1;
		type = tag->type;
	}
	c->at = meet(c->at, &s->meeting) & MAX_AT;
	type = layer_of(type);
	return type == LAYER_ETHERNET ? LAYER_NONE : type;
}

/* MPLS labels down to the bottom of the stack, where nothing names what comes next but its first bits. */
inline_always u32 parse_labels(struct cursor *c, struct scratch *s)
{
	u32 bottom = 0;
	u8 *first;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_LABELS; i++) {
		u32 *label;

		FENCE(i);
		c->at = meet(c->at, &s->meeting) & MAX_AT;
		label = TAKE(c, u32);
		if (!label)
			break;
		bottom = *label & BE32(0x100);
		if (bottom)
			break;
	}
	c->at = meet(c->at, &s->meeting) & MAX_AT;
	if (!meet(bottom, &s->meeting))
		return OUTCOME_UNKNOWN_ENCAPSULATION + LAYERS;

	u32 start = c->at;

	first = TAKE(c, u8);
	c->at = start;
	if (first && *first >> 4 == 4)
		return LAYER_IPV4;
	if (first && *first >> 4 == 6)
		return LAYER_IPV6;
	return OUTCOME_UNKNOWN_ENCAPSULATION + LAYERS;
}

/* IPv4 or IPv6: whose flow it is. */
inline_always u32 parse_inner_ip(struct cursor *c, struct scratch *s, u32 layer)
{
	struct inner *inner = &s->inner;
	struct report *r = &s->report;
	struct flow_key *key = &s->key;

	inner->fragment = 0;
	if (layer == LAYER_IPV4) {
		u32 start = c->at, header;
		struct ipv4 *ip = TAKE(c, struct ipv4);

		if (!ip)
			return OUTCOME_TRUNC_INNER;
		header = (ip->version_ihl & 15) * 4;
		if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip))
			return OUTCOME_BAD_INNER_IP;
		if (start + header > c->end)
			return OUTCOME_TRUNC_INNER;
		r->protocol = ip->protocol;
		r->dscp = ip->tos >> 2;
		inner->fragment = ip->fragment & BE16(0x1FFF);
		copy_ipv4(key->source, ip->source);
		copy_ipv4(key->destination, ip->destination);
		key->ip_version = 4;
		r->flags = (r->flags & ~(REPORT_FLOW_IPV6 | REPORT_FLOW_PORTS)) | REPORT_FLOW_IPV4;
		c->at = start + header;
	} else {
		struct ipv6 *ip = TAKE(c, struct ipv6);

		if (!ip)
			return OUTCOME_TRUNC_INNER;
		if (BE32(ip->version_class_flow) >> 28 != 6)
			return OUTCOME_BAD_INNER_IP;
		r->protocol = ip->next_header;
		r->dscp = BE32(ip->version_class_flow) >> 22 & 63;
		copy_ipv6(key->source, ip->source);
		copy_ipv6(key->destination, ip->destination);
		key->ip_version = 6;
		r->flags = (r->flags & ~(REPORT_FLOW_IPV4 | REPORT_FLOW_PORTS)) | REPORT_FLOW_IPV6;
	}
	r->vlan_count = inner->vlan_count;
	r->vlan_ids[0] = inner->vlan_ids[0];
	r->vlan_ids[1] = inner->vlan_ids[1];
	key->protocol = r->protocol;
	key->source_port = 0;
	key->destination_port = 0;
	r->source_port = 0;
	r->destination_port = 0;
	return OUTCOME_OK;
}

/* TCP or UDP: ports, and where INT would be. */
inline_always u32 parse_inner_l4(struct cursor *c, const struct settings *set, const struct profile *profile,
				 struct scratch *s, u32 protocol)
{
	struct inner *inner = &s->inner;
	struct report *r = &s->report;
	struct flow_key *key = &s->key;
	u32 start = c->at;
	struct udp *l4 = TAKE(c, struct udp); /* TCP begins with the ports, too */

	if (!l4)
		return OUTCOME_TRUNC_INNER;

	u16 source_port = BE16(l4->source_port), destination_port = BE16(l4->destination_port);

	inner->payload = start + sizeof(struct udp);
	inner->after_options = inner->payload;
	if (protocol == PROTOCOL_TCP) {
		struct tcp *tcp;
		u32 offset;

		c->at = start;
		tcp = TAKE(c, struct tcp);
		if (!tcp)
			return OUTCOME_TRUNC_INNER;
		offset = (tcp->data_offset >> 4) * 4;
		inner->payload = start + sizeof(*tcp);
		inner->after_options = start + offset;
	} else if (destination_port == PORT_VXLAN || destination_port == PORT_VXLAN_GPE ||
		   destination_port == PORT_GENEVE) {
		inner->tunnel = destination_port;
	}
	key->source_port = source_port;
	key->destination_port = destination_port;
	r->source_port = source_port;
	r->destination_port = destination_port;
	r->flags |= REPORT_FLOW_PORTS;
	if (inner->after_options < inner->payload)
		return OUTCOME_BAD_INNER_TCP;
	inner->signalled = (protocol == PROTOCOL_UDP && destination_port == set->int_udp_port) ||
			   (profile->int_dscp_marked && (r->dscp & profile->int_dscp_mask) == profile->int_dscp_value);
	if (inner->signalled || !profile->int_dscp_marked)
		inner->where = INT_AT_L4;
	return OUTCOME_OK;
}

/* The packet at inner->at, from its first layer on. Leaves in s->inner whether and where INT may be. */
inline_always u32 parse_inner(struct cursor *c, const struct settings *set, const struct profile *profile,
			      struct scratch *s)
{
	struct inner *inner = &s->inner;
	struct report *r = &s->report;
	u32 layer = inner->first, protocol, outcome;

	c->at = reread(&inner->at) & MAX_AT;
	c->end = reread(&s->end);
	inner->where = NO_INT;
	inner->tunnel = 0;
	inner->signalled = 0;
	inner->level_before = inner->level;
	r->flags |= REPORT_INNER;
	if (layer == LAYER_ETHERNET) {
		layer = parse_inner_ethernet(c, s);
		if (!inner->level && layer == LAYER_NONE) {
			r->vlan_count = inner->vlan_count;
			r->vlan_ids[0] = inner->vlan_ids[0];
			r->vlan_ids[1] = inner->vlan_ids[1];
		}
		layer = meet(layer, &s->meeting);
		c->at = meet(c->at, &s->meeting) & MAX_AT;
	}
	if (layer == LAYER_MPLS) {
		if (!inner->level) { /* the tags are the packet's, whatever is behind the labels */
			r->vlan_count = inner->vlan_count;
			r->vlan_ids[0] = inner->vlan_ids[0];
			r->vlan_ids[1] = inner->vlan_ids[1];
		}
		if (inner->flow_only)
			return OUTCOME_OK;
		if (inner->level >= MAX_TUNNELS)
			return OUTCOME_UNKNOWN_ENCAPSULATION;
		inner->level++;
		layer = parse_labels(c, s);
		layer = meet(layer, &s->meeting);
		c->at = meet(c->at, &s->meeting) & MAX_AT;
	}
	if (layer >= LAYERS)
		return layer - LAYERS;
	if (layer != LAYER_IPV4 && layer != LAYER_IPV6)
		return OUTCOME_OK;
	outcome = parse_inner_ip(c, s, layer);
	if (outcome)
		return outcome;
	c->at = meet(c->at, &s->meeting) & MAX_AT;
	REREAD();
	protocol = r->protocol;
	if (inner->fragment)
		return OUTCOME_OK;
	if (protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP)
		return parse_inner_l4(c, set, profile, s, protocol);
	if (protocol == PROTOCOL_GRE) {
		inner->tunnel = PROTOCOL_GRE;
		inner->payload = c->at;
	}
	return OUTCOME_OK;
}

/* --- encapsulations, section 2.9 ----------------------------------------------------------------------------------------- */

inline_always u32 go_on(struct inner *inner, u32 layer, u32 at)
{
	if (layer == LAYER_NONE)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	inner->where = IN_TUNNEL;
	inner->next = layer;
	inner->next_at = at;
	return OUTCOME_OK;
}

/* GRE:  C 1 | 1 R | K 1 | S 1 | .. 9 | Version 3 | Protocol Type 16, then a word each for C, K and S */
inline_always u32 parse_gre(struct cursor *c, const struct settings *set, struct scratch *s)
{
	struct inner *inner = &s->inner;
	u32 *word = TAKE(c, u32), w0;

	if (!word)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	w0 = BE32(*word);
	if (w0 & 0x40070000)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	c->at += ((w0 >> 31) + (w0 >> 29 & 1) + (w0 >> 28 & 1)) * 4;
	if (c->at > c->end)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	w0 &= 0xFFFF;
	if (set->int_gre_protocol && w0 == set->int_gre_protocol) {
		struct shim_said *said = &s->shim;
		struct shim *shim;

		c->at = meet(c->at, &s->meeting) & MAX_AT;
		inner->signalled = 1;
		inner->where = INT_IN_SHIM;
		shim = TAKE(c, struct shim);
		if (!shim)
			return OUTCOME_TRUNC_SHIM;
		said->v2 = 1;
		said->type = shim->b[0] >> 4;
		said->length = shim->b[1];
		said->at = c->at;
		inner->next = layer_of(shim->b[2] | shim->b[3] << 8);
		inner->next_at = c->at + shim->b[1] * 4;
		return OUTCOME_OK;
	}
	return go_on(inner, layer_of(BE16((u16)w0)), c->at);
}

enum next_protocol {
	NEXT_IPV4 = 1,
	NEXT_IPV6 = 2,
	NEXT_ETHERNET = 3,
	NEXT_INT_05 = 0x05,
	NEXT_INT_10 = 0x08,
	NEXT_INT_2X = 0x80,
};

inline_always u32 layer_of_next(u32 next)
{
	return next == NEXT_IPV4     ? LAYER_IPV4 :
	       next == NEXT_IPV6     ? LAYER_IPV6 :
	       next == NEXT_ETHERNET ? LAYER_ETHERNET :
				       LAYER_NONE;
}

/* VXLAN:  flags 8 (I 0x08, P 0x04 and O 0x01 of GPE, Version 0x30) | .. 16 | Next Protocol 8 of GPE | VNI 24 | .. 8 */
inline_always u32 parse_vxlan(struct cursor *c, struct scratch *s, u32 port)
{
	struct inner *inner = &s->inner;
	struct shim_said *said = &s->shim;
	struct shim *header = TAKE(c, struct shim), *shim;
	u32 flags, next;

	if (!header || !take(c, 4))
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	flags = header->b[0];
	next = header->b[3];
	if (port == PORT_VXLAN && !(flags & 0x08))
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	if ((port == PORT_VXLAN_GPE || flags & 0x04) && flags & 0x31)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	if (!(flags & 0x04))
		return go_on(inner, LAYER_ETHERNET, c->at);
	if (next != NEXT_INT_05 && next != NEXT_INT_10 && next != NEXT_INT_2X)
		return go_on(inner, layer_of_next(next), c->at);
	inner->signalled = next != NEXT_INT_05;
	inner->where = INT_IN_SHIM;
	c->at = meet(c->at, &s->meeting) & MAX_AT;
	shim = TAKE(c, struct shim);
	if (!shim)
		return OUTCOME_TRUNC_SHIM;
	said->v2 = next == NEXT_INT_2X;
	said->type = said->v2 ? shim->b[0] >> 4 : shim->b[0];
	said->length = said->v2 ? shim->b[1] : shim->b[2];
	said->at = c->at;
	inner->next = layer_of_next(shim->b[3]);
	inner->next_at = c->at + (said->length - !said->v2) * 4;
	return OUTCOME_OK;
}

/* Geneve:  Ver 2 | Opt Len 6 | O 1 | C 1 | .. 6 | Protocol Type 16 | VNI 24 | .. 8, then options of
 *  Class 16 | Type 8 | R 3 | Length 5, words of data. INT is one, without a shim. */
inline_always u32 parse_geneve(struct cursor *c, struct scratch *s)
{
	struct inner *inner = &s->inner;
	struct shim_said *said = &s->shim;
	u32 *word = TAKE(c, u32), w0, end;

	if (!word || !take(c, 4))
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	w0 = BE32(*word);
	end = c->at + (w0 >> 24 & 63) * 4;
	if (w0 & 0xC0800000 || end > c->end)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	inner->next = layer_of(BE16((u16)w0));
	inner->next_at = end;
	inner->where = IN_TUNNEL;
	said->at = 0;
	REREAD();
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MAX_OPTIONS; i++) {
		u32 length;

		FENCE(i);
		c->at = meet(c->at, &s->meeting) & MAX_AT;
		if (c->at >= inner->next_at)
			break;
		word = TAKE(c, u32);
		if (!word)
			return OUTCOME_UNKNOWN_ENCAPSULATION;
		w0 = BE32(*word);
		length = w0 & 31;
		if (c->at + length * 4 > inner->next_at)
			return OUTCOME_UNKNOWN_ENCAPSULATION;
		if (!said->at && (w0 >> 8 == (0x0103 << 8 | INT_TYPE_MD) || w0 >> 8 == (0x0103 << 8 | INT_TYPE_MX))) {
			said->at = c->at;
			said->type = w0 >> 8 & 0xFF;
			said->length = length;
		}
		c->at += length * 4;
	}
	REREAD();
	c->at = meet(c->at, &s->meeting) & MAX_AT;
	if (c->at < inner->next_at)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	if (!said->at)
		return inner->next == LAYER_NONE ? OUTCOME_UNKNOWN_ENCAPSULATION : OUTCOME_OK;
	inner->signalled = 1;
	inner->where = INT_IN_SHIM;

	u8 *first;

	c->at = said->at & MAX_AT;
	first = TAKE(c, u8);
	said->v2 = first && *first >> 4 == 2;
	if (said->length < (said->v2 ? 3 : 2))
		return OUTCOME_BAD_SHIM_LEN;
	if (said->type == INT_TYPE_MX && !said->v2)
		return OUTCOME_BAD_INT_VER;
	said->length += !said->v2; /* as if there were a shim */
	return OUTCOME_OK;
}

/* What the encapsulation behind the inner packet's headers holds. OK: inner->where says what is next. */
inline_always u32 parse_tunnel(struct cursor *c, const struct settings *set, struct scratch *s)
{
	struct inner *inner = &s->inner;
	u32 tunnel = inner->tunnel, outcome;

	if (inner->level >= MAX_TUNNELS)
		return OUTCOME_UNKNOWN_ENCAPSULATION;
	inner->level++;
	inner->no_l4_int = 0;
	inner->signalled = 0;
	inner->where = NO_INT;
	s->shim.tail = 0;
	c->at = reread(&inner->payload) & MAX_AT;
	c->end = reread(&s->end);
	if (tunnel == PROTOCOL_GRE)
		outcome = parse_gre(c, set, s);
	else if (tunnel == PORT_GENEVE)
		outcome = parse_geneve(c, s);
	else
		outcome = parse_vxlan(c, s, tunnel);
	return outcome;
}

/* --- all of it --------------------------------------------------------------------------------------------------------- */

/* A packet inside: what it is, and INT. s->inner.where IN_TUNNEL: the packet at next_at comes next. */
inline_always u32 parse_inside(struct cursor *c, const struct settings *set, const struct profile *profile,
			       struct scratch *s)
{
	struct inner *inner = &s->inner;
	u32 outcome = parse_inner(c, set, profile, s);

	REREAD();
	if (inner->flow_only) {
		inner->where = NO_INT;
		return OUTCOME_OK;
	}
	if (outcome)
		return inner->level ? OUTCOME_UNKNOWN_ENCAPSULATION : outcome;
	/* in front of an encapsulation INT has to be announced, and right */
	if (inner->tunnel && (inner->no_l4_int || !inner->signalled)) {
		outcome = parse_tunnel(c, set, s);
		REREAD();
		if (outcome)
			return inner->signalled ? outcome : OUTCOME_UNKNOWN_ENCAPSULATION;
	}
	if (inner->where == NO_INT || inner->where == IN_TUNNEL)
		return OUTCOME_OK;
	REREAD();
	find_ends(c);
	outcome = parse_int(c, set, profile, s);
	REREAD();
	if (inner->where == INT_IN_SHIM) {
		if (outcome)
			return inner->signalled ? outcome : OUTCOME_UNKNOWN_ENCAPSULATION;
		if (!s->stack.version && !inner->signalled)
			return OUTCOME_UNKNOWN_ENCAPSULATION;
		if (s->stack.version && inner->next != LAYER_NONE) {
			inner->flow_only = 1;
			inner->where = IN_TUNNEL;
		}
		return OUTCOME_OK;
	}
	if (inner->tunnel && (outcome || !s->stack.version)) {
		inner->no_l4_int = 1;
		inner->level = inner->level_before;
		inner->next = inner->first;
		inner->next_at = inner->at;
		inner->where = IN_TUNNEL;
		return OUTCOME_OK;
	}
	if (!inner->signalled)
		return OUTCOME_OK;
	return outcome == OUTCOME_TRUNC_INNER && inner->level ? OUTCOME_UNKNOWN_ENCAPSULATION : outcome;
}

#endif
