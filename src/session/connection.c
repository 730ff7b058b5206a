/* SPDX-License-Identifier: ISC */
/*
 * connection: one request, from its first byte to the close of its connection. See connection.h.
 *
 * serve() shows the steps in order. Each returns true to go on. One that returns false has answered
 * the request, or the peer is gone. leave() undoes whatever was done, in reverse order.
 */
#include "session/connection.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "auth/origin.h"
#include "auth/web_identity.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "config/allowed_origins.h"
#include "session/authorize.h"
#include "session/status.h"
#include "session/stream_list.h"
#include "wire/frame.h"

#define JOIN_MS      5000 /* time for Valkey to confirm the subscriptions */
#define FAILURES_MAX 50   /* log lines a second about failed requests */

/* Time for the peer to take what is still queued when its stream has ended. */
static int
grace_ms(const struct connection *c)
{
	int half = c->registry->settings->drain_seconds * 1000 / 2;

	return half < 1000 ? half : 1000;
}

/* The request no longer waits for its user to be identified; safe if it never did. */
static void
leave_pending(struct connection *c)
{
	if (c->pending)
		c->registry->pending--;
	c->pending = false;
}

/*
 * Sends a complete response. It releases the slots first, so a client that has read the response
 * finds them free.
 */
static bool
respond(struct connection *c, const char *text)
{
	leave_pending(c);
	if (c->caps != NULL) {
		caps_leave(c->caps, &c->slot);
		caps_release(c->caps, &c->slot);
	}
	stream_finish(c->stream, text);
	return false;
}

#define CORS_FORMAT                                                                               \
	"Access-Control-Allow-Origin: %.*s\r\nAccess-Control-Allow-Credentials: true\r\n"
#define CORS_SIZE (sizeof(CORS_FORMAT) + ALLOWED_ORIGIN_MAX)

/* The headers without which a browser hides a response from a page of an allowed origin. */
static const char *
cors_headers(const struct stream *stream, char text[CORS_SIZE])
{
	const char *origin = stream->allowed_origin;

	text[0] = '\0';
	if (origin != NULL)
		snprintf(text, CORS_SIZE, CORS_FORMAT, (int)strcspn(origin, ","), origin);
	return text;
}

/* Room for the head of a stream and its first event: what stream_start() accepts. */
#define BEGINNING_SIZE 512
_Static_assert(sizeof(STREAM_HEAD "id\n" STREAM_SYNC_LINE "retry: 300000\n\n") + CORS_SIZE <=
    BEGINNING_SIZE, "the beginning of a stream fits");

/* tpi-stream(7), Retry later: the headers of a stream, a retry time, and the end. */
static bool
defer(struct connection *c, enum metric_deferred reason)
{
	bool slow = reason == DEFERRED_EVICTED;
	char text[BEGINNING_SIZE], cors[CORS_SIZE];

	metric_add_label(METRIC_DEFERRED, reason);
	if (slow)
		LOG(LOG_LEVEL_DEBUG, c->topic->tag, "no free slot for an evicted stream",
		    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user));
	snprintf(text, sizeof(text), STREAM_HEADERS "%s\r\nretry: %u\n\n",
	    cors_headers(c->stream, cors), clock_jitter(slow ? CAPS_RETRY_MIN_MS : 10000,
	    slow ? CAPS_RETRY_MAX_MS : 30000));
	return respond(c, text);
}

/* The reason for "retry later" after STREAM_CANCELLED. */
static enum metric_deferred
cancel_reason(const struct connection *c)
{
	return c->slot.returning ? DEFERRED_EVICTED : DEFERRED_CANCELLED;
}

