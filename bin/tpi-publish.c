/*
 * tpi-publish: publishes wake-ups from the command line. See tpi-publish(1).
 *
 * Two threads: the main one does everything; the watch only sleeps, and ends the program when
 * Valkey has been silent for too long, in whatever call the main thread may hang (name resolution
 * has no time limit of its own). What both use is atomic or does not change once the watch runs.
 * Whoever calls claim_end() first decides how the program ends, and the other one never returns
 * from it.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sysexits.h>
#include <unistd.h>

#include "batch.h"
#include "channel.h"
#include "clock.h"
#include "log.h"
#include "settings.h"
#include "valkey.h"

#define TIMEOUT_MAX 3600000
#define TAG_MAX 64
#define LINE_MAX_BYTES 65536 /* of a batch, without its line break */
#define IN_FLIGHT_MAX 1000   /* commands of a batch that Valkey has not answered */
#define PROGRESS_MS 100
#define UUID_SIZE 37
#define NEVER INT64_MAX

enum command { COMMAND_NOTIFICATION, COMMAND_ISSUE, COMMAND_BATCH, COMMAND_COUNT };

static const char *const command_names[COMMAND_COUNT] = { "notification", "issue", "batch" };

enum {
	FOR_NOTIFICATION = 1 << COMMAND_NOTIFICATION,
	FOR_ISSUE = 1 << COMMAND_ISSUE,
	FOR_BATCH = 1 << COMMAND_BATCH,
	FOR_ALL = FOR_NOTIFICATION | FOR_ISSUE | FOR_BATCH
};

/* What the command line says. Does not change once the watch runs. */
static struct options {
	enum command command; /* COMMAND_COUNT until it is known */
	struct batch_wish wish;
	const char *file; /* of a batch; NULL for standard input */
	const char *url;
	const char *tag;
	int32_t timeout_ms;
	bool best_effort, dry_run, verbose, quiet, help, version;
} options = {
	.command = COMMAND_COUNT, .wish.dashes = "--", .tag = "tpi-publish", .timeout_ms = 2000,
};

static const struct choice {
	const char *name;
	enum { CHOICE_TEXT, CHOICE_FLAG, CHOICE_NUMBER } type;
	unsigned commands; /* that take it */
	size_t offset;     /* in struct options */
	int32_t maximum;   /* of a CHOICE_NUMBER; the minimum is 1 */
} choices[] = {
#define ROW(name, type, commands, field)                                                          \
	{ name, type, commands, offsetof(struct options, field), INT32_MAX }
	ROW("user", CHOICE_TEXT, FOR_NOTIFICATION, wish.user),
	ROW("broadcast", CHOICE_FLAG, FOR_NOTIFICATION, wish.broadcast),
	ROW("id", CHOICE_TEXT, FOR_NOTIFICATION, wish.id),
	ROW("event", CHOICE_TEXT, FOR_NOTIFICATION | FOR_ISSUE, wish.event),
	ROW("project", CHOICE_NUMBER, FOR_ISSUE, wish.project),
	ROW("issue", CHOICE_NUMBER, FOR_ISSUE, wish.issue),
	ROW("tenant", CHOICE_TEXT, FOR_ALL, wish.tenant),
	ROW("url", CHOICE_TEXT, FOR_ALL, url),
	ROW("tag", CHOICE_TEXT, FOR_ALL, tag),
	ROW("best-effort", CHOICE_FLAG, FOR_ALL, best_effort),
	ROW("dry-run", CHOICE_FLAG, FOR_ALL, dry_run),
	ROW("verbose", CHOICE_FLAG, FOR_ALL, verbose),
	ROW("quiet", CHOICE_FLAG, FOR_ALL, quiet),
	ROW("help", CHOICE_FLAG, FOR_ALL, help),
	ROW("version", CHOICE_FLAG, FOR_ALL, version),
#undef ROW
	{ "timeout", CHOICE_NUMBER, FOR_ALL, offsetof(struct options, timeout_ms), TIMEOUT_MAX },
};
#define CHOICE_COUNT (sizeof(choices) / sizeof(choices[0]))
#define CHOICE_FIRST 256 /* getopt's value of the first row: beyond any character */

