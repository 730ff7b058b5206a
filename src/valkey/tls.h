/* SPDX-License-Identifier: ISC */
/*
 * tls: TLS for connections to Valkey: plugs OpenSSL into the function table of hiredis 1.0 and
 * later. Both programs use it. A build without TLS refuses its settings, and URLs that need it.
 */
#ifndef TPI_VALKEY_TLS_H
#define TPI_VALKEY_TLS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "config/settings.h"

/*
 * Takes VALKEY_TLS_CA, VALKEY_TLS_CERT and VALKEY_TLS_KEY from *s and reads their files to validate
 * them. used: whether any server is reached over TLS; if not, setting them is an error, because the
 * administrator would believe that connections are encrypted. *s must outlive all connections.
 * Call it once, before any thread starts and before anything else uses OpenSSL. False with an error
 * that names the setting.
 */
bool tls_configure(const struct settings *s, bool used, struct error *error);

/*
 * Performs the TLS handshake on a newly connected context with a non-blocking socket, by deadline
 * (clock_ms()). Requires a server certificate from a trusted authority that is currently valid and
 * issued for host, a name or an address. Files that changed are read again, so renewed certificates
 * are used from the next connection on. False with an error that does not include the name
 * of the server; the only valid call on the context is then redisFree(). Thread-safe.
 */
bool tls_start(redisContext *context, const char *host, int64_t deadline, struct error *error);

#endif