/* Defers the request, with a warning, up to FAILURES_MAX a second, if the reason is a failure. */
static bool
subscribe_failed(struct connection *c, enum metric_deferred reason)
{
	static struct log_limit limit;
	static const char *const errors[] = {
		[DEFERRED_DRAINING] = NULL,
		[DEFERRED_PENDING] = NULL,
		[DEFERRED_RATE] = NULL,
		[DEFERRED_CANCELLED] = NULL,
		[DEFERRED_EVICTED] = NULL,
		[DEFERRED_REVOKED] = NULL,
		[DEFERRED_APPLICATION] = "cannot query the application",
		[DEFERRED_VALKEY_UNREACHABLE] = "Valkey is unreachable",
		[DEFERRED_VALKEY_REFUSED] = "Valkey refused the channel",
		[DEFERRED_VALKEY_SILENT] = "no confirmation from Valkey within 5 s",
		[DEFERRED_RESOURCES] = "out of memory",
	};
	struct log_field fields[3 + TOPIC_MAX + 2] = {
		LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user),
		LOG_STR("error", errors[reason]) }, *end;
	uint32_t suppressed;

	if (errors[reason] == NULL || !log_allowed_some(&limit, FAILURES_MAX, 1000, &suppressed))
		return defer(c, reason);
	end = watch_list_log(&c->watches, c->stream->labelled, fields + 3);
	if (suppressed > 0)
		*end++ = (struct log_field)LOG_INT("suppressed", suppressed);
	*end = (struct log_field)LOG_END;
	log_write(LOG_LEVEL_WARN, c->topic->tag, "subscribe failed", fields);
	return defer(c, reason);
}

/* If memory runs out, the connection is closed without a response. */
static bool
answer(struct connection *c, const struct answer *a)
{
	char cors[CORS_SIZE];
	char *text = answer_text(a, cors_headers(c->stream, cors), c->request.method);

	if (text != NULL)
		respond(c, text);
	free(text);
	return false;
}

#define JSON         "application/json"
#define ERROR(text)  "{\"error\":\"" text "\"}"

static bool
refuse(struct connection *c, enum metric_refused reason)
{
	static const struct answer answers[] = {
		[REFUSED_PATH] = { 404, "Not Found", "", JSON, ERROR("no such stream") },
		[REFUSED_METHOD] = { 405, "Method Not Allowed", "Allow: GET\r\n", JSON,
		    ERROR("only GET is allowed") },
		[REFUSED_ANONYMOUS] = { 401, "Unauthorized", "", JSON, ERROR("not signed in") },
		[REFUSED_CAP] = { 503, "Service Unavailable", "Retry-After: 30\r\n", JSON,
		    ERROR("too many streams") },
	};

	metric_add_label(METRIC_REFUSED, reason);
	return answer(c, &answers[reason]);
}

/* error is a text that needs no escaping. */
static bool
refuse_with(struct connection *c, enum metric_refused reason, int status, const char *phrase,
    const char *error)
{
	char body[256];
	const struct answer a = { status, phrase, "", JSON, body };

	metric_add_label(METRIC_REFUSED, reason);
	snprintf(body, sizeof(body), ERROR("%s"), error);
	return answer(c, &a);
}

static bool
bad_request(struct connection *c, enum metric_refused reason, const char *error)
{
	return refuse_with(c, reason, 400, "Bad Request", error);
}

/* Whether anything is left that the user has access to; if not, the request is refused. */
static bool
has_access(struct connection *c)
{
	return watch_list_total(&c->watches) > 0 ||
	    refuse_with(c, REFUSED_PROJECTS, 404, "Not Found", c->topic->not_found);
}

static bool
read_head(struct connection *c)
{
	const struct registry *r = c->registry;

	return peer_read_head(&c->peer, clock_ms() + r->settings->request_timeout_ms, &r->draining,
	    grace_ms(c));
}

static bool
decode(struct connection *c)
{
	static struct log_limit limit;
	int error;

	error = request_parse(&c->request, &c->peer.head);
	head_release(&c->peer.head);
	if (error == 0)
		return true;
	if (log_allowed(&limit, 1000, NULL))
		LOG(LOG_LEVEL_ERROR, "streamd", "cannot decode a request",
		    LOG_STR("error", strerror(error)));
	return defer(c, DEFERRED_RESOURCES);
}

/* Answers with a status page. */
static bool
answer_status(struct connection *c, const struct status_page *page)
{
	static const struct answer no_memory = { 503, "Service Unavailable", "", JSON,
		ERROR("out of memory") };
	int64_t deadline = clock_ms() + c->registry->settings->stall_ms;
	struct answer a;
	char *body;

	if (strcmp(c->request.method, "GET") != 0)
		return refuse(c, REFUSED_METHOD);
	if (status_is_list(page)) {
		if (!stream_list_send(c->registry, &c->peer, deadline))
			answer(c, &no_memory);
		return false;
	}
	answer(c, status_answer(page, c->registry, &a, &body) ? &a : &no_memory);
	free(body);
	return false;
}

