#!/bin/bash
# SPDX-License-Identifier: ISC
# Demonstrates tpi-stream on this machine; contrib/demo/README.md describes the parts.

set -eu
umask 022
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

usage="usage: contrib/quickstart.sh [--nginx] [--check]"

help()
{
	cat <<-END
	$usage

	Demonstrates tpi-stream on this machine: installs missing packages, builds, starts a private
	Valkey (or Redis), tpi-streamd, a small application and a web server, and prints the address of
	a page. The page shows a test run, issues and notifications that change in one window when
	another window changes them. It can stop the daemon and start it again.

	  --nginx   use nginx instead of Apache
	  --check   start everything, check that events arrive through the web server and that the
	            application responds, and exit
	  --help    print this text

	Runs on Debian 12, Debian 13, Ubuntu and similar systems, as root or with sudo. Each program has
	its own configuration and listens on 127.0.0.1 or on a Unix socket in a temporary directory. No
	service of the system is touched. Ctrl-C stops everything and leaves only the packages and the
	build in _build, or in \$TPI_BUILD.

	Exit status: 0 success, 1 failure (prints the logs), 64 wrong usage, 69 packages are missing.
	END
}

front=apache
check=no
for argument; do
	case $argument in
	--nginx) front=nginx ;;
	--check) check=yes ;;
	--help) help; exit 0 ;;
	*) echo "quickstart.sh: unknown argument \"$argument\"; $usage" >&2; exit 64 ;;
	esac
done

contrib=$(cd "$(dirname "$0")" && pwd -P)
source=$(dirname "$contrib")
build=$(realpath -m "${TPI_BUILD:-$source/_build}")
publish=$build/tpi-publish

# The caller's own settings must not affect the demo.
unset "${!TPI_@}" "${!SSE_@}" "${!VALKEY_@}" "${!LISTEN_@}" NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID
export INSTANCE_TENANT_ID=demo

# ---- Cleanup

# Each program runs in its own session: Ctrl-C in a terminal reaches only this script, which stops the
# others in order. Each leads a process group that includes its workers; the application's includes
# the daemon.
run=
pids=() # in the order in which they are stopped: open streams would delay the end of Apache

finish()
{
	trap '' INT TERM HUP PIPE
	set +e
	exec 2>/dev/null # hide the shell's messages about stopped jobs
	local pid
	for pid in "${pids[@]}"; do
		end "$pid"
	done
	for pid in $(jobs -p); do # just started, not yet in pids
		end "$pid"
	done
	[ -z "$run" ] || rm -rf "$run"
}

# Waits up to 10 s for a child to exit. The shell reaps its children; "wait" in a trap can hang.
gone()
{
	local tries
	for ((tries = 0; tries < 100; tries++)); do
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.1
	done
	return 1
}

# Stops a child. Kills what is left of its process group after 10 s, or after the child has exited.
end()
{
	kill -TERM "$1" 2>/dev/null
	gone "$1"
	kill -KILL -- "-$1" 2>/dev/null
	gone "$1"
}

trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

fail()
{
	local log
	echo "quickstart.sh: $1" >&2
	for log in "$run"/*.log; do
		[ ! -s "$log" ] || { echo "---- ${log##*/}"; tail -n 40 "$log"; } >&2
	done
	exit 1
}

# await EVENT COMMAND...: repeats the command until it succeeds, for at most 30 s.
await()
{
	local what=$1 tries
	shift
	for ((tries = 0; tries < 300; tries++)); do
		"$@" 2>/dev/null && return 0
		sleep 0.1
	done
	fail "timed out after 30 s: $what"
}

# ---- Packages and programs

"$contrib/install-deps.sh" demo
python=/usr/bin/python3
[ -x $python ] || { echo "quickstart.sh: cannot find $python: install the package python3" >&2; exit 69; }

run=$(mktemp -d /tmp/tpi-stream.XXXXXX)
chmod 755 "$run" # for the web server's workers

