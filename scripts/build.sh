#!/bin/bash
# Builds usernet, static, with the program of sandboxes (cmd/usernet-sandbox) inside of it.
#
#   scripts/build.sh FILE [go build flags]
set -euo pipefail
file=$(realpath -m "$1") && shift
cd "$(dirname "$0")/.."
work=$(mktemp -d /tmp/usernet-build.XXXXXX)
trap 'rm -rf "$work"' EXIT
export CGO_ENABLED=0
go build -trimpath -ldflags '-s -w' -o "$work/usernet-sandbox" ./cmd/usernet-sandbox
printf '{"Replace": {"%s": "%s"}}\n' "$PWD/cmd/usernet/embedded/usernet-sandbox" "$work/usernet-sandbox" >"$work/overlay.json"
go build -trimpath -overlay "$work/overlay.json" "$@" -o "$file" ./cmd/usernet