/* What the request alone decides (tpi-stream(7), RESPONSES): path, method and parameters. */
static bool
find_topic(struct connection *c)
{
	struct request *r = &c->request;
	const struct status_page *page;
	const char *error;

	page = status_find(c->registry->settings, r->path);
	if (page != NULL)
		return answer_status(c, page);
	c->topic = topic_find(r->path);
	if (c->topic == NULL)
		return refuse(c, REFUSED_PATH);
	c->caps = c->registry->caps[c->topic->kind];
	c->stream->labelled = c->topic->label == NULL;
	c->stream->allowed_origin = allowed_origins_find(c->registry->settings->allowed_origins,
	    origin_header(request_params(r)));
	if (strcmp(r->method, "GET") != 0)
		return refuse(c, REFUSED_METHOD);
	if (c->registry->draining)
		return defer(c, DEFERRED_DRAINING);
	c->slot.returning = topic_is_returning(r);
	error = c->topic->parse(c->topic, r, &c->watches);
	if (error == topic_no_memory)
		return defer(c, DEFERRED_RESOURCES);
	if (error != NULL)
		return bad_request(c, REFUSED_PARAMETERS, error);
	return true;
}

/* Refuses a page of another site that TPI_ALLOWED_ORIGINS does not list. */
static bool
check_site(struct connection *c)
{
	static struct log_limit limit;
	char *const *params = request_params(&c->request);
	uint32_t suppressed;

	if (c->stream->allowed_origin != NULL || !origin_is_foreign(params))
		return true;
	if (log_allowed(&limit, 60000, &suppressed))
		LOG(LOG_LEVEL_WARN, c->topic->tag, "page of another site refused",
		    LOG_STR("origin", params_get(params, "HTTP_ORIGIN", NULL)),
		    LOG_STR("host", params_get(params, "HTTP_HOST", NULL)),
		    LOG_STR("secFetchSite", params_get(params, "HTTP_SEC_FETCH_SITE", NULL)),
		    LOG_INT("suppressed", suppressed));
	return refuse_with(c, REFUSED_SITE, 403, "Forbidden",
	    "a page of another site sent the request");
}

/* Logs what to configure, once per process and cause: each anonymous request may repeat it. */
static void
explain_anonymous(enum identity_result cause)
{
	static atomic_flag logged[] = {
		[IDENTITY_ANONYMOUS] = ATOMIC_FLAG_INIT,
		[IDENTITY_REMOTE_USER] = ATOMIC_FLAG_INIT,
	};
	static const char *const texts[] = {
		[IDENTITY_ANONYMOUS] = "TPI_USER is not set: configure the web server to set it to "
				       "the verified user, see tpi-stream(7)",
		[IDENTITY_REMOTE_USER] = "TPI_USER is not set: REMOTE_USER is not accepted in its "
					 "place, configure the web server to set TPI_USER to the "
					 "verified user, see tpi-stream(7)",
	};

	if (!atomic_flag_test_and_set(&logged[cause]))
		log_write(LOG_LEVEL_WARN, "streamd", texts[cause], NULL);
}

/* The user that the web server has verified. */
static bool
identify_web_server(struct connection *c)
{
	enum identity_result result;
	const char *user;

	result = identity_web_server(request_params(&c->request), &user);
	switch (result) {
	case IDENTITY_KNOWN:
		c->user = strdup(user);
		return c->user != NULL || defer(c, DEFERRED_RESOURCES);
	case IDENTITY_BAD:
		return bad_request(c, REFUSED_USER,
		    "not a valid user id, or a parameter is present twice with different values");
	case IDENTITY_ANONYMOUS:
	case IDENTITY_REMOTE_USER:
		break;
	}
	explain_anonymous(result);
	return refuse(c, REFUSED_ANONYMOUS);
}

/* Whether the application decides about access to any topic of the request. */
static bool
app_decides(const struct connection *c)
{
	return c->registry->settings->access == ACCESS_APP && watch_list_restricted(&c->watches);
}

