/*
 * counters: what is counted, as one table: the name, type, help and labels of each metric that
 * GET /api/streams/metrics has (tpi-stream(7), MONITORING).
 *
 * Counting is an addition to an atomic number without a lock, by any thread, whether or not anybody
 * may read it. What can be asked for at any time (open streams, Valkey's state) is not counted here:
 * who reads fills it into his copy. Labels have few values, all known beforehand: never a user.
 */
#ifndef TPI_COUNTERS_H
#define TPI_COUNTERS_H

#include <stdint.h>
#include <stdio.h>

#define COUNTER_KINDS  2  /* of stream: as many as routes[] has rows */
#define COUNTER_LABELS 16 /* the most values of a label */

enum counter {
	COUNTER_BUILD_INFO,
	COUNTER_START_TIME,
	COUNTER_OPEN,
	COUNTER_PLACES,
	COUNTER_PLACES_LIMIT,
	COUNTER_OPENED,
	COUNTER_ENDED,   /* by enum counter_ended */
	COUNTER_REFUSED, /* by enum counter_refused */
	COUNTER_LATER,   /* by enum counter_later */
	COUNTER_CONNECTIONS,
	COUNTER_CONNECTIONS_REFUSED,
	COUNTER_MESSAGES,
	COUNTER_DROPPED,
	COUNTER_SENT,
	COUNTER_MERGED,
	COUNTER_OVERFLOWS,
	COUNTER_FANOUT, /* a histogram */
	COUNTER_VALKEY_CONNECTED,
	COUNTER_VALKEY_CONNECTS,
	COUNTER_VALKEY_LOSSES,
	COUNTER_CHANNELS,
	COUNTER_MESSAGE_AGE,
	COUNTER_GATE_PAUSED,
	COUNTER_GATE_PAUSES,
	COUNTER_GATE_QUESTIONS, /* by enum counter_source */
	COUNTER_GATE_REQUESTS,  /* by enum counter_result */
	COUNTER_COUNT
};

/* Why a stream has ended. */
enum counter_ended {
	ENDED_CLOSED,  /* by the peer */
	ENDED_EVICTED, /* by the user's cap */
	ENDED_STALLED,
	ENDED_AGE,
	ENDED_DRAINED,
	ENDED_REVOKED, /* by a re-check or a revocation */
	ENDED_REFUSED  /* Valkey refused a channel after a reconnect */
};

/* Why a request got neither a stream nor the wish to come back. */
enum counter_refused {
	REFUSED_PATH,
	REFUSED_METHOD,
	REFUSED_PARAMETERS,
	REFUSED_USER,
	REFUSED_NOBODY,
	REFUSED_PROJECTS,
	REFUSED_CAP
};

/* Why a request was told to come back later. */
enum counter_later {
	LATER_DRAINING,
	LATER_CANCELLED, /* by a newer request of the same user */
	LATER_EVICTED,   /* the automatic reconnect of an evicted stream, and no free slot */
	LATER_APPLICATION,
	LATER_VALKEY_AWAY,
	LATER_VALKEY_REFUSED,
	LATER_VALKEY_SILENT,
	LATER_RESOURCES,
	LATER_REVOKED /* meanwhile */
};

/* Where the answer to a question to the gate comes from. */
enum counter_source { SOURCE_APPLICATION, SOURCE_UNDER_WAY, SOURCE_CACHE, SOURCE_NOBODY };

/* What came of a request to the application. */
enum counter_result {
	RESULT_YES,
	RESULT_NO,
	RESULT_FORBIDDEN, /* 403 to a findMany */
	RESULT_WRONG,
	RESULT_FAILED
};

/* n more, and one more with a label's value, without and with a kind of stream. Any thread. */
void counter_add(enum counter counter, uint64_t n);
void counter_add_label(enum counter counter, int label);
void counter_add_kind(enum counter counter, int kind, int label);

/* One more observation of a histogram. Any thread. */
void counter_observe(enum counter counter, uint64_t microseconds);

/* A copy, to be filled up and written: COUNTER_OPEN of kind 1 is cells[COUNTER_OPEN][1][0]. */
struct counters {
	uint64_t cells[COUNTER_COUNT][COUNTER_KINDS][COUNTER_LABELS];
};

/* All that has been counted so far. Any thread. */
void counters_read(struct counters *c);

/* Writes every series, in the text format 0.0.4 of Prometheus. The tenant is a label of one of them. */
void counters_write(const struct counters *c, const char *tenant, FILE *out);

#endif
