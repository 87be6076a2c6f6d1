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

/* Power-of-two buckets: 0 -> 0, otherwise 1 + floor(log2(latency)); no latency -> NO_LATENCY. Without branches, and
 * without __builtin_clz, which crashes LLVM 14's BPF backend. */
inline_always u32 latency_bucket(u32 latency)
{
	u32 none = (u32)(((u64)latency + 1) >> 32), x = latency, bits, shift;

	shift = (u32)((0xFFFF - (u64)x) >> 63) << 4;
	x >>= shift;
	bits = shift;
	shift = (u32)((0xFF - (u64)x) >> 63) << 3;
	x >>= shift;
	bits |= shift;
	shift = (u32)((0xF - (u64)x) >> 63) << 2;
	x >>= shift;
	bits |= shift;
	shift = (u32)((0x3 - (u64)x) >> 63) << 1;
	x >>= shift;
	bits |= shift;
	bits += (x >> 1 & 1) + ((x >> 1 | x) & 1); /* + log2 of 0..3, + 1 unless latency was 0 */
	return bits + none * (NO_LATENCY - 32);
}

/* The suspect was no new beginning. From further back than the window: it was counted lost when it was passed over, unless
 * it is a second copy, which nothing remembers. From far ahead: nothing was counted of it. */
inline_always void late(struct source *source)
{
	source->reordered++;
	if (source->lost && (s32)(source->suspect - 1 - source->highest) < 0)
		source->lost--;
}

/* Sequence numbers, by signed difference from the highest seen, so that a wrap is a non-event. window holds which of the
 * last SEQUENCE_WINDOW were seen: a late one is reordered and no longer lost, one seen before is duplicated. What is
 * further back, or so far ahead that a restart is likelier than a loss (more than MAX_SEQUENCE_GAP, to a number near 0 or
 * by more than 2^24), is suspect: if the next report continues there, the exporter began anew, and nothing was lost;
 * otherwise it was late, or if it is the same again, duplicated. An exporter that has only ever sent 0 does not count
 * (ONOS). Called with the source's lock held. */
inline_always void sequence(struct source *source, u32 number)
{
	s32 ahead = number - source->highest;

	source->received++;
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
			if ((s32)(number - source->first) > 0) /* what came before the first was never counted lost */
				source->lost--;
		}
	} else if (source->flags & SOURCE_SUSPECT && number == source->suspect) {
		source->flags &= ~SOURCE_SUSPECT;
		source->restarted++;
		source->highest = number;
		source->first = number - 1;
		source->window = 3;
		return;
	} else if (ahead > 1 && (ahead <= MAX_SEQUENCE_GAP || (ahead <= 1 << 24 && number >= MAX_SEQUENCE_GAP))) {
		source->highest = number;
		source->lost += ahead - 1;
		source->window = ahead < SEQUENCE_WINDOW ? source->window << (ahead & 63) | 1 : 1;
	} else if (source->flags & SOURCE_SUSPECT && number + 1 == source->suspect) {
		source->duplicated++; /* an exporter that stopped counting says the same for ever */
		return;
	} else {
		if (source->flags & SOURCE_SUSPECT) /* two in a row: the one before was just late */
			late(source);
		source->flags |= SOURCE_COUNTS | SOURCE_SUSPECT;
		source->suspect = number + 1;
		return;
	}
	if (source->flags & SOURCE_SUSPECT) {
		source->flags &= ~SOURCE_SUSPECT;
		late(source);
	}
	if (number)
		source->flags |= SOURCE_COUNTS;
	if (source->highest - source->first > SEQUENCE_WINDOW) /* so that it is never half a wrap behind */
		source->first = source->highest - SEQUENCE_WINDOW;
}

#endif
