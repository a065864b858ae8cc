#!/bin/bash
# Tests the packages (make packages-test): two builds are the same byte by byte; the Debian package is installed, used by a
# new user by way of systemd, upgraded under a running daemon, and purged; the RPM is unpacked and verified.
#
#   scripts/packages-test.sh
#
# It is started as root, for an overlay of this machine's root file system, in which all of it happens: nothing of the
# machine is changed. What is tested is built by the ordinary user of the tests. USERNET_DEBS=DIR keeps what is downloaded.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
	echo "packages: FAILED: $*"
	exit 1
}
ok() {
	echo "packages: $*: ok"
	[[ -z ${COUNT:-} ]] || echo >>"$COUNT"
}
# wants TEXT COMMAND...: what the command prints has to contain the text before long.
wants() {
	local end=$((SECONDS + 60)) text=$1 out
	shift
	while :; do
		out=$("$@" 2>&1) || true
		[[ $out != *"$text"* ]] || return 0
		((SECONDS < end)) || fail "$*: want $text, got $out"
		sleep 0.1
	done
}

# The same commit, in two directories, at two times, with two umasks, languages and time zones. FRESH=1 compiles the second
# from nothing, which takes minutes; else what the first has compiled is linked again.
build_all() { # DIR: as the ordinary user
	local copy=$1/another/place
	export GOCACHE GOMODCACHE
	GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE)
	scripts/packages.sh "$1/one"
	mkdir -p "$copy"
	cp -r --no-preserve=mode,timestamps . "$copy"
	chmod 755 "$copy"/scripts/*.sh
	(cd "$copy" && umask 0077 && export TZ=Asia/Tokyo LANG=C.UTF-8 HOME="$1/home" USER=another &&
		{ [[ -z ${FRESH:-} ]] || export GOCACHE=$1/gocache; } && scripts/packages.sh "$1/two")
	VERSION=v1.1.0 ARCHS=$(go env GOHOSTARCH) scripts/packages.sh "$1/next"
}

check_builds() { # DIR
	local arch program
	cmp "$1/one/SHA256SUMS" "$1/two/SHA256SUMS" || fail "two builds of one commit differ"
	(cd "$1/two" && sha256sum --quiet -c SHA256SUMS) || fail "SHA256SUMS is wrong"
	ok "two builds are the same, byte by byte"
	for arch in amd64 arm64; do
		rm -rf "$1/root" && dpkg-deb -x "$1/one/usernet_1.0.0_$arch.deb" "$1/root"
		# What Go says of the binary; the embedded programs may have more.
		go version -m "$1/root/usr/bin/usernet" | awk '$1 == "dep" { print $2 "@" $3 }' | sort >"$1/modules"
		jq -r '.components[] | .name + "@" + .version' "$1/one/usernet_1.0.0_$arch.cdx.json" | grep -v '^std@' | sort >"$1/listed"
		[[ $(wc -l <"$1/modules") -gt 50 ]] || fail "go version -m lists too little"
		[[ -z $(comm -23 "$1/modules" "$1/listed") ]] || fail "not in the SBOM: $(comm -23 "$1/modules" "$1/listed")"
		grep -q '^go.etcd.io/etcd/client/v3@' "$1/listed" || fail "the SBOM does not have the embedded programs' modules"
		for program in $(comm -13 "$1/modules" "$1/listed"); do
			grep -q "^${program%@*} ${program#*@} h1:" go.sum || fail "in the SBOM, and not in go.sum: $program"
		done
		[[ $(jq -r '.metadata.component.hashes[0].content' "$1/root/usr/share/doc/usernet/sbom.cdx.json") == \
			"$(sha256sum <"$1/root/usr/bin/usernet" | cut -d' ' -f1)" ]] || fail "the SBOM is not of this binary"
	done
	ok "the SBOM has the binary's modules"
}

if [[ ${1:-} == --build ]]; then
	build_all "$2"
	exit
fi
[[ $(id -u) -eq 0 ]] || { echo "packages: the overlay is made as root: sudo $0" >&2; exit 1; }

if [[ ${1:-} != --inside ]]; then
	for need in jq rpm systemd curl busybox; do
		command -v $need >/dev/null || fail "$need is missing: apt-get install jq rpm systemd curl busybox-static"
	done
	work=$(mktemp -d /tmp/usernet-packages-test.XXXXXX)
	trap 'rm -rf "$work"' EXIT
	export USERNET_DEBS=${USERNET_DEBS:-$work/debs} VERSION=v1.0.0
	scripts/debian-files.sh "$USERNET_DEBS" trixie "$(dpkg --print-architecture)" apparmor libc6
	chmod 1777 "$work"
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) scripts/unprivileged.sh scripts/packages-test.sh --build "$work"
	check_builds "$work"
	unshare --mount --net --pid --fork --kill-child --cgroup --propagation private "$0" --inside "$work"
	exit
fi
work=$2
arch=$(dpkg --print-architecture)
first=$work/one/usernet_1.0.0_$arch.deb
next=$work/next/usernet_1.1.0_$arch.deb

# An overlay of the machine's root file system, in which namespaces can be made: it is a mount namespace's root, not chroot's.
mount -t proc proc /proc
root=$work/here/root
mkdir "$work/here"
mount -t tmpfs usernet-here "$work/here"
mkdir "$work/here"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$work/here/upper,workdir=$work/here/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sysfs "$root/sys" # of this network namespace
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir "$root/run/user" "$root/run/systemd" "$root/run/systemd/system" # the last shows systemd's programs that it runs
unshare --mount sh -c 'cd "$1" && pivot_root . mnt && umount -l /mnt && touch /run/entered && exec sleep infinity' - "$root" &
holder=$!
until [[ -e $root/run/entered ]]; do
	kill -0 $holder 2>/dev/null || fail "no root file system to enter"
	sleep 0.05
done
in_root() { nsenter --mount=/proc/$holder/ns/mnt -- /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
paths() { (cd "$root" && find bin sbin lib usr etc opt var -xdev 2>/dev/null | grep -v '^var/\(log\|lib/dpkg\|cache\)/' | sort); }

ip link set lo up
ip addr add 192.0.2.1/32 dev lo # the host's address
rm -f "$root/var/lib/man-db/auto-update" # else the index of all manual pages is made anew
in_root useradd --create-home --shell /bin/bash newcomer
paths >"$work/before"
cp "$first" "$next" "$root/tmp/"
in_root dpkg -i "/tmp/${first##*/}" >/dev/null 2>"$work/said" || fail "dpkg -i: $(cat "$work/said")"
ok "installed"

