# SPDX-License-Identifier: ISC
"""The program: from the command line to the exit status."""

import os
import sys

from .checks import examine
from .command_line import (
    UsageError, credentials, find_publisher, parse_arguments, publisher_environment, site_url)
from .examination import Examination
from .mask import mask
from .procfs import processes
from .publisher import Publisher
from .report import Report
from .settings import remember_passwords
from .site import Site

EX_USAGE = 64


def main(arguments):
    try:
        options = parse_arguments(arguments)
        url = site_url(options.url)
        given, headers = credentials(options)
        environment = publisher_environment(options.env_file)
        remember_passwords(environment)
        publisher = Publisher(find_publisher(options.publish), environment)
        if options.pid is not None and options.pid not in processes("tpi-streamd"):
            raise UsageError(f"--pid {options.pid}: no tpi-streamd with this id runs here")
    except UsageError as error:
        print(f"tpi-stream-doctor: {mask(str(error))} (see tpi-stream-doctor --help)", file=sys.stderr)
        return EX_USAGE
    report = Report(url, options.json)
    site = Site(url, headers, options.ca, options.timeout)
    for finding in examine(Examination(options, site, publisher, given)):
        report.add(finding)
    return report.finish()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Python would flush standard output once more at its exit, and fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
