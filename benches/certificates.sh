#!/bin/sh
# Certificates that change under load: `make bench-certificates`. No connection may end, no message be lost, and each new
# certificate has to be served.
#
#   certificates.sh <headgate> <swarm>
#
# DEVICES (5000) publish a message every five seconds each, for LENGTH (60) seconds; every EVERY (5) seconds the certificate is
# another one. Exit code 1 where a bar is missed.
set -eu

HEADGATE=$1 SWARM=$2
DEVICES=${DEVICES:-5000}
LENGTH=${LENGTH:-60}
EVERY=${EVERY:-5}
DIR=$(mktemp -d)
MISSED=0
PIDS=

finish() {
	for one in $PIDS; do kill "$one" 2>/dev/null || true; done
	wait
	rm -rf "$DIR"
}
trap finish EXIT
trap 'exit 130' INT TERM

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=bench CA" \
	-keyout "$DIR/ca.key" -out "$DIR/ca.pem" 2>/dev/null
printf 'subjectAltName=IP:127.0.0.1\n' >"$DIR/extensions"

# change: another key and certificate, each file in its place at once.
change() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=127.0.0.1" \
		-keyout "$DIR/new.key" -out "$DIR/new.csr" 2>/dev/null
	openssl x509 -req -in "$DIR/new.csr" -CA "$DIR/ca.pem" -CAkey "$DIR/ca.key" -CAcreateserial -days 1 \
		-extfile "$DIR/extensions" -out "$DIR/new.pem" 2>/dev/null
	mv "$DIR/new.key" "$DIR/server.key"
	mv "$DIR/new.pem" "$DIR/server.pem"
}

# port NAME: of the listener.
port() { sed -n "s/.*\"$1\":\"[^\"]*:\([0-9]*\)\".*/\1/p" "$DIR/data/ports.json"; }
serial() { openssl x509 -noout -serial; }
served() { openssl s_client -connect "127.0.0.1:$(port mqtts)" -CAfile "$DIR/ca.pem" </dev/null 2>/dev/null | serial; }
# figure POINTER: a number of the report.
figure() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda of, key: of[key], sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$DIR/report.json" "$1" 2>/dev/null || true; }

# bar NAME MEASURED BAR: measured is to be at most the bar, and to have been measured.
bar() {
	verdict=$(echo "$2 $3" | awk '{ print (NF == 2 && $1 <= $2) ? "met" : "missed" }')
	[ "$verdict" = met ] || MISSED=1
	printf '%-52s %12s  at most %-6s %s\n' "$1" "${2:--}" "$3" "$verdict"
}

change
for section in MQTT HTTP FILES METRICS; do export "HEADGATE__${section}__LISTEN=127.0.0.1:0"; done
HEADGATE__TLS__CERTIFICATE="$DIR/server.pem" HEADGATE__TLS__KEY="$DIR/server.key" \
	"$HEADGATE" serve --data-dir "$DIR/data" >/dev/null 2>"$DIR/log" &
GATEWAY=$!
PIDS=$GATEWAY
until [ -e "$DIR/data/ports.json" ]; do kill -0 "$GATEWAY" || { cat "$DIR/log"; exit 1; }; sleep 0.2; done
"$SWARM" telemetry --data-dir "$DIR/data" --ca "$DIR/ca.pem" -c "$DEVICES" -R 500 -I 5000 --listeners 1 --for "${LENGTH}s" \
	--json "$DIR/report.json" >"$DIR/swarm" 2>&1 &
LOAD=$!
PIDS="$LOAD $GATEWAY"

changed=0 stale=0 begun=$(date +%s)
connections() { curl -fsS "http://127.0.0.1:$(port metrics)/metrics" | sed -n 's/^headgate_connections{.* //p' | awk '{ sum += $1 } END { print sum + 0 }'; }
until [ "$(connections)" -gt "$DEVICES" ]; do
	kill -0 "$LOAD" 2>/dev/null && [ $(($(date +%s) - begun)) -lt 300 ] || { cat "$DIR/swarm"; exit 1; }
	sleep 0.2
done
while kill -0 "$LOAD" 2>/dev/null; do
	change
	kill -HUP "$GATEWAY"
	tries=0
	until [ "$(served)" = "$(serial <"$DIR/server.pem")" ]; do
		tries=$((tries + 1))
		[ "$tries" -lt 50 ] || { stale=$((stale + 1)); break; }
		sleep 0.1
	done
	changed=$((changed + 1))
	sleep "$EVERY"
done
wait "$LOAD" && ended=0 || ended=1
PIDS=$GATEWAY
[ "$ended" = 0 ] || cat "$DIR/swarm"
echo "$changed certificates, $(figure messages.acked) messages of $DEVICES devices were acknowledged"
bar "connections that ended" "$(figure connect.reconnects)" 0
bar "devices that failed" "$(figure devices.failed)" 0
bar "acknowledged messages that were lost" "$(figure messages.lost)" 0
bar "certificates that were not served within 5 s" "$stale" 0
[ "$changed" -gt 0 ] || MISSED=1
exit $MISSED
