/*
 * load: opens streams of a FastCGI responder, publishes wake-ups through Valkey, checks what
 * arrives, and prints one line of JSON with what it measured. `load --help` lists its options.
 *
 * Messages are numbered. Each is for all streams (broadcast) or for one (targeted, the streams in
 * turn). One connection publishes them all, so each stream has to get its own in the order of the
 * numbers, each once; only a later `sync` excuses what is missing before it. A message tells how
 * many of either kind went before it, so one look at two counters shows what was lost, doubled or
 * out of order.
 *
 * One thread, which never waits for the responder: only for Valkey, which waits for nobody. It has
 * to be quick enough itself: "rate" and "generator_busy" in its line say whether it was.
 */
#include <err.h>
#include <errno.h>
#include <fastcgi.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "frame.h"
#include "measure.h"

#define NS_PER_S 1000000000LL

/* The end of patience where nothing comes in any more. */
#define SILENCE_NS (5 * NS_PER_S)
/* Between two looks at memory, and how little must happen between them before it is measured. */
#define SETTLE_NS    (NS_PER_S / 10)
#define SETTLE_BYTES (1 << 20)
#define SETTLE_LOOKS 10

#define BATCH_MAX      256 /* messages in one write */
#define PUBLISH_MAX    (CHANNEL_NAME_SIZE + 256)
#define REQUEST_MAX    2048
#define LINE_MAX_BYTES 192 /* longer than any line of a stream */

/* A payload as the application sends it; its id is the message's number. */
#define PAYLOAD_BEGIN "{\"id\":\"00000000-0000-4000-8000-"
#define PAYLOAD_END   "\",\"event\":\"notification\"}"
#define PAYLOAD_SIZE  (sizeof(PAYLOAD_BEGIN) - 1 + 12 + sizeof(PAYLOAD_END) - 1)
#define SYNC          "{\"event\":\"sync\"}"

#define EVERYBODY UINT32_MAX

struct message {
	int64_t published, first, last; /* measure_now(); first and last arrival */
	uint32_t target;     /* a stream, or EVERYBODY */
	uint32_t waiting;    /* streams that have not got it */
	uint32_t broadcasts; /* before it */
	uint32_t targeted;   /* before it, for the same stream */
};

/* One kind of message on one stream. */
struct progress {
	uint32_t next; /* how many went before the one that is due */
	bool excused;  /* a sync came since the last */
};

struct stream {
	int fd;
	bool open; /* its first sync is there */
	struct progress broadcasts, targeted;

	/* The record at hand. */
	uint8_t header[FCGI_HEADER_LEN];
	uint8_t header_length;
	uint8_t padding;  /* still to come */
	uint16_t content; /* still to come */

	/* The start of a line whose end has not come. */
	char line[LINE_MAX_BYTES];
	uint16_t line_length;
};

static struct {
	const char *server, *valkey, *tenant;
	uint32_t streams, window, messages, warmup, rate, burst, targeted;
	struct measure measure;
} options = {
	.tenant = "bench", .streams = 100, .window = 128, .messages = 100, .warmup = 20, .burst = 1,
};

static int epoll_fd, valkey_fd;
static struct stream *streams;
static struct message *messages;
static uint32_t message_count; /* published */
static uint32_t broadcast_count, targeted_count;
static uint32_t started, opened;

static uint64_t expected;  /* arrivals of what was published */
static uint64_t settled;   /* arrived, or known never to come */
static uint64_t delivered; /* arrived */
static uint64_t dropped;   /* excused by a sync */
static uint64_t errors;    /* lost, doubled, out of order, wrong */
static uint64_t resyncs;
static int64_t heard_at; /* measure_now() of the last bytes from a stream */

/* What run() has to be told apart from the streams' indices. */
enum { SOURCE_VALKEY = -1, SOURCE_TIMER = -2 };

/* ---- What must not happen */

