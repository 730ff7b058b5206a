/* SPDX-License-Identifier: ISC */
/*
 * load: opens event streams, publishes wake-ups, checks what arrives, and prints its measurements as
 * one line of JSON. `load --help` lists its options; tests/bench/run.py starts it.
 *
 * It has one thread, which may block on publishing, but never on the server under test. It must be fast
 * enough itself: "rate" and "generator_busy" in its output show whether it was.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
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

#include "wire/channel_name.h"
#include "ledger.h"
#include "measure.h"
#include "wire.h"

#define NS_PER_S 1000000000LL

/* How long to wait if nothing arrives. */
#define SILENCE_NS (5 * NS_PER_S)
/* Memory has settled when it changes by less than this between two readings. */
#define SETTLE_NS       (NS_PER_S / 10)
#define SETTLE_BYTES    (1 << 20)
#define SETTLE_READINGS 10

#define BATCH_MAX      256 /* messages in one write */
#define PUBLISH_MAX    (CHANNEL_NAME_SIZE + 768)
#define LINE_MAX_BYTES 192 /* longer than any line of a stream */
#define PROJECTS_MAX   500
/* Streams of a storm that are opened before arrivals are read again. */
#define STORM_STEP 4

#define NOTIFICATIONS "/api/notifications/stream"
#define ISSUES        "/api/issues/stream"
#define ISSUES_PREFIX "issues"

/* Payloads like the application's; part of each is the message's number. */
#define NOTE_BEGIN  "{\"id\":\"00000000-0000-4000-8000-"
#define NOTE_END    "\",\"event\":\"notification\"}"
#define ISSUE_BEGIN "{\"event\":\"issue-updated\",\"issueId\":"
#define ISSUE_END   ",\"projectId\":"
#define SYNC        "{\"event\":\"sync\"}"
#define PING        ": ping"

#define SERVERS_MAX 16

/* The id of the first stream with --distinct; lower ones are left to others. */
#define DISTINCT_FIRST 1000000

struct stream {
	int fd;
	bool open;
	struct account account;
	struct wire wire;

	/* The start of a line whose end has not arrived. */
	char line[LINE_MAX_BYTES];
	uint16_t line_length;
};

/* How to publish to a server that does not take wake-ups from Valkey. */
static const struct poster {
	const char *name;
	const char *path, *type;
	const char *begin, *middle, *end; /* the body, around the channel and the payload */
} posters[] = {
	/* Its path ends in the channel, see make_post(). */
	{ "nchan", "/publish?channel=", "application/json", NULL, "", "" },
	{ "centrifugo", "/api/publish", "application/json", "{\"channel\":\"", "\",\"data\":", "}" },
	/* The payload has no character that needs encoding. */
	{ "mercure", "/.well-known/mercure", "application/x-www-form-urlencoded", "topic=",
	    "&data=", "" },
};

static struct {
	const char *servers[SERVERS_MAX], *valkey, *tenant, *path, *query, *channel;
	bool http, distinct, leave;
	const struct poster *post;
	const char *bearer;
	uint32_t streams, window, messages, warmup, rate, burst, targeted, projects, storm, idle,
	    settle;
	uint32_t server_count, server_pid_count;
	pid_t server_pids[SERVERS_MAX], front_pid, valkey_pid;
} options = {
	.tenant = "bench", .streams = 100, .window = 128, .messages = 100, .warmup = 20, .burst = 1,
	.settle = 100,
};

static int epoll_fd, publisher_fd;
static struct stream *streams; /* followed by those of the storm */
static uint32_t started, opened;
static struct ledger ledger;
static uint64_t pings;
static int64_t received_at; /* measure_now() of the last bytes from a stream */

/* Messages begin to end - 1 were published while the storm's streams were opened. */
static struct {
	uint32_t begin, end;
	int64_t time;
} storm;

/* Sources of events other than a stream, whose source is its index. */
enum { SOURCE_PUBLISHER = -1, SOURCE_TIMER = -2 };

/* ---- Sockets */

/* Edge-triggered: the reader must read until nothing is left. */
static void
watch(int fd, int source)
{
	struct epoll_event e = {
		.events = EPOLLIN | EPOLLET, .data.u64 = (uint64_t)(int64_t)source,
	};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == -1)
		err(EX_OSERR, "epoll_ctl");
}

static int
connect_to(int family, int flags, const void *address, socklen_t length)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (fd == -1)
		err(EX_OSERR, "socket");
	if (connect(fd, address, length) == -1) {
		close(fd);
		return -1;
	}
	return fd;
}

static int
connect_unix(const char *path, int flags)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		errx(EX_USAGE, "%s: a socket's path has at most %zu bytes", path,
		    sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	return connect_to(AF_UNIX, flags, &address, sizeof(address));
}

