#!/bin/bash
# Makes the root file system of a virtual machine that is a guest of usernet's (test/vm/guest):
#
#   scripts/guest-image.sh FILE        with MODULES=/lib/modules/VERSION of the kernel that it is for
#
# It is busybox and the modules of virtio's network interface. qemu starts it with -kernel KERNEL -initrd FILE -append
# console=ttyS0, and -device virtio-net-pci for each interface.
set -euo pipefail
file=$(realpath "${1:?the file to make is missing}")
cd "$(dirname "$0")/.."
: "${MODULES:=/lib/modules/$(uname -r)}"
for need in cpio busybox; do
	command -v $need >/dev/null || { echo "guest-image: $need is missing: apt-get install cpio busybox-static" >&2; exit 1; }
done
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/modules"
install -m 755 "$(command -v busybox)" "$root/bin/busybox"
install -m 755 test/vm/guest "$root/init"
# In the order in which they need each other; what is not there is built into the kernel.
for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
	scripts/kernel-module.sh "$MODULES" "$name" "$root/modules"
done
if [[ -z $(ls "$root/modules") ]]; then
	echo "guest-image: no modules of virtio below $MODULES: set MODULES to those of the kernel" >&2
	exit 1
fi
(cd "$root" && find . | cpio --quiet -o -H newc) >"$file"
