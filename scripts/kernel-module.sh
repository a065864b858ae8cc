#!/bin/bash
# Copies a kernel's module into the root file system of a virtual machine, whose init loads them in order:
#
#   scripts/kernel-module.sh MODULES NAME DIR      MODULES is /lib/modules/VERSION
#
# It does nothing where there is none, since it may be built in. Distributions compress modules, which busybox's insmod does
# not read.
set -euo pipefail
module=$(find "$1" -name "$2.ko" -o -name "$2.ko.xz" -o -name "$2.ko.zst" -o -name "$2.ko.gz" 2>/dev/null | head -n1)
case $module in
'') exit 0 ;;
*.xz) read=(xz -dc) ;;
*.zst) read=(zstd -dcq) ;;
*.gz) read=(gzip -dc) ;;
*) read=(cat) ;;
esac
"${read[@]}" "$module" >"$3/$(printf %02d "$(ls "$3" | wc -l)")-$2.ko"
