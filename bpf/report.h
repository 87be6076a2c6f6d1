/* THE record: every byte that crosses from the kernel to Python.
 *
 * This file is read twice: by the C compiler, and by intcollector/layout.py, which makes numpy dtypes of the structs and
 * constants of the enums and defines. So it keeps to a form that needs no C parser: one field a line, fixed-width types,
 * every byte spelled out (no hidden padding), structs before they are used. layout.py refuses anything else.
 *
 * ALL ONES, in a field's own width, is "no value": the switch said so, or its instruction bit was not set. Which of the
 * two it was, the bitmap tells. The parser widens the wire's all-ones (8, 16, 24 or 32 bits) to the field's.
 *
 * Order of the fields: not widest first everywhere, because an event travels in cells of 64 bytes (see struct report).
 */
#ifndef INTCOLLECTOR_REPORT_H
#define INTCOLLECTOR_REPORT_H

#define MAX_HOPS 16	       /* hops kept of a stack, nearest the sink first; hop_count has the true number */
#define MAX_VLANS 2	       /* 802.1Q and 802.1ad tags read, outside and inside */
#define CELL 64		       /* bytes; what an event is made of */
#define HEAD_CELLS 3	       /* of struct report, before the local hop */
#define LATENCY_BUCKETS 35     /* ns: 0, [1,1], [2,3], [4,7] .. [2^31, 2^32-1], more, then "no latency" */
#define NO_LATENCY 34	       /* the bucket of hops that have none */
#define SEQUENCE_WINDOW 64     /* sequence numbers looked back on for reordering and duplicates */
#define BELIEVED_AFTER 4096    /* reports after which a restart is no longer taken back */
#define MAX_SEQUENCE_GAP 65536 /* a jump ahead that is believed to be loss whatever it lands on; see sequence() */
#define MAX_TUNNELS 4	       /* encapsulations looked into, one behind the other */
#define MAX_LABELS 8	       /* of an MPLS stack */
#define MAX_OPTIONS 8	       /* of a Geneve header */
#define MAX_TLVS 8	       /* of an individual report */
#define MAX_WHOLE 64	       /* cells of a packet that goes up whole, each with WHOLE_BYTES of it */
#define WHOLE_BYTES 60
#define MAX_WHOLE_BYTES 3480 /* what a test run takes back */
#define MAX_REFUSALS 256     /* exporters and outcomes of such reports that are kept apart */
#define UDP_PORTS 65536
#define SPECIMEN 512 /* bytes kept of a malformed report */

/* Why a packet ended where it did. Exactly one a packet; the names are those users see, in lower case. */
enum outcome {
	OUTCOME_OK = 0,
	/* not recognised as ours: always passed on untouched */
	OUTCOME_PASS_SHORT_L2 = 1,
	OUTCOME_PASS_VLAN_DEPTH = 2,
	OUTCOME_PASS_NOT_IP = 3,
	OUTCOME_PASS_SHORT_L3 = 4,
	OUTCOME_PASS_BAD_IP = 5,
	OUTCOME_PASS_FRAGMENT = 6,
	OUTCOME_PASS_NOT_UDP = 7,
	OUTCOME_PASS_SHORT_L4 = 8,
	OUTCOME_PASS_PORT = 9,
	/* ours, and malformed: the outer lengths */
	OUTCOME_BAD_IP_LEN = 10,
	OUTCOME_TRUNC_FRAME = 11,
	OUTCOME_BAD_UDP_LEN = 12,
	/* the report header */
	OUTCOME_TRUNC_REPORT = 13,
	OUTCOME_BAD_REPORT_VER = 14,
	OUTCOME_BAD_REPORT_LEN = 15,
	OUTCOME_TRUNC_REPORT_MD = 16,
	OUTCOME_UNSUPPORTED_NPROTO = 17,
	/* the inner packet */
	OUTCOME_TRUNC_INNER = 18,
	OUTCOME_BAD_INNER_VLAN = 19,
	OUTCOME_BAD_INNER_IP = 20,
	OUTCOME_BAD_INNER_TCP = 21,
	/* INT */
	OUTCOME_TRUNC_SHIM = 22,
	OUTCOME_BAD_SHIM_TYPE = 23,
	OUTCOME_BAD_SHIM_LEN = 24,
	OUTCOME_TRUNC_MD_HDR = 25,
	OUTCOME_BAD_INT_VER = 26,
	OUTCOME_BAD_INS_CNT = 27,
	OUTCOME_HOP_ML_ZERO = 28,
	OUTCOME_HOP_ML_MISMATCH = 29,
	OUTCOME_TRUNC_STACK = 30,
	OUTCOME_STACK_NOT_MULTIPLE = 31,
	/* Telemetry Report 2.0: individual reports */
	OUTCOME_NO_INDIVIDUAL = 32,
	OUTCOME_TRUNC_INDIV = 33,
	OUTCOME_BAD_INDIV_LEN = 34,
	OUTCOME_MD_LEN_TOO_SMALL = 35,
	OUTCOME_BAD_TLV = 36,
	/* accepted, but nobody can tell what is inside the inner packet: kept without INT */
	OUTCOME_UNKNOWN_ENCAPSULATION = 37,
	/* to be decoded by user space, and found no room on the way. One that does is counted there, under what it was */
	OUTCOME_UNDECODED = 38,
	OUTCOMES = 64,
};