/* What the request alone says about the user, and the credentials for the application. */
static bool
identify(struct connection *c)
{
	bool by_app = c->registry->settings->identity == IDENTITY_APP;
	char *const *params = request_params(&c->request);

	if (!by_app && !identify_web_server(c))
		return false;
	if (by_app && !identity_consistent(params))
		return bad_request(c, REFUSED_USER,
		    "a parameter is present twice with different values");
	if (!by_app && !app_decides(c))
		return true;
	switch (credentials_read(params, &c->credentials)) {
	case CREDENTIALS_NO_MEMORY:
		return defer(c, DEFERRED_RESOURCES);
	case CREDENTIALS_NONE:
		return !by_app || refuse(c, REFUSED_ANONYMOUS);
	case CREDENTIALS_FOUND:
		break;
	}
	return true;
}

/* Decides about access where that needs no query to the application. */
static bool
allow(struct connection *c)
{
	enum access_policy policy = c->registry->settings->access;

	if (policy == ACCESS_APP && c->credentials == NULL)
		authorize_none(&c->watches);
	else if (policy != ACCESS_APP && (policy != ACCESS_FILE || c->user != NULL))
		authorize_locally(&c->watches, c->registry->access, c->user);
	return has_access(c);
}

/* Why the stream must not begin, an enum metric_deferred; NO_OBSTACLE if it still can. */
#define NO_OBSTACLE (-1)
static int
obstacle(const struct connection *c, const struct stream_view *view)
{
	if (view->marks & STREAM_CANCELLED)
		return cancel_reason(c);
	if (c->registry->draining)
		return DEFERRED_DRAINING;
	if (view->marks & STREAM_REVOKED && !recheck_covers(c))
		return DEFERRED_REVOKED;
	if (view->marks & STREAM_REFUSED)
		return subscriber_unreachable(c->registry->subscriber)
		    ? DEFERRED_VALKEY_UNREACHABLE : DEFERRED_VALKEY_REFUSED;
	return NO_OBSTACLE;
}

/*
 * Waits for the answer to a query, QUERY_YES or QUERY_NO. If there is none, it frees the query,
 * answers the request, and returns false.
 */
static bool
await_answer(struct connection *c, struct app_query *q, int64_t deadline)
{
	enum app_query_answer answer = QUERY_FAILED;
	struct stream_view view;
	int reason;

	while (q != NULL) {
		/*
		 * Take the marks before reading the answer: an answer that comes later leaves a new
		 * mark, which ends the wait.
		 */
		stream_look(c->stream, &view);
		if (c->peer.gone || view.broken)
			goto out;
		reason = obstacle(c, &view);
		if (reason != NO_OBSTACLE) {
			defer(c, (enum metric_deferred)reason);
			goto out;
		}
		answer = app_query_answer(q);
		if (answer != QUERY_PENDING || clock_ms() >= deadline)
			break;
		peer_wait(&c->peer, deadline);
	}
	if (answer == QUERY_YES || answer == QUERY_NO)
		return true;
	subscribe_failed(c, DEFERRED_APPLICATION);
out:
	app_query_free(q);
	return false;
}

/*
 * False if TPI_APP_PENDING requests already wait for the application to identify their user. If it
 * has recognized the credentials before, the limit is twice that, so others cannot use it up.
 */
static bool
enter_pending(struct connection *c)
{
	int taken = c->registry->pending, limit = c->registry->settings->app_pending;

	if (app_client_recognizes(c->registry->app_client, c->credentials))
		limit *= 2;
	do {
		if (taken >= limit)
			return false;
	} while (!atomic_compare_exchange_weak(&c->registry->pending, &taken, taken + 1));
	c->pending = true;
	return true;
}

static bool
too_many_pending(struct connection *c)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_WARN, "app", "too many requests wait for the application",
		    LOG_INT("pending", c->registry->settings->app_pending),
		    LOG_INT("suppressed", suppressed));
	return defer(c, DEFERRED_PENDING);
}

/*
 * Queries the application for the user, if TPI_IDENTITY is app. A request whose answer is cached
 * does not wait, so it does not count as pending. The others count before their query is sent.
 */
static bool
query_user(struct connection *c, int64_t deadline)
{
	bool known, anonymous;
	struct app_query *q;

	if (c->user != NULL)
		return true;
	if (!app_client_has_user(c->registry->app_client, c->credentials) && !enter_pending(c))
		return too_many_pending(c);
	q = app_query_start(c->registry->app_client, c->credentials, NULL, 0, QUERY_CACHED,
	    c->stream, deadline);
	if (!await_answer(c, q, deadline))
		return false;
	leave_pending(c);
	anonymous = app_query_answer(q) == QUERY_NO;
	known = !anonymous && (c->user = strdup(app_query_user(q))) != NULL;
	app_query_free(q);
	if (anonymous)
		return refuse(c, REFUSED_ANONYMOUS);
	return known ? allow(c) : defer(c, DEFERRED_RESOURCES);
}

