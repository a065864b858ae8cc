#!/bin/bash
# Prints the path of a flanneld (test/tools/flanneld/go.mod says which), built into the user's cache where it is not there.
#
#   test/tools/flanneld.sh
#
# A cold build is 5 minutes of processor time. Its backend udp is in C. USERNET_FLANNELD=FILE names one that is there already.
set -euo pipefail
if [[ -n ${USERNET_FLANNELD:-} ]]; then
	echo "$USERNET_FLANNELD"
	exit
fi
cd "$(dirname "$0")/flanneld"
version=$(sed -n 's|^\(require\)\? *\t*github.com/flannel-io/flannel \(v[0-9.]*\).*|\2|p' go.mod)
file=${XDG_CACHE_HOME:-$HOME/.cache}/usernet-test/flanneld-$version
if [[ ! -x $file ]]; then
	mkdir -p "$(dirname "$file")"
	work=$(mktemp -d "$(dirname "$file")/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	nice env CGO_ENABLED=1 go build -trimpath -ldflags '-s -w' -o "$work/flanneld" github.com/flannel-io/flannel >&2
	mv "$work/flanneld" "$file"
fi
echo "$file"
