#!/bin/bash
# Makes the packages: deb and rpm, for each of ARCHS (amd64 and arm64), with what each is made of (make packages).
#
#   [ARCHS='amd64 arm64'] scripts/packages.sh DIR
#
# The same commit, built by the same release of Go, gives the same bytes wherever, whenever and by whomever it is built:
# SOURCE_DATE_EPOCH, the time in all files, is the commit's unless it is set (https://reproducible-builds.org).
set -euo pipefail
umask 022
out=$(realpath -m "${1:?the directory to make is missing}")
cd "$(dirname "$0")/.."
export LC_ALL=C TZ=UTC
unset GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140

say() { echo "packages: $*" >&2; }

: "${ARCHS:=amd64 arm64}"
version=$(scripts/version.sh)
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || true)}"
if [[ ! $SOURCE_DATE_EPOCH =~ ^[0-9]+$ ]]; then
	say "no commit to take the time from: set SOURCE_DATE_EPOCH to seconds since 1970"
	exit 1
fi
export SOURCE_DATE_EPOCH

# What Debian's and RPM's versions may look like: 1.2.3+4.gabcdef after tag v1.2.3, else 0~git, the time and the commit.
if [[ $version =~ ^v?[0-9]+\.[0-9] ]]; then
	PACKAGE_VERSION=${version#v}
	PACKAGE_VERSION=${PACKAGE_VERSION/-/+}
	PACKAGE_VERSION=${PACKAGE_VERSION//-/.}
else
	PACKAGE_VERSION=0~git$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${version//[^0-9A-Za-z]/.}
fi
export PACKAGE_VERSION

work=$(mktemp -d /tmp/usernet-packages.XXXXXX)
trap 'rm -rf "$work"' EXIT
native=$(go env GOHOSTARCH)

build() { # ARCH FILE
	GOOS=linux GOARCH=$1 GOFLAGS="$(go env GOFLAGS) -buildvcs=false" \
		scripts/build.sh "$2" -ldflags "-s -w -buildid= -X main.version=$version"
}

compressed() { gzip -9n >"$1"; } # FILE: without a name and a time in it

# What the linked modules ask to be told with them: their licences and notices, one after the other.
licences() {
	local module dir file
	go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./cmd/usernet ./cmd/usernet-sandbox ./cmd/usernet-etcd |
		sort -u | while read -r module dir; do
		for file in "$dir"/{LICENSE,LICENCE,COPYING,NOTICE,PATENTS}*; do
			[[ ! -f $file ]] || printf '\n==== %s: %s\n\n%s\n' "$module" "${file##*/}" "$(cat "$file")"
		done
	done
}

# What goes into both kinds of packages is in common/usr; deb/usr and rpm/usr have what is elsewhere in each.
lay_out() { # TREE: all but the binary
	local common=$1/common/usr deb=$1/deb/usr rpm=$1/rpm/usr made=$work/install/usr name page
	local doc=$common/share/doc/usernet
	mkdir -p "$doc/examples" "$common"/{bin,lib/{netavark,usernet,systemd},share/{man/man1,usernet/apparmor}} \
		"$deb"/{lib/cni,share/{zsh/vendor-completions,doc/usernet}} "$rpm"/{libexec/cni,share/{zsh/site-functions,licenses/usernet}}
	PREFIX=/usr USERNET=$work/native MAN=$work/man DESTDIR=$work/install scripts/install.sh >/dev/null
	mv "$made"/share/{bash-completion,fish} "$common/share/"
	cp "$made/share/zsh/site-functions/_usernet" "$deb/share/zsh/vendor-completions/"
	cp "$made/share/zsh/site-functions/_usernet" "$rpm/share/zsh/site-functions/"
	mv "$made/share/systemd/user" "$common/lib/systemd/"
	for page in "$made"/share/man/man1/*.1; do
		compressed "$common/share/man/man1/${page##*/}.gz" <"$page"
	done

	# Names of other programs' are links in a directory of ours: no package of the distribution has them.
	for name in slirp4netns pasta rootlessport gvproxy; do
		ln -s ../../bin/usernet "$common/lib/usernet/$name"
	done
	ln -s ../../bin/usernet "$deb/lib/cni/usernet-cni"
	ln -s ../../bin/usernet "$rpm/libexec/cni/usernet-cni"
	printf '#!/bin/sh\nexec /usr/bin/usernet netavark "$@"\n' >"$common/lib/netavark/usernet"
	chmod 755 "$common/lib/netavark/usernet"
	cp dist/apparmor "$common/share/usernet/apparmor/usernet"

	cp -r contrib/. "$doc/examples/"
	cp README.md SECURITY.md docs/*.md "$doc/"
	compressed "$doc/CHANGELOG.md.gz" <CHANGELOG.md
	licences | compressed "$doc/modules-licenses.gz"
	cp LICENSE "$rpm/share/licenses/usernet/"
	sed "s/@YEAR@/$(date -d "@$SOURCE_DATE_EPOCH" +%Y)/" dist/debian/copyright >"$deb/share/doc/usernet/copyright"
	printf 'usernet (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.gz.\n\n -- %s  %s\n' "$PACKAGE_VERSION" \
		"$(sed -n 's/^maintainer: //p' dist/nfpm.yaml)" "$(date -d "@$SOURCE_DATE_EPOCH" -R)" |
		compressed "$deb/share/doc/usernet/changelog.gz"
}

build "$native" "$work/native"
"$work/native" man "$work/man"
lay_out "$work/tree"
go build -o "$work/sbom" ./dist/sbom
go build -modfile=tools/go.mod -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm
mkdir -p "$out"
for ARCH in $ARCHS; do
	export ARCH TREE=$work/tree
	binary=$TREE/common/usr/bin/usernet
	if [[ $ARCH == "$native" ]]; then cp "$work/native" "$binary"; else build "$ARCH" "$binary"; fi
	"$work/sbom" "$binary" >"$out/usernet_${PACKAGE_VERSION}_$ARCH.cdx.json"
	cp "$out/usernet_${PACKAGE_VERSION}_$ARCH.cdx.json" "$TREE/common/usr/share/doc/usernet/sbom.cdx.json"
	chmod -R u=rwX,go=rX "$TREE"
	find "$TREE" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for format in deb rpm; do
		"$work/nfpm" package --config dist/nfpm.yaml --packager $format --target "$out/" >/dev/null
	done
done
(cd "$out" && sha256sum -- *"$PACKAGE_VERSION"* >SHA256SUMS)
say "$out has version $PACKAGE_VERSION for $ARCHS"
