/*
 * gate: asks the application who somebody is and what he may read (TPI_IDENTITY=app,
 * TPI_PROJECT_ACCESS=app; section 3 of the contract).
 *
 * One thread talks to the application, with at most TPI_APP_CONCURRENCY requests under way; the
 * others wait in a queue. Equal questions that are open at the same time are one request. An answer
 * is kept for the streams that open within TPI_APP_CACHE_SECONDS and for the re-checks of the other
 * streams with the same credentials (TPI_RECHECK_SECONDS); a no is kept for at most a second. After
 * a failed connect or a time limit, with no answer to anybody since that request began, every
 * question fails at once for 2 s, unless its answer is kept.
 *
 * Whoever asks does not block: a mark on its stream (STREAM_ANSWERED) says when the answer is there.
 */
#ifndef TPI_GATE_H
#define TPI_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "auth/credentials.h"
#include "config/settings.h"
#include "stream/stream.h"

struct gate;
struct question;

/* Starts the thread. s must outlive the process's threads. NULL: memory or threads are out. */
struct gate *gate_start(const struct settings *s);

/* Whether questions fail at once because the application was found dead. Any thread. */
bool gate_paused(struct gate *g);

/*
 * Ends the thread; waits for that up to timeout_ms. False where it goes on: then the process must not
 * run its exit handlers, because those of the TLS library would pull the ground from under it.
 */
bool gate_stop(struct gate *g, int timeout_ms);

/* For gate_ask(): any answer that is kept for TPI_APP_CACHE_SECONDS will do. */
#define GATE_CACHED (-1)

/*
 * Asks who this is, or, where projects is not NULL, which of these 1 to REQUEST_PROJECTS_MAX
 * projects (copied) the user may read. after is GATE_CACHED, or a clock_ms(): then a kept answer
 * will do only if the application was asked after that. The caller stops waiting at deadline
 * (clock_ms()); the request is given up then, too, or sooner where it was in flight already. asker
 * must live until gate_forget(). NULL: no memory. Any thread.
 */
struct question *gate_ask(struct gate *g, struct credentials *c, const int32_t *projects, int count,
    int64_t after, struct stream *asker, int64_t deadline);

enum gate_answer {
	GATE_PENDING, /* STREAM_ANSWERED will come */
	GATE_LATER,   /* the application cannot be asked */
	GATE_NO,      /* nobody; none of the projects */
	GATE_YES
};

/* Any thread. */
enum gate_answer gate_answer(struct question *q);

/*
 * clock_ms() at which the application was asked, the earliest of several requests: the answer is at
 * least as new as this. After GATE_YES or GATE_NO.
 */
int64_t gate_asked_at(const struct question *q);

/* The user's id, after GATE_YES to who this is. Valid until gate_forget(). */
const char *gate_user(const struct question *q);

/*
 * Keeps those of the projects that were asked for that he may read, in their order; returns how many.
 * After GATE_YES or GATE_NO to such a question.
 */
int gate_filter(const struct question *q, int32_t *projects);

/*
 * Somebody has lost a right: what the application has said so far, or is being asked at this moment,
 * is no answer for those who ask from now on. Waits for nothing. Any thread.
 */
void gate_revoke(struct gate *g);

/* Frees a question, answered or not. Safe for NULL. Any thread, one at a time. */
void gate_forget(struct question *q);

#endif
