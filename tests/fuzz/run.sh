#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the fuzz targets outside the source tree with the address and undefined behaviour
# sanitizers, and runs them, two at a time. A target is fuzz_NAME.c, or fuzz_NAME.py for a part that
# is written in Python; its seeds are in corpus/NAME.
#
#   tests/fuzz/run.sh [SECONDS] [NAME...]          run the named targets, or all
#   tests/fuzz/run.sh --long [SECONDS] [NAME...]   the same, and keep the corpora
#   tests/fuzz/run.sh FILE NAME                    run one target on one input
#
# SECONDS is the time for each target, 10 by default, 120 with --long. At the end there is a line for
# each target, then "N passed, M failed". An input that makes a target fail is kept: its path and its
# bytes are printed. --long builds in _fuzz in the source tree and keeps it, with the corpora, so that
# the next run continues from there; otherwise a temporary directory is used and removed.
#
# Environment: TPI_FUZZ_DIR, a directory to build in and keep; TPI_FUZZ_JOBS, how many targets run at
# a time.
#
# Requires clang with libFuzzer (Debian: clang, libclang-rt-dev) and the build dependencies. Targets in
# Python require atheris, which is installed in the build directory; if it is not available they are
# skipped.
# Exit status: 0 all passed, 1 some failed, 64 wrong usage, 69 cannot build.

set -u -o pipefail
export LC_ALL=C.UTF-8

here=$(cd "$(dirname "$0")" && pwd -P)
source=$(cd "$here/../.." && pwd -P)

# Modules for the targets to link: all but two that change the whole process.
modules=$(cd "$source/src" && printf '%s\n' */*.c | sed 's/\.c$//' | grep -vx -e base/free -e daemon/sandbox)
warnings="-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla"
warnings="$warnings -Werror=implicit"
sanitizers="address,undefined"

# The longest input of a target, if not 2048. libFuzzer begins with short inputs.
declare -A longest=([head]=4096 [wakeup]=4096)

die()
{
	echo "tests/fuzz/run.sh: $2" >&2
	exit "$1"
}

seconds=10 input="" jobs=${TPI_FUZZ_JOBS-2}
if [ "${1-}" = --long ]; then
	seconds=120 TPI_FUZZ_DIR=${TPI_FUZZ_DIR-$source/_fuzz}
	shift
fi
if [ $# -gt 0 ]; then
	case $1 in
	--help)
		sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*[!0-9]*) if [ -f "$1" ]; then input=$(realpath "$1") && shift; fi ;;
	*) seconds=$((10#$1)) && shift ;;
	esac
fi
[ "$seconds" -ge 1 ] || die 64 "SECONDS must be at least 1"
targets=("$@")
if [ $# -eq 0 ]; then
	for file in "$here"/fuzz_*.c "$here"/fuzz_*.py; do
		target=${file##*/fuzz_}
		targets+=("${target%.*}")
	done
fi
in_c=() in_python=()
for target in "${targets[@]}"; do
	if [ -f "$here/fuzz_$target.c" ]; then
		in_c+=("$target")
	elif [ -f "$here/fuzz_$target.py" ]; then
		in_python+=("$target")
	else
		die 64 "$target: no such target; must be one of: $(cd "$here" && echo fuzz_*.c fuzz_*.py |
		    sed -E 's/fuzz_//g; s/\.(c|py)\b//g')"
	fi
