#!/usr/bin/env bash
# Runs each fuzz target for a while with libFuzzer.
#
#   fuzz/run.sh [TARGET...]      all targets, or those
#
# Needs a nightly toolchain (rustup toolchain install nightly) and a C++ compiler; cargo-fuzz is installed into .tools.
# Environment: SECONDS_EACH  how long each runs (60)
#
# Exit status: 0 if nothing was found. What was found is in fuzz/artifacts, and a line says how to run it again.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! rustup run nightly rustc --version >/dev/null 2>&1; then
    echo 'fuzz/run.sh: no nightly Rust; rustup toolchain install nightly --profile minimal' >&2
    exit 2
fi
[[ -x .tools/bin/cargo-fuzz ]] || cargo install --quiet --locked --root .tools cargo-fuzz
PATH=$PWD/.tools/bin:$PATH
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)
found=0
for target in "${targets[@]}"; do
    echo "== $target"
    cargo +nightly fuzz run "$target" -- -max_total_time="${SECONDS_EACH:-60}" -max_len=4096 -verbosity=0 -print_final_stats=1 || found=1
done
exit "$found"
