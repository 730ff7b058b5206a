/* SPDX-License-Identifier: ISC */
/*
 * metrics: the metrics that GET /api/streams/metrics returns (tpi-stream(7), MONITORING), and the
 * table of their names, types, help texts and labels.
 *
 * Counting adds to an atomic number without a lock, from any thread, even if the status pages are
 * off. Values that can be queried at any time (open streams, Valkey's state) are not counted here:
 * the reader fills them into its copy. Labels have a small, fixed set of values: never a user.
 */
#ifndef TPI_BASE_METRICS_H
#define TPI_BASE_METRICS_H

#include <stdint.h>
#include <stdio.h>

#define METRIC_KINDS  4  /* the kinds of streams: enum stream_kind */
extern const char *const metric_kinds[METRIC_KINDS]; /* their names */
#define METRIC_LABELS 16 /* the most values that a label may have */

enum metric {
	METRIC_BUILD_INFO,
	METRIC_START_TIME,
	METRIC_OPEN,
	METRIC_SLOTS,
	METRIC_SLOTS_LIMIT,
	METRIC_OPENED,
	METRIC_ENDED,    /* by enum metric_ended */
	METRIC_REFUSED,  /* by enum metric_refused */
	METRIC_DEFERRED, /* by enum metric_deferred */
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
	METRIC_APP_QUERIES,  /* by enum metric_source */
	METRIC_APP_REQUESTS,  /* by enum metric_result */
	METRIC_COUNT
};

/* Why a stream ended. */
enum metric_ended {
	ENDED_CLOSED,  /* by the peer */
	ENDED_EVICTED, /* by the user's cap */
	ENDED_STALLED,
	ENDED_AGE,
	ENDED_DRAINED,
	ENDED_REVOKED, /* by a re-check or a revocation */
	ENDED_REFUSED  /* Valkey refused a channel after a reconnect */
};

/* Why a request was refused: it got neither a stream nor "retry later". */
enum metric_refused {
	REFUSED_PATH,
	REFUSED_METHOD,
	REFUSED_PARAMETERS,
	REFUSED_SITE, /* a page of another site */
	REFUSED_USER,
	REFUSED_ANONYMOUS,
	REFUSED_PROJECTS,
	REFUSED_CAP
};

/* Why a request was answered with "retry later". */
enum metric_deferred {
	DEFERRED_DRAINING,
	DEFERRED_PENDING,   /* too many requests wait to learn who their user is */
	DEFERRED_RATE,      /* the user opens streams too fast */
	DEFERRED_CANCELLED, /* by a newer request of the same user */
	DEFERRED_EVICTED,   /* an evicted stream reconnected, and there was no free slot */
	DEFERRED_APPLICATION,
	DEFERRED_VALKEY_UNREACHABLE,
	DEFERRED_VALKEY_REFUSED,
	DEFERRED_VALKEY_SILENT,
	DEFERRED_RESOURCES,
	DEFERRED_REVOKED /* while the request was in flight */
};

/* Where the answer to a query of the application came from. */
enum metric_source { SOURCE_APPLICATION, SOURCE_IN_FLIGHT, SOURCE_CACHE, SOURCE_NONE };

/* The outcome of a request to the application. */
enum metric_result {
	RESULT_YES,
	RESULT_NO,
	RESULT_FORBIDDEN, /* 403 to a findMany */
	RESULT_WRONG,
	RESULT_FAILED
};

/*
 * Add n, or 1 with a label value, or 1 with a kind of stream and a label value. Thread-safe.
 */
void metric_add(enum metric counter, uint64_t n);
void metric_add_label(enum metric counter, int label);
void metric_add_kind(enum metric counter, int kind, int label);

/* Adds an observation to a histogram. Thread-safe. */
void metric_observe(enum metric counter, uint64_t microseconds);

/* A snapshot for metrics_write(), indexed by metric, kind and label value. */
struct metrics {
	uint64_t cells[METRIC_COUNT][METRIC_KINDS][METRIC_LABELS];
};

/* Copies all the counts. Thread-safe. */
void metrics_read(struct metrics *c);

/* Writes every series in Prometheus text format 0.0.4. tenant is a label of build_info. */
void metrics_write(const struct metrics *c, const char *tenant, FILE *out);

#endif
