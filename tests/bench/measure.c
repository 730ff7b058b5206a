/* SPDX-License-Identifier: ISC */
/*
 * measure: see measure.h.
 */
#include "measure.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static int64_t
nanoseconds(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t) == -1)
		err(EX_UNAVAILABLE, "clock_gettime");
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t
measure_now(void)
{
	return nanoseconds(CLOCK_MONOTONIC);
}

/* The sum of a figure of a process and of its children. */
static int64_t
sum_with_children(pid_t pid, int64_t (*figure)(pid_t))
{
	int64_t sum;
	char path[64];
	FILE *file;
	int child;

	if (pid == 0)
		return 0;
	sum = figure(pid);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	file = fopen(path, "re");
	if (file == NULL)
		err(EX_UNAVAILABLE, "%s", path);
	while (fscanf(file, "%d", &child) == 1)
		sum += figure(child);
	fclose(file);
	return sum;
}

static int64_t
cpu_of(pid_t pid)
{
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) != 0)
		errx(EX_UNAVAILABLE, "process %d has ended", (int)pid);
	return nanoseconds(clock);
}

int64_t
measure_cpu(pid_t pid)
{
	return sum_with_children(pid, cpu_of);
}

/* The number after this label at the start of a line. */
static int64_t
number_after(const char *path, const char *label)
{
	int64_t number = -1;
	char line[256];
	FILE *file;

	file = fopen(path, "re");
	if (file == NULL)
		err(EX_UNAVAILABLE, "%s", path);
	while (number == -1 && fgets(line, sizeof(line), file) != NULL)
		if (strncmp(line, label, strlen(label)) == 0)
			number = strtoll(line + strlen(label), NULL, 10);
	fclose(file);
	if (number == -1)
		errx(EX_UNAVAILABLE, "%s: no %s", path, label);
	return number;
}

/* The same for a number of kilobytes, in bytes. */
static int64_t
kilobytes(const char *path, const char *label)
{
	return number_after(path, label) * 1024;
}

static int64_t
pss_of(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
	return kilobytes(path, "Pss:");
}

int64_t
measure_pss(pid_t pid)
{
	return sum_with_children(pid, pss_of);
}

int64_t
measure_threads(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	return number_after(path, "Threads:");
}

/* Makes the kernel sum up its counters per CPU. Needs root; otherwise the figures are a bit older. */
static void
refresh(void)
{
	char byte;
	int fd;

	fd = open("/proc/sys/vm/stat_refresh", O_RDONLY | O_CLOEXEC);
	if (fd == -1)
		return;
	if (read(fd, &byte, 1) == -1)
		warn("stat_refresh");
	close(fd);
}

void
measure_shrink(void)
{
	glob_t all;

	if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &all) != 0)
		return;
	for (size_t i = 0; i < all.gl_pathc; i++) {
		int fd = open(all.gl_pathv[i], O_WRONLY | O_CLOEXEC);

		/* Some caches cannot be shrunk. */
		if (fd != -1 && write(fd, "1", 1) == -1 && errno != EINVAL)
			warn("%s", all.gl_pathv[i]);
		if (fd != -1)
			close(fd);
	}
	globfree(&all);
}

int64_t
measure_kernel(void)
{
	static const char meminfo[] = "/proc/meminfo";

	refresh();
	return kilobytes(meminfo, "Slab:") + kilobytes(meminfo, "KernelStack:") +
	    kilobytes(meminfo, "PageTables:");
}

int64_t
measure_available(void)
{
	refresh();
	return kilobytes("/proc/meminfo", "MemAvailable:");
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int64_t
measure_percentile(int64_t *values, size_t count, int p)
{
	if (count == 0)
		return -1;
	qsort(values, count, sizeof(*values), compare);
	return values[(count - 1) * (size_t)p / 100];
}
