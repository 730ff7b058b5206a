#!/bin/bash
# SPDX-License-Identifier: ISC
# Builds both images of contrib/container with buildah, without root privileges, and runs them.
#
#   tests/container.sh [MIRROR]
#
# No registry is needed: the base image is a root of Debian 13 made with debootstrap from MIRROR
# (http://deb.debian.org/debian). buildah works as user 0 of a user namespace, an unprivileged user of
# the machine, and the images run in a network namespace of their own. Takes several minutes and 2 GB in
# TMPDIR, and changes nothing on the machine itself. The last line is "N passed, M failed". Exit status:
# 0 all passed, 1 a test failed, 77 skipped: not root, or debootstrap or buildah is missing.
#
# shellcheck disable=SC2016,SC2317 # scripts for the namespace; functions that check() calls
# shellcheck source=tests/root.sh

set -u -o pipefail
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
unset MAKEFLAGS MAKELEVEL

source=$(cd "$(dirname "$0")/.." && pwd -P)
mirror=${1:-http://deb.debian.org/debian}

. "$source/tests/root.sh"
command -v buildah >/dev/null || skip "buildah not found"

work=$(mktemp -d) && chmod 755 "$work" || exit 1
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command as user 0 of a user namespace, whose users are 100000 and up on the machine.
namespace='
import ctypes, os, sys
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    flags = 0x10000000 | 0x00020000 | (0x40000000 if sys.argv[1] == "private" else 0)
    assert ctypes.CDLL(None).unshare(flags) == 0 # CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    os.setgroups([])
    os.setgid(0)
    os.setuid(0)
    os.execvp(sys.argv[2], sys.argv[2:])
os.read(ready[0], 1)
for name in "uid_map", "gid_map":
    with open(f"/proc/{child}/{name}", "w") as file:
        file.write("0 100000 65536\n")
os.write(go[1], b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
'

# rootless host|private SCRIPT [ARGUMENT...]: with the network of the machine, or with loopback alone.
# What the script leaves running is killed.
rootless()
{
	/usr/bin/python3 -ISc "$namespace" "$1" env -C "$work/src" HOME="$work/home" \
	    TMPDIR="$work/home" XDG_RUNTIME_DIR="$work/home" _CONTAINERS_USERNS_CONFIGURED=1 \
	    BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs \
	    unshare --pid --fork --kill-child --mount-proc bash -euc '
		b() { buildah --root "$HOME/storage" --runroot "$HOME/run" "$@"; }
		'"$2" bash "${@:3}" </dev/null
}

make_base()
{
	debootstrap --variant=minbase trixie "$work/root" "$mirror" &&
	    tar -C "$work/root" --exclude='./var/cache/apt/archives/*' -cf "$work/base.tar" . &&
	    rm -rf "$work/root" && copy_sources "$work/src" && chmod -R a+rX "$work/src" &&
	    install -d -o 100000 -g 100000 "$work/home"
}

import_base()
{
	rootless host '
		container=$(b from scratch)
		b add -q "$container" "$1" /
		b commit -q --rm "$container" localhost/debian:13' "$work/base.tar"
}

# build TARGET
build()
{
	rootless host 'b bud --pull-never --build-arg BASE=localhost/debian:13 --target "$1" -t "$1" \
	    -f contrib/container/Containerfile .' "$1"
}

# Starts both images as in a pod, with their own users and a shared directory for the socket.
run_both()
{
	rootless private '
		ip link set lo up
		mkdir -p "$HOME/socket" "$HOME/tmp"
		chmod 1777 "$HOME/tmp"
		chown 10001:10001 "$HOME/socket"
		start() # NAME OPTION...
		{
			container=$(b from --pull-never "localhost/$1")
			command=$(b inspect --format "{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}" "$container")
			mapfile -t command <<<"$command"
			b run --volume "$HOME/socket:/run/tpi-stream" "${@:2}" "$container" -- "${command[@]}" &
		}
		start streamd --env TPI_STATUS=on --env TPI_IDENTITY=app --env TPI_PROJECT_ACCESS=app \
		    --env TPI_APP_URL=http://127.0.0.1:3000
		start nginx --volume "$HOME/tmp:/tmp"
		answer() { curl -s -m 5 -w " %{http_code}" "$@" || :; }
		for i in $(seq 100); do
			[ "$(answer http://127.0.0.1:8081/api/streams/health/live)" != "{\"status\":\"ok\"} 200" ] ||
			    break
			sleep 0.2
		done
		set -x
		[ "$(answer "http://[::1]:8081/api/streams/health/live")" = "{\"status\":\"ok\"} 200" ]
		[ "$(answer http://127.0.0.1:8080/api/notifications/stream)" = "{\"error\":\"not signed in\"} 401" ]
		[ "$(answer -o /dev/null http://127.0.0.1:8080/)" = " 404" ]'
}

heading "a base image of Debian 13, from $mirror"
need "a Debian 13 root" make_base
need "an image of it" import_base
heading "the images of contrib/container, built with buildah as an unprivileged user"
need "nginx" build nginx
need "the daemon" build streamd
check "both run as their own users, and nginx reaches the daemon over IPv4 and IPv6" run_both
finish
