/* Headers as the specifications draw them. All fields big-endian; words are taken apart by shifts where they are used. */
#ifndef INTCOLLECTOR_WIRE_H
#define INTCOLLECTOR_WIRE_H

#define BE16(x) __builtin_bswap16(x)
#define BE32(x) __builtin_bswap32(x)
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the collector is written for little-endian machines"
#endif

enum ether_type {
	ETHER_IPV4 = 0x0800,
	ETHER_TRANSPARENT = 0x6558, /* Ethernet, in GRE and Geneve */
	ETHER_VLAN = 0x8100,
	ETHER_IPV6 = 0x86DD,
	ETHER_MPLS = 0x8847,
	ETHER_MPLS_MULTICAST = 0x8848,
	ETHER_QINQ = 0x88A8,
};
enum ip_protocol { PROTOCOL_TCP = 6, PROTOCOL_UDP = 17, PROTOCOL_IPV6_FRAGMENT = 44, PROTOCOL_GRE = 47 };
enum udp_port { PORT_VXLAN = 4789, PORT_VXLAN_GPE = 4790, PORT_GENEVE = 6081 };

struct ethernet {
	u8 destination[6];
	u8 source[6];
	u16 type;
};

struct vlan_tag {
	u16 control; /* PCP 3 | DEI 1 | VLAN id 12 */
	u16 type;
};

