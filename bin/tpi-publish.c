/* SPDX-License-Identifier: ISC */
/*
 * tpi-publish: publishes wake-ups from the command line. See tpi-publish(1).
 *
 * This file reads options and settings; publisher does the rest. All static variables are set
 * before that and then stay unchanged.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "config/settings.h"
#include "publish/batch.h"
#include "publish/publisher.h"
#include "publish/report.h"
#include "publish/uuid.h"
#include "valkey/topology.h"
#include "wire/channel_name.h"

#define TIMEOUT_MAX 3600000
#define TAG_MAX 64

enum command {
	COMMAND_NOTIFICATION,
	COMMAND_ISSUE,
	COMMAND_TEST_RUN,
	COMMAND_MILESTONE,
	COMMAND_REVOKE,
	COMMAND_BATCH,
	COMMAND_COUNT
};

static const char *const command_names[COMMAND_COUNT] = {
	"notification", "issue", "test-run", "milestone", "revoke", "batch" };
#define COMMANDS_ALLOWED "notification, issue, test-run, milestone, revoke or batch"

/* The stream of a command; the lines of a batch have their own. */
static const enum batch_stream command_streams[] = {
	[COMMAND_NOTIFICATION] = BATCH_NOTIFICATION,
	[COMMAND_ISSUE] = BATCH_ISSUE,
	[COMMAND_TEST_RUN] = BATCH_TEST_RUN,
	[COMMAND_MILESTONE] = BATCH_MILESTONE,
	[COMMAND_REVOKE] = BATCH_REVOCATION,
};

enum {
	FOR_NOTIFICATION = 1 << COMMAND_NOTIFICATION,
	FOR_ISSUE = 1 << COMMAND_ISSUE,
	FOR_TEST_RUN = 1 << COMMAND_TEST_RUN,
	FOR_MILESTONE = 1 << COMMAND_MILESTONE,
	FOR_ITEM = FOR_ISSUE | FOR_TEST_RUN | FOR_MILESTONE,
	FOR_REVOKE = 1 << COMMAND_REVOKE,
	FOR_BATCH = 1 << COMMAND_BATCH,
	FOR_ALL = FOR_NOTIFICATION | FOR_ITEM | FOR_REVOKE | FOR_BATCH
};

/* The command line, completed from the environment. */
static struct options {
	enum command command; /* COMMAND_COUNT: not given yet */
	struct batch_request request;
	struct publisher run;
	const char *file; /* of a batch; NULL: standard input */
	const char *url;
	bool dry_run, help, version;
} options = {
	.command = COMMAND_COUNT,
	.request.dashes = "",
	.run = { .tag = "tpi-publish", .timeout_ms = 2000 },
};

