#!/bin/sh
# Build llama-cpp-python with RPC once (minutes), install it from the cache afterwards (seconds). CI calls this.
set -eu
cd "$(dirname "$0")/.."
exec nice -n 10 "${PYTHON:-python3}" -m live.local.install "$@"