/* struct report, flags */
enum report_flag {
	REPORT_DROPPED = 0x0001,	 /* D */
	REPORT_CONGESTED_QUEUE = 0x0002, /* Q */
	REPORT_TRACKED_FLOW = 0x0004,	 /* F */
	REPORT_INTERMEDIATE = 0x0008,	 /* I, Telemetry Report 2.0 */
	REPORT_SOURCE_IPV6 = 0x0010,	 /* the exporter's address is IPv6 */
	REPORT_INNER = 0x0020,		 /* there is an inner packet: vlan_ids count */
	REPORT_FLOW_IPV4 = 0x0040,	 /* its addresses, protocol and dscp are there */
	REPORT_FLOW_IPV6 = 0x0080,
	REPORT_FLOW_PORTS = 0x0100,	/* its ports are there */
	REPORT_INT = 0x0200,		/* an INT header was read: the int_* fields count */
	REPORT_LOCAL = 0x0400,		/* the reporting switch spoke of itself: local counts */
	REPORT_HOPS_TRUNCATED = 0x0800, /* hop_count is larger than the hops kept */
	REPORT_INT_MX = 0x1000,		/* INT-MX: instructions only, no stack */
	REPORT_POSTCARD = 0x2000,  /* hops are not this packet's: what all switches said of its flow (struct flow) */
	REPORT_CONTINUED = 0x4000, /* not the first individual report of its packet */
	REPORT_WHOLE = 0x8000,	   /* hops are the packet's bytes, WHOLE_BYTES each */
};

/* struct report, changes: why it was told */
enum change {
	CHANGE_NEW_FLOW = 0x0001,
	CHANGE_PATH = 0x0002,
	CHANGE_FLOW_LATENCY = 0x0004,
	CHANGE_DROPPED = 0x0008,
	CHANGE_CONGESTED_QUEUE = 0x0010,
	CHANGE_KEEPALIVE = 0x0020,
	CHANGE_LOCAL_QUEUE_OCCUPANCY = 0x0080,
	CHANGE_LOCAL_TX_UTILIZATION = 0x0100,
	CHANGE_LOCAL_HOP_LATENCY = 0x0200, /* of a postcard */
};

/* What a device counts time in. */
enum time_unit {
	TIME_NS = 0,
	TIME_US = 1,
	TIME_MS = 2,
	TIME_2_32 = 3, /* 2^-32 s */
};

/* One hop, or what the reporting switch said of itself (64 bytes: one cell). */
struct hop {
	u64 ingress_timestamp;
	u32 switch_id;
	u32 cell; /* where every cell has its number; see struct report */
	u64 egress_timestamp;
	u32 hop_latency; /* as on the wire */
	u32 latency;	 /* hop_latency, or where it is missing egress - ingress timestamp */
	u32 l2_ingress_port_id;
	u32 l2_egress_port_id;
	u32 egress_port_tx_utilization;
	u32 queue_occupancy;
	u32 buffer_occupancy; /* INT 0.5: queue_congestion */
	u32 checksum_complement;
	u16 ingress_port_id;
	u16 egress_port_id;
	u16 queue_id;
	u8 buffer_id; /* INT 0.5: congested_queue_id */
	u8 pad;
};

/* One report. It goes up as whole cells of 64 bytes: three of head, one for the local hop, one for each hop kept.
 * Each cell has its number (0, 1, 2, then 3 = local, 4 + i = hop i) at the same offset, so that numpy finds the heads
 * among millions of cells without following lengths. The first 12 bytes belong to the transport, which writes its own
 * header there: 8 bytes by the ring buffer, 12 by the perf buffer, so that both bring up the same cells. */
