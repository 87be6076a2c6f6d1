/* Sends reports: an XDP program run on live frames, which writes over whatever they hold and redirects them. One report a
 * frame: groups of individual reports go by a packet socket.
 *
 * What happens to report i, and what its bytes are, is what intcollector/traffic.py says (Model.step, _fill); a test
 * compares the two byte by byte. The frames stand ready in a map; here, only what varies is written into them.
 * One run at a time, on one CPU at a time: no locks. Everything that traffic.py knows comes by -D. */
#include <linux/bpf.h>
#include <linux/types.h>

#define GOLDEN 0x9E3779B97F4A7C15ULL
#define SHARE_MASK ((1U << SHARE_BITS) - 1)
#define SEQUENCE_MASK ((u32)((1ULL << SEQUENCE_BITS) - 1))

enum kind { PLAIN, DROP, CONGESTION };

/* The program's words; intcollector/sending.py has the same structs as numpy dtypes. */
struct run {
	u64 index;   /* of the next report */
	u64 pending; /* redirected, not yet handed to the interface */
	u64 sent;    /* taken by the interface */
	u64 dropped; /* refused by it */
	s64 error;   /* why, the last time */
	u32 turn;    /* the next report's */
	u32 cpu;     /* that is at it: frames on the others are somebody else's */
};

struct source {
	u32 next;
	u32 last;
	u32 late;
	u32 pad;
};

/* A flow, reported by its sink; or, of postcards, a switch of one. */
struct turn {
	u32 source;
	u32 hop;   /* the first that is told of */
	u32 since; /* reports since its packet's first */
	u32 moved;
	u32 switch_id[2];   /* of hop CHANGING - 1: before and after a path change */
	u32 port[HOPS + 1]; /* numbers of the switches' ports and queues; at HOPS, that hop's after a path change */
	u32 queue[HOPS + 1];
	u32 latency_level[HOPS + 1];
};

struct frame {
	u32 length;
	u32 report;  /* offset of the report header */
	u32 records; /* of the first hop's */
	u32 pad;
	u8 bytes[FRAME + 8];
};

BPF_ARRAY(runs, struct run, 1);
BPF_ARRAY(sources, struct source, SOURCES);
BPF_ARRAY(turns, struct turn, TURNS);
BPF_ARRAY(frames, struct frame, TURNS *KINDS);
BPF_ARRAY(port_levels, u32, PORT_POINTS);
BPF_ARRAY(queue_levels, u32, QUEUE_POINTS);

/* By number: older bcc do not know it by name. Linux 5.18, as live frames. */
static long (*store_bytes)(struct xdp_md *, u32 offset, void *from, u32 size) = (void *)190;

static __always_inline u64 mix(u64 value)
{
	value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9ULL;
	value = (value ^ value >> 27) * 0x94D049BB133111EBULL;
	return value ^ value >> 31;
}

/* FRAME is a power of two, so that the mask is the bound; 8 bytes behind it are there too. */
#define AT(frame, offset) ((void *)((frame)->bytes + ((offset) & (FRAME - 1))))
#define STORE16(frame, offset, value) (*(u16 *)AT(frame, offset) = bpf_htons(value))
#define STORE32(frame, offset, value) (*(u32 *)AT(frame, offset) = bpf_htonl(value))
#define LOAD32(frame, offset) bpf_ntohl(*(u32 *)AT(frame, offset))

static __always_inline void stamp(struct frame *frame, u32 offset, u64 time, bool wide)
{
	if (wide) {
		STORE32(frame, offset, (u32)(time >> 32));
		offset += 4;
	}
	STORE32(frame, offset, (u32)time);
}

/* The source's next sequence number; loss, duplicates and overtaking by a draw of SHARE_BITS (traffic.py, _sequence). */
static __always_inline u32 sequence(struct source *source, u32 draw, bool first_round)
{
	u32 number;

	if (source->late) {
		source->late = 0;
		number = source->next - 2;
	} else if (first_round || draw >= REORDER_BELOW) {
		number = source->next++;
	} else if (draw < LOSS_BELOW) {
		number = source->next + 1;
		source->next += 2;
	} else if (draw < DUPLICATE_BELOW) {
		number = source->last;
	} else {
		number = source->next + 1;
		source->next += 2;
		source->late = 1;
	}
	source->last = number;
	return number;
}

static __always_inline u32 jitter(u64 noise, u32 hop, u32 shift)
{
	return (noise * (2 * hop + 1) >> shift & 0xFF) * AMPLITUDE >> 8 << 1;
}