/* On loopback this does not block unless the listen queue is full. */
static int
connect_tcp(const char *port)
{
	const struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int on = 1, fd = connect_to(AF_INET, 0, &address, sizeof(address));

	if (fd != -1)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

/* Connects to a path or a port of 127.0.0.1. -1 with errno if nothing listens or the queue is full. */
static int
connect_any(const char *address, int flags)
{
	return address[0] == '/' ? connect_unix(address, flags) : connect_tcp(address);
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

static void
user_name(char name[16], uint32_t user)
{
	snprintf(name, 16, "u%" PRIu32, user);
}

/* "projectIds=1,2,3" with all projects. */
static const char *
project_query(void)
{
	static char query[16 + PROJECTS_MAX * 4];
	size_t length = 0;
	uint32_t i;

	if (query[0] != '\0')
		return query;
	for (i = 1; i <= options.projects; i++)
		length += (size_t)snprintf(query + length, sizeof(query) - length, "%s%" PRIu32,
		    i == 1 ? "projectIds=" : ",", i);
	return query;
}

static void
send_request(int fd, uint32_t user)
{
	const char *query = options.query != NULL ? options.query : project_query();
	uint8_t request[WIRE_REQUEST_MAX];
	char name[16], own[WIRE_REQUEST_MAX];

	if (options.distinct) {
		snprintf(own, sizeof(own), "%s%" PRIu32, query, DISTINCT_FIRST + user);
		query = own;
	}
	user_name(name, user);
	send_all(fd, request, wire_request(request, options.http, options.path, query, name));
}

/* Connects the next stream and sends its request. False if the server's listen queue is full. */
static bool
start_next(void)
{
	const char *server = options.servers[started % options.server_count];
	struct stream *s = &streams[started];

	s->account.stream = started;
	wire_init(&s->wire, options.http);
	s->fd = connect_any(server, SOCK_NONBLOCK);
	if (s->fd == -1) {
		if (errno != EAGAIN)
			err(EX_UNAVAILABLE, "%s", server);
		return false;
	}
	send_request(s->fd, started);
	watch(s->fd, (int)started);
	started++;
	return true;
}

/* ---- Arrivals */

/* Parses the number of a payload; false if no such payload is ever published. */
static bool
parse_payload(const char *text, size_t length, uint64_t *number)
{
	const char *begin = options.projects > 0 ? ISSUE_BEGIN : NOTE_BEGIN;
	const char *middle = options.projects > 0 ? ISSUE_END : NOTE_END;
	char *end;

	if (length < strlen(begin) || memcmp(text, begin, strlen(begin)) != 0)
		return false;
	*number = strtoull(text + strlen(begin), &end, options.projects > 0 ? 10 : 16);
	length -= (size_t)(end - text);
	if (length < strlen(middle) || memcmp(end, middle, strlen(middle)) != 0)
		return false;
	if (options.projects == 0)
		return length == strlen(middle);
	return strtoul(end + strlen(middle), &end, 10) == *number % options.projects + 1;
}

static void
count_open(struct stream *s)
{
	s->open = true;
	opened++;
}

static void
take_sync(struct stream *s)
{
	if (s->open)
		ledger_sync(&ledger, &s->account);
	else
		count_open(s);
}

/* Finds the payload in what a server made of it; false if there is none. */
static bool
unwrap(const char **line, size_t *length)
{
	const char *begin = memmem(*line, *length, NOTE_BEGIN, strlen(NOTE_BEGIN)), *end;

	if (begin == NULL)
		return false;
	*length -= (size_t)(begin - *line);
	*line = begin;
	end = memmem(begin, *length, NOTE_END, strlen(NOTE_END));
	if (end != NULL)
		*length = (size_t)(end - begin) + strlen(NOTE_END);
	return true;
}

/* Handles a line, without its line break, which must follow in memory. */
static void
take_line(struct stream *s, const char *line, size_t length, int64_t now)
{
	static const char data[] = "data: ", status[] = "Status: ";
	uint64_t number;

	if (!s->open && length >= strlen(status) && memcmp(line, status, strlen(status)) == 0 &&
	    memcmp(line + strlen(status), "200", 3) != 0)
		errx(EX_UNAVAILABLE, "stream %td: %.*s", s - streams, (int)length, line);
	if (length == strlen(PING) && memcmp(line, PING, length) == 0)
		pings++;
	if (length < strlen(data) || memcmp(line, data, strlen(data)) != 0)
		return;
	line += strlen(data);
	length -= strlen(data);
	if (options.post != NULL && !unwrap(&line, &length))
		return;
	if (length == strlen(SYNC) && memcmp(line, SYNC, length) == 0)
		take_sync(s);
	else if (parse_payload(line, length, &number))
		ledger_arrived(&ledger, &s->account, number, now);
	else
		ledger_wrong(&ledger, &s->account, "unknown payload: %.*s", (int)length, line);
}

/* Handles the end of a line that began in an earlier piece, or the start of one that ends later. */
static void
take_part(struct stream *s, const char *text, size_t length, bool ends, int64_t now)
{
	if (s->line_length + length >= sizeof(s->line))
		errx(EX_PROTOCOL, "stream %td: line too long", s - streams);
	memcpy(s->line + s->line_length, text, length);
	s->line_length += (uint16_t)length;
	if (!ends)
		return;
	s->line[s->line_length] = '\n';
	take_line(s, s->line, s->line_length, now);
	s->line_length = 0;
}

static void
take_text(struct stream *s, const char *text, size_t length, int64_t now)
{
	const char *end;
	size_t n;

	while (length > 0) {
		end = memchr(text, '\n', length);
		n = end != NULL ? (size_t)(end - text) : length;
		if (end != NULL && s->line_length == 0)
			take_line(s, text, n, now);
		else
			take_part(s, text, n, end != NULL, now);
		n += end != NULL;
		text += n;
		length -= n;
	}
}

static void
take_bytes(struct stream *s, const uint8_t *at, size_t length, int64_t now)
{
	const uint8_t *end = at + length;
	const char *text;
	size_t n;

	while ((n = wire_next(&s->wire, &at, end, &text)) > 0)
		take_text(s, text, n, now);
	if (s->wire.error != NULL)
		errx(EX_UNAVAILABLE, "stream %td: %s", s - streams, s->wire.error);
	/* Without a sync, the head shows that the stream is open. */
	if (options.post && !s->open && wire_answered(&s->wire))
		count_open(s);
}

static void
read_stream(struct stream *s)
{
	static uint8_t buffer[65536];
	ssize_t n;

	/* When recv() returns less than requested, the socket is empty. */
	do {
		n = recv(s->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n == -1 && errno == EAGAIN)
			return;
		if (n == -1)
			err(EX_UNAVAILABLE, "stream %td", s - streams);
		if (n == 0)
			errx(EX_UNAVAILABLE, "stream %td: closed by the server", s - streams);
		received_at = measure_now();
		take_bytes(s, buffer, (size_t)n, received_at);
	} while (n == sizeof(buffer));
}

/* ---- Before the first stream */

/* Opens and closes a stream of a server; returns whether it worked, with Valkey. */
static bool
try_one(const char *server)
{
	const struct timeval limit = { .tv_sec = 1 };
	struct wire wire;
	char bytes[4096];
	size_t length = 0;
	ssize_t n = 1;
	bool found = false;
	const uint8_t *at;
	const char *text;
	int fd;

	fd = connect_any(server, 0);
	if (fd == -1)
		return false;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	/* A user without other streams. */
	send_request(fd, options.streams + options.storm);
	while (!found && n > 0 && length < sizeof(bytes)) {
		n = recv(fd, bytes + length, sizeof(bytes) - length, 0);
		if (n > 0)
			length += (size_t)n;
		found = memmem(bytes, length, SYNC, strlen(SYNC)) != NULL;
		if (!options.post)
			continue;
		wire_init(&wire, true);
		at = (const uint8_t *)bytes;
		while (wire_next(&wire, &at, (const uint8_t *)bytes + length, &text) > 0)
			continue;
		found = wire_answered(&wire);
	}
	close(fd);
	return found;
}

static void
wait_ready(void)
{
	int64_t deadline = measure_now() + 2 * SILENCE_NS;
	uint32_t i;

	for (i = 0; i < options.server_count; i++)
		while (!try_one(options.servers[i])) {
			if (measure_now() > deadline)
				errx(EX_UNAVAILABLE, "%s: cannot open a stream",
				    options.servers[i]);
			pause_ns(NS_PER_S / 50);
		}
}

/* ---- Publishing */

/* Writes the name of a message's channel; returns its length. */
static size_t
channel_of(char channel[CHANNEL_NAME_SIZE], const struct message *m, size_t number)
{
	char user[16];

	if (options.projects > 0)
		return channel_name_project(channel, ISSUES_PREFIX, options.tenant,
		    (int32_t)(number % options.projects + 1));
	if (m->target == LEDGER_ALL)
		return options.channel != NULL ?
		    (size_t)snprintf(channel, CHANNEL_NAME_SIZE, "%s", options.channel) :
		    channel_name_broadcast(channel, options.tenant);
	user_name(user, m->target);
	return channel_name_user(channel, options.tenant, user);
}

static size_t
make_payload(char out[128], size_t number)
{
	if (options.projects > 0)
		return (size_t)snprintf(out, 128, ISSUE_BEGIN "%zu" ISSUE_END "%zu}", number,
		    number % options.projects + 1);
	return (size_t)snprintf(out, 128, NOTE_BEGIN "%012zx" NOTE_END, number);
}

static size_t
make_post(char out[PUBLISH_MAX], const char *channel, const char *payload)
{
	const struct poster *p = options.post;
	char body[PUBLISH_MAX / 2];
	int length;

	length = snprintf(body, sizeof(body), "%s%s%s%s%s", p->begin != NULL ? p->begin : "",
	    p->begin != NULL ? channel : "", p->middle, payload, p->end);
	return (size_t)snprintf(out, PUBLISH_MAX,
	    "POST %s%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
	    "Content-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
	    p->path, p->begin == NULL ? channel : "", options.bearer != NULL ? options.bearer : "",
	    p->type, length, body);
}

/* Writes the command or request that publishes a message; returns its length. */
static size_t
make_publish(char out[PUBLISH_MAX], const struct message *m)
{
	char channel[CHANNEL_NAME_SIZE], payload[128];
	size_t number = (size_t)(m - ledger.messages);
	size_t channel_length = channel_of(channel, m, number);
	size_t length = make_payload(payload, number);

	if (options.post != NULL)
		return make_post(out, channel, payload);
	return (size_t)snprintf(out, PUBLISH_MAX,
	    "*3\r\n$7\r\nPUBLISH\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", channel_length, channel, length,
	    payload);
}

/* Publishes messages with as few writes as possible. */
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
			m = ledger_next(&ledger);
			length += make_publish(out + length, m);
		}
		now = measure_now();
		for (i = 0; i < n; i++)
			m[-(ptrdiff_t)i].published = now;
		send_all(publisher_fd, out, length);
	}
}

