/* SPDX-License-Identifier: ISC */
/*
 * ledger: which messages were published, and which have arrived at each stream.
 *
 * Messages are numbered. Each is for all streams (a broadcast) or for one (targeted, each stream in
 * turn). One connection publishes all of them, so each stream must get its own in order, each once;
 * only a later sync excuses a gap before it. Each message records how many of either kind precede it,
 * so comparing two counters shows what was lost, duplicated or out of order.
 */
#ifndef TPI_BENCH_LEDGER_H
#define TPI_BENCH_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_ALL UINT32_MAX

struct message {
	int64_t published, first, last; /* measure_now(); first and last arrival */
	uint32_t target;     /* a stream, or LEDGER_ALL */
	uint32_t waiting;    /* streams that have not received it */
	uint32_t broadcasts; /* broadcasts before it */
	uint32_t targeted;   /* targeted messages before it, for the same stream */
};

/* One kind of message on one stream. */
struct progress {
	uint32_t next; /* how many precede the one that is due */
	bool excused;  /* there was a sync since the last one */
};

/* What one stream has received. */
struct account {
	uint32_t stream;
	struct progress broadcasts, targeted;
};

struct ledger {
	struct message *messages;
	uint32_t count;                /* published */
	uint32_t broadcasts, targeted; /* of them */
	uint32_t streams, share;       /* share: percentage of messages that are targeted */
	uint64_t expected;             /* arrivals of all that was published */
	uint64_t settled;              /* arrived, or known to be lost */
	uint64_t delivered;            /* arrived */
	uint64_t dropped;              /* excused by a sync */
	uint64_t errors;               /* lost, duplicated, out of order, or wrong */
	uint64_t resyncs;
};

/* The next message, with its target; the caller publishes it. */
struct message *ledger_next(struct ledger *l);

/* The message with this number has arrived. */
void ledger_arrived(struct ledger *l, struct account *a, uint64_t number, int64_t now);

/* A sync has arrived that is not the stream's first one. */
void ledger_sync(struct ledger *l, struct account *a);

/* Counts as lost what the stream has not received by now. */
void ledger_end(struct ledger *l, const struct account *a);

/* Counts an error of a stream, and prints the first few. */
void ledger_wrong(struct ledger *l, const struct account *a, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