struct report {
	u32 transport[3];
	u32 cell;	  /* 0 */
	u64 received_ns;  /* CLOCK_MONOTONIC */
	u64 latency;	  /* sum of the hop_latency that are there; all ones: none is */
	u64 flow_latency; /* sum of the hops' latency that are there; all ones: none is */
	u32 switch_id;	  /* who reports */
	u32 sequence_number;
	u32 ingress_timestamp;
	u16 flags;   /* enum report_flag */
	u16 changes; /* enum change */

	u16 hop_latency_changes; /* bit i: hop i's is news */
	u16 queue_occupancy_changes;
	u16 tx_utilization_changes;
	u16 instruction_bitmap;

	u16 local_bitmap; /* RepMdBits */
	u16 hop_count;	  /* in the packet; min(hop_count, MAX_HOPS) are kept */
	u16 source_port;
	u16 destination_port;
	u16 vlan_ids[2];
	u32 cell1;	   /* 1 */
	u8 outcome;	   /* enum outcome */
	u8 report_version; /* 5, 10, 20 */
	u8 int_version;	   /* 5, 10, 20 */
	u8 hw_id;
	u8 hop_ml; /* as on the wire */
	u8 remaining_hop_count;
	u8 vlan_count;
	u8 protocol;
	u8 dscp;
	u8 drop_queue_id;
	u8 drop_reason;
	u8 time_unit; /* enum time_unit: of all times in it */
	u8 resumed;   /* from a packet that went up whole */
	u8 pad0[3];
	u8 source[16]; /* the exporter's address; IPv4 in the first 4 bytes */
	u8 pad1[16];

	u32 pad2[3];
	u32 cell2; /* 2 */
	u8 flow_source[16];
	u8 flow_destination[16];
	u8 pad3[16];

	struct hop local; /* cell 3 */
	struct hop hops[MAX_HOPS];
};

/* A packet that goes up whole: the head cells of struct report, a local one, then these. */
struct whole {
	u8 first[12];
	u32 cell;
	u8 rest[48];
};

/* --- State, read by polling --------------------------------------------------------------------------------------- */

struct flow_key {
	u8 source[16]; /* IPv4 in the first 4 bytes, the rest zero */
	u8 destination[16];
	u16 source_port;
	u16 destination_port;
	u8 protocol;
	u8 ip_version;
	u16 pad;
};

#define SEEN_PLACE 2 /* in the last bits of a time: it is never 0, */
#define SEEN_STAMP 1 /* and ingress_timestamp counts */

struct flow_hop {
	u32 switch_id;
	u16 egress_port_id;
	u16 queue_id;
	u16 port;	  /* index into ports, learnt for these ids; 0: none */
	u16 queue;	  /* index into queues; 0: none */
	u32 latency;	  /* the last */
	u32 told_latency; /* the last that went up */
};

/* Beside a flow_hop of a flow whose path is made of postcards. */
struct flow_place {
	u64 order;	       /* where in the path; see put_in_order() */
	u32 ingress_timestamp; /* the last, low 32 bits */
	u32 seen;	       /* CLOCK_MONOTONIC, coarse, in 2^20 ns, and SEEN_*; 0: this place is free */
};

/* As large as it is, and in this order, so that what a short path needs lies in few cache lines: the kernel's hash puts 56
 * bytes in front, so that each begins with a line, and what the first three hops need ends with the third. */
struct flow {
	u32 seen; /* CLOCK_MONOTONIC, coarse, in 2^20 ns: the last report; */
	u32 told; /* ... when something of it went up */
	struct flow_key key;
	u64 latency; /* of the last report with INT, or of all postcards' hops */
	u64 told_latency;
	u32 reports;
	u16 source;		/* index into sources */
	u16 instruction_bitmap; /* of the last stack */
	u8 seen_high;		/* the 8 bits above those of seen */
	u8 hop_count;		/* MAX_STACK_WORDS are not more */
	u8 flags;		/* enum flow_flag */
	u8 time_unit;		/* enum time_unit */
	struct flow_hop hops[MAX_HOPS];
	u8 pad[4];
	struct flow_place places[MAX_HOPS];
	u8 pad1[56];
};

#define FLOW_LOCKS 1024
#define FLOW_PROBES 4	 /* flows of one hash that are kept */
#define MAX_POINTS 16384 /* switch ports, and as many queues; a power of two */

/* Of some flows, by their ports: an entry of an LRU hash cannot hold one. */
struct flow_lock {
	struct bpf_spin_lock lock;
};

enum flow_flag {
	FLOW_PATH = 1,	      /* a stack was seen: hops and hop_count count */
	FLOW_CONGESTED = 2,   /* the last report had Q, and that was told */
	FLOW_PATH_UNTOLD = 8, /* the path is another than the one that went up */
	FLOW_TOLD = 4,	      /* some event of this flow went up */
	FLOW_GAPS = 32,	      /* a hop of the last stack lacks a value, or a place for its port or queue */
	FLOW_POSTCARDS = 16,  /* no stack: hops are what its switches said, in no order, where seen is not 0 */
};

