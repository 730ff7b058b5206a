/* SPDX-License-Identifier: ISC */
/*
 * check_channel_table: which commands are sent to Valkey, and what the replies mean for the
 * streams.
 *
 * Commands are recorded as "+name" and "-name", or "+name,name" for several channels. The streams
 * have no socket: only their marks matter. Unless a test says otherwise, no channel lingers: time
 * passes with each leave.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "pubsub/channel_table.h"

#define STREAMS_MAX 8

static struct channel_table *channels;
static struct stream *streams[STREAMS_MAX];
static struct subscription *subscriptions[STREAMS_MAX];

static char commands[256 * 1024]; /* since the last check; a space after each */
static int commands_fail;   /* number of commands that fail from now on */

static int64_t later;      /* added to the clock: how much time has passed */
static bool linger;         /* no time passes with a leave */

static bool
command(void *arg, bool subscribe, int count, const char **names, const size_t *lengths)
{
	size_t used = strlen(commands);

	ck_assert_ptr_eq(arg, commands);
	ck_assert_int_gt(count, 0);
	ck_assert_int_le(count, CHANNEL_BATCH_MAX);
	if (commands_fail > 0) {
		commands_fail--;
		return false;
	}
	for (int i = 0; i < count; i++) {
		ck_assert_uint_eq(strlen(names[i]), lengths[i]);
		ck_assert_uint_lt(used + lengths[i] + 3, sizeof(commands));
		used += (size_t)sprintf(commands + used, "%s%s",
		    i > 0 ? "," : subscribe ? "+" : "-", names[i]);
	}
	snprintf(commands + used, sizeof(commands) - used, " ");
	return true;
}

static void
send_all(void)
{
	ck_assert(channel_table_send(channels, clock_ms() + later, SIZE_MAX));
}

/* Reports a connection. */
static void
up(void)
{
	channel_table_up(channels);
	send_all();
}

static void
pass(int64_t ms)
{
	later += ms;
	send_all();
}

static void
expect_commands(const char *expected)
{
	send_all();
	ck_assert_str_eq(commands, expected);
	commands[0] = '\0';
}

/* Called at the first confirmation. Sets the mark that these tests check instead. */
static void
begin(struct stream *stream)
{
	stream_mark(stream, STREAM_CONFIRMED);
}

/* Stream i joins the named channels, separated by spaces. */
static void
join(int i, const char *names)
{
	struct subscription *sub;
	int count = 1;

	for (const char *p = names; *p != '\0'; p++)
		count += *p == ' ';
	sub = calloc(1, sizeof(*sub) + (size_t)count * sizeof(sub->members[0]));
	ck_assert_ptr_nonnull(sub);
	sub->stream = stream_hold(streams[i]);
	sub->names = strdup(names);
	sub->count = count;
	sub->begin = begin;
	for (size_t k = 0, length = strlen(names); k < length; k++)
		if (sub->names[k] == ' ')
			sub->names[k] = '\0';
	subscriptions[i] = sub;
	channel_table_join(channels, sub);
	if (commands_fail == 0)
		send_all();
}

/* Stream i leaves the named channels, separated by spaces. */
static void
leave_some(int i, const char *list)
{
	size_t length = strlen(list);
	char *names = strdup(list);
	int count = 1;

	for (size_t k = 0; k < length; k++)
		if (names[k] == ' ') {
			names[k] = '\0';
			count++;
		}
	channel_table_leave_some(channels, subscriptions[i], names, count);
	free(names);
	pass(linger ? 0 : CHANNEL_LINGER_MS);
}

static void
leave(int i)
{
	channel_table_leave(channels, subscriptions[i]);
	subscriptions[i] = NULL;
	pass(linger ? 0 : CHANNEL_LINGER_MS);
}

/* Returns how many of the channels used in these tests exist. */
static unsigned
channel_count(void)
{
	static const char *const names[] = { "a", "b", "c", "d", "e", "ab" };
	unsigned count = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		count += channel_table_find(channels, names[i], strlen(names[i])) != NULL;
	return count;
}

static bool
answer(const char *name)
{
	return channel_table_answer(channels, name, strlen(name), false) == 1;
}

static const char *
awaited(void)
{
	bool alone;

	return channel_table_awaited(channels, &alone);
}

/* Refuses the oldest command, which has one channel left. */
static bool
refuse(void)
{
	return channel_table_answer(channels, NULL, 0, true) == 1;
}

