/* SPDX-License-Identifier: ISC */
/*
 * tpi-streamd: a FastCGI responder that passes wake-ups from Valkey's pub/sub on to browsers.
 *
 * main() reads the configuration, starts everything in order, and accepts connections until SIGTERM
 * or SIGINT; then it drains. Each connection has its own thread (connection.c); the subscriber's
 * thread writes the events (subscriber.c). All threads block the two signals; main() reads them
 * from a descriptor.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sysexits.h>
#include <unistd.h>

#include "auth/access.h"
#include "auth/app_client.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/text.h"
#include "base/thread.h"
#include "config/settings.h"
#include "daemon/listener.h"
#include "daemon/notify.h"
#include "daemon/rlimits.h"
#include "daemon/sandbox.h"
#include "fcgi/request.h"
#include "pubsub/subscriber.h"
#include "session/connection.h"
#include "session/registry.h"
#include "session/stats_log.h"
#include "session/topic.h"
#include "stream/caps.h"
#include "stream/stream.h"
#include "valkey/topology.h"

#define ACCEPT_MAX      256 /* connections accepted before signals and timers are checked */
#define ACCEPT_PAUSE_MS 100 /* after running out of descriptors */
#define STOP_MS         100 /* time limit for each of the services to stop */

struct options {
	char *listen; /* NULL: not given */
	bool check_config;
	struct listener_options listener;
};

static struct registry registry;
static struct settings settings;
static struct topology topology;
static struct listener listener;
static struct address address;
static const char *listen_text; /* the address as given, for messages */
static int spare_fd = -1;       /* closed to accept one more connection when descriptors run out */

static const char usage[] =
    "usage: tpi-streamd [--listen ADDRESS] [--mode OCTAL] [--group NAME] [--backlog N]\n"
    "                   [--check-config] [--help] [--version]\n";

static const char help[] =
    "\n"
    "FastCGI responder that passes wake-ups from Valkey's pub/sub on to browsers.\n"
    "\n"
    "  --listen ADDRESS  " LISTENER_ALLOWED ";\n"
    "                    default: TPI_LISTEN, a socket from systemd or spawn-fcgi,\n"
    "                    or " LISTENER_DEFAULT "\n"
    "  --mode OCTAL      mode of a Unix socket (0660)\n"
    "  --group NAME      group of a Unix socket\n"
    "  --backlog N       length of the queue of new connections (4096)\n"
    "  --check-config    print all effective settings and exit with 0 or 78\n"
    "  --help, --version\n"
    "\n"
    "Settings come from the environment: see tpi-streamd(8).\n";

static void __attribute__((noreturn, format(printf, 2, 3)))
die(int status, const char *format, ...)
{
	char text[1024], line[1100];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	text_line(line, sizeof(line), "tpi-streamd: %s", text);
	fprintf(stderr, "%s\n", line);
	exit(status);
}

static long
number_option(const char *name, const char *text, int base, long low, long high,
    const char *allowed)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(text, &end, base);
	if (errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0' || number < low ||
	    number > high)
		die(EX_USAGE, "--%s %s: must be %s", name, text, allowed);
	return number;
}

static gid_t
group_option(const char *name)
{
	const struct group *group = getgrnam(name);

	if (group == NULL)
		die(EX_USAGE, "--group %s: must be the name of an existing group", name);
	return group->gr_gid;
}

static void
read_options(int argc, char *argv[], struct options *o)
{
	static const struct option names[] = {
		{ "listen", required_argument, NULL, 'l' },
		{ "mode", required_argument, NULL, 'm' },
		{ "group", required_argument, NULL, 'g' },
		{ "backlog", required_argument, NULL, 'b' },
		{ "check-config", no_argument, NULL, 'c' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	*o = (struct options){ .listener = { .mode = 0660, .group = (gid_t)-1, .backlog = 4096 } };
	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'l':
			o->listen = optarg;
			break;
		case 'm':
			o->listener.mode = (unsigned)number_option("mode", optarg, 8, 0, 0777,
			    "an octal number from 0 to 0777");
			break;
		case 'g':
			o->listener.group = group_option(optarg);
			break;
		case 'b':
			o->listener.backlog = (int)number_option("backlog", optarg, 10, 1, 65535,
			    "a whole number from 1 to 65535");
			break;
		case 'c':
			o->check_config = true;
			break;
		case 'h':
			printf("%s%s", usage, help);
			exit(EX_OK);
		case 'v':
			puts("tpi-streamd " PACKAGE_VERSION);
			exit(EX_OK);
		default:
			fputs(usage, stderr);
			exit(EX_USAGE);
		}
	}
	if (optind < argc)
		die(EX_USAGE, "%s: no arguments are allowed; see tpi-streamd --help", argv[optind]);
}

/*
 * Opens /dev/null for each of descriptors 0 to 2 that is closed: a socket that got its number would
 * receive log lines.
 */
static void
open_standard_descriptors(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd != -1 && fd <= STDERR_FILENO);
	if (fd != -1)
		close(fd);
}

/*
 * Cookies and passwords are in memory, so prevent core dumps, and keep other processes of the same
 * user from attaching a debugger and reading the environment.
 */