static const struct option_row {
	const char *name;
	enum { OPTION_TEXT, OPTION_FLAG, OPTION_NUMBER } type;
	unsigned commands; /* that have this option */
	size_t offset;     /* in struct options */
	int32_t maximum;   /* of an OPTION_NUMBER; the minimum is 1 */
} option_rows[] = {
#define ROW(name, type, commands, field)                                                          \
	{ name, type, commands, offsetof(struct options, field), INT32_MAX }
	ROW("user", OPTION_TEXT, FOR_NOTIFICATION | FOR_REVOKE, request.user),
	ROW("broadcast", OPTION_FLAG, FOR_NOTIFICATION, request.broadcast),
	ROW("id", OPTION_TEXT, FOR_NOTIFICATION, request.id),
	ROW("event", OPTION_TEXT, FOR_NOTIFICATION | FOR_ITEM, request.event),
	ROW("project", OPTION_NUMBER, FOR_ITEM | FOR_REVOKE, request.project),
	ROW("issue", OPTION_NUMBER, FOR_ISSUE, request.item),
	ROW("run", OPTION_NUMBER, FOR_TEST_RUN, request.item),
	ROW("milestone", OPTION_NUMBER, FOR_MILESTONE, request.item),
	ROW("target", OPTION_NUMBER, FOR_TEST_RUN | FOR_MILESTONE, request.target),
	ROW("only-tenant", OPTION_FLAG, FOR_BATCH, request.only_tenant),
	ROW("tenant", OPTION_TEXT, FOR_ALL, request.tenant),
	ROW("url", OPTION_TEXT, FOR_ALL, url),
	ROW("tag", OPTION_TEXT, FOR_ALL, run.tag),
	ROW("best-effort", OPTION_FLAG, FOR_ALL, run.best_effort),
	ROW("dry-run", OPTION_FLAG, FOR_ALL, dry_run),
	ROW("verbose", OPTION_FLAG, FOR_ALL, run.verbose),
	ROW("quiet", OPTION_FLAG, FOR_ALL, run.quiet),
	ROW("help", OPTION_FLAG, FOR_ALL, help),
	ROW("version", OPTION_FLAG, FOR_ALL, version),
#undef ROW
	{ "timeout", OPTION_NUMBER, FOR_ALL, offsetof(struct options, run.timeout_ms),
	    TIMEOUT_MAX },
};
#define OPTION_COUNT (sizeof(option_rows) / sizeof(option_rows[0]))
#define OPTION_FIRST 256 /* getopt's value for the first row; not a character */

static const char help[] =
    "usage: tpi-publish notification (--user ID | --broadcast) [--id ID]\n"
    "                                [--event NAME]\n"
    "       tpi-publish issue --project ID --issue ID [--event NAME]\n"
    "       tpi-publish test-run --project ID --run ID [--target ID]\n"
    "                            [--event NAME]\n"
    "       tpi-publish milestone --project ID --milestone ID [--target ID]\n"
    "                             [--event NAME]\n"
    "       tpi-publish revoke (--user ID | --project ID)\n"
    "       tpi-publish batch [--only-tenant] [FILE]\n"
    "Publishes wake-ups: something has changed, and browsers should refetch. revoke\n"
    "makes tpi-streamd re-authorize the open streams of a user or a project. A batch\n"
    "has one JSON object per line, \"tenant\", \"event\" and \"target\" are optional:\n"
    "  {\"stream\":\"notification\",\"user\":\"u1\",\"id\":\"n1\"}  (or \"broadcast\":true)\n"
    "  {\"stream\":\"issue\",\"project\":7,\"issue\":42}\n"
    "  {\"stream\":\"test-run\",\"project\":7,\"run\":42}\n"
    "  {\"stream\":\"milestone\",\"project\":7,\"milestone\":9}\n"
    "  --id ID        notification id (default: a random UUID)\n"
    "  --target ID    what changed in the test run or milestone\n"
    "  --event NAME   default: notification, with --broadcast SYSTEM_ANNOUNCEMENT;\n"
    "                 issue-updated; test_run.state_changed; milestone.updated\n"
    "  --tenant ID    default: INSTANCE_TENANT_ID, or \"default\" if that is unset\n"
    "  --only-tenant  a batch line for another tenant is a bad line\n"
    "  --url URL,...  valkey[s]://, redis[s]:// or unix:// (default: the primary of\n"
    "                 VALKEY_SENTINELS if that is set, else VALKEY_URL)\n"
    "  --timeout MS   time limit of the command, of a batch for each reply (2000)\n"
    "  --best-effort  if a publish fails, warn and exit with 0 instead of 69\n"
    "  --tag NAME     tag of that warning (tpi-publish)\n"
    "  --dry-run      print channel and payload, publish nothing\n"
    "  --verbose      print how many subscribers Valkey counted\n"
    "  --quiet        no warnings, no progress, no summary\n"
    "  --help, --version\n"
    "Exit status: 0 published, 64 wrong usage, 65 some batch lines were bad,\n"
    "66 cannot read FILE, 69 Valkey is unreachable, refuses, or is a replica,\n"
    "71 out of system resources, 74 cannot write to standard output,\n"
    "78 bad configuration.\n";

