/* SPDX-License-Identifier: ISC */
/*
 * check_fanout: each stream gets its own events, complete and in order, in as few records as
 * possible.
 *
 * The streams write to real sockets, which are large enough for everything that a test sends.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/metrics.h"
#include "pubsub/fanout.h"
#include "wire/frame.h"
#include "wire/wakeup.h"

#define PEERS_MAX  200
#define RECORD_MAX 4096
#define BACKLOG    (64 << 20)

struct peer {
	struct stream *stream;
	struct subscription *subscription;
	int writer, reader;
	uint8_t *got; /* all bytes received so far */
	size_t length, at;
};

static struct channel_table *channels;
static struct fanout *fanout;
static struct peer peers[PEERS_MAX];
static int peer_count;
static int yields;
static void (*on_yield)(void);

static bool
command(void *arg, bool subscribe, int count, const char **names, const size_t *lengths)
{
	(void)arg, (void)subscribe, (void)count, (void)names, (void)lengths;
	return true;
}

static void
yield(void *arg)
{
	ck_assert_ptr_eq(arg, &yields);
	yields++;
	if (on_yield != NULL)
		on_yield();
}

/*
 * Adds a peer to the named channels (separated by spaces) without starting it. Returns its index. A
 * labelled peer has the label after each name and a '='.
 */
static int
add_silent_peer(const char *names)
{
	struct peer *p = &peers[peer_count];
	struct subscription *sub;
	size_t length = strlen(names);
	int pair[2], count = 1;

	ck_assert_int_lt(peer_count, PEERS_MAX);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	p->writer = pair[0];
	p->reader = pair[1];
	p->stream = stream_new(p->writer, BACKLOG);
	ck_assert_ptr_nonnull(p->stream);
	stream_set_id(p->stream, 1);
	for (size_t i = 0; i < length; i++)
		count += names[i] == ' ';
	sub = calloc(1, sizeof(*sub) + (size_t)count * sizeof(sub->members[0]));
	ck_assert_ptr_nonnull(sub);
	sub->stream = stream_hold(p->stream);
	sub->names = strdup(names);
	sub->count = count;
	for (size_t i = 0; i < length; i++)
		if (sub->names[i] == ' ' || sub->names[i] == '=')
			sub->names[i] = '\0';
	p->stream->labelled = strchr(names, '=') != NULL;
	channel_table_join(channels, sub);
	p->subscription = sub;
	return peer_count++;
}

static int
add_peer(const char *names)
{
	int i = add_silent_peer(names);

	stream_start(peers[i].stream, "head");
	return i;
}

static void
setup(void)
{
	channels = channel_table_new(command, NULL);
	fanout = fanout_new(RECORD_MAX, yield, &yields);
	ck_assert_ptr_nonnull(channels);
	ck_assert_ptr_nonnull(fanout);
}

static void
teardown(void)
{
	for (int i = 0; i < peer_count; i++) {
		struct peer *p = &peers[i];

		ck_assert_ptr_null(p->stream->first);
		channel_table_leave(channels, p->subscription);
		stream_close(p->stream);
		stream_release(p->stream);
		close(p->writer);
		close(p->reader);
		free(p->got);
	}
}

static void
add(const char *channel, const char *payload)
{
	struct channel *c = channel_table_find(channels, channel, strlen(channel));

	ck_assert_ptr_nonnull(c);
	fanout_add(fanout, c, payload, strlen(payload));
}

/* Reads everything sent to a peer, including its backlog. */
static void
drain(struct peer *p)
{
	struct stream_view view;
	ssize_t n;

	do {
		stream_flush(p->stream);
		do {
			p->got = realloc(p->got, p->length + 65536);
			ck_assert_ptr_nonnull(p->got);
			n = recv(p->reader, p->got + p->length, 65536, MSG_DONTWAIT);
			if (n > 0)
				p->length += (size_t)n;
		} while (n > 0);
		stream_look(p->stream, &view);
	} while (view.pending);
	if (p->at == 0) {
		ck_assert_uint_ge(p->length, FCGI_HEADER_LEN + 4);
		ck_assert_mem_eq(p->got + FCGI_HEADER_LEN, "head", 4);
		p->at = FCGI_HEADER_LEN + 4;
	}
}