static void wrong(const struct stream *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Counts an error; the first few are told. */
static void
wrong(const struct stream *s, const char *format, ...)
{
	va_list ap;

	if (errors++ >= 5)
		return;
	fprintf(stderr, "load: stream %td: ", s - streams);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- Sockets */

/* Each arrival is told once: whoever is told reads until nothing is left. */
static void
watch(int fd, int source)
{
	struct epoll_event e = {
		.events = EPOLLIN | EPOLLET, .data.u64 = (uint64_t)(int64_t)source,
	};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == -1)
		err(EX_OSERR, "epoll_ctl");
}

/* -1 with errno where nobody listens, or the queue is full (EAGAIN). */
static int
connect_unix(const char *path, int flags)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		errx(EX_USAGE, "%s: a socket's path has at most %zu bytes", path,
		    sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (fd == -1)
		err(EX_OSERR, "socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

static void
send_all(int fd, const void *bytes, size_t length)
{
	ssize_t n = send(fd, bytes, length, MSG_NOSIGNAL);

	if (n != (ssize_t)length)
		err(EX_UNAVAILABLE, "send");
}

static void
pause_ns(int64_t ns)
{
	const struct timespec t = { .tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S };

	nanosleep(&t, NULL);
}

/* ---- Requests */

/* What nginx sends for a browser's request; the user comes on top. */
static const struct {
	const char *name, *value;
} params[] = {
	{ "QUERY_STRING", "" },
	{ "REQUEST_METHOD", "GET" },
	{ "CONTENT_TYPE", "" },
	{ "CONTENT_LENGTH", "" },
	{ "SCRIPT_NAME", "/api/notifications/stream" },
	{ "REQUEST_URI", "/api/notifications/stream" },
	{ "DOCUMENT_URI", "/api/notifications/stream" },
	{ "DOCUMENT_ROOT", "/var/www/html" },
	{ "SERVER_PROTOCOL", "HTTP/1.1" },
	{ "REQUEST_SCHEME", "https" },
	{ "HTTPS", "on" },
	{ "GATEWAY_INTERFACE", "CGI/1.1" },
	{ "SERVER_SOFTWARE", "nginx/1.22.1" },
	{ "REMOTE_ADDR", "127.0.0.1" },
	{ "REMOTE_PORT", "50000" },
	{ "SERVER_ADDR", "127.0.0.1" },
	{ "SERVER_PORT", "443" },
	{ "SERVER_NAME", "localhost" },
	{ "REDIRECT_STATUS", "200" },
	{ "HTTP_HOST", "localhost" },
	{ "HTTP_ACCEPT", "text/event-stream" },
	{ "HTTP_CACHE_CONTROL", "no-cache" },
	{ "HTTP_ACCEPT_LANGUAGE", "en-US,en;q=0.9" },
	{ "HTTP_ACCEPT_ENCODING", "gzip, deflate, br" },
	{ "HTTP_USER_AGENT", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML)" },
};

/* A pair with lengths below 128. Returns its end. */
static uint8_t *
add_param(uint8_t *at, const char *name, const char *value)
{
	*at++ = (uint8_t)strlen(name);
	*at++ = (uint8_t)strlen(value);
	at = mempcpy(at, name, strlen(name));
	return mempcpy(at, value, strlen(value));
}

static void
user_name(char name[16], uint32_t user)
{
	snprintf(name, 16, "u%" PRIu32, user);
}

/* A whole request for the notifications of a user; returns its length. */
static size_t
make_request(uint8_t out[REQUEST_MAX], uint32_t user)
{
	const FCGI_BeginRequestBody body = { .roleB0 = FCGI_RESPONDER };
	uint8_t *at = out, *header;
	char name[16];
	size_t i;

	at += frame_record(at, FCGI_BEGIN_REQUEST, 1, sizeof(body));
	at = mempcpy(at, &body, sizeof(body));
	header = at;
	at += FCGI_HEADER_LEN;
	for (i = 0; i < sizeof(params) / sizeof(params[0]); i++)
		at = add_param(at, params[i].name, params[i].value);
	user_name(name, user);
	at = add_param(at, "TPI_USER", name);
	frame_record(header, FCGI_PARAMS, 1, (size_t)(at - header) - FCGI_HEADER_LEN);
	at += frame_record(at, FCGI_PARAMS, 1, 0);
	at += frame_record(at, FCGI_STDIN, 1, 0);
	return (size_t)(at - out);
}

/* Whether a stream can be opened, Valkey included. It is closed again. */
static bool
try_one(void)
{
	const struct timeval limit = { .tv_sec = 1 };
	uint8_t request[REQUEST_MAX];
	char answer[4096];
	size_t length = 0;
	ssize_t n = 1;
	bool found = false;
	int fd;

	fd = connect_unix(options.server, 0);
	if (fd == -1)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* A user that no stream has. */
	send_all(fd, request, make_request(request, options.streams));
	while (!found && n > 0 && length < sizeof(answer)) {
		n = recv(fd, answer + length, sizeof(answer) - length, 0);
		if (n > 0)
			length += (size_t)n;
		found = memmem(answer, length, SYNC, strlen(SYNC)) != NULL;
	}
	close(fd);
	return found;
}

static void
wait_ready(void)
{
	int64_t deadline = measure_now() + 2 * SILENCE_NS;

	while (!try_one()) {
		if (measure_now() > deadline)
			errx(EX_UNAVAILABLE, "%s: no stream can be opened", options.server);
		pause_ns(NS_PER_S / 50);
	}
}

/* Connects the next stream and sends its request. False where the responder's queue is full. */
static bool
start_next(void)
{
	struct stream *s = &streams[started];
	uint8_t request[REQUEST_MAX];

	s->fd = connect_unix(options.server, SOCK_NONBLOCK);
	if (s->fd == -1) {
		if (errno != EAGAIN)
			err(EX_UNAVAILABLE, "%s", options.server);
		return false;
	}
	send_all(s->fd, request, make_request(request, started));
	watch(s->fd, (int)started);
	started++;
	return true;
}

/* ---- Arrivals */

/*
 * A message of a kind is there, with so many of its kind before it. False where it was there
 * already.
 */
static bool
advance(const struct stream *s, struct progress *p, uint32_t before, const char *kind)
{
	uint32_t missing = before - p->next;

	if (before < p->next) {
		wrong(s, "%s %" PRIu32 " twice or too late", kind, before);
		return false;
	}
	if (missing > 0 && p->excused)
		dropped += missing;
	else if (missing > 0)
		wrong(s, "%" PRIu32 " missing before %s %" PRIu32, missing, kind, before);
	settled += missing + 1;
	delivered++;
	p->next = before + 1;
	p->excused = false;
	return true;
}

static void
arrived(struct stream *s, uint64_t number, int64_t now)
{
	struct message *m;
	bool fresh;

	if (number >= message_count) {
		wrong(s, "message %" PRIu64 " was not published", number);
		return;
	}
	m = &messages[number];
	if (m->target != EVERYBODY && m->target != (uint32_t)(s - streams)) {
		wrong(s, "message %" PRIu64 " is for another", number);
		return;
	}
	/* A broadcast that went before it and comes behind it is found out here. */
	if (m->target != EVERYBODY && s->broadcasts.next != m->broadcasts && !s->broadcasts.excused)
		wrong(s, "message %" PRIu64 " out of order", number);
	fresh = m->target == EVERYBODY ?
	    advance(s, &s->broadcasts, m->broadcasts, "broadcast") :
	    advance(s, &s->targeted, m->targeted, "targeted");
	if (!fresh)
		return;
	if (m->first == 0)
		m->first = now;
	m->last = now;
	m->waiting--;
}

static void
take_sync(struct stream *s)
{
	if (!s->open) {
		s->open = true;
		opened++;
		return;
	}
	resyncs++;
	s->broadcasts.excused = s->targeted.excused = true;
}

/* A line without its end. */
static void
take_line(struct stream *s, const char *line, size_t length, int64_t now)
{
	static const char data[] = "data: ", status[] = "Status: ";

	if (!s->open && length >= strlen(status) && memcmp(line, status, strlen(status)) == 0 &&
	    memcmp(line + strlen(status), "200", 3) != 0)
		errx(EX_UNAVAILABLE, "stream %td: %.*s", s - streams, (int)length, line);
	if (length < strlen(data) || memcmp(line, data, strlen(data)) != 0)
		return;
	line += strlen(data);
	length -= strlen(data);
	if (length == strlen(SYNC) && memcmp(line, SYNC, length) == 0)
		take_sync(s);
	else if (length != PAYLOAD_SIZE ||
	    memcmp(line, PAYLOAD_BEGIN, strlen(PAYLOAD_BEGIN)) != 0 ||
	    memcmp(line + length - strlen(PAYLOAD_END), PAYLOAD_END, strlen(PAYLOAD_END)) != 0)
		wrong(s, "not a payload: %.*s", (int)length, line);
	else
		arrived(s, strtoull(line + strlen(PAYLOAD_BEGIN), NULL, 16), now);
}

/* Content of STDOUT. */
static void
take_text(struct stream *s, const char *text, size_t length, int64_t now)
{
	const char *end;
	size_t n;

	while (length > 0) {
		end = memchr(text, '\n', length);
		n = end != NULL ? (size_t)(end - text) : length;
		if (end != NULL && s->line_length == 0) {
			take_line(s, text, n, now);
		} else {
			if (s->line_length + n > sizeof(s->line))
				errx(EX_PROTOCOL, "stream %td: a line too long", s - streams);
			memcpy(s->line + s->line_length, text, n);
			s->line_length += (uint16_t)n;
			if (end != NULL) {
				take_line(s, s->line, s->line_length, now);
				s->line_length = 0;
			}
		}
		n += end != NULL;
		text += n;
		length -= n;
	}
}

static void
take_header(struct stream *s)
{
	if (s->header[1] != FCGI_STDOUT)
		errx(EX_UNAVAILABLE, "stream %td: ended by the responder (record type %d)",
		    s - streams, s->header[1]);
	s->content = (uint16_t)(s->header[4] << 8 | s->header[5]);
	s->padding = s->header[6];
}

static size_t
smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Records in pieces of any size. */
static void
take_bytes(struct stream *s, const uint8_t *at, size_t length, int64_t now)
{
	size_t n;

	for (; length > 0; at += n, length -= n) {
		if (s->content > 0) {
			n = smaller(s->content, length);
			take_text(s, (const char *)at, n, now);
			s->content -= (uint16_t)n;
		} else if (s->padding > 0) {
			n = smaller(s->padding, length);
			s->padding -= (uint8_t)n;
		} else {
			n = smaller((size_t)(FCGI_HEADER_LEN - s->header_length), length);
			memcpy(s->header + s->header_length, at, n);
			s->header_length += (uint8_t)n;
			if (s->header_length == FCGI_HEADER_LEN) {
				s->header_length = 0;
				take_header(s);
			}
		}
	}
}

static void
read_stream(struct stream *s)
{
	static uint8_t buffer[65536];
	ssize_t n;

	/* Less than was asked for: the socket is empty. */
	do {
		n = recv(s->fd, buffer, sizeof(buffer), 0);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n == -1)
			err(EX_UNAVAILABLE, "stream %td", s - streams);
		if (n == 0)
			errx(EX_UNAVAILABLE, "stream %td: closed by the responder", s - streams);
		heard_at = measure_now();
		take_bytes(s, buffer, (size_t)n, heard_at);
	} while (n == sizeof(buffer));
}

/* ---- Publishing */

/* The next message: every so many is targeted. */
static struct message *
next_message(void)
{
	struct message *m = &messages[message_count];
	uint64_t share = options.targeted, number = message_count;

	m->broadcasts = broadcast_count;
	if ((number + 1) * share / 100 == number * share / 100) {
		m->target = EVERYBODY;
		m->waiting = options.streams;
		broadcast_count++;
	} else {
		m->target = targeted_count % options.streams;
		m->targeted = targeted_count / options.streams;
		m->waiting = 1;
		targeted_count++;
	}
	expected += m->waiting;
	message_count++;
	return m;
}

/* Writes the command that publishes a message; returns its length. */
static size_t
make_publish(char out[PUBLISH_MAX], const struct message *m)
{
	char channel[CHANNEL_NAME_SIZE], user[16];
	size_t length;

	if (m->target == EVERYBODY) {
		length = channel_broadcast(channel, options.tenant);
	} else {
		user_name(user, m->target);
		length = channel_user(channel, options.tenant, user);
	}
	return (size_t)snprintf(out, PUBLISH_MAX,
	    "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n$%zu\r\n"
	    PAYLOAD_BEGIN "%012tx" PAYLOAD_END "\r\n",
	    length, channel, PAYLOAD_SIZE, m - messages);
}

/* Publishes messages in as few writes as their number allows. */
static void
publish(uint32_t count)
{
	static char out[BATCH_MAX * PUBLISH_MAX];
	struct message *m = NULL;
	size_t length;
	uint32_t i, n;
	int64_t now;

	for (; count > 0; count -= n) {
		n = count < BATCH_MAX ? count : BATCH_MAX;
		for (length = 0, i = 0; i < n; i++) {
			m = next_message();
			length += make_publish(out + length, m);
		}
		now = measure_now();
		for (i = 0; i < n; i++)
			m[-(ptrdiff_t)i].published = now;
		send_all(valkey_fd, out, length);
	}
}

/* Valkey's replies say how many subscribers a message had; only an error is of interest. */
static void
read_valkey(void)
{
	char buffer[4096], *error;
	ssize_t n;

	while ((n = recv(valkey_fd, buffer, sizeof(buffer) - 1, MSG_DONTWAIT)) > 0) {
		buffer[n] = '\0';
		error = strchr(buffer, '-');
		if (error != NULL)
			errx(EX_UNAVAILABLE, "Valkey: %.*s", (int)strcspn(error, "\r\n"), error);
	}
	if (n == 0 || errno != EAGAIN)
		errx(EX_UNAVAILABLE, "Valkey has closed the connection");
}

/* ---- The loop */

/* How many times the timer has run out since the last look. */
static uint64_t
read_timer(int fd)
{
	uint64_t times = 0;

	if (read(fd, &times, sizeof(times)) == -1 && errno != EAGAIN)
		err(EX_OSERR, "timerfd");
	return times;
}

/* Waits for what comes and takes it. Returns how many times the timer, if any, has run out. */
static uint64_t
turn(int timer_fd, int timeout_ms)
{
	struct epoll_event events[512];
	uint64_t times = 0;
	int i, n, source;

	n = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(events[0]), timeout_ms);
	for (i = 0; i < n; i++) {
		source = (int)(int64_t)events[i].data.u64;
		if (source == SOURCE_VALKEY)
			read_valkey();
		else if (source == SOURCE_TIMER)
			times = read_timer(timer_fd);
		else
			read_stream(&streams[source]);
	}
	return times;
}

static bool
silent(void)
{
	return measure_now() - heard_at > SILENCE_NS;
}

/* Opens all streams, no more than a window at once. Returns the time it took. */
static int64_t
open_all(void)
{
	int64_t begin = heard_at = measure_now();
	bool full = false;

	while (opened < options.streams) {
		while (!full && started < options.streams && started - opened < options.window)
			full = !start_next();
		/* A full queue does not say when there is room. */
		turn(-1, full ? 1 : 1000);
		full = false;
		if (silent())
			errx(EX_UNAVAILABLE, "%" PRIu32 " of %" PRIu32 " streams opened", opened,
			    options.streams);
	}
	return measure_now() - begin;
}

/* Until all that was published has arrived, or nothing comes any more. */
static void
await_all(void)
{
	while (settled < expected && !silent())
		turn(-1, 1000);
}

static void
run_one_at_a_time(uint32_t count)
{
	while (count-- > 0 && settled == expected) {
		heard_at = measure_now();
		publish(1);
		await_all();
	}
}

/* Bursts at fixed times: what was late is caught up. */
static void
run_at_rate(uint32_t count)
{
	int64_t interval = NS_PER_S * options.burst / options.rate;
	struct itimerspec t = { .it_interval = { interval / NS_PER_S, interval % NS_PER_S } };
	uint64_t due;
	int fd;

	t.it_value = t.it_interval;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd == -1 || timerfd_settime(fd, 0, &t, NULL) == -1)
		err(EX_OSERR, "timerfd");
	watch(fd, SOURCE_TIMER);
	while (count > 0) {
		due = turn(fd, 1000) * options.burst;
		if (due > count)
			due = count;
		publish((uint32_t)due);
		count -= (uint32_t)due;
	}
	close(fd);
	heard_at = measure_now();
	await_all();
}