/* Replies have the number of subscribers; only errors matter. */
static void
read_publisher(void)
{
	const char *error_mark = options.post ? "HTTP/1.1 4" : "-";
	char buffer[4096], *error;
	ssize_t n;

	while ((n = recv(publisher_fd, buffer, sizeof(buffer) - 1, MSG_DONTWAIT)) > 0) {
		buffer[n] = '\0';
		error = strstr(buffer, error_mark);
		if (error != NULL)
			errx(EX_UNAVAILABLE, "publishing: %.*s", (int)strcspn(error, "\r\n"),
			    error);
	}
	if (n == 0 || errno != EAGAIN)
		errx(EX_UNAVAILABLE, "publishing: connection closed");
}

/* ---- The loop */

/* How many times the timer has expired since the last call. */
static uint64_t
read_timer(int fd)
{
	uint64_t times = 0;

	if (read(fd, &times, sizeof(times)) == -1 && errno != EAGAIN)
		err(EX_OSERR, "timerfd");
	return times;
}

/* Waits for events and handles them. Returns how many times the timer, if any, has expired. */
static uint64_t
turn(int timer_fd, int timeout_ms)
{
	struct epoll_event events[512];
	uint64_t times = 0;
	int i, n, source;

	n = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(events[0]), timeout_ms);
	for (i = 0; i < n; i++) {
		source = (int)(int64_t)events[i].data.u64;
		if (source == SOURCE_PUBLISHER)
			read_publisher();
		else if (source == SOURCE_TIMER)
			times = read_timer(timer_fd);
		else
			read_stream(&streams[source]);
	}
	return times;
}