/* Returns the content of the next record, terminated; NULL: none. The caller frees it. */
static char *
next_record(struct peer *p, size_t *length)
{
	const uint8_t *r;
	char *content;

	if (p->at == p->length)
		return NULL;
	r = p->got + p->at;
	ck_assert_uint_ge(p->length - p->at, FCGI_HEADER_LEN);
	ck_assert_uint_eq(r[0], 1);
	ck_assert_uint_eq(r[1], FCGI_STDOUT);
	ck_assert_uint_eq((unsigned)(r[2] << 8 | r[3]), p->stream->id);
	*length = (size_t)r[4] << 8 | r[5];
	ck_assert_uint_gt(*length, 0);
	ck_assert_uint_ge(p->length - p->at, FCGI_HEADER_LEN + *length);
	content = strndup((const char *)r + FCGI_HEADER_LEN, *length);
	p->at += FCGI_HEADER_LEN + *length;
	return content;
}

/* Expects exactly these records since the last call; NULL ends the list. */
static void
expect(int i, const char *const *texts)
{
	struct peer *p = &peers[i];
	size_t length;
	char *content;

	drain(p);
	for (; *texts != NULL; texts++) {
		content = next_record(p, &length);
		ck_assert_msg(content != NULL, "peer %d: nothing, not %s", i, *texts);
		ck_assert_msg(strcmp(content, *texts) == 0, "peer %d: %s, not %s", i, content,
		    *texts);
		free(content);
	}
	ck_assert_msg(p->at == p->length, "peer %d: more than that", i);
}

#define EXPECT(i, ...) expect(i, (const char *const[]){ __VA_ARGS__, NULL })
#define EXPECT_NOTHING(i) expect(i, (const char *const[]){ NULL })

/* The sum of a metric's cells: of its labels, or of a histogram's buckets. */
static uint64_t
counted(enum metric counter)
{
	static struct metrics c;
	uint64_t sum = 0;

	metrics_read(&c);
	/* Not the last two: in a histogram they are the sum, and unused. */
	for (int i = 0; i < METRIC_LABELS - 2 + (counter != METRIC_FANOUT); i++)
		sum += c.cells[counter][0][i];
	return sum;
}

/*
 * "Sent" counts events for each stream, "merged" those that share a record with an earlier one, and
 * the histogram each flush. A broken stream and an empty flush count nothing.
 */
START_TEST(counts)
{
	add_peer("a b");
	add_peer("a");
	add_peer("a");
	fanout_flush(fanout);
	ck_assert_uint_eq(counted(METRIC_FANOUT), 0);
	stream_finish(peers[2].stream, "");
	for (int i = 0; i < 3; i++)
		add("a", "{}");
	add("b", "{}");
	fanout_flush(fanout);
	ck_assert_uint_eq(counted(METRIC_SENT), 3 + 1 + 3);
	ck_assert_uint_eq(counted(METRIC_MERGED), 3 + 2);
	ck_assert_uint_eq(counted(METRIC_FANOUT), 1);
	/* Two of these fit in a record of 4096 bytes. */
	for (int i = 0; i < 5; i++) {
		char payload[1600];

		snprintf(payload, sizeof(payload), "%1599d", i);
		add("b", payload);
	}
	fanout_flush(fanout);
	ck_assert_uint_eq(counted(METRIC_SENT), 7 + 5);
	ck_assert_uint_eq(counted(METRIC_MERGED), 5 + 2);
	ck_assert_uint_eq(counted(METRIC_FANOUT), 2);
}
END_TEST

/* An event goes to every member of its channel when it is flushed, and to no one else. */
START_TEST(one_to_many)
{
	for (int i = 0; i < 100; i++)
		add_peer(i % 2 == 0 ? "a" : "b");
	add("a", "{\"n\":1}");
	for (int i = 0; i < 100; i++)
		EXPECT_NOTHING(i);
	fanout_flush(fanout);
	for (int i = 0; i < 100; i += 2) {
		EXPECT(i, "data: {\"n\":1}\n\n");
		EXPECT_NOTHING(i + 1);
	}
	/* A second flush sends nothing. */
	fanout_flush(fanout);
	for (int i = 0; i < 100; i++)
		EXPECT_NOTHING(i);
}
END_TEST

/* A stream's events, from all its channels, arrive in one record, in order. */
START_TEST(several_channels)
{
	add_peer("a b");
	add("a", "1");
	add("b", "2");
	add("b", "3");
	add("a", "4");
	fanout_flush(fanout);
	EXPECT(0, "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n");
	add("b", "5");
	fanout_flush(fanout);
	EXPECT(0, "data: 5\n\n");
}
END_TEST

