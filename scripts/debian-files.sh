#!/bin/bash
# Downloads Debian packages of another release or architecture into a directory, for tests that unpack them there:
#
#   scripts/debian-files.sh DIR RELEASE ARCH PACKAGE...
#
# RELEASE may be "this". apt is given a world of its own, with the keys and servers of this machine: nothing is installed, no
# architecture is added, and no right is needed. DIR is left as it is where it has been made from the same list. Of
# linux-image-cloud-ARCH and the like, which only name the newest kernel, that kernel's package is taken.
set -euo pipefail
wanted="$*"
dir=${1:?the directory to make is missing} release=${2:?} arch=${3:?}
shift 3
[[ $(cat "$dir/.made-from" 2>/dev/null) != "$wanted" ]] || exit 0
[[ $release != this ]] || release=$(. /etc/os-release && echo "$VERSION_CODENAME")
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{lists,cache}/partial "$dir"
: >"$apt/status"
server=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 'debian/*$' || true)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${server:-http://deb.debian.org/debian} $release main" >"$apt/sources.list"
options=(
	-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
	-o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
	-o Dir::State::extended_states="$apt/extended" -o Dir::Cache="$apt/cache" -o APT::Architecture="$arch" -o APT::Architectures::="$arch"
	-o APT::Sandbox::User="$(id -un)"
)
apt-get "${options[@]}" -qq update
for package in "$@"; do
	kernel=$(apt-cache "${options[@]}" depends "$package" | sed -n 's/.*Depends: \(linux-image-[^: ]*\).*/\1/p' | head -n1)
	(cd "$dir" && apt-get "${options[@]}" -qq download "${kernel:-$package}")
done
echo "$wanted" >"$dir/.made-from"
