#!/bin/bash
# What only a whole machine can go through: its clock is set, and it is suspended, under containers with open connections.
# It starts a virtual machine with qemu (no KVM needed) and a kernel that has to be there, as from Debian's package
# linux-image-cloud-amd64:
#
#   apt-get install qemu-system-x86 busybox-static cpio
#   apt-get download linux-image-cloud-amd64 ... or install it
#   KERNEL=/boot/vmlinuz-VERSION MODULES=/lib/modules/VERSION make vm
set -euo pipefail
cd "$(dirname "$0")/.."
: "${KERNEL:=/boot/vmlinuz-$(uname -r)}" "${MODULES:=/lib/modules/$(uname -r)}"
tun=$(find "$MODULES" -name tun.ko 2>/dev/null | head -n1)
for need in qemu-system-x86_64 cpio busybox; do
	command -v $need >/dev/null || { echo "vm: $need is missing: apt-get install qemu-system-x86 cpio busybox-static" >&2; exit 1; }
done
if [[ ! -r $KERNEL || -z $tun ]]; then
	echo "vm: no kernel at $KERNEL, or no tun.ko below $MODULES: set KERNEL and MODULES (the script says how)" >&2
	exit 1
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/root/bin"
scripts/build.sh "$tmp/root/bin/usernet"
CGO_ENABLED=0 go build -o "$tmp/root/bin/helper" ./test/helper
install -m 755 "$(command -v busybox)" "$tmp/root/bin/busybox"
install -m 755 test/vm/init "$tmp/root/init"
install -m 644 test/vm/user "$tmp/root/user"
mkdir "$tmp/root/modules" # in the order in which they need each other; those of the bypass may be missing, or built in
for name in tun crc32c_generic libcrc32c nfnetlink nf_tables nf_reject_ipv4 nf_reject_ipv6 nft_reject nft_reject_ipv4 nft_reject_ipv6; do
	module=$(find "$MODULES" -name "$name.ko" | head -n1)
	[[ -z $module ]] || install -m 644 "$module" "$tmp/root/modules/$(printf %02d "$(ls "$tmp/root/modules" | wc -l)")-$name.ko"
done
(cd "$tmp/root" && find . | cpio --quiet -o -H newc) > "$tmp/initramfs"
timeout 600 qemu-system-x86_64 -accel tcg -m 1024 -smp 2 -nographic -no-reboot -nodefaults -serial stdio \
	-kernel "$KERNEL" -initrd "$tmp/initramfs" -append "console=ttyS0 quiet panic=-1 lsm=landlock no_timer_check" </dev/null | tee "$tmp/out"
grep -q "vm: all is well" "$tmp/out"