/* Reads the streams for this many milliseconds. */
static void
read_for(int64_t ms)
{
	int64_t end = measure_now() + ms * (NS_PER_S / 1000), left;

	while ((left = end - measure_now()) > 0)
		turn(-1, (int)(left / (NS_PER_S / 1000)) + 1);
}

static bool
silent(void)
{
	return measure_now() - received_at > SILENCE_NS;
}

/*
 * Starts up to count streams, until there are total, with at most a window of them pending. False if
 * the window or the server's listen queue is full.
 */
static bool
start_some(uint32_t total, uint32_t count)
{
	for (; count > 0 && started < total; count--)
		if (started - opened >= options.window || !start_next())
			return false;
	return true;
}

/* Opens streams until there are total. Returns the time it took. */
static int64_t
open_all(uint32_t total)
{
	int64_t begin = received_at = measure_now();
	bool full;

	while (opened < total) {
		full = !start_some(total, UINT32_MAX) && started - opened < options.window;
		/* No event announces room in a listen queue. */
		turn(-1, full ? 1 : 1000);
		if (silent())
			errx(EX_UNAVAILABLE, "%" PRIu32 " of %" PRIu32 " streams opened", opened,
			    total);
	}
	return measure_now() - begin;
}

/* Waits until everything published has arrived, or nothing arrives any more. */
static void
await_all(void)
{
	while (ledger.settled < ledger.expected && !silent())
		turn(-1, 1000);
}

static void
run_one_at_a_time(uint32_t count)
{
	while (count-- > 0 && ledger.settled == ledger.expected) {
		received_at = measure_now();
		publish(1);
		await_all();
	}
}

