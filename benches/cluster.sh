#!/bin/sh
# What several nodes cost, and what becomes of a roll-out when one of them is killed: `make bench-cluster`.
#
#   cluster.sh <headgate> <swarm> <moto_server>
#
# DEVICES (300) a node take SIZE (256KiB) and stay for REST (30) seconds; COST_DEVICES (DEVICES, and 3000 at most) a node
# say what one costs; TAKEOVERS (1000) and SESSIONS (1000) of single devices. PARTS says which of these. Prints a table: bar, what was measured,
# verdict; exit code 1 where a bar is missed, 2 where there is nothing to measure. Ends after LIMIT (900) seconds.
set -eu

HEADGATE=$1 SWARM=$2 MOTO=$3
HERE=$(cd "$(dirname "$0")/.." && pwd)
DEVICES=${DEVICES:-300}
SIZE=${SIZE:-256KiB}
REST=${REST:-30}
COST_DEVICES=${COST_DEVICES:-$((DEVICES < 3000 ? DEVICES : 3000))}
TAKEOVERS=${TAKEOVERS:-1000}
SESSIONS=${SESSIONS:-1000}
LIMIT=${LIMIT:-900}
PARTS=${PARTS:-cost single_devices fleet killed_node}
BASE=${BASE:-19000}
NODES=3
export BASE NODES
DIR=$(mktemp -d)
MISSED=0

cluster() { sh "$HERE/deploy/cluster.sh" "$@"; }
SWARMS=
finish() {
	for one in $SWARMS $WATCH; do kill "$one" 2>/dev/null || true; done
	cluster down "$DIR/cluster" >/dev/null 2>&1 || true
	rm -rf "$DIR"
}
trap finish EXIT
trap 'exit 130' INT TERM
# It ends by itself, whatever hangs.
(sleep "$LIMIT" & wait $!; echo "cluster: not done after $LIMIT s" >&2; kill -TERM $$) 2>/dev/null &
WATCH=$!
# Each process, a node or a swarm, has so many connections.
if [ "$(ulimit -n)" -lt $((DEVICES + 500)) ]; then ulimit -n $((DEVICES + 500)); fi

say() { printf '%s s  %s\n' "$(($(date +%s) - STARTED))" "$*" >&2; }
STARTED=$(date +%s)
died() {
	echo "cluster: $1" >&2
	tail -n 5 "$DIR"/swarm* "$DIR/up" >&2 2>/dev/null || true
	exit 2
}

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

# bar NAME MEASURED BAR UNIT: measured is to be at most the bar; no bar: it is written down.
bar() {
	verdict=noted
	if [ -n "$3" ]; then
		verdict=$(echo "$2 $3" | awk '{ print ($1 <= $2) ? "met" : "missed" }')
		[ "$verdict" != missed ] || MISSED=1
	fi
	printf '| %-56s | %10s %-5s | %10s | %-7s |\n' "$1" "$2" "$4" "${3:--}" "$verdict" | tee -a "$DIR/table" >&2
}

# swarm COMMAND NODE DEVICES OPTIONS...: devices of a product of the node's own, made where they are missing.
swarm() {
	command=$1 node=$2 devices=$3; shift 3
	at=$((BASE + (NODES == 1 ? 1 : node) * 100))
	"$SWARM" "$command" --host 127.0.0.1 --port $((at + 83)) \
		--http-url "http://127.0.0.1:$((at + 80))" --data-dir "$DIR/cluster/node1" \
		--product "swarm$node" --devices "$devices" --threads 1 --attempts 100 --timeout "${LIMIT}s" --keep "$@"
}

# start COMMAND DEVICES OPTIONS...: three swarms in the background, one at each node where there are three.
start() {
	command=$1 devices=$2; shift 2
	SWARMS= node=1
	while [ "$node" -le 3 ]; do
		swarm "$command" "$node" "$devices" "$@" >"$DIR/swarm$node" 2>&1 &
		SWARMS="$SWARMS $!"
		node=$((node + 1))
	done
}

