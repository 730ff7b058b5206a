#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the programs in a fresh Debian 13 root made with debootstrap and runs the tests that involve
# Valkey there: Debian 13 has a hiredis with TLS, and Valkey rather than Redis. The TLS tests run
# under sanitizers as well.
#
#   tests/trixie.sh [MIRROR]
#
# MIRROR defaults to http://deb.debian.org/debian. Takes several minutes and 1.5 GB in TMPDIR.
# Installs, starts and changes nothing on the machine itself. The line before the last one says which
# server was tested and sums up the end-to-end tests; the last line is "N passed, M failed".
# Exit status: 0 all passed, 1 a test failed, 77 skipped: not root, or debootstrap is missing.
#
# shellcheck disable=SC1091,SC2317 # root.sh; functions that check() calls
# shellcheck source=tests/root.sh

set -u -o pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
unset MAKEFLAGS MAKELEVEL

source=$(cd "$(dirname "$0")/.." && pwd -P)
mirror=${1:-http://deb.debian.org/debian}

. "$source/tests/root.sh"

work=$(mktemp -d) && chmod 755 "$work" || exit 1
trap 'rm -rf --one-file-system "$work"' EXIT
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

# passes WHAT COMMAND...: like check, and adds pytest's summary to $summary.
summary=
passes()
{
	check "$@"
	summary="$summary; $1: $(tail -n 1 "$work/out")"
}

heading "building in a fresh root: trixie from $mirror"
need "a Debian 13 root" debootstrap --variant=minbase trixie "$work/root" "$mirror"
need "compiler, libraries and Valkey" make_root
need "a build without warnings, with TLS" build plain
check "make check" within "$work/root" -- make -s -C /plain -j2 check VERBOSE=1

heading "end-to-end tests"
passes "plain" end_to_end plain test_tls.py test_valkey.py test_sentinel.py test_standins.py \
    test_cluster.py test_publish.py test_stream.py

heading "end-to-end tests under address,undefined"
need "a build with sanitizers" build sanitized --enable-sanitizers=address,undefined
export TPI_SANITIZED=1 TPI_TIME_SCALE=${TPI_TIME_SCALE-3} UBSAN_OPTIONS=print_stacktrace=1
passes "address,undefined" end_to_end sanitized test_tls.py test_valkey.py test_sentinel.py

valkey=$(within "$work/root" -- valkey-server --version | sed -n 's/.* v=\([^ ]*\).*/\1/p')
printf '\nDebian 13, Valkey %s, TLS%s\n' "$valkey" "$summary"
finish