static const char help[] =
    "Usage: tpi-publish notification (--user ID | --broadcast) [--id ID]\n"
    "                                [--event NAME]\n"
    "       tpi-publish issue --project ID --issue ID [--event NAME]\n"
    "       tpi-publish batch [FILE]\n"
    "Tells browsers that something has changed. A batch is lines of JSON:\n"
    "  {\"stream\":\"notification\",\"user\":\"u1\",\"id\":\"n1\"} (or \"broadcast\":true)\n"
    "  {\"stream\":\"issue\",\"project\":7,\"issue\":42}     (each: \"tenant\", \"event\")\n"
    "  --id ID        of the notification (default: a random UUID)\n"
    "  --event NAME   (notification, for all SYSTEM_ANNOUNCEMENT; issue-updated)\n"
    "  --tenant ID    (INSTANCE_TENANT_ID, then default)\n"
    "  --url URL      valkey://, redis:// or unix:// (VALKEY_URL)\n"
    "  --timeout MS   for the whole command; for batch the longest silence (2000)\n"
    "  --best-effort  a publish that fails is a warning, and exits 0 in place of 69\n"
    "  --tag NAME     of that warning (tpi-publish)\n"
    "  --dry-run      print channel and payload, publish nothing\n"
    "  --verbose      print how many subscribers Valkey counted\n"
    "  --quiet        no warnings, no progress, no summary\n"
    "  --help, --version\n"
    "Exit status: 0 published, 64 usage, 65 some batch lines were bad, 66 no FILE,\n"
    "69 Valkey is away, refused or is a replica, 78 bad configuration.\n";

/* The default tenant and channel prefix, and the server. Do not change once the watch runs. */
static struct settings settings;
static struct valkey server;

/* Of a single publish, for the watch's warning. Does not change once the watch runs. */
static struct batch_item single;

/* When the watch ends the program, by clock_ms(). */
static _Atomic int64_t deadline = NEVER;

/* Counts of a batch; in_flight commands are sent and not answered. */
static _Atomic uint64_t published, bad, refused;
static _Atomic size_t in_flight;

static _Atomic bool progress_shown; /* the cursor stands behind a progress line */

static void
clear_progress(void)
{
	if (atomic_exchange(&progress_shown, false))
		dprintf(STDERR_FILENO, "\r\033[K");
}

/* One line of printable ASCII on standard error, which is waited for no longer than Valkey. */
static void __attribute__((format(printf, 1, 2)))
complain(const char *format, ...)
{
	struct pollfd writable = { .fd = STDERR_FILENO, .events = POLLOUT };
	char text[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	for (char *p = text; *p != '\0'; p++) {
		if (*p < ' ' || *p > '~')
			*p = '?';
	}
	clear_progress();
	if (poll(&writable, 1, options.timeout_ms) > 0)
		dprintf(STDERR_FILENO, "tpi-publish: %s\n", text);
}

static _Noreturn void __attribute__((format(printf, 1, 2)))
usage_error(const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	complain("%s (see tpi-publish --help)", text);
	exit(EX_USAGE);
}

/* Ends the program where standard output, when it is what was asked for, could not be written. */
static void
check_stdout(void)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return;
	complain("standard output: %s", strerror(errno));
	_exit(EX_IOERR);
}

/* The end */

static void
claim_end(void)
{
	static atomic_flag claimed = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&claimed))
		return;
	for (;;)
		pause();
}

static void
print_summary(void)
{
	char more[100] = "";
	int used = 0;

	if (options.command != COMMAND_BATCH || options.quiet)
		return;
	if (refused > 0)
		used = snprintf(more, sizeof(more), ", refused %ju", (uintmax_t)refused);
	if (in_flight > 0)
		snprintf(more + used, sizeof(more) - (size_t)used, ", not known %zu",
		    (size_t)in_flight);
	complain("published %ju, bad %ju%s", (uintmax_t)published, (uintmax_t)bad, more);
}

static int
exit_status(bool failed)
{
	if (failed && !options.best_effort)
		return EX_UNAVAILABLE;
	return bad > 0 ? EX_DATAERR : EX_OK;
}

/* A publish that failed: a warning with --best-effort, else an error. item may be all zero. */
static void
report_failure(const struct batch_item *item, const char *error)
{
	const bool known = item->channel[0] != '\0';

	clear_progress();
	if (!options.best_effort)
		complain("%s", error);
	else if (!options.quiet)
		LOG(LOG_LEVEL_WARN, options.tag, "SSE publish failed",
		    LOG_STR("tenantId", known ? item->tenant : options.wish.tenant),
		    LOG_STR("channel", known ? item->channel : NULL), LOG_STR("error", error));
}

