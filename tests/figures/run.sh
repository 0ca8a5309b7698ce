#!/usr/bin/env bash
# The broker's figures against their limits: size, start, memory at rest, memory per idle connection.
#
#   tests/figures/run.sh [CONNECTIONS]        default 10000, twice one after the other
#
# Needs Linux (/proc), Python 3 and cargo. SLOTCAST_BIN names a broker to measure instead of the one built here.
# The last line is "N passed, N failed". Exit status: 0 if no limit is exceeded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ -z ${SLOTCAST_BIN:-} ]]; then
    cargo build --release --quiet
    SLOTCAST_BIN=${CARGO_TARGET_DIR:-target}/release/slotcast
fi
exec python3 tests/figures/figures.py "$SLOTCAST_BIN" "${1:-10000}" </dev/null
