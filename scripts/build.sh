#!/bin/bash
# Builds usernet, static, with the program of sandboxes (cmd/usernet-sandbox) and that for etcd (cmd/usernet-etcd) inside of it.
#
#   scripts/build.sh FILE [go build flags]
#
# The program for etcd is compressed: it is large, and few daemons start it, once each. That of sandboxes is started with
# every container, and is in the file as it is.
set -euo pipefail
file=$(realpath -m "$1") && shift
cd "$(dirname "$0")/.."
work=$(mktemp -d /tmp/usernet-build.XXXXXX)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0
for program in usernet-sandbox usernet-etcd; do
	go build -trimpath -ldflags '-s -w' -o "$work/$program" "./cmd/$program"
done
gzip -9 --no-name "$work/usernet-etcd"
replace=
for name in usernet-sandbox usernet-etcd.gz; do
	replace+=$(printf ',"%s": "%s"' "$PWD/cmd/usernet/embedded/$name" "$work/$name")
done
printf '{"Replace": {%s}}\n' "${replace#,}" >"$work/overlay.json"
go build -trimpath -overlay "$work/overlay.json" "$@" -o "$file" ./cmd/usernet