/* What has not come by now never will. */
static void
settle_rest(void)
{
	const struct stream *s;
	uint32_t i, due, missing;

	for (i = 0; i < options.streams; i++) {
		s = &streams[i];
		due = targeted_count / options.streams + (i < targeted_count % options.streams);
		missing = broadcast_count - s->broadcasts.next;
		if (missing > 0 && s->broadcasts.excused)
			dropped += missing;
		else if (missing > 0)
			wrong(s, "%" PRIu32 " broadcasts missing at the end", missing);
		missing = due - s->targeted.next;
		if (missing > 0 && s->targeted.excused)
			dropped += missing;
		else if (missing > 0)
			wrong(s, "%" PRIu32 " targeted missing at the end", missing);
	}
}

/* ---- The report */

/* A comma, a name and a number; null where there is none. */
static void
print_number(const char *name, double value, bool known)
{
	printf(",\"%s\":", name);
	if (known)
		printf("%.4g", value);
	else
		printf("null");
}

/* p50 and p99 in milliseconds; sorts the times. */
static void
print_times(const char *name, int64_t *times, size_t count)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_p50_ms", name);
	print_number(key, (double)measure_percentile(times, count, 50) / 1e6, count > 0);
	snprintf(key, sizeof(key), "%s_p99_ms", name);
	print_number(key, (double)measure_percentile(times, count, 99) / 1e6, count > 0);
}

