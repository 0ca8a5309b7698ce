#!/usr/bin/env bash
# What attacks do to those who are quiet, see README.md beside this file.
#
#   tests/silence/run.sh [NAME]... [--sizes=1,64,500,2000] [--runs=5] [--turn-ms=N]
#
# Needs Linux (/proc) and cargo, and 5,000 descriptors.
# Environment: QUICK  1: one run with 64 and 500 attackers
#
# The last line is "N passed, N failed". Exit status: 0 if none failed.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cargo build --release --quiet --example besieged --example silence
exec "${CARGO_TARGET_DIR:-target}/release/examples/silence" "$@"