/* Opens further streams of the storm. Returns how long turn() may wait, in milliseconds. */
static int
step_storm(void)
{
	uint32_t total = options.streams + options.storm;
	bool room;

	if (opened == total) {
		storm.time += measure_now();
		storm.end = ledger.count;
		return 1000;
	}
	room = start_some(total, STORM_STEP);
	return room && started < total ? 0 : 1;
}

/* Publishes at fixed times, and catches up after a delay. The storm, if any, begins halfway. */
static void
run_at_rate(uint32_t count)
{
	int64_t interval = NS_PER_S * options.burst / options.rate;
	struct itimerspec t = { .it_interval = { interval / NS_PER_S, interval % NS_PER_S } };
	uint32_t half = count / 2;
	int fd, wait;
	uint64_t due;

	t.it_value = t.it_interval;
	fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (fd == -1 || timerfd_settime(fd, 0, &t, NULL) == -1)
		err(EX_OSERR, "timerfd");
	watch(fd, SOURCE_TIMER);
	while (count > 0) {
		if (options.storm > 0 && storm.begin == 0 && count <= half) {
			storm.begin = ledger.count;
			storm.time = -measure_now();
		}
		wait = storm.begin > 0 && storm.end == 0 ? step_storm() : 1000;
		due = turn(fd, wait) * options.burst;
		if (due > count)
			due = count;
		publish((uint32_t)due);
		count -= (uint32_t)due;
	}
	close(fd);
	received_at = measure_now();
	await_all();
	if (options.storm > 0 && storm.end == 0)
		errx(EX_UNAVAILABLE, "the storm took longer than the messages: publish more");
}

/* ---- The report */

/* A comma, a name and a number, or null if it is not known. */
static void
print_number(const char *name, double value, bool known)
{
	printf(",\"%s\":", name);
	if (known)
		printf("%.4g", value);
	else
		printf("null");
}

/* A percentile in milliseconds; sorts the times. */
static void
print_time(const char *name, const char *which, int p, int64_t *times, size_t count)
{
	char key[64];

	snprintf(key, sizeof(key), "%s_%s_ms", name, which);
	print_number(key, (double)measure_percentile(times, count, p) / 1e6, count > 0);
}

static void
print_times(const char *name, int64_t *times, size_t count)
{
	print_time(name, "p50", 50, times, count);
	print_time(name, "p99", 99, times, count);
	print_time(name, "max", 100, times, count);
}

/* Touches the memory, so that later growth is not the generator's. */
static void *
allocate(size_t count, size_t size)
{
	char *memory = malloc(count * size + 1);

	if (memory == NULL)
		err(EX_OSERR, "memory");
	/* memset() would let the compiler use calloc(), which does not touch it. */
	explicit_bzero(memory, count * size + 1);
	return memory;
}

/* The times to the first or the last stream, of the messages of a kind that reached all streams. */
static size_t
collect(int64_t *times, uint32_t begin, uint32_t end, bool broadcast, bool first)
{
	const struct message *m;
	size_t count = 0;
	uint32_t i;

	for (i = begin; i < end; i++) {
		m = &ledger.messages[i];
		if (m->waiting == 0 && (m->target == LEDGER_ALL) == broadcast)
			times[count++] = (first ? m->first : m->last) - m->published;
	}
	return count;
}

/* Prints the latencies without the warm-up, and those during a storm separately. */
static void
print_latencies(void)
{
	uint32_t begin = ledger.count < options.warmup ? ledger.count : options.warmup;
	uint32_t end = options.storm > 0 ? storm.begin : ledger.count;
	int64_t *times = allocate(ledger.count + 1, sizeof(*times));

	print_times("first", times, collect(times, begin, end, true, true));
	print_times("last", times, collect(times, begin, end, true, false));
	print_times("targeted", times, collect(times, begin, end, false, false));
	print_times("storm", times, collect(times, storm.begin, storm.end, false, false));
	free(times);
}

/* CPU time in nanoseconds, since the start of the processes or since an earlier reading. */
struct cpu {
	int64_t server, front, valkey, self;
};

/* The sum of a measurement of all servers. */
static int64_t
sum_of_servers(int64_t (*measure)(pid_t))
{
	int64_t sum = 0;
	uint32_t i;

	for (i = 0; i < options.server_pid_count; i++)
		sum += measure(options.server_pids[i]);
	return sum;
}

static struct cpu
cpu_since(struct cpu begin)
{
	return (struct cpu){
		.server = sum_of_servers(measure_cpu) - begin.server,
		.front = measure_cpu(options.front_pid) - begin.front,
		.valkey = measure_cpu(options.valkey_pid) - begin.valkey,
		.self = measure_cpu(getpid()) - begin.self,
	};
}

