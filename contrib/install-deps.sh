#!/bin/sh
# SPDX-License-Identifier: ISC
# Installs the Debian or Ubuntu packages that are missing. Prints nothing and needs no privilege if
# every program and library is present, wherever it came from. Servers are installed without being
# started or enabled.
#
#   contrib/install-deps.sh SET...
#
# build   compiler, autotools and libraries
# demo    Valkey (or Redis), Apache, nginx, curl
# test    demo, and the tools and libraries of the tests
# bench   demo, and what the benchmark compares with: Node.js, nginx with nchan
# clients what tests/run.sh --clients needs in addition: WebKitGTK, pip
# ci      clang with libFuzzer, venv of Python
#
# Web servers that not every release has (Caddy, lighttpd with Lua) are optional: their tests are skipped.
#
# Needs root or sudo if a package is missing. Exit status: 0 everything is present, 64 wrong usage,
# 69 cannot install.

set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

usage="usage: ${0##*/} build|demo|test|bench|clients|ci ..."

die()
{
	echo "${0##*/}: $2" >&2
	exit "$1"
}

program()
{
	for name; do
		command -v "$name" >/dev/null 2>&1 && return 0
	done
	return 1
}

library()
{
	pkg-config --exists "$1" 2>/dev/null
}

header()
{
	cc=$(command -v gcc || command -v cc || command -v clang) &&
	    echo "#include <$1>" | "$cc" -E - >/dev/null 2>&1
}

module()
{
	/usr/bin/python3 -c "import $1" 2>/dev/null
}

# need PACKAGE CHECK...: adds the package, or the alternatives a|b, to $missing if the check fails.
missing=
need()
{
	package=$1
	shift
	"$@" || missing="$missing $package"
}

# want PACKAGE CHECK...: the same, but not an error if the package cannot be installed.
wanted=
want()
{
	package=$1
	shift
	"$@" || wanted="$wanted $package"
}

build()
{
	need gcc program gcc cc clang
	need libc6-dev header pthread.h
	need make program make
	need autoconf program autoreconf
	need automake program automake
	need pkg-config program pkg-config
	need libfcgi-dev header fcgiapp.h
	need libhiredis-dev library hiredis
	# For TLS to Valkey; unused if hiredis is older than 1.0.
	need libssl-dev library openssl
	need libjson-c-dev library json-c
	need uthash-dev header uthash.h
	need libcurl4-openssl-dev library libcurl
	need libmd-dev library libmd
	# For the daemon's filter of system calls.
	need libseccomp-dev library libseccomp
}

demo()
{
	need 'valkey-server|redis-server' program valkey-server redis-server
	need 'valkey-tools|redis-tools' program valkey-cli redis-cli
	# apache2-bin has the program and its modules; the package apache2 adds the service.
	need apache2-bin program apache2 httpd
	need 'nginx-light|nginx' program nginx
	need curl program curl
	need python3 program /usr/bin/python3
}

testing()
{
	demo
	need check library check
	need mandoc program mandoc
	need haproxy program haproxy
	want lighttpd program lighttpd
	want lighttpd-modules-lua test -e /usr/lib/lighttpd/mod_magnet.so
	want caddy program caddy
	need python3-pytest module pytest
	need python3-pytest-xdist module xdist
	need openssl program openssl
	need jq program jq
	need libapache2-mod-security2 test -e /usr/lib/apache2/modules/mod_security2.so
	need iproute2 program ip
	need python3-yaml module yaml
	need python3-jsonschema module jsonschema
	need perl program perl
	# For its programs only; the service is not started.
	need prometheus program promtool
	need nodejs program node
	need npm program npm
	# Ubuntu has Chromium and Firefox only as snaps, which cannot read temporary directories: skip those
	# tests.
	if [ "$(. /etc/os-release && echo "$ID")" != ubuntu ]; then
		need chromium program chromium
		need firefox-esr program firefox-esr
	fi
}

bench()
{
	demo
	need nodejs program node
	need npm program npm
	need gnuplot-nox program gnuplot
	need libnginx-mod-nchan test -e /usr/lib/nginx/modules/ngx_nchan_module.so
}

webkit()
{
	/usr/bin/python3 -c "import gi; gi.require_version('WebKit2', '4.1')" 2>/dev/null
}

clients()
{
	want python3-gi module gi
	want gir1.2-webkit2-4.1 webkit
	want xvfb program Xvfb
	want xauth program xauth
	want python3-pip module pip
}

fuzzer()
{
	command -v clang >/dev/null 2>&1 &&
	    [ -e "$(clang -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)" ]
}

as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif [ -t 0 ]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

apt_get()
{
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
	    -o Dpkg::Use-Pty=0 "$@" \
	    </dev/null >&2
}

# candidate PACKAGE|PACKAGE...: prints the first alternative that the package archive has.
candidate()
{
	for name in $(echo "$1" | tr '|' ' '); do
		if LC_ALL=C apt-cache policy "$name" | grep -q 'Candidate: [^(]'; then
			echo "$name"
			return 0
		fi
	done
	return 1
}

# Packages do not start their services while this file exists and exits 101.
policy=/usr/sbin/policy-rc.d
policy_is_ours=no

policy_set()
{
	[ -e $policy ] && return
	policy_is_ours=yes
	printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null && as_root chmod 755 $policy
}

policy_unset()
{
	[ $policy_is_ours = no ] || as_root rm -f $policy
	policy_is_ours=no
}

[ $# -gt 0 ] || die 64 "$usage"
for set; do
	case $set in
	build) build ;;
	demo) demo ;;
	test) testing ;;
	bench) bench ;;
	clients) clients ;;
	ci) need clang program clang && need libclang-rt-dev fuzzer && need python3-venv module ensurepip ;;
	-h | --help)
		sed -n "3,/^\$/s/^# \{0,1\}//p" "$0"
		exit 0
		;;
	*) die 64 "unknown set \"$set\": $usage" ;;
	esac
done
[ -n "$missing$wanted" ] || exit 0
if [ -z "$missing" ]; then
	program apt-get && as_root true 2>/dev/null || exit 0
fi

program apt-get || die 69 "apt-get not found: install these packages by other means:$missing"
as_root true 2>/dev/null || die 69 "missing packages, and no root or sudo to install them:$missing"

trap policy_unset EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

echo "${0##*/}: installing$missing$wanted" >&2
apt_get update || die 69 "apt-get update failed; missing packages:$missing"

packages=
for alternatives in $missing; do
	package=$(candidate "$alternatives") ||
	    die 69 "not in the package archive: $(echo "$alternatives" | sed 's/|/ or /g')"
	case " $packages " in
	*" $package "*) ;;
	*) packages="$packages $package" ;;
	esac
done

for name in $wanted; do
	[ -z "$(candidate "$name")" ] || packages="$packages $name"
done
[ -n "$packages" ] || exit 0

policy_set
# shellcheck disable=SC2086 # a list
apt_get install -y --no-install-recommends $packages || die 69 "apt-get could not install$packages"

program systemctl || exit 0
for package in $packages; do
	case $package in
	valkey-server | redis-server | nginx* | prometheus | haproxy | lighttpd | caddy)
		as_root systemctl --quiet disable "${package%-light}" >/dev/null 2>&1
		;;
	esac
done
exit 0
