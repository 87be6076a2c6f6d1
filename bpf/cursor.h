/* Where in the packet we are. take() is the only comparison with data_end.
 *
 * Offsets, not pointers: the outer lengths (end) bound what is ours, and an offset can be made to forget how it came
 * about. Each way through tags, options and versions leaves another one, and the verifier would follow each of them
 * through all that comes behind; meet() sends the offset through memory, after which there is one way left. */
#ifndef INTCOLLECTOR_CURSOR_H
#define INTCOLLECTOR_CURSOR_H

#include "report.h"

#define inline_always static inline __attribute__((always_inline))
#define FENCE(x) asm volatile("" : "+r"(x))
#define MAX_AT 0x7FFF /* a mask: nothing that is read begins further behind */

struct cursor {
	struct xdp_md *ctx;
	void *data;
	void *data_end;
	u32 at;	 /* the next byte */
	u32 end; /* the first that is not ours */
};

/* The next size bytes, or 0 where there are fewer. */
inline_always void *take(struct cursor *c, u32 size)
{
	u32 at = c->at & MAX_AT;
	void *p = c->data + at;

	if (at + size > c->end || p + size > c->data_end)
		return 0;
	c->at = at + size;
	return p;
}

#define TAKE(c, type) ((type *)take(c, sizeof(type)))

/* Let all ways that lead here be one. memory: any place in a map. */
inline_always u32 meet(u32 value, u32 *memory)
{
	*(volatile u32 *)memory = value;
	return *(volatile u32 *)memory;
}

/* Forget what is known of a value that stands in memory. */
inline_always u32 reread(const u32 *memory)
{
	return *(const volatile u32 *)memory;
}

inline_always u64 meet64(u64 value, u64 *memory)
{
	*(volatile u64 *)memory = value;
	return *(volatile u64 *)memory;
}

/* The packet's ends: at first, and anew where ways meet, of which each compared them with something else. */
inline_always void find_ends(struct cursor *c)
{
	c->data = (void *)(long)*(volatile u32 *)&c->ctx->data;
	c->data_end = (void *)(long)*(volatile u32 *)&c->ctx->data_end;
	FENCE(c->data); /* or the compiler, which knows that they were 32 bits, computes with them before they are pointers */
	FENCE(c->data_end);
}

/* What stands in memory is read anew from here on: the same for all that a function left there. */
#define REREAD() asm volatile("" ::: "memory")

#endif
