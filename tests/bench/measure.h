/* SPDX-License-Identifier: ISC */
/*
 * measure: what the kernel knows about the processes under test and about the machine. All figures
 * are read from outside; nothing is asked of the processes.
 */
#ifndef TPI_BENCH_MEASURE_H
#define TPI_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The monotonic clock, in nanoseconds. */
int64_t measure_now(void);

/*
 * User and system time of a process and its children in nanoseconds, by their own clocks: what
 * others do on the machine is not in it. Ended threads are included, ended children are not; exact
 * where threads sleep. 0 for pid 0; ends the program with a message where the process is gone, as
 * do the others.
 */
int64_t measure_cpu(pid_t pid);

/*
 * The proportional set size of a process and its children, in bytes: neither kernel stacks nor
 * sockets are in it. 0 for pid 0.
 */
int64_t measure_pss(pid_t pid);

/*
 * What the kernel itself holds for all processes: slabs (sockets, files), stacks, page tables; in
 * bytes.
 */
int64_t measure_kernel(void);

/* Memory of the whole machine that is still available, in bytes. Others' needs are in it, too. */
int64_t measure_available(void);

/* The p-th per cent (0 to 100) of count values, which it sorts; -1 where there are none. */
int64_t measure_percentile(int64_t *values, size_t count, int p);

#endif
