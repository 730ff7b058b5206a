#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the programs in a fresh Debian 13 root made with debootstrap and runs the tests that involve
# Valkey there: Debian 13 has a hiredis with TLS, and Valkey rather than Redis. Most of them run with
# address,undefined, too.
#
#   tests/trixie.sh [MIRROR]
#
# MIRROR defaults to http://deb.debian.org/debian. Takes several minutes and 1.5 GB in TMPDIR.
# Installs, starts and changes nothing on the machine itself. The line before the last one says which
# server was tested and sums up the end-to-end tests; the last line is "N passed, M failed".
# Exit status: 0 all passed, 1 a test failed, 77 skipped: not root, or debootstrap is missing or cannot
# fetch Debian 13.
#
# shellcheck disable=SC1091,SC2317 # root.sh; functions that check() calls
# shellcheck source=tests/root.sh

set -u -o pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
unset MAKEFLAGS MAKELEVEL

source=$(cd "$(dirname "$0")/.." && pwd -P)
mirror=${1:-http://deb.debian.org/debian}

. "$source/tests/root.sh"
need_suite "$mirror" trixie

declare -A jobs # what runs in the background: process groups by name
work=$(mktemp -d) && chmod 755 "$work" || exit 1
trap '[ -z "${jobs[*]}" ] || kill -9 -- "${jobs[@]/#/-}"; rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What the build and the tests below need; mandoc is for `make check`.
packages="automake check gcc haproxy libc6-dev libcurl4-openssl-dev libfcgi-dev libhiredis-dev
    libjson-c-dev libmd-dev libseccomp-dev libssl-dev make mandoc openssl pkg-config python3-pytest
    uthash-dev valkey-server"

make_root()
{
	printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d" &&
	    chmod 755 "$work/root/usr/sbin/policy-rc.d" &&
	    copy_sources "$work/root/src" || return
	# shellcheck disable=SC2086 # a list
	apt "$work/root" install $packages
}

# build NAME [OPTION...]: builds in /NAME of the root; a warning is an error.
build()
{
	# shellcheck disable=SC2016
	within "$work/root" -- sh -euc '
		cd /src && autoreconf -i
		mkdir "/$1" && cd "/$1" && shift
		/src/configure -q --enable-werror --with-tls "$@"
		make -s -j2' sh "$@"
}

# end_to_end NAME TEST...: runs end-to-end tests with the programs built in /NAME.
end_to_end()
{
	# shellcheck disable=SC2016
	within "$work/root" -- sh -euc '
		mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
		mount -t tmpfs tmpfs /dev/shm
		cd /src/tests/e2e && export TPI_BUILD="/$1" && shift
		python3 -m pytest -q -m "not long" "$@"' sh "$@"
}

# start NAME TEST...: runs end_to_end in the background.
start()
{
	set -m # a process group for the job
	end_to_end "$@" >"$work/$1.out" 2>&1 &
	jobs[$1]=$!
	set +m
}

# finished NAME: waits for those tests and prints their output.
finished()
{
	local status=0
	wait "${jobs[$1]}" || status=$?
	unset "jobs[$1]"
	cat "$work/$1.out"
	return $status
}

# passes WHAT NAME: checks that they passed, and adds pytest's summary to $summary.
summary=
passes()
{
	check "end-to-end tests, $1" finished "$2"
	summary="$summary; $1: $(tail -n 1 "$work/out")"
}

heading "building in a fresh root: trixie from $mirror"
need "a Debian 13 root" debootstrap --variant=minbase trixie "$work/root" "$mirror"
need "compiler, libraries and Valkey" make_root
need "a build without warnings, with TLS" build plain
need "a build with sanitizers" build sanitized --enable-sanitizers=address,undefined

heading "tests"
# Tests mostly wait, so all of them run at the same time; their deadlines allow for that.
export TPI_TIME_SCALE=${TPI_TIME_SCALE-3}
start plain test_tls.py test_valkey.py test_sentinel.py test_standins.py test_cluster.py \
    test_publish.py test_stream.py
export TPI_SANITIZED=1 UBSAN_OPTIONS=print_stacktrace=1
start sanitized test_tls.py test_valkey.py test_sentinel.py test_cluster.py test_publish.py
check "make check" within "$work/root" -- make -s -C /plain -j2 check VERBOSE=1
passes plain plain
passes address,undefined sanitized

valkey=$(within "$work/root" -- valkey-server --version | sed -n 's/.* v=\([^ ]*\).*/\1/p')
printf '\nDebian 13, Valkey %s, TLS%s\n' "$valkey" "$summary"
finish
