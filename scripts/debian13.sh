#!/bin/bash
# Unpacks Debian 13's container engines into a directory, for `make engines`, where tests enter it (scripts/engines.sh).
#
#   scripts/debian13.sh DIR
#
# Podman 5.4, netavark 1.14, crun 1.21, pasta 2025-05 and all that they need come from Debian's archive by apt, with the keys
# and servers of this machine. apt is given a world of its own, so that nothing here is installed or reconfigured; no
# package's scripts run. DIR is left as it is where it was made from the same list of packages. Started as root.
set -euo pipefail

packages=(
	podman crun runc netavark aardvark-dns passt slirp4netns catatonit uidmap fuse-overlayfs rootlesskit
	docker.io docker-cli containerd
	bash dash coreutils util-linux iproute2 iputils-ping procps grep sed tar gzip findutils mawk libc-bin
	busybox-static curl ncat socat dnsutils nftables iptables git
)

say() { echo "debian13: $*" >&2; }
dir=${1:?the directory to make is missing}
wanted=$(printf '%s\n' "${packages[@]}" | cat - "$0" | sha256sum)
if [[ $(cat "$dir/.made-from" 2>/dev/null) == "$wanted" ]]; then
	exit 0
fi
[[ $(id -u) -eq 0 ]] || { say "packages are unpacked as root: sudo $0 $dir"; exit 1; }

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{lists,cache}/partial
: >"$apt/status"
server=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 'debian/*$' || true)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${server:-http://deb.debian.org/debian} trixie main" >"$apt/sources.list"
options=(
	-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null
	-o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
	-o Dir::State::extended_states="$apt/extended" -o Dir::Cache="$apt/cache" -o Dir::Cache::archives="$apt/cache"
	-o APT::Install-Recommends=false -o APT::Sandbox::User=root
)
apt-get "${options[@]}" -qq update
apt-get "${options[@]}" -qq --yes --download-only install "${packages[@]}" >/dev/null

rm -rf "$dir"
mkdir -p "$dir"
# base-files has the links /bin, /lib and /sbin, through which others unpack.
for package in "$apt"/cache/base-files_*.deb "$apt"/cache/*.deb; do
	dpkg-deb --fsys-tarfile "$package" | tar -x -p --keep-directory-symlink -C "$dir"
done
# What the packages' scripts would have done, as far as it is needed here.
ln -sf mawk "$dir/usr/bin/awk"
for name in iptables ip6tables; do ln -sf "$name-nft" "$dir/usr/sbin/$name"; done
mkdir -p "$dir"/{proc,sys,dev,tmp,home,run}
# runuser(1) asks PAM, whose files name others that packages' scripts write.
rm -f "$dir"/etc/pam.d/*
printf '%s required pam_permit.so\n' auth account password session >"$dir/etc/pam.d/runuser"
printf '%s required pam_deny.so\n' auth account password session >"$dir/etc/pam.d/other"
echo "$wanted" >"$dir/.made-from"
say "$dir has $(ls "$apt"/cache/*.deb | wc -l) packages of Debian 13"
