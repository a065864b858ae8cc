#!/bin/bash
# Runs every fuzz target of the module for FUZZTIME each (make fuzz).
set -euo pipefail
cd "$(dirname "$0")/.."

found=0
mapfile -d '' -t dirs < <(grep -rlZ --include='*_test.go' '^func Fuzz' . | xargs -0 -r dirname -z -- | sort -uz)
for dir in "${dirs[@]}"; do
	mapfile -t targets < <(grep -rhoP --include='*_test.go' '^func \KFuzz\w+' "$dir" | sort -u)
	for target in "${targets[@]}"; do
		found=1
		echo "== $dir $target"
		# The corpus that a run grows stays in the build cache; only a failing input is written to testdata/, and belongs
		# into the repository. Inputs are made smaller ten times at most: by default each new one may take a minute.
		go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-20s}" -fuzzminimizetime 10x "$dir"
	done
done
((found)) || { echo "fuzz: no fuzz targets found" >&2; exit 1; }
