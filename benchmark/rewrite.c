/* A packet that is run through a program again and again is the same each time. This one goes in front and makes another
 * report of it: the next sequence number, the next of the flows that take turns. What follows it is the program that is
 * measured (rewrite_0), or one that only drops (rewrite_1); each has numbers and turns of its own. Test runs keep what
 * was written until the last repeat. Where to write comes by -D: SEQUENCE_AT, ADDRESS_AT, PORT_AT. */
#include <linux/bpf.h>
#include <linux/types.h>

/* Which flow is next: step further, of so many. User space sets it. */
struct turn {
	u32 flow;
	u32 step; /* below flows */
	u32 flows;
	u32 pad;
};

BPF_ARRAY(turns, struct turn, 2);
BPF_ARRAY(numbers, u32, 2);
BPF_PROG_ARRAY(behind, 2);

static __always_inline int rewrite(struct xdp_md *ctx, int which)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct turn *turn = turns.lookup(&which);
	u32 *number = numbers.lookup(&which), flow;

	if (!turn || !number || data + SEQUENCE_AT + 4 > data_end || data + ADDRESS_AT + 4 > data_end ||
	    data + PORT_AT + 2 > data_end)
		return XDP_ABORTED;
	flow = turn->flow + turn->step;
	if (flow >= turn->flows)
		flow -= turn->flows;
	turn->flow = flow;
	*(u32 *)(data + SEQUENCE_AT) = bpf_htonl(++*number);
	*(u32 *)(data + ADDRESS_AT) = bpf_htonl(0x0A000000 + flow); /* 10.0.0.0 and so on; nobody looks at checksums */
	*(u16 *)(data + PORT_AT) = bpf_htons(1024 + (flow & 0x7FFF));
	behind.call(ctx, which);
	return XDP_ABORTED;
}

int rewrite_0(struct xdp_md *ctx)
{
	return rewrite(ctx, 0);
}

int rewrite_1(struct xdp_md *ctx)
{
	return rewrite(ctx, 1);
}