/* From publishing to the first and the last stream, for all messages but the first ones. */
static void
print_latencies(uint32_t begin)
{
	size_t count = message_count - begin, broadcasts = 0, targeted = 0;
	int64_t *first = calloc(count + 1, sizeof(*first));
	int64_t *last = calloc(count + 1, sizeof(*last)), *own = calloc(count + 1, sizeof(*own));
	const struct message *m;
	uint32_t i;

	if (first == NULL || last == NULL || own == NULL)
		err(EX_OSERR, "memory");
	for (i = begin; i < message_count; i++) {
		m = &messages[i];
		if (m->waiting > 0)
			continue;
		if (m->target != EVERYBODY) {
			own[targeted++] = m->last - m->published;
			continue;
		}
		first[broadcasts] = m->first - m->published;
		last[broadcasts++] = m->last - m->published;
	}
	print_times("first", first, broadcasts);
	print_times("last", last, broadcasts);
	print_times("targeted", own, targeted);
	free(first);
	free(last);
	free(own);
}

/* ---- Start */

/*
 * Waits, within reason, until what ran before has given its memory back: the kernel takes its time.
 */
static void
settle(void)
{
	int64_t before = measure_available(), now;
	int i;

	for (i = 0; i < SETTLE_LOOKS; i++) {
		pause_ns(SETTLE_NS);
		now = measure_available();
		if (llabs(now - before) < SETTLE_BYTES)
			return;
		before = now;
	}
}