/* Valkey is lost for this run. From either thread. */
static _Noreturn void __attribute__((format(printf, 1, 2)))
fail(const char *format, ...)
{
	char text[VALKEY_ERROR_SIZE];
	va_list ap;

	claim_end();
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	report_failure(&single, text);
	print_summary();
	_exit(exit_status(true));
}

/* The watch */

static void
watch_from(int64_t start)
{
	deadline = start + options.timeout_ms;
}

static void
watch_rest(void)
{
	deadline = NEVER;
}

/* Never sleeps longer than the time limit, so that no later deadline can be missed. */
static void *
watch(void *unused)
{
	(void)unused;
	for (;;) {
		int64_t left = deadline - clock_ms();

		if (left <= 0)
			fail("%s: no answer within %d ms", server.label, options.timeout_ms);
		poll(NULL, 0, left < options.timeout_ms ? (int)left : options.timeout_ms);
	}
	return NULL;
}

static void
watch_start(int64_t start)
{
	pthread_t thread;
	int error;

	watch_from(start);
	error = pthread_create(&thread, NULL, watch, NULL);
	if (error != 0) {
		complain("cannot start a thread: %s", strerror(error));
		exit(EX_OSERR);
	}
}

/* Publishing */

static redisContext *
connect_server(void)
{
	char error[VALKEY_ERROR_SIZE];
	redisContext *c = valkey_connect(&server, options.timeout_ms, NULL, error, sizeof(error));

	if (c == NULL)
		fail("%s", error);
	return c;
}

static void
append_publish(redisContext *c, const struct batch_item *item)
{
	const char *words[] = { "PUBLISH", item->channel, item->payload };

	if (redisAppendCommandArgv(c, 3, words, NULL) != REDIS_OK)
		fail("%s: %s", server.label, c->errstr);
}

static void
print_dry(const struct batch_item *item)
{
	printf("%s %s\n", item->channel, item->payload);
	check_stdout();
}

/* Whoever reads standard output may take his time: that is not Valkey's silence. */
static void
print_subscribers(const struct batch_item *item, const redisReply *reply)
{
	int64_t until = deadline;

	if (!options.verbose)
		return;
	watch_rest();
	printf("%s: %lld subscribers\n", item->channel, reply->integer);
	deadline = until;
}

/* What is wrong with the answer to PUBLISH; NULL for nothing. */
static const char *
reply_error(const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_INTEGER)
		return NULL;
	return reply->type == REDIS_REPLY_ERROR ? reply->str : "not the expected answer";
}

static void
publish_single(void)
{
	redisContext *c = connect_server();
	void *answer = NULL;
	redisReply *reply;

	append_publish(c, &single);
	if (redisGetReply(c, &answer) != REDIS_OK)
		fail("%s: %s", server.label, c->errstr);
	reply = answer;
	if (reply_error(reply) != NULL)
		fail("%s: PUBLISH: %s", server.label, reply_error(reply));
	claim_end();
	print_subscribers(&single, reply);
	freeReplyObject(reply);
	redisFree(c);
}

/* Batch: the lines */

struct input {
	int fd;
	const char *name;
	size_t start, end; /* what is read and not yet taken */
	uint64_t number;   /* of the line taken last, from 1 */
	bool ended;
	bool skipping;     /* the rest of a line that is too long */
	char bytes[LINE_MAX_BYTES + 1];
};

enum taken { TAKEN_LINE, TAKEN_LONG, TAKEN_MORE, TAKEN_END };

/* Makes room for more; TAKEN_END where no more will come. */
static enum taken
need_more(struct input *in)
{
	if (in->ended)
		return TAKEN_END;
	memmove(in->bytes, in->bytes + in->start, in->end - in->start);
	in->end -= in->start;
	in->start = 0;
	return TAKEN_MORE;
}

/* The next line, valid until the next call. The last one may lack its line break. */
static enum taken
take_line(struct input *in, const char **line, size_t *length)
{
	for (;;) {
		char *start = in->bytes + in->start;
		size_t left = in->end - in->start;
		char *end = memchr(start, '\n', left);
		bool whole = end != NULL || (in->ended && left > 0), skip = in->skipping;

		if (!whole && (skip || left == sizeof(in->bytes))) {
			in->start = in->end = 0;
			in->skipping = true;
			if (skip)
				return need_more(in);
			in->number++;
			return TAKEN_LONG;
		}
		if (!whole)
			return need_more(in);
		*line = start;
		*length = end != NULL ? (size_t)(end - start) : left;
		in->start += *length + (end != NULL);
		in->skipping = false;
		if (!skip) {
			in->number++;
			return TAKEN_LINE;
		}
	}
}

