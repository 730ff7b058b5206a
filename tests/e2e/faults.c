/* SPDX-License-Identifier: ISC */
/*
 * faults: a library for LD_PRELOAD that makes chosen calls of the process fail. A test controls it by
 * struct control in a file that both map ($FAULTS_CONTROL; faults.py). The library counts the calls
 * of each function; when the countdown for the chosen one ends, that call fails with the chosen errno.
 *
 * It never fails allocations by libfcgi, by libseccomp, nor by the hi_ functions of hiredis 0.14: these
 * abort or crash when there is no memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum function {
	F_MALLOC, F_CALLOC, F_REALLOC, /* these come first: see fails() */
	F_PTHREAD_CREATE, F_ACCEPT4, F_SOCKET, F_CONNECT, F_SEND, F_RECV,
	F_READ, F_WRITE, F_POLL, F_PPOLL, F_SENDMSG, F_SOCKETPAIR, F_EVENTFD, F_SETSOCKOPT, F_IOCTL, F_OPEN, F_COUNT
};

struct control {
	atomic_int function;  /* the one that fails; -1: none */
	atomic_int countdown; /* the call that brings it to 0 fails */
	atomic_int error;     /* its errno */
	atomic_int failed;    /* calls that have failed */
	atomic_int repeated;  /* further calls in a row that fail, too */
	atomic_int set_back;  /* seconds subtracted from the wall clock */
	atomic_int calls[F_COUNT];
};

static struct control *control;
static struct library {
	const char *name;
	uintptr_t start, end;
} libraries[] = { { .name = "libfcgi.so" }, { .name = "libseccomp.so" } };

#define LIBRARIES (sizeof(libraries) / sizeof(libraries[0]))

static int
note_library(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct library *l = libraries;
	int i;

	(void)size;
	(void)arg;
	while (l < libraries + LIBRARIES && strstr(info->dlpi_name, l->name) == NULL)
		l++;
	if (l == libraries + LIBRARIES)
		return 0;
	l->start = info->dlpi_addr;
	for (i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD)
			l->end = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr +
			    info->dlpi_phdr[i].p_memsz;
	return 0;
}

static void __attribute__((constructor))
attach(void)
{
	const char *path = getenv("FAULTS_CONTROL");
	int fd;

	dl_iterate_phdr(note_library, NULL);
	if (path == NULL)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd == -1)
		abort();
	control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (control == MAP_FAILED)
		abort();
	close(fd);
}

/* Whether the caller would abort without memory. */
static int
aborts(void *caller)
{
	Dl_info info;

	for (size_t i = 0; i < LIBRARIES; i++)
		if ((uintptr_t)caller >= libraries[i].start && (uintptr_t)caller < libraries[i].end)
			return 1;
	return dladdr(caller, &info) != 0 && info.dli_sname != NULL &&
	    strncmp(info.dli_sname, "hi_", 3) == 0;
}

/* Counts the call, and returns whether it must fail. */
static int
fails(enum function f, void *caller)
{
	struct control *c = control;
	int left;

	if (c == NULL || (f <= F_REALLOC && aborts(caller)))
		return 0;
	atomic_fetch_add(&c->calls[f], 1);
	if (atomic_load(&c->function) != (int)f)
		return 0;
	left = atomic_fetch_sub(&c->countdown, 1);
	if (left > 1 || left < 1 - atomic_load(&c->repeated))
		return 0;
	atomic_fetch_add(&c->failed, 1);
	errno = atomic_load(&c->error);
	return 1;
}

#define CALLER __builtin_return_address(0)
#define NEXT(name) ((__typeof__(&name))next(#name))

static void *
next(const char *name)
{
	return dlsym(RTLD_NEXT, name);
}

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

void *
malloc(size_t size)
{
	return fails(F_MALLOC, CALLER) ? NULL : __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
	return fails(F_CALLOC, CALLER) ? NULL : __libc_calloc(count, size);
}

void *
realloc(void *p, size_t size)
{
	return fails(F_REALLOC, CALLER) ? NULL : __libc_realloc(p, size);
}

char *
strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = fails(F_MALLOC, CALLER) ? NULL : __libc_malloc(size);

	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *arg)
{
	return fails(F_PTHREAD_CREATE, CALLER) ? errno
					       : NEXT(pthread_create)(thread, attributes, run, arg);
}

int
accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	return fails(F_ACCEPT4, CALLER) ? -1 : NEXT(accept4)(fd, address, length, flags);
}

int
socket(int family, int type, int protocol)
{
	return fails(F_SOCKET, CALLER) ? -1 : NEXT(socket)(family, type, protocol);
}

int
connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return fails(F_CONNECT, CALLER) ? -1 : NEXT(connect)(fd, address, length);
}

ssize_t
send(int fd, const void *bytes, size_t length, int flags)
{
	return fails(F_SEND, CALLER) ? -1 : NEXT(send)(fd, bytes, length, flags);
}

/* stream.c sends with syscall(). */
long
syscall(long number, ...)
{
	long a[6];
	va_list ap;

	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_sendto && fails(F_SEND, CALLER))
		return -1;
	return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

ssize_t
recv(int fd, void *bytes, size_t length, int flags)
{
	return fails(F_RECV, CALLER) ? -1 : NEXT(recv)(fd, bytes, length, flags);
}

ssize_t
read(int fd, void *bytes, size_t length)
{
	return fails(F_READ, CALLER) ? -1 : NEXT(read)(fd, bytes, length);
}

ssize_t
write(int fd, const void *bytes, size_t length)
{
	return fails(F_WRITE, CALLER) ? -1 : NEXT(write)(fd, bytes, length);
}

int
poll(struct pollfd *fds, nfds_t count, int timeout)
{
	return fails(F_POLL, CALLER) ? -1 : NEXT(poll)(fds, count, timeout);
}

int
ppoll(struct pollfd *fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
	return fails(F_PPOLL, CALLER) ? -1 : NEXT(ppoll)(fds, count, timeout, mask);
}

ssize_t
sendmsg(int fd, const struct msghdr *message, int flags)
{
	return fails(F_SENDMSG, CALLER) ? -1 : NEXT(sendmsg)(fd, message, flags);
}

int
socketpair(int domain, int type, int protocol, int fds[2])
{
	return fails(F_SOCKETPAIR, CALLER) ? -1 : NEXT(socketpair)(domain, type, protocol, fds);
}

int
clock_gettime(clockid_t clock, struct timespec *now)
{
	int result = (int)syscall(SYS_clock_gettime, clock, now);

	if (result == 0 && clock == CLOCK_REALTIME && control != NULL)
		now->tv_sec -= atomic_load(&control->set_back);
	return result;
}

int eventfd(unsigned initial, int flags);
int open64(const char *path, int flags, ...);

int
eventfd(unsigned initial, int flags)
{
	return fails(F_EVENTFD, CALLER) ? -1 : NEXT(eventfd)(initial, flags);
}

int
setsockopt(int fd, int level, int name, const void *value, socklen_t length)
{
	return fails(F_SETSOCKOPT, CALLER) ? -1 : NEXT(setsockopt)(fd, level, name, value, length);
}

int
ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return fails(F_IOCTL, CALLER) ? -1 : NEXT(ioctl)(fd, request, arg);
}

int
open64(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = va_arg(ap, int);
	va_end(ap);
	return fails(F_OPEN, CALLER) ? -1 : NEXT(open64)(path, flags, mode);
}
