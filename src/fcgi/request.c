/* SPDX-License-Identifier: ISC */
/*
 * request: libfcgi decodes the parameters. See request.h.
 *
 * The fields of FCGX_Request that are set here are public but documented as internal;
 * tests/unit/check_request.c fails when a version of the library changes what they do.
 */
#include "fcgi/request.h"

#include <errno.h>
#include <fcgiapp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "wire/frame.h"

/* The memory of libfcgi's three streams and their buffers. */
#define LIBFCGI_SIZE (32 * 1024)

void
request_library_init(void)
{
	FCGX_Init();
}

/*
 * libfcgi can read a head only from a descriptor. These socket pairs serve that purpose, and are
 * kept for later requests: we write to [0], the library reads from [1]. Kept pairs hold no data.
 */
#define PAIRS_MAX 8
static struct {
	pthread_mutex_t lock;
	int pairs[PAIRS_MAX][2]; /* guarded by lock */
	int count;               /* guarded by lock */
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
pair_close(const int pair[2])
{
	close(pair[0]);
	close(pair[1]);
}

/* What a request left in the socket would become part of another user's request. */
static bool
is_empty(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN;
}

static int
pair_take(int pair[2])
{
	const int buffer = 4 * HEAD_PARAMS_MAX;
	bool found;

	pthread_mutex_lock(&kept.lock);
	found = kept.count > 0;
	if (found)
		memcpy(pair, kept.pairs[--kept.count], sizeof(kept.pairs[0]));
	pthread_mutex_unlock(&kept.lock);
	if (found && is_empty(pair[1]))
		return 0;
	if (found)
		pair_close(pair);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == -1)
		return errno;
	/* The default suffices, unless it was lowered (net.core.wmem_default). */
	setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
	return 0;
}

static void
pair_keep(const int pair[2])
{
	bool keep;

	pthread_mutex_lock(&kept.lock);
	keep = kept.count < PAIRS_MAX;
	if (keep)
		memcpy(kept.pairs[kept.count++], pair, sizeof(kept.pairs[0]));
	pthread_mutex_unlock(&kept.lock);
	if (!keep)
		pair_close(pair);
}

/*
 * Writes BEGIN_REQUEST and the PARAMS, in records of the largest size. Returns 0 or an errno. One
 * call suffices: the socket's buffer is larger than the largest head.
 */
static int
write_canonical(int fd, const struct head *head)
{
	/* The last record is the empty one that ends the PARAMS. */
	enum { RECORDS_MAX = HEAD_PARAMS_MAX / FRAME_RECORD_MAX + 2 };
	uint8_t begin[FCGI_HEADER_LEN + sizeof(FCGI_BeginRequestBody)] = { 0 };
	uint8_t headers[RECORDS_MAX][FCGI_HEADER_LEN];
	struct iovec iov[1 + 2 * RECORDS_MAX] = { { begin, sizeof(begin) } };
	struct msghdr message = { .msg_iov = iov };
	size_t at = 0, n, size = sizeof(begin);
	int i = 0, count = 1;

	frame_record(begin, FCGI_BEGIN_REQUEST, head->id, sizeof(FCGI_BeginRequestBody));
	begin[FCGI_HEADER_LEN + 1] = FCGI_RESPONDER;
	do {
		n = head->params_length - at;
		if (n > FRAME_RECORD_MAX)
			n = FRAME_RECORD_MAX;
		frame_record(headers[i], FCGI_PARAMS, head->id, n);
		iov[count++] = (struct iovec){ headers[i++], FCGI_HEADER_LEN };
		iov[count++] = (struct iovec){ head->params + at, n };
		size += FCGI_HEADER_LEN + n;
		at += n;
	} while (n > 0);
	message.msg_iovlen = (size_t)count;
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size ? 0 : ENOBUFS;
}

static void
fcgi_free(FCGX_Request *f)
{
	FCGX_Free(f, 0);
	free(f);
}

/*
 * libfcgi aborts when an allocation fails, so check first that there is enough memory. Without
 * volatile, clang removes the allocation and the check.
 */
static bool
is_room(const struct head *head)
{
	void *volatile room = malloc(LIBFCGI_SIZE + 2 * head->params_length);

	free(room);
	return room != NULL;
}

int
request_parse(struct request *r, const struct head *head)
{
	FCGX_Request *f;
	const char *script, *info, *value;
	char *const *params;
	int pair[2], error;

	memset(r, 0, sizeof(*r));
	if (!is_room(head))
		return ENOMEM;
	error = pair_take(pair);
	if (error != 0)
		return error;
	error = write_canonical(pair[0], head);
	f = error == 0 ? malloc(sizeof(*f)) : NULL;
	if (f == NULL) {
		pair_close(pair);
		return error != 0 ? error : ENOMEM;
	}
	/*
	 * -1: on a head that it rejects the library returns an error instead of accepting another.
	 * keepConnection: the library does not close a descriptor that it has not opened.
	 */
	FCGX_InitRequest(f, -1, 0);
	f->ipcFd = pair[1];
	f->keepConnection = 1;
	f->detached = 1;
	if (FCGX_Accept_r(f) != 0) {
		/* It has closed ipcFd. */
		close(pair[0]);
		free(f);
		return ENOMEM;
	}
	f->ipcFd = -1;
	/* The library has read everything, up to the empty record that ends the PARAMS. */
	pair_keep(pair);

	params = f->envp;
	script = params_get(params, "SCRIPT_NAME", NULL);
	info = params_get(params, "PATH_INFO", NULL);
	if (asprintf(&r->path, "%s%s", script != NULL ? script : "",
		info != NULL ? info : "") == -1) {
		r->path = NULL;
		fcgi_free(f);
		return ENOMEM;
	}
	r->fcgi = f;
	value = params_get(params, "REQUEST_METHOD", NULL);
	r->method = value != NULL ? value : "";
	value = params_get(params, "QUERY_STRING", NULL);
	r->query = value != NULL ? value : "";
	value = params_get(params, "HTTP_LAST_EVENT_ID", NULL);
	r->last_event_id = value != NULL ? value : "";
	return 0;
}

char *const *
request_params(const struct request *r)
{
	return r->fcgi->envp;
}

const char *
params_get(char *const *params, const char *name, bool *conflict)
{
	const char *first = NULL, *value;
	size_t length = strlen(name);

	for (; *params != NULL; params++) {
		/* Most names differ in the first byte: skip the call. */
		if (**params != *name || strncmp(*params, name, length) != 0 ||
		    (*params)[length] != '=')
			continue;
		value = *params + length + 1;
		if (first == NULL)
			first = value;
		else if (conflict != NULL && strcmp(first, value) != 0)
			*conflict = true;
	}
	return first;
}

void
request_free(struct request *r)
{
	if (r->fcgi != NULL)
		fcgi_free(r->fcgi);
	r->fcgi = NULL;
	free(r->path);
	r->path = NULL;
	r->method = r->query = r->last_event_id = NULL;
}
