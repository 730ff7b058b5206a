#!/bin/sh
# SPDX-License-Identifier: ISC
# Checks that programs have the hardening that configure chose.
#
#   tests/hardening-lint.sh [PROGRAM...]
#
# By default the programs in the current directory. TPI_HARDENING is the list of compiler flags; by
# default those whose effect shows in a program without debugging information.
# Exit status: 0 they have it, 1 they do not (after a change of flags, make clean first), 77 skipped:
# built without hardening, or readelf is missing.

status=0
complain()
{
	echo "$1" >&2
	status=1
}

# has PROGRAM WHAT READELF-OPTIONS PATTERN
has()
{
	LC_ALL=C readelf -W $3 "$1" | grep -qE -- "$4" || complain "$1: $2"
}

# Compilers write their flags into the debugging information; clang writes only its name.
producers()
{
	LC_ALL=C readelf --debug-dump=info "$1" 2>/dev/null | sed -n 's/.*DW_AT_producer.*\(GNU C[0-9]\)/\1/p'
}

[ $# -gt 0 ] || set -- ./tpi-streamd ./tpi-publish
: "${TPI_HARDENING=-fPIE -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -fstack-protector-strong -D_FORTIFY_SOURCE}"
[ -n "$TPI_HARDENING" ] || exit 77
command -v readelf >/dev/null || exit 77

for program; do
	[ -x "$program" ] || complain "$program: not found"
	producers=$(producers "$program")
	for flag in $TPI_HARDENING; do
		case $flag in
		-fPIE) has "$program" "not position-independent" -d 'FLAGS_1.* PIE' ;;
		-Wl,-z,relro) has "$program" "no RELRO" -l GNU_RELRO ;;
		-Wl,-z,now) has "$program" "binds symbols lazily" -d 'FLAGS_1.* NOW' ;;
		-Wl,-z,noexecstack) has "$program" "executable stack" -l 'GNU_STACK.* RW +0x' ;;
		-fstack-protector-strong) has "$program" "no stack protector" -s '\b__stack_chk_fail\b' ;;
		-D_FORTIFY_SOURCE*) has "$program" "no _FORTIFY_SOURCE" -s '\b__[a-z]+_chk\b' ;;
		-f*)
			! echo "$producers" | grep . | grep -qvF -- "$flag" ||
			    complain "$program: a file was compiled without $flag"
			;;
		esac
	done
	# If configure no longer tried a flag, the list would not show it, so check the expected ones.
	case $(uname -m)/$producers in
	*-fsanitize=*) continue ;;
	x86_64/"GNU C"*" 1"[2-9].*) ;;
	*) continue ;;
	esac
	for flag in -fPIE -fstack-clash-protection -fcf-protection -fzero-call-used-regs=used-gpr \
	    -ftrivial-auto-var-init=zero -Wl,-z,relro -Wl,-z,now; do
		case " $TPI_HARDENING " in
		*" $flag "*) ;;
		*) complain "configure did not choose $flag" ;;
		esac
	done
done
exit $status