static struct cpu
cpu_now(void)
{
	return cpu_since((struct cpu){ .server = 0 });
}

/* Memory in bytes, likewise. */
struct memory {
	int64_t server, front, valkey, kernel, available;
};

static struct memory
memory_since(struct memory begin)
{
	return (struct memory){
		.server = sum_of_servers(measure_pss) - begin.server,
		.front = measure_pss(options.front_pid) - begin.front,
		.valkey = measure_pss(options.valkey_pid) - begin.valkey,
		.kernel = measure_kernel() - begin.kernel,
		.available = measure_available() - begin.available,
	};
}

static struct memory
memory_now(void)
{
	return memory_since((struct memory){ .server = 0 });
}

/* CPU time per thing, of count, in microseconds: of the server, and of all processes involved. */
static void
print_cpu(const char *thing, struct cpu cpu, double count)
{
	char key[64];

	snprintf(key, sizeof(key), "cpu_us_per_%s", thing);
	print_number(key, (double)cpu.server / 1e3 / count, count > 0);
	snprintf(key, sizeof(key), "front_us_per_%s", thing);
	print_number(key, (double)cpu.front / 1e3 / count, count > 0 && options.front_pid != 0);
	snprintf(key, sizeof(key), "path_us_per_%s", thing);
	print_number(key, (double)(cpu.server + cpu.front + cpu.valkey) / 1e3 / count, count > 0);
}

static void
print_memory(struct memory memory)
{
	double unit = 1024.0 * options.streams;

	print_number("pss_kib_per_stream", (double)memory.server / unit, true);
	print_number("front_pss_kib_per_stream", (double)memory.front / unit,
	    options.front_pid != 0);
	print_number("kernel_kib_per_stream", (double)memory.kernel / unit, true);
	print_number("system_kib_per_stream",
	    (double)(memory.server + memory.front + memory.valkey + memory.kernel) / unit, true);
	print_number("available_kib_per_stream", (double)-memory.available / unit, true);
}

/* ---- Start */

/* Waits, for a second at most, until the kernel has freed the memory of what ran before. */
static void
settle(void)
{
	int64_t before = measure_available(), now;
	int i;

	for (i = 0; i < SETTLE_READINGS; i++) {
		pause_ns(SETTLE_NS);
		now = measure_available();
		if (llabs(now - before) < SETTLE_BYTES)
			break;
		before = now;
	}
	measure_shrink();
}

static void
usage(FILE *file)
{
	fputs("usage: load --server ADDRESS [OPTION...]\n"
	      "--server ADDRESS  a Unix socket's path, or a port of 127.0.0.1; with several, each\n"
	      "                  stream uses the next one\n"
	      "--http            use HTTP, not FastCGI\n"
	      "--valkey PATH     publish to Valkey over this Unix socket\n"
	      "--post NAME       publish by POST to the server instead, as nchan, centrifugo or mercure\n"
	      "                  takes it, and expect streams without a first sync\n"
	      "--bearer TOKEN    a bearer token for --post\n"
	      "--server-pid PID  measure CPU time and memory of this process and its children;\n"
	      "                  repeat it for several\n"
	      "--front-pid PID   the same for the web server in front of it\n"
	      "--valkey-pid PID  the same for Valkey\n"
	      "--tenant ID       tenant (bench)\n"
	      "--streams N       streams to open (100)\n"
	      "--window N        streams to open at the same time (128)\n"
	      "--projects N      open issue streams with N projects each; 0: notifications (0)\n"
	      "--path PATH[?...]  open streams of this path, and publish on the channel of --channel\n"
	      "--channel NAME    publish here, not on the broadcast channel\n"
	      "--distinct        append a different number to each stream's query\n"
	      "--leave           close all streams at the end, and measure how long the server's\n"
	      "                  threads take to end\n"
	      "--messages N      messages to publish; 0: only open streams (100)\n"
	      "--warmup N        messages to publish before, one at a time, unmeasured (20)\n"
	      "--rate N          messages per second; 0: each when all streams have the last (0)\n"
	      "--burst N         messages in one write, with proportionally fewer writes (1)\n"
	      "--targeted N      percentage of messages that are for a single stream (0)\n"
	      "--storm N         further streams to open while the second half of the messages is\n"
	      "                  published; needs --rate and --targeted 100 (0)\n"
	      "--settle MS       time from opening the streams to measuring memory (100)\n"
	      "--idle MS         time to measure heartbeats at the end (0)\n"
	      "Exit status: 0 measured, 1 events were lost, duplicated or out of order, 64 wrong\n"
	      "usage, 69 or 71 could not measure.\n",
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
		errx(EX_USAGE, "--%s %s: must be a number from %" PRIu32 " to %" PRIu32, option, text,
		    low, high);
	return (uint32_t)number;
}

/* Options with a number. */
static const struct {
	const char *name;
	uint32_t *value, low, high;
} numbers[] = {
	{ "streams", &options.streams, 1, 1000000 },
	{ "window", &options.window, 1, 1000000 },
	{ "projects", &options.projects, 0, PROJECTS_MAX },
	{ "messages", &options.messages, 0, 10000000 },
	{ "warmup", &options.warmup, 0, 1000000 },
	{ "rate", &options.rate, 0, 10000000 },
	{ "burst", &options.burst, 1, 1000000 },
	{ "targeted", &options.targeted, 0, 100 },
	{ "storm", &options.storm, 0, 1000000 },
	{ "settle", &options.settle, 0, 600000 },
	{ "idle", &options.idle, 0, 600000 },
	{ "front-pid", (uint32_t *)&options.front_pid, 1, INT_MAX },
	{ "valkey-pid", (uint32_t *)&options.valkey_pid, 1, INT_MAX },
};
#define NUMBER_COUNT (sizeof(numbers) / sizeof(numbers[0]))

enum {
	OPTION_SERVER = 256,
	OPTION_SERVER_PID,
	OPTION_VALKEY,
	OPTION_TENANT,
	OPTION_PATH,
	OPTION_CHANNEL,
	OPTION_HTTP,
	OPTION_POST,
	OPTION_BEARER,
	OPTION_DISTINCT,
	OPTION_LEAVE,
	OPTION_HELP
};

static const struct poster *
find_poster(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(posters) / sizeof(posters[0]); i++)
		if (strcmp(posters[i].name, name) == 0)
			return &posters[i];
	errx(EX_USAGE, "--post %s: must be nchan, centrifugo or mercure", name);
}

