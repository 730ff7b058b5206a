/* SPDX-License-Identifier: ISC */
/*
 * defaults: prints /etc/default/tpi-stream, with every setting of tpi-streamd commented out. The
 * package build runs it. It reads the daemon's own table of settings, so the file cannot disagree
 * with the program.
 */
#include <stdlib.h>

#include "config/settings.h"

static const char head[] =
    "# Settings of tpi-streamd for tpi-stream.service. See tpi-streamd(8).\n"
    "#\n"
    "# Each setting is listed with its default. To change one, remove the # and run:\n"
    "#\n"
    "#\t(set -a; . /etc/default/tpi-stream; tpi-streamd --check-config)\n"
    "#\tsystemctl restart tpi-stream.service\n"
    "#\n"
    "# By default, every user that the web server has verified can open the stream of their\n"
    "# notifications and no other: set TPI_PROJECT_ACCESS. Only root can read this file, which may\n"
    "# contain passwords.\n";

int
main(void)
{
	char range[256];
	const struct setting *table;
	size_t count;

	table = settings_table(&count);
	fputs(head, stdout);
	for (size_t i = 0; i < count; i++) {
		if ((table[i].programs & SETTINGS_STREAMD) == 0)
			continue;
		settings_describe_range(&table[i], range, sizeof(range));
		printf("\n# %s: %s\n", table[i].help, range);
		if (table[i].offset == offsetof(struct settings, listen))
			puts("# (leave unset: systemd passes the socket of tpi-stream.socket)");
		printf("#%s=%s\n", table[i].name, table[i].default_value);
	}
	return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
