#!/bin/bash
# Runs the tests beside real container engines (test/engines) as an ordinary user, in a network of its own.
#
#   scripts/engines.sh [go test flags]
#
# They run twice: with the engines of this machine, and, the tests called TestPodman5... and TestDebian13..., with those of
# Debian 13, in a directory that scripts/debian13.sh makes (USERNET_DEBIAN13, /var/cache/usernet/debian13 by default). Where
# -run is given they run once, with Debian 13's where it names Podman5 or Debian13.
#
# It is started as root, which is needed for the world around the engines alone: a network namespace as the host, with the
# addresses 192.0.2.2 and 2001:db8::2 on eth0; a second one as a machine outside, 192.0.2.1 and 2001:db8::1, with a web
# server (port 8000), a service that says who asks (port 7000, TCP and UDP), one that fetches a page (7001), one that connects (7002), and a name server; and a cgroup2 mount, without
# which Debian's crun does not start on machines that mount cgroups the old way. The tests and engines run as the user.
# The tests of nerdctl run where -run names them, or USERNET_NERDCTL names a nerdctl: `USERNET_NERDCTL=$(test/tools/nerdctl.sh)`.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "engines: $*" >&2; }

if [[ $(id -u) -ne 0 ]]; then
	say "the network that the engines run in is made as root: sudo $0"
	exit 1
fi

if [[ ${1:-} != --inside ]]; then
	scripts/unprivileged.sh go list -deps -test ./... >/dev/null # inside, no module can be downloaded
	export USERNET_DEBIAN13=${USERNET_DEBIAN13:-/var/cache/usernet/debian13}
	scripts/debian13.sh "$USERNET_DEBIAN13"
	# nerdctl takes minutes to build where it is not in the user's cache.
	[[ "$*" != *-run*Nerdctl* ]] || USERNET_NERDCTL=$(scripts/unprivileged.sh test/tools/nerdctl.sh)
	export USERNET_NERDCTL=${USERNET_NERDCTL:-}
	exec unshare --mount --net --propagation private "$0" --inside "$@"
fi
shift

peer=
resolv=$(mktemp)
www=$(mktemp -d)
served=()
finish() {
	for pid in "${served[@]}" $peer; do kill "$pid" 2>/dev/null || true; done
	rm -rf "$resolv" "$www"
}
trap finish EXIT

# The machine outside.
unshare --net sleep infinity </dev/null >/dev/null 2>&1 &
peer=$!
until [[ $(readlink /proc/$peer/ns/net) != "$(readlink /proc/self/ns/net)" ]]; do sleep 0.05; done
ip link add eth0 type veth peer name eth0 netns "$peer"
ip link set lo up
ip addr add 192.0.2.2/24 dev eth0
ip addr add 2001:db8::2/64 dev eth0 nodad
ip link set eth0 up
outside() { nsenter --net=/proc/$peer/ns/net -- "$@"; }
serve() { # runs in the background, as a process of its own whose end can be asked for
	(exec nsenter --net=/proc/$peer/ns/net -- "$@") </dev/null >/dev/null 2>&1 &
	served+=($!)
}
outside ip link set lo up
outside ip addr add 192.0.2.1/24 dev eth0
outside ip addr add 2001:db8::1/64 dev eth0 nodad
outside ip link set eth0 up
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1

chmod 0755 "$www"
echo outside >"$www/index.html"
serve busybox httpd -f -p '[::]:8000' -h "$www"
serve socat TCP4-LISTEN:7000,fork,reuseaddr,bind=192.0.2.1 'SYSTEM:echo $SOCAT_PEERADDR'
serve socat UDP4-RECVFROM:7000,fork,bind=192.0.2.1 'SYSTEM:echo $SOCAT_PEERADDR'
serve socat TCP6-LISTEN:7000,fork,reuseaddr,bind='[2001:db8::1]' 'SYSTEM:echo $SOCAT_PEERADDR'
serve socat UDP6-RECVFROM:7000,fork,bind='[2001:db8::1]' 'SYSTEM:echo $SOCAT_PEERADDR'
serve socat TCP4-LISTEN:7001,fork,reuseaddr,bind=192.0.2.1 'SYSTEM:read url; exec curl -s -m 10 "$url"'
serve socat TCP4-LISTEN:7002,fork,reuseaddr,bind=192.0.2.1 'SYSTEM:read network host port; echo hello | socat -t 5 - "$network\:$host\:$port"'
serve dnsmasq --keep-in-foreground --no-resolv --no-hosts --conf-file=/dev/null --user=root --pid-file= \
	--address=/outside.example/192.0.2.1 --address=/outside.example/2001:db8::1
echo 'nameserver 192.0.2.1' >"$resolv"
chmod 0644 "$resolv"
mount --bind "$resolv" "$(readlink -f /etc/resolv.conf)"

# Containers may ping as Docker's may, and crun finds cgroups.
sysctl -qw net.ipv4.ping_group_range='0 2147483647'
if ! mountpoint -q /sys/fs/cgroup || [[ $(stat -fc %T /sys/fs/cgroup) != cgroup2fs ]]; then
	mount -t cgroup2 none /sys/fs/cgroup
fi

without= # what is left out
if [[ -z $USERNET_NERDCTL ]]; then
	without='Nerdctl$'
	say "tests of nerdctl are left out: -run Nerdctl builds it and runs them"
fi

here() { # with this machine's engines
	scripts/unprivileged.sh env USERNET_ENGINES=1 scripts/test.sh --engines -skip "^Test(Podman5|Debian13)${without:+|$without}" "$@"
}

debian13() ( # with Debian 13's: the tests run in its directory, where go, the caches and this tree are as well
	set -euo pipefail
	root=$USERNET_DEBIAN13
	goroot=$(go env GOROOT)
	version=$(scripts/version.sh)
	export version goroot root tree=$PWD
	exec unshare --mount --propagation private bash -euo pipefail -c '
		mount --bind "$root" "$root"
		cd "$root"
		mkdir -p ".$goroot" src old
		for each in proc sys dev tmp home; do mount --rbind "/$each" "$each"; done
		mount --bind /tmp var/tmp
		mount --bind "$goroot" ".$goroot"
		mount --bind "$tree" src
		mount -t tmpfs none run
		for each in passwd group subuid subgid hosts resolv.conf; do
			[[ ! -e /etc/$each ]] || cp --remove-destination -L "/etc/$each" "etc/$each"
		done
		pivot_root . old
		umount --lazy /old
		cd /src
		export VERSION=$version
		exec scripts/unprivileged.sh env USERNET_ENGINES=1 scripts/test.sh --engines "$@"
	' bash "$@"
)

case "$*" in
*-run*Podman5* | *-run*Debian13*) debian13 "$@" ;;
*-run*) here "$@" ;;
*)
	status=0
	here "$@" || status=1
	debian13 -run '^Test(Podman5|Debian13)' ${without:+-skip "$without"} "$@" || status=1
	exit $status
	;;
esac