static void
read_input(struct input *in)
{
	ssize_t n = read(in->fd, in->bytes + in->end, sizeof(in->bytes) - in->end);

	if (n > 0)
		in->end += (size_t)n;
	else if (n == 0)
		in->ended = true;
	else if (errno != EINTR && errno != EAGAIN) {
		claim_end();
		complain("%s: %s", in->name, strerror(errno));
		print_summary();
		exit(EX_NOINPUT);
	}
}

static void
open_input(struct input *in)
{
	bool is_stdin = options.file == NULL || strcmp(options.file, "-") == 0;

	in->name = is_stdin ? "standard input" : options.file;
	in->fd = is_stdin ? STDIN_FILENO : open(options.file, O_RDONLY | O_CLOEXEC);
	if (in->fd < 0) {
		complain("%s: %s", in->name, strerror(errno));
		exit(EX_NOINPUT);
	}
}

/* Batch: the commands in flight, a ring in the order of their answers; the main thread's alone */

static struct {
	uint64_t number; /* of the line */
	struct batch_item item;
} flights[IN_FLIGHT_MAX];
static size_t flights_first;

static void
bad_line(uint64_t number, const char *error)
{
	bad++;
	complain("line %ju: %s", (uintmax_t)number, error);
}

static void
random_uuid(char uuid[UUID_SIZE])
{
	static const char hex[] = "0123456789abcdef";
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b)) {
		complain("no random numbers: %s", strerror(errno));
		exit(EX_OSERR);
	}
	b[6] = (b[6] & 0x0f) | 0x40; /* version 4 */
	b[8] = (b[8] & 0x3f) | 0x80; /* variant of RFC 9562 */
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*uuid++ = '-';
		*uuid++ = hex[b[i] >> 4];
		*uuid++ = hex[b[i] & 15];
	}
	*uuid = '\0';
}

static bool
is_blank(const char *line, size_t length)
{
	while (length > 0 && (*line == ' ' || *line == '\t' || *line == '\r'))
		line++, length--;
	return length == 0;
}

/* c is NULL in a dry run. */
static void
handle_line(redisContext *c, const char *line, size_t length, uint64_t number)
{
	size_t slot = (flights_first + in_flight) % IN_FLIGHT_MAX;
	struct batch_item *item = &flights[slot].item;
	struct batch_wish standard = options.wish;
	char error[BATCH_ERROR_SIZE], uuid[UUID_SIZE];

	if (is_blank(line, length))
		return;
	random_uuid(uuid);
	standard.id = uuid;
	standard.dashes = "";
	if (!batch_parse(line, length, &standard, item, error, sizeof(error))) {
		bad_line(number, error);
		return;
	}
	if (c == NULL) {
		print_dry(item);
	} else {
		append_publish(c, item);
		flights[slot].number = number;
		if (in_flight++ == 0)
			watch_from(clock_ms());
	}
	free(item->payload);
}

static void
handle_reply(const redisReply *reply)
{
	const struct batch_item *item = &flights[flights_first].item;
	const char *wrong = reply_error(reply);
	char error[VALKEY_ERROR_SIZE];

	if (wrong == NULL) {
		published++;
		print_subscribers(item, reply);
	} else {
		refused++;
		snprintf(error, sizeof(error), "line %ju: PUBLISH: %s",
		    (uintmax_t)flights[flights_first].number, wrong);
		report_failure(item, error);
	}
	flights_first = (flights_first + 1) % IN_FLIGHT_MAX;
	in_flight--;
}

/* Takes the answers that have arrived. The time limit is for the next one. */
static void
take_replies(redisContext *c)
{
	void *reply = NULL;

	if (redisBufferRead(c) != REDIS_OK)
		fail("%s: connection lost: %s", server.label, c->errstr);
	while (redisGetReplyFromReader(c, &reply) == REDIS_OK && reply != NULL) {
		if (in_flight == 0)
			fail("%s: an answer to no question", server.label);
		handle_reply(reply);
		freeReplyObject(reply);
		watch_from(clock_ms());
	}
	if (c->err != 0)
		fail("%s: %s", server.label, c->errstr);
	if (in_flight == 0)
		watch_rest();
}