int generate(struct xdp_md *ctx)
{
	u32 zero = 0;
	struct run *run = runs.lookup(&zero);

	if (!run)
		return XDP_ABORTED;

	u64 index = run->index++, time = START_NS + index * INTERVAL_NS;
	u64 base = index * (2 * GOLDEN) + SEED, draw = mix(base), noise = mix(base + GOLDEN);
	bool first_round = index < TURNS;
	u32 number = run->turn;

	run->turn = number + 1 == TURNS ? 0 : number + 1;
	struct turn *turn = turns.lookup(&number);

	if (!turn)
		return XDP_ABORTED;
	struct source *source = sources.lookup(&turn->source);

	if (!source)
		return XDP_ABORTED;

	u32 which = (u32)(draw >> SHARE_BITS) & SHARE_MASK, kind = PLAIN;

	if (first_round)
		;
	else if (which < DROP_BELOW)
		kind = DROP;
	else if (which < CONGESTION_BELOW)
		kind = CONGESTION;
	else if (which < PATH_BELOW)
		turn->moved ^= 1;
	else if (which < EVENT_BELOW) {
		u32 hop = (u32)((draw >> 40 & 0xFFF) * CHANGING >> 12), what = (u32)((draw >> 52) * EVENT_KINDS >> 12);

		if (hop >= HOPS)
			return XDP_ABORTED;
		if (what == EVENT_LATENCY) {
			turn->latency_level[hop] ^= 1;
		} else {
			u32 at = hop == CHANGING - 1 && turn->moved ? HOPS : hop, *level;

			if (what == EVENT_QUEUE)
				level = queue_levels.lookup(&turn->queue[at]);
			else
				level = port_levels.lookup(&turn->port[at]);
			if (level)
				*level ^= 1;
		}
	}

	u32 slot = number * KINDS + (KINDS == 1 ? 0 : kind);
	struct frame *frame = frames.lookup(&slot);

	if (!frame)
		return XDP_ABORTED;

	u64 packet = time - turn->since * INTERVAL_NS;
	u32 said = sequence(source, (u32)draw & SHARE_MASK, first_round) & SEQUENCE_MASK;
	u32 at = frame->report + SEQUENCE_AT;

	STORE32(frame, at, (LOAD32(frame, at) & ~SEQUENCE_MASK) | said);
	if (SEQUENCE_BITS == 32)
		STORE32(frame, at + 4, (u32)(POSTCARDS ? packet - HOP_GAP_NS * (turn->hop + 1) : time));
	if (kind == CONGESTION && !POSTCARDS)
		stamp(frame, frame->report + LOCAL_STAMP_AT, time + 2, SEQUENCE_BITS == 22);
	for (u32 hop = 0; (kind == PLAIN || (POSTCARDS && kind == CONGESTION)) && hop < HOPS; hop++) {
		u32 point = hop == CHANGING - 1 && turn->moved ? HOPS : hop, which_hop = turn->hop + hop;
		u32 latency = LATENCY + LATENCY_STEP * which_hop + turn->latency_level[hop] * STEP +
			      jitter(noise, which_hop, 40);
		u64 arrival = packet - HOP_GAP_NS * (which_hop + 1);

		at = frame->records + hop * HOP_BYTES;
		/* AT_*: offset of an item in a record, or -1 */
		if (AT_LATENCY >= 0)
			STORE32(frame, at + AT_LATENCY, latency);
		if (AT_INGRESS >= 0)
			stamp(frame, at + AT_INGRESS, arrival, WIDE_STAMPS);
		if (AT_EGRESS >= 0)
			stamp(frame, at + AT_EGRESS, arrival + latency, WIDE_STAMPS);
		if (AT_QUEUE >= 0) { /* below the id, 8 or 16 bits */
			u32 *level = queue_levels.lookup(&turn->queue[point]);

			if (level)
				STORE16(frame, at + AT_QUEUE + 2,
					(u16)(OCCUPANCY + *level * STEP + jitter(noise, which_hop, 48)));
		}
		if (AT_UTILIZATION >= 0) {
			u32 *level = port_levels.lookup(&turn->port[point]);

			if (level)
				STORE32(frame, at + AT_UTILIZATION,
					UTILIZATION + *level * STEP + jitter(noise, which_hop, 56));
		}
		if (AT_SWITCH >= 0 && hop == CHANGING - 1)
			STORE32(frame, at + AT_SWITCH, turn->switch_id[turn->moved & 1]);
	}

	u64 length = frame->length; /* in 64 bits and compared twice, or the verifier sees no bounds */

	if (length < 14)
		return XDP_ABORTED;
	asm volatile("" : "+r"(length));
	if (length > FRAME)
		return XDP_ABORTED;
#ifndef ONE_SIZE
	if (bpf_xdp_adjust_tail(ctx, (int)length - LARGEST))
		return XDP_ABORTED;
#endif
	if (store_bytes(ctx, 0, frame->bytes, length))
		return XDP_ABORTED;
	run->cpu = bpf_get_smp_processor_id();
	run->pending++;
	return bpf_redirect(IFINDEX, 0);
}

/* raw tracepoint xdp_devmap_xmit(from, to, sent, dropped, error): what became of some redirected frames, told in the
 * same stretch without softirqs in which generate() ran. So while frames are pending, it is about ours. */
int taken(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;
	struct run *run = runs.lookup(&zero);
	u32 sent = (u32)ctx->args[2], dropped = (u32)ctx->args[3];

	if (!run || run->cpu != bpf_get_smp_processor_id() || run->pending < sent + dropped)
		return 0;
	run->pending -= sent + dropped;
	run->sent += sent;
	run->dropped += dropped;
	if (dropped)
		run->error = (int)ctx->args[4];
	return 0;
}
