#!/bin/bash
# Containers of several engines on one network (make demo-engines): Podman, Docker, CNI, crun, a virtual machine and `usernet
# run` call each other by name, have published ports, and one `usernet flows` tells them apart. It runs as an ordinary user,
# cleans up, and fails if any step failed. Docker is rootless Docker, a whole engine behind one name.
#
# It needs Debian's podman, crun, docker.io, rootlesskit, uidmap and qemu-system-x86, cpio, busybox-static and curl, and a
# kernel for the virtual machine as scripts/vm.sh does: KERNEL=/boot/vmlinuz-VERSION MODULES=/lib/modules/VERSION.
#
# Started as root it first makes what crun needs where cgroups are mounted the old way, in a mount namespace of its own.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${KERNEL:=/boot/vmlinuz-$(uname -r)}" "${MODULES:=/lib/modules/$(uname -r)}"
export KERNEL MODULES

if [[ $(id -u) -eq 0 ]]; then
	if [[ ${1:-} != --inside ]]; then
		exec unshare --mount --propagation private "$0" --inside
	fi
	[[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] || mount -t cgroup2 none /sys/fs/cgroup
	exec scripts/unprivileged.sh scripts/demo-engines.sh
fi

need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null && return
	echo "demo: $1 is missing. As root: apt-get install $2" >&2
	exit 1
}
need go golang && need busybox busybox-static && need curl curl && need podman podman && need crun crun && need cpio cpio
need dockerd docker.io && need rootlesskit rootlesskit && need newuidmap uidmap && need qemu-system-x86_64 qemu-system-x86
need nsenter util-linux
if [[ ! -r $KERNEL ]]; then
	echo "demo: no kernel for the virtual machine at $KERNEL: set KERNEL and MODULES (scripts/vm.sh says how)" >&2
	exit 1
fi

work=$(mktemp -d /tmp/ud.XXXXXX) # short: Podman puts sockets below it, whose paths have 107 bytes at most
pids=() # of what was started in the background
failed=0
mkdir -m 700 "$work/run" "$work/home"
export HOME=$work/home XDG_RUNTIME_DIR=$work/run DOCKER_HOST=unix://$work/run/docker.sock
unset XDG_CONFIG_HOME XDG_STATE_HOME XDG_DATA_HOME XDG_CACHE_HOME