/* Bounds what one user can cost others by opening streams (TPI_USER_OPENS_PER_SECOND). */
static bool
limit_rate(struct connection *c)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (open_rate_allow(c->registry->open_rate, c->user, clock_us()))
		return true;
	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_WARN, c->topic->tag, "user opens streams too fast",
		    LOG_STR("tenantId", c->registry->settings->tenant), LOG_STR("userId", c->user),
		    LOG_INT("suppressed", suppressed));
	return defer(c, DEFERRED_RATE);
}

static bool
reserve(struct connection *c)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (caps_reserve(c->caps, &c->slot))
		return true;
	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_WARN, c->topic->tag, "tenant cap reached",
		    LOG_STR("tenantId", c->registry->settings->tenant),
		    LOG_INT("cap", kind_tenant_cap(c->topic->kind, c->registry->settings)),
		    LOG_INT("suppressed", suppressed));
	return refuse(c, REFUSED_CAP);
}

/* From here on revocations apply to the connection; see registry_name(). */
static void
make_revocable(struct connection *c)
{
	registry_name(c->registry, &c->entry, c->stream, c->user, &c->watches);
}

/* Queries the application for access, if TPI_PROJECT_ACCESS is app. */
static bool
query_access(struct connection *c, int64_t deadline)
{
	struct app_query *q;

	if (!app_decides(c))
		return true;
	q = authorize_query(&c->watches, c->registry->app_client, c->credentials, QUERY_CACHED,
	    c->stream, deadline);
	if (!await_answer(c, q, deadline))
		return false;
	registry_unname(c->registry, &c->entry);
	authorize_by_answer(&c->watches, q);
	make_revocable(c);
	app_query_free(q);
	return has_access(c);
}

/* Takes a slot of the user. */
static bool
claim(struct connection *c)
{
	switch (caps_claim(c->caps, &c->slot, c->user, c->stream)) {
	case CAPS_NO_MEMORY:
		return defer(c, DEFERRED_RESOURCES);
	case CAPS_NO_SLOT:
		return defer(c, DEFERRED_EVICTED);
	case CAPS_CLAIMED:
		break;
	}
	make_revocable(c);
	return true;
}

/*
 * Identifies the user before a slot is reserved, so that anonymous requests, however many, take
 * none from users.
 */
static bool
admit(struct connection *c)
{
	int64_t deadline = clock_ms() + c->registry->settings->app_timeout_ms;

	return query_user(c, deadline) && limit_rate(c) && reserve(c) && claim(c) &&
	    query_access(c, deadline);
}

/* Sends the 200 and the first sync. */
static void
send_first_sync(struct stream *stream, const char *id)
{
	char text[BEGINNING_SIZE], cors[CORS_SIZE];

	snprintf(text, sizeof(text), STREAM_HEADERS "%s\r\n%s" STREAM_SYNC_LINE "retry: %u\n\n",
	    cors_headers(stream, cors), id, clock_jitter(1000, 5000));
	caps_live(stream, text);
}

/* The subscriber's thread calls it once all channels are confirmed. */
static void
begin_stream(struct stream *stream)
{
	send_first_sync(stream, "");
}

/* The same for a returning stream: an empty id clears the browser's, which the eviction set. */
static void
begin_returning_stream(struct stream *stream)
{
	send_first_sync(stream, "id\n");
}

/* Joins the channels. From here on the stream can begin at any time. */
static bool
join(struct connection *c)
{
	struct stream_view view;
	int count, reason;
	char *names;

	stream_look(c->stream, &view);
	reason = obstacle(c, &view);
	if (reason != NO_OBSTACLE)
		return defer(c, (enum metric_deferred)reason);
	if (subscriber_unreachable(c->registry->subscriber))
		return subscribe_failed(c, DEFERRED_VALKEY_UNREACHABLE);
	names = watch_list_channels(&c->watches, c->registry->settings, c->user,
	    c->stream->labelled, &count);
	request_free(&c->request);
	if (names != NULL)
		c->subscription = subscriber_join(c->registry->subscriber, c->stream, names, count,
		    c->slot.returning ? begin_returning_stream : begin_stream);
	return c->subscription != NULL || subscribe_failed(c, DEFERRED_RESOURCES);
}