# The newcomer's session, as logind makes it: a directory, a cgroup, and systemd for the user.
uid=$(in_root id -u newcomer)
install -d -m 700 -o "$uid" -g "$uid" "$root/run/user/$uid"
cgroup=$root/sys/fs/cgroup/usernet-packages
mkdir -p "$cgroup/session"
chown -R "$uid:$uid" "$cgroup"
newcomer() { in_root setpriv --reuid newcomer --regid newcomer --init-groups env HOME=/home/newcomer USER=newcomer \
	XDG_RUNTIME_DIR="/run/user/$uid" "$@"; }
(echo 0 >"$cgroup/session/cgroup.procs"; exec >"$work/systemd" 2>&1; newcomer /usr/lib/systemd/systemd --user) &
wants "loaded units" newcomer systemctl --user list-units
newcomer systemctl --user enable --now usernet.socket 2>/dev/null

newcomer mkdir -p /home/newcomer/www
newcomer dd if=/dev/urandom of=/home/newcomer/www/data bs=1M count=4 status=none
sum=$(newcomer sha256sum /home/newcomer/www/data | cut -d' ' -f1)
fetched() { newcomer bash -c 'curl -sS -m 20 "$1" | sha256sum' - "$1"; }
inside() { newcomer usernet run --rm --network lan -- bash -c 'curl -sS -m 20 "$1" | sha256sum' - "$1"; }

newcomer usernet network create lan >/dev/null # by socket activation: no daemon ran
newcomer usernet run -d --name web --network lan -p 127.0.0.1:8080:80 -- busybox httpd -f -p 80 -h /home/newcomer/www >/dev/null
wants "$sum" fetched http://127.0.0.1:8080/data
wants "$sum" inside http://web/data
wants active newcomer systemctl --user is-active usernet.service
wants 1.0.0 newcomer usernet version
ok "used by a new user, started by the first request"

