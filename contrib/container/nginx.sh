#!/bin/sh
# SPDX-License-Identifier: ISC
# Starts nginx in a container. It listens on IPv4 and, where the kernel has it, on IPv6: nginx does not
# start if it cannot open one of its sockets, so try first. Arguments are passed to nginx.

echo 'listen [::]:8080 backlog=4096;' >/tmp/listen-8080.conf
echo 'listen [::]:8081;' >/tmp/listen-8081.conf
nginx -q -e stderr -t "$@" 2>/dev/null || rm /tmp/listen-8080.conf /tmp/listen-8081.conf

exec nginx -e stderr -g 'daemon off;' "$@"
