/* Is it news? Pure functions of (told, now, threshold), and the bookkeeping of sequence numbers and buckets. */
#ifndef INTCOLLECTOR_DETECT_H
#define INTCOLLECTOR_DETECT_H

#include "cursor.h"

/* INTCollector's two ways of telling a change. Threshold: now is further than that from what was told last. Interval:
 * now is in another interval of that width. All ones is no value: never news; told all ones: nothing was told yet. */
inline_always bool is_news(u64 told, u64 now, u64 none, u32 threshold, u32 mode)
{
	if (now == none)
		return false;
	if (told == none)
		return true;
	if (mode == EVENT_INTERVAL) {
		u64 width = threshold ? threshold : 1;

		return now / width != told / width;
	}
	return (now > told ? now - told : told - now) > threshold;
}

inline_always bool is_news32(u32 told, u32 now, u32 threshold, u32 mode)
{
	return is_news(told, now, 0xFFFFFFFFU, threshold, mode);
}

/* Power-of-two buckets of ns: 0 -> 0, otherwise 1 + floor(log2), from 2^32 on one more; none: all ones where there is no
 * latency, else 0. Without branches, and without __builtin_clz, which crashes LLVM 14's BPF backend. */
inline_always u32 latency_bucket(u64 ns, u64 none)
{
	u64 more = ns >> 32, x = ns & 0xFFFFFFFF;
	u32 bits, shift;

	more = (more | (0 - more)) >> 63; /* 1 or 0 */
	FENCE(more);
	x |= (0 - more) & 0xFFFFFFFF;
	shift = (u32)((0xFFFF - x) >> 63) << 4;
	x >>= shift;
	bits = shift;
	shift = (u32)((0xFF - x) >> 63) << 3;
	x >>= shift;
	bits |= shift;
	shift = (u32)((0xF - x) >> 63) << 2;
	x >>= shift;
	bits |= shift;
	shift = (u32)((0x3 - x) >> 63) << 1;
	x >>= shift;
	bits |= shift;
	bits += (x >> 1 & 1) + ((x >> 1 | x) & 1) + more; /* + log2 of 0..3, + 1 unless latency was 0 */
	return (bits & ~none) | (NO_LATENCY & none);
}

/* b - a of sequence numbers that are shorter than 32 bits by narrow bits; of both directions the shorter. */
inline_always s32 ahead_of(u32 a, u32 b, u32 narrow)
{
	return (s32)((b - a) << narrow) >> narrow;
}

/* The suspect was no new beginning. From further back than the window: it was counted lost when it was passed over, unless
 * it is a second copy, which nothing remembers. From far ahead: nothing was counted of it. */
inline_always void late(struct source *source, u32 narrow)
{
	source->reordered++;
	if (source->lost && ahead_of(source->highest, source->suspect - 1, narrow) < 0)
		source->lost--;
}

/* Where it went on is where it was before: it did not begin anew, its reports come in two strands, one far behind the other
 * (over two receive queues, say). What was taken for a new life was late; it had been counted lost. */
inline_always void take_back_restart(struct source *source)
{
	u64 late = source->since - 1; /* without the report at hand */

	source->flags &= ~(SOURCE_RESTARTED | SOURCE_SUSPECT);
	source->restarted--;
	source->reordered += late;
	source->highest = source->before_highest;
	source->first = source->before_first;
	source->window = source->before_window;
	source->lost = source->before_lost - late;
}

/* Sequence numbers, by signed difference from the highest seen, so that a wrap is a non-event. window holds which of the
 * last SEQUENCE_WINDOW were seen: a late one is reordered and no longer lost, one seen before is duplicated. What is
 * further back, or so far ahead that a restart is likelier than a loss (more than MAX_SEQUENCE_GAP, to a number near 0 or
 * by more than 2^24), is suspect: if the next report continues there, the exporter began anew, and nothing was lost;
 * otherwise it was late, or if it is the same again, duplicated. If soon after that a report goes on where the numbers were
 * before, it did not begin anew after all. An exporter that has only ever sent 0 does not count
 * (ONOS). narrow: bits that the numbers have less than 32. Called with the source's lock held. */
inline_always void sequence(struct source *source, u32 number, u32 narrow)
{
	s32 ahead = ahead_of(source->highest, number, narrow);
	u32 mask = 0xFFFFFFFFU >> narrow;

	source->received++;
	if (source->flags & SOURCE_RESTARTED) {
		s32 beyond = ahead_of(source->before_highest, number, narrow);

		if (++source->since > BELIEVED_AFTER) {
			source->flags &= ~SOURCE_RESTARTED;
		} else if (beyond > 0 && beyond <= SEQUENCE_WINDOW && ahead != 1 &&
			   source->before_lost >= source->since - 1) {
			take_back_restart(source);
			ahead = beyond;
		}
	}
	if (source->received == 1) {
		source->highest = number;
		source->first = number;
		source->window = 1;
	} else if (!number && !(source->flags & SOURCE_COUNTS)) {
		return;
	} else if (ahead == 1) { /* the usual one first */
		source->highest = number;
		source->window = source->window << 1 | 1;
	} else if (ahead <= 0 && ahead > -SEQUENCE_WINDOW) {
		u64 bit = 1ULL << (-ahead & 63);

		if (source->window & bit) {
			source->duplicated++;
		} else {
			source->window |= bit;
			source->reordered++;
			/* what came before the first was never counted lost */
			if (ahead_of(source->first, number, narrow) > 0 && source->lost)
				source->lost--;
		}
	} else if (source->flags & SOURCE_SUSPECT && number == source->suspect) {
		source->flags = (source->flags & ~SOURCE_SUSPECT) | SOURCE_RESTARTED;
		source->restarted++;
		source->since = 2;
		source->before_highest = source->highest;
		source->before_first = source->first;
		source->before_window = source->window;
		source->before_lost = source->lost;
		source->highest = number;
		source->first = (number - 1) & mask;
		source->window = 3;
		return;
	} else if (ahead > 1 && (ahead <= MAX_SEQUENCE_GAP || (ahead <= 1 << 24 && number >= MAX_SEQUENCE_GAP))) {
		source->highest = number;
		source->lost += ahead - 1;
		source->window = ahead < SEQUENCE_WINDOW ? source->window << (ahead & 63) | 1 : 1;
	} else if (source->flags & SOURCE_SUSPECT && ((number + 1) & mask) == source->suspect) {
		source->duplicated++; /* an exporter that stopped counting says the same for ever */
		return;
	} else {
		if (source->flags & SOURCE_SUSPECT) /* two in a row: the one before was just late */
			late(source, narrow);
		source->flags |= SOURCE_COUNTS | SOURCE_SUSPECT;
		source->suspect = (number + 1) & mask;
		return;
	}
	if (source->flags & SOURCE_SUSPECT) {
		source->flags &= ~SOURCE_SUSPECT;
		late(source, narrow);
	}
	if (number)
		source->flags |= SOURCE_COUNTS;
	/* so that it is never half a wrap behind */
	if (((source->highest - source->first) & mask) > SEQUENCE_WINDOW)
		source->first = (source->highest - SEQUENCE_WINDOW) & mask;
}

#endif
