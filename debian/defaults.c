/*
 * defaults: prints /etc/default/tpi-stream, with every setting of tpi-streamd commented out. It is
 * run while the package is built, and reads the daemon's own table, so that the file says what the
 * program does.
 */
#include <stdlib.h>

#include "config/settings.h"

static const char head[] =
    "# Settings of tpi-streamd, for tpi-stream.service. tpi-streamd(8) explains each.\n"
    "#\n"
    "# All are here with their defaults. To change one take its # away, and then:\n"
    "#\n"
    "#\t(set -a; . /etc/default/tpi-stream; tpi-streamd --check-config)\n"
    "#\tsystemctl restart tpi-stream.service\n"
    "#\n"
    "# The stream of notifications is open to whom the web server has verified. Issues are closed\n"
    "# to all until TPI_PROJECT_ACCESS says who may read them. Only root has to be able to read\n"
    "# this file: with a password in it, chmod 600.\n";

int
main(void)
{
	char range[256];
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	fputs(head, stdout);
	for (size_t i = 0; i < count; i++) {
		if ((table[i].users & SETTINGS_STREAMD) == 0)
			continue;
		settings_describe_range(&table[i], range, sizeof(range));
		printf("\n# %s: %s\n", table[i].help, range);
		if (table[i].offset == offsetof(struct settings, listen))
			puts("# (leave it: systemd passes the socket of tpi-stream.socket)");
		printf("#%s=%s\n", table[i].name, table[i].standard);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