# ended: waits for the swarms; says how many of them saw a wrong or a missing byte, and what those printed.
ended() {
	WRONG=0 node=0
	for one in $SWARMS; do
		node=$((node + 1))
		wait "$one" || { WRONG=$((WRONG + 1)); echo "swarm $node:" >&2; tail -n 25 "$DIR/swarm$node" >&2; }
	done
	SWARMS=
}

# metric NAME: over all nodes; one that does not answer has nothing.
metric() {
	for node in 1 2 3; do
		curl -fsS -m 10 "http://127.0.0.1:$((BASE + node * 100 + 64))/metrics" 2>/dev/null || true
	done | sed -n "s/^$1\({.*}\)* \([0-9.e+]*\)\$/\2/p" | awk '{ sum += $1 } END { printf "%d", sum }'
}

# has PART: whether it is to be measured.
has() { case " $PARTS " in *" $1 "*) ;; *) return 1 ;; esac; }

# reached WHAT COUNT SECONDS COMMAND...: until the command prints so much.
reached() {
	what=$1 count=$2 patience=$3; shift 3
	from=$(date +%s)
	until [ "$("$@")" -ge "$count" ]; do
		[ $(($(date +%s) - from)) -lt "$patience" ] || died "$what: $("$@") of $count after $patience s"
		sleep 0.5
	done
}

# part SECONDS DEVICES: per device, in milliseconds.
part() { echo "$1 $2" | awk '{ printf "%.2f", $1 * 1000 / $2 }'; }
less() { echo "$1 $2" | awk '{ print $1 - $2 }'; }

sql() { psql -h 127.0.0.1 -p $((BASE + 32)) -U headgate -d registry -qtAX -c "$1" 2>/dev/null || echo 0; }
# Deliveries since SINCE, in ms since 1970, that are done.
done_deliveries() { sql "SELECT COUNT(*) FROM delivery WHERE state = 3 AND task_id IN (SELECT id FROM task WHERE created_at > $SINCE)"; }
now() { echo $(($(date +%s) * 1000)); }