/* Expects marks for each stream, a letter each: C confirmed, R refused, B both, '.' none. */
static void
expect_marks(const char *expected)
{
	char letters[STREAMS_MAX + 1] = "";
	struct stream_view view;

	for (size_t i = 0; i < strlen(expected); i++) {
		stream_look(streams[i], &view);
		ck_assert_uint_eq(view.marks & ~(unsigned)(STREAM_CONFIRMED | STREAM_REFUSED), 0);
		letters[i] = view.marks == 0 ? '.' : view.marks == STREAM_CONFIRMED ? 'C'
		    : view.marks == STREAM_REFUSED ? 'R' : 'B';
	}
	ck_assert_str_eq(letters, expected);
}

static void
setup(void)
{
	channels = channel_table_new(command, commands);
	ck_assert_ptr_nonnull(channels);
	for (int i = 0; i < STREAMS_MAX; i++) {
		streams[i] = stream_new(-1, 65536);
		ck_assert_ptr_nonnull(streams[i]);
	}
}

static void
setup_up(void)
{
	setup();
	up();
}

/*
 * All streams leave and the connection is lost: then no channel is left. The sanitizer finds other
 * leaks.
 */
static void
teardown(void)
{
	channel_table_down(channels);
	for (int i = 0; i < STREAMS_MAX; i++) {
		if (subscriptions[i] != NULL)
			leave(i);
		ck_assert_int_eq(streams[i]->references, 1);
		stream_release(streams[i]);
	}
	channel_table_down(channels);
	ck_assert_uint_eq(channel_count(), 0);
}

/*
 * The first member's join sends SUBSCRIBE; the reply confirms the channel, and nothing before it
 * does.
 */
START_TEST(first_join)
{
	join(0, "a");
	expect_commands("+a ");
	expect_marks(".");
	ck_assert(answer("a"));
	expect_marks("C");
	expect_commands("");
	ck_assert_uint_eq(channel_count(), 1);
}
END_TEST

/* Joining a confirmed channel sends no command: it is confirmed at once. */
START_TEST(second_join)
{
	join(0, "a");
	answer("a");
	expect_marks("C");
	expect_commands("+a ");
	join(1, "a");
	expect_commands("");
	expect_marks(".C");
}
END_TEST

/* Joining a channel whose SUBSCRIBE is in flight waits for the same reply. */
START_TEST(join_while_in_flight)
{
	join(0, "a");
	join(1, "a");
	join(2, "a");
	expect_commands("+a ");
	expect_marks("...");
	ck_assert(answer("a"));
	expect_marks("CCC");
	ck_assert(!answer("a"));
}
END_TEST

/* Only when the last member leaves is the channel unsubscribed. */
START_TEST(last_leave)
{
	join(0, "a");
	join(1, "a");
	join(2, "a");
	answer("a");
	expect_commands("+a ");
	leave(1);
	leave(0);
	expect_commands("");
	leave(2);
	expect_commands("-a ");
	ck_assert(answer("a"));
	ck_assert_uint_eq(channel_count(), 0);
	ck_assert_ptr_null(channel_table_find(channels, "a", 1));
}
END_TEST

/* The members of a channel are those that joined and have not left, in any order of leaving. */
START_TEST(members)
{
	for (int gone = 0; gone < 5; gone++) {
		const struct channel_member *m;
		size_t count;
		unsigned seen = 0;

		for (int i = 0; i < 5; i++)
			join(i, "a");
		leave(gone);
		leave((gone + 2) % 5);
		m = channel_members(channel_table_find(channels, "a", 1), &count);
		ck_assert_uint_eq(count, 3);
		for (size_t i = 0; i < count; i++)
			for (int k = 0; k < 5; k++)
				if (member_subscription(m[i].member) == subscriptions[k] &&
				    m[i].stream == streams[k])
					seen |= 1u << k;
		ck_assert_uint_eq(seen, 0x1fu & ~(1u << gone) & ~(1u << (gone + 2) % 5));
		for (int i = 0; i < 5; i++)
			if (subscriptions[i] != NULL)
				leave(i);
		answer("a");
		answer("a");
		ck_assert_uint_eq(channel_count(), 0);
	}
}
END_TEST

/* A name is compared in full. */
START_TEST(find)
{
	join(0, "ab b");
	ck_assert_ptr_nonnull(channel_table_find(channels, "ab", 2));
	ck_assert_ptr_nonnull(channel_table_find(channels, "b", 1));
	ck_assert_ptr_ne(channel_table_find(channels, "b", 1), channel_table_find(channels, "ab", 2));
	ck_assert_ptr_null(channel_table_find(channels, "a", 1));
	ck_assert_ptr_null(channel_table_find(channels, "abc", 3));
	ck_assert_ptr_null(channel_table_find(channels, "ab", 3));
	ck_assert_ptr_null(channel_table_find(channels, "", 0));
}
END_TEST

