#!/bin/bash
# Runs the tests of networks that span hosts (test/overlay): hosts are network namespaces on one Ethernet.
#
#   scripts/overlay.sh [--half 1|2] [go test flags]
#
# With --half it runs every other test, for a machine that runs both halves side by side: each has a world of its own.
#
# It is started as root, which is needed for the world alone: namespaces xh-h1 to xh-h4 as hosts, with the addresses 192.0.2.1 to 192.0.2.4
# and 2001:db8::1 to 2001:db8::4 on eth0, and xh-sw with the bridge br0 between them (its ports are named e1 to e4). Stores run in xh-h4. The tests
# themselves run as root too, since they cut links and kill hosts; each daemon runs as an ordinary user of its own, without capabilities.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "overlay: $*" >&2; }

if [[ $(id -u) -ne 0 ]]; then
	say "the hosts are made as root: sudo $0"
	exit 1
fi

half=
if [[ ${1:-} == --half ]]; then
	half=$2
	shift 2
	[[ $half == [12] ]] || { say "there are halves 1 and 2"; exit 1; }
fi

if [[ ${1:-} != --inside ]]; then
	# What is tested is built by the ordinary user, with that user's caches.
	bin=$(mktemp -d /tmp/usernet-overlay-bin.XXXXXX)
	chmod 0777 "$bin"
	trap 'rm -rf "$bin"' EXIT
	build='scripts/build.sh "$0/usernet" && CGO_ENABLED=0 go build -o "$0/progress" ./test/progress &&
		CGO_ENABLED=0 go build -o "$0/helper" ./test/helper && CGO_ENABLED=0 go test -c -o "$0/overlay.test" ./test/overlay'
	scripts/unprivileged.sh bash -c "$build" "$bin"
	# A Consul server and flanneld take minutes to build where they are not in the user's cache; USERNET_CONSUL and
	# USERNET_FLANNELD name those that are there.
	[[ -n ${USERNET_CONSUL:-} ]] || USERNET_CONSUL=$(scripts/unprivileged.sh test/tools/consul.sh)
	[[ -n ${USERNET_FLANNELD:-} ]] || USERNET_FLANNELD=$(scripts/unprivileged.sh test/tools/flanneld.sh)
	export USERNET_CONSUL USERNET_FLANNELD
	chmod 0755 "$bin"
	unshare --mount --net --propagation private "$0" ${half:+--half "$half"} --inside "$bin" "$@"
	exit
fi
bin=$2
shift 2

# Namespaces are named in a directory of this world's own.
mkdir -p /run/netns
mount -t tmpfs -o mode=0755 tmpfs /run/netns

ip netns add xh-sw
ip -n xh-sw link set lo up
ip -n xh-sw link add br0 type bridge
ip -n xh-sw link set br0 up
ip -n xh-sw addr add 192.0.2.254/24 dev br0
for i in 1 2 3 4; do
	ip netns add "xh-h$i"
	ip -n "xh-h$i" link set lo up
	ip link add "e$i" netns xh-sw type veth peer name eth0 netns "xh-h$i"
	ip -n xh-sw link set "e$i" master br0 up
	ip -n "xh-h$i" addr add "192.0.2.$i/24" dev eth0
	ip -n "xh-h$i" addr add "2001:db8::$i/64" dev eth0 nodad
	ip -n "xh-h$i" link set eth0 up
	ip -n "xh-h$i" route add default via 192.0.2.254
	# Containers may ping as Docker's may.
	nsenter --net="/run/netns/xh-h$i" sysctl -qw net.ipv4.ping_group_range='0 2147483647'
done

# Names outside are asked of nobody, and fail at once.
resolv=$bin/resolv.conf # where a container's file system is made, the file has to be there
echo 'nameserver 127.0.0.1' >"$resolv"
chmod 0644 "$resolv"
mount --bind "$resolv" "$(readlink -f /etc/resolv.conf)"

# Flags of go test, as of the other tests, for the program that it made.
flags=() verbose=()
for f in "$@"; do
	case $f in
	-v) verbose=(-v) ;;
	-*=*) flags+=("-test.${f#-}") ;;
	-*) flags+=("-test.${f#-}") ;;
	*) flags+=("$f") ;;
	esac
done
if [[ -n $half ]]; then
	mapfile -t tests < <(USERNET_OVERLAY=$bin "$bin/overlay.test" -test.list . | awk -v half="$half" '/^Test/ && ++n % 2 == half - 1')
	flags+=("-test.run=^($(IFS='|'; echo "${tests[*]}"))\$")
fi
show=("$bin/progress" "${verbose[@]}")
[[ -z ${USERNET_TEST_COUNTS:-} ]] || show=("$bin/progress" -counts "$USERNET_TEST_COUNTS" "${verbose[@]}")
cd test/overlay
USERNET_OVERLAY=$bin go tool test2json -t -p test/overlay \
	"$bin/overlay.test" -test.v=test2json -test.timeout=40m "${flags[@]}" 2>&1 | "${show[@]}"