static void
usage(FILE *file)
{
	fputs("usage: load --server PATH --valkey PATH [OPTION...]\n"
	      "--server PATH     the responder's Unix socket\n"
	      "--valkey PATH     Valkey's Unix socket\n"
	      "--pid PID         a process whose CPU time and memory count; may be repeated\n"
	      "--tenant ID       bench\n"
	      "--streams N       100\n"
	      "--window N        streams that are being opened at once: 128\n"
	      "--messages N      100; 0 only opens\n"
	      "--warmup N        messages before those that are measured, one at a time: 20\n"
	      "--rate N          messages a second; 0: the next one when all have the last: 0\n"
	      "--burst N         so many in one write, and so many less writes: 1\n"
	      "--targeted N      per cent of the messages that are for one stream: 0\n"
	      "Exit status: 0 measured, 1 events were lost, doubled or out of order, 64 usage,\n"
	      "69 and 71 could not be measured.\n",
	    file);
}

static uint32_t
parse_number(const char *option, const char *text, uint32_t low, uint32_t high)
{
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number < low ||
	    number > high)
		errx(EX_USAGE, "--%s %s: allowed is a number from %" PRIu32 " to %" PRIu32, option,
		    text, low, high);
	return (uint32_t)number;
}

/* Options that are numbers. */
static const struct {
	const char *name;
	uint32_t *value, low, high;
} numbers[] = {
	{ "streams", &options.streams, 1, 1000000 },
	{ "window", &options.window, 1, 1000000 },
	{ "messages", &options.messages, 0, 10000000 },
	{ "warmup", &options.warmup, 0, 1000000 },
	{ "rate", &options.rate, 0, 10000000 },
	{ "burst", &options.burst, 1, 1000000 },
	{ "targeted", &options.targeted, 0, 100 },
};
#define NUMBER_COUNT (sizeof(numbers) / sizeof(numbers[0]))

