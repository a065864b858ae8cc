#!/bin/bash
# A virtual machine as a guest of usernet's, by qemu without KVM: three interfaces on three networks, by a stream that
# usernet listens for, by datagrams, and by a stream that qemu listens for. Each has its address, name, published port, way
# out and flows like any container, and those that can, come back after kill -9 of the daemon. The kernel is vm.sh's.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${KERNEL:=/boot/vmlinuz-$(uname -r)}" "${MODULES:=/lib/modules/$(uname -r)}"
export MODULES
for need in qemu-system-x86_64 busybox curl; do
	command -v $need >/dev/null || { echo "vm: $need is missing: apt-get install qemu-system-x86 busybox-static curl" >&2; exit 1; }
done
[[ -r $KERNEL ]] || { echo "vm: no kernel at $KERNEL: set KERNEL and MODULES (scripts/vm.sh says how)" >&2; exit 1; }

work=$(mktemp -d /tmp/usernet-vm.XXXXXX)
mkdir -m 700 "$work/d" # which sandboxes do not see
daemon= qemu= step=start host=
finish() {
	[[ -z $qemu ]] || kill "$qemu" 2>/dev/null || true
	usernet rm -f web1 web2 web3 >/dev/null 2>&1 || true
	for pid in $daemon $host; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
	rm -rf "$work"
}
trap finish EXIT
fail() {
	echo "vm: FAILED: $step: $*"
	for each in log console; do
		echo "vm: $each:"
		tail -n 30 "$work/$each" || true
	done
	usernet ps -a || true
	exit 1
}
# wants SECONDS TEXT COMMAND...: what the command prints has to contain the text before long.
wants() {
	local end=$((SECONDS + $1)) text=$2 out
	shift 2
	while :; do
		out=$("$@" 2>&1) || true
		[[ $out != *"$text"* ]] || return 0
		((SECONDS < end)) || fail "$*: want $text, got $out"
		kill -0 "$qemu" 2>/dev/null || [[ -z $qemu ]] || fail "qemu has ended"
		sleep 0.2
	done
}
ok() { echo "vm: $step: ok"; }
serve() {
	usernet serve --socket "$work/d/usernet.sock" --state-dir "$work/d/state" 2>>"$work/log" &
	daemon=$!
	wants 60 bridge usernet network ls
}
guest() { # N COMMAND: runs it in the virtual machine, by way of interface N's published port
	curl -sS -m 20 --data-binary "$2" "http://127.0.0.1:${port[$1]}/cgi-bin/run"
}
inspect() { usernet inspect -f "{{range .NetworkSettings.Networks}}{{.$2}}{{end}}" "$1"; }

scripts/build.sh "$work/usernet"
export PATH=$work:$PATH USERNET_HOST=unix://$work/d/usernet.sock
scripts/guest-image.sh "$work/initramfs"
serve
base=$((20000 + RANDOM % 10000))
port=(0 $((base + 1)) $((base + 2)) $((base + 3)))
mkdir "$work/www" "$work/hostwww"
echo "a container's page" >"$work/www/index.html"
echo "the host's page" >"$work/hostwww/index.html"
busybox httpd -f -p "127.0.0.1:$base" -h "$work/hostwww" &
host=$!
sockets=(0 "--vm-socket $work/vm1.sock" "--vm-socket unixgram://$work/vm2.sock" "--vm-connect $work/vm3.sock")
for i in 1 2 3; do
	usernet network create --ipv6 "lan$i" >/dev/null
	usernet run -d --name "web$i" --network "lan$i" -- busybox httpd -f -p 80 -h "$work/www" >/dev/null
	usernet attach ${sockets[i]} --name "vm$i" --network "lan$i" --mac-address "52:54:00:00:00:0$i" --host-loopback \
		-p "127.0.0.1:${port[i]}:80" >/dev/null
done
timeout 1800 qemu-system-x86_64 -accel tcg -m 192 -nographic -no-reboot -nodefaults -serial stdio -kernel "$KERNEL" \
	-initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 no_timer_check" \
	-netdev "stream,id=n1,server=off,addr.type=unix,addr.path=$work/vm1.sock" -device virtio-net-pci,netdev=n1,mac=52:54:00:00:00:01,romfile= \
	-netdev "dgram,id=n2,local.type=unix,local.path=$work/vm2.own,remote.type=unix,remote.path=$work/vm2.sock" \
	-device virtio-net-pci,netdev=n2,mac=52:54:00:00:00:02,romfile= \
	-netdev "stream,id=n3,server=on,addr.type=unix,addr.path=$work/vm3.sock" -device virtio-net-pci,netdev=n3,mac=52:54:00:00:00:03,romfile= \
	</dev/null >"$work/console" 2>&1 &
qemu=$!

name=(0 "a stream" "datagrams" "a stream that qemu listens for")
everything() { # what the guest has on interface N
	local i=$1 v6
	step="${name[i]}, $2"
	wants 600 "hello from vm" curl -sS -m 5 "http://127.0.0.1:${port[i]}/"
	wants 60 "hello from vm" usernet exec "web$i" curl -sS -m 5 "http://vm$i/"
	wants 60 "vm$i" guest "$i" "cat /tmp/hostname.eth$((i - 1))"
	wants 60 "a container's page" guest "$i" "wget -qO- http://\$(nslookup web$i \$(cat /tmp/dns.eth$((i - 1))) | sed -n 's/^Address: \([0-9.]*\)$/\1/p' | tail -n 1)/"
	wants 60 "the host's page" guest "$i" "wget -qO- http://$(inspect "vm$i" Gateway):$base/"
	v6=$(inspect "vm$i" GlobalIPv6Address)
	wants 60 "hello from vm" usernet exec "web$i" curl -sS -m 5 "http://[$v6]/"
	guest "$i" "sleep 3" & # a connection to look at
	wants 20 "vm$i" usernet flows "vm$i"
	wait $!
	ok
}
for i in 1 2 3; do everything $i "after its start"; done

step="the port's guard"
forged=$(inspect vm1 IPAddress)
forged=${forged%.*}.200
guest 1 "ip addr add $forged/32 dev eth0" >/dev/null
wants 20 "1 packets received" guest 1 "ping -c 1 -W 5 $(inspect vm1 Gateway)"
wants 20 "100% packet loss" guest 1 "ping -c 1 -W 1 -I $forged $(inspect vm1 Gateway)"
ok

step="kill -9 of the daemon"
kill -9 "$daemon"
wait "$daemon" 2>/dev/null || true
serve
for i in 2 3; do everything $i "after kill -9 of the daemon"; done # qemu 7.2 does not connect again to what it has lost

step="the end"
usernet detach vm1 vm2 vm3 >/dev/null
[[ ! -e $work/vm1.sock && ! -e $work/vm2.sock && -z $(ls "$work/d/state/vm") ]] || fail "sockets are left behind: $(ls -R "$work")"
ok
