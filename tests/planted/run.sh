#!/usr/bin/env bash
# Plants each bug of tests/planted/ into a copy of the tree and requires that the test it names fails.
#
#   tests/planted/run.sh [NAME...]     all patches, or those whose names begin so
#
# Environment: SHARD           2/5: the second fifth of them
#              SLOTCAST_SEEDS  how many seeds the simulator may need to find each (3000)
#
# The last line is "N passed, N failed". Exit status: 0 if nothing failed.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD
export SLOTCAST_SEEDS=${SLOTCAST_SEEDS:-3000} CARGO_TERM_COLOR=never
export CARGO_TARGET_DIR=$root/target/planted
# It is built once for each bug, and nobody debugs it.
export CARGO_PROFILE_DEV_DEBUG=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

main() {
    local patch name number=0 part=${SHARD:-1/1}
    [[ $part =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] && ((BASH_REMATCH[1] <= BASH_REMATCH[2])) || {
        echo "SHARD is $part; it must be a part of a number of parts, such as 2/5" >&2
        exit 2
    }
    local shard=${BASH_REMATCH[1]} shards=${BASH_REMATCH[2]}
    (($#)) || set -- ''
    copy
    for patch in tests/planted/*.patch; do
        name=$(basename "$patch" .patch)
        ((number++ % shards == shard - 1)) || continue
        for wanted in "$@"; do
            [[ $name != "$wanted"* ]] || plant "$name" "$root/$patch"
        done
    done
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

copy() {
    mkdir "$scratch/tree"
    cp -R Cargo.toml Cargo.lock README.md docs src tests "$scratch/tree"
    [[ ! -d examples ]] || cp -R examples "$scratch/tree"
    [[ ! -d benches ]] || cp -R benches "$scratch/tree"
    [[ ! -d bench ]] || cp -R bench "$scratch/tree"
}

# plant NAME PATCH: the test that the patch names must fail, and not because it does not compile.
plant() {
    local test status=0 begun=$SECONDS log=$scratch/log target
    test=$(head -n 1 "$2")
    # The library's own tests have no name.
    case $test in
        lib) target=(--lib) ;;
        outside/*) target=(--manifest-path tests/outside/Cargo.toml --test "${test#outside/}") ;;
        *) target=(--test "$test") ;;
    esac
    # A reversed patch leaves files that look older than what was built from them.
    (cd "$scratch/tree" && git apply "$2") || { verdict FAILED "$1" 'does not apply'; return; }
    (
        cd "$scratch/tree"
        find src -name '*.rs' -exec touch {} +
        cargo test -q "${target[@]}" --no-run
    ) >"$log" 2>&1 || status=1
    if ((status)); then
        verdict FAILED "$1" 'does not compile'
        sed 's/^/    /' "$log"
    else
        (cd "$scratch/tree" && timeout 300 cargo test -q "${target[@]}") >"$log" 2>&1 || status=$?
        case $status in
            0) verdict FAILED "$1" "not noticed by $test" ;;
            124) verdict FAILED "$1" "$test neither fails nor ends in 5 minutes" $((SECONDS - begun)) ;;
            *) verdict passed "$1" "$(cause)" $((SECONDS - begun)) ;;
        esac
    fi
    (cd "$scratch/tree" && git apply -R "$2")
}

# The first message of a panic.
cause() {
    awk '/panicked at/ { getline; print substr($0, 1, 70); exit }' "$log"
}

verdict() {
    [[ $1 == passed ]] && passed=$((passed + 1)) || failed=$((failed + 1))
    printf '%-6s  %-40s  %3s s  %s\n' "$1" "$2" "${4:--}" "$3"
}

main "$@"
