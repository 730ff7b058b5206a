/* SPDX-License-Identifier: ISC */
/*
 * wakeup: the JSON payload of a wake-up, built by tpi-publish and checked by tpi-streamd before it
 * goes to a browser. Anyone who can publish on Valkey can send anything, so the check is strict
 * (tpi-stream(7), CHANNELS AND PAYLOADS).
 */
#ifndef TPI_WIRE_WAKEUP_H
#define TPI_WIRE_WAKEUP_H

#include <stddef.h>
#include <stdint.h>

#define WAKEUP_FRAME_MAX 16384 /* bytes of "data: ...\n\n", blank line included */

/*
 * Returns NULL if the payload may be sent: it passes json_check(), no member "event" of the object
 * is "sync", and its event takes at most WAKEUP_FRAME_MAX bytes. Otherwise returns what is wrong: a
 * static text that completes "the payload ...", such as "is not UTF-8". Thread-safe.
 */
const char *wakeup_check(const char *payload, size_t length);

/*
 * Build a payload: {"id":"...","event":"..."}, or {"event":"...","<member>":item,
 * "projectId":project} with "targetId":target unless target is 0. Nothing is checked: pass the
 * result to wakeup_check(). The caller frees it; NULL means out of memory.
 */
char *wakeup_notification(const char *id, const char *event);
char *wakeup_item(const char *event, const char *member, int32_t item, int32_t project,
    int32_t target);

#endif