/*
 * A labelled stream gets each event with the label of its channel, others of the same channels get it
 * without, in whatever order they joined.
 */
START_TEST(labels)
{
	add_peer("a b");
	add_peer("a=issues:7 b=testRuns:42");
	add_peer("a");
	add_peer("b=testRuns:42 a=issues:7");
	add_peer("b");
	add_peer("c");
	for (int round = 0; round < 2; round++) {
		add("a", "1");
		add("b", "2");
		add("c", "3");
		add("a", "4\n5");
		fanout_flush(fanout);
		EXPECT(0, "data: 1\n\ndata: 2\n\ndata: 4\ndata: 5\n\n");
		EXPECT(1, "event: issues:7\ndata: 1\n\nevent: testRuns:42\ndata: 2\n\n"
		    "event: issues:7\ndata: 4\ndata: 5\n\n");
		EXPECT(2, "data: 1\n\ndata: 4\ndata: 5\n\n");
		EXPECT(3, "event: issues:7\ndata: 1\n\nevent: testRuns:42\ndata: 2\n\n"
		    "event: issues:7\ndata: 4\ndata: 5\n\n");
		EXPECT(4, "data: 2\n\n");
		EXPECT(5, "data: 3\n\n");
	}
	/* Joining later does not change what was added before. */
	add("c", "6");
	add_peer("c=notifications");
	add("c", "7");
	fanout_flush(fanout);
	EXPECT(5, "data: 6\n\ndata: 7\n\n");
	EXPECT(6, "event: notifications\ndata: 7\n\n");
}
END_TEST

/* Streams with different lists of deliveries, in any order, each get their own events. */
START_TEST(different_lists)
{
	add_peer("a");
	add_peer("a b");
	add_peer("b");
	add_peer("a");
	add_peer("b a");
	add_peer("c");
	add_peer("a b c");
	add("b", "1");
	add("a", "2");
	add("b", "3");
	fanout_flush(fanout);
	EXPECT(0, "data: 2\n\n");
	EXPECT(1, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
	EXPECT(2, "data: 1\n\ndata: 3\n\n");
	EXPECT(3, "data: 2\n\n");
	EXPECT(4, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
	EXPECT_NOTHING(5);
	EXPECT(6, "data: 1\n\ndata: 2\n\ndata: 3\n\n");
}
END_TEST

/* A list that is the start of another, or has as many other events, is a different list. */
START_TEST(similar_lists)
{
	add_peer("a");
	add_peer("a b");
	add_peer("a c");
	add_peer("a");
	add("a", "1");
	add("b", "2");
	add("c", "3");
	fanout_flush(fanout);
	EXPECT(0, "data: 1\n\n");
	EXPECT(1, "data: 1\n\ndata: 2\n\n");
	EXPECT(2, "data: 1\n\ndata: 3\n\n");
	EXPECT(3, "data: 1\n\n");
}
END_TEST

/* Two streams that share the formatted bytes keep their own request ids. */
START_TEST(request_ids)
{
	for (int i = 0; i < 4; i++)
		add_peer("a");
	stream_set_id(peers[1].stream, 515);
	stream_set_id(peers[3].stream, 2);
	for (int i = 0; i < 4; i++) {
		drain(&peers[i]);
		EXPECT_NOTHING(i);
	}
	add("a", "1");
	fanout_flush(fanout);
	for (int i = 0; i < 4; i++)
		EXPECT(i, "data: 1\n\n");
}
END_TEST

/* A payload with line breaks becomes an event with several data lines. */
START_TEST(line_breaks)
{
	add_peer("a");
	add("a", "{\n\"n\":1\r\n}");
	fanout_flush(fanout);
	EXPECT(0, "data: {\ndata: \"n\":1\ndata: }\n\n");
}
END_TEST

/* Makes a payload whose frame has size bytes: a number and letters. The caller frees it. */
static char *
payload_for(size_t size, int number)
{
	size_t length = size - strlen("data: \n\n");
	char *payload = malloc(length + 1);
	int n;

	ck_assert_ptr_nonnull(payload);
	n = snprintf(payload, length + 1, "%d ", number);
	memset(payload + n, 'a' + number % 26, length - (size_t)n);
	payload[length] = '\0';
	return payload;
}

/* Records are filled up to record_max, and never split an event. */
START_TEST(record_max)
{
	static const size_t sizes[] = { 64, 100, 1024, 2048, 2049, RECORD_MAX };

	add_peer("a");
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		size_t per_record = RECORD_MAX / sizes[k], length, number = 0;
		char *content;

		for (int i = 0; i < 50; i++) {
			char *payload = payload_for(sizes[k], i);

			add("a", payload);
			free(payload);
		}
		fanout_flush(fanout);
		drain(&peers[0]);
		while ((content = next_record(&peers[0], &length)) != NULL) {
			ck_assert_uint_eq(length % sizes[k], 0);
			for (size_t at = 0; at < length; at += sizes[k])
				ck_assert_uint_eq((size_t)atoi(content + at + 6), number++);
			if (number < 50)
				ck_assert_uint_eq(length / sizes[k], per_record);
			free(content);
		}
		ck_assert_uint_eq(number, 50);
	}
}
END_TEST

/* A frame larger than record_max, up to the largest one, is a record of its own. */
START_TEST(large_frames)
{
	static const size_t sizes[] = { RECORD_MAX - 1, RECORD_MAX + 1, WAKEUP_FRAME_MAX - 1,
		WAKEUP_FRAME_MAX };

	add_peer("a");
	add_peer("a b");
	for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
		/* Together more than a batch holds. */
		for (int i = 0; i < 40; i++) {
			char *payload = payload_for(sizes[k], i);

			add("a", payload);
			free(payload);
		}
		add("b", "small");
		add("a", "small");
		fanout_flush(fanout);
		for (int p = 0; p < 2; p++) {
			size_t length;
			char *content;

			drain(&peers[p]);
			for (int i = 0; i < 40; i++) {
				content = next_record(&peers[p], &length);
				ck_assert_ptr_nonnull(content);
				ck_assert_uint_eq(length, sizes[k]);
				ck_assert_int_eq(atoi(content + 6), i);
				for (size_t at = 16; at < length - 2; at++)
					ck_assert_int_eq(content[at], 'a' + i % 26);
				ck_assert_mem_eq(content + length - 2, "\n\n", 2);
				free(content);
			}
		}
		EXPECT(0, "data: small\n\n");
		EXPECT(1, "data: small\n\ndata: small\n\n");
	}
}
END_TEST

