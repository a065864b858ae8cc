#!/bin/bash
# Runs a command as an ordinary user, for everything that claims to work without root.
#
#   scripts/unprivileged.sh COMMAND ARG...
#
# An ordinary user: the command runs as it is. Root: a user is chosen (USERNET_USER, else
# "usernet-test", created where it does not exist) and the command runs as that user, in this tree
# where the user may read it, else in a copy. Both say what they do on standard error.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "unprivileged: $*" >&2; }

check_tun() { # as the user that runs the command
	if [[ ! -c /dev/net/tun ]]; then
		say "/dev/net/tun is missing. As root: mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200"
		exit 1
	fi
	if [[ ! -r /dev/net/tun || ! -w /dev/net/tun ]]; then
		say "user $(id -un) may not open /dev/net/tun ($(stat -c %A /dev/net/tun)). As root: chmod 0666 /dev/net/tun"
		exit 1
	fi
}

# The second pass: what follows runs as the ordinary user.
if [[ $(id -u) -ne 0 ]]; then
	if [[ -z ${XDG_RUNTIME_DIR:-} || ! -w ${XDG_RUNTIME_DIR:-} ]]; then
		XDG_RUNTIME_DIR=$(mktemp -d /tmp/usernet-run.XXXXXX)
		export XDG_RUNTIME_DIR
		made=$XDG_RUNTIME_DIR
	fi
	check_tun
	[[ -n ${made:-} ]] || exec "$@"
	trap 'rm -rf "$made"' EXIT
	"$@"
	exit
fi

user=${USERNET_USER:-usernet-test}
command -v runuser >/dev/null || { say "runuser is missing: apt-get install util-linux"; exit 1; }
if ! id "$user" >/dev/null 2>&1; then
	say "started as root: creating the ordinary user $user"
	useradd --create-home --shell /bin/bash "$user"
fi
# Ids besides its own, which some tests use by way of newuidmap(1): useradd gives them where /etc/subuid is there.
grep -q "^$user:" /etc/subuid 2>/dev/null || usermod --add-subuids 624288-689823 --add-subgids 624288-689823 "$user"
home=$(getent passwd "$user" | cut -d: -f6)
say "started as root: running '$*' as the ordinary user $user, without privileges"

# The user has its own build and module caches, and fetches modules the way root would.
vars=(HOME="$home" USER="$user" LOGNAME="$user" XDG_RUNTIME_DIR= XDG_STATE_HOME= XDG_CONFIG_HOME= XDG_CACHE_HOME=
	GOCACHE= GOMODCACHE= GOPATH= GOTMPDIR= TMPDIR=/tmp)
for name in GOPROXY GOFLAGS GOSUMDB GONOSUMDB GONOPROXY GOPRIVATE GOINSECURE GOTOOLCHAIN GOAUTH; do
	vars+=("$name=$(go env "$name")")
done

# Nothing is written into the tree, so the user only needs to read it. git refuses to work for
# another user's tree, so the version is found here, and go is not to ask git.
vars+=("VERSION=$(scripts/version.sh)" "GOFLAGS=$(go env GOFLAGS) -buildvcs=false")
dir=$PWD
if ! runuser -u "$user" -- test -r "$dir/go.mod" -a -x "$dir/scripts"; then
	dir=$(mktemp -d /tmp/usernet-src.XXXXXX)
	say "user $user may not read $PWD: working in a copy, $dir"
	trap 'rm -rf "$dir"' EXIT
	git ls-files -z --cached --others --exclude-standard | tar --null --files-from=- -cf - | tar -xf - -C "$dir"
	chown -R "$user": "$dir"
fi
cd "$dir"
runuser -u "$user" -- env "${vars[@]}" "$dir/scripts/unprivileged.sh" "$@"
