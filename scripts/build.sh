#!/bin/bash
# Builds usernet, static, with the program of sandboxes (cmd/usernet-sandbox) and that for etcd (cmd/usernet-etcd) inside of it.
#
#   scripts/build.sh FILE [go build flags]
set -euo pipefail
file=$(realpath -m "$1") && shift
cd "$(dirname "$0")/.."
work=$(mktemp -d /tmp/usernet-build.XXXXXX)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0
replace=
for program in usernet-sandbox usernet-etcd; do
	go build -trimpath -ldflags '-s -w' -o "$work/$program" "./cmd/$program"
	replace+=$(printf ',"%s": "%s"' "$PWD/cmd/usernet/embedded/$program" "$work/$program")
done
printf '{"Replace": {%s}}\n' "${replace#,}" >"$work/overlay.json"
go build -trimpath -overlay "$work/overlay.json" "$@" -o "$file" ./cmd/usernet
