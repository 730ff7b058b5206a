/* SPDX-License-Identifier: ISC */
/*
 * schedule: a library for LD_PRELOAD that changes the order in which threads run, by a seed
 * ($SCHEDULE_SEED).
 *
 * At each point where threads affect one another (enum point) the calling thread may yield or
 * sleep. Rare but legal events become common: a socket takes only some of the bytes, or none, and
 * ppoll() and waits for a condition end for no reason.
 *
 * Each thread has its own random generator, seeded with the seed and the thread's number. The seed
 * also decides which points have delays and how long these are. So a seed repeats the decisions, but
 * not the timing of the kernel and of the peers.
 *
 * It sleeps with ppoll(), which the daemon itself calls, so the daemon's sandbox permits it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum point {
	LOCK, LOCKED, UNLOCK, UNLOCKED, WAIT, SIGNAL, SIGNALLED, KILL, KILLED, SEND, SENT, WRITE,
	WRITTEN, RECEIVE, POLL, POLLED, CREATED, START, CLOSE, ACCEPTED, POINT_COUNT
};

/* At a point, one of `chance` calls is delayed by up to longest_us. chance 0: none is. */
struct profile {
	uint32_t chance;
	uint32_t longest_us;
};

/* The mean delay at a point; rare delays are long ones. */
#define MEAN_US 20

/* Now and then a thread stops for so long that the others can do many steps. */
#define PAUSE_US        30000
#define FIRST_PAUSE_MAX 128 /* steps */
#define NEXT_PAUSE_MAX  2048

#define ENDS_EARLY 16 /* one in this many waits */
#define SHORT_SEND 12 /* one in this many sends */

static uint64_t seed; /* 0: change nothing */
static struct profile profiles[POINT_COUNT];
static atomic_uint thread_count;

static __thread uint64_t state; /* of the thread's generator; 0: not seeded yet */
static __thread uint32_t steps_left; /* until the next pause */