enum { OPTION_SERVER = 256, OPTION_VALKEY, OPTION_TENANT, OPTION_PID, OPTION_HELP };

static void
add_pid(const char *text)
{
	struct measure *m = &options.measure;

	if (m->count == MEASURE_PIDS_MAX)
		errx(EX_USAGE, "--pid: at most %d", MEASURE_PIDS_MAX);
	m->pids[m->count++] = (pid_t)parse_number("pid", text, 1, INT_MAX);
}

static void
read_options(int argc, char *argv[])
{
	struct option table[NUMBER_COUNT + 6] = { { NULL, 0, NULL, 0 } };
	const struct option others[] = {
		{ "server", required_argument, NULL, OPTION_SERVER },
		{ "valkey", required_argument, NULL, OPTION_VALKEY },
		{ "tenant", required_argument, NULL, OPTION_TENANT },
		{ "pid", required_argument, NULL, OPTION_PID },
		{ "help", no_argument, NULL, OPTION_HELP },
	};
	size_t i;
	int c;

	for (i = 0; i < NUMBER_COUNT; i++)
		table[i] = (struct option){ numbers[i].name, required_argument, NULL, (int)i };
	memcpy(table + NUMBER_COUNT, others, sizeof(others));
	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (c) {
		case OPTION_SERVER:
			options.server = optarg;
			break;
		case OPTION_VALKEY:
			options.valkey = optarg;
			break;
		case OPTION_TENANT:
			options.tenant = optarg;
			break;
		case OPTION_PID:
			add_pid(optarg);
			break;
		case OPTION_HELP:
			usage(stdout);
			exit(EX_OK);
		case '?':
			exit(EX_USAGE);
		default:
			*numbers[c].value = parse_number(numbers[c].name, optarg, numbers[c].low,
			    numbers[c].high);
		}
	}
	if (options.server == NULL || options.valkey == NULL || optind != argc) {
		usage(stderr);
		exit(EX_USAGE);
	}
	if (!channel_id_valid(options.tenant, strlen(options.tenant)))
		errx(EX_USAGE, "--tenant %s: allowed is " CHANNEL_ID_ALLOWED, options.tenant);
}