# The owner of the source owns the build, too, even under sudo.
as_owner()
{
	local owner
	owner=$(stat -c %U "$source")
	if [ "$(id -u)" -ne 0 ] || [ "$owner" = root ] || [ "$owner" = UNKNOWN ]; then
		"$@"
	else
		runuser -u "$owner" -- "$@"
	fi
}

build()
{
	cd "$source"
	[ -x configure ] || autoreconf -i
	mkdir -p "$build"
	cd "$build"
	[ -f Makefile ] || "$source/configure"
	make -j"$(nproc)"
}

"$contrib/install-deps.sh" build
echo "building in $build"
export -f build
source=$source build=$build as_owner bash -euc build >"$run/build.log" 2>&1 || fail "the build failed"
rm "$run/build.log"

# ---- Valkey, and the application with the daemon

valkey=$(command -v valkey-server || command -v redis-server)
setsid "$valkey" --port 0 --unixsocket "$run/valkey.sock" --unixsocketperm 700 --save '' \
    --dir "$run" >"$run/valkey.log" 2>&1 &
pids=($!)
await "${valkey##*/} listens" test -S "$run/valkey.sock"
# Under sudo, let the user publish from another terminal without sudo.
[ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" "$run/valkey.sock"
export VALKEY_URL=unix://$run/valkey.sock

cat >"$run/access" <<END
# project	users who can read it
7	ann ben
8	ann
END

# The web server's workers must be able to connect.
group=()
[ "$(id -u)" -ne 0 ] || group=(--group www-data)
# The page shows the number of open streams. Apache notices only when it writes that a browser has
# closed one, so heartbeats are frequent.
streamd=(env "TPI_PROJECT_ACCESS=file:$run/access" TPI_STATUS=on SSE_HEARTBEAT_MS=1000
    "$build/tpi-streamd" --listen "unix:$run/streamd.sock" "${group[@]}")

# Browsers also send a signed-in user's password with requests that other sites trigger. Only the
# demo's own page knows this token.
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
DEMO_TOKEN=$token setsid $python "$contrib/demo/app.py" "$run/app.sock" "$run/access" "$publish" \
    "${streamd[@]}" >"$run/streamd.log" 2>"$run/app.log" &
pids=($! "${pids[@]}")
await "tpi-streamd listens" test -S "$run/streamd.sock"
await "the application listens" test -S "$run/app.sock"
[ "$(id -u)" -ne 0 ] || chgrp www-data "$run/app.sock"

# ---- The web server, from the files of contrib/apache or contrib/nginx

# / is the page, which requires sign-in; /demo/ has public files; /demo/api/ is the application.
mkdir -p "$run/www/demo"
sed "s/@TOKEN@/$token/" "$contrib/demo/index.html" >"$run/www/index.html"
cp "$contrib"/demo/{signed-out.html,demo.css,demo.js} "$contrib/browser/tpi-stream.js" \
    "$run/www/demo"
cp "$contrib/demo/users" "$contrib/apache/later.asis" "$run"
chmod -R a+rX "$run/www" "$run/users" "$run/later.asis"

# Scripts and styles from files of this site only; no frames.
policy="default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
frame-ancestors 'none'"

start_apache()
{
	cat >"$run/site.conf" <<-END
		Listen 127.0.0.1:$1
		Define TPI_BACKEND "unix:$run/streamd.sock|fcgi://localhost"
		Define TPI_LATER "$run/later.asis"
		Define TPI_USERS "$run/users"
		Include "$contrib/apache/tpi-stream-workers.conf"
		Include "$contrib/apache/tpi-stream.conf"
		Include "$contrib/apache/tpi-stream-auth-basic.conf"
		Header always set Content-Security-Policy "$policy"
		<Directory "$run/www">
			AuthType Basic
			AuthName "TestPlanIt"
			AuthUserFile "$run/users"
			Require valid-user
			ErrorDocument 401 /demo/signed-out.html
			Header set Cache-Control no-cache
		</Directory>
		<Directory "$run/www/demo">
			Require all granted
		</Directory>
		<Location "/demo/api/">
			AuthType Basic
			AuthName "TestPlanIt"
			AuthUserFile "$run/users"
			Require valid-user
			ProxyPass "unix:$run/app.sock|http://localhost/demo/api/"
			ProxyPreserveHost On
			RequestHeader set X-Demo-User "expr=%{REMOTE_USER}"
		</Location>
	END
	setsid apache2 -d "$run" -f "$contrib/demo/apache.conf" -D FOREGROUND \
	    >"$run/apache.log" 2>&1 &
}

start_nginx()
{
	rm -rf "$run/tpi-stream"
	mkdir "$run/tpi-stream"
	cp "$contrib"/nginx/*.conf "$run/tpi-stream"
	sed -i -e "s|/etc/nginx/tpi-stream/users|$run/users|" \
	    -e 's|/etc/nginx/tpi-stream/|tpi-stream/|' \
	    -e "s|unix:/run/tpi-stream/streamd.sock|unix:$run/streamd.sock|" \
	    "$run"/tpi-stream/*.conf
	cat >"$run/site.conf" <<-END
		listen 127.0.0.1:$1;
		add_header Content-Security-Policy "$policy" always;
		location / {
			auth_basic "TestPlanIt";
			auth_basic_user_file users;
			error_page 401 /demo/signed-out.html;
			expires epoch;
		}
		location /demo/ {
			expires epoch;
		}
		location /demo/api/ {
			auth_basic "TestPlanIt";
			auth_basic_user_file users;
			proxy_pass http://unix:$run/app.sock;
			proxy_set_header Host \$http_host;
			proxy_set_header X-Demo-User \$remote_user;
		}
		include tpi-stream/tpi-stream.conf;
	END
	cp "$contrib/demo/nginx.conf" "$run"
	setsid nginx -p "$run" -c "$run/nginx.conf" -e stderr >"$run/nginx.log" 2>&1 &
}

listens()
{
	(: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Whether our own web server listens on the port: it serves this demo's token to ann.
serves()
{
	curl -s -m 5 -u ann:ann "http://127.0.0.1:$1/" | grep -q "$token"
}

# Another program may take a free port before the web server does: then try the next one. With
# --check, several instances may run at once, so start at a random port.
web=
first=8080
[ $check = no ] || first=$((20000 + RANDOM % 10000))
for ((port = first; port < first + 100; port++)); do
	! listens "$port" || continue
	"start_$front" "$port"
	web=$!
	pids+=("$web")
	for ((tries = 0; tries < 300; tries++)); do
		kill -0 "$web" 2>/dev/null || break
		! serves "$port" || break 2
		sleep 0.1
	done
	end "$web" || true
	web=
	unset 'pids[-1]'
	grep -q 'Address already in use' "$run/$front.log" || break
done
[ -n "$web" ] || fail "cannot start $front"
url=http://127.0.0.1:$port

# ---- Check

# api STATUS PATH ARGUMENT...: sends a request to the application as ann; any other status is a failure.
api()
{
	local wanted=$1 path=$2 status
	shift 2
	status=$(curl -s -m 10 -u ann:ann -o "$run/answer" -w '%{http_code}' "$@" \
	    "$url/demo/api/$path" || true)
	[ "$status" = "$wanted" ] || fail "/demo/api/$path $*: status $status instead of $wanted"
}

# answers LINE: whether the notification stream begins with this line.
answers()
{
	curl -sN -m 2 -u ann:ann "$url/api/notifications/stream" | grep -qxF -e "$1"
}

check_now()
{
	local name path anonymous page notice
	anonymous=$(curl -s -m 5 -o /dev/null -w '%{http_code}' "$url/api/notifications/stream" ||
	    true)
	[ "$anonymous" = 401 ] || fail "not signed in: status $anonymous instead of 401"
	echo "not signed in: 401"

	local -A paths=([notifications]=/api/notifications/stream
	    [issues]="/api/issues/stream?projectIds=7,8"
	    [test-runs]=/api/projects/7/test-runs/stream)
	for name in "${!paths[@]}"; do
		path=${paths[$name]}
		setsid curl -sSN -m 60 -u ann:ann "$url$path" >"$run/$name.log" 2>&1 &
		pids=($! "${pids[@]}")
	done
	for name in "${!paths[@]}"; do
		await "sync on the $name stream" \
		    grep -q '^data: {"event":"sync"}$' "$run/$name.log"
	done
	api 200 connections
	grep -q '"connections": 3' "$run/answer" || fail "not three connections: $(cat "$run/answer")"
	"$publish" notification --user ann --id quickstart || fail "tpi-publish notification failed"
	"$publish" issue --project 7 --issue 42 || fail "tpi-publish issue failed"
	"$publish" test-run --project 7 --run 42 --target 1 || fail "tpi-publish test-run failed"
	await "the notification arrives" \
	    grep -q '^data: .*"id":"quickstart"' "$run/notifications.log"
	await "the issue's wake-up arrives" \
	    grep -q '^data: .*"issueId":42' "$run/issues.log"
	await "the test run's wake-up arrives" \
	    grep -q '^data: .*"runId":42.*"targetId":1' "$run/test-runs.log"
	for name in "${!paths[@]}"; do
		echo "$name stream, through $front:"
		sed -n 's/^data: /    /p' "$run/$name.log"
	done

	page=$(curl -s -m 10 -u ann:ann "$url/" | sed -n 's/.*name="demo-token" content="\(.*\)".*/\1/p')
	[ "$page" = "$token" ] || fail "the page does not have the token"
	notice='{"to":"ann","text":"Test run 12 has finished"}'
	api 403 notify -H "X-Demo-Token: wrong" -d "$notice"
	api 403 notify -H "X-Demo-Token: $token" -H "Origin: http://example.org" -d "$notice"
	api 403 notify -H "X-Demo-Token: $token" -H "Sec-Fetch-Site: cross-site" -d "$notice"
	api 400 notify -H "X-Demo-Token: $token" -d '{"to":"nobody"}'
	echo "application: 403 for a wrong token, origin or site; 400 for bad input"
	api 200 notify -H "X-Demo-Token: $token" -H "Origin: $url" -d "$notice"
	name=$(sed -n 's/.*"id": "\(.*\)".*/\1/p' "$run/answer")
	await "the application's notification arrives" \
	    grep -q "^data: .*\"id\":\"$name\"" "$run/notifications.log"
	api 200 notifications
	grep -q "$name" "$run/answer" || fail "the application does not return its notification"
	echo "application: stored, published, arrived, fetched"

	api 403 daemon -d '{"run":false}'
	api 403 daemon -H "X-Demo-Token: $token" -H 'Host: example.org' -d '{"run":false}'
	api 400 daemon -H "X-Demo-Token: $token" -d '{"run":"sh"}'
	api 200 daemon -H "X-Demo-Token: $token" -d '{"run":false}'
	await "the web server defers while the daemon is stopped" answers 'retry: 10000'
	api 200 daemon -H "X-Demo-Token: $token" -d '{"run":true}'
	await "sync after the daemon has been started again" answers 'data: {"event":"sync"}'
	echo "daemon: stopped, deferred by $front, started, synced"
	echo "ok"
}

if [ $check = yes ]; then
	check_now
	exit 0
fi

cat <<END

tpi-streamd is running behind $front. Open this page, and again in a private window:

    $url/

    user ann, password ann    test run 42, issues of projects 7 and 8, notifications
    user ben, password ben    test run 42, issues of project 7, notifications

Use the buttons on the page, or publish from another terminal:

    export VALKEY_URL=$VALKEY_URL INSTANCE_TENANT_ID=$INSTANCE_TENANT_ID
    $publish notification --user ann
    $publish notification --broadcast
    $publish issue --project 7 --issue 42
    $publish test-run --project 7 --run 42 --event test_run.result_added --target 1

Logs are in $run. Press Ctrl-C to stop.
END

while :; do
	for pid in "${pids[@]}"; do
		kill -0 "$pid" 2>/dev/null || fail "a program exited unexpectedly"
	done
	sleep 0.5
done
