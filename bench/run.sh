#!/usr/bin/env bash
# Builds slotcast, the floor and the peers, and compares them, into bench/RESULTS.md.
#
#   bench/run.sh                `make bench` calls it
#
# Needs Linux (/proc), taskset and Python 3.
# Environment: QUICK          1: the floor and slotcast only, four loads, short; bench/RESULTS.md stays as it is
#              SLOTCAST_BIN   a slotcast to measure instead of the one built here
#              REPEATS, LOADS, SERVERS   see bench/compare.py
#
# Exit status: 0 if all of it ran.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

if [[ ! -d /proc/self || -z $(command -v taskset) || -z $(command -v python3) ]]; then
    echo "bench/run.sh: needs Linux (/proc), taskset and Python 3" >&2
    exit 1
fi
[[ -n ${SLOTCAST_BIN:-} ]] || cargo build --release --quiet --bin slotcast --example send_back
if [[ ${QUICK:-} == 1 ]]; then
    bash bench/peers/install.sh floor
else
    bash bench/peers/install.sh
fi
exec python3 bench/compare.py
