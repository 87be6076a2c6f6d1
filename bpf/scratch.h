/* One packet at work: what the parser has found so far, and where a tail call goes on. Also the helpers of all of it. */
#ifndef INTCOLLECTOR_SCRATCH_H
#define INTCOLLECTOR_SCRATCH_H

#include "cursor.h"

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
	u64 behind;   /* an order behind all others */
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
	struct stack steady; /* of the last packet on the short way */
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
	u32 udp_port;	      /* of a packet that is for another one */
	struct flow_hop own;  /* what is remembered, for this packet only, of a switch that reports but is in no path */
	u32 utilization_news; /* bit 0: the reporting switch's, bit 1 + i: hop i's */
	u32 occupancy_news;
	u32 latency_news;
	u32 header;	    /* the report header was right */
	u32 waits;	    /* what the packet was is counted by user space */
	u32 gaps;	    /* hops of the stack that lack a value, or a place */
	u32 numbered;	    /* the report's number was counted, by spread() or the short way */
	u32 numbered_ahead; /* ... by the short way, which then gave up */
	u32 last_source;    /* the index of who sent the last report that went the short way, */
	u32 spread_source;  /* and through spread() */
	u32 counted_hops;   /* so many hops are in the histograms already: the short way got so far */
	u64 jiffies;	    /* when the clock was last read, */
	u64 now;	    /* and what it said */
	u64 meeting64;
	u64 nothing; /* 0, and only we know it: see unknown() */
	/* Keys and values of maps. On the stack the verifier would keep apart what each way left in their places. */
	struct point_key point;
	struct drop_key drop;
	u32 index;
	u32 pad;
	u64 count;
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

/* All ones where x, of 32 bits, is not 0. */
inline_always u64 ones_if(u64 x)
{
	x = (x + NONE32) >> 32;
	FENCE(x);
	return 0 - x;
}

/* a where the mask is all ones, b where it is 0. */
inline_always u64 either(u64 mask, u64 a, u64 b)
{
	return (a & mask) | (b & ~mask);
}

/* --- addresses ------------------------------------------------------------------------------------------------------- */

inline_always void copy_ipv4(u8 *to, u32 address)
{
	u64 *words = (u64 *)to; /* as wide as it is read: what stands in two stores cannot be forwarded to one load */

	words[0] = address;
	words[1] = 0;
}

inline_always void copy_ipv6(u8 *to, const u64 *address)
{
	u64 *words = (u64 *)to;

	words[0] = address[0];
	words[1] = address[1];
}

#endif
