#!/bin/bash
# usernet in one minute (make demo): builds it, starts a daemon on a private socket, and shows each
# step's real output. Runs as an ordinary user, cleans up, and fails if any step failed.
set -uo pipefail
cd "$(dirname "$0")/.."

need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null && return
	echo "demo: $1 is missing. As root: apt-get install $2" >&2
	exit 1
}
need go golang && need busybox busybox-static && need curl curl && need ping iputils-ping
need ip iproute2

work=$(mktemp -d /tmp/usernet-demo.XXXXXX)
daemon= host=
failed=0

cleanup() {
	[[ -n $host ]] && kill "$host" 2>/dev/null
	if [[ -n $daemon ]]; then
		usernet rm -f web client >/dev/null 2>&1
		kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

bold= plain=
if [[ -t 1 ]]; then
	bold=$'\033[1m' plain=$'\033[0m' # ECMA-48; not in a pipe or a log
fi
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }

# step EXPECTED COMMAND...: shows the command and its output, and checks that the output contains EXPECTED.
step() {
	local expected=$1 output status
	shift
	printf '$ %s\n' "$*"
	output=$("$@" 2>&1)
	status=$?
	[[ -z $output ]] || printf '%s\n' "$output"
	if ((status != 0)); then
		echo "!! failed with exit status $status"
		failed=1
	elif [[ $output != *"$expected"* ]]; then
		echo "!! expected to see: $expected"
		failed=1
	fi
}

# wait_for SECONDS COMMAND...: until it succeeds.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

title "usernet demo, as $(id -un) (uid $(id -u)), no privileges"
echo "$ scripts/build.sh $work/usernet"
scripts/build.sh "$work/usernet" -ldflags "-X main.version=$(scripts/version.sh)" || exit 1
export PATH=$work:$PATH USERNET_HOST=unix://$work/usernet.sock
step "" usernet check

title "A daemon on a private socket"
echo "$ usernet serve --socket $work/usernet.sock --state-dir $work/state &"
usernet serve --socket "$work/usernet.sock" --state-dir "$work/state" --log-level warn 2>"$work/log" &
daemon=$!
if ! wait_for 10 test -S "$work/usernet.sock"; then
	echo "!! the daemon did not start:"
	cat "$work/log"
	exit 1
fi

title "A network, and two containers on it"
mkdir -p "$work/www" "$work/hostwww"
echo "Hello from the container web" >"$work/www/index.html"
echo "Hello from the host" >"$work/hostwww/index.html"
port=$((20000 + RANDOM % 10000))
step "" usernet network create demo
step "" usernet run -d --name web --network demo -p "127.0.0.1:$port:80" -- busybox httpd -f -p 80 -h "$work/www"
step "" usernet run -d --name client --network demo -- sleep 600
step "web" usernet ps

title "By name, from one container to the other"
wait_for 10 usernet exec client curl -sf --max-time 2 http://web/
step "0% packet loss" usernet exec client ping -c 1 -W 5 web
step "Hello from the container web" usernet exec client curl -sS --max-time 10 http://web/

title "From the host, through the published port"
step "Hello from the container web" curl -sS --max-time 10 "http://127.0.0.1:$port/"

title "From a container to a service on the host"
hostport=$((port + 1))
address=$(ip -o -4 addr show scope global up | awk '{sub("/.*", "", $4); print $4; exit}')
target=$address:$hostport loopback=
if [[ -z $address ]]; then
	# A machine with no address but its loopback, which containers reach only where that was asked for.
	address=127.0.0.1 target=host.usernet.internal:$hostport loopback=--host-loopback
fi
busybox httpd -f -p "$address:$hostport" -h "$work/hostwww" &
host=$!
wait_for 5 curl -sf "http://$address:$hostport/"
step "Hello from the host" usernet run --rm --network demo $loopback -- curl -sS --max-time 10 "http://$target/"

title "Cleaning up"
step "" usernet rm -f web client
step "" usernet network rm demo
kill "$daemon"
if wait "$daemon"; then echo "the daemon ended cleanly"; else
	echo "!! the daemon ended with exit status $?"
	failed=1
fi
daemon=

if ((failed)); then
	printf '\nThe demo FAILED. The daemon said:\n'
	cat "$work/log"
	exit 1
fi
printf '\nEvery step worked.\n'
