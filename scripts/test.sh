#!/bin/bash
# Runs the tests as the ordinary user it is started as (make test).
#
#   scripts/test.sh [--unit | --e2e] [go test flags]
set -euo pipefail
cd "$(dirname "$0")/.."

what=all
case ${1:-} in
--unit) what=unit && shift ;;
--e2e) what=e2e && shift ;;
esac

mapfile -t packages < <(go list ./... | grep -v '/test$')
status=0
if [[ $what != e2e ]]; then
	if ! command -v "$(go env CC)" >/dev/null; then
		echo "test: the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2
		exit 1
	fi
	CGO_ENABLED=1 go test -race -count=1 -timeout 10m "$@" "${packages[@]}" || status=1
fi
case $what in
all) USERNET_TEST_RACE=1 go test -count=1 -timeout 30m "$@" ./test || status=1 ;;
e2e) go test -count=1 -timeout 30m "$@" ./test || status=1 ;;
esac
exit $status
