#!/bin/sh
# A rolling restart of three nodes under a roll-out and telemetry: `make bench-rolling`. No delivery may fail, and no message that
# was acknowledged may be lost.
#
#   rolling.sh <headgate> <swarm> <moto_server>
#
# DEVICES (10000) take SIZE (256KiB) each and read READ (3KiB) a second of it; TALKERS (1000) publish a message a second each, for
# LENGTH (240) seconds, which an application hears. Devices come through the balancer (nginx with its stream module), as they would. Exit code 1 where a bar is missed.
set -eu

HEADGATE=$1 SWARM=$2 MOTO=$3
HERE=$(cd "$(dirname "$0")/.." && pwd)
DEVICES=${DEVICES:-10000}
TALKERS=${TALKERS:-1000}
SIZE=${SIZE:-256KiB}
LENGTH=${LENGTH:-240}
BASE=${BASE:-19500}
export BASE NODES=3
DIR=$(mktemp -d)
MISSED=0

cluster() { sh "$HERE/deploy/cluster.sh" "$@"; }
finish() {
	for one in ${SWARMS:-}; do kill "$one" 2>/dev/null || true; done
	cluster down "$DIR/cluster" >/dev/null 2>&1 || true
	rm -rf "$DIR"
}
trap finish EXIT
trap 'exit 130' INT TERM

# through_balancer SCENARIO PRODUCT OPTION...
through_balancer() {
	scenario=$1 product=$2; shift 2
	"$SWARM" "$scenario" --host 127.0.0.1 --port $((BASE + 83)) --http-url "http://127.0.0.1:$((BASE + 80))" \
		--data-dir "$DIR/cluster/node1" --product "$product" --attempts 100 "$@"
}

# bar NAME MEASURED BAR: measured is to be at most the bar, and to have been measured.
bar() {
	verdict=$(echo "$2 $3" | awk '{ print (NF == 2 && $1 <= $2) ? "met" : "missed" }')
	[ "$verdict" = met ] || MISSED=1
	printf '%-52s %12s  at most %-6s %s\n' "$1" "${2:--}" "$3" "$verdict"
}

metric() { curl -fsS "http://127.0.0.1:$((BASE + $1 * 100 + 64))/metrics" | sed -n "s/^$2.* //p" | awk '{ sum += $1 } END { print sum + 0 }'; }

# restart NODE: what an orchestrator does: SIGTERM, wait, start, wait until it is ready, and a while for devices to come.
restart() {
	read -r pid _ <"$DIR/cluster/node$1.pid"
	there=$(metric "$1" headgate_connections)
	begun=$(date +%s)
	kill -TERM "$pid"
	while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.1; done
	cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >>"$DIR/up"
	echo "node $1: $there connections were there; drained and ready again after $(($(date +%s) - begun)) s"
	sleep $((LENGTH / 12))
}

cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >"$DIR/up"
grep -q '^balancer' "$DIR/up" || { echo "rolling: no balancer: apt-get install nginx-light libnginx-mod-stream" >&2; exit 1; }
through_balancer telemetry rolling-talk -c "$TALKERS" -R 500 -I 1000 -q 1 --listeners 1 --persistent --for "${LENGTH}s" \
	--json "$DIR/talk.json" --fail-if 'failed=0,lost=0' >"$DIR/talk" 2>&1 &
TALK=$!
# Slow links: the roll-out is to last as long as the restarts.
through_balancer deliver rolling-take -c "$DEVICES" -R 500 --size "$SIZE" --slow-fraction 1 --slow-bps "${READ:-3KiB}" --json "$DIR/take.json" >"$DIR/take" 2>&1 &
TAKE=$!
SWARMS="$TALK $TAKE"
connected() { [ $(($(metric 1 headgate_connections) + $(metric 2 headgate_connections) + $(metric 3 headgate_connections))) -gt $((TALKERS + DEVICES * 99 / 100)) ]; }
tries=0
until connected; do
	tries=$((tries + 1))
	[ "$tries" -lt 600 ] && kill -0 "$TALK" && kill -0 "$TAKE" || { cat "$DIR/talk" "$DIR/take"; exit 1; }
	sleep 0.2
done
for node in 1 2 3; do restart "$node"; done
wait "$TALK" && talked=0 || talked=1
wait "$TAKE" && took=0 || took=1
SWARMS=
[ "$talked$took" = 00 ] || cat "$DIR/talk" "$DIR/take"
# figure FILE POINTER: a number of the report.
figure() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda of, key: of[key], sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$@" 2>/dev/null || true; }
echo "$(figure "$DIR/talk.json" messages.sent) messages were acknowledged, $(figure "$DIR/take.json" devices.ok) resources delivered"
bar "devices that failed, of $DEVICES that took a resource" "$(figure "$DIR/take.json" devices.failed)" 0
bar "acknowledged messages that were lost" "$(figure "$DIR/talk.json" messages.lost)" 0
bar "swarms that ended as they should not" $((talked + took)) 0
exit $MISSED
