#!/bin/bash
# Prints the path of a Consul server (test/tools/consul/go.mod says which), built into the user's cache where it is not there.
#
#   test/tools/consul.sh
#
# A cold build is 6 to 8 minutes of processor time. USERNET_CONSUL=FILE names a server that is there already.
set -euo pipefail
if [[ -n ${USERNET_CONSUL:-} ]]; then
	echo "$USERNET_CONSUL"
	exit
fi
cd "$(dirname "$0")/consul"
version=$(sed -n 's|^\tgithub.com/hashicorp/consul \(v[0-9.]*\).*|\1|p' go.mod)
file=${XDG_CACHE_HOME:-$HOME/.cache}/usernet-test/consul-$version
if [[ ! -x $file ]]; then
	mkdir -p "$(dirname "$file")"
	work=$(mktemp -d "$(dirname "$file")/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	nice env CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/consul" github.com/hashicorp/consul >&2
	mv "$work/consul" "$file"
fi
echo "$file"
