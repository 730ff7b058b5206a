#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the distribution twice, under different names and settings of the environment, and compares
# what is installed byte by byte.
#
#   tests/reproducible.sh [BUILD-DIRECTORY]
#
# BUILD-DIRECTORY is a configured one, in which `make dist` works; _build by default. Takes less than a
# minute. The last line is "N passed, M failed". Exit status: 0 equal, 1 they differ, 69 a build failed.

set -u -o pipefail
unset MAKEFLAGS MAKELEVEL CFLAGS CPPFLAGS LDFLAGS

source=$(cd "$(dirname "$0")/.." && pwd -P)
work=$(mktemp -d) || exit 69
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

die()
{
	echo "tests/reproducible.sh: $1" >&2
	exit 69
}

# build DIRECTORY BUILD-DIRECTORY: builds there, and installs in DIRECTORY/installed.
build()
{
	cp -R "$work/dist" "$1" && mkdir -p "$2" && cd "$2" &&
	    "$1/configure" -q --with-systemdsystemunitdir=/lib/systemd/system >"$work/out" 2>&1 &&
	    make -s -j2 >"$work/out" 2>&1 && make -s install DESTDIR="$1/installed" >"$work/out" 2>&1 ||
	    { cat "$work/out"; die "cannot build in $2"; }
}

cd "${1:-$source/_build}" && make -s distdir distdir="$work/dist" >"$work/out" 2>&1 ||
    { cat "$work/out"; die "cannot make the distribution"; }

(umask 022; LC_ALL=C TZ=UTC build "$work/one" "$work/one/_build") || exit
(umask 077; LC_ALL=C.UTF-8 TZ=Asia/Kolkata build "$work/another-name" "$work/outside") || exit

passed=0 failed=0
cd "$work/one/installed" || exit 69
while IFS= read -r -d '' file; do
	if cmp "$file" "$work/another-name/installed/$file"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
done < <(find . -type f -print0)
[ "$passed" -gt 5 ] || failed=$((failed + 1))
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