/* The shortest time after which an open stream has something to do. */
static int
first_task_ms(const struct settings *s)
{
	int ms = s->heartbeat_ms < s->stall_ms / 2 ? s->heartbeat_ms : s->stall_ms / 2;

	if (s->recheck_seconds > 0 && s->recheck_seconds * RECHECK_FIRST_MS < ms)
		ms = s->recheck_seconds * RECHECK_FIRST_MS;
	return ms;
}

/*
 * Waits until the stream has begun. The subscriber's thread does not wake this thread then, except
 * after a revocation, so this thread sleeps no longer than an open stream could. *marks gets the
 * marks that the last stream_look() took.
 */
static bool THREAD_STEP
await_begin(struct connection *c, unsigned *marks)
{
	int64_t deadline = clock_ms() + JOIN_MS, wake_at;
	struct stream_view view;
	bool gone;
	int reason;

	for (;;) {
		stream_look(c->stream, &view);
		*marks = view.marks;
		if (view.started)
			return true;
		gone = c->peer.gone || view.broken;
		reason = obstacle(c, &view);
		if (reason == NO_OBSTACLE && clock_ms() >= deadline)
			reason = DEFERRED_VALKEY_SILENT;
		if (gone || reason != NO_OBSTACLE) {
			/* It may have begun since stream_look(). */
			if (!caps_withdraw(c->caps, &c->slot))
				continue;
			return gone ? false : subscribe_failed(c, (enum metric_deferred)reason);
		}
		wake_at = clock_ms() + first_task_ms(c->registry->settings);
		peer_wait(&c->peer, wake_at < deadline ? wake_at : deadline);
	}
}

/* Everything up to the subscription. */
static bool THREAD_STEP
open_stream(struct connection *c)
{
	return read_head(c) && decode(c) && find_topic(c) && check_site(c) && identify(c) &&
	    allow(c) && admit(c) && join(c);
}

static void THREAD_STEP
leave(struct connection *c)
{
	leave_pending(c);
	registry_unname(c->registry, &c->entry);
	recheck_end(c);
	if (c->subscription != NULL)
		subscriber_leave(c->subscription);
	/* For a stream: respond() has released the slots of other requests already. */
	if (c->caps != NULL)
		caps_leave(c->caps, &c->slot);
	peer_flush(&c->peer, clock_ms() + grace_ms(c));
	stream_close(c->stream);
	stream_release(c->stream);
	peer_discard(&c->peer);
	close(c->peer.fd);
	if (c->caps != NULL)
		caps_release(c->caps, &c->slot);
	request_free(&c->request);
	head_release(&c->peer.head);
	watch_list_free(&c->watches);
	free(c->user);
	credentials_release(c->credentials);
}

static void
serve(struct connection *c)
{
	unsigned marks;

	stream_adopt(c->stream);
	if (open_stream(c) && await_begin(c, &marks)) {
		recheck_start(c);
		live_run(c, marks);
	}
	leave(c);
}

static void *
connection_run(void *arg)
{
	struct connection *c = arg;
	struct registry *r = c->registry;

	registry_run(r, &c->entry);
	serve(c);
	registry_remove(r, &c->entry);
	free(c);
	return NULL;
}

int
connection_start(struct registry *r, int fd)
{
	static _Atomic uint64_t arrivals;
	struct connection *c;
	int error;

	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return ENOMEM;
	c->registry = r;
	c->peer.fd = fd;
	c->slot.arrival = ++arrivals;
	/*
	 * Allocated by the accepting thread, so that all streams are near each other in memory and
	 * a fan-out touches fewer pages.
	 */
	c->stream = c->peer.stream =
	    stream_new(fd, (uint32_t)r->settings->backlog_bytes + FRAME_LABEL_MAX);
	if (c->stream == NULL) {
		free(c);
		return ENOMEM;
	}
	registry_add(r, &c->entry);
	error = thread_start_small(connection_run, c);
	if (error != 0) {
		registry_remove(r, &c->entry);
		stream_release(c->stream);
		free(c);
	}
	return error;
}
