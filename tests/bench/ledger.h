/* SPDX-License-Identifier: ISC */
/*
 * ledger: what was published, and what has arrived where.
 *
 * Messages are numbered. Each is for all streams (a broadcast) or for one (targeted, the streams in
 * turn). One connection publishes them all, so each stream has to get its own in the order of the
 * numbers, each once; only a later sync excuses what is missing before it. A message tells how many
 * of either kind went before it, so one look at two counters shows what was lost, doubled or out of
 * order.
 */
#ifndef TPI_BENCH_LEDGER_H
#define TPI_BENCH_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_EVERYBODY UINT32_MAX

struct message {
	int64_t published, first, last; /* measure_now(); first and last arrival */
	uint32_t target;     /* a stream, or LEDGER_EVERYBODY */
	uint32_t waiting;    /* streams that have not got it */
	uint32_t broadcasts; /* before it */
	uint32_t targeted;   /* before it, for the same stream */
};

/* One kind of message on one stream. */
struct progress {
	uint32_t next; /* how many went before the one that is due */
	bool excused;  /* a sync came since the last */
};

/* What one stream has got. */
struct account {
	uint32_t stream;
	struct progress broadcasts, targeted;
};

struct ledger {
	struct message *messages;
	uint32_t count;                /* published */
	uint32_t broadcasts, targeted; /* of them */
	uint32_t streams, share;       /* per cent of the messages that are targeted */
	uint64_t expected;             /* arrivals of what was published */
	uint64_t settled;              /* arrived, or known never to come */
	uint64_t delivered;            /* arrived */
	uint64_t dropped;              /* excused by a sync */
	uint64_t errors;               /* lost, doubled, out of order, wrong */
	uint64_t resyncs;
};

/* The next message, for whom it is filled in; the caller publishes it. */
struct message *ledger_next(struct ledger *l);

/* A message of that number has arrived. */
void ledger_arrived(struct ledger *l, struct account *a, uint64_t number, int64_t now);

/* A sync, but not a stream's first one. */
void ledger_sync(struct ledger *l, struct account *a);

/* What a stream has not got by now it never will. */
void ledger_end(struct ledger *l, const struct account *a);

/* Counts an error of a stream; the first few are told. */
void ledger_wrong(struct ledger *l, const struct account *a, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