static void
show_progress(void)
{
	static int64_t next;
	int64_t now;

	if (options.quiet || options.dry_run || options.verbose || !isatty(STDERR_FILENO))
		return;
	now = clock_ms();
	if (now < next)
		return;
	next = now + PROGRESS_MS;
	progress_shown = true;
	dprintf(STDERR_FILENO, "\rtpi-publish: published %ju, bad %ju\033[K", (uintmax_t)published,
	    (uintmax_t)bad);
}

/* Handles lines until there is none, or no room in flight (then the result is TAKEN_LINE). */
static enum taken
handle_lines(redisContext *c, struct input *in)
{
	enum taken taken = TAKEN_LINE;
	const char *line = NULL;
	size_t length = 0;

	while (in_flight < IN_FLIGHT_MAX) {
		taken = take_line(in, &line, &length);
		if (taken == TAKEN_LINE)
			handle_line(c, line, length, in->number);
		else if (taken == TAKEN_LONG)
			bad_line(in->number, "longer than 65536 bytes");
		else
			break;
	}
	return taken;
}

/* hiredis blocks only where this flag is set; poll() is to be the one place that waits. */
static void
unblock(redisContext *c)
{
	c->flags &= ~REDIS_BLOCK;
	if (fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK) != 0)
		fail("%s: %s", server.label, strerror(errno));
}

static void
wait_for(struct pollfd fds[2], redisContext *c)
{
	int sent = 1;

	if (c != NULL && redisBufferWrite(c, &sent) != REDIS_OK)
		fail("%s: connection lost: %s", server.label, c->errstr);
	fds[1].fd = c != NULL ? c->fd : -1;
	fds[1].events = sent ? POLLIN : POLLIN | POLLOUT;
	fds[0].revents = fds[1].revents = 0;
	if (poll(fds, 2, -1) < 0 && errno != EINTR)
		fail("poll: %s", strerror(errno));
}

/* c is NULL in a dry run. */
static void
publish_batch(redisContext *c, struct input *in)
{
	if (c != NULL)
		unblock(c);
	watch_rest();
	for (;;) {
		enum taken taken = handle_lines(c, in);
		struct pollfd fds[2] = {
			{ .fd = taken == TAKEN_MORE ? in->fd : -1, .events = POLLIN },
		};

		show_progress();
		if (taken == TAKEN_END && in_flight == 0)
			break;
		wait_for(fds, c);
		if (fds[1].revents & ~POLLOUT)
			take_replies(c);
		if (fds[0].revents != 0)
			read_input(in);
	}
	claim_end();
	if (c != NULL)
		redisFree(c);
	print_summary();
}

/* The command line */

static void
take_number(const struct choice *choice, const char *text, int32_t *number)
{
	if (!channel_number_parse(text, strlen(text), number) || *number > choice->maximum)
		usage_error("--%s %.40s: must be a whole number from 1 to %d", choice->name, text,
		    choice->maximum);
}

static void
take_choice(const struct choice *choice, const char *text)
{
	void *field = (char *)&options + choice->offset;

	switch (choice->type) {
	case CHOICE_TEXT:
		*(const char **)field = text;
		break;
	case CHOICE_FLAG:
		*(bool *)field = true;
		break;
	case CHOICE_NUMBER:
		take_number(choice, text, field);
		break;
	}
}

/* A word that is no option: the command, then the file of a batch. */
static void
take_operand(const char *word)
{
	if (options.command == COMMAND_BATCH && options.file == NULL) {
		options.file = word;
		return;
	}
	if (options.command != COMMAND_COUNT)
		usage_error("%.40s: one argument too many", word);
	for (int i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(word, command_names[i]) == 0) {
			options.command = (enum command)i;
			return;
		}
	}
	usage_error("%.40s: must be notification, issue or batch", word);
}

static bool
tag_valid(const char *tag)
{
	size_t length = strlen(tag);

	for (const char *p = tag; *p != '\0'; p++) {
		if (*p <= ' ' || *p > '~' || *p == '[' || *p == ']')
			return false;
	}
	return length >= 1 && length <= TAG_MAX;
}

/* What can only be judged when all of the command line is known. seen: a bit for each choice. */
static void
check_options(unsigned seen)
{
	if (options.command == COMMAND_COUNT)
		usage_error("a command is needed: notification, issue or batch");
	for (size_t i = 0; i < CHOICE_COUNT; i++) {
		if (seen & 1u << i && !(choices[i].commands & 1u << options.command))
			usage_error("%s takes no --%s", command_names[options.command],
			    choices[i].name);
	}
	if (!tag_valid(options.tag))
		usage_error("--tag %.40s: must be 1 to 64 printable ASCII characters without "
		    "space [ ]", options.tag);
}

