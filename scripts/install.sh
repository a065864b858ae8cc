#!/bin/bash
# Installs what `make build man` has made below $DESTDIR$PREFIX (make install). The directories are those in which bash, zsh, fish, man
# and systemd look for the files of a prefix. USERNET and MAN: another binary, and another directory of manual pages.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${PREFIX:-$HOME/.local}
to=${DESTDIR:-}$prefix
usernet=${USERNET:-bin/usernet}

install -D -m 0755 "$usernet" "$to/bin/usernet"
for page in "${MAN:-man}"/*.1; do
	install -D -m 0644 "$page" "$to/share/man/man1/$(basename "$page")"
done
completion() { # SHELL FILE
	install -d "$to/$(dirname "$2")"
	"$usernet" completion "$1" >"$to/$2"
}
completion bash share/bash-completion/completions/usernet
completion zsh share/zsh/site-functions/_usernet
completion fish share/fish/vendor_completions.d/usernet.fish
install -D -m 0644 dist/usernet.socket "$to/share/systemd/user/usernet.socket"
install -d "$to/share/systemd/user"
# A backslash, a slash's delimiter or & in the path would have a meaning for sed.
bindir=$(printf '%s' "$prefix/bin" | sed 's/[\\|&]/\\&/g')
sed "s|@BINDIR@|$bindir|" dist/usernet.service >"$to/share/systemd/user/usernet.service"
echo "installed below $to; the daemon as a service: systemctl --user enable --now usernet.socket"
# The first installation makes ~/.local/bin, which a login shell takes into PATH only if it was there at the login.
if [[ -z ${DESTDIR:-} && :$PATH: != *":$prefix/bin:"* ]]; then
	echo "this shell does not look there yet: export PATH=\"$prefix/bin:\$PATH\""
fi