daemon=$(newcomer systemctl --user show -P MainPID usernet.service)
in_root dpkg -i "/tmp/${next##*/}" >/dev/null 2>"$work/said" || fail "dpkg -i: $(cat "$work/said")"
wants 1.1.0 newcomer usernet version
[[ $(newcomer systemctl --user show -P MainPID usernet.service) == "$daemon" ]] || fail "the upgrade ended the daemon"
wants "$sum" fetched http://127.0.0.1:8080/data
wants "$sum" inside http://web/data # the new client, with the daemon from before
newcomer systemctl --user daemon-reload
newcomer systemctl --user restart usernet.service
wants "$sum" fetched http://127.0.0.1:8080/data
wants "$sum" inside http://web/data
[[ $(newcomer systemctl --user show -P MainPID usernet.service) != "$daemon" ]] || fail "the daemon is the one from before"
ok "upgraded under a running daemon"

newcomer usernet rm -f web >/dev/null
newcomer usernet network rm lan >/dev/null
newcomer systemctl --user disable --now usernet.socket usernet.service 2>/dev/null
in_root dpkg --purge usernet >/dev/null 2>&1
paths >"$work/after"
diff "$work/before" "$work/after" || fail "left behind, or taken away with it: see above"
ok "removed without a trace"

# AppArmor's profile comes with an AppArmor that knows its rules, as Debian 13's does, which is installed later here; its
# parser, with its C library, looks at the profile.
profile=$root/etc/apparmor.d/usernet
in_root dpkg -i "/tmp/${first##*/}" >/dev/null 2>"$work/said" || fail "dpkg -i: $(cat "$work/said")"
[[ -L $profile || -e $root/etc/apparmor.d/abi/4.0 ]] && fail "the profile is in place before AppArmor knows its rules"
dpkg-deb -R "$USERNET_DEBS"/apparmor_*.deb "$root/tmp/apparmor"
rm -f "$root"/tmp/apparmor/DEBIAN/{preinst,postinst,prerm,postrm,config} # which are for Debian 13
dpkg-deb -b -Znone "$root/tmp/apparmor" "$root/tmp/apparmor.deb" >/dev/null
in_root dpkg -i --force-depends --force-confnew /tmp/apparmor.deb >"$work/said" 2>&1 || fail "apparmor: $(cat "$work/said")"
[[ -L $profile ]] || fail "the profile is not in place"
mkdir "$root/tmp/later"
for each in "$USERNET_DEBS"/*.deb; do dpkg-deb -x "$each" "$root/tmp/later"; done
parser() { in_root sh -c 'lib=$(dirname $(find /tmp/later/usr/lib -name libc.so.6)) && exec $lib/ld-linux-*.so.* --library-path $lib /tmp/later/usr/sbin/apparmor_parser "$@"' - "$@"; }
parser -Q -K /etc/apparmor.d/usernet 2>"$work/said" || fail "AppArmor does not take the profile: $(cat "$work/said")"
echo 'profile usernet { usrns, }' | parser -Q -K 2>/dev/null && fail "AppArmor's parser takes anything"
in_root dpkg --purge usernet >/dev/null 2>&1
[[ ! -e $profile && ! -L $profile ]] || fail "the profile is left behind"
ok "AppArmor's profile"

for package in "$work"/one/*.rpm; do
	rpm -K --nosignature "$package" 2>/dev/null | grep -q 'digests OK' || fail "digests of $package"
	rpm -qp --nosignature -l "$package" 2>/dev/null >"$work/files"
	for file in /usr/bin/usernet /usr/libexec/cni/usernet-cni /usr/lib/systemd/user/usernet.socket /usr/share/man/man1/usernet.1.gz \
		/usr/share/zsh/site-functions/_usernet /usr/share/licenses/usernet/LICENSE; do
		grep -qx "$file" "$work/files" || fail "$package does not have $file"
	done
done
mkdir "$work/rpm"
package=$(ls "$work"/one/*.x86_64.rpm)
[[ $arch == amd64 ]] || package=$(ls "$work"/one/*.aarch64.rpm)
rooted() { rpm --root "$work/rpm" --nosignature --nodeps "$@" 2>"$work/said"; } # Debian's rpm warns of itself
rooted -i "$package" || fail "rpm -i: $(cat "$work/said")"
rooted -V usernet || fail "what was unpacked is not what was packed"
cmp "$work/rpm/usr/bin/usernet" <(dpkg-deb --fsys-tarfile "$first" | tar -xO ./usr/bin/usernet) || fail "RPM and deb have different binaries"
rooted -e usernet
[[ -z $(cd "$work/rpm" && find usr -path "*usernet*" 2>/dev/null) ]] || fail "the RPM leaves files behind"
ok "RPM"