static struct settings settings;
static struct topology topology;

static _Noreturn void __attribute__((format(printf, 1, 2)))
usage_error(const char *format, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	report_line("%s (see tpi-publish --help)", text);
	exit(EX_USAGE);
}

static _Noreturn void
give_up(int status, const char *error)
{
	report_line("%s", error);
	exit(status);
}

/* The command line */

static void
set_number(const struct option_row *row, const char *text, int32_t *number)
{
	if (!channel_number_parse(text, strlen(text), number) || *number > row->maximum)
		usage_error("--%s %.40s: must be a whole number from 1 to %d", row->name, text,
		    row->maximum);
}

/* An option of all commands may be repeated: the last one counts. */
static void
set_option(const struct option_row *row, const char *text, bool repeated)
{
	void *field = (char *)&options + row->offset;

	if (repeated && row->commands != FOR_ALL)
		usage_error("--%s: can be given only once", row->name);
	switch (row->type) {
	case OPTION_TEXT:
		*(const char **)field = text;
		break;
	case OPTION_FLAG:
		*(bool *)field = true;
		break;
	case OPTION_NUMBER:
		set_number(row, text, field);
		break;
	}
}

/* The beginning of a word, for an error. It may be a misplaced URL, so its password is masked. */
static const char *
printable(const char *word)
{
	static char text[41];

	settings_mask_text(word, text, sizeof(text));
	return text;
}

/* The length of an option without its value, at most 40. */
static int
option_length(const char *word)
{
	size_t length = strcspn(word, "=");

	return length < 40 ? (int)length : 40;
}

/* A word that is not an option: the command, then the file of a batch. */
static void
set_operand(const char *word)
{
	if (options.command == COMMAND_BATCH && options.file == NULL) {
		options.file = word;
		return;
	}
	if (options.command != COMMAND_COUNT)
		usage_error("%s: unexpected argument", printable(word));
	for (int i = 0; i < COMMAND_COUNT; i++) {
		if (strcmp(word, command_names[i]) == 0) {
			options.command = (enum command)i;
			return;
		}
	}
	usage_error("%s: unknown command, must be " COMMANDS_ALLOWED, printable(word));
}

static bool
tag_valid(const char *tag)
{
	const char *p = tag;

	while (*p > ' ' && *p <= '~' && *p != '[' && *p != ']')
		p++;
	return *p == '\0' && p > tag && p - tag <= TAG_MAX;
}

/* Checks that need the whole command line. seen has a bit for each option given. */
static void
check_options(unsigned seen)
{
	if (options.command == COMMAND_COUNT)
		usage_error("a command is required: " COMMANDS_ALLOWED);
	for (size_t i = 0; i < OPTION_COUNT; i++) {
		if (seen & 1u << i && !(option_rows[i].commands & 1u << options.command))
			usage_error("--%s: not an option of %s", option_rows[i].name,
			    command_names[options.command]);
	}
	if (!tag_valid(options.run.tag))
		usage_error("--tag %.40s: must be 1 to 64 printable ASCII characters without "
		    "space [ ]", options.run.tag);
}

static _Noreturn void
print_and_exit(const char *text)
{
	fputs(text, stdout);
	exit(publisher_flush() ? EX_OK : EX_IOERR);
}