/* One switch's egress port or queue. Index 0 is nobody's: whoever has no id, or found the table full, is sent there. */
struct point_key {
	u32 switch_id;
	u16 id;	  /* all ones: the switch named none */
	u16 kind; /* enum point_kind */
};

enum point_kind {
	POINT_PORT = 1,
	POINT_QUEUE = 2,
};

struct point {
	u32 switch_id;
	u16 id;
	u16 kind;
};

/* What is in a queue, or goes out of a port: apart from whose it is, so that much of it fits into a cache line. */
struct level {
	u32 value; /* TX utilisation, occupancy: the last */
	u32 told;  /* the last that went up */
	u32 unit;  /* the profile's occupancy_unit or utilization_unit, by the last report */
	u32 pad;
};

/* All of them, by index. One value of one entry: it is looked up once a packet, not once a hop. */
struct points {
	struct level port_levels[MAX_POINTS];
	struct level queue_levels[MAX_POINTS];
	struct point ports[MAX_POINTS];
	struct point queues[MAX_POINTS];
};

/* The hops of each port whose latency is in one bucket: most are in few buckets, so these are what caches hold. */
struct latency_bucket {
	u64 hops[MAX_POINTS];
};

/* One CPU's. */
struct statistics {
	u64 spread;	    /* reports sent on to another CPU by this one, */
	u64 arrived;	    /* and those that came to this one */
	u64 steady_reports; /* packets of outcome ok that are not in struct counters: they went the short way */
	u64 latency_sums[MAX_POINTS]; /* ns, of ports */
	struct latency_bucket buckets[LATENCY_BUCKETS];
	u32 occupancy_max[MAX_POINTS]; /* of queues, + 1; 0: never seen */
	u64 udp_ports[UDP_PORTS];      /* packets for none of --port, by their UDP destination port */
};

struct source_key {
	u8 address[16];
	u32 switch_id; /* all ones in Telemetry Report 0.5, which counts by hw_id only */
	u8 hw_id;
	u8 ip_version;
	u8 report_version;
	u8 pad;
};

/* Who sends reports, and what was lost on the way: per source, switch and hw_id. */
struct source {
	u64 seen_ns;
	u64 run;      /* reports in sequence since the last other one: see continue_run() */
	u64 repeated; /* duplicates found without the lock; they are not yet in received and duplicated, */
	u64 silent;   /* and reports of an exporter that does not count, not yet in received */
	u8 address[16];
	u32 switch_id;
	u8 hw_id;
	u8 ip_version;
	u8 report_version;
	u8 flags;   /* enum source_flag */
	u64 window; /* bit k: highest - k was seen */
	u64 received;
	u64 lost;
	u64 reordered;
	u64 duplicated;
	u64 restarted;
	u32 highest;	   /* sequence number */
	u32 first;	   /* what comes before it was never counted lost */
	u64 before_window; /* as they were before it began anew */
	u64 before_lost;
	u32 before_highest;
	u32 before_first;
	u32 suspect;  /* where an exporter that began anew goes on */
	u32 reporter; /* the switch: as switch_id, or of 0.5 what its reports name; all ones: none, or several */
	u32 since;    /* reports since it began anew */
	struct bpf_spin_lock lock;
};

enum source_flag {
	SOURCE_COUNTS = 1,    /* a sequence number other than 0 was seen */
	SOURCE_SUSPECT = 2,   /* the last report was far from the highest: suspect counts */
	SOURCE_NAMED = 4,     /* a switch was named: reporter counts */
	SOURCE_RESTARTED = 8, /* it began anew, as far as one can tell: before_* and since count */
};

/* Reports that are malformed, or right (OUTCOME_OK), of a TCP or UDP flow, and without INT and a word of the reporting
 * switch: by who sent them and what was wrong, with the first one, so that one can see why. */
struct refusal_key {
	u8 address[16]; /* of the exporter; IPv4 in the first 4 bytes */
	u8 ip_version;
	u8 outcome; /* enum outcome */
	u8 pad[2];
};

struct refusal {
	u64 packets;
	u64 seen_ns; /* CLOCK_MONOTONIC, coarse: the last one */
	u32 length;  /* of the first one, from its Ethernet header, */
	u32 kept;    /* and as much of it as is here */
	u8 bytes[SPECIMEN];
};

/* drop reports, by who and why */
struct drop_key {
	u32 switch_id;
	u8 reason;
	u8 pad[3];
};

