#!/usr/bin/env bash
# `make bench`: builds slotcast, the floor and the peers, and compares them; compare.py says what the environment may say.
#
# Environment: QUICK=1         the floor and slotcast only, four loads, short
#              SLOTCAST_BIN    a slotcast to measure instead of the one built here
set -euo pipefail
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