static void
check_options(void)
{
	if (options.server_count == 0 || (options.valkey == NULL && !options.post)) {
		usage(stderr);
		exit(EX_USAGE);
	}
	if (!channel_id_valid(options.tenant, strlen(options.tenant)))
		errx(EX_USAGE, "--tenant %s: must be " CHANNEL_ID_ALLOWED, options.tenant);
	if (options.post && (!options.http || options.projects > 0))
		errx(EX_USAGE, "--post requires --http, and cannot be combined with --projects");
	if (options.projects > 0 && options.targeted > 0)
		errx(EX_USAGE, "--projects cannot be combined with --targeted");
	if ((options.path == NULL) != (options.channel == NULL) ||
	    (options.path != NULL && (options.projects > 0 || options.targeted > 0)) ||
	    (options.channel != NULL && strlen(options.channel) >= CHANNEL_NAME_SIZE))
		errx(EX_USAGE, "--path requires --channel, and cannot be combined with --projects and "
		    "--targeted");
	if (options.path == NULL)
		options.path = options.projects > 0 ? ISSUES : NOTIFICATIONS;
	if (options.storm > 0 && (options.rate == 0 || options.targeted != 100))
		errx(EX_USAGE, "--storm requires --rate and --targeted 100");
}

static void
read_options(int argc, char *argv[])
{
	struct option table[NUMBER_COUNT + 13] = { { NULL, 0, NULL, 0 } };
	const struct option others[] = {
		{ "server", required_argument, NULL, OPTION_SERVER },
		{ "server-pid", required_argument, NULL, OPTION_SERVER_PID },
		{ "valkey", required_argument, NULL, OPTION_VALKEY },
		{ "tenant", required_argument, NULL, OPTION_TENANT },
		{ "path", required_argument, NULL, OPTION_PATH },
		{ "channel", required_argument, NULL, OPTION_CHANNEL },
		{ "http", no_argument, NULL, OPTION_HTTP },
		{ "post", required_argument, NULL, OPTION_POST },
		{ "bearer", required_argument, NULL, OPTION_BEARER },
		{ "distinct", no_argument, NULL, OPTION_DISTINCT },
		{ "leave", no_argument, NULL, OPTION_LEAVE },
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
			if (options.server_count == SERVERS_MAX)
				errx(EX_USAGE, "--server: at most %d", SERVERS_MAX);
			options.servers[options.server_count++] = optarg;
			break;
		case OPTION_SERVER_PID:
			if (options.server_pid_count == SERVERS_MAX)
				errx(EX_USAGE, "--server-pid: at most %d", SERVERS_MAX);
			options.server_pids[options.server_pid_count++] =
			    (pid_t)parse_number("server-pid", optarg, 1, INT_MAX);
			break;
		case OPTION_VALKEY:
			options.valkey = optarg;
			break;
		case OPTION_TENANT:
			options.tenant = optarg;
			break;
		case OPTION_PATH:
			options.path = strsep(&optarg, "?");
			options.query = optarg;
			break;
		case OPTION_CHANNEL:
			options.channel = optarg;
			break;
		case OPTION_HTTP:
			options.http = true;
			break;
		case OPTION_POST:
			options.post = find_poster(optarg);
			break;
		case OPTION_BEARER:
			options.bearer = optarg;
			break;
		case OPTION_DISTINCT:
			options.distinct = true;
			break;
		case OPTION_LEAVE:
			options.leave = true;
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
	if (optind != argc)
		errx(EX_USAGE, "unknown argument %s; see --help", argv[optind]);
	check_options();
}

static void
raise_descriptors(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == -1)
		err(EX_OSERR, "getrlimit");
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r);
	if (r.rlim_cur < (rlim_t)options.streams + options.storm + 16)
		errx(EX_OSERR, "%" PRIu32 " streams, but only %ju descriptors are allowed",
		    options.streams + options.storm, (uintmax_t)r.rlim_cur);
}