# taken [NODE...]: processor time of the nodes for one device that connects and takes the resource. The swarms of these
# nodes come one after another; without any, all come at once.
taken() {
	before=$(seconds)
	if [ $# = 0 ]; then
		start deliver "$COST_DEVICES" --size "$SIZE"; ended
		[ "$WRONG" = 0 ] || died "a delivery failed"
	fi
	for node in "$@"; do
		swarm deliver "$node" "$COST_DEVICES" --size "$SIZE" >"$DIR/swarm$node" 2>&1 || died "a delivery failed"
	done
	part "$(less "$(seconds)" "$before")" $((3 * COST_DEVICES))
}

# cost: what a device costs if swarms come one after another, and if they come at once. The same devices come to one
# node and to three.
cost() {
	cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >"$DIR/up" 2>&1 || died "the cluster does not start"
	# Devices are registered before what is measured.
	start connect "$COST_DEVICES" --hold 1s; ended
	echo "$(taken 1 2 3) $(taken)"
}

compared() {
	ALONE=$(NODES=1; cost)
	cluster down "$DIR/cluster" >/dev/null
	say "one node: $ALONE ms of processor time per device"
	THREE=$(cost)
	say "three nodes: $THREE ms of processor time per device"
	devices=$((3 * COST_DEVICES))
	ratio() { echo "$1 $2" | awk '{ printf "%.2f", $1 / $2 }'; }
	bar "cost per device, one node, $devices devices" "${ALONE% *}" "" ms
	bar "cost per device, three nodes, $COST_DEVICES devices each" "${THREE% *}" "" ms
	bar "cost per device, three nodes against one" "$(ratio "${THREE% *}" "${ALONE% *}")" 1.15 ""
	# Nodes that are busy at once on the same cores take each other's caches and time slices, as no nodes on machines of
	# their own do.
	bar "the same, all busy at once on these cores" "$(ratio "${THREE#* }" "${ALONE#* }")" "" ""
}

fleet() {
	all=$((3 * DEVICES))
	SINCE=$(now)
	# What nodes ask of Redis though no device does anything is theirs.
	idle=$(calls); sleep 10; idle=$(($(calls) - idle))
	# In one go the devices would be registered while others connect. They stay so long that the slowest swarm is done and
	# has rested before the first goes.
	start connect "$DEVICES" --hold 1s; ended
	say "$all devices are registered"
	sleep 2
	calls=$(calls) memory=$(memory) from=$(date +%s)
	start deliver "$DEVICES" --size "$SIZE" --hold $((REST + 60))s
	reached "devices connect" "$all" 300 metric headgate_connections
	took=$(($(date +%s) - from))
	asked=$(calls)
	say "$all devices are connected"
	bar "Redis round trips per connect" "$(echo "$asked $calls $idle $took $all" | awk '{ printf "%.2f", ($1 - $2 - $3 * $4 / 10) / $5 }')" 3 ""
	reached "deliveries" "$all" 600 done_deliveries
	say "$all deliveries are done"
	sleep 8
	calls=$(calls); sleep "$REST"; asked=$(calls)
	bar "devices that stay connected" "$(metric headgate_connections)" "" ""
	bar "devices that went away" $((all - $(metric headgate_connections))) 0 ""
	bar "Redis commands per idle device and minute" "$(echo "$asked $calls $idle $REST $all" | awk '{ v = (($1 - $2) - $3 * $4 / 10) * 60 / $4 / $5; printf "%.3f", v < 0 ? 0 : v }')" 0.1 ""
	bar "Redis memory per connected device" "$(echo "$(memory) $memory $all" | awk '{ printf "%.0f", ($1 - $2) / $3 }')" 1024 bytes
	ended
	bar "swarms with a wrong or missing byte" "$WRONG" 0 ""
}

killed_node() {
	all=$((3 * DEVICES))
	SINCE=$(now)
	start deliver "$DEVICES" --size "$SIZE"
	reached "half of the deliveries" $((all / 2)) 600 done_deliveries
	read -r pid _ <"$DIR/cluster/node2.pid"
	kill -KILL "$pid"
	say "node 2 is killed"
	sleep 1
	cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >>"$DIR/up" 2>&1 || died "the killed node does not start"
	ended
	bar "deliveries done, a node killed at half of them" "$(done_deliveries)" "" ""
	bar "deliveries missing, a node killed" $((all - $(done_deliveries))) 0 ""
	bar "swarms with a wrong or missing byte, a node killed" "$WRONG" 0 ""
	bar "deliveries started over, a node killed" "$(sql "SELECT COUNT(*) FROM delivery WHERE attempt > 1 AND task_id IN (SELECT id FROM task WHERE created_at > $SINCE)")" 0 ""
}

single_devices() {
	python3 "$HERE/benches/takeover.py" "$DIR/cluster/node1" "$BASE" "$TAKEOVERS" "$SESSIONS" >"$DIR/single" || died "takeovers failed"
	of() { sed -n "s/^$1 //p" "$DIR/single"; }
	bar "takeover, Redis round trips, median of $TAKEOVERS" "$(of takeover_round_trips_median)" 3 ""
	bar "takeover, Redis round trips, most" "$(of takeover_round_trips_most)" "" ""
	bar "takeover, CONNECT to CONNACK, median" "$(of takeover_ms_median)" "" ms
	bar "takeover, CONNECT to CONNACK, 99th percentile" "$(of takeover_ms_p99)" "" ms
	bar "takeovers of which the old node did not tell 0x8E" $((TAKEOVERS - $(of takeovers_told))) 0 ""
	bar "Redis memory per persistent session at rest" "$(of session_bytes)" 1024 bytes
}

say "$DEVICES devices a node, $(nproc) processors, $(ulimit -n) open files a process"
if has cost; then
	compared
else
	cluster up "$DIR/cluster" "$HEADGATE" "$MOTO" >"$DIR/up" 2>&1 || died "the cluster does not start"
fi
for part in single_devices fleet killed_node; do
	if has "$part"; then $part; fi
done
say "done"
printf '| %-56s | %-16s | %-10s | %-7s |\n' bar measured "at most" verdict
printf '|%s|%s|%s|%s|\n' ---------------------------------------------------------- ------------------ ------------ ---------
cat "$DIR/table"
exit $MISSED