/* Leave and join again before any reply: only the reply to the last SUBSCRIBE confirms. */
START_TEST(rejoin_before_answers)
{
	join(0, "a");
	leave(0);
	join(1, "a");
	expect_commands("+a -a +a ");
	ck_assert(answer("a"));
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks(".C");
	ck_assert(!answer("a"));
}
END_TEST

/* The same if the channel was confirmed before: the command in flight unsubscribes it first. */
START_TEST(rejoin_after_confirmation)
{
	join(0, "a");
	answer("a");
	expect_marks("C");
	leave(0);
	join(1, "a");
	expect_commands("+a -a +a ");
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks("..");
	join(2, "a");
	expect_marks("...");
	ck_assert(answer("a"));
	expect_marks(".CC");
	leave(1);
	leave(2);
	expect_commands("-a ");
}
END_TEST

/* Leave before the reply: the channel's memory stays until the last reply. */
START_TEST(leave_before_answers)
{
	join(0, "a");
	leave(0);
	expect_commands("+a -a ");
	ck_assert_uint_eq(channel_count(), 1);
	ck_assert(answer("a"));
	ck_assert_uint_eq(channel_count(), 1);
	ck_assert(answer("a"));
	ck_assert_uint_eq(channel_count(), 0);
}
END_TEST

/* A stream with several channels is confirmed when the last of them is. */
START_TEST(several_channels)
{
	join(0, "a b c");
	expect_commands("+a,b,c ");
	ck_assert(answer("a"));
	ck_assert(answer("b"));
	expect_marks(".");
	join(1, "b c");
	join(2, "a b");
	join(3, "c d");
	expect_commands("+d ");
	expect_marks("..C.");
	ck_assert(answer("c"));
	expect_marks("CC..");
	ck_assert(answer("d"));
	expect_marks("...C");
}
END_TEST

/* A stream that has left is not marked any more, and the counts of the others stay correct. */
START_TEST(leave_of_one_of_several)
{
	join(0, "a b");
	join(1, "b c");
	leave(0);
	expect_commands("+a,b +c -a ");
	answer("a");
	answer("b");
	expect_marks("..");
	answer("c");
	expect_marks(".C");
	answer("a");
	expect_marks("..");
	ck_assert_uint_eq(channel_count(), 2);
}
END_TEST

/*
 * A stream that leaves some channels stays in the others; channels without members are
 * unsubscribed.
 */
START_TEST(leave_some_of_several)
{
	const struct channel_member *m;
	size_t count;

	join(0, "a b c d");
	join(1, "b c");
	for (int i = 0; i < 4; i++)
		answer((const char *[]){ "a", "b", "c", "d" }[i]);
	expect_marks("CC");
	expect_commands("+a,b,c,d ");
	leave_some(0, "b d");
	expect_commands("-d ");
	m = channel_members(channel_table_find(channels, "b", 1), &count);
	ck_assert_uint_eq(count, 1);
	ck_assert_ptr_eq(member_subscription(m[0].member), subscriptions[1]);
	channel_members(channel_table_find(channels, "c", 1), &count);
	ck_assert_uint_eq(count, 2);
	m = channel_members(channel_table_find(channels, "a", 1), &count);
	ck_assert_uint_eq(count, 1);
	ck_assert_ptr_eq(member_subscription(m[0].member), subscriptions[0]);
	/* Nothing has changed for the other members. */
	expect_marks("..");
	ck_assert(answer("d"));
	expect_marks("..");
	ck_assert_ptr_null(channel_table_find(channels, "d", 1));
	leave_some(0, "a c");
	expect_commands("-a ");
	leave(0);
	leave(1);
	expect_commands("-b,c ");
}
END_TEST

/*
 * Leaving channels that the stream is not in, or no longer in, or that have no members, does
 * nothing.
 */
START_TEST(leave_some_others)
{
	size_t count;

	join(0, "a b");
	join(1, "c");
	answer("a");
	answer("b");
	answer("c");
	expect_marks("CC");
	expect_commands("+a,b +c ");
	leave_some(0, "c d e ab");
	expect_commands("");
	channel_members(channel_table_find(channels, "c", 1), &count);
	ck_assert_uint_eq(count, 1);
	leave_some(0, "a a");
	leave_some(0, "a");
	expect_commands("-a ");
	/* It has left this one, and another stream has joined it since. */
	join(2, "a");
	leave_some(0, "a");
	expect_commands("+a ");
	channel_members(channel_table_find(channels, "a", 1), &count);
	ck_assert_uint_eq(count, 1);
	leave_some(0, "d a e");
	expect_commands("");
	expect_marks("...");
	answer("a");
	answer("a");
	expect_marks("..C");
}
END_TEST

