/* Wire -> struct report. One function a header; every report version ends in struct report. Pure: no maps, no clock.
 * The order of the checks is docs/wire.md's, which the Python decoder follows as well. */
#ifndef INTCOLLECTOR_PARSE_H
#define INTCOLLECTOR_PARSE_H

#include "cursor.h"
#include "wire.h"

#define NONE32 0xFFFFFFFFU
#define NONE64 0xFFFFFFFFFFFFFFFFULL

/* How a hop's words are laid out: byte offset of each item, and all ones where it is absent, to be or'ed in. */
struct item {
	u32 at;
	u32 absent;
};

/* What is the same for all hops, as masks: all ones where an item takes 8 bytes. */
struct widths {
	u32 ingress_timestamp;
	u32 egress_timestamp;
	u32 l2_ports;
	u64 apart; /* of the difference of both timestamps */
	u32 queue_shift;
	u32 queue_mask;
	u32 pad;
};

struct stack {
	u32 at;	    /* of the first hop */
	u32 stride; /* bytes a hop */
	u32 words;  /* of all hops */
	u32 behind; /* words behind them */
	u32 hops;   /* in the packet */
	u32 bitmap;
	u32 wide;    /* bits whose item takes 8 bytes */
	u32 version; /* 5, 10, 20; 0: there is nothing to read */
	u32 mode;    /* REPORT_INT_MX or 0 */
	u32 npt;     /* of a 2.x shim, and its last 16 bits */
	u32 by_npt;
	u32 original; /* where the original header or payload begins again */
	u32 pad;
	struct item items[9]; /* by instruction bit: 0 to 8 */
	struct item checksum;
	struct widths widths;
};

/* Over all hops of a packet. found: all ones once there was a value. In a map, so that the loop's ways can meet. */
struct sums {
	u64 latency;
	u64 flow_latency;
	u32 found;
	u32 flow_found;
	u32 missing; /* a hop that is not kept had none */
	u32 pad;
};

/* How far the inner packet was understood, and what INT needs to know of it. */
struct inner {
	u32 at;		   /* where it begins, */
	u32 first;	   /* and with which layer: enum layer */
	u32 payload;	   /* where INT would be: behind the fixed TCP or the UDP header */
	u32 after_options; /* ... or behind TCP's options; equal for UDP */
	u32 fragment;	   /* not the first of its packet: no TCP or UDP header */
	u32 where;	   /* enum where: is INT possible */
	u32 signalled;	   /* INT has to be there */
	u32 tunnel;	   /* UDP port or IP protocol of an encapsulation: INT may be in front of it */
	u32 level;	   /* encapsulations so far, */
	u32 level_before;  /* and in front of this packet */
	u32 flow_only;	   /* INT was found: of this packet nothing but its addresses and ports is wanted */
	u32 no_l4_int;	   /* there is no INT at its TCP or UDP header: that was tried */
	u32 next;	   /* enum layer of what an encapsulation holds, */
	u32 next_at;	   /* and where that is */
	u32 vlan_count;	   /* of the last Ethernet header; they are the flow's where IP follows */
	u16 vlan_ids[MAX_VLANS];
};

enum where {
	NO_INT = 0,
	INT_AT_L4 = 1,	 /* behind a TCP or UDP header */
	INT_IN_SHIM = 2, /* s->shim was read already: in GPE, Geneve, GRE */
	IN_TUNNEL = 3,	 /* the packet behind the encapsulation comes next */
};

/* What a shim says, whatever carries it. */
struct shim_said {
	u32 v2;	    /* INT 2.x */
	u32 type;   /* enum int_type */
	u32 length; /* words: of 1.0's and 2.x's header and stack, and 3 - header */
	u32 tail;   /* words behind an INT 0.5 stack */
	u32 at;	    /* of the INT header */
	u32 pad;
};

/* A packet of Telemetry Report 2.0: a group of individual reports. */
struct group {
	u32 active;
	u32 end;     /* of the datagram */
	u32 first;   /* individual report */
	u32 at;	     /* this one */
	u32 next;    /* where it ends */
	u32 count;   /* so far */
	u32 telling; /* all were found right: now they count */
	u32 unknown; /* one of them has an unknown encapsulation */
	u32 w0;
	u32 switch_id;
	u32 tlv_at;
	u32 found;
	u32 more; /* reports behind this one */
	u32 pad;
};

