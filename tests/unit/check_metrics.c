/* SPDX-License-Identifier: ISC */
/*
 * check_metrics: every metric is written correctly in Prometheus text format 0.0.4, and from the
 * start. TPI_MAN7 names man/tpi-stream.7; without it, the tests that read the manual do nothing.
 */
#include "config.h"

#include <check.h>
#include <ctype.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/metrics.h"

#define THREADS 4
#define EACH    20000

static struct metrics counters;

/* The current text of all metrics. The caller frees it. */
static char *
text_of(const char *tenant)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	ck_assert_ptr_nonnull(out);
	metrics_read(&counters);
	metrics_write(&counters, tenant, out);
	ck_assert_int_eq(fclose(out), 0);
	return text;
}

/* Expects exactly one such line. */
static void
expect(const char *text, const char *line)
{
	size_t length = strlen(line);
	int found = 0;

	for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
		at += *at == '\n';
		if (strncmp(at, line, length) == 0 && at[length] == '\n')
			found++;
		if (*at == '\0')
			break;
	}
	ck_assert_msg(found == 1, "%s: %d times in\n%s", line, found, text);
}

/* Every series exists from the start, with value 0. */
START_TEST(all_from_the_start)
{
	static const char *const lines[] = {
		"tpi_stream_build_info{version=\"" PACKAGE_VERSION "\",tenant=\"t1\"} 1",
		"tpi_stream_open_streams{kind=\"notifications\"} 0",
		"tpi_stream_open_streams{kind=\"issues\"} 0",
		"tpi_stream_open_streams{kind=\"live\"} 0",
		"tpi_stream_open_streams{kind=\"combined\"} 0",
		"tpi_stream_ended_total{kind=\"notifications\",reason=\"closed\"} 0",
		"tpi_stream_ended_total{kind=\"issues\",reason=\"valkey_refused\"} 0",
		"tpi_stream_refused_total{reason=\"path\"} 0",
		"tpi_stream_refused_total{reason=\"cap\"} 0",
		"tpi_stream_deferred_total{reason=\"draining\"} 0",
		"tpi_stream_deferred_total{reason=\"resources\"} 0",
		"tpi_stream_messages_total 0",
		"tpi_stream_fanout_seconds_bucket{le=\"5e-05\"} 0",
		"tpi_stream_fanout_seconds_bucket{le=\"1\"} 0",
		"tpi_stream_fanout_seconds_bucket{le=\"+Inf\"} 0",
		"tpi_stream_fanout_seconds_sum 0.000000",
		"tpi_stream_fanout_seconds_count 0",
		"tpi_stream_last_message_age_seconds 0.000",
		"tpi_stream_app_requests_total{result=\"forbidden\"} 0",
		"tpi_stream_app_requests_total{result=\"failed\"} 0",
		"tpi_stream_app_queries_total{from=\"in_flight\"} 0",
	};
	char *text = text_of("t1");

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		expect(text, lines[i]);
	free(text);
}
END_TEST

static bool
is_name(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (!islower((unsigned char)text[i]) && text[i] != '_')
			return false;
	return length > 0;
}

static bool
ends_with(const char *text, const char *end)
{
	return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

/*
 * Each metric consists of HELP, TYPE and its samples. Names have the prefix tpi_stream_ and follow
 * Prometheus's conventions: base units, and _total for counters only.
 */
START_TEST(format)
{
	char *text = text_of("default"), *save = NULL;
	char name[128] = "", type[32] = "", line_name[128];
	int samples = 1, metrics = 0;

	for (char *line = strtok_r(text, "\n", &save); line != NULL;
	    line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "# HELP ", 7) == 0) {
			ck_assert_msg(samples > 0, "%s has no sample", name);
			ck_assert_int_eq(sscanf(line + 7, "%127s", name), 1);
			ck_assert_msg(ends_with(line, "."), "%s", line);
			ck_assert_msg(strncmp(name, "tpi_stream_", 11) == 0, "%s", name);
			ck_assert_msg(is_name(name, strlen(name)), "%s", name);
			samples = 0;
			metrics++;
			continue;
		}
		if (strncmp(line, "# TYPE ", 7) == 0) {
			ck_assert_int_eq(sscanf(line + 7, "%127s %31s", line_name, type), 2);
			ck_assert_str_eq(line_name, name);
			ck_assert_int_eq(samples, 0);
			ck_assert_msg((strcmp(type, "counter") == 0) == ends_with(name, "_total"), "%s", name);
			ck_assert_msg(strcmp(type, "histogram") != 0 || ends_with(name, "_seconds"), "%s", name);
			continue;
		}
		ck_assert_msg(strncmp(line, name, strlen(name)) == 0, "%s in the samples of %s", line, name);
		ck_assert_msg(strchr(line, ' ') != NULL && strchr(strchr(line, ' ') + 1, ' ') == NULL,
		    "%s", line);
		samples++;
	}
	ck_assert_int_gt(samples, 0);
	ck_assert_int_eq(metrics, METRIC_COUNT);
	free(text);
}
END_TEST

