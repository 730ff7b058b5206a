# SPDX-License-Identifier: ISC
# Makes one program, tpi-stream-doctor, from the modules of this package: prints them one after the
# other, without the imports from each other. A module must follow those that it imports from, and
# no two may give something the same name: tests/e2e/test_doctor_package.py checks both.
#
#	awk -v version=VERSION -f assemble.awk __init__.py MODULE.py...

BEGIN {
	print "#!/usr/bin/python3"
	print "# Made by the build of tpi-stream from the modules in doctor/: change them, not this file."
}

FNR == 1 && NR > 1 {
	name = FILENAME
	sub(/.*\//, "", name)
	printf "\n\n# ======== doctor/%s\n\n", name
}

/^from \.[a-z_]* import / {
	inside = /\(/ && !/\)/
	next
}

inside {
	inside = !/\)/
	next
}

# The program has this line once, from the first module.
/^# SPDX-License-Identifier: / && licensed++ {
	next
}

{
	gsub(/@VERSION@/, version)
	print
}