/* The largest event and the longest label fit in a batch, as often as there are, and in a backlog. */
START_TEST(large_labelled_frames)
{
	static const char label[] = "projectMilestones:2147483647";
	char name[64], *payload;
	size_t length;

	snprintf(name, sizeof(name), "a=%s", label);
	add_peer(name);
	add_peer("a");
	for (int i = 0; i < 40; i++) {
		payload = payload_for(WAKEUP_FRAME_MAX, i);
		add("a", payload);
		free(payload);
	}
	fanout_flush(fanout);
	for (int p = 0; p < 2; p++) {
		drain(&peers[p]);
		for (int i = 0; i < 40; i++) {
			char *content = next_record(&peers[p], &length);

			ck_assert_ptr_nonnull(content);
			ck_assert_uint_eq(length, WAKEUP_FRAME_MAX + (p == 0 ? strlen("event: \n") +
			    strlen(label) : 0));
			free(content);
		}
	}
}
END_TEST

/*
 * A stream with only small events gets them in one record, whatever other streams get in between.
 */
START_TEST(small_among_large)
{
	char *large = payload_for(WAKEUP_FRAME_MAX, 1);

	add_peer("a b");
	add_peer("a");
	for (int i = 0; i < 5; i++) {
		add("a", "x");
		add("b", large);
	}
	fanout_flush(fanout);
	EXPECT(1, "data: x\n\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\n");
	drain(&peers[0]);
	for (int i = 0; i < 10; i++) {
		size_t length;
		char *content = next_record(&peers[0], &length);

		ck_assert_ptr_nonnull(content);
		ck_assert_uint_eq(length, i % 2 == 0 ? 9 : WAKEUP_FRAME_MAX);
		free(content);
	}
	EXPECT_NOTHING(0);
	free(large);
}
END_TEST

/* record_max is limited to the largest FastCGI record. */
START_TEST(largest_record)
{
	static struct fanout *other;
	size_t length, total = 0;
	char *content, *payload;

	other = fanout;
	fanout = fanout_new(1 << 24, yield, &yields);
	ck_assert_ptr_nonnull(fanout);
	ck_assert_ptr_ne(fanout, other);
	add_peer("a");
	for (int i = 0; i < 100; i++) {
		payload = payload_for(2000, i);
		add("a", payload);
		free(payload);
	}
	fanout_flush(fanout);
	drain(&peers[0]);
	content = next_record(&peers[0], &length);
	ck_assert_uint_eq(length, FRAME_RECORD_MAX / 2000 * 2000);
	do {
		total += length;
		free(content);
		content = next_record(&peers[0], &length);
	} while (content != NULL);
	ck_assert_uint_eq(total, 100 * 2000);
}
END_TEST

