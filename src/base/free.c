/* SPDX-License-Identifier: ISC */
/*
 * free: a free() that overwrites every block before it returns it to the allocator. Cookies and
 * passwords pass through libfcgi, curl, hiredis and OpenSSL, none of which overwrites all of its
 * copies. Both programs link this free(), so it takes precedence over the C library's, in libraries
 * as well.
 *
 * It calls the next free() in the search order, so that a preloaded allocator still works. Not in
 * builds with sanitizers, which have a free() of their own.
 */
#include "config.h"

#ifndef TPI_SANITIZED

#include <dlfcn.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void (*_Atomic next_free)(void *);

/*
 * Before main(), so there is one thread. The first free() calls it, if that comes earlier. The
 * constructor must not call free() instead: compilers remove malloc() with its free().
 */
static void __attribute__((constructor))
find_next(void)
{
	static bool finding;

	/* dlsym() itself may call free(): such a block leaks. */
	if (finding)
		return;
	finding = true;
	next_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
	if (next_free == NULL)
		abort();
}

/*
 * Not inlined: where the compiler sees the size that was allocated, _FORTIFY_SOURCE would take the
 * rest of the block, which is wiped as well, for an overflow.
 */
void __attribute__((noinline))
free(void *p)
{
	if (p == NULL)
		return;
	if (next_free == NULL)
		find_next();
	explicit_bzero(p, malloc_usable_size(p));
	if (next_free != NULL)
		next_free(p);
}

#endif
