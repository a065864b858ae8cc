#!/bin/bash
# Runs the tests as the ordinary user it is started as (make test), with a line for each test as it ends and a count at the end.
#
#   scripts/test.sh [--unit | --e2e | --smoke | --engines | --stores] [go test flags]
#
# USERNET_TEST_COUNTS=FILE: "PASSED FAILED SKIPPED" is added to FILE for each run of go test.
set -euo pipefail
cd "$(dirname "$0")/.."

what=all
case ${1:-} in
--unit | --e2e | --smoke | --engines | --stores) what=${1#--} && shift ;;
esac

bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
CGO_ENABLED=0 go build -o "$bin/progress" ./test/progress
show=("$bin/progress")
[[ -z ${USERNET_TEST_COUNTS:-} ]] || show+=(-counts "$USERNET_TEST_COUNTS")
for flag in "$@"; do
	[[ $flag != -v && $flag != -test.v ]] || show+=(-v)
done

# run GO-TEST-FLAGS...: both have to end well; pipefail sees to it.
run() { go test -json -count=1 "$@" | "${show[@]}"; }

# The end-to-end tests are one package. Those that need the world for themselves come first, the others four at a time.
limits=(-timeout 55m -parallel 4)
status=0
if [[ $what == all || $what == unit ]]; then
	if ! command -v "$(go env CC)" >/dev/null; then
		echo "test: the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2
		exit 1
	fi
	mapfile -t packages < <(go list ./... | grep -v '/test$')
	CGO_ENABLED=1 run -race -timeout 20m "$@" "${packages[@]}" || status=1
fi
case $what in
all) USERNET_TEST_RACE=1 run "${limits[@]}" "$@" ./test || status=1 ;;
e2e) run "${limits[@]}" "$@" ./test || status=1 ;;
engines) run -timeout 30m "$@" ./test/engines || status=1 ;;
stores) USERNET_STORES=1 USERNET_CONSUL=$(test/tools/consul.sh) run -timeout 30m "$@" ./test/stores || status=1 ;;
smoke) run "${limits[@]}" -short "$@" ./test || status=1 ;;
esac
exit $status
