#!/bin/sh
# SPDX-License-Identifier: ISC
# Prints eventsource.js: eventsource.js.in with tpi-stream.js in its middle.
#
#	./build.sh > eventsource.js
set -eu
cd "$(dirname "$0")"
awk '
	$0 == "@tpi-stream.js@" {
		while ((getline line < "tpi-stream.js") > 0) {
			sub(/^export /, "", line)
			print line
		}
		next
	}
	{ print }
' eventsource.js.in
