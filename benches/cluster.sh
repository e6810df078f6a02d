#!/bin/sh
# What several nodes cost, and what becomes of a roll-out when one of them is killed: `make bench-cluster`.
#
#   cluster.sh <headgate> <swarm> <moto_server>
#
# DEVICES (300) a node, SIZE (256KiB) of the resource, HOLD (60) seconds at rest. One line for each bar: what was measured,
# the bar, and whether it is met; exit code 1 where one is missed.
set -eu

HEADGATE=$1 SWARM=$2 MOTO=$3
HERE=$(cd "$(dirname "$0")/.." && pwd)
DEVICES=${DEVICES:-300}
SIZE=${SIZE:-256KiB}
HOLD=${HOLD:-60}
BASE=${BASE:-19000}
export BASE
DIR=$(mktemp -d)
MISSED=0

cluster() { sh "$HERE/deploy/cluster.sh" "$@"; }
finish() {
	cluster down "$DIR/cluster" >/dev/null 2>&1 || true
	rm -rf "$DIR"
}
trap finish EXIT
trap 'exit 130' INT TERM

redis() { redis-cli -p $((BASE + 79)) "$@"; }

# calls: commands that clients sent; what scripts call counts for nothing.
calls() { redis INFO commandstats | tr -d '\r' | sed -n 's/^cmdstat_\(evalsha\|eval\|hscan\|hmget\|exists\|xread\|ping\):calls=\([0-9]*\),.*/\2/p' | awk '{ sum += $1 } END { print sum + 0 }'; }
memory() { redis INFO memory | tr -d '\r' | sed -n 's/^used_memory://p'; }

# seconds NODES: processor time of all of them.
seconds() {
	ticks=0
	for file in "$DIR"/cluster/node*.pid; do
		read -r pid _ <"$file"
		spent=$(sed 's/.*) //' "/proc/$pid/stat" | awk '{ print $12 + $13 }')
		ticks=$((ticks + spent))
	done
	echo "$ticks $(getconf CLK_TCK)" | awk '{ print $1 / $2 }'
}

# bar NAME MEASURED BAR UNIT: measured is to be at most the bar.
bar() {
	verdict=$(echo "$2 $3" | awk '{ print ($1 <= $2) ? "met" : "missed" }')
	[ "$verdict" = met ] || MISSED=1
	printf '%-52s %12s  at most %-10s %s  %s\n' "$1" "$2" "$3" "$4" "$verdict"
}

swarm() {
	command=$1 node=$2; shift 2
	"$SWARM" "$command" --host 127.0.0.1 --port $((BASE + node * 100 + 83)) \
		--http-url "http://127.0.0.1:$((BASE + node * 100 + 80))" --data-dir "$DIR/cluster/node1" \
		--product "swarm$node" --devices "$DEVICES" --threads 1 --attempts 100 "$@"
}

# deliver NODES: every node delivers to as many devices as the others; the swarms' exit codes are the verdict on the bytes.
deliver() {
	node=1 swarms=
	while [ "$node" -le "$1" ]; do
		swarm deliver "$node" --size "$SIZE" --keep >"$DIR/deliver$node" 2>&1 &
		swarms="$swarms $!"
		node=$((node + 1))
	done
	failed=0
	for one in $swarms; do wait "$one" || failed=1; done
	return $failed
}

# part SECONDS NODES: per device, in milliseconds.
part() { echo "$1 $2 $DEVICES" | awk '{ printf "%.2f", $1 * 1000 / ($2 * $3) }'; }

one_node() {
	NODES=1 cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >"$DIR/up"
	# Devices are registered and bytes stored before what is measured.
	swarm connect 1 --hold 1s --keep >/dev/null 2>&1
	before=$(seconds)
	deliver 1 || { cat "$DIR"/deliver*; exit 1; }
	ALONE=$(part "$(echo "$(seconds) $before" | awk '{ print $1 - $2 }')" 1)
	cluster down "$DIR/cluster" >/dev/null
}

