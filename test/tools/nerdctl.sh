#!/bin/bash
# Prints the path of a nerdctl (test/tools/nerdctl/go.mod says which), built into the user's cache where it is not there.
#
#   test/tools/nerdctl.sh
#
# A cold build is 3 minutes and a half of processor time. USERNET_NERDCTL=FILE names one that is there already.
set -euo pipefail
if [[ -n ${USERNET_NERDCTL:-} ]]; then
	echo "$USERNET_NERDCTL"
	exit
fi
cd "$(dirname "$0")/nerdctl"
version=$(sed -n 's|^\(require\)\? *\t*github.com/containerd/nerdctl/v2 \(v[0-9.]*\).*|\2|p' go.mod)
file=${XDG_CACHE_HOME:-$HOME/.cache}/usernet-test/nerdctl-$version
if [[ ! -x $file ]]; then
	mkdir -p "$(dirname "$file")"
	work=$(mktemp -d "$(dirname "$file")/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	nice env CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/nerdctl" github.com/containerd/nerdctl/v2/cmd/nerdctl >&2
	mv "$work/nerdctl" "$file"
fi
echo "$file"