/* Each combination of metric, kind and label value is counted separately. */
START_TEST(own_cells)
{
	char *text;

	metric_add(METRIC_SENT, 1000000007);
	metric_add(METRIC_SENT, 3);
	metric_add_label(METRIC_REFUSED, REFUSED_ANONYMOUS);
	metric_add_label(METRIC_DEFERRED, DEFERRED_VALKEY_SILENT);
	metric_add_kind(METRIC_ENDED, 1, ENDED_AGE);
	metric_add_kind(METRIC_ENDED, 1, ENDED_AGE);
	metric_add_kind(METRIC_ENDED, 0, ENDED_STALLED);
	text = text_of("default");
	expect(text, "tpi_stream_events_sent_total 1000000010");
	expect(text, "tpi_stream_events_merged_total 0");
	expect(text, "tpi_stream_refused_total{reason=\"anonymous\"} 1");
	expect(text, "tpi_stream_refused_total{reason=\"user\"} 0");
	expect(text, "tpi_stream_refused_total{reason=\"projects\"} 0");
	expect(text, "tpi_stream_deferred_total{reason=\"valkey_silent\"} 1");
	expect(text, "tpi_stream_ended_total{kind=\"issues\",reason=\"age\"} 2");
	expect(text, "tpi_stream_ended_total{kind=\"notifications\",reason=\"age\"} 0");
	expect(text, "tpi_stream_ended_total{kind=\"notifications\",reason=\"stalled\"} 1");
	free(text);
}
END_TEST

/* Buckets are cumulative and include their upper bound; count and sum agree with them. */
START_TEST(histogram)
{
	static const uint64_t times[] = { 0, 50, 51, 100, 999, 1000, 1001, 1000000, 1000001, 5000000 };
	char *text;

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
		metric_observe(METRIC_FANOUT, times[i]);
	text = text_of("default");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"5e-05\"} 2");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"0.0001\"} 4");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"0.0005\"} 4");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"0.001\"} 6");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"0.0025\"} 7");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"0.5\"} 7");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"1\"} 8");
	expect(text, "tpi_stream_fanout_seconds_bucket{le=\"+Inf\"} 10");
	expect(text, "tpi_stream_fanout_seconds_count 10");
	expect(text, "tpi_stream_fanout_seconds_sum 7.003202");
	free(text);
}
END_TEST

/* A label value cannot forge another label or line. */
START_TEST(escaping)
{
	char *text = text_of("a\\b\"c\nd");

	expect(text, "tpi_stream_build_info{version=\"" PACKAGE_VERSION "\",tenant=\"a\\\\b\\\"c\\nd\"} 1");
	free(text);
}
END_TEST

/* Values that the reader fills in are written in base units. */
START_TEST(filled_in)
{
	char *text;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	metrics_read(&counters);
	counters.cells[METRIC_SLOTS_LIMIT][1][0] = 1200;
	counters.cells[METRIC_MESSAGE_AGE][0][0] = 12045;
	counters.cells[METRIC_START_TIME][0][0] = 1795500000;
	metrics_write(&counters, "default", out);
	fclose(out);
	expect(text, "tpi_stream_slots_limit{kind=\"issues\"} 1200");
	expect(text, "tpi_stream_last_message_age_seconds 12.045");
	expect(text, "tpi_stream_start_time_seconds 1795500000");
	free(text);
}
END_TEST

static void *
count(void *arg)
{
	(void)arg;
	for (int i = 0; i < EACH; i++) {
		metric_add(METRIC_SENT, 2);
		metric_add_kind(METRIC_ENDED, 1, ENDED_CLOSED);
		metric_observe(METRIC_FANOUT, 10);
	}
	return NULL;
}

/* Several threads count without losing anything, and a concurrent reader never sees a decrease. */
START_TEST(threads)
{
	pthread_t thread[THREADS];
	uint64_t last = 0;

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, count, NULL), 0);
	for (int i = 0; i < 100; i++) {
		metrics_read(&counters);
		ck_assert_uint_ge(counters.cells[METRIC_SENT][0][0], last);
		last = counters.cells[METRIC_SENT][0][0];
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	metrics_read(&counters);
	ck_assert_uint_eq(counters.cells[METRIC_SENT][0][0], 2 * EACH * THREADS);
	ck_assert_uint_eq(counters.cells[METRIC_ENDED][1][ENDED_CLOSED], EACH * THREADS);
	ck_assert_uint_eq(counters.cells[METRIC_FANOUT][0][0], EACH * THREADS);
}
END_TEST

