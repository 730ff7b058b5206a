#!/bin/sh
# SPDX-License-Identifier: ISC
# Checks the documents against the tree: the files, headings, settings, metrics and manual sections
# they name exist, each lock and atomic of src/ is in HACKING.md, and the README stays short.

cd "${srcdir:-.}" || exit 99

status=0
complain()
{
	echo "$1" >&2
	status=1
}

# anchors FILE: the anchors that GitHub generates from its headings.
anchors()
{
	sed -n 's/^##* //p' "$1" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9_\n-'
}

lines=$(wc -l <README.md)
[ "$lines" -le 150 ] || complain "README.md: $lines lines; at most 150 are allowed"

for file in README.md SECURITY.md HACKING.md doc/*.md; do
	directory=$(dirname "$file")

	for link in $(grep -o ']([^)]*)' "$file" | sed 's/^](//; s/)$//' | grep -v '^https\?:' | sort -u); do
		target=${link%%#*}
		target=${target:+$directory/$target}
		target=${target:-$file}
		if [ ! -e "$target" ]; then
			complain "$file: $link: no such file"
		elif [ "$link" != "${link#*#}" ] && ! anchors "$target" | grep -qx -- "${link#*#}"; then
			complain "$file: $link: no such heading"
		fi
	done

	# Programs built in tests/ are not in the source tree.
	for path in $(grep -oE '(^|[^A-Za-z0-9_./-])(contrib|tests|doc|src|man)/[A-Za-z0-9_./-]*[A-Za-z0-9_-]' "$file" |
	    sed 's/^[^a-z]//' | grep -vE '^tests/(unit|bench)/[a-z_]*$' | sort -u); do
		[ -e "$path" ] || complain "$file: $path: no such file"
	done

	for name in $(grep -oE '\b(TPI|SSE|VALKEY)_[A-Z0-9_]*[A-Z0-9]\b' "$file" | sort -u); do
		grep -rqw -- "$name" man contrib/apache contrib/compose contrib/nginx tests/run.sh tests/debian.sh ||
		    complain "$file: $name: not in the manual pages and not in contrib"
	done

	for name in $(grep -oE '\btpi_stream_[a-z_]*[a-z]\b' "$file" | sort -u); do
		grep -qw -- "$name" man/tpi-stream.7 || complain "$file: $name: not in tpi-stream(7)"
	done

	# "`tpi-stream(7)`, THE WEB SERVER" names a section of that page.
	tr '\n' ' ' <"$file" | grep -oE '`tpi-[a-z-]*\([0-9]\)`, +[A-Z][A-Z ]+[A-Z]' | sort -u |
	    while read -r page section; do
		page=$(echo "$page" | sed 's/`\(.*\)(\(.\))`,/man\/\1.\2/')
		grep -qx "\.Sh $section" "$page" || echo "$file: $page has no section $section"
	done | grep . >&2 && status=1
done

for file in src/*/*.[ch]; do
	path=${file#src/}
	if grep -qE '^	*(static )?pthread_mutex_t [a-z]' "$file"; then
		grep -qF "| \`$path\` |" HACKING.md || complain "HACKING.md: no lock of $path"
	fi
	for name in $(sed -nE 's/^	*(static )?(pthread_cond_t|_Atomic [a-z0-9_]+|atomic_flag) ([a-z][a-z_, ]*).*/\3/p' "$file" |
	    tr ',' ' '); do
		grep -qw -- "$name" HACKING.md || complain "HACKING.md: no $name of $path"
	done
done

exit $status