static void
raise_descriptors(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		err(EX_OSERR, "getrlimit");
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	if (r.rlim_cur < (rlim_t)options.streams + 16)
		errx(EX_OSERR, "%" PRIu32 " streams, but only %ju descriptors are allowed",
		    options.streams, (uintmax_t)r.rlim_cur);
}

/* Memory that is really there, so that later growth is not ours. */
static void *
allocate(size_t count, size_t size)
{
	char *memory = malloc(count * size + 1);

	if (memory == NULL)
		err(EX_OSERR, "memory");
	/* Written to before it is cleared, lest the compiler make a calloc() of it. */
	explicit_bzero(memory, count * size + 1);
	return memory;
}

int
main(int argc, char *argv[])
{
	const struct measure *m = &options.measure;
	int64_t pss, kernel, available, open_time, open_cpu, time, cpu, own_cpu;
	const struct measure self = { .pids = { getpid() }, .count = 1 };
	bool watched;
	double n;

	read_options(argc, argv);
	raise_descriptors();
	watched = m->count > 0;
	n = options.streams;
	streams = allocate(options.streams, sizeof(*streams));
	messages = allocate((size_t)options.warmup + options.messages, sizeof(*messages));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	valkey_fd = connect_unix(options.valkey, 0);
	if (valkey_fd == -1)
		err(EX_UNAVAILABLE, "%s", options.valkey);
	watch(valkey_fd, SOURCE_VALKEY);

	wait_ready();
	settle();
	pss = measure_pss(m);
	kernel = measure_kernel();
	available = measure_available();
	open_cpu = measure_cpu(m);
	open_time = open_all();
	open_cpu = measure_cpu(m) - open_cpu;
	pause_ns(SETTLE_NS);
	pss = measure_pss(m) - pss;
	kernel = measure_kernel() - kernel;
	available -= measure_available();

	if (options.messages > 0)
		run_one_at_a_time(options.warmup);
	delivered = 0;
	cpu = measure_cpu(m);
	own_cpu = measure_cpu(&self);
	time = measure_now();
	if (options.rate == 0)
		run_one_at_a_time(options.messages);
	else
		run_at_rate(options.messages);
	time = measure_now() - time;
	own_cpu = measure_cpu(&self) - own_cpu;
	cpu = measure_cpu(m) - cpu;
	settle_rest();

	printf("{\"streams\":%" PRIu32 ",\"messages\":%" PRIu32 ",\"events\":%" PRIu64,
	    options.streams, options.messages, delivered);
	print_number("cpu_us_per_event", (double)cpu / 1e3 / (double)delivered,
	    watched && delivered > 0);
	print_latencies(message_count < options.warmup ? message_count : options.warmup);
	print_number("open_per_s", n * 1e9 / (double)open_time, true);
	print_number("cpu_us_per_open", (double)open_cpu / 1e3 / n, watched);
	print_number("pss_kib_per_stream", (double)pss / 1024 / n, watched);
	print_number("kernel_kib_per_stream", (double)kernel / 1024 / n, true);
	print_number("system_kib_per_stream", (double)available / 1024 / n, true);
	print_number("rate", options.messages * 1e9 / (double)time, delivered > 0);
	print_number("generator_busy", (double)own_cpu / (double)time, delivered > 0);
	printf(",\"resyncs\":%" PRIu64 ",\"dropped\":%" PRIu64 ",\"errors\":%" PRIu64 "}\n",
	    resyncs, dropped, errors);
	return errors == 0 ? EX_OK : 1;
}
