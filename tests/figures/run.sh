#!/usr/bin/env bash
# The broker's figures against their limits: a crate that embeds it, system calls of a burst, memory of channels, a herd
# that comes back, held polls, publishing by POST beside nginx with nchan, what peers can make it hold beside its budgets,
# when readers of a stream have a message, compression, size, start, memory at rest and per connection.
#
#   tests/figures/run.sh [CONNECTIONS]     how many connections (10000), twice one after the other
#
# Needs Linux (/proc), Python 3 and cargo.
# Environment: SLOTCAST_BIN  a broker to measure instead of the one built here
# The system calls are counted where strace is there and may attach; where not, a line says so.
# Each part ends in a line "N passed, N failed". Exit status: 0 if no limit is exceeded.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [[ -z ${SLOTCAST_BIN:-} ]]; then
    cargo build --release --quiet
    SLOTCAST_BIN=${CARGO_TARGET_DIR:-target}/release/slotcast
fi
cargo build --release --quiet --example crowd
crowd=${CARGO_TARGET_DIR:-target}/release/examples/crowd
status=0
python3 tests/figures/outside.py </dev/null || status=1
python3 tests/figures/syscalls.py "$SLOTCAST_BIN" </dev/null || status=1
python3 tests/figures/channels.py "$SLOTCAST_BIN" </dev/null || status=1
python3 tests/figures/rejoin.py "$SLOTCAST_BIN" "$crowd" </dev/null || status=1
python3 tests/figures/polls.py "$SLOTCAST_BIN" "$crowd" </dev/null || status=1
python3 tests/figures/posting.py "$SLOTCAST_BIN" </dev/null || status=1
python3 tests/figures/budgets.py "$SLOTCAST_BIN" </dev/null || status=1
readers=.tools/clients-venv/bin/python
[[ -x $readers ]] || readers=python3
"$readers" tests/figures/streams.py "$SLOTCAST_BIN" </dev/null || status=1
python3 tests/figures/compression.py "$SLOTCAST_BIN" </dev/null || status=1
cargo build --release --quiet --example own_loop
python3 tests/figures/own_loop.py "${CARGO_TARGET_DIR:-target}/release/examples/own_loop" </dev/null || status=1
python3 tests/figures/figures.py "$SLOTCAST_BIN" "${1:-10000}" </dev/null || status=1
exit "$status"
