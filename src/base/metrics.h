/*
 * metrics: what is counted, as one table: the name, type, help and labels of each metric that
 * GET /api/streams/metrics has (tpi-stream(7), MONITORING).
 *
 * Counting is an addition to an atomic number without a lock, by any thread, whether or not anybody
 * may read it. What can be asked for at any time (open streams, Valkey's state) is not counted here:
 * who reads fills it into his copy. Labels have few values, all known beforehand: never a user.
 */
#ifndef TPI_BASE_METRICS_H
#define TPI_BASE_METRICS_H

#include <stdint.h>
#include <stdio.h>

#define METRIC_KINDS  2  /* of stream: as many as topics[] has rows */
#define METRIC_LABELS 16 /* the most values of a label */

enum metric {
	METRIC_BUILD_INFO,
	METRIC_START_TIME,
	METRIC_OPEN,
	METRIC_SLOTS,
	METRIC_SLOTS_LIMIT,
	METRIC_OPENED,
	METRIC_ENDED,   /* by enum metric_ended */
	METRIC_REFUSED, /* by enum metric_refused */
	METRIC_DEFERRED,   /* by enum metric_deferred */
	METRIC_CONNECTIONS,
	METRIC_CONNECTIONS_REFUSED,
	METRIC_MESSAGES,
	METRIC_DROPPED,
	METRIC_SENT,
	METRIC_MERGED,
	METRIC_OVERFLOWS,
	METRIC_FANOUT, /* a histogram */
	METRIC_VALKEY_CONNECTED,
	METRIC_VALKEY_CONNECTS,
	METRIC_VALKEY_LOSSES,
	METRIC_CHANNELS,
	METRIC_MESSAGE_AGE,
	METRIC_APP_PAUSED,
	METRIC_APP_PAUSES,
	METRIC_APP_QUERIES, /* by enum metric_source */
	METRIC_APP_REQUESTS,  /* by enum metric_result */
	METRIC_COUNT
};

/* Why a stream has ended. */
enum metric_ended {
	ENDED_CLOSED,  /* by the peer */
	ENDED_EVICTED, /* by the user's cap */
	ENDED_STALLED,
	ENDED_AGE,
	ENDED_DRAINED,
	ENDED_REVOKED, /* by a re-check or a revocation */
	ENDED_REFUSED  /* Valkey refused a channel after a reconnect */
};

/* Why a request got neither a stream nor the request to come back. */
enum metric_refused {
	REFUSED_PATH,
	REFUSED_METHOD,
	REFUSED_PARAMETERS,
	REFUSED_USER,
	REFUSED_ANONYMOUS,
	REFUSED_PROJECTS,
	REFUSED_CAP
};

/* Why a request was told to come back later. */
enum metric_deferred {
	DEFERRED_DRAINING,
	DEFERRED_CANCELLED, /* by a newer request of the same user */
	DEFERRED_EVICTED,   /* the automatic reconnect of an evicted stream, and no free slot */
	DEFERRED_APPLICATION,
	DEFERRED_VALKEY_UNREACHABLE,
	DEFERRED_VALKEY_REFUSED,
	DEFERRED_VALKEY_SILENT,
	DEFERRED_RESOURCES,
	DEFERRED_REVOKED /* meanwhile */
};

/* Where the answer to a query to the application client comes from. */
enum metric_source { SOURCE_APPLICATION, SOURCE_IN_FLIGHT, SOURCE_CACHE, SOURCE_NONE };

/* What came of a request to the application. */
enum metric_result {
	RESULT_YES,
	RESULT_NO,
	RESULT_FORBIDDEN, /* 403 to a findMany */
	RESULT_WRONG,
	RESULT_FAILED
};

/* n more, and one more with a label's value, without and with a kind of stream. Any thread. */
void metric_add(enum metric counter, uint64_t n);
void metric_add_label(enum metric counter, int label);
void metric_add_kind(enum metric counter, int kind, int label);

/* One more observation of a histogram. Any thread. */
void metric_observe(enum metric counter, uint64_t microseconds);

/* A copy, to be filled up and written: METRIC_OPEN of kind 1 is cells[METRIC_OPEN][1][0]. */
struct metrics {
	uint64_t cells[METRIC_COUNT][METRIC_KINDS][METRIC_LABELS];
};

/* All that has been counted so far. Any thread. */
void metrics_read(struct metrics *c);

/* Writes every series, in the text format 0.0.4 of Prometheus. The tenant is a label of one of them. */
void metrics_write(const struct metrics *c, const char *tenant, FILE *out);

#endif