static void
protect_memory(void)
{
	const struct rlimit none = { 0, 0 };

	if (prctl(PR_SET_DUMPABLE, 0) == -1 || setrlimit(RLIMIT_CORE, &none) == -1)
		die(EX_OSERR, "cannot disable core dumps: %s", strerror(errno));
}

/* Warns about unknown settings: probably typos. Does not log the value, which may be a password. */
static void
warn_unknown(void)
{
	for (char **variable = environ; *variable != NULL; variable++) {
		size_t length = settings_unknown(*variable);
		char message[128];

		if (length == 0)
			continue;
		text_line(message, sizeof(message), "no such setting: %.*s", (int)length,
		    *variable);
		log_write(LOG_LEVEL_WARN, "streamd", message, NULL);
	}
}

/* Reads and validates the whole configuration, also for --check-config; exits if it is invalid. */
static void
read_configuration(const struct options *o)
{
	struct error error;
	bool loaded = settings_load(&settings, SETTINGS_STREAMD, getenv, &error);

	if (loaded)
		log_set_level((enum log_level)settings.log_level);
	warn_unknown(); /* first: a typo may be the reason for the error */
	if (!loaded)
		die(EX_CONFIG, "%s", error.text);
	listen_text = o->listen != NULL ? o->listen : settings.listen;
	if ((o->listen != NULL || listen_text[0] != '\0') &&
	    !address_parse(&address, listen_text))
		die(o->listen != NULL ? EX_USAGE : EX_CONFIG,
		    "%s%s: must be %s; a path has at most 107 bytes",
		    o->listen != NULL ? "--listen " : "TPI_LISTEN=", listen_text,
		    LISTENER_ALLOWED);
	if (!topology_parse(&topology, &settings, NULL, &error))
		die(EX_CONFIG, "%s", error.text);
	registry_init(&registry, &settings);
	registry.access = access_open(&settings, &error);
	if (registry.access == NULL)
		die(EX_CONFIG, "%s", error.text);
}

/* --listen and TPI_LISTEN take precedence over an inherited socket, and that over the default. */
static void
open_listener(const struct options *o)
{
	struct error error;

	listener.fd = -1;
	if (listen_text[0] == '\0') {
		if (!listener_inherit(&listener, &error))
			die(EX_OSERR, "%s", error.text);
		listen_text = LISTENER_DEFAULT;
		address_parse(&address, listen_text);
	}
	if (listener.fd == -1 && !listener_open(&listener, &address, &o->listener, &error))
		die(EX_OSERR, "%s%s: %s",
		    o->listen != NULL ? "--listen " :
		    settings.listen[0] != '\0' ? "TPI_LISTEN=" : "",
		    listen_text, error.text);
	spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Returns a descriptor that delivers SIGTERM and SIGINT. Call it before threads start. */
static int
block_signals(void)
{
	static const int numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGWINCH, SIGUSR1,
		SIGUSR2 };
	sigset_t all, ending;
	size_t i;
	int fd;

	sigemptyset(&all);
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		sigaddset(&all, numbers[i]);
	sigemptyset(&ending);
	sigaddset(&ending, SIGTERM);
	sigaddset(&ending, SIGINT);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	stream_signal_init();
	fd = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd == -1)
		die(EX_OSERR, "signalfd: %s", strerror(errno));
	return fd;
}

static void
start_services(void)
{
	unsigned i;

	for (i = 0; i < KIND_COUNT; i++) {
		registry.caps[i] = caps_new(kind_tenant_cap(i, &settings),
		    kind_user_cap(i, &settings));
		if (registry.caps[i] == NULL)
			die(EX_OSERR, "out of memory");
	}
	registry.open_rate = open_rate_new(settings.user_opens_per_second);
	if (registry.open_rate == NULL)
		die(EX_OSERR, "out of memory");
	if (!access_watch(registry.access))
		die(EX_OSERR, "cannot watch the access file: %s", strerror(errno));
	if (settings_queries_app(&settings)) {
		registry.app_client = app_client_start(&settings);
		if (registry.app_client == NULL)
			die(EX_OSERR, "cannot start the application client: %s", strerror(errno));
	}
	registry.subscriber = subscriber_start(&settings, &topology, registry_revoke, &registry);
	if (registry.subscriber == NULL)
		die(EX_OSERR, "cannot start the subscriber: %s", strerror(errno));
}

static void
log_start(void)
{
	LOG(LOG_LEVEL_INFO, "streamd", "started", LOG_STR("version", PACKAGE_VERSION),
	    LOG_STR("listen", listener.inherited ? "inherited socket" : listen_text),
	    LOG_STR("tenantId", settings.tenant), LOG_STR("valkey", topology.label),
	    LOG_STR("identity", settings.identity == IDENTITY_APP ? "app" : "web-server"),
	    LOG_STR("projectAccess", settings.project_access),
	    LOG_STR("application", settings_queries_app(&settings) ? settings.app_url : NULL));
	if (settings.access == ACCESS_DENY)
		LOG(LOG_LEVEL_WARN, "access", "no user has access to any project",
		    LOG_STR("TPI_PROJECT_ACCESS", settings.project_access));
	if (listener_is_exposed(&listener))
		LOG(LOG_LEVEL_WARN, "streamd",
		    "the TCP address is not loopback: any host that can connect can claim to be "
		    "any user",
		    LOG_STR("listen", listener.inherited ? "inherited socket" : listen_text));
}