/* Expects the numbers from 0 to count - 1, once each and in order, in a peer's events. */
static void
expect_numbers(int i, int count)
{
	int number = 0, n;
	size_t length;
	char *content;

	drain(&peers[i]);
	while ((content = next_record(&peers[i], &length)) != NULL) {
		ck_assert_uint_le(length, RECORD_MAX);
		for (const char *at = content; *at != '\0'; at += n) {
			int got = -1;

			n = 0;
			sscanf(at, "data: %d\n\n%n", &got, &n);
			ck_assert_int_gt(n, 0);
			ck_assert_int_eq(got, number++);
		}
		free(content);
	}
	ck_assert_int_eq(number, count);
}

/* More events than fit in a batch are neither lost nor reordered. */
START_TEST(many_events)
{
	char payload[16];

	for (int i = 0; i < 3; i++)
		add_peer("a");
	for (int i = 0; i < 5000; i++) {
		snprintf(payload, sizeof(payload), "%d", i);
		add("a", payload);
	}
	fanout_flush(fanout);
	for (int i = 0; i < 3; i++)
		expect_numbers(i, 5000);
}
END_TEST

/* Nor are more deliveries than fit in a batch: many events to many streams. */
START_TEST(many_deliveries)
{
	char payload[16];

	for (int i = 0; i < PEERS_MAX; i++)
		add_peer("a");
	for (int i = 0; i < 1000; i++) {
		snprintf(payload, sizeof(payload), "%d", i);
		add("a", payload);
	}
	fanout_flush(fanout);
	for (int i = 0; i < PEERS_MAX; i++)
		expect_numbers(i, 1000);
}
END_TEST

/* In a channel with more members than a batch has deliveries, each gets the event once. */
START_TEST(many_members)
{
	enum { COUNT = 140000 };
	struct stream **streams = calloc(COUNT, sizeof(struct stream *));
	struct subscription **subs = calloc(COUNT, sizeof(struct subscription *));
	size_t kept = 0;

	/*
	 * All of them write to one socket: count what its reader gets and what is in their
	 * backlogs.
	 */
	add_peer("a");
	for (int i = 0; i < COUNT; i++) {
		streams[i] = stream_new(peers[0].writer, 65536);
		subs[i] = calloc(1, sizeof(*subs[i]) + sizeof(subs[i]->members[0]));
		ck_assert(streams[i] != NULL && subs[i] != NULL);
		subs[i]->stream = stream_hold(streams[i]);
		subs[i]->names = strdup("a");
		subs[i]->count = 1;
		channel_table_join(channels, subs[i]);
		streams[i]->started = true;
		streams[i]->id = 1;
	}
	add("a", "x");
	fanout_flush(fanout);
	for (int i = 0; i < COUNT; i++) {
		ck_assert_uint_le(streams[i]->backlog_length, FCGI_HEADER_LEN + 9);
		kept += streams[i]->backlog_length;
		ck_assert_ptr_null(streams[i]->first);
		channel_table_leave(channels, subs[i]);
		stream_close(streams[i]);
		stream_release(streams[i]);
	}
	drain(&peers[0]);
	ck_assert_uint_eq(kept + peers[0].length,
	    FCGI_HEADER_LEN + 4 + (COUNT + 1) * (size_t)(FCGI_HEADER_LEN + 9));
	free(streams);
	free(subs);
}
END_TEST

/* A channel without members is skipped; events after it are still correct. */
START_TEST(no_members)
{
	add_peer("a");
	add_peer("b");
	/* It still exists: it lingers. */
	channel_table_up(channels);
	ck_assert(channel_table_send(channels, 0, SIZE_MAX));
	channel_table_leave(channels, peers[1].subscription);
	add("b", "1");
	add("a", "2");
	fanout_flush(fanout);
	EXPECT(0, "data: 2\n\n");
	/* Its stream joins another channel, for teardown(). */
	peers[1].subscription = calloc(1, sizeof(struct subscription) + sizeof(struct member));
	peers[1].subscription->stream = stream_hold(peers[1].stream);
	peers[1].subscription->names = strdup("c");
	peers[1].subscription->count = 1;
	channel_table_join(channels, peers[1].subscription);
	EXPECT_NOTHING(1);
}
END_TEST