/* A postcard among those of its flow; see find_place(). */
struct placing {
	u64 order;    /* of the nearest other place, */
	u64 apart;    /* which is so far before this one (signed, in the device's unit), */
	u32 distance; /* and so far away; all ones: there is no other */
	u32 place;    /* its own, all ones: none */
	u32 free;     /* one that could be its own */
	u32 found;    /* sum_places(): a latency */
	u64 sum;
	u32 seen; /* now */
	u32 silent;
	u32 stamp;
	u32 pad;
};

/* One packet at work; a per-CPU map has room for it. */
struct scratch {
	struct report report;
	struct whole more[MAX_WHOLE - MAX_HOPS]; /* behind the report's hops: room for a packet that goes up whole */
	struct flow_key key;
	struct source_key source;
	struct inner inner;
	struct shim_said shim;
	struct stack stack;
	struct sums sums;
	struct group group;
	struct placing placing;
	struct resume resume; /* of a packet that user space runs */
	u32 meeting;
	u32 end;	   /* the cursor's, to be read anew */
	u32 path_differs;  /* from the one that the flow had */
	u32 stage;	   /* enum stage: what a tail call goes on with */
	u32 calls;	   /* tail calls so far */
	u32 profile;	   /* index of this packet's */
	u32 known_profile; /* of the last source looked up, by which it wrote at that generation */
	u32 generation;
	u64 known_source[2];
	u32 known_version;
	u32 counted;	      /* the packet came from the network */
	u32 size;	      /* of the frame, bytes */
	u32 outcome;	      /* so far */
	struct flow_hop own;  /* what is remembered, for this packet only, of a switch that reports but is in no path */
	u32 utilization_news; /* bit 0: the reporting switch's, bit 1 + i: hop i's */
	u32 occupancy_news;
	u32 latency_news;
	u32 source_at; /* index into sources */
};

enum stage {
	STAGE_PACKET = 0,     /* a new packet */
	STAGE_INDIVIDUAL = 1, /* the next individual report of a group */
	STAGE_INNER = 2,      /* the packet behind an encapsulation */
};

/* --- all ones stays all ones in a wider field ----------------------------------------------------------------------
 * Without a branch, which would double the verifier's ways, and in 64 bits, which saves an instruction or two at each step:
 * what is stored is cut to the field's width. */

/* x has 32 bits */
inline_always u64 ones_if_none32(u64 x)
{
	u64 carry = (x + 1) >> 32;

	FENCE(carry);
	return 0 - carry;
}

/* 1 or 0 */
inline_always u64 is_nonzero64(u64 x)
{
	x |= 0 - x;
	FENCE(x);
	return x >> 63;
}

/* x has bits bits */
inline_always u64 widen(u64 x, u64 bits)
{
	u64 carry = (x + 1) >> bits;

	FENCE(carry);
	return x | (0 - carry);
}

/* --- outside ---------------------------------------------------------------------------------------------------------- */

inline_always void copy_ipv4(u8 *to, u32 address)
{
	u32 *words = (u32 *)to;

	words[0] = address;
	words[1] = 0;
	words[2] = 0;
	words[3] = 0;
}

inline_always void copy_ipv6(u8 *to, const u64 *address)
{
	u64 *words = (u64 *)to;

	words[0] = address[0];
	words[1] = address[1];
}

inline_always bool is_tag(u16 type)
{
	return type == BE16(ETHER_VLAN) || type == BE16(ETHER_QINQ);
}

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
	if (!is_report_port(set, udp->destination_port))
		return OUTCOME_PASS_PORT;

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

/* --- the inner packet ------------------------------------------------------------------------------------------------- */

/* Ethernet and up to two tags. Gives what comes next, by its EtherType: enum layer, or a refusal + LAYERS. */
#define LAYERS 16

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

/* --- INT -------------------------------------------------------------------------------------------------------------- */

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
	outcome = parse_stack(c, s);
	if (outcome || !s->stack.npt)
		return outcome;
	REREAD();
	return original_flow(c, s);
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
