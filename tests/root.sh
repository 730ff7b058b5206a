# SPDX-License-Identifier: ISC
# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # scripts for the roots; variables that the caller sets
# Functions for tests that work in roots made with debootstrap: running commands in a root, counting
# tests. A test sets $source, the top of the source tree, sources this file, then sets $work, a
# temporary directory.

skip()
{
	echo "tests/${0##*/}: $1: skipped"
	exit 77
}

[ "$(id -u)" -eq 0 ] || skip "not root"
command -v debootstrap >/dev/null || skip "debootstrap not found"

passed=0 failed=0

heading()
{
	printf '\n==> %s\n' "$1"
}

# check WHAT COMMAND...: runs one test; shows its output if it fails.
check()
{
	local what=$1
	shift
	if "$@" >"$work/out" 2>&1; then
		echo "ok      $what"
		passed=$((passed + 1))
	else
		echo "FAILED  $what"
		tail -n 30 "$work/out" | sed 's/^/        /'
		failed=$((failed + 1))
	fi
}

# need WHAT COMMAND...: like check, but ends the run on failure because all later tests depend on it.
need()
{
	local before=$failed
	check "$@"
	[ "$failed" -eq "$before" ] || finish
}

finish()
{
	printf '\n%d passed, %d failed\n' $passed $failed
	[ $failed -eq 0 ]
	exit
}

# within ROOT [OPTION...] -- COMMAND...: runs a command in a root, with /proc mounted; processes that
# it leaves running are killed. Options are passed to unshare.
within()
{
	local root=$1 options=()
	shift
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	unshare --mount --pid --fork --kill-child "${options[@]}" sh -c '
		unset TMPDIR # may not exist in the root
		mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" "$@" </dev/null
}

apt()
{
	# Without syncing every file: the root is deleted at the end.
	within "$1" -- apt-get -qq -y -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
	    --no-install-recommends "${@:2}"
}

# copy_sources TO: copies the files that git tracks or would track; without git, all files.
copy_sources()
{
	mkdir -p "$1"
	if git -C "$source" rev-parse -q --git-dir >/dev/null 2>&1; then
		git -C "$source" ls-files -z --cached --others --exclude-standard |
		    (cd "$source" && xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh)
	else
		(cd "$source" && find . -path './_build*' -prune -o ! -type d -print0)
	fi | tar -C "$source" --null -T - -cf - | tar -C "$1" -xf -
}
