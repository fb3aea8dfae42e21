#!/bin/sh
# The study of the local cluster: all scenarios in turns, there and back, then their table. Half an hour on a quiet
# machine; measurements are never overwritten, so give another folder or move the old one away.
set -eu
cd "$(dirname "$0")/.."
out=${1:-results/local}
run="${PYTHON:-python3} -m sim.main live local"
$run run scenarios/local/*.yaml --out "$out" --rounds "${ROUNDS:-2}"
$run table "$out"/*.jsonl | tee "$out/table.md"
