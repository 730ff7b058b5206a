/* SPDX-License-Identifier: ISC */
/*
 * check_channel_table: which commands are sent to Valkey, and what the replies mean for the
 * streams.
 *
 * Commands are recorded as "+name" and "-name". The streams have no socket: only their marks
 * matter.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pubsub/channel_table.h"

#define STREAMS_MAX 8

static struct channel_table *channels;
static struct stream *streams[STREAMS_MAX];
static struct subscription *subscriptions[STREAMS_MAX];

static char commands[4096]; /* since the last check; a space after each */
static int commands_fail;   /* number of commands that fail from now on */

static bool
command(void *arg, bool subscribe, const char *name, size_t length)
{
	size_t used = strlen(commands);

	ck_assert_ptr_eq(arg, commands);
	ck_assert_uint_eq(strlen(name), length);
	if (commands_fail > 0) {
		commands_fail--;
		return false;
	}
	ck_assert_uint_lt(used + length + 3, sizeof(commands));
	snprintf(commands + used, sizeof(commands) - used, "%c%s ", subscribe ? '+' : '-', name);
	return true;
}

static void
expect_commands(const char *expected)
{
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
}

static void
leave(int i)
{
	channel_table_leave(channels, subscriptions[i]);
	subscriptions[i] = NULL;
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
	return channel_table_answer(channels, name, strlen(name), false);
}

static bool
refuse(void)
{
	return channel_table_answer(channels, NULL, 0, true);
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

/* Reports a connection. */
static void
setup_up(void)
{
	setup();
	ck_assert(channel_table_up(channels));
}

/*
 * All streams leave and the connection is lost: then no channel is left. The sanitizer finds other
 * leaks.
 */
static void
teardown(void)
{
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
				if (m[i].member->subscription == subscriptions[k] &&
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
	expect_commands("+a +b +c ");
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
	expect_commands("+a +b +c -a ");
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
	expect_commands("+a +b +c +d ");
	leave_some(0, "b d");
	expect_commands("-d ");
	m = channel_members(channel_table_find(channels, "b", 1), &count);
	ck_assert_uint_eq(count, 1);
	ck_assert_ptr_eq(m[0].member->subscription, subscriptions[1]);
	channel_members(channel_table_find(channels, "c", 1), &count);
	ck_assert_uint_eq(count, 2);
	m = channel_members(channel_table_find(channels, "a", 1), &count);
	ck_assert_uint_eq(count, 1);
	ck_assert_ptr_eq(m[0].member->subscription, subscriptions[0]);
	/* Nothing has changed for the other members. */
	expect_marks("..");
	ck_assert(answer("d"));
	expect_marks("..");
	ck_assert_ptr_null(channel_table_find(channels, "d", 1));
	leave_some(0, "a c");
	expect_commands("-a ");
	leave(0);
	leave(1);
	expect_commands("-b -c ");
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
	expect_commands("+a +b +c ");
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
	expect_commands("+a +b +c ");
	ck_assert(answer("b"));
	expect_marks("..");
	ck_assert(answer("c"));
	expect_marks(".C");
	/* After a loss, the channels that were left do not count. */
	channel_table_down(channels);
	leave_some(1, "c");
	expect_marks("..");
	commands[0] = '\0';
	channel_table_up(channels);
	expect_commands("+a +b ");
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
	expect_marks("R");
	leave_some(0, "b");
	expect_marks("C");
	expect_commands("+a +b ");
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
START_TEST(awaited)
{
	ck_assert_ptr_null(channel_table_awaited(channels));
	ck_assert_uint_eq(channel_table_unanswered(channels), 0);
	join(0, "ab b");
	leave(0);
	ck_assert_uint_eq(channel_table_unanswered(channels), 4);
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(channel_table_awaited(channels), "ab");
		answer("ab");
		ck_assert_str_eq(channel_table_awaited(channels), "b");
		if (i == 0)
			refuse();
		else
			answer("b");
		ck_assert_uint_eq(channel_table_unanswered(channels), i == 0 ? 2 : 0);
	}
	ck_assert_ptr_null(channel_table_awaited(channels));
	join(1, "a");
	channel_table_down(channels);
	ck_assert_ptr_null(channel_table_awaited(channels));
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
	channel_table_up(channels);
	expect_commands("+a +b ");
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
		channel_table_up(channels);
		expect_commands("+a +b +c ");
		ck_assert(answer("a"));
		expect_marks("C..");
	}
	ck_assert(answer("b"));
	expect_marks(".C.");
	ck_assert(answer("c"));
	expect_marks("..C");
	channel_table_down(channels);
	channel_table_up(channels);
	expect_commands("+a +b +c ");
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
	channel_table_up(channels);
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
	channel_table_up(channels);
	expect_commands("+a +a ");
	answer("a");
	expect_marks("C");
	/* A channel that is refused only then refuses a stream that was confirmed before. */
	channel_table_down(channels);
	channel_table_up(channels);
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
	channel_table_up(channels);
	answer("a");
	answer("b");
	expect_marks("CCCC");
	channel_table_down(channels);
	channel_table_unreachable(channels);
	expect_marks("....");
}
END_TEST

/* A command that cannot be sent refuses the joining stream, and is tried again for the next one. */
START_TEST(command_fails)
{
	commands_fail = 1;
	join(0, "a b");
	expect_marks("R");
	expect_commands("");
	ck_assert(!refuse());
	leave(0);
	ck_assert_uint_eq(channel_count(), 0);
	join(1, "a b");
	expect_commands("+a +b ");
	answer("a");
	answer("b");
	expect_marks(".C");
	/* The second of three fails. */
	join(2, "c");
	answer("c");
	commands_fail = 1;
	join(3, "c d e");
	expect_commands("+c ");
	expect_marks("..CR");
	leave(3);
	ck_assert_ptr_null(channel_table_find(channels, "d", 1));
	ck_assert_ptr_null(channel_table_find(channels, "e", 1));
	leave(2);
	expect_commands("-c ");
	answer("c");
}
END_TEST

/* If a command cannot be sent after connecting, the caller is told, and closes the connection. */
START_TEST(up_fails)
{
	join(0, "a b");
	channel_table_down(channels);
	expect_commands("+a +b ");
	commands_fail = 1;
	ck_assert(!channel_table_up(channels));
	channel_table_down(channels);
	commands[0] = '\0';
	ck_assert(channel_table_up(channels));
	expect_commands("+a +b ");
	ck_assert(answer("a"));
	ck_assert(answer("b"));
	expect_marks("C");
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
	ck_assert(channel_table_up(channels));
	expect_commands("+k +a ");
	ck_assert_str_eq(channel_table_awaited(channels), "k");
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
	ck_assert(channel_table_up(channels));
	expect_commands("+k +a ");
	/* Lost before the reply. */
	channel_table_down(channels);
	ck_assert(channel_table_up(channels));
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
	ck_assert(channel_table_up(channels));
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
	ck_assert(channel_table_up(channels));
	expect_commands("+k +a ");
	ck_assert(answer("k"));
}
END_TEST

/* A kept channel may have members and outlives them, also if there is a connection already. */
START_TEST(kept_with_members)
{
	struct channel *k;
	size_t count;

	ck_assert(channel_table_up(channels));
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
	tcase_add_test(up, awaited);
	tcase_add_test(up, down_and_up);
	tcase_add_test(up, down_in_the_middle);
	tcase_add_test(up, refused_then_down);
	tcase_add_test(up, unreachable);
	tcase_add_test(up, command_fails);
	tcase_add_test(up, up_fails);
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