/* Adds members to the channel in use, so that its array of members moves. */
static void
join_more(void)
{
	if (peer_count < PEERS_MAX)
		add_peer("a");
}

/*
 * During a long flush yield() may add members: they get the events added later, and no event twice.
 */
START_TEST(yield_adds_members)
{
	for (int i = 0; i < 130; i++)
		add_peer("a");
	add("a", "1");
	on_yield = join_more;
	fanout_flush(fanout);
	on_yield = NULL;
	ck_assert_int_eq(yields, 2);
	ck_assert_int_eq(peer_count, 132);
	for (int i = 0; i < 130; i++)
		EXPECT(i, "data: 1\n\n");
	for (int i = 130; i < peer_count; i++)
		EXPECT_NOTHING(i);
	add("a", "2");
	fanout_flush(fanout);
	for (int i = 0; i < peer_count; i++)
		EXPECT(i, "data: 2\n\n");
}
END_TEST

/* The same in fanout_add(), which flushes when the batch is full. */
START_TEST(yield_within_add)
{
	char payload[16];

	for (int i = 0; i < 64; i++)
		add_peer("a");
	on_yield = join_more;
	for (int i = 0; i < 5000; i++) {
		snprintf(payload, sizeof(payload), "%d", i);
		add("a", payload);
	}
	on_yield = NULL;
	fanout_flush(fanout);
	ck_assert_int_gt(peer_count, 64);
	for (int i = 0; i < 64; i++)
		expect_numbers(i, 5000);
	/* The numbers of a late member have no gap either, and end with the last. */
	for (int i = 64; i < peer_count; i++) {
		int number = -1, n;
		size_t length;
		char *content;

		drain(&peers[i]);
		while ((content = next_record(&peers[i], &length)) != NULL) {
			for (const char *at = content; *at != '\0'; at += n) {
				int got = -1;

				n = 0;
				sscanf(at, "data: %d\n\n%n", &got, &n);
				ck_assert_int_gt(n, 0);
				ck_assert(number == -1 || got == number + 1);
				number = got;
			}
			free(content);
		}
		ck_assert_int_eq(number, 4999);
	}
}
END_TEST

/* An event added before a stream starts is not sent to it, even if it starts before the flush. */
START_TEST(before_the_start)
{
	add_peer("a");
	add_silent_peer("a");
	add("a", "1");
	stream_start(peers[1].stream, "head");
	add("a", "2");
	fanout_flush(fanout);
	EXPECT(0, "data: 1\n\ndata: 2\n\n");
	EXPECT(1, "data: 2\n\n");
}
END_TEST

/* A stream whose peer is gone does not affect the others. */
START_TEST(one_is_broken)
{
	for (int i = 0; i < 3; i++)
		add_peer("a");
	shutdown(peers[1].reader, SHUT_RDWR);
	for (int i = 0; i < 3; i++) {
		add("a", "1");
		add("a", "2");
		fanout_flush(fanout);
		EXPECT(0, "data: 1\n\ndata: 2\n\n");
		EXPECT(2, "data: 1\n\ndata: 2\n\n");
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fanout");
	TCase *tc = tcase_create("fanout");
	SRunner *sr = srunner_create(s);
	int failed;

	/* Before any thread starts; the test processes inherit it. */
	stream_signal_init();
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, one_to_many);
	tcase_add_test(tc, counts);
	tcase_add_test(tc, several_channels);
	tcase_add_test(tc, labels);
	tcase_add_test(tc, large_labelled_frames);
	tcase_add_test(tc, different_lists);
	tcase_add_test(tc, similar_lists);
	tcase_add_test(tc, request_ids);
	tcase_add_test(tc, line_breaks);
	tcase_add_test(tc, record_max);
	tcase_add_test(tc, large_frames);
	tcase_add_test(tc, small_among_large);
	tcase_add_test(tc, largest_record);
	tcase_add_test(tc, many_events);
	tcase_add_test(tc, many_deliveries);
	tcase_add_test(tc, many_members);
	tcase_add_test(tc, no_members);
	tcase_add_test(tc, yield_adds_members);
	tcase_add_test(tc, yield_within_add);
	tcase_add_test(tc, before_the_start);
	tcase_add_test(tc, one_is_broken);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
