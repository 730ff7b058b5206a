"""The program."""

import os
import sys

from .checks import examine
from .command_line import (
    UsageError, credentials, find_publisher, parse_arguments, publisher_environment,
    site_url)
from .examination import Examination
from .procfs import processes
from .publisher import Publisher
from .report import Report
from .site import Site

EX_USAGE = 64


def main(arguments):
    try:
        options = parse_arguments(arguments)
        url = site_url(options.url)
        given, headers, words = credentials(options)
        publisher = Publisher(find_publisher(options.publish), publisher_environment(options.env_file))
        if options.pid is not None and options.pid not in processes("tpi-streamd"):
            raise UsageError(f"--pid {options.pid}: no tpi-streamd runs here with this id")
    except UsageError as error:
        print(f"tpi-stream-doctor: {error} (see tpi-stream-doctor --help)", file=sys.stderr)
        return EX_USAGE
    report = Report(url, words, options.json)
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
        # What is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
