#!/bin/bash
# The benchmark: tpi-streamd side by side with others, on this machine, in one run. `make bench`
# builds what it needs and starts it.
#
#   tests/bench/run.sh [OPTION...]
#
# --quick        fewer rounds, fewer streams: shows that all works, not how fast
# --rounds N     5
# --peers LIST   "streamd floor"; the first is compared with each of the others. There are also:
#                tuned (tpi-streamd with the allocator settings of its systemd unit)
# --json FILE    every figure of every run, and the medians
#
# Each round runs each scenario with each peer, one behind the other, so that what else the
# machine does meets them alike; a ratio is of two runs of one round, and the table shows medians
# of ratios. It ends within 5 minutes, with fewer rounds where the machine is slow. All traffic
# goes over Unix sockets in a directory of its own, with a Valkey of its own; nothing is left.
# In the environment: TPI_BUILD, the build directory (_build beside the sources).
# Exit status: 0 measured, 1 events were lost, doubled or out of order, or a peer failed, 64 wrong
# usage, 69 cannot be run here.

set -u -o pipefail
export LC_ALL=C.UTF-8

here=$(cd "$(dirname "$0")" && pwd -P)
build=${TPI_BUILD-$here/../../_build}

die()
{
	echo "tests/bench/run.sh: $2" >&2
	exit "$1"
}

rounds=5 quick=no peers="streamd floor" json=""
while [ $# -gt 0 ]; do
	case $1 in
	--quick) quick=yes rounds=2 ;;
	--rounds | --peers | --json)
		[ $# -gt 1 ] || die 64 "$1 needs a value"
		case $1 in
		--rounds) rounds=$2 ;;
		--peers) peers=$2 ;;
		--json) json=$(realpath -m "$2") ;;
		esac
		shift
		;;
	--help)
		sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
		exit 0
		;;
	*) die 64 "unknown argument $1; see tests/bench/run.sh --help" ;;
	esac
	shift
done
[[ $rounds =~ ^[1-9][0-9]?$ ]] || die 64 "--rounds $rounds: allowed is a number from 1 to 99"

# No run is begun later than this, in seconds, and none takes longer than that.
LAST_START=240
RUN_LIMIT=40

# ---- Scenarios: a name, the number of streams, and how messages are published (see load --help)

if [ $quick = no ]; then
	scenarios=(
		"open 5000 --messages 0"
		"one-1000 1000 --messages 300"
		"one-5000 5000 --messages 100"
		"targeted 100 --messages 16000 --rate 8000 --burst 8 --targeted 100"
		"burst 100 --messages 16000 --rate 8000 --burst 8 --targeted 10"
	)
else
	scenarios=(
		"open 500 --messages 0"
		"one-200 200 --messages 50"
		"one-1000 1000 --messages 20"
		"targeted 100 --messages 4000 --rate 8000 --burst 8 --targeted 100"
		"burst 100 --messages 4000 --rate 8000 --burst 8 --targeted 10"
	)
fi

# ---- Peers. start_NAME STREAMS sets pids, the processes whose CPU time and memory count, and is to
# listen on $socket; whatever is in pids is ended after the run. The users are u0, u1, ...

tenant=bench

start_streamd()
{
	env INSTANCE_TENANT_ID=$tenant VALKEY_URL="unix://$valkey" TPI_LOG_LEVEL=warn \
	    SSE_PER_TENANT_CAP=100000 "$build/tpi-streamd" --listen "unix:$socket" \
	    >>"$work/peer.out" 2>&1 &
	pids=($!)
}

start_tuned()
{
	local -x GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.rtld.nns=1:glibc.rtld.optional_static_tls=0
	start_streamd "$1"
}

start_floor()
{
	"$build/tests/bench/floor" "$socket" "$valkey" $tenant "$1" >>"$work/peer.out" 2>&1 &
	pids=($!)
}

for peer in $peers; do
	declare -F "start_$peer" >/dev/null || die 64 "--peers: there is no $peer; see --help"
done
[[ $peers == *[!\ ]* ]] || die 64 "--peers: names none"

# ---- What it needs