static void
log_refusal(const char *what, int error)
{
	static struct log_limit limit;
	uint32_t suppressed;

	if (log_allowed(&limit, 1000, &suppressed))
		LOG(LOG_LEVEL_ERROR, "streamd", what, LOG_STR("error", strerror(error)),
		    LOG_INT("suppressed", suppressed));
}

static void
start_connection(int fd)
{
	int error;

	error = connection_start(&registry, fd);
	if (error != 0) {
		metric_add(METRIC_CONNECTIONS_REFUSED, 1);
		log_refusal("connection refused", error);
		close(fd);
	}
}

enum accepted {
	ACCEPTED_ALL,  /* the queue is empty */
	ACCEPTED_SOME, /* there may be more */
	ACCEPTED_NONE  /* out of descriptors: pause before trying again */
};

/* Accepts up to ACCEPT_MAX connections. */
static enum accepted
accept_some(void)
{
	int i, fd;

	for (i = 0; i < ACCEPT_MAX; i++) {
		fd = accept4(listener.fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd != -1) {
			start_connection(fd);
			continue;
		}
		if (errno == EAGAIN)
			return ACCEPTED_ALL;
		if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
			continue;
		log_refusal("cannot accept", errno);
		if (spare_fd == -1)
			return ACCEPTED_NONE;
		/* Use the spare descriptor for one more connection, which will be deferred. */
		close(spare_fd);
		spare_fd = -1;
	}
	return ACCEPTED_SOME;
}

/* Accepts connections until SIGTERM or SIGINT. */
static void
accept_until_signal(int signal_fd)
{
	struct pollfd p[2] = { { .fd = signal_fd, .events = POLLIN }, { .events = POLLIN } };
	int watchdog_ms = notify_watchdog_ms();
	int64_t now = clock_ms(), metrics_at = now + settings.metrics_ms;
	int64_t watchdog_at = watchdog_ms > 0 ? now : INT64_MAX, next;
	bool paused = false;

	for (;;) {
		next = metrics_at < watchdog_at ? metrics_at : watchdog_at;
		if (paused && next > now + ACCEPT_PAUSE_MS)
			next = now + ACCEPT_PAUSE_MS;
		p[1].fd = paused ? -1 : listener.fd;
		p[1].revents = 0;
		poll(p, 2, next > now ? (int)(next - now) : 0);
		if (p[0].revents != 0)
			return;
		if (spare_fd == -1)
			spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (paused || p[1].revents != 0)
			paused = accept_some() == ACCEPTED_NONE;
		now = clock_ms();
		if (now >= metrics_at) {
			stats_log_write(&registry);
			metrics_at = now + settings.metrics_ms;
		}
		if (now >= watchdog_at) {
			if (subscriber_working(registry.subscriber))
				notify_send("WATCHDOG=1");
			watchdog_at = now + watchdog_ms;
		}
	}
}

static void
drain(int queued)
{
	int64_t deadline = clock_ms() + settings.drain_seconds * 1000 / 2;
	bool stopped;
	int left;

	notify_send("STOPPING=1");
	LOG(LOG_LEVEL_INFO, "streamd", "draining", LOG_INT("seconds", settings.drain_seconds));
	registry_drain(&registry);
	/*
	 * Defer the connections that are queued on our own socket; leave those on an inherited one
	 * to the next process.
	 */
	for (; !listener.inherited && queued >= 0 && clock_ms() < deadline; queued -= ACCEPT_MAX)
		if (accept_some() != ACCEPTED_SOME)
			break;
	listener_close(&listener);
	deadline += settings.drain_seconds * 1000 / 2 - 3 * STOP_MS;
	left = registry_wait(&registry, deadline);
	subscriber_stop(registry.subscriber, STOP_MS);
	if (left == 0)
		thread_join_small();
	stopped = registry.app_client == NULL || app_client_stop(registry.app_client, STOP_MS);
	LOG(LOG_LEVEL_INFO, "streamd", "stopped", LOG_INT("connectionsLeft", left));
	if (!stopped)
		_exit(EX_OK);
}

int
main(int argc, char *argv[])
{
	struct options options;
	int signal_fd;

	open_standard_descriptors();
	protect_memory();
	read_options(argc, argv, &options);
	read_configuration(&options);
	if (options.check_config) {
		if (options.listen != NULL)
			settings.listen = options.listen;
		settings_print(&settings, SETTINGS_STREAMD, stdout);
		return EX_OK;
	}
	settings_forget_secrets(&settings);
	request_library_init();
	signal_fd = block_signals();
	rlimits_apply(&settings);
	open_listener(&options);
	sandbox_enter(&settings, &listener);
	start_services();
	log_start();
	notify_send("READY=1");
	accept_until_signal(signal_fd);
	drain(options.listener.backlog);
	return EX_OK;
}
