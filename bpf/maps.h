/* Every map: what is in it, how large, who writes (K kernel program, U user space), who reads. */
#ifndef INTCOLLECTOR_MAPS_H
#define INTCOLLECTOR_MAPS_H

#include "report.h"

#ifndef MAX_FLOWS
#define MAX_FLOWS 100000
#endif
#ifndef CPUS
#define CPUS 1 /* that may ever be there */
#endif
/* A large struct as bytes: bcc writes code for every field of a value, and would be busy for minutes. */
#define BYTES(name)                                                                                                    \
	enum { name##_size = sizeof(struct name) };                                                                    \
	struct name##_bytes {                                                                                          \
		char bytes[name##_size];                                                                               \
	}

#ifdef NO_MAPPED_ARRAYS /* Linux before 5.5 */
#define MAPPED 0
#else
#define MAPPED (1U << 10) /* BPF_F_MMAPABLE */
#endif
#define MAX_SOURCES 4096
#define MAX_DROPS 4096

/* one entry an array: set by U at start and while running, read by K */
BPF_ARRAY(settings, struct settings, 1);

/* how sources write: U sets them at start and while running, K reads; 0 is for who has no entry in source_profiles */
BPF_ARRAY(profiles, struct profile, MAX_PROFILES);
BPF_F_TABLE("lpm_trie", struct source_prefix, u32, source_profiles, MAX_PROFILES, BPF_F_NO_PREALLOC);

/* 0: the long way, so that a packet can go it, and go on with another part of itself; 1: collector(), for what spread()
 * leaves alone; 2: refused(). U sets it at start */
BPF_PROG_ARRAY(again, 3);

#ifndef NO_CPUMAP_PROGRAMS /* Linux before 5.9 */
/* where spread() sends reports, by CPU: U sets it at start. A value is a queue's length and a program's descriptor, which
 * bcc's own macro for it leaves out */
BPF_XDP_REDIRECT_MAP("cpumap", u64, cpus, CPUS);
#endif

/* a packet at work: K only; U reads it nowhere but in tests. 0: from the network, 1: run by user space, which before
 * Linux 6.3 the network could interrupt */
BYTES(scratch);
BPF_PERCPU_ARRAY(scratches, struct scratch_bytes, 2);

/* what the program did, in the same two places: K writes, U sums over them and the CPUs */
BYTES(counters);
BPF_PERCPU_ARRAY(counters, struct counters_bytes, 2);

/* the flows, least recently used goes: K writes, U reads */
BYTES(flow);
BPF_TABLE("lru_hash", u64, struct flow_bytes, flows, MAX_FLOWS);

/* one for each of some flows: K only */
BPF_ARRAY(flow_locks, struct flow_lock, FLOW_LOCKS);

/* what a flow begins as: U sets it at start, K copies it */
BPF_PERCPU_ARRAY(new_flow, struct flow_bytes, 2);

/* (switch, port or queue) -> index: K only. The index stands in the flow beside the ids it is for. */
BPF_TABLE("hash", struct point_key, u32, point_index, 2 * MAX_POINTS);

/* ports and queues by index; 0 is nobody's. K writes, U reads. Arrays inside one value, which user space maps. */
BYTES(points);
BPF_F_TABLE("array", u32, struct points_bytes, points, 1, MAPPED);

/* what each CPU counts of them: K writes, U reads and sums. The same, an entry a CPU */
BYTES(statistics);
BPF_F_TABLE("array", u32, struct statistics_bytes, statistics, CPUS, MAPPED);

/* exporters: the same way. K writes under the entry's lock, U reads */
BPF_TABLE("hash", struct source_key, u32, source_index, MAX_SOURCES);
BPF_ARRAY(sources, struct source, MAX_SOURCES);

/* the next free indexes: K only */
BPF_ARRAY(allocators, struct allocator, 1);

/* malformed reports by exporter and outcome: K writes, U reads. What finds no room is counted by outcome only */
BYTES(refusal);
BPF_TABLE("hash", struct refusal_key, struct refusal_bytes, refusals, MAX_REFUSALS);

/* dropped packets by switch and reason: K writes, U reads */
BPF_TABLE("hash", struct drop_key, u64, drops, MAX_DROPS);

/* events: K writes, U reads. The same cells through both. */
#ifdef PERF
BPF_PERF_OUTPUT(events);
#else
#ifndef RING_PAGES
#define RING_PAGES 8192
#endif
BPF_RINGBUF_OUTPUT(events, RING_PAGES);
#endif

#endif
