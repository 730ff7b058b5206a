/*
 * tls: TLS on a connection to Valkey, beneath hiredis: OpenSSL in the function table that hiredis
 * has from version 1. Both programs use it. In a build without TLS nothing can be configured, and no
 * URL asks for it.
 */
#ifndef TPI_VALKEY_TLS_H
#define TPI_VALKEY_TLS_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/settings.h"

/*
 * Takes VALKEY_TLS_CA, VALKEY_TLS_CERT and VALKEY_TLS_KEY, and reads the files to see that they
 * will do; used says whether any server is reached by TLS, because settings that do nothing would
 * make believe that one is. *s outlives all connections. Called once, before any thread and before
 * anything else uses OpenSSL. Returns 0, or -1 with one line in error that names the setting.
 */
int tls_configure(const struct settings *s, bool used, char *error, size_t error_size);

/*
 * Begins TLS on a context that has just been connected and whose socket does not block, and ends the
 * handshake by deadline (clock_ms()). The server's certificate is good: from an authority that is
 * trusted, valid now, and for host, a name or an address. Files that have changed are read again, so
 * that renewed ones count from the next connection on. False with one line in error, without the
 * name of the server; the context is then good for redisFree() alone. Thread-safe.
 */
bool tls_start(redisContext *context, const char *host, int64_t deadline, char *error,
    size_t error_size);

#endif
