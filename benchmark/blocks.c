/* What a report is made of, one thing a program, so that each can be measured by itself: bench_blocks.py. Function names
 * are the rows of its table. */
#include <linux/bpf.h>
#include <linux/types.h>

struct key {
	u64 words[5];
};

struct value {
	u64 words[80];
};

struct locked {
	struct bpf_spin_lock lock;
	u32 pad;
	u64 count;
};

BPF_TABLE("lru_hash", struct key, struct value, lru, 1024);
BPF_TABLE("hash", struct key, struct value, plain, 1024);
BPF_ARRAY(array, struct value, 16);
BPF_PERCPU_ARRAY(own, struct value, 16);
BPF_ARRAY(locks, struct locked, 16);
BPF_PROG_ARRAY(behind, 1);

int drop(struct xdp_md *ctx)
{
	return XDP_DROP;
}

int tail_call(struct xdp_md *ctx)
{
	behind.call(ctx, 0);
	return XDP_ABORTED;
}

int lru_hash(struct xdp_md *ctx)
{
	struct key key = {};
	struct value *value = lru.lookup(&key);

	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_DROP;
}

int hash(struct xdp_md *ctx)
{
	struct key key = {};
	struct value *value = plain.lookup(&key);

	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_DROP;
}

int array_entry(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_DROP;
}

int percpu_array_entry(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = own.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	value->words[0]++;
	return XDP_DROP;
}

int spin_lock(struct xdp_md *ctx)
{
	u32 at = 5;
	struct locked *value = locks.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	bpf_spin_lock(&value->lock);
	value->count++;
	bpf_spin_unlock(&value->lock);
	return XDP_DROP;
}

int atomic_add(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	__sync_fetch_and_add(&value->words[0], 1);
	return XDP_DROP;
}

int compare_and_swap(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);
	u64 old;

	if (!value)
		return XDP_ABORTED;
	old = *(volatile u64 *)&value->words[0];
	return __sync_val_compare_and_swap(&value->words[0], old, old + 1) == old ? XDP_DROP : XDP_ABORTED;
}

int clock(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	value->words[0] = bpf_ktime_get_ns();
	return XDP_DROP;
}

int coarse_clock(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	value->words[0] = bpf_ktime_get_coarse_ns();
	return XDP_DROP;
}

int jiffies(struct xdp_md *ctx)
{
	u32 at = 5;
	struct value *value = array.lookup(&at);

	if (!value)
		return XDP_ABORTED;
	value->words[0] = bpf_jiffies64();
	return XDP_DROP;
}