cleanup() {
	crun --root "$work/run/oci" delete --force app-crun >/dev/null 2>&1
	podman rm --all --force --time 0 >/dev/null 2>&1
	docker rm -f app >/dev/null 2>&1
	usernet rm -f run >/dev/null 2>&1
	local i
	for ((i = ${#pids[@]} - 1; i > 0; i--)); do kill "${pids[i]}" 2>/dev/null; done
	((${#pids[@]} < 2)) || wait "${pids[@]:1}" 2>/dev/null
	((${#pids[@]} == 0)) || { kill "${pids[0]}" 2>/dev/null && wait "${pids[0]}" 2>/dev/null; } # the daemon
	podman unshare rm -rf "$work/home/.local/share" 2>/dev/null # layers belong to subordinate ids
	podman system migrate >/dev/null 2>&1                       # ends the pause process
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

# wait_for SECONDS WHAT COMMAND...: until it succeeds.
wait_for() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= end)); then
			echo "!! $what did not come up:"
			tail -n 20 "$work"/*.log
			exit 1
		fi
		sleep 0.2
	done
}

background() { # LOG COMMAND...
	local log=$work/$1.log
	shift
	"$@" </dev/null >"$log" 2>&1 &
	pids+=($!)
}

title "usernet and six engines, as $(id -un) (uid $(id -u)), no privileges"
mkdir "$work/bin"
HOME=$(getent passwd "$(id -u)" | cut -d: -f6) scripts/build.sh "$work/bin/usernet" -ldflags "-X main.version=$(scripts/version.sh)" || exit 1
ln -s usernet "$work/bin/slirp4netns"
ln -s usernet "$work/bin/usernet-cni"
export PATH=$work/bin:$PATH:/usr/sbin:/sbin
scripts/guest-image.sh "$work/initramfs" || exit 1

# One root file system for all: busybox and a page.
mkdir -p "$work/rootfs"/{bin,etc,tmp,proc,dev,sys,var/www}
install -m 755 "$(command -v busybox)" "$work/rootfs/bin/busybox"
for applet in sh httpd wget ping sleep nslookup cat; do ln -s busybox "$work/rootfs/bin/$applet"; done
echo 'root:x:0:0:root:/:/bin/sh' >"$work/rootfs/etc/passwd"
echo "a container's page" >"$work/rootfs/var/www/index.html"
tar -C "$work/rootfs" -cf "$work/image.tar" .

title "The daemon and its network"
background usernet usernet serve
wait_for 60 "the daemon" usernet network ls
step "" usernet network create -o usernet.host_loopback=true demo
base=$((20000 + RANDOM % 10000))
mkdir -p "$work/host/cgi-bin"
printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nsleep 30\n' >"$work/host/cgi-bin/slow"
chmod 755 "$work/host/cgi-bin/slow"
background host busybox httpd -f -p "127.0.0.1:$base" -h "$work/host"

title "A virtual machine"
step "" usernet attach --vm-socket "$work/vm.sock" --name vm --network demo --mac-address 52:54:00:00:00:01 -p "127.0.0.1:$((base + 1)):80"
echo "$ qemu-system-x86_64 ... -netdev stream,id=n,addr.type=unix,addr.path=$work/vm.sock -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01 &"
background qemu qemu-system-x86_64 -accel tcg -m 192 -nographic -no-reboot -nodefaults -serial stdio -kernel "$KERNEL" \
	-initrd "$work/initramfs" -append "console=ttyS0 quiet panic=-1 no_timer_check" \
	-netdev "stream,id=n,server=off,addr.type=unix,addr.path=$work/vm.sock" -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,romfile=

title "usernet run"
step "" usernet run -d --name run --network demo -p "127.0.0.1:$((base + 2)):80" -- busybox httpd -f -p 80 -h "$work/rootfs/var/www"

title "Podman, which calls usernet in slirp4netns's place"
mkdir -p "$HOME/.config/containers"
cat >"$HOME/.config/containers/containers.conf" <<END
[engine]
runtime="crun"
cgroup_manager="cgroupfs"
events_logger="file"
network_cmd_path="$work/bin/slirp4netns"
END
printf '[storage]\ndriver="vfs"\n' >"$HOME/.config/containers/storage.conf"
step "" podman import --quiet --change "ENV PATH=/bin" "$work/image.tar" box:1
step "" env USERNET_NETWORK=demo USERNET_NAME=podman podman run -d --name app --cap-add NET_RAW --network slirp4netns:port_handler=slirp4netns \
	-p "127.0.0.1:$((base + 3)):80" box:1 httpd -f -p 80 -h /var/www

title "crun, by an OCI hook"
mkdir "$work/bundle"
cp -a "$work/rootfs" "$work/bundle/rootfs"
: >"$work/bundle/resolv.conf"
(cd "$work/bundle" && crun spec --rootless)
hook='[{"path": "'$work/bin/usernet'", "args": ["usernet", "oci-hook", "--host", "unix://'$XDG_RUNTIME_DIR'/usernet/usernet.sock", "STAGE"]}]'
sed -i -e 's|"terminal": true|"terminal": false|' -e 's|"sh"|"/bin/httpd", "-f", "-p", "80", "-h", "/var/www"|' \
	-e '0,/"namespaces": \[/s||"namespaces": [ {"type": "network"},|' \
	-e 's|"CAP_NET_BIND_SERVICE"|"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"|' \
	-e '0,/"mounts": \[/s||"mounts": [ {"destination": "/etc/resolv.conf", "type": "bind", "source": "'"$work/bundle/resolv.conf"'", "options": ["bind", "ro"]},|' \
	-e '1s|{|{ "annotations": {"usernet.network": "demo", "usernet.name": "crun", "usernet.publish": "127.0.0.1:'$((base + 4))':80"}, "hooks": {"createContainer": '"${hook/STAGE/createContainer}"', "poststop": '"${hook/STAGE/poststop}"'},|' \
	"$work/bundle/config.json"
echo "$ crun run --bundle $work/bundle app-crun &     # annotations: usernet.network=demo, usernet.name=crun, usernet.publish"
background crun crun --root "$work/run/oci" run --bundle "$work/bundle" app-crun

title "CNI, as a runtime calls the plugin"
background box unshare --user --map-root-user --net busybox httpd -f -p 80 -h "$work/rootfs/var/www"
box=${pids[-1]}
wait_for 20 "the namespace" sh -c "[ \$(readlink /proc/$box/ns/net) != \$(readlink /proc/self/ns/net) ]"
cni='{"cniVersion": "1.0.0", "name": "demo", "type": "usernet-cni", "runtimeConfig": {"aliases": {"demo": ["cni"]}, "portMappings": [{"hostPort": '$((base + 5))', "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}]}}'
echo "$ CNI_COMMAND=ADD CNI_CONTAINERID=cni CNI_NETNS=/proc/$box/ns/net CNI_IFNAME=eth0 usernet-cni <<< '$cni'"
call_cni() { CNI_COMMAND=ADD CNI_CONTAINERID=cni CNI_NETNS=/proc/$box/ns/net CNI_IFNAME=eth0 CNI_PATH=$work/bin usernet-cni <<<"$cni"; }
step '"ips"' call_cni

title "Docker: a whole rootless engine on the network"
background docker env USERNET_NETWORK=demo USERNET_NAME=docker DOCKERD_ROOTLESS_ROOTLESSKIT_NET=slirp4netns \
	DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER=slirp4netns sh /usr/share/docker.io/contrib/dockerd-rootless.sh --storage-driver=vfs
wait_for 120 "dockerd" docker info
step "" docker import --change "ENV PATH=/bin" "$work/image.tar" box:1
step "" docker run -d --name app -p "$((base + 6)):80" box:1 httpd -f -p 80 -h /var/www

title "All of them on one network"
wait_for 300 "the virtual machine" curl -sf "http://127.0.0.1:$((base + 1))/"
wait_for 60 "crun's container" usernet inspect crun
step "crun" usernet ps

names=(vm run podman crun cni docker)
inside() { # NAME COMMAND...: in the container of that name
	local name=$1
	shift
	case $name in
	vm) curl -sS -m 60 --data-binary "$*" "http://127.0.0.1:$((base + 1))/cgi-bin/run" ;;
	run) usernet exec run busybox "$@" ;;
	podman) podman exec app "$@" ;;
	crun) crun --root "$work/run/oci" exec app-crun /bin/busybox "$@" ;;
	cni) nsenter --preserve-credentials --user --net --target "$box" busybox "$@" ;;
	docker) docker exec app "$@" ;;
	esac
}
# The name server is 127.0.0.11 in the sandbox that CNI was called for, whose resolv.conf is the runtime's to write.
address() { usernet inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

title "By name, from each to each"
for from in "${names[@]}"; do
	for to in "${names[@]}"; do
		[[ $from != "$to" ]] || continue
		target=$to
		[[ $from != cni ]] || target=$(inside cni nslookup "$to" 127.0.0.11 | sed -n 's/^Address: \([0-9.]*\)$/\1/p' | tail -n 1)
		if inside "$from" ping -c 1 -W 5 "$target" 2>&1 | grep -q ' 0% packet loss'; then
			printf '%-7s -> %-7s ok\n' "$from" "$to"
		else
			printf '%-7s -> %-7s !! no answer\n' "$from" "$to"
			failed=1
		fi
	done
done

title "Published ports"
page=("" "hello from" "page" "page" "page" "page" "page")
for i in 1 2 3 4 5 6; do step "${page[i]}" curl -sS -m 10 "http://127.0.0.1:$((base + i))/"; done

title "One list of what is open"
for name in "${names[@]}"; do
	where=host.usernet.internal
	[[ $name != cni ]] || where=$(usernet inspect -f '{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}' cni)
	url=http://$where:$base/cgi-bin/slow
	case $name in
	run) usernet exec run curl -s "$url" >/dev/null 2>&1 & ;;
	cni) nsenter --preserve-credentials --user --net --target "$box" curl -s "$url" >/dev/null 2>&1 & ;;
	*) inside "$name" wget -qO- "$url" >/dev/null 2>&1 & ;;
	esac
	pids+=($!)
done
all_flow() { local flows; flows=$(usernet flows) && for name in "${names[@]}"; do grep -Eq "^$name +tcp +out" <<<"$flows" || return 1; done; }
wait_for 60 "a flow of each" all_flow
step "docker" usernet flows

if ((failed)); then
	printf '\nThe demo FAILED. The daemon said:\n'
	cat "$work/usernet.log"
	exit 1
fi
printf '\nEvery step worked.\n'