/* Leaving the only unconfirmed channels confirms a stream; with others unconfirmed it does not. */
START_TEST(leave_some_unconfirmed)
{
	join(0, "a b c");
	join(1, "b c");
	answer("a");
	leave_some(0, "c");
	expect_marks("..");
	leave_some(0, "b");
	expect_marks("C.");
	expect_commands("+a,b,c ");
	ck_assert(answer("b"));
	expect_marks("..");
	ck_assert(answer("c"));
	expect_marks(".C");
	/* After a loss, the channels that were left do not count. */
	channel_table_down(channels);
	leave_some(1, "c");
	expect_marks("..");
	commands[0] = '\0';
	up();
	expect_commands("+a,b ");
	answer("a");
	expect_marks("C.");
	answer("b");
	expect_marks(".C");
}
END_TEST

/* A stream can leave a refused channel; the others are then enough. */
START_TEST(leave_some_refused)
{
	join(0, "a b");
	answer("a");
	ck_assert(refuse());
	expect_marks(".");
	expect_commands("+a,b +b ");
	ck_assert(refuse());
	expect_marks("R");
	leave_some(0, "b");
	expect_marks("C");
	expect_commands("");
	ck_assert_ptr_null(channel_table_find(channels, "b", 1));
}
END_TEST

/* An error reply refuses only the members of its own channel. */
START_TEST(refused)
{
	join(0, "a");
	join(1, "b");
	join(2, "a b");
	join(3, "c");
	answer("a");
	expect_marks("C...");
	ck_assert(refuse());
	expect_marks(".RR.");
	ck_assert(answer("c"));
	expect_marks("...C");
	leave(1);
	leave(2);
	/* It was never subscribed, so nothing is unsubscribed. */
	expect_commands("+a +b +c ");
	ck_assert_ptr_null(channel_table_find(channels, "b", 1));
}
END_TEST

/* The next join subscribes a refused channel again; if that works, also for earlier members. */
START_TEST(refused_then_allowed)
{
	join(0, "a");
	refuse();
	expect_marks("R");
	join(1, "a");
	expect_commands("+a +a ");
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks("CC");
}
END_TEST

/* An error counts only as the reply to the last SUBSCRIBE. */
START_TEST(refused_before_rejoin)
{
	join(0, "a");
	leave(0);
	join(1, "a");
	expect_commands("+a -a +a ");
	ck_assert(refuse());
	ck_assert(answer("a"));
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks(".C");

	join(2, "b");
	leave(2);
	join(3, "b");
	ck_assert(answer("b"));
	ck_assert(answer("b"));
	ck_assert(refuse());
	expect_marks("...R");
}
END_TEST

/* A reply that is not due, or that names another channel than the one due, is rejected. */
START_TEST(wrong_answers)
{
	ck_assert(!answer("a"));
	ck_assert(!refuse());
	join(0, "ab");
	join(1, "b");
	ck_assert(!answer("b"));
	ck_assert(!answer("a"));
	ck_assert(!answer("abc"));
	ck_assert(!answer("AB"));
	ck_assert(!answer(""));
	ck_assert(!channel_table_answer(channels, "ab", 3, false));
	expect_marks("..");
	ck_assert(answer("ab"));
	ck_assert(!answer("ab"));
	ck_assert(answer("b"));
	ck_assert(!answer("b"));
	ck_assert(!refuse());
	expect_marks("CC");
}
END_TEST

/* unanswered() counts the commands in flight, and awaited() is the channel of the oldest. */
START_TEST(what_is_awaited)
{
	ck_assert_ptr_null(awaited());
	ck_assert_uint_eq(channel_table_unanswered(channels), 0);
	join(0, "ab b");
	leave(0);
	ck_assert_uint_eq(channel_table_unanswered(channels), 4);
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(awaited(), "ab");
		answer("ab");
		ck_assert_str_eq(awaited(), "b");
		if (i == 0)
			refuse();
		else
			answer("b");
		ck_assert_uint_eq(channel_table_unanswered(channels), i == 0 ? 2 : 0);
	}
	ck_assert_ptr_null(awaited());
	join(1, "a");
	channel_table_down(channels);
	ck_assert_ptr_null(awaited());
	ck_assert_uint_eq(channel_table_unanswered(channels), 0);
}
END_TEST