#define NEXT(name)                                                                                \
	({                                                                                        \
		static _Atomic(void *) found;                                                     \
		if (found == NULL)                                                                \
			found = dlsym(RTLD_NEXT, #name);                                          \
		(__typeof__(&name))found;                                                         \
	})

/* splitmix64 */
static uint64_t
mix(uint64_t *s)
{
	uint64_t z = *s += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static void
seed_thread(unsigned number)
{
	state = seed ^ (uint64_t)number << 40;
	mix(&state);
	steps_left = 1 + (uint32_t)(mix(&state) % FIRST_PAUSE_MAX);
}

/* A number below limit. */
static uint32_t
draw(uint32_t limit)
{
	if (state == 0)
		seed_thread(atomic_fetch_add(&thread_count, 1));
	return (uint32_t)(mix(&state) % limit);
}

static void __attribute__((constructor))
read_seed(void)
{
	static const uint32_t longest[] = { 0, 100, 1000, 10000 };
	const char *text = getenv("SCHEDULE_SEED");
	uint64_t s;

	if (text == NULL)
		return;
	s = seed = strtoull(text, NULL, 10);
	for (int i = 0; i < POINT_COUNT; i++) {
		struct profile *p = &profiles[i];

		p->longest_us = longest[mix(&s) % 4];
		if (mix(&s) % 2)
			p->chance = p->longest_us == 0 ? 2 : p->longest_us / 2 / MEAN_US;
	}
}

static void
delay(uint32_t us)
{
	const struct timespec limit = { .tv_sec = 0, .tv_nsec = us != 0 ? (long)us * 1000 : 1 };
	int error = errno;

	NEXT(syscall)(SYS_ppoll, NULL, 0, &limit, NULL, 8);
	errno = error;
}

static void
at(enum point point)
{
	const struct profile *p = &profiles[point];

	if (seed == 0)
		return;
	if (p->chance != 0 && draw(p->chance) == 0)
		delay(draw(p->longest_us + 1));
	if (steps_left == 0 || --steps_left > 0)
		return;
	steps_left = 1 + draw(NEXT_PAUSE_MAX);
	delay(draw(PAUSE_US));
}

/* Whether a call gets the rare result, as one in `of` calls do. */
static int
rarely(uint32_t of)
{
	return seed != 0 && draw(of) == 0;
}

int
pthread_mutex_lock(pthread_mutex_t *lock)
{
	int result;

	at(LOCK);
	result = NEXT(pthread_mutex_lock)(lock);
	at(LOCKED);
	return result;
}

int
pthread_mutex_unlock(pthread_mutex_t *lock)
{
	int result;

	at(UNLOCK);
	result = NEXT(pthread_mutex_unlock)(lock);
	at(UNLOCKED);
	return result;
}

int
pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until)
{
	at(WAIT);
	if (rarely(ENDS_EARLY)) {
		pthread_mutex_unlock(lock);
		return pthread_mutex_lock(lock);
	}
	return NEXT(pthread_cond_timedwait)(cond, lock, until);
}

int
pthread_cond_signal(pthread_cond_t *cond)
{
	int result;

	at(SIGNAL);
	result = NEXT(pthread_cond_signal)(cond);
	at(SIGNALLED);
	return result;
}

int
pthread_cond_broadcast(pthread_cond_t *cond)
{
	int result;

	at(SIGNAL);
	result = NEXT(pthread_cond_broadcast)(cond);
	at(SIGNALLED);
	return result;
}

int
pthread_kill(pthread_t thread, int number)
{
	int result;

	at(KILL);
	result = NEXT(pthread_kill)(thread, number);
	at(KILLED);
	return result;
}

struct start {
	void *(*run)(void *);
	void *arg;
	unsigned number;
};

static void *
run_thread(void *arg)
{
	struct start s = *(struct start *)arg;

	free(arg);
	seed_thread(s.number);
	at(START);
	return s.run(s.arg);
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
	struct start *s;
	int error;

	if (seed == 0)
		return NEXT(pthread_create)(thread, attributes, run, arg);
	s = malloc(sizeof(*s));
	if (s == NULL)
		return EAGAIN;
	*s = (struct start) { run, arg, atomic_fetch_add(&thread_count, 1) };
	error = NEXT(pthread_create)(thread, attributes, run_thread, s);
	if (error != 0)
		free(s);
	at(CREATED);
	return error;
}

/* stream.c sends with syscall(). */
long
syscall(long number, ...)
{
	long a[6], result;
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number != SYS_sendto)
		return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	at(SEND);
	if (rarely(SHORT_SEND))
		a[2] = (long)draw((uint32_t)a[2]);
	if (a[2] == 0) {
		errno = EAGAIN;
		return -1;
	}
	result = NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
	at(SENT);
	return result;
}

ssize_t
send(int fd, const void *bytes, size_t length, int flags)
{
	at(SEND);
	return NEXT(send)(fd, bytes, length, flags);
}

ssize_t
write(int fd, const void *bytes, size_t length)
{
	ssize_t result;

	at(WRITE);
	result = NEXT(write)(fd, bytes, length);
	at(WRITTEN);
	return result;
}

ssize_t
recv(int fd, void *bytes, size_t length, int flags)
{
	at(RECEIVE);
	return NEXT(recv)(fd, bytes, length, flags);
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
	int result;

	at(POLL);
	result = NEXT(poll)(fds, count, timeout);
	at(POLLED);
	return result;
}

int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	int result = -1;

	at(POLL);
	if (rarely(ENDS_EARLY))
		errno = EINTR;
	else
		result = NEXT(ppoll)(fds, count, timeout, mask);
	at(POLLED);
	return result;
}

int
accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	int result = NEXT(accept4)(fd, address, length, flags);

	at(ACCEPTED);
	return result;
}

int
close(int fd)
{
	at(CLOSE);
	return NEXT(close)(fd);
}