static void
start(void)
{
	const char *publisher;

	streams = allocate((size_t)options.streams + options.storm, sizeof(*streams));
	ledger.messages = allocate((size_t)options.warmup + options.messages,
	    sizeof(*ledger.messages));
	ledger.streams = options.streams;
	ledger.share = options.targeted;
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	wait_ready();
	publisher = options.post ? options.servers[0] : options.valkey;
	publisher_fd = connect_any(publisher, 0);
	if (publisher_fd == -1)
		err(EX_UNAVAILABLE, "publishing: %s", publisher);
	watch(publisher_fd, SOURCE_PUBLISHER);
}

/* ---- The measurements; each function prints its figures */

static void
measure_opening(void)
{
	struct memory memory;
	struct cpu cpu;
	int64_t time;

	settle();
	memory = memory_now();
	cpu = cpu_now();
	time = open_all(options.streams);
	cpu = cpu_since(cpu);
	read_for(options.settle);
	memory = memory_since(memory);
	print_number("open_per_s", options.streams * 1e9 / (double)time, true);
	print_cpu("open", cpu, options.streams);
	print_memory(memory);
}

static void
measure_messages(void)
{
	struct cpu cpu;
	int64_t time;
	uint32_t i;

	if (options.messages == 0)
		return;
	run_one_at_a_time(options.warmup);
	ledger.delivered = 0;
	cpu = cpu_now();
	time = measure_now();
	if (options.rate == 0)
		run_one_at_a_time(options.messages);
	else
		run_at_rate(options.messages);
	time = measure_now() - time;
	cpu = cpu_since(cpu);
	for (i = 0; i < options.streams; i++)
		ledger_end(&ledger, &streams[i].account);
	print_cpu("event", cpu, (double)ledger.delivered);
	print_number("valkey_us_per_message", (double)cpu.valkey / 1e3 / options.messages,
	    options.valkey_pid != 0);
	print_latencies();
	print_number("storm", options.storm, options.storm > 0);
	print_number("storm_s", (double)storm.time / 1e9, options.storm > 0);
	print_number("rate", options.messages * 1e9 / (double)time, true);
	print_number("generator_busy", (double)cpu.self / (double)time, true);
}

/* Closes all streams, and waits until the servers have as few threads as before. */
static void
measure_leaving(int64_t threads)
{
	int64_t time = measure_now(), deadline = time + SILENCE_NS;
	struct cpu cpu = cpu_now();
	uint32_t i;

	for (i = 0; i < started; i++)
		close(streams[i].fd);
	while (sum_of_servers(measure_threads) > threads) {
		if (measure_now() > deadline)
			errx(EX_UNAVAILABLE, "streams do not end");
		pause_ns(NS_PER_S / 1000);
	}
	print_number("leave_per_s", started * 1e9 / (double)(measure_now() - time), true);
	print_cpu("leave", cpu_since(cpu), started);
}

/* For --idle milliseconds. */
static void
measure_heartbeats(void)
{
	struct cpu cpu;

	if (options.idle == 0)
		return;
	cpu = cpu_now();
	pings = 0;
	read_for(options.idle);
	print_cpu("ping", cpu_since(cpu), (double)pings);
	printf(",\"pings\":%" PRIu64, pings);
}

int
main(int argc, char *argv[])
{
	int64_t threads;

	read_options(argc, argv);
	raise_descriptors();
	start();
	threads = sum_of_servers(measure_threads);
	printf("{\"streams\":%" PRIu32 ",\"messages\":%" PRIu32, options.streams, options.messages);
	measure_opening();
	measure_messages();
	measure_heartbeats();
	if (options.leave)
		measure_leaving(threads);
	printf(",\"events\":%" PRIu64 ",\"resyncs\":%" PRIu64 ",\"dropped\":%" PRIu64
	    ",\"errors\":%" PRIu64 "}\n",
	    ledger.delivered, ledger.resyncs, ledger.dropped, ledger.errors);
	return ledger.errors == 0 ? EX_OK : 1;
}
