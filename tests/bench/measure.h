/*
 * measure: what the kernel knows about the processes under test and about the machine. All figures
 * are read from outside; nothing is asked of the processes.
 */
#ifndef TPI_BENCH_MEASURE_H
#define TPI_BENCH_MEASURE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MEASURE_PIDS_MAX 16

struct measure {
	pid_t pids[MEASURE_PIDS_MAX]; /* whose figures are added up */
	size_t count;
};

/* The monotonic clock, in nanoseconds. */
int64_t measure_now(void);

/*
 * User and system time of the processes in nanoseconds, ended threads included; exact where their
 * threads sleep. Ends the program with a message where a process is gone, as do the others.
 */
int64_t measure_cpu(const struct measure *m);

/* The processes' proportional set size, in bytes: neither kernel stacks nor sockets are in it. */
int64_t measure_pss(const struct measure *m);

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
