/* Is it news? Pure functions of (told, now, threshold), and the bookkeeping of sequence numbers and buckets. */
#ifndef INTCOLLECTOR_DETECT_H
#define INTCOLLECTOR_DETECT_H

#include "scratch.h"

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

/* The same of 32 bits, for a loop: without branches, of which each would double the verifier's ways. In two steps: does it
 * differ, by one mode or the other, 1 or 0; and is_news32(), which knows what having no value makes of that. */
inline_always u64 is_further(u64 told, u64 now, u64 threshold)
{
	s64 apart = now - told, sign = apart >> 63;

	FENCE(sign);
	apart = threshold - ((apart ^ sign) - sign);
	FENCE(apart);
	return (u64)apart >> 63;
}

inline_always u64 is_elsewhere(u64 told, u64 now, u64 width)
{
	return is_nonzero64(now / width ^ told / width);
}

inline_always u64 is_news32(u64 told, u64 now, u64 differs)
{
	u64 news = (differs | (ones_if_none32(told) & 1)) & ~ones_if_none32(now);

	FENCE(news);
	return news;
}

/* Power-of-two buckets of ns: 0 -> 0, otherwise 1 + floor(log2). By a table of bytes, since BPF has no instruction for it,
 * and __builtin_clz crashes LLVM 14's BPF backend. Fences, or the compiler makes branches of it. ns has 32 bits. */
inline_always u64 near_bucket(const struct settings *set, u64 ns)
{
	u64 high = 0xFFFF - ns, middle;

	FENCE(high);
	high = high >> 63 << 4;
	ns >>= high;
	middle = 0xFF - ns;
	FENCE(middle);
	middle = middle >> 63 << 3;
	ns >>= middle;
	return high + middle + set->bits[ns & 0xFF];
}

/* ... and from 2^32 on one more. */
inline_always u64 latency_bucket(const struct settings *set, u64 ns)
{
	u64 more = is_nonzero64(ns >> 32);

	FENCE(more);
	return near_bucket(set, (ns | (0 - more)) & NONE32) + more;
}

/* b - a of sequence numbers that are shorter than 32 bits by narrow bits; of both directions the shorter. */
inline_always s32 ahead_of(u32 a, u32 b, u32 narrow)
{
	return (s32)((b - a) << narrow) >> narrow;
}

/* Also those found without the lock, but for the run. */
inline_always u64 all_received(const struct source *source)
{
	return source->received + source->repeated + source->silent;
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
	if (all_received(source) == 1) {
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

/* --- without the lock -------------------------------------------------------------------------------------------------
 *
 * Nearly all reports come in sequence. For those a source has one word that a compare-and-swap moves on:
 *
 *   run: closed 1 | length 31 | next number 32
 *
 * length numbers in a row were seen, up to the one before next; all but the first of them are not in the source's other
 * fields yet. Whoever holds the lock closes the run, so that nobody moves it on, and settles it; and opens it again if
 * the next number will be the usual one. 0: there is no run. */
#define RUN_CLOSED (1ULL << 63)
#define RUN_ONE (1ULL << 32)
#define RUN_LONGEST (1U << 30)

/* A report in sequence, or one of the last again, or one of an exporter that never counts. False: the lock is needed. */
inline_always bool continue_run(struct source *source, u32 number, u32 narrow)
{
#ifndef NO_CMPXCHG /* Linux before 5.12 */
	u64 run = *(volatile u64 *)&source->run, length = run >> 32;
	u32 mask = 0xFFFFFFFFU >> narrow, back;

	if (length && length < RUN_LONGEST) {
		if ((u32)run == number) {
			u64 moved = (length + 1) << 32 | ((number + 1) & mask);

			return __sync_val_compare_and_swap(&source->run, run, moved) == run;
		}
		back = ((u32)run - 1 - number) & mask;
		if (back >= length || back >= SEQUENCE_WINDOW)
			return false;
		__sync_fetch_and_add(&source->repeated, 1);
		return true;
	}
	if (!number && !(source->flags & SOURCE_COUNTS) && all_received(source)) {
		__sync_fetch_and_add(&source->silent, 1);
		return true;
	}
#endif
	return false;
}

/* Put the run where the source's other fields are. Called with the lock held. */
inline_always void settle_run(struct source *source, u32 narrow)
{
	u32 mask = 0xFFFFFFFFU >> narrow;
	u64 run = *(volatile u64 *)&source->run, count;

	if (!run)
		return;
	__sync_fetch_and_add(&source->run, RUN_CLOSED);
	run = *(volatile u64 *)&source->run;
	count = (run >> 32 & ~(u32)(RUN_CLOSED >> 32)) - 1;
	source->received += count;
	source->highest = ((u32)run - 1) & mask;
	if (count < SEQUENCE_WINDOW)
		source->window = source->window << (count & 63) | ((1ULL << (count & 63)) - 1);
	else
		source->window = NONE64;
	if (count > SEQUENCE_WINDOW || ((source->highest - source->first) & mask) > SEQUENCE_WINDOW)
		source->first = (source->highest - SEQUENCE_WINDOW) & mask;
	source->run = 0;
}

/* Called with the lock held, and the run settled. */
inline_always void open_run(struct source *source, u32 narrow)
{
#ifndef NO_CMPXCHG
	if ((source->flags & (SOURCE_COUNTS | SOURCE_SUSPECT | SOURCE_RESTARTED)) == SOURCE_COUNTS)
		source->run = RUN_ONE | ((source->highest + 1) & (0xFFFFFFFFU >> narrow));
#endif
}

#endif