/* Reads the next metric of the manual: its name, and its lines of text joined. False at the end. */
static bool
next_in_manual(FILE *manual, char name[128], char text[1024])
{
	char line[1024];
	bool inside = false;

	text[0] = '\0';
	while (fgets(line, sizeof(line), manual) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (inside && line[0] == '.') {
			fseek(manual, -(long)strlen(line) - 1, SEEK_CUR);
			return true;
		}
		if (inside) {
			ck_assert_uint_lt(strlen(text) + strlen(line) + 2, 1024);
			if (text[0] != '\0')
				strcat(text, " ");
			strcat(text, line);
		} else if (sscanf(line, ".It Li %127s", name) == 1 && strncmp(name, "tpi_stream_", 11) == 0)
			inside = true;
	}
	return false;
}

/* The labels of a metric in the words of the manual: ", by kind and reason". */
static void
labels_of(const char *text, const char *name, char labels[64])
{
	char start[160];
	const char *at, *end;

	snprintf(start, sizeof(start), "\n%s{", name);
	at = strstr(text, start);
	labels[0] = '\0';
	if (at == NULL)
		return;
	at += strlen(start);
	end = strchr(at, '}');
	while (at < end) {
		snprintf(labels + strlen(labels), 64 - strlen(labels), "%s%.*s",
		    labels[0] == '\0' ? ", by " : " and ", (int)strcspn(at, "="), at);
		at = strchr(strchr(at, '"') + 1, '"') + 1;
		at += *at == ',';
	}
}

/* The manual lists exactly the metrics of the program, with their types, labels and help texts. */
START_TEST(manual_says_the_same)
{
	const char *path = getenv("TPI_MAN7"), *help;
	char name[128], said[1024], expected[1024], type[32], labels[64], key[160], *text;
	int count = 0;
	FILE *manual;

	if (path == NULL || path[0] == '\0') {
		fprintf(stderr, "check_metrics: TPI_MAN7 is not set: the manual is not checked\n");
		return;
	}
	text = text_of("default");
	manual = fopen(path, "r");
	ck_assert_msg(manual != NULL, "cannot open TPI_MAN7=%s", path);
	for (; next_in_manual(manual, name, said); count++) {
		snprintf(key, sizeof(key), "# HELP %s ", name);
		help = strstr(text, key);
		ck_assert_msg(help != NULL, "%s is in the manual but not in the program", name);
		help += strlen(key);
		snprintf(key, sizeof(key), "# TYPE %s ", name);
		ck_assert_int_eq(sscanf(strstr(text, key) + strlen(key), "%31s", type), 1);
		type[0] = (char)toupper((unsigned char)type[0]);
		labels_of(text, name, labels);
		snprintf(expected, sizeof(expected), "%s%s. %.*s", type, labels,
		    (int)strcspn(help, "\n"), help);
		ck_assert_msg(strcmp(said, expected) == 0, "%s: the manual says \"%s\", not \"%s\"", name,
		    said, expected);
	}
	fclose(manual);
	ck_assert_int_eq(count, METRIC_COUNT);
	free(text);
}
END_TEST

/* The manual explains each value of a label. */
START_TEST(manual_has_the_labels)
{
	const char *path = getenv("TPI_MAN7"), *at, *end;
	char *text, *page, key[80];
	size_t length;
	FILE *manual;

	if (path == NULL || path[0] == '\0')
		return;
	manual = fopen(path, "r");
	ck_assert_msg(manual != NULL, "cannot open TPI_MAN7=%s", path);
	page = calloc(1, 1 << 20);
	ck_assert_ptr_nonnull(page);
	length = fread(page, 1, (1 << 20) - 1, manual);
	ck_assert_uint_gt(length, 0);
	fclose(manual);
	text = text_of("default");
	for (at = text; (at = strstr(at, "=\"")) != NULL; at = end) {
		end = strchr(at + 2, '"');
		if (strncmp(at - 2, "le", 2) == 0 || strncmp(at - 4, "kind", 4) == 0 ||
		    strncmp(at - 7, "version", 7) == 0 || strncmp(at - 6, "tenant", 6) == 0)
			continue;
		snprintf(key, sizeof(key), "Li %.*s", (int)(end - at) - 2, at + 2);
		ck_assert_msg(strstr(page, key) != NULL, "the manual does not have \"%s\"", key);
	}
	free(page);
	free(text);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("metrics");
	TCase *tc = tcase_create("metrics");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, all_from_the_start);
	tcase_add_test(tc, format);
	tcase_add_test(tc, own_cells);
	tcase_add_test(tc, histogram);
	tcase_add_test(tc, escaping);
	tcase_add_test(tc, filled_in);
	tcase_add_test(tc, threads);
	tcase_add_test(tc, manual_says_the_same);
	tcase_add_test(tc, manual_has_the_labels);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