three_nodes() {
	NODES=3 cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >"$DIR/up"
	for node in 1 2 3; do swarm connect "$node" --hold 1s --keep >/dev/null 2>&1; done
	sleep 2
	# What nodes ask of Redis though no device does anything is theirs.
	idle=$(calls); sleep 10; idle=$(($(calls) - idle))
	calls=$(calls) memory=$(memory)
	swarms=
	for node in 1 2 3; do
		swarm connect "$node" --hold "${HOLD}s" --keep >"$DIR/connect$node" 2>&1 &
		swarms="$swarms $!"
	done
	connected() {
		sum=0
		for node in 1 2 3; do
			count=$(curl -fsS "http://127.0.0.1:$((BASE + node * 100 + 64))/metrics" |
				sed -n 's/^headgate_connections{.*} //p' | awk '{ sum += $1 } END { print sum + 0 }')
			sum=$((sum + count))
		done
		[ "$sum" -ge $((3 * DEVICES)) ]
	}
	begun=$(date +%s)
	until connected; do
		[ $(($(date +%s) - begun)) -lt 120 ] || { cat "$DIR"/connect*; exit 1; }
		sleep 0.2
	done
	taken=$(($(date +%s) - begun))
	per_connect=$(echo "$(calls) $calls $idle $taken $DEVICES" | awk '{ printf "%.2f", ($1 - $2 - $3 * $4 / 10) / (3 * $5) }')
	bar "Redis round trips per connect" "$per_connect" 3 ""
	per_device=$(echo "$(memory) $memory $DEVICES" | awk '{ printf "%.0f", ($1 - $2) / (3 * $3) }')
	bar "Redis memory per connected device" "$per_device" 1024 bytes
	sleep 5
	calls=$(calls); rest=$((HOLD > 30 ? 20 : 5)); sleep "$rest"
	per_minute=$(echo "$(calls) $calls $idle $rest $DEVICES" | awk '{ v = (($1 - $2) - $3 * $4 / 10) * 60 / $4 / (3 * $5); printf "%.3f", v < 0 ? 0 : v }')
	bar "Redis commands per idle device and minute" "$per_minute" 0.1 ""
	for one in $swarms; do wait "$one" || { cat "$DIR"/connect*; exit 1; }; done

	before=$(seconds)
	deliver 3 || { cat "$DIR"/deliver*; exit 1; }
	three=$(part "$(echo "$(seconds) $before" | awk '{ print $1 - $2 }')" 3)
	ratio=$(echo "$three $ALONE" | awk '{ printf "%.2f", $1 / $2 }')
	echo "processor time per device: one node $ALONE ms, three nodes $three ms"
	bar "cost per device, three nodes against one" "$ratio" 1.15 ""
}

killed_node() {
	deliver 3 &
	delivering=$!
	half=$((3 * DEVICES / 2))
	done_of() {
		PGCONNECT_TIMEOUT=5 psql -h 127.0.0.1 -p $((BASE + 32)) -U headgate -d registry -qtAX -c \
			"SELECT COUNT(*) FROM delivery WHERE state = 3 AND task_id IN (SELECT id FROM task WHERE created_at > $1)" 2>/dev/null || echo 0
	}
	since=$(($(date +%s) * 1000))
	begun=$(date +%s)
	until [ "$(done_of "$since")" -ge "$half" ]; do
		[ $(($(date +%s) - begun)) -lt 300 ] || break
		sleep 0.1
	done
	read -r pid _ <"$DIR/cluster/node2.pid"
	kill -KILL "$pid"
	sleep 1
	NODES=3 cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >>"$DIR/up"
	if wait "$delivering"; then lost=0; else lost=1; cat "$DIR"/deliver*; fi
	bar "swarms with a wrong or missing byte, a node killed" "$lost" 0 ""
	again=$(psql -h 127.0.0.1 -p $((BASE + 32)) -U headgate -d registry -qtAX -c \
		"SELECT COUNT(*) FROM delivery WHERE attempt > 1 AND task_id IN (SELECT id FROM task WHERE created_at > $since)")
	bar "deliveries started over, a node killed" "$again" 0 ""
}

one_node
three_nodes
killed_node
exit $MISSED
