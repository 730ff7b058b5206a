#!/bin/sh
# SPDX-License-Identifier: ISC
# Checks that includes in src/ point one way: a directory may include its own headers and those of
# the directories before it in this list, by path ("base/clock.h"). tpi-publish uses no code of the
# daemon.

set -u
src=${srcdir:-.}/src
order="base wire config valkey fcgi stream auth pubsub session daemon"
publish="base wire config valkey publish"
status=0

# allowed WING: the directories whose headers it may include.
allowed()
{
	if [ "$1" = publish ]; then
		echo "$publish"
		return
	fi
	for wing in $order; do
		printf '%s ' "$wing"
		[ "$wing" != "$1" ] || return
	done
}

for directory in "$src"/*/; do
	wing=$(basename "$directory")
	case " $order publish " in
	*" $wing "*) ;;
	*)
		echo "src/$wing: not in the list of tests/include-lint.sh"
		status=1
		;;
	esac
	permitted=" $(allowed "$wing") "
	for file in "$directory"*.[ch]; do
		for header in $(sed -n 's/^#include "\(.*\)"$/\1/p' "$file"); do
			[ "$header" != config.h ] || continue
			case $permitted in
			*" ${header%/*} "*) [ -f "$src/$header" ] && continue ;;
			esac
			echo "src/$wing/$(basename "$file"): may not include \"$header\""
			status=1
		done
	done
done
# Names that others choose need a keyed hash.
if grep -l '<uthash.h>' "$src"/*/*.[ch] | grep -v '/base/hash_table.h$'; then
	echo 'include "base/hash_table.h" instead of <uthash.h>'
	status=1
fi
exit $status
