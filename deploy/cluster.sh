#!/bin/sh
# Three nodes of one gateway on the loopback, with a PostgreSQL, a Redis and a service that speaks S3's protocol of their
# own; and with nginx, where there is one, a balancer in front. For trying and for tests: nothing of it is secured.
#
#   cluster.sh up <directory> <headgate> <moto_server>     starts what of it does not run
#   cluster.sh down <directory>                            stops it, and forgets what it stored; logs stay
#
# NODES (3) says how many, BASE (18000) where the ports begin.
set -eu

say() { echo "$*"; }
fail() { echo "cluster: $*" >&2; exit 1; }

postgres_programs() {
	for directory in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -rV) $(echo "$PATH" | tr : ' '); do
		if [ -x "$directory/initdb" ]; then echo "$directory"; return; fi
	done
	fail "PostgreSQL is missing: apt-get install postgresql"
}

# PostgreSQL does not run as root, and whom it runs as may not enter root's directories.
AS_USER=
if [ "$(id -u)" = 0 ]; then AS_USER="setpriv --reuid=65534 --regid=65534 --clear-groups"; fi

# run NAME COMMAND...: in the background, its number in NAME.pid and what it says in NAME.log.
run() {
	name=$1; shift
	if runs "$name"; then return; fi
	setsid "$@" >"$DIR/$name.log" 2>&1 </dev/null &
	echo "$! $(start_of "$!")" >"$DIR/$name.pid"
}

# start_of PID: when the process began, so that a number that was given again is not taken for it; nothing for one that has
# ended and is still listed.
start_of() { sed -n 's/.*) //; /^Z/!p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

runs() {
	[ -f "$DIR/$1.pid" ] || return 1
	read -r pid start <"$DIR/$1.pid" || return 1
	[ -n "$start" ] && [ "$(start_of "$pid")" = "$start" ]
}

stop() {
	if runs "$1"; then
		read -r pid _ <"$DIR/$1.pid"
		kill "-$2" "$pid" 2>/dev/null || true
		tries=0
		while runs "$1"; do
			tries=$((tries + 1))
			if [ "$tries" = 300 ]; then kill -KILL "$pid" 2>/dev/null || true; fi
			sleep 0.1
		done
	fi
	rm -f "$DIR/$1.pid"
}

# until_done WHAT COMMAND...: for a minute at most.
until_done() {
	what=$1; shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -lt 600 ] || fail "$what did not start: see $DIR"
		sleep 0.1
	done
}

s3_answers() {
	curl -fsS -X PUT "http://127.0.0.1:$S3/firmware" || curl -sS "http://127.0.0.1:$S3/firmware" | grep -q Contents\\\|ListBucket
}

start_stores() {
	programs=$(postgres_programs)
	if [ ! -f "$DATA/PG_VERSION" ]; then
		mkdir -p "$DATA"
		if [ -n "$AS_USER" ]; then chown 65534:65534 "$DATA"; fi
		(cd / && $AS_USER "$programs/initdb" -D "$DATA" -U headgate -A trust -E UTF8 --no-locale >/dev/null)
	fi
	cd /
	run postgres $AS_USER "$programs/postgres" -D "$DATA" -p "$POSTGRES" -c listen_addresses=127.0.0.1 \
		-c unix_socket_directories= -c max_connections=200
	mkdir -p "$DIR/redis"
	run redis redis-server --bind 127.0.0.1 --port "$REDIS" --dir "$DIR/redis" --appendonly yes --save ""
	run s3 "$MOTO" -H 127.0.0.1 -p "$S3"
	cd "$DIR"
	until_done PostgreSQL "$programs/psql" -h 127.0.0.1 -p "$POSTGRES" -U headgate -d postgres -c 'SELECT 1'
	"$programs/psql" -h 127.0.0.1 -p "$POSTGRES" -U headgate -d postgres -qtAX \
		-c "SELECT 1 FROM pg_database WHERE datname = 'registry'" | grep -q 1 ||
		"$programs/createdb" -h 127.0.0.1 -p "$POSTGRES" -U headgate -E UTF8 -T template0 registry
	until_done Redis redis-cli -p "$REDIS" ping
	until_done "the S3 service" s3_answers
}

