#!/bin/bash
# Prints the version that is built into usernet: VERSION where it is set, else what git calls this tree.
#
# The text of a tag is whatever the author of a repository likes, and git allows quotes, semicolons and dollar signs in it
# (git-check-ref-format(1)). What could be more than a version for a shell, for make or for the linker is not printed: the
# commit's hash is printed instead.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${VERSION:-}
[[ -n $version ]] || version=$(git describe --tags --always --dirty 2>/dev/null || true)
LC_ALL=C
form='^[0-9A-Za-z][0-9A-Za-z._+-]{0,99}$'
[[ $version =~ $form ]] || version=$(git describe --always --dirty --exclude '*' 2>/dev/null || true)
[[ $version =~ $form ]] || version=unknown
printf '%s\n' "$version"