/* Without a connection no command is sent; with it every channel is subscribed. */
START_TEST(joins_while_down)
{
	join(0, "a b");
	join(1, "b");
	join(2, "c");
	leave(2);
	expect_commands("");
	expect_marks("...");
	ck_assert_uint_eq(channel_count(), 2);
	ck_assert(!answer("a"));
	up();
	expect_commands("+a,b ");
	expect_marks("...");
	ck_assert(answer("a"));
	ck_assert(answer("b"));
	expect_marks("CC.");
}
END_TEST

/*
 * After a loss every channel is subscribed again, and a stream is marked once all of its own are
 * confirmed.
 */
START_TEST(down_and_up)
{
	join(0, "a");
	join(1, "a b");
	join(2, "c");
	answer("a");
	answer("b");
	expect_marks("CC.");
	expect_commands("+a +b +c ");
	/* Stream 2 still waits for its first reply. */
	for (int i = 0; i < 3; i++) {
		channel_table_down(channels);
		expect_marks("...");
		ck_assert(!answer("c"));
		up();
		expect_commands("+a,b,c ");
		ck_assert(answer("a"));
		expect_marks("C..");
	}
	ck_assert(answer("b"));
	expect_marks(".C.");
	ck_assert(answer("c"));
	expect_marks("..C");
	channel_table_down(channels);
	up();
	expect_commands("+a,b,c ");
	answer("a");
	answer("b");
	answer("c");
	expect_marks("CCC");
}
END_TEST

/*
 * A loss during a change: only the channels wanted then are subscribed, and only new replies count.
 */
START_TEST(down_in_the_middle)
{
	join(0, "a");
	answer("a");
	join(1, "b");
	leave(0);
	join(2, "a");
	leave(1);
	expect_commands("+a +b -a +a -b ");
	expect_marks("C..");
	channel_table_down(channels);
	ck_assert_uint_eq(channel_count(), 1);
	leave(2);
	join(3, "d");
	expect_commands("");
	ck_assert_uint_eq(channel_count(), 1);
	up();
	expect_commands("+d ");
	ck_assert(answer("d"));
	expect_marks("...C");
}
END_TEST

/* A refused channel is subscribed again after a loss. */
START_TEST(refused_then_down)
{
	join(0, "a");
	refuse();
	expect_marks("R");
	channel_table_down(channels);
	expect_marks(".");
	up();
	expect_commands("+a +a ");
	answer("a");
	expect_marks("C");
	/* A channel that is refused only then refuses a stream that was confirmed before. */
	channel_table_down(channels);
	up();
	ck_assert(refuse());
	expect_marks("R");
}
END_TEST

/* If Valkey is unreachable, streams that were never confirmed are refused; the others wait. */
START_TEST(unreachable)
{
	join(0, "a");
	join(1, "b");
	join(2, "a b");
	answer("a");
	expect_marks("C..");
	channel_table_down(channels);
	expect_marks("...");
	channel_table_unreachable(channels);
	expect_marks(".RR");
	join(3, "a");
	channel_table_unreachable(channels);
	expect_marks(".RRR");
	up();
	answer("a");
	answer("b");
	expect_marks("CCCC");
	channel_table_down(channels);
	channel_table_unreachable(channels);
	expect_marks("....");
}
END_TEST

/* If a command cannot be sent, the caller is told, and closes the connection. */
START_TEST(command_fails)
{
	commands_fail = 1;
	join(0, "a b");
	ck_assert(!channel_table_send(channels, clock_ms(), SIZE_MAX));
	channel_table_down(channels);
	expect_marks(".");
	expect_commands("");
	up();
	expect_commands("+a,b ");
	ck_assert(answer("a"));
	ck_assert(answer("b"));
	expect_marks("C");
}
END_TEST

/* A channel without members lingers: it stays subscribed, and joining it begins at once. */
START_TEST(lingering)
{
	linger = true;
	join(0, "a b");
	answer("a");
	answer("b");
	expect_commands("+a,b ");
	leave(0);
	for (int i = 0; i < 3; i++) {
		pass(CHANNEL_LINGER_MS / 2);
		join(1, "a");
		expect_marks(i == 0 ? "CC" : ".C");
		leave(1);
	}
	/* b was not joined again; a is as old as its last leave. */
	expect_commands("-b ");
	ck_assert(answer("b"));
	ck_assert_ptr_null(channel_table_find(channels, "b", 1));
	pass(CHANNEL_LINGER_MS / 2);
	expect_commands("");
	pass(CHANNEL_LINGER_MS);
	expect_commands("-a ");
	ck_assert(answer("a"));
	ck_assert_uint_eq(channel_count(), 0);
}
END_TEST