done
[ -z "$input" ] || [ $# -eq 1 ] || die 64 "give exactly one target with an input file"

clang=${CLANG-clang}
command -v "$clang" >/dev/null || die 69 "$clang not found: install clang"

if [ -n "${TPI_FUZZ_DIR-}" ]; then
	mkdir -p "$TPI_FUZZ_DIR" && work=$(cd "$TPI_FUZZ_DIR" && pwd -P) || exit 69
else
	work=$(mktemp -d) || exit 69
fi
findings=""

# Ends targets that still run. Findings are kept.
clean_up()
{
	local running
	running=$(jobs -rp)
	# shellcheck disable=SC2086 # a list
	[ -z "$running" ] || { kill $running && wait; } 2>/dev/null
	[ -z "$findings" ] || rmdir "$findings" 2>/dev/null
	[ -n "${TPI_FUZZ_DIR-}" ] || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' >"$work/try.c"
"$clang" -fsanitize=fuzzer,$sanitizers -o "$work/try" "$work/try.c" 2>/dev/null ||
    die 69 "$clang cannot link libFuzzer: install libclang-rt-dev of the same version"

# ---- Build

for library in hiredis json-c libcurl libmd; do
	pkg-config --exists $library || die 69 "$library not found: contrib/install-deps.sh build"
done
flags="-std=gnu11 -D_GNU_SOURCE -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all $warnings"
flags="$flags -I$source/src -I$work $(pkg-config --cflags hiredis json-c libcurl libmd)"
libraries="$(pkg-config --libs hiredis json-c libcurl libmd) -lfcgi -lpthread"
printf '#define %s "fuzz"\n' PACKAGE_VERSION NO_TLS >"$work/config.h"

# shellcheck disable=SC2086 # a list
(cd "$work" && dirname $modules | sort -u | xargs mkdir -p) || exit 69
# shellcheck disable=SC2086 # lists
printf '%s\0' $modules | (cd "$work" && xargs -0 -P 2 -I '{}' "$clang" $flags \
    -fsanitize=fuzzer-no-link,$sanitizers -c "$source/src/{}.c" -o '{}.o') ||
    die 69 "the sources do not compile"
# shellcheck disable=SC2086 # a list
(cd "$work" && rm -f modules.a && printf '%s.o\0' $modules | xargs -0 ar rcs modules.a) || exit 69
# shellcheck disable=SC2086 # lists
[ ${#in_c[@]} -eq 0 ] || printf '%s\0' "${in_c[@]}" | xargs -0 -P 2 -I '{}' "$clang" $flags \
    -fsanitize=fuzzer,$sanitizers "$here/fuzz_{}.c" "$work/modules.a" $libraries \
    -o "$work/fuzz_{}" || die 69 "the targets do not compile"

install_atheris()
{
	"$python" -c 'import atheris' 2>/dev/null && return
	/usr/bin/python3 -m venv "$work/python" &&
	    timeout 120 "$python" -m pip install --quiet --disable-pip-version-check atheris
}

python=$work/python/bin/python3
if [ ${#in_python[@]} -gt 0 ] && ! install_atheris >"$work/atheris.log" 2>&1; then
	echo "tests/fuzz/run.sh: skipped, because atheris cannot be installed: ${in_python[*]}" >&2
	tail -n 1 "$work/atheris.log" >&2
	targets=(${in_c[@]+"${in_c[@]}"})
	[ ${#targets[@]} -gt 0 ] || die 69 "no target is left"
fi

# ---- Run

export ASAN_OPTIONS=${ASAN_OPTIONS-quarantine_size_mb=16}
export UBSAN_OPTIONS=${UBSAN_OPTIONS-print_stacktrace=1}

# High-entropy address space randomization breaks the address sanitizer of older compilers.
norandom=""
if setarch -R true 2>/dev/null; then
	norandom="setarch -R"
fi

# Sets $command to what runs a target.
set_command()
{
	if [ -f "$here/fuzz_$1.py" ]; then
		command=("$python" "$here/fuzz_$1.py")
	else
		# shellcheck disable=SC2206 # a list
		command=($norandom "$work/fuzz_$1")
	fi
}

if [ -n "$input" ]; then
	set_command "${targets[0]}"
	"${command[@]}" "$input"
	exit
fi

findings=$(mktemp -d "${TMPDIR:-/tmp}/tpi-fuzz-findings.XXXXXX") || exit 69

# A target ends after -max_total_time; `timeout` is for one that hangs.
fuzz()
{
	local child command
	trap 'kill "$child"; exit 1' INT TERM
	mkdir -p "$work/corpus/$1"
	set_command "$1"
	timeout -k 10 $((seconds + 120)) "${command[@]}" -max_total_time="$seconds" \
	    -max_len="${longest[$1]-2048}" -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=10 \
	    -print_final_stats=1 -artifact_prefix="$findings/$1-" \
	    "$work/corpus/$1" "$here/corpus/$1" >"$work/$1.log" 2>&1 &
	child=$!
	wait "$child"
	echo $? >"$work/$1.status"
}

for target in "${targets[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
		wait -n
	done
	fuzz "$target" &
done
wait

# ---- Report

passed=0 failed=0 total=0
for target in "${targets[@]}"; do
	if [ "$(cat "$work/$target.status")" -eq 0 ]; then
		passed=$((passed + 1))
		continue
	fi
	failed=$((failed + 1))
	printf '\n######## %s failed\n' "$target"
	tail -n 60 "$work/$target.log"
	for file in "$findings/$target"-*; do
		[ -f "$file" ] || continue
		printf '\n%s\n' "$file"
		od -A x -t x1z "$file" | head -n 64
	done
done

printf '\n%-12s %12s %10s %9s %7s\n' target executions per-second coverage corpus
for target in "${targets[@]}"; do
	# "#1234  DONE   cov: 300 ft: 1000 corp: 200/10Kb ...": use the last such line.
	read -r coverage corpus < <(tail -n 200 "$work/$target.log" |
	    sed -nE 's/^#[0-9]+.* cov: ([0-9]+) .* corp: ([0-9]+).*/\1 \2/p' | tail -n 1)
	count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
	rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$work/$target.log")
	printf '%-12s %12s %10s %9s %7s%s\n' "$target" "${count:--}" "${rate:--}" "${coverage:--}" \
	    "${corpus:--}" "$([ "$(cat "$work/$target.status")" -eq 0 ] || echo '  FAILED')"
	total=$((total + ${count:-0}))
	coverage="" corpus=""
done
printf '%-12s %12s\n' all "$total"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
