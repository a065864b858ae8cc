#!/bin/bash
# Looks for known vulnerabilities in the code that the module calls, its dependencies' and Go's own (make vuln).
#
#   [VULNDB=URL] [VULNTIME=10m] scripts/vuln.sh
#
# Exit status: 0 none is called; 1 some are, or the check itself failed; 2 not checked, as the database at VULNDB cannot
# be reached. The last line says which.
set -euo pipefail
cd "$(dirname "$0")/.."

db=${VULNDB:-https://vuln.go.dev}
limit=${VULNTIME:-10m}
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# Built, since "go tool" hides the exit status of what it runs. Version and sums are those of tools/.
if ! timeout -k 10 "$limit" go build -modfile=tools/go.mod -o "$bin/govulncheck" golang.org/x/vuln/cmd/govulncheck; then
	echo "vuln: failed: govulncheck could not be built: see above"
	exit 1
fi

status=0
timeout -k 10 "$limit" "$bin/govulncheck" -db "$db" ./... 2>"$bin/errors" || status=$?
cat "$bin/errors" >&2
case $status in
0)
	echo "vuln: checked with $db: no known vulnerability is called"
	;;
3) # of govulncheck: there are findings in what is called
	echo "vuln: failed: known vulnerabilities are called; take the versions named above, or stop calling what has them"
	exit 1
	;;
124 | 137)
	echo "vuln: not checked: no end within $limit, with the database at $db"
	exit 2
	;;
*)
	# Both are govulncheck's texts for a database that does not answer, or is none.
	if grep -qE '^(govulncheck: fetching vulnerabilities|creating client): ' "$bin/errors"; then
		echo "vuln: not checked: no database of vulnerabilities at $db; give the URL of another as VULNDB"
		exit 2
	fi
	echo "vuln: failed: govulncheck ended with status $status: see above"
	exit 1
	;;
esac
