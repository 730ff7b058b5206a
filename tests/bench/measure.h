/* SPDX-License-Identifier: ISC */
/*
 * measure: CPU time and memory of the processes under test and of the machine, as the kernel reports
 * them.
 */
#ifndef TPI_BENCH_MEASURE_H
#define TPI_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The monotonic clock, in nanoseconds. */
int64_t measure_now(void);

/*
 * User and system time of a process and its children in nanoseconds, by their own clocks, so without
 * other processes. Includes ended threads, but not ended children; exact for threads that sleep. 0 for
 * pid 0. Exits with a message if the process has ended, as do the others.
 */
int64_t measure_cpu(pid_t pid);

/*
 * The proportional set size of a process and its children, in bytes, without kernel stacks and
 * sockets. 0 for pid 0.
 */
int64_t measure_pss(pid_t pid);

/* The number of threads of a process, without its children. */
int64_t measure_threads(pid_t pid);

/*
 * Makes the kernel free the slabs that earlier runs left empty: new objects would fill them, and
 * measure_kernel() would not grow. Only for root.
 */
void measure_shrink(void);

/*
 * The kernel's own memory for all processes, in bytes: slabs (sockets, files), stacks, page tables.
 */
int64_t measure_kernel(void);

/* The available memory of the machine in bytes, which depends on all its processes. */
int64_t measure_available(void);

/* The p-th percentile (0 to 100) of count values, which it sorts; -1 without values. */
int64_t measure_percentile(int64_t *values, size_t count, int p);

#endif
