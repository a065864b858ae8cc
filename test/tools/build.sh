#!/bin/bash
# Prints the path of a program that tests run, built into the user's cache where it is not there.
#
#   test/tools/build.sh NAME MODULE [PACKAGE [CGO_ENABLED]]
#
# NAME is the directory here with the go.mod that says which version. USERNET_NAME=FILE in the environment (in capitals) names
# a program that is there already. Of callers at the same time one builds, and the others wait for it.
set -euo pipefail
name=$1 module=$2 package=${3:-$2} cgo=${4:-0}
given=USERNET_${name^^}
if [[ -n ${!given:-} ]]; then
	echo "${!given}"
	exit
fi
cd "$(dirname "$0")/$name"
version=$(awk -v module="$module" '{ for (i = 1; i < NF; i++) if ($i == module) { print $(i + 1); exit } }' go.mod)
dir=${XDG_CACHE_HOME:-$HOME/.cache}/usernet-test
file=$dir/$name-$version
if [[ ! -x $file ]]; then
	mkdir -p "$dir"
	exec 9>"$dir/$name.lock"
	flock 9
fi
if [[ ! -x $file ]]; then
	work=$(mktemp -d "$dir/build.XXXXXX")
	trap 'rm -rf "$work"' EXIT
	CGO_ENABLED=$cgo go build -trimpath -ldflags '-s -w' -o "$work/$name" "$package" >&2 9>&-
	mv "$work/$name" "$file"
fi
echo "$file"