static void
parse_options(int argc, char **argv)
{
	struct option table[OPTION_COUNT + 1] = { 0 };
	unsigned seen = 0, bit;
	int c;

	for (size_t i = 0; i < OPTION_COUNT; i++) {
		table[i].name = option_rows[i].name;
		table[i].has_arg =
		    option_rows[i].type == OPTION_FLAG ? no_argument : required_argument;
		table[i].val = OPTION_FIRST + (int)i;
	}
	/* "-": return operands in order, even with POSIXLY_CORRECT; ":": do not print errors. */
	while ((c = getopt_long(argc, argv, "-:", table, NULL)) != -1) {
		if (c == 1)
			set_operand(optarg);
		else if (c == ':')
			usage_error("%.40s: requires a value", argv[optind - 1]);
		else if (c == '?' && optopt > 0 && optopt < OPTION_FIRST)
			usage_error("-%c: unknown option", optopt);
		else if (c == '?' && optopt >= OPTION_FIRST)
			usage_error("--%s: does not take a value",
			    option_rows[optopt - OPTION_FIRST].name);
		else if (c == '?')
			usage_error("%.*s: unknown or ambiguous option",
			    option_length(argv[optind - 1]), argv[optind - 1]);
		else {
			bit = 1u << (c - OPTION_FIRST);
			set_option(&option_rows[c - OPTION_FIRST], optarg, seen & bit);
			seen |= bit;
		}
	}
	while (optind < argc)
		set_operand(argv[optind++]);
	if (options.help)
		print_and_exit(help);
	if (options.version)
		print_and_exit("tpi-publish " PACKAGE_VERSION "\n");
	check_options(seen);
}

/* Set-up */

/*
 * If descriptor 0, 1 or 2 is closed, a file or socket would get its number, and output would go
 * there. So open /dev/null on it, in the wrong mode: using it remains an error.
 */
static void
reserve_standard_descriptors(void)
{
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
			_exit(EX_OSERR);
	}
}

/* Does not read a variable that an option overrides, so that an error in it does not matter. */
static char *
get_setting(const char *name)
{
	if (strcmp(name, "INSTANCE_TENANT_ID") == 0 && options.request.tenant != NULL)
		return NULL;
	return getenv(name);
}

static void
load_settings(void)
{
	struct error error;

	if (!settings_load(&settings, SETTINGS_PUBLISH, get_setting, &error))
		give_up(EX_CONFIG, error.text);
	if (options.request.tenant == NULL)
		options.request.tenant = settings.tenant;
	else if (!channel_id_valid(options.request.tenant, strlen(options.request.tenant)))
		usage_error("--tenant %.40s: must be " CHANNEL_ID_ALLOWED, options.request.tenant);
	options.request.prefix = settings.issues_prefixes[0];
	options.run.tenant = options.request.tenant;
}

static void
load_server(void)
{
	static const char setting[] = "VALKEY_URL=";
	struct error error;

	if (options.dry_run)
		return;
	if (topology_parse(&topology, &settings, options.url, &error)) {
		options.run.topology = &topology;
		return;
	}
	if (options.url != NULL && strncmp(error.text, setting, strlen(setting)) == 0)
		usage_error("--url %s", error.text + strlen(setting));
	give_up(EX_CONFIG, error.text);
}

static int
run_single(int64_t start)
{
	char uuid[UUID_SIZE];
	struct batch_item item;
	struct error error;
	int status;

	uuid_random(uuid);
	if (options.request.id == NULL)
		options.request.id = uuid;
	options.request.stream = command_streams[options.command];
	options.request.dashes = "--";
	if (!batch_make(&options.request, &item, &error)) {
		if (errno == ENOMEM)
			give_up(EX_OSERR, error.text);
		usage_error("%s", error.text);
	}
	report_patience(options.run.timeout_ms);
	status = publisher_single(&options.run, &item, start);
	free(item.payload);
	return status;
}

int
main(int argc, char **argv)
{
	const int64_t start = clock_ms();

	reserve_standard_descriptors();
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0); /* so that --verbose reaches a pipe at once */
	log_set_level(LOG_LEVEL_INFO);    /* TPI_LOG_LEVEL is for tpi-streamd */

	parse_options(argc, argv);
	load_settings();
	load_server();
	if (options.command != COMMAND_BATCH)
		return run_single(start);
	return publisher_batch(&options.run, &options.request, options.file);
}