/* A lingering channel that is not confirmed makes no stream begin, nor does one after a loss. */
START_TEST(lingering_is_not_confirmed)
{
	linger = true;
	join(0, "a");
	leave(0);
	join(1, "a");
	expect_commands("+a ");
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks(".C");
	leave(1);
	channel_table_down(channels);
	ck_assert_uint_eq(channel_count(), 0);
	up();
	expect_commands("");
	join(2, "a");
	expect_commands("+a ");
	expect_marks("...");
	/* Its UNSUBSCRIBE is in flight. */
	ck_assert(answer("a"));
	leave(2);
	pass(CHANNEL_LINGER_MS);
	expect_commands("-a ");
	join(3, "a");
	expect_marks("..C.");
	ck_assert(answer("a"));
	expect_marks("....");
	ck_assert(answer("a"));
	expect_marks("...C");
}
END_TEST

/* Joins n channels from the first on. */
static void
join_many(int stream, int first, int n)
{
	char *names = calloc((size_t)n, 8), *at = names;

	for (int i = 0; i < n; i++)
		at += sprintf(at, "%s%d", i > 0 ? " " : "", first + i);
	join(stream, names);
	free(names);
}

/* Confirms whatever is in flight. Returns the number of channels. */
static int
answer_all(void)
{
	int count = 0;

	for (; awaited() != NULL; count++) {
		ck_assert(answer(awaited()));
		if (channel_table_unanswered(channels) == 0) {
			commands[0] = '\0';
			send_all();
		}
	}
	return count;
}

/* Joins and leaves channels before they are subscribed: they need no command and no memory. */
START_TEST(left_before_sent)
{
	join(0, "a");
	join_many(1, 0, CHANNEL_IN_FLIGHT_MAX);
	commands[0] = '\0';
	join(2, "b c");
	expect_commands("");
	leave(2);
	ck_assert_ptr_null(channel_table_find(channels, "b", 1));
	linger = true;
	leave(1);
	answer_all();
	ck_assert_str_eq(commands, "");
	ck_assert_uint_eq(channel_table_total(channels), CHANNEL_IN_FLIGHT_MAX);
}
END_TEST

/* Only so many channels linger: the oldest are unsubscribed, in commands of many, in their turn. */
START_TEST(lingering_is_bounded)
{
	const int more = 3 * CHANNEL_BATCH_MAX;

	linger = true;
	join_many(0, 0, CHANNEL_LINGER_MAX + more);
	answer_all();
	expect_marks("C");
	ck_assert_uint_eq(channel_table_total(channels), (uint32_t)(CHANNEL_LINGER_MAX + more));
	leave(0);
	ck_assert_uint_eq(channel_table_unanswered(channels), (size_t)more);
	ck_assert_str_eq(awaited(), "0");
	ck_assert_int_eq(strncmp(commands, "-0,1,2,3,", 9), 0);
	/* A refused command is repeated only after a pause, although too many linger. */
	ck_assert_uint_eq(channel_table_answer(channels, NULL, 0, true), CHANNEL_BATCH_MAX);
	ck_assert_int_eq(answer_all(), more - CHANNEL_BATCH_MAX);
	ck_assert_uint_eq(channel_table_total(channels), CHANNEL_LINGER_MAX + CHANNEL_BATCH_MAX);
	pass(CHANNEL_LINGER_MS);
	ck_assert_int_eq(answer_all(), CHANNEL_LINGER_MAX + CHANNEL_BATCH_MAX);
	ck_assert_uint_eq(channel_table_total(channels), 0);
}
END_TEST

/* The channels in flight, and what is sent at once, are bounded; the rest follows the replies. */
START_TEST(in_flight_is_bounded)
{
	const int count = 2 * CHANNEL_IN_FLIGHT_MAX;

	join_many(0, 0, count);
	ck_assert_uint_eq(channel_table_unanswered(channels), CHANNEL_IN_FLIGHT_MAX);
	ck_assert(!channel_table_ready(channels, clock_ms()));
	ck_assert(answer("0"));
	ck_assert(channel_table_ready(channels, clock_ms()));
	ck_assert_int_eq(answer_all(), count - 1);
	expect_marks("C");
	linger = true;
	leave(0);
	later += CHANNEL_LINGER_MS;
	commands[0] = '\0';
	ck_assert(channel_table_send(channels, clock_ms() + later, 1));
	ck_assert_uint_eq(channel_table_unanswered(channels), CHANNEL_BATCH_MAX);
	ck_assert(channel_table_ready(channels, clock_ms() + later));
	ck_assert_int_eq(answer_all(), count);
}
END_TEST

