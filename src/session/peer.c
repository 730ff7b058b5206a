/* SPDX-License-Identifier: ISC */
/*
 * peer: see peer.h.
 */
#include "session/peer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "wire/frame.h"

#define INPUT_SIZE 4096

/* The most reads of unread input before a close: more than an honest peer has sent. */
#define DISCARD_MAX 256

static void
refuse_role(struct peer *p)
{
	uint8_t record[FRAME_END_SIZE];
	size_t length;

	length = frame_end_request(record, p->head.id, FCGI_UNKNOWN_ROLE);
	stream_send_raw(p->stream, record, length);
}

static void
feed(struct peer *p, const uint8_t *input, size_t length)
{
	static struct log_limit limit;
	enum head_event event;
	uint32_t suppressed;
	size_t n;

	while (!p->gone) {
		n = head_feed(&p->head, input, length, &event);
		input += n;
		length -= n;
		if (!p->complete)
			stream_set_id(p->stream, p->head.id);
		switch (event) {
		case HEAD_MORE:
			return;
		case HEAD_REPLY:
			p->gone = !stream_send_raw(p->stream, p->head.reply, p->head.reply_length);
			break;
		case HEAD_COMPLETE:
			p->complete = true;
			break;
		case HEAD_ROLE:
			refuse_role(p);
			p->gone = true;
			break;
		case HEAD_ABORT:
			stream_finish(p->stream, "");
			p->gone = true;
			break;
		case HEAD_BAD:
			p->gone = true;
			if (log_allowed(&limit, 1000, &suppressed))
				LOG(LOG_LEVEL_WARN, "streamd", "bad FastCGI",
				    LOG_STR("error", p->head.error),
				    LOG_INT("suppressed", suppressed));
			break;
		}
	}
}

static void THREAD_STEP
read_input(struct peer *p)
{
	/* On the heap: a thread keeps the pages that its stack grows to. */
	uint8_t *input = malloc(INPUT_SIZE);
	ssize_t n;

	if (input == NULL) {
		p->gone = true;
		return;
	}
	n = recv(p->fd, input, INPUT_SIZE, MSG_DONTWAIT);
	if (n > 0)
		feed(p, input, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		p->gone = true;
	free(input);
}

bool
peer_wait(struct peer *p, int64_t deadline)
{
	short events;

	events = stream_wait(p->stream, deadline);
	if (events & POLLOUT)
		stream_flush(p->stream);
	if (events & ~POLLOUT)
		read_input(p);
	return events != 0;
}

bool
peer_read_head(struct peer *p, int64_t deadline, const _Atomic bool *draining, int grace_ms)
{
	struct stream_view view;
	bool hurried = false;

	/* The head has usually arrived already. */
	read_input(p);
	while (!p->complete && !p->gone && clock_ms() < deadline) {
		if (*draining && !hurried) {
			hurried = true;
			if (deadline > clock_ms() + grace_ms)
				deadline = clock_ms() + grace_ms;
		}
		peer_wait(p, deadline);
		stream_look(p->stream, &view);
		p->gone |= view.broken;
	}
	return p->complete && !p->gone;
}

/* Discards input; false if the other side has closed. */
static bool
discard_some(struct peer *p)
{
	uint8_t input[512];
	ssize_t n;

	n = recv(p->fd, input, sizeof(input), MSG_DONTWAIT);
	return n > 0 || (n == -1 && (errno == EAGAIN || errno == EINTR));
}

void
peer_flush(struct peer *p, int64_t deadline)
{
	struct stream_view view;
	short events;

	for (;;) {
		stream_look(p->stream, &view);
		if (view.broken || !view.pending || clock_ms() >= deadline)
			return;
		events = stream_wait(p->stream, deadline);
		if ((events & ~POLLOUT) != 0 && !discard_some(p))
			return;
		stream_flush(p->stream);
	}
}

void
peer_discard(struct peer *p)
{
	uint8_t input[512];
	int i;

	for (i = 0; i < DISCARD_MAX; i++)
		if (recv(p->fd, input, sizeof(input), MSG_DONTWAIT) <= 0)
			return;
}
