#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds the Debian package in a fresh root made with debootstrap, checks it with lintian, and
# installs, runs, upgrades, removes and purges it in other roots: first with dpkg alone, then under a
# separate systemd in namespaces, with Apache and nginx.
#
#   tests/debian.sh [MIRROR]
#
# MIRROR defaults to http://deb.debian.org/debian; TPI_SUITE in the environment selects the suite
# (bookworm; trixie; noble with http://archive.ubuntu.com/ubuntu). TPI_PREVIOUS is the git revision of the
# release from which to upgrade; without it, the same sources are built with an older version number.
# Takes several minutes and 2 GB in TMPDIR. Installs, starts and changes nothing on the
# machine itself, and gives the installed package only a loopback interface. The last line is
# "N passed, M failed". Exit status: 0 all passed, 1 a test failed, 77 skipped: not root, or
# debootstrap is missing. Without a mounted cgroup2 the part with systemd is skipped.
#
# shellcheck disable=SC2016,SC2317 # scripts for the roots; functions that check() calls
# shellcheck source=tests/root.sh

set -u -o pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
unset MAKEFLAGS MAKELEVEL DEB_BUILD_OPTIONS DEB_BUILD_PROFILES

source=$(cd "$(dirname "$0")/.." && pwd -P)
mirror=${1:-http://deb.debian.org/debian}
suite=${TPI_SUITE:-bookworm}

# For example 0.1.0-1, 0.1.0, 0.1.0-2 and 0.1.0~1-1.
first=$(sed -n '1s/.*(\(.*\)).*/\1/p' "$source/debian/changelog")
version=${first%-*}
second=$version-$((${first##*-} + 1))
previous=$version~1-1

. "$source/tests/root.sh"

work=$(mktemp -d) && chmod 755 "$work" || exit 1
cgroup=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)
cgroup=${cgroup:+$cgroup/${work##*/}}
machine=		# process id of the systemd that runs in $work/machine

cleanup()
{
	# When its first process ends, the kernel kills the others, and unshare exits.
	[ -z "$machine" ] || kill -KILL "$machine" 2>/dev/null
	wait
	[ ! -d "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} +
	rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Precedes the scripts that run in a root. (With set -e, "! command" never ends a script.)
prelude='fails() { ! "$@" || { echo "should have failed: $*"; exit 1; }; }; '

# within_shell ROOT SCRIPT: runs a script in a root, without a network.
within_shell()
{
	within "$1" --net -- sh -euc "$prelude$2"
}

# ---- Building

as_builder()
{
	within "$work/build" -- setpriv --reuid builder --regid builder --clear-groups \
	    env HOME=/build sh -euc "$prelude$1"
}

# Ubuntu has some libraries in universe. Its newest suites need no script of their own.
make_base()
{
	local script=/usr/share/debootstrap/scripts/$suite options=()
	case $mirror in
	*ubuntu*)
		[ -e "$script" ] || script=/usr/share/debootstrap/scripts/gutsy
		options=(--components=main,universe)
		;;
	esac
	debootstrap --variant=minbase "${options[@]}" "$suite" "$work/base" "$mirror" "$script"
}

make_build_root()
{
	cp -a "$work/base" "$work/build" &&
	    apt "$work/build" install build-essential lintian &&
	    within "$work/build" -- useradd --create-home --home-dir /build builder &&
	    copy_sources "$work/build/build/tree"
}

# A copy of the sources as the next revision, which changes a configuration file of each web server.
revise()
(
	cp -a "$work/build/build/tree" "$work/build/build/second" && cd "$work/build/build/second" &&
	    sed "1s/(.*)/($second)/" "$source/debian/changelog" >debian/changelog &&
	    echo '# Another line.' | tee -a contrib/apache/tpi-stream-user.conf \
	    >>contrib/nginx/tpi-stream.conf
)

# The sources of the previous release.
go_back()
(
	mkdir "$work/build/build/previous" && cd "$work/build/build/previous" || return
	if [ -n "${TPI_PREVIOUS-}" ]; then
		git -C "$source" archive "$TPI_PREVIOUS" | tar -xf - || return
	else
		cp -a ../tree/. .
	fi
	sed -i "1s/(.*)/($previous)/" debian/changelog
)

# With the nocheck profile the packages that only tests need are not installed: the package must
# build without them.
build_without_tests()
{
	apt "$work/build" build-dep -P nocheck /build/second && as_builder '
		fails command -v mandoc
		for name in previous second; do
			cd /build/$name
			DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage -us -uc -b -Pnocheck >../$name.log 2>&1 ||
			    { tail -n 30 ../$name.log; exit 1; }
			fails grep "# PASS:" ../$name.log
		done'
}

# The tarball of `make dist` must contain everything that a source package needs.
make_distribution()
{
	as_builder "
		cp -a /build/tree /build/dist
		cd /build/dist
		autoreconf -i && ./configure -q && make -s dist
		cd /build
		mv dist/tpi-stream-$version.tar.gz tpi-stream_$version.orig.tar.gz
		tar -xf tpi-stream_$version.orig.tar.gz
		mv tpi-stream-$version first
		cp -a first clean"
}

build_with_tests()
{
	apt "$work/build" build-dep /build/first && as_builder '
		cd /build/first
		dpkg-buildpackage -us -uc >../first.log 2>&1 || { tail -n 30 ../first.log; exit 1; }
		grep "# PASS: *[1-9][0-9]" ../first.log'
}

cleans_up()
{
	as_builder 'cd /build/first && debian/rules clean && diff -r . ../clean'
}

# The package's programs have no debugging information, so this checks what shows without it.
is_hardened()
{
	as_builder 'cd /build/first && sh tests/hardening-lint.sh debian/tpi-stream/usr/sbin/tpi-streamd \
	    debian/tpi-stream/usr/bin/tpi-publish'
}

# Ignores two tags that depend on the suite's lintian: no package passes in every suite.
lint()
{
	as_builder "
		lintian --display-info --pedantic /build/tpi-stream_${first}_*.changes >/build/lint 2>&1 || :
		fails grep -vE 'out-of-date-standards-version|but-no-init.d-script' /build/lint"
}

# ---- Installation without systemd

first_deb=/tpi-stream_$first.deb second_deb=/tpi-stream_$second.deb previous_deb=/tpi-stream_$previous.deb

make_root()
{
	cp -a "$work/base" "$work/root" &&
	    printf '#!/bin/sh\nexit 101\n' >"$work/root/usr/sbin/policy-rc.d" &&
	    chmod 755 "$work/root/usr/sbin/policy-rc.d" &&
	    cp "$work"/build/build/tpi-stream_"$first"_*.deb "$work/root$first_deb" &&
	    cp "$work"/build/build/tpi-stream_"$second"_*.deb "$work/root$second_deb" &&
	    cp "$work"/build/build/tpi-stream_"$previous"_*.deb "$work/root$previous_deb" &&
	    apt "$work/root" install apache2 curl dbus nginx-light systemd systemd-sysv
}

installed()
{
	within_shell "$work/root" "$1"
}

# Every path in /etc that a configuration file names exists, except files that administrators write.
paths_exist()
{
	installed '
		cd /etc
		paths=$(grep -rhoE "/etc/[a-z0-9/.-]*tpi-stream[a-z0-9/.-]*" apache2/tpi-stream \
		    nginx/tpi-stream default/tpi-stream | sort -u)
		test "$(echo "$paths" | wc -l)" -ge 5
		for path in $paths; do
			case $path in
			*/users) ;;
			*) test -e "$path" || { echo "$path"; exit 1; } ;;
			esac
		done'
}

# The file as installed sets nothing. With all its settings uncommented, nothing changes; none is
# missing.
shows_defaults()
{
	installed '
		fails grep -v -e "^#" -e "^$" /etc/default/tpi-stream
		env -i PATH="$PATH" tpi-streamd --check-config >/tmp/without
		sed "s/^#\([A-Z_]*=\)/\1/" /etc/default/tpi-stream >/tmp/all
		env -i PATH="$PATH" sh -c "set -a; . /tmp/all; tpi-streamd --check-config" >/tmp/with
		diff /tmp/without /tmp/with
		sed "s/=.*//" /tmp/without | sort >/tmp/names
		grep -oE "^[A-Z_]+=" /tmp/all | tr -d = | sort | diff /tmp/names -
		rm /tmp/without /tmp/with /tmp/all /tmp/names'
}

# Without Valkey, or even a network, the daemon makes its socket and exits cleanly.
runs_by_hand()
{
	installed '
		mkdir -m 777 /tmp/hand
		setpriv --reuid nobody --regid nogroup --clear-groups sh -c "
			tpi-streamd --listen /tmp/hand/sock 2>/tmp/hand/log &
			pid=\$!
			for i in \$(seq 100); do
				[ ! -S /tmp/hand/sock ] || ! grep -q 127.0.0.1:6379 /tmp/hand/log || break
				sleep 0.1
			done
			kill \$pid && wait \$pid" || { cat /tmp/hand/log; exit 1; }
		grep 127.0.0.1:6379 /tmp/hand/log
		rm -r /tmp/hand'
}

edit()
{
	installed '
		echo INSTANCE_TENANT_ID=edited >>/etc/default/tpi-stream
		chmod 600 /etc/default/tpi-stream
		sed -i "/include/s/auth-basic/app/" /etc/nginx/tpi-stream/tpi-stream.conf'
}

edits_are_kept()
{
	installed '
		grep -q INSTANCE_TENANT_ID=edited /etc/default/tpi-stream
		test "$(stat -c %a /etc/default/tpi-stream)" = 600
		grep -q "include.*app.conf" /etc/nginx/tpi-stream/tpi-stream.conf
		fails grep "Another line" /etc/nginx/tpi-stream/tpi-stream.conf
		grep "Another line" /etc/apache2/tpi-stream/tpi-stream-user.conf'
}

# No file of the package is left, not even in systemd's state.
nothing_left()
{
	! find "$1" -xdev ! -path "$1/proc/*" ! -path "$1/tpi-stream_*.deb" -name '*tpi-*' | grep . &&
	    ! grep -r tpi-stream "$1/var/lib/dpkg/status"
}

# ---- Installation under systemd

boot()
{
	rm "$work/machine/usr/sbin/policy-rc.d" || return
	: >"$work/machine/etc/machine-id"
	mkdir "$cgroup" || return
	(
		echo "$BASHPID" >"$cgroup/cgroup.procs" || exit
		# The systemd in it must not change the kernel's settings, modules or clock.
		exec unshare --mount --pid --fork --kill-child --net --uts --ipc --cgroup sh -euc '
			mount --bind "$1" "$1"
			cd "$1"
			mount -t proc proc proc
			mount -o bind,ro proc/sys proc/sys
			mount -t sysfs -o ro sysfs sys
			mount -t cgroup2 cgroup2 sys/fs/cgroup
			mount -t tmpfs tmpfs run
			mount -t tmpfs -o mode=755 tmpfs dev
			for name in null zero full random urandom tty; do
				touch dev/$name
				mount --bind /dev/$name dev/$name
			done
			mkdir dev/pts dev/shm
			mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
			ln -s pts/ptmx dev/ptmx
			mount -t tmpfs tmpfs dev/shm
			pivot_root . mnt
			umount -l mnt
			exec setpriv --bounding-set -sys_boot,-sys_module,-sys_time,-sys_rawio,-syslog \
			    env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			    /lib/systemd/systemd --unit=multi-user.target' sh "$work/machine" \
		    </dev/null >"$work/console" 2>&1
	) &
	for _ in $(seq 100); do
		machine=$(pgrep -P $!) && inside 'systemctl is-system-running --wait' && return
		sleep 0.2
	done
	[ -n "$machine" ] || kill $!
	cat "$work/console"
	return 1
}

inside()
{
	nsenter --target "$machine" --all --root --wd env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	    DEBIAN_FRONTEND=noninteractive sh -euc "$prelude$1" </dev/null
}

# started [TENANT]
started()
{
	inside "tenant=${1-default}"'
		systemctl is-enabled tpi-stream.socket
		systemctl is-enabled tpi-stream.service
		systemctl is-active tpi-stream.socket
		systemctl is-active tpi-stream.service || { journalctl -u tpi-stream.service; exit 1; }
		test "$(stat -c %a:%U:%G /run/tpi-stream/streamd.sock)" = 660:root:www-data
		pid=$(systemctl show -P MainPID tpi-stream.service)
		test "$(stat -c %u /proc/$pid)" -gt 60000
		journalctl -u tpi-stream.service | grep "started .*\"tenantId\":\"$tenant\""'
}

# A 401 in JSON is the daemon's response: www-data can connect to the socket, and the included files
# are found. Both web servers are configured as README.md says.
answers()
{
	inside '
		a2enmod -q proxy_fcgi asis
		cat >/etc/apache2/sites-available/000-default.conf <<-EOF
		<VirtualHost *:80>
			Include /etc/apache2/tpi-stream/tpi-stream.conf
			Include /etc/apache2/tpi-stream/tpi-stream-app.conf
		</VirtualHost>
		EOF
		cat >/etc/nginx/sites-available/default <<-EOF
		server {
			listen 127.0.0.1:8080;
			include /etc/nginx/tpi-stream/tpi-stream.conf;
		}
		EOF
		nginx -t
		systemctl restart apache2 nginx
		for port in 80 8080; do
			curl -s --max-time 10 -w " %{http_code}\n" \
			    http://127.0.0.1:$port/api/notifications/stream | tee -a /tmp/answers
		done
		test "$(grep -cE "\"error\".* 401\$" /tmp/answers)" = 2
		systemctl stop apache2 nginx
		rm /tmp/answers'
}

# upgrades DEB: the socket stays the same, and the daemon is a new process.
upgrades()
{
	inside "
		socket() { systemctl show -P ActiveEnterTimestampMonotonic tpi-stream.socket; }
		daemon() { systemctl show -P MainPID tpi-stream.service; }
		inode() { stat -c %i /run/tpi-stream/streamd.sock; }
		before=\$(socket):\$(inode) pid=\$(daemon)
		dpkg --force-confdef --force-confold -i $1
		test \$(socket):\$(inode) = \$before
		test \$(daemon) != \$pid
		systemctl is-active tpi-stream.socket
		systemctl is-active tpi-stream.service"
}

# Two tenants, each with its own socket, account and settings.
start_instances()
{
	inside '
		for name in alpha beta; do
			echo "TPI_PROJECT_ACCESS=allow" >/etc/tpi-stream/$name.env
			chmod 600 /etc/tpi-stream/$name.env
			systemctl enable --now tpi-stream@$name.socket tpi-stream@$name.service
		done'
	instances_run
}

instances_run()
{
	inside '
		for name in alpha beta; do
			systemctl is-active tpi-stream@$name.socket
			systemctl is-active tpi-stream@$name.service || {
				journalctl -u tpi-stream@$name.service
				exit 1
			}
			test "$(stat -c %a:%U:%G /run/tpi-stream/$name.sock)" = 660:root:www-data
			pid=$(systemctl show -P MainPID tpi-stream@$name.service)
			tr "\0" "\n" </proc/$pid/environ | grep -x INSTANCE_TENANT_ID=$name
			sed -n "s/^Uid:\t*\([0-9]*\).*/\1/p" /proc/$pid/status >>/tmp/uids
		done
		test "$(sort -u /tmp/uids | wc -l)" = 2
		rm /tmp/uids'
}

instances_are_upgraded()
{
	inside "
		of() { systemctl show -P MainPID tpi-stream@alpha.service tpi-stream@beta.service; }
		pids=\$(of) inode=\$(stat -c %i /run/tpi-stream/alpha.sock)
		dpkg --force-confdef --force-confold -i $second_deb
		for pid in \$pids; do fails test -e /proc/\$pid; done
		test \$(stat -c %i /run/tpi-stream/alpha.sock) = \$inode"
	instances_run
}

stays_disabled()
{
	inside "
		systemctl disable --now tpi-stream.service tpi-stream.socket
		dpkg --force-confdef --force-confold -i $second_deb
		fails systemctl is-enabled tpi-stream.service
		fails systemctl is-active tpi-stream.service
		systemctl enable --now tpi-stream.service"
}

removes()
{
	inside '
		dpkg -r tpi-stream
		fails systemctl is-active tpi-stream.service
		fails systemctl is-active tpi-stream.socket
		fails systemctl is-active tpi-stream@alpha.service
		fails systemctl is-active tpi-stream@alpha.socket
		fails test -e /run/tpi-stream/streamd.sock
		fails test -e /run/tpi-stream/alpha.sock
		fails grep tpi-streamd /proc/[0-9]*/comm
		test -e /etc/default/tpi-stream'
}

purges()
{
	inside '
		rm /etc/tpi-stream/*.env
		dpkg -P tpi-stream
		fails test -e /run/tpi-stream' && nothing_left "$work/machine"
}

heading "building in a fresh root: $suite from $mirror"
need "a minimal root" make_base
need "a root for building" make_build_root
need "sources owned by an unprivileged user" within "$work/build" -- chown -R builder: /build
need "sources of a second revision" revise
need "sources of the previous release${TPI_PREVIOUS+: $TPI_PREVIOUS}" go_back
need "binary packages with nocheck, without the packages that tests need" build_without_tests
need "the distribution tarball" make_distribution
need "all packages from the tarball, with make check" build_with_tests
check "the programs are hardened" is_hardened
check "debian/rules clean restores the sources" cleans_up
check "lintian finds nothing" lint

heading "installation by apt, without starting anything"
need "a root with web servers" make_root
need "apt installs the package" apt "$work/root" install "$first_deb"
check "all files are owned by root and writable by root alone" installed '
	dpkg -L tpi-stream | xargs -d "\n" sh -c "find \"\$@\" -prune ! -type l \
	    \( ! -user root -o ! -group root -o -perm /022 \)" sh >/tmp/list
	fails grep . /tmp/list
	rm /tmp/list'
check "every file in /etc is a conffile" installed '
	dpkg -L tpi-stream | grep ^/etc/ | while read -r file; do test -d $file || echo $file; done |
	    sort >/tmp/etc
	dpkg-query -Wf "\${Conffiles}" tpi-stream | sed -n "s/^ \([^ ]*\) .*/\1/p" | sort |
	    diff /tmp/etc -
	rm /tmp/etc'
check "the files in /etc name only paths that exist" paths_exist
check "all programs have the package's version" installed "
	tpi-streamd --version | grep -x 'tpi-streamd $version'
	tpi-publish --version | grep -x 'tpi-publish $version'
	test -x /usr/bin/tpi-stream-doctor
	grep -x 'VERSION = \"$version\"' /usr/bin/tpi-stream-doctor"
check "manual pages, documents and the browser module are installed" installed '
	cd /usr/share
	ls man/man8/tpi-streamd.8.gz man/man7/tpi-stream.7.gz man/man1/tpi-publish.1.gz
	ls man/man1/tpi-stream-doctor.1.gz
	ls tpi-stream/browser/package.json tpi-stream/browser/tpi-stream.js tpi-stream/browser/react.js
	cd doc/tpi-stream
	ls README.md SECURITY.md doc/web-servers.md NEWS* README.Debian copyright changelog.Debian.gz
	ls examples/prometheus/alerts.yml* examples/prometheus/dashboard.json*
	ls /etc/apache2/tpi-stream/tpi-stream-status.conf /etc/nginx/tpi-stream/tpi-stream-status.conf'
check "/etc/default/tpi-stream has every setting, with its default" shows_defaults
check "only root can read /etc/default/tpi-stream" installed '
	test "$(stat -c %a:%U:%G /etc/default/tpi-stream)" = 640:root:root'
check "the bill of materials lists the programs and their libraries" installed '
	cd /usr/share/doc/tpi-stream
	grep -q SPDX-2.3 tpi-stream.spdx.json
	grep -q "\"name\": \"libhiredis" tpi-stream.spdx.json
	for program in /usr/sbin/tpi-streamd /usr/bin/tpi-publish; do
		grep -q $(sha256sum $program | cut -d " " -f 1) tpi-stream.spdx.json
	done'
check "/etc/default/tpi-stream can be read by a shell" installed '
	(set -a; . /etc/default/tpi-stream; tpi-streamd --check-config) | grep TPI_PROJECT_ACCESS=deny'
check "the daemon runs as nobody without Valkey, and exits cleanly" runs_by_hand
check "systemd-analyze verify accepts the units" installed '
	out=$(systemd-analyze verify --man=no tpi-stream.service tpi-stream.socket \
	    tpi-stream@t1.service tpi-stream@t1.socket 2>&1)
	test -z "$out" || { echo "$out"; exit 1; }'
check "the socket and the service are enabled" installed '
	cd /etc/systemd/system
	ls multi-user.target.wants/tpi-stream.service sockets.target.wants/tpi-stream.socket'
cp -a "$work/root" "$work/machine" || exit 1
check "an administrator edits configuration files" edit
check "apt upgrades the package" apt "$work/root" -o Dpkg::Options::=--force-confdef \
    -o Dpkg::Options::=--force-confold install "$second_deb"
check "the upgrade keeps edited files and replaces the others" edits_are_kept
check "apt removes the package and keeps its files in /etc" within_shell "$work/root" '
	apt-get -qq -y remove tpi-stream
	fails test -e /usr/sbin/tpi-streamd
	grep -q INSTANCE_TENANT_ID=edited /etc/default/tpi-stream'
check "apt purges the package" apt "$work/root" purge tpi-stream
check "the purge leaves no file" nothing_left "$work/root"

heading "installation under systemd"
if [ -z "$cgroup" ]; then
	echo "no cgroup2 mounted: skipped"
	finish
fi
need "a root without the package, with web servers disabled" within_shell "$work/machine" '
	dpkg -P tpi-stream
	systemctl disable apache2 nginx'
need "systemd starts in it" boot
check "dpkg installs the previous release" inside "dpkg -i $previous_deb"
check "its socket and its service run" started
check "an administrator edits configuration files" inside '
	echo INSTANCE_TENANT_ID=edited >>/etc/default/tpi-stream
	sed -i "/include/s/auth-basic/app/" /etc/nginx/tpi-stream/tpi-stream.conf'
check "an upgrade from the previous release restarts the daemon and keeps the socket" upgrades $first_deb
check "the socket and the service run, the daemon as a dynamic user and with its settings" started edited
check "Apache and nginx reach the daemon with the files in /etc" answers
check "an instance runs for each of two tenants" start_instances
check "an upgrade restarts the daemon and keeps the socket" upgrades $second_deb
check "an upgrade restarts the instances and keeps their sockets" instances_are_upgraded
check "Apache and nginx reach the daemon after the upgrade" answers
check "an upgrade does not enable units that were disabled" stays_disabled
check "a removal stops the socket and the service" removes
check "a purge leaves no file" purges
finish
