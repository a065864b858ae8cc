#!/bin/bash
# Mixed load over fifty containers, with the daemon killed every 15 s, for USERNET_SOAK (make soak, make soak SOAK=2m).
set -euo pipefail
cd "$(dirname "$0")/.."
export USERNET_SOAK=${USERNET_SOAK:-1h}
exec scripts/test.sh --e2e -timeout 0 -run '^TestSoak$' -v "$@"