static void
print_and_exit(const char *text)
{
	fputs(text, stdout);
	check_stdout();
	exit(EX_OK);
}

static void
parse_options(int argc, char **argv)
{
	struct option table[CHOICE_COUNT + 1] = { 0 };
	unsigned seen = 0;
	int c;

	for (size_t i = 0; i < CHOICE_COUNT; i++) {
		table[i].name = choices[i].name;
		table[i].has_arg = choices[i].type == CHOICE_FLAG ? no_argument : required_argument;
		table[i].val = CHOICE_FIRST + (int)i;
	}
	/* "-": operands in their order, whatever POSIXLY_CORRECT says; ":": errors are ours. */
	while ((c = getopt_long(argc, argv, "-:", table, NULL)) != -1) {
		if (c == 1)
			take_operand(optarg);
		else if (c == ':')
			usage_error("%.40s needs a value", argv[optind - 1]);
		else if (c == '?' && optopt > 0 && optopt < CHOICE_FIRST)
			usage_error("unknown option -%c", optopt);
		else if (c == '?' && optopt >= CHOICE_FIRST)
			usage_error("--%s takes no value", choices[optopt - CHOICE_FIRST].name);
		else if (c == '?')
			usage_error("unknown or ambiguous option %.40s", argv[optind - 1]);
		else {
			take_choice(&choices[c - CHOICE_FIRST], optarg);
			seen |= 1u << (c - CHOICE_FIRST);
		}
	}
	while (optind < argc)
		take_operand(argv[optind++]);
	if (options.help)
		print_and_exit(help);
	if (options.version)
		print_and_exit("tpi-publish " PACKAGE_VERSION "\n");
	check_options(seen);
}

/* Set-up */

/* A descriptor of 0 to 2 that is closed would become that of a file or a socket, and be written to
 * as standard output. The mode is the wrong one, so that using it remains an error. */
static void
hold_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			_exit(EX_OSERR);
	}
}

/* An option stands in for its variable, which is then not looked at. */
static char *
get_setting(const char *name)
{
	if (strcmp(name, "INSTANCE_TENANT_ID") == 0 && options.wish.tenant != NULL)
		return NULL;
	return getenv(name);
}

static void
load_settings(void)
{
	char error[SETTINGS_ERROR_SIZE];

	if (settings_load(&settings, SETTINGS_PUBLISH, get_setting, error, sizeof(error)) != 0) {
		complain("%s", error);
		exit(EX_CONFIG);
	}
	if (options.wish.tenant == NULL)
		options.wish.tenant = settings.tenant;
	else if (!channel_id_valid(options.wish.tenant, strlen(options.wish.tenant)))
		usage_error("--tenant %.40s: must be " CHANNEL_ID_ALLOWED, options.wish.tenant);
	options.wish.prefix = settings.issues_channel_prefix;
}

static void
load_server(void)
{
	static const char setting[] = "VALKEY_URL=";
	const char *url = options.url != NULL ? options.url : settings.valkey_url;
	char error[VALKEY_ERROR_SIZE];

	if (valkey_parse(&server, url, settings.valkey_password_file, error, sizeof(error)) == 0)
		return;
	if (options.url != NULL && strncmp(error, setting, strlen(setting)) == 0)
		usage_error("--url %s", error + strlen(setting));
	complain("%s", error);
	exit(EX_CONFIG);
}

static void
make_single(void)
{
	static char uuid[UUID_SIZE];
	char error[BATCH_ERROR_SIZE];

	options.wish.stream = options.command == COMMAND_ISSUE ? BATCH_ISSUE : BATCH_NOTIFICATION;
	if (options.wish.id == NULL) {
		random_uuid(uuid);
		options.wish.id = uuid;
	}
	if (!batch_make(&options.wish, &single, error, sizeof(error)))
		usage_error("%s", error);
}

int
main(int argc, char **argv)
{
	static struct input input;
	const int64_t start = clock_ms();

	hold_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	log_set_level(LOG_LEVEL_INFO);

	parse_options(argc, argv);
	load_settings();
	if (options.command == COMMAND_BATCH)
		open_input(&input);
	else
		make_single();
	if (!options.dry_run) {
		load_server();
		watch_start(start);
	}

	if (options.command == COMMAND_BATCH)
		publish_batch(options.dry_run ? NULL : connect_server(), &input);
	else if (options.dry_run)
		print_dry(&single);
	else
		publish_single();
	return exit_status(refused > 0);
}