for program in tpi-streamd tests/bench/load tests/bench/floor; do
	[ -x "$build/$program" ] || die 69 "$build/$program is not built: make bench"
done
build=$(cd "$build" && pwd -P)
valkey_server=$(command -v valkey-server || command -v redis-server) ||
    die 69 "no Valkey (or Redis): contrib/install-deps.sh test"
! grep -q '^#define TPI_SANITIZED' "$build/config.h" 2>/dev/null ||
    echo "tests/bench/run.sh: built with sanitizers: the figures mean nothing" >&2
ulimit -n "$(ulimit -Hn)"
for scenario in "${scenarios[@]}"; do
	read -r name streams _ <<<"$scenario"
	[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge $((streams + 100)) ] ||
	    die 69 "$name: $streams streams need more than $(ulimit -n) descriptors (ulimit -Hn)"
done

work=$(mktemp -d) || exit 69
socket=$work/peer.sock valkey=$work/valkey.sock pids=() load_pid="" valkey_pid=""

# Ends our children, if need be by force.
end()
{
	local pid
	[ $# -eq 0 ] || kill "$@" 2>/dev/null
	for pid; do
		timeout 10 tail -s 0.05 --pid "$pid" -f /dev/null || kill -KILL "$pid"
		wait "$pid" 2>/dev/null
	done
}

stop_peer()
{
	end "${pids[@]}"
	pids=()
	rm -f "$socket"
}

clean_up()
{
	# shellcheck disable=SC2086 # none or one
	end $load_pid
	stop_peer
	# shellcheck disable=SC2086
	end $valkey_pid
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A subscriber that lags behind is not cut off: its lag is measured.
"$valkey_server" --port 0 --unixsocket "$valkey" --save '' --appendonly no --dir "$work" \
    --client-output-buffer-limit 'pubsub 0 0 0' >"$work/valkey.out" 2>&1 &
valkey_pid=$!
until [ -S "$valkey" ]; do
	kill -0 $valkey_pid 2>/dev/null || die 69 "Valkey does not start: $(tail -n 1 "$work/valkey.out")"
	sleep 0.02
done

# ---- Rounds

failed=0

# run ROUND PEER NAME STREAMS LOAD-OPTION...: one line into $work/runs.
run()
{
	local round=$1 peer=$2 name=$3 streams=$4 status=0 arguments=() pid
	shift 4
	: >"$work/peer.out"
	"start_$peer" "$streams"
	for pid in "${pids[@]}"; do
		arguments+=(--pid "$pid")
	done
	timeout $RUN_LIMIT "$build/tests/bench/load" --server "$socket" --valkey "$valkey" \
	    --tenant $tenant "${arguments[@]}" --streams "$streams" "$@" \
	    >"$work/load.out" 2>"$work/load.err" &
	load_pid=$!
	wait $load_pid || status=$?
	load_pid=""
	stop_peer
	if [ $status -ne 0 ]; then
		failed=1
		{
			echo "$name, $peer, round $round: load: exit status $status"
			cat "$work/load.err"
			tail -n 20 "$work/peer.out"
		} >&2
	fi
	[ ! -s "$work/load.out" ] || printf '{"round":%d,"scenario":"%s","peer":"%s","load":%s}\n' \
	    "$round" "$name" "$peer" "$(cat "$work/load.out")" >>"$work/runs"
}

: >"$work/runs"
order=$peers
for ((round = 1; round <= rounds; round++)); do
	[ ! -t 2 ] || printf 'round %d of %d\r' "$round" "$rounds" >&2
	for scenario in "${scenarios[@]}"; do
		for peer in $order; do
			if [ $SECONDS -ge $LAST_START ]; then
				echo "tests/bench/run.sh: out of time in round $round of $rounds" >&2
				break 3
			fi
			# shellcheck disable=SC2086 # a list
			run "$round" "$peer" $scenario
		done
	done
	# Who was last is first in the next round.
	order="${order##* } ${order% *}"
	[[ $peers == *\ * ]] || order=$peers
done

/usr/bin/python3 "$here/table.py" --peers "$peers" ${json:+--json "$json"} \
    --valkey "$("$valkey_server" --version)" "$work/runs" || failed=1
exit $failed