# start_node NUMBER
start_node() {
	node=$1
	data="$DIR/node$node"
	# What nodes share on their own disks: the sealing key, the certificates, the first credentials.
	if [ "$node" != 1 ] && [ ! -d "$data/keys" ]; then
		mkdir -p "$data/keys"
		cp "$DIR/node1/keys/sealing.key" "$data/keys/"
		cp -R "$DIR/node1/tls" "$data/"
		cp "$DIR/node1/api.token" "$data/"
	fi
	first=$((BASE + node * 100))
	run "node$node" env \
		HEADGATE__MQTT__LISTEN="127.0.0.1:$((first + 83))" \
		HEADGATE__COAP__LISTEN="127.0.0.1:$((first + 56))" \
		HEADGATE__HTTP__LISTEN="127.0.0.1:$((first + 80))" \
		HEADGATE__FILES__LISTEN="127.0.0.1:$((first + 43))" \
		HEADGATE__METRICS__LISTEN="127.0.0.1:$((first + 64))" \
		HEADGATE__REGISTRY__URL="postgres://headgate@127.0.0.1:$POSTGRES/registry" \
		HEADGATE__SESSIONS__URL="redis://127.0.0.1:$REDIS" \
		HEADGATE__CLUSTER__NODE="node$node" \
		HEADGATE__BLOBS__URL="s3://firmware/gateway" \
		HEADGATE__BLOBS__ENDPOINT="http://127.0.0.1:$S3" \
		HEADGATE__BLOBS__ACCESS_KEY_ID=key \
		HEADGATE__BLOBS__SECRET_ACCESS_KEY=secret \
		"$HEADGATE" serve --data-dir "$data"
	until_done "node $node" curl -fsS "http://127.0.0.1:$((first + 64))/readyz"
	say "node $node    MQTT over TLS 127.0.0.1:$((first + 83))  CoAP 127.0.0.1:$((first + 56))  HTTP http://127.0.0.1:$((first + 80))  metrics http://127.0.0.1:$((first + 64))/metrics"
}

start_balancer() {
	command -v nginx >/dev/null 2>&1 || { say "no balancer: nginx is not installed"; return; }
	module=$(ls /usr/lib/nginx/modules/ngx_stream_module.so /usr/lib64/nginx/modules/ngx_stream_module.so 2>/dev/null | head -n 1)
	{
		[ -z "$module" ] || echo "load_module $module;"
		echo "daemon off; pid $DIR/nginx.pid.own; error_log $DIR/balancer.log; worker_processes 4;"
		# Two for each device.
		echo "events { worker_connections 16384; } stream {"
		for kind in "mqtt 83" "http 80" "files 43" "coap 56"; do
			set -- $kind
			how= udp=
			# A device by CoAP stays at the node that it registered with; the others go to the nodes in turn.
			[ "$1" != coap ] || { how='hash $remote_addr consistent;'; udp=" udp"; }
			echo "upstream $1 { $how"
			node=1
			while [ "$node" -le "$NODES" ]; do
				echo "server 127.0.0.1:$((BASE + node * 100 + $2)) max_fails=0;"
				node=$((node + 1))
			done
			echo "}"
			echo "server { listen 127.0.0.1:$((BASE + $2))$udp reuseport; proxy_pass $1; proxy_timeout 1h; }"
		done
		echo "}"
	} >"$DIR/balancer.conf"
	if nginx -t -q -c "$DIR/balancer.conf" 2>"$DIR/balancer.test"; then
		run balancer nginx -c "$DIR/balancer.conf"
		until_done balancer curl -sS -o "$DIR/balancer.test" "http://127.0.0.1:$((BASE + 80))/"
		say "balancer  MQTT over TLS 127.0.0.1:$((BASE + 83))  CoAP 127.0.0.1:$((BASE + 56))  HTTP http://127.0.0.1:$((BASE + 80))"
	else
		say "no balancer: this nginx has no stream module (apt-get install libnginx-mod-stream)"
	fi
}

up() {
	command -v redis-server >/dev/null 2>&1 || fail "redis-server is missing: apt-get install redis-server"
	command -v curl >/dev/null 2>&1 || fail "curl is missing: apt-get install curl"
	[ -x "$HEADGATE" ] || fail "no such program: $HEADGATE"
	[ -x "$MOTO" ] || fail "no such program: $MOTO"
	start_stores
	say "stores    postgres://headgate@127.0.0.1:$POSTGRES/registry  redis://127.0.0.1:$REDIS  s3 http://127.0.0.1:$S3"
	node=1
	while [ "$node" -le "$NODES" ]; do
		start_node "$node"
		node=$((node + 1))
	done
	start_balancer
	say "token     $DIR/node1/api.token"
	say "stop it with: make cluster-down"
}

down() {
	stop balancer QUIT
	for file in "$DIR"/node*.pid; do
		[ -f "$file" ] && stop "$(basename "$file" .pid)" TERM
	done
	stop s3 TERM
	stop redis TERM
	# Fast: its clients are gone.
	stop postgres INT
	# The S3 service keeps everything in memory: what the others have is worth nothing without it.
	rm -rf "$DATA" "$DIR/redis" "$DIR"/node[0-9]*[0-9] "$DIR"/node[0-9]
}

[ $# -ge 2 ] || fail "usage: $0 up <directory> <headgate> <moto_server> | down <directory>"
mkdir -p "$2"
DIR=$(cd "$2" && pwd)
NODES=${NODES:-3}
BASE=${BASE:-18000}
POSTGRES=$((BASE + 32))
DATA="$DIR/postgres"
[ -z "$AS_USER" ] || DATA="${TMPDIR:-/tmp}/headgate-cluster-$BASE"
REDIS=$((BASE + 79))
S3=$((BASE + 90))
case $1 in
up) HEADGATE=$3; MOTO=$4; up ;;
down) down ;;
*) fail "up or down" ;;
esac
