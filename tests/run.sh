#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the programs outside the source tree and runs the tests: `make check`, which needs no
# server, then the end-to-end tests with real servers, whose summary is the last line.
#
#   tests/run.sh [OPTION...] [BUILD-DIRECTORY] [-- PYTEST-ARGUMENT...]
#
# --sanitizers LIST   build with sanitizers: address,undefined or address or undefined or thread
# --quick             skip the end-to-end tests marked slow
# --long              also run those marked long
# --clients           instead of all end-to-end tests, run those of the clients and publishers in
#                     tests/clients (also part of --long)
# --abuse             instead of the end-to-end tests, run the abuse budgets (tests/abuse)
# --schedules         instead of the end-to-end tests, run 1000 schedules (tests/schedules.py)
# --all               run everything, long tests included: without sanitizers, with
#                     address,undefined, and with thread
#
# The default build directory is _build in the source tree; it is kept for the next run, and nothing
# else is left behind. Three files of end-to-end tests, with sanitizers two, run in parallel; pass -n0 to
# pytest to run one at a time. Missing packages are installed (contrib/install-deps.sh), which needs
# root or sudo.
#
# Exit status: 0 all passed, 1 a test or the build failed, 64 wrong usage, 69 cannot test here.
# Environment: TPI_CONFIGURE, additional arguments for configure; TPI_TIME_SCALE, a factor for the
# time limits of the end-to-end tests.

set -u -o pipefail
export LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
unset MAKEFLAGS MAKELEVEL

source=$(cd "$(dirname "$0")/.." && pwd -P)
pytest="/usr/bin/python3 -m pytest"

die()
{
	echo "tests/run.sh: $2" >&2
	exit "$1"
}

heading()
{
	printf '\n==> %s\n' "$1"
}

build="" sanitizers="" marks='not long' all=no suite=e2e
while [ $# -gt 0 ]; do
	case $1 in
	--sanitizers)
		[ $# -gt 1 ] || die 64 "--sanitizers needs a list"
		sanitizers=$2
		shift
		;;
	--sanitizers=*) sanitizers=${1#*=} ;;
	--quick) marks='not long and not slow' ;;
	--long) marks= ;;
	--clients) marks=clients ;;
	--abuse) suite=abuse marks=abuse ;;
	--schedules) suite=schedules ;;
	--all) all=yes marks= ;;
	--help)
		sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	--)
		shift
		break
		;;
	-*) die 64 "unknown option $1; see tests/run.sh --help" ;;
	*)
		[ -z "$build" ] || die 64 "more than one build directory: $build and $1"
		build=$1
		;;
	esac
	shift
done
case $sanitizers in
'' | address | undefined | thread | address,undefined | undefined,address) ;;
*) die 64 "unknown sanitizers $sanitizers; see tests/run.sh --help" ;;
esac
[ $all = no ] || [ -z "$sanitizers" ] || die 64 "--all cannot be combined with --sanitizers"
build=${build:-$source/_build}
mkdir -p "$build" && build=$(cd "$build" && pwd -P) || die 69 "cannot create the build directory"

if [ $all = yes ]; then
	# Run this script once for each kind, then print each run's summary line.
	failed=0 lines=()
	for kind in plain address,undefined thread; do
		heading "everything, $kind"
		list=$kind
		[ $kind != plain ] || list=
		"$0" --long --sanitizers "$list" "$build/$kind" -- "$@" | tee "$build/$kind.out" || failed=1
		lines+=("$kind: $(tail -n 1 "$build/$kind.out")")
		rm -f "$build/$kind.out"
	done
	echo
	printf '%s\n' "${lines[@]}"
	exit $failed
fi

sets="build test"
case $marks in
'' | clients) sets="$sets clients" ;;
esac
# shellcheck disable=SC2086 # a list
"$source/contrib/install-deps.sh" $sets || exit

[ ! -e "$source/config.status" ] ||
    die 69 "the sources were configured in place: make distclean there first"

# The thread sanitizer of older compilers fails with address space layout randomization.
no_aslr=
if [ -n "$sanitizers" ] && setarch -R true 2>/dev/null; then
	no_aslr="setarch -R"
fi

# Tests mostly wait, so run three files in parallel; with sanitizers two, because CI runs two builds.
parallel="-n 3 --dist loadfile"
# The budgets need both CPUs.
[ $suite = e2e ] || parallel=
if [ -n "$sanitizers" ]; then
	[ -z "$parallel" ] || parallel="-n 2 --dist loadfile"
	export TPI_SANITIZED=1 TPI_TIME_SCALE=${TPI_TIME_SCALE-3}
	export UBSAN_OPTIONS=${UBSAN_OPTIONS-print_stacktrace=1}
	# By default a program with threads sleeps for a second when it exits.
	export TSAN_OPTIONS=${TSAN_OPTIONS-second_deadlock_stack=1:atexit_sleep_ms=50}
fi

cd "$source" || exit 69
if [ ! -e configure ] || [ configure.ac -nt configure ]; then
	heading "autoreconf"
	autoreconf -i || exit 1
fi

cd "$build" || exit 69
arguments="${TPI_CONFIGURE-}${sanitizers:+ --enable-sanitizers=$sanitizers}"
if [ ! -e Makefile ] || [ "$(cat .configured 2>/dev/null)" != "$arguments" ]; then
	heading "configure $arguments"
	[ ! -e Makefile ] || make -s distclean >/dev/null 2>&1
	# shellcheck disable=SC2086 # a list
	"$source/configure" -q $arguments || exit 1
	echo "$arguments" >.configured
fi

heading "make"
make -s -j2 || exit 1

failed=0
heading "make check"
# VERBOSE=1 prints the logs of failed tests.
$no_aslr make -s -j2 check VERBOSE=1 || failed=1

if [ -z "$marks" ] && [ -z "$sanitizers" ]; then
	for release in bookworm trixie noble; do
		heading "Debian package: $release"
		"$source/tests/debian.sh" $release || [ $? -eq 77 ] || failed=1
	done
	heading "Valkey and TLS on Debian 13"
	"$source/tests/trixie.sh" || [ $? -eq 77 ] || failed=1
	heading "container images"
	"$source/tests/container.sh" || [ $? -eq 77 ] || failed=1
fi

if [ $suite = schedules ]; then
	heading "schedules"
	TPI_BUILD=$build $no_aslr "$source/tests/schedules.py" 1000 || failed=1
	exit $failed
fi

heading "pytest ${marks:+-m \"$marks\"} $*"
cd "$source/tests/$suite" || exit 69
TPI_BUILD=$build $no_aslr $pytest -p no:cacheprovider $parallel ${marks:+-m "$marks"} "$@" </dev/null ||
    failed=1
exit $failed
