#!/bin/sh
# SPDX-License-Identifier: ISC
# Checks the manual pages with mandoc; a warning is a failure.

if ! command -v mandoc >/dev/null; then
	echo 'mandoc not found: skipped'
	exit 77
fi
cd "${srcdir:-.}" || exit 99
exec mandoc -T lint -W warning man/tpi-streamd.8 man/tpi-publish.1 man/tpi-stream-doctor.1 man/tpi-stream.7
