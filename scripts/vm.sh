#!/bin/bash
# What only a whole machine can go through: its clock is set, and it is suspended, under containers with open connections.
# It starts a virtual machine with qemu (no KVM needed) and a kernel that has to be there, as from Debian's package
# linux-image-cloud-amd64:
#
#   apt-get install qemu-system-x86 busybox-static cpio
#   apt-get download linux-image-cloud-amd64 ... or install it
#   KERNEL=/boot/vmlinuz-VERSION MODULES=/lib/modules/VERSION scripts/vm.sh
#
# scripts/vm.sh limits: containers are limited by cgroups of version 2, which are delegated in that machine, also by Docker's
# client (apt-get install docker.io).
#
# scripts/vm.sh arm64: a machine of that architecture starts usernet, runs containers and moves data. It needs
# qemu-system-arm instead, and takes Debian's kernel and busybox by apt (DEBIAN_ARM64=DIR keeps the packages there).
set -euo pipefail
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if [[ ${1:-} == arm64 ]]; then
	qemu=(qemu-system-aarch64 -machine virt -cpu cortex-a72) package=qemu-system-arm console=ttyAMA0 user=test/vm/user-arm64
	export GOARCH=arm64
	scripts/debian-files.sh "${DEBIAN_ARM64:=$tmp/debs}" this arm64 linux-image-cloud-arm64 busybox-static
	for deb in "$DEBIAN_ARM64"/*.deb; do dpkg-deb -x "$deb" "$tmp/debian"; done
	KERNEL=$(echo "$tmp"/debian/boot/vmlinuz-*) MODULES=$tmp/debian/lib/modules busybox=$tmp/debian/bin/busybox
else
	qemu=(qemu-system-x86_64) package=qemu-system-x86 console="ttyS0 no_timer_check" user=test/vm/user
	: "${KERNEL:=/boot/vmlinuz-$(uname -r)}" "${MODULES:=/lib/modules/$(uname -r)}"
	busybox=$(command -v busybox || true)
	[[ ${1:-} != limits ]] || { user=test/vm/user-limits docker=$(command -v docker) || { echo "vm: docker is missing: apt-get install docker.io" >&2; exit 1; }; }
fi
tun=$(find "$MODULES" -name 'tun.ko*' 2>/dev/null | head -n1)
for need in "${qemu[0]}" cpio "${busybox:-busybox}"; do
	command -v "$need" >/dev/null || { echo "vm: $need is missing: apt-get install $package cpio busybox-static" >&2; exit 1; }
done
if [[ ! -r $KERNEL || -z $tun ]]; then
	echo "vm: no kernel at $KERNEL, or no tun.ko below $MODULES: set KERNEL and MODULES (the script says how)" >&2
	exit 1
fi
mkdir -p "$tmp/root/bin"
scripts/build.sh "$tmp/root/bin/usernet"
CGO_ENABLED=0 go build -trimpath -o "$tmp/root/bin/helper" ./test/helper
install -m 755 "$busybox" "$tmp/root/bin/busybox"
if [[ -n ${docker:-} ]]; then # with the libraries that it needs, if it does
	install -m 755 "$docker" "$tmp/root/bin/docker"
	for library in $(ldd "$docker" 2>/dev/null | grep -o '/[^ ]*'); do install -D "$library" "$tmp/root$library"; done
fi
install -m 755 test/vm/init "$tmp/root/init"
install -m 644 "$user" "$tmp/root/user"
mkdir "$tmp/root/modules" # in the order in which they need each other; those of the bypass may be missing, or built in
for name in tun crc32c_generic libcrc32c nfnetlink nf_tables nf_reject_ipv4 nf_reject_ipv6 nft_reject nft_reject_ipv4 nft_reject_ipv6; do
	scripts/kernel-module.sh "$MODULES" "$name" "$tmp/root/modules"
done
(cd "$tmp/root" && find . | cpio --quiet -o -H newc) > "$tmp/initramfs"
timeout 600 "${qemu[@]}" -accel tcg -m 1024 -smp 2 -nographic -no-reboot -nodefaults -serial stdio \
	-kernel "$KERNEL" -initrd "$tmp/initramfs" -append "console=$console quiet panic=-1 lsm=landlock" </dev/null | tee "$tmp/out"
grep -q "vm: all is well" "$tmp/out"