struct ipv4 {
	u8 version_ihl;
	u8 tos; /* DSCP 6 | ECN 2 */
	u16 total_length;
	u16 id;
	u16 fragment; /* 0 1 | DF 1 | MF 1 | offset 13 */
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6 {
	u32 version_class_flow; /* version 4 | traffic class 8 | flow label 20 */
	u16 payload_length;
	u8 next_header;
	u8 hop_limit;
	u64 source[2];
	u64 destination[2];
};

struct udp {
	u16 source_port;
	u16 destination_port;
	u16 length;
	u16 checksum;
};

struct tcp {
	u16 source_port;
	u16 destination_port;
	u32 sequence_number;
	u32 acknowledgement;
	u8 data_offset; /* words 4 | reserved 4 */
	u8 flags;
	u16 window;
	u16 checksum;
	u16 urgent;
};

/* Telemetry Report 1.0, section 1.3:
 *  0   3 4   7 8  10 11      16 17     22 23 24 25 26  31
 * | Ver | Len | NPro | RepMdBits | Reserved | D| Q| F| hw_id | */
struct report_10 {
	u32 w0;
	u32 switch_id;
	u32 sequence_number;
	u32 ingress_timestamp;
};

#define REPORT_VERSION(w0) ((w0) >> 28)
#define REPORT_LENGTH(w0) ((w0) >> 24 & 15)
#define REPORT_NPROTO(w0) ((w0) >> 21 & 7)
#define REPORT_MD_BITS(w0) ((w0) >> 15 & 63)
#define REPORT_D(w0) ((w0) >> 8 & 1)
#define REPORT_Q(w0) ((w0) >> 7 & 1)
#define REPORT_F(w0) ((w0) >> 6 & 1)
#define REPORT_HW_ID(w0) ((w0) & 63)

/* What a packet begins with. 1.0's NProt are the first three, 2.0's InType 3 to 5 too. */
enum layer { LAYER_ETHERNET = 0, LAYER_IPV4 = 1, LAYER_IPV6 = 2, LAYER_MPLS = 3, LAYER_NONE = 4 };

/* Telemetry Report 0.5, section 1.2:
 *  0   3 4   7 8 9 10 11      25 26  31
 * | Ver | NPro |D|Q|F| Reserved | hw_id | */
struct report_05 {
	u32 w0;
	u32 sequence_number;
	u32 ingress_timestamp;
};

#define REPORT_05_NPROTO(w0) ((w0) >> 24 & 15)
#define REPORT_05_D(w0) ((w0) >> 23 & 1)
#define REPORT_05_Q(w0) ((w0) >> 22 & 1)
#define REPORT_05_F(w0) ((w0) >> 21 & 1)

enum nproto_05 { NPROTO_05_ETHERNET = 0, NPROTO_05_DROP = 1, NPROTO_05_LOCAL = 2 };

/* What these hold, as 1.0's RepMdBits: ports; queue, egress timestamp; drop. */
#define LOCAL_05_DROP 0x22
#define LOCAL_05_LOCAL 0x2C

/* 0.5's drop header, and the first three words of its switch-local header; the fourth is the egress timestamp. */
struct local_05 {
	u32 switch_id;
	u32 ports; /* ingress 16 | egress 16 */
	u32 queue; /* drop: queue id 8 | drop reason 8 | pad 16; local: queue id 8 | queue occupancy 24 */
};

/* Telemetry Report 2.0, section 1.4: the group header,
 *  0   3 4    9 10              31
 * | Ver | hw_id | Sequence Number |
 * and an individual report's first words:
 *  0      3 4     7 8            15 16       23 24 25 26 27 28 31
 * | RepType | InType | Report Length | MD Length | D| Q| F| I| Rsvd |
 * | RepMdBits 16 | Domain Specific ID 16 |
 * | DSMdBits 16 | DSMdstatus 16 |                                     the last two with RepType 1 only */
struct group_20 {
	u32 w0;
	u32 node_id;
};

#define GROUP_HW_ID(w0) ((w0) >> 22 & 63)
#define GROUP_SEQUENCE(w0) ((w0) & 0x3FFFFF)
#define INDIVIDUAL_TYPE(w0) ((w0) >> 28)
#define INDIVIDUAL_IN(w0) ((w0) >> 24 & 15)
#define INDIVIDUAL_LENGTH(w0) ((w0) >> 16 & 0xFF)
#define INDIVIDUAL_MD_LENGTH(w0) ((w0) >> 8 & 0xFF)
#define INDIVIDUAL_D(w0) ((w0) >> 7 & 1)
#define INDIVIDUAL_Q(w0) ((w0) >> 6 & 1)
#define INDIVIDUAL_F(w0) ((w0) >> 5 & 1)
#define INDIVIDUAL_I(w0) ((w0) >> 4 & 1)

enum rep_type { REP_INNER_ONLY = 0, REP_INT = 1 };
enum in_type { IN_TLV = 1, IN_ETHERNET = 3, IN_IPV6 = 5 };

/* The INT shim over TCP and UDP, section 2.4, first three bytes:
 *   0.5, 1.0:  Type 8 | Reserved 8 | Length 8
 *   2.x:       Type 4 | NPT 2 | R 2 | Length 8 | by NPT 8 */
struct shim {
	u8 b[4];
};

/* The INT header, section 2.5. w1: Instruction Bitmap 16 | reserved or Domain Specific ID 16
 *  1.0, 2.x:  w0 = Ver 4 | Rep, C, E or D, E, M ... | Hop ML 5 | Remaining Hop Cnt 8
 *  0.5:       w0 = Ver 4 | Rep 2 | C 1 | E 1 | R 3 | Ins Cnt 5 | Max Hop Cnt 8 | Total Hop Cnt 8 */
struct int_header {
	u32 w0;
	u32 w1;
};

enum shim_npt { NPT_DSCP = 0, NPT_PORT = 1, NPT_PROTOCOL = 2 };
enum int_type { INT_TYPE_MD = 1, INT_TYPE_DESTINATION = 2, INT_TYPE_MX = 3 };

/* Instruction bits, section 2.6; bit 0 is the most significant of 16. */
enum instruction {
	BIT_SWITCH_ID = 0,
	BIT_PORTS = 1,
	BIT_HOP_LATENCY = 2,
	BIT_QUEUE = 3,
	BIT_INGRESS_TIMESTAMP = 4,
	BIT_EGRESS_TIMESTAMP = 5,
	BIT_L2_PORTS = 6, /* 0.5: queue congestion */
	BIT_TX_UTILIZATION = 7,
	BIT_BUFFER = 8, /* 2.x */
	BIT_CHECKSUM_COMPLEMENT = 15,
};

#define INSTRUCTION(bit) (0x8000 >> (bit))
#define WIDE_2X (INSTRUCTION(BIT_INGRESS_TIMESTAMP) | INSTRUCTION(BIT_EGRESS_TIMESTAMP) | INSTRUCTION(BIT_L2_PORTS))

#define MAX_STACK_WORDS 252 /* an 8-bit Length, less shim and header */

#endif
