/* SPDX-License-Identifier: ISC */
/*
 * wakeup: the JSON payload of a wake-up: built by tpi-publish, checked by tpi-streamd before it
 * goes to any browser. Whoever can publish can send anything, so the check is strict: one JSON
 * object (RFC 8259 to the letter, white space around it allowed, nothing else before or behind it),
 * UTF-8, no \u0000, nested at most WAKEUP_DEPTH_MAX deep (the object itself is level 1), whose
 * event-stream frame is at most WAKEUP_FRAME_MAX bytes, and whose "event" is not "sync" in any
 * spelling.
 */
#ifndef TPI_WIRE_WAKEUP_H
#define TPI_WIRE_WAKEUP_H

#include <stddef.h>
#include <stdint.h>

#define WAKEUP_FRAME_MAX 16384 /* bytes of "data: ...\n\n", blank line included */
#define WAKEUP_DEPTH_MAX 32

/*
 * NULL where the payload may be sent, else what is wrong with it: a static text that goes on behind
 * "the payload", such as "is not UTF-8". Thread-safe.
 */
const char *wakeup_check(const char *payload, size_t length);

/* The same without a word about the size of the frame and about "event". */
const char *wakeup_json_check(const char *text, size_t length);

/*
 * Payloads: {"id":"...","event":"..."}, and {"event":"...","<member>":item,"projectId":project}
 * followed by "targetId":target unless target is 0. The caller frees the result; NULL means no
 * memory. Texts are UTF-8. Check the result with wakeup_check().
 */
char *wakeup_notification(const char *id, const char *event);
char *wakeup_item(const char *event, const char *member, int32_t item, int32_t project,
    int32_t target);

#endif