/* A refused command of several channels is repeated with each alone: only one of them is refused. */
START_TEST(batch_refused)
{
	bool alone = true;

	join(0, "a b c");
	join(1, "b");
	join(2, "c");
	expect_commands("+a,b,c ");
	ck_assert_str_eq(channel_table_awaited(channels, &alone), "a");
	ck_assert(!alone);
	ck_assert_uint_eq(channel_table_answer(channels, NULL, 0, true), 3);
	expect_marks("...");
	expect_commands("+a +b +c ");
	ck_assert(answer("a"));
	channel_table_awaited(channels, &alone);
	ck_assert(alone);
	ck_assert(refuse());
	expect_marks("RR.");
	ck_assert(answer("c"));
	expect_marks("..C");
	/* Those that were not refused are sent together again. */
	linger = true;
	leave(0);
	leave(2);
	pass(CHANNEL_LINGER_MS);
	expect_commands("-a,c ");
	answer("a");
	answer("c");
}
END_TEST

/* An error in the middle is about the rest of the command, and not about the next one. */
START_TEST(batch_partly_refused)
{
	join(0, "a b c");
	join(1, "d e");
	expect_commands("+a,b,c +d,e ");
	ck_assert(answer("a"));
	ck_assert_uint_eq(channel_table_answer(channels, NULL, 0, true), 2);
	ck_assert(answer("d"));
	ck_assert(answer("e"));
	expect_marks(".C");
	expect_commands("+b +c ");
	ck_assert(answer("b"));
	ck_assert(answer("c"));
	expect_marks("C.");
}
END_TEST

/* A refused UNSUBSCRIBE leaves the channel subscribed; it is repeated later, not at once. */
START_TEST(unsubscribe_refused)
{
	linger = true;
	join(0, "a b");
	answer("a");
	answer("b");
	expect_commands("+a,b ");
	expect_marks("C");
	leave(0);
	pass(CHANNEL_LINGER_MS);
	expect_commands("-a,b ");
	join(1, "a");
	expect_commands("+a ");
	ck_assert_uint_eq(channel_table_answer(channels, NULL, 0, true), 2);
	expect_marks("..");
	ck_assert(answer("a"));
	expect_marks(".C");
	ck_assert_uint_eq(channel_count(), 2);
	expect_commands("");
	/* Joined before the reply, while nothing could be sent. */
	pass(CHANNEL_LINGER_MS);
	expect_commands("-b ");
	join_many(2, 0, CHANNEL_IN_FLIGHT_MAX);
	commands[0] = '\0';
	join(3, "b");
	expect_commands("");
	ck_assert(refuse());
	expect_marks("...C");
	answer_all();
	ck_assert_str_eq(commands, "");
	leave(3);
	pass(2 * CHANNEL_LINGER_MS);
	expect_commands("-b ");
	ck_assert(answer("b"));
}
END_TEST

/* Many commands in flight, added and answered in turn, keep their order. */
START_TEST(many_in_flight)
{
	char name[16];
	int asked = 0, answered = 0;

	for (int round = 0; round < 300; round++) {
		/* Three commands are added for every two replies; then all are answered. */
		for (int i = 0; i < 3; i++, asked++) {
			snprintf(name, sizeof(name), "c%d", asked / 2);
			if (asked % 2 == 0)
				join(0, name);
			else
				leave(0);
			commands[0] = '\0';
		}
		for (int i = 0; i < 2; i++, answered++) {
			snprintf(name, sizeof(name), "c%d", answered / 2);
			ck_assert(answer(name));
		}
	}
	for (; answered < asked; answered++) {
		snprintf(name, sizeof(name), "c%d", answered / 2);
		ck_assert(answer(name));
	}
	ck_assert(!answer(name));
	for (int i = 0; i < asked / 2; i++) {
		snprintf(name, sizeof(name), "c%d", i);
		ck_assert_ptr_null(channel_table_find(channels, name, strlen(name)));
	}
}
END_TEST

