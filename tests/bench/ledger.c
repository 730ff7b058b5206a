/* SPDX-License-Identifier: ISC */
/*
 * ledger: see ledger.h.
 */
#include "ledger.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define PRINTED_MAX 5

void
ledger_wrong(struct ledger *l, const struct account *a, const char *format, ...)
{
	va_list ap;

	if (l->errors++ >= PRINTED_MAX)
		return;
	fprintf(stderr, "load: stream %" PRIu32 ": ", a->stream);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* Targeted messages are spread evenly among the others. */
struct message *
ledger_next(struct ledger *l)
{
	struct message *m = &l->messages[l->count];
	uint64_t share = l->share, number = l->count;

	m->broadcasts = l->broadcasts;
	if ((number + 1) * share / 100 == number * share / 100) {
		m->target = LEDGER_ALL;
		m->waiting = l->streams;
		l->broadcasts++;
	} else {
		m->target = l->targeted % l->streams;
		m->targeted = l->targeted / l->streams;
		m->waiting = 1;
		l->targeted++;
	}
	l->expected += m->waiting;
	l->count++;
	return m;
}

/*
 * A message has arrived that is preceded by this many of its kind. False if it arrived before.
 */
static bool
advance(struct ledger *l, const struct account *a, struct progress *p, uint32_t before,
    const char *kind)
{
	uint32_t missing = before - p->next;

	if (before < p->next) {
		ledger_wrong(l, a, "%s %" PRIu32 " duplicated or too late", kind, before);
		return false;
	}
	if (missing > 0 && p->excused)
		l->dropped += missing;
	else if (missing > 0)
		ledger_wrong(l, a, "%" PRIu32 " missing before %s %" PRIu32, missing, kind, before);
	l->settled += missing + 1;
	l->delivered++;
	p->next = before + 1;
	p->excused = false;
	return true;
}

void
ledger_arrived(struct ledger *l, struct account *a, uint64_t number, int64_t now)
{
	struct message *m;
	bool fresh;

	if (number >= l->count) {
		ledger_wrong(l, a, "message %" PRIu64 " was not published", number);
		return;
	}
	m = &l->messages[number];
	if (m->target != LEDGER_ALL && m->target != a->stream) {
		ledger_wrong(l, a, "message %" PRIu64 " is for another stream", number);
		return;
	}
	/* Detects a broadcast that was published before it and arrives after it. */
	if (m->target != LEDGER_ALL && a->broadcasts.next != m->broadcasts &&
	    !a->broadcasts.excused)
		ledger_wrong(l, a, "message %" PRIu64 " out of order", number);
	fresh = m->target == LEDGER_ALL ?
	    advance(l, a, &a->broadcasts, m->broadcasts, "broadcast") :
	    advance(l, a, &a->targeted, m->targeted, "targeted");
	if (!fresh)
		return;
	if (m->first == 0)
		m->first = now;
	m->last = now;
	m->waiting--;
}

void
ledger_sync(struct ledger *l, struct account *a)
{
	l->resyncs++;
	a->broadcasts.excused = a->targeted.excused = true;
}

static void
end_kind(struct ledger *l, const struct account *a, const struct progress *p, uint32_t due,
    const char *kind)
{
	uint32_t missing = due - p->next;

	if (missing > 0 && p->excused)
		l->dropped += missing;
	else if (missing > 0)
		ledger_wrong(l, a, "%" PRIu32 " %s missing at the end", missing, kind);
}

void
ledger_end(struct ledger *l, const struct account *a)
{
	uint32_t due = l->targeted / l->streams + (a->stream < l->targeted % l->streams);

	end_kind(l, a, &a->broadcasts, l->broadcasts, "broadcasts");
	end_kind(l, a, &a->targeted, due, "targeted");
}