/* one a CPU: what the program did */
struct counters {
	u64 outcomes[OUTCOMES];
	u64 events;	    /* went up */
	u64 events_lost;    /* found no room */
	u64 flows_refused;  /* no room for a new flow */
	u64 points_refused; /* ... for a new port or queue: it is not kept */
	u64 sources_refused;
	u64 drops_refused;
	u64 places_refused; /* postcards of one switch more than a flow has room for */
};

/* --- What user space tells the program; may change while it runs --------------------------------------------------- */

#define MAX_PORTS 16
#define MAX_DOMAINS 8
#define MAX_SPREAD 64 /* CPUs */

enum event_mode {
	EVENT_THRESHOLD = 0,
	EVENT_INTERVAL = 1,
};

enum tcp_int_position {
	TCP_INT_AUTO = 0,
	TCP_INT_BEFORE_OPTIONS = 1,
	TCP_INT_AFTER_OPTIONS = 2,
};

/* For all packets. */
struct settings {
	u64 keepalive_ns;     /* 0: never */
	u64 hop_latency_span; /* twice the threshold */
	u64 queue_occupancy_span;
	u64 tx_utilization_span;
	u32 hop_latency_threshold;
	u32 flow_latency_threshold;
	u32 queue_occupancy_threshold;
	u32 tx_utilization_threshold;
	u32 cut;	/* decode: bytes of the frame that a test run has no room for */
	u32 generation; /* another number, other profiles */
	u32 postcard_window_ns;
	u32 postcard_timeout;	  /* in 2^20 ns */
	u16 ports[MAX_PORTS];	  /* as on the wire; unused ones repeat the first */
	u16 domains[MAX_DOMAINS]; /* --source-only-words, domain ids; 0: unused */
	u8 domain_words[MAX_DOMAINS];
	u16 int_udp_port;
	u16 int_gre_protocol; /* 0: none */
	u8 event_mode;	      /* enum event_mode */
	u8 tell_all;	      /* every packet goes up, whatever its outcome: decode */
	u8 by_source;	      /* source_profiles has entries */
	u8 verdict_ok;	      /* XDP_DROP or XDP_PASS */
	u8 verdict_malformed;
	u8 steady; /* reports in which nothing is news may go the short way */
	u8 pad[4];
	u16 cpu_count; /* to spread reports over; 0: each stays where it came in */
	u16 cpus[MAX_SPREAD];
	u64 hash[8];	       /* odd numbers that nobody else knows: see flow_hash() */
	u8 bits[256];	       /* how many bits a number has: 0, 1, 2, 2, 3, .. 8 */
	u32 hop_latency_width; /* the threshold, but not 0 */
	u32 queue_occupancy_width;
	u32 tx_utilization_width;
	u8 pad1[4];
};

#define MAX_PROFILES 512 /* 0: the command line's; the rest is two halves, for the old and the new ones of a change */

/* How an exporter writes. */
struct profile {
	u32 time_multiplier; /* ns = time * time_multiplier >> time_shift */
	u32 time_shift;
	u32 occupancy_unit;   /* bytes a unit of queue occupancy; 0: not known */
	u32 utilization_unit; /* units that make up the whole line rate; 0: not known */
	u16 wide_v1;	      /* instruction bits whose item takes 8 bytes, in INT 1.0 */
	u8 int_dscp_marked;   /* 0: no mark, the shim has to be plausible */
	u8 int_dscp_value;
	u8 int_dscp_mask;
	u8 tcp_int_position; /* enum tcp_int_position */
	u8 accept_report_length_1;
	u8 accept_int_version_0;
	u8 hop_ml_is_bit_count; /* ONOS */
	u8 queue_word_16_16;	/* INTCollector: queue id and occupancy 16 bits each */
	u8 time_unit;		/* enum time_unit */
	u8 pad;
};

/* Which sources write by another profile than 0: the longest prefix counts. */
struct source_prefix {
	u32 length; /* bits of what follows */
	u8 ip_version;
	u8 address[16];
	u8 pad[3];
};

#define RESUME_MAGIC 0x494E5463
#define SPREAD_MAGIC 0x494E5470 /* of a report that spread() sent to this CPU: its number is counted, nothing else */

/* In front of a packet that user space runs through the program: part of one that went up whole. A packet from the network
 * has nothing there, or what its driver says. */
struct resume {
	u64 received_ns;
	u32 flags; /* REPORT_CONTINUED */
	u32 magic;
};

/* The next free index of the arrays, under a lock: the program's own. */
struct allocator {
	struct bpf_spin_lock lock;
	u32 next_port;
	u32 next_queue;
	u32 next_source;
};

#endif