/* A kept channel is subscribed once per connection. */
START_TEST(kept)
{
	struct channel *k = channel_table_keep(channels, "k", 1);
	size_t count;

	ck_assert_ptr_nonnull(k);
	expect_commands("");
	join(0, "a");
	expect_commands("");
	up();
	expect_commands("+k +a ");
	ck_assert_str_eq(awaited(), "k");
	ck_assert_uint_eq(channel_table_unanswered(channels), 2);
	ck_assert(answer("k"));
	expect_marks(".");
	ck_assert(answer("a"));
	expect_marks("C");
	ck_assert_ptr_eq(channel_table_find(channels, "k", 1), k);
	channel_members(k, &count);
	ck_assert_uint_eq(count, 0);
	ck_assert_uint_eq(channel_table_total(channels), 1);
	channel_table_unreachable(channels);
	channel_table_down(channels);
	ck_assert_ptr_eq(channel_table_find(channels, "k", 1), k);
	up();
	expect_commands("+k +a ");
	/* Lost before the reply. */
	channel_table_down(channels);
	up();
	expect_commands("+k +a ");
	ck_assert(answer("k"));
	ck_assert(answer("a"));
	expect_marks("C");
}
END_TEST

/* If it is refused, no stream is affected, and it is subscribed again after the next connect. */
START_TEST(kept_refused)
{
	struct channel *k = channel_table_keep(channels, "k", 1);

	join(0, "a");
	up();
	expect_commands("+k +a ");
	ck_assert(refuse());
	ck_assert(answer("a"));
	expect_marks("C");
	join(1, "a");
	leave(1);
	leave(0);
	join(2, "a");
	expect_commands("-a +a ");
	ck_assert(answer("a"));
	ck_assert(answer("a"));
	ck_assert_ptr_eq(channel_table_find(channels, "k", 1), k);
	channel_table_down(channels);
	up();
	expect_commands("+k +a ");
	ck_assert(answer("k"));
}
END_TEST

/* A kept channel may have members and outlives them, also if there is a connection already. */
START_TEST(kept_with_members)
{
	struct channel *k;
	size_t count;

	up();
	k = channel_table_keep(channels, "k", 1);
	expect_commands("+k ");
	join(0, "k");
	expect_commands("");
	ck_assert(answer("k"));
	expect_marks("C");
	channel_members(k, &count);
	ck_assert_uint_eq(count, 1);
	leave(0);
	expect_commands("");
	ck_assert_ptr_eq(channel_table_find(channels, "k", 1), k);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("channels");
	TCase *up = tcase_create("up"), *down = tcase_create("down");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(up, 60);
	tcase_add_checked_fixture(up, setup_up, teardown);
	tcase_add_test(up, first_join);
	tcase_add_test(up, second_join);
	tcase_add_test(up, join_while_in_flight);
	tcase_add_test(up, last_leave);
	tcase_add_test(up, members);
	tcase_add_test(up, find);
	tcase_add_test(up, rejoin_before_answers);
	tcase_add_test(up, rejoin_after_confirmation);
	tcase_add_test(up, leave_before_answers);
	tcase_add_test(up, several_channels);
	tcase_add_test(up, leave_of_one_of_several);
	tcase_add_test(up, leave_some_of_several);
	tcase_add_test(up, leave_some_others);
	tcase_add_test(up, leave_some_unconfirmed);
	tcase_add_test(up, leave_some_refused);
	tcase_add_test(up, refused);
	tcase_add_test(up, refused_then_allowed);
	tcase_add_test(up, refused_before_rejoin);
	tcase_add_test(up, wrong_answers);
	tcase_add_test(up, what_is_awaited);
	tcase_add_test(up, down_and_up);
	tcase_add_test(up, down_in_the_middle);
	tcase_add_test(up, refused_then_down);
	tcase_add_test(up, unreachable);
	tcase_add_test(up, command_fails);
	tcase_add_test(up, lingering);
	tcase_add_test(up, lingering_is_not_confirmed);
	tcase_add_test(up, left_before_sent);
	tcase_add_test(up, lingering_is_bounded);
	tcase_add_test(up, in_flight_is_bounded);
	tcase_add_test(up, batch_refused);
	tcase_add_test(up, batch_partly_refused);
	tcase_add_test(up, unsubscribe_refused);
	tcase_add_test(up, many_in_flight);
	suite_add_tcase(s, up);
	tcase_set_timeout(down, 60);
	tcase_add_checked_fixture(down, setup, teardown);
	tcase_add_test(down, joins_while_down);
	tcase_add_test(down, kept);
	tcase_add_test(down, kept_refused);
	tcase_add_test(down, kept_with_members);
	suite_add_tcase(s, down);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
