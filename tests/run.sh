#!/usr/bin/env bash
# Runs the tests, and first installs whatever they need.
#
#   tests/run.sh [SUITE...]     rust lint planted bench-check autobahn browser examples clients proxies websocat docs
#
# Without arguments: all of them (lint and planted only with CI=true). What cannot be installed is skipped, loudly;
# with CI=true a skipped suite counts as failed. Tools go to .tools/, which git ignores.
#
# Environment: CI            true: skipped is failed, and lint and planted run too
#              WEBSOCAT      a websocat to use instead of the pinned one
#              CHROMIUM      a browser to use instead of the one found
#              SLOTCAST_BIN  a broker to test instead of the one built here
#              AUTOBAHN      all: also the long cases of compression
#
# The last line is "N passed, N failed", and above it each failure is told once more, in a few lines: of a long output
# often only the end is kept. Exit status: 0 if nothing failed.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

websocat_version=1.14.1
# Of compression the short ones, unless it is all that is asked for: the long ones take minutes.
autobahn_quick=(--exclude '12.*.[789],12.*.1[0-8],13.*.[789],13.*.1[0-8]')
autobahn_flags=(--max-message 16MiB --max-outbound 128MiB --max-fragments 65536 --max-control-rate 100000 --compress-min 0)
clients_flags=(--history-messages 1000 --history-bytes 8MiB --client-takeover 4)

cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
tools=$root/.tools
[[ ${CI:-} == true ]] && ci=true || ci=false
export SLOTCAST_BIN=${SLOTCAST_BIN:-}
export CARGO_TERM_COLOR=never
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/sbin
# shellcheck source=tests/broker.sh
source tests/broker.sh

known='rust lint planted bench-check autobahn browser examples clients proxies websocat docs'
rows=() skips=()
total_passed=0 total_failed=0 total_skipped=0
failures=$scratch/failures
: >"$failures"

main() {
    local suite suites=("$@")
    if ((${#suites[@]} == 0)); then
        suites=(rust)
        ! $ci || suites+=(lint planted)
        suites+=(bench-check autobahn browser examples clients proxies websocat docs) # websocat is being installed meanwhile
    fi
    command -v cargo >/dev/null || usage 'cargo is missing; install Rust from https://rustup.rs'
    for suite in "${suites[@]}"; do
        [[ " $known " == *" $suite "* ]] || usage "there is no suite '$suite'; there are: $known"
    done
    ((${#suites[@]} < 6)) || echo 'All of it takes about 12 minutes on two quiet cores, 40 on busy ones, and longer the first time.'
    mkdir -p "$tools"
    local built=''
    for suite in "${suites[@]}"; do
        if [[ ! $suite =~ ^(rust|lint|planted|bench-check|examples)$ && -z $built ]]; then
            build_release && built=yes || built=no
            [[ $built == no || ! " ${suites[*]} " =~ ' '(websocat|docs)' ' ]] || start_websocat_install
        fi
        echo "== $suite"
        if [[ $built == no && ! $suite =~ ^(bench-check|examples)$ ]]; then
            row "$suite (no release binary)" 0 1 0 0
        else
            "suite_$suite"
        fi
    done
    report
}

usage() {
    echo "tests/run.sh: $1" >&2
    exit 2
}

# ------------------------------------------------------------------ suites

# One row for each test binary and one for the documentation tests.
suite_rust() {
    rust_tests cargo test --no-fail-fast
    # A crate of its own, which reaches only what is public; the examples are built in it too.
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/outside rust_tests \
        cargo test --no-fail-fast --manifest-path tests/outside/Cargo.toml
    # The examples in the documentation of the module that the feature adds; the crate above tests what it does.
    rust_tests cargo test --no-fail-fast --doc --no-default-features --features testing testing
}

rust_tests() {
    local log=$scratch/cargo-test.log status=0 counted=$scratch/cargo-test.rows
    run_logged "$log" 1800 rust_progress "$@" || status=$?
    count_rust "$log" >"$counted"
    rust_failures "$log" >>"$failures"
    local name passed failed skipped seconds any_failed=0
    while IFS=$'\t' read -r name passed failed skipped seconds; do
        row "$name" "$passed" "$failed" "$skipped" "$seconds"
        any_failed=$((any_failed + failed))
    done <"$counted"
    if ((status == 124)); then
        echo "FAILED rust: not finished after 30 minutes"
        last_lines 'rust: not finished after 30 minutes' "$log" >>"$failures"
    fi
    if ((status != 0)); then
        grep -v '\.\.\. ok$' "$log" | sed 's/^/    /'
        if ((any_failed == 0)); then
            first_error 'rust build' "$log" >>"$failures"
            row 'rust build' 0 1 0 0
        fi
    fi
}

# Lines of cargo's output → name, passed, failed, ignored, seconds. A binary that printed no result died.
count_rust() {
    awk '
        function flush() {
            if (name == "") return
            if (!results) failed++
            printf "%s\t%d\t%d\t%d\t%.1f\n", name, passed, failed, ignored, seconds
            name = ""
        }
        function begin(what) { flush(); name = what; passed = failed = ignored = seconds = results = 0 }
        /^ +Running / {
            what = $2 == "unittests" ? "unit " $3 : $2
            sub(/\.rs$/, "", what); sub(/^tests\//, "", what)
            begin("rust " what)
        }
        /^ +Doc-tests / { begin("rust doc") }
        /^test result: / {
            results++
            for (i = 1; i < NF; i++) {
                if ($(i + 1) == "passed;") passed += $i
                if ($(i + 1) == "failed;") failed += $i
                if ($(i + 1) == "ignored;") ignored += $i
                if ($i == "in") seconds += $(i + 1)
            }
        }
        END { flush() }
    ' "$1"
}

rust_progress() {
    awk '
        /^ +(Running|Doc-tests) / { sub(/^ +/, "  "); sub(/ \(.*/, ""); print; fflush() }
        /^test result: / { print "    " $0; fflush() }
        /has been running for over/ || /FAILED$/ || /^error/ || /^warning: unused/ { print "    " $0; fflush() }
        /^ +Compiling / { if (++compiled % 25 == 0) { print "  compiled " compiled " crates"; fflush() } }
    '
}

suite_lint() {
    local began=$SECONDS passed=0 failed=0
    if ! cargo clippy --version >/dev/null 2>&1 || ! cargo fmt --version >/dev/null 2>&1; then
        skip lint 'no clippy or rustfmt; rustup component add clippy rustfmt'
        return
    fi
    lint_step cargo fmt --check
    lint_step cargo clippy --all-targets -- -D warnings
    lint_step cargo clippy --all-targets --no-default-features -- -D warnings
    # What others build: without what only the tests reach.
    lint_step cargo clippy --lib --bins -- -D warnings
    lint_step cargo clippy --lib --no-default-features -- -D warnings
    lint_step cargo clippy --lib --no-default-features --features testing -- -D warnings
    lint_step cargo clippy --all-targets --all-features -- -D warnings
    lint_step env RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps
    lint_step env RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --no-default-features --features testing
    local oldest
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    if rustup run "$oldest" rustc --version >/dev/null 2>&1 || rustup toolchain install "$oldest" --profile minimal >/dev/null 2>&1; then
        lint_step env CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/oldest" rustup run "$oldest" cargo check --bins --lib --features testing
    else
        echo "  not checked: whether Rust $oldest builds it, which rustup could not install"
    fi
    row lint "$passed" "$failed" 0 $((SECONDS - began))
}

lint_step() {
    echo "  $*"
    if run_logged "$scratch/lint.log" 900 quiet "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        sed 's/^/    /' "$scratch/lint.log"
        first_error "lint: $*" "$scratch/lint.log" >>"$failures"
    fi
}

# A few of the bugs that are planted, others for each commit; `make planted` has them all.
suite_planted() {
    local began=$SECONDS commits
    commits=$(git rev-list --count HEAD 2>/dev/null) || commits=0
    SHARD=$((commits % 40 + 1))/40 run_counted planted "$began" 900 indented bash tests/planted/run.sh
}

# Instructions, and not time: what else the machine does makes no difference.
suite_bench-check() {
    local began=$SECONDS
    if ! have_or_install valgrind valgrind || ! have_or_install python3 python3; then
        skip bench-check 'no valgrind or Python 3'
        return
    fi
    run_counted bench-check "$began" 1500 indented python3 bench/instructions.py
}

suite_websocat() {
    local began=$SECONDS
    if ! websocat_ready; then
        skip websocat "could not install websocat $websocat_version"
        return
    fi
    run_counted websocat "$began" 300 indented bash tests/websocat/run.sh
    began=$SECONDS
    if have_or_install curl curl && page_ready; then
        run_counted 'all kinds at once' "$began" 200 indented node tests/browser/kinds.mjs
    else
        skip 'all kinds at once' 'no curl, node, npm or chromium'
    fi
}

suite_autobahn() {
    local began=$SECONDS python cases autobahn_cases=()
    [[ ${AUTOBAHN:-} == all ]] || autobahn_cases=("${autobahn_quick[@]}")
    if ! python=$(python_with_venv); then
        skip autobahn 'no Python 3.11 or newer with venv'
        return
    fi
    export AUTOBAHN_VENV=$tools/autobahn-venv AUTOBAHN_PYTHON=$python
    if ! bash tests/autobahn/run-autobahn.sh ws://unused --list "${autobahn_cases[@]}" >"$scratch/cases" 2>"$scratch/venv.log"; then
        sed 's/^/    /' "$scratch/venv.log"
        skip autobahn 'could not make its Python environment'
        return
    fi
    cases=$(wc -l <"$scratch/cases")
    if ! start_broker "${autobahn_flags[@]}"; then
        row autobahn 0 1 0 $((SECONDS - began))
        return
    fi
    export AUTOBAHN_CASES=$cases
    run_counted autobahn "$began" 1500 autobahn_progress \
        bash tests/autobahn/run-autobahn.sh "ws://127.0.0.1:$broker_port/autobahn" --strict -v \
        --outdir "$tools/autobahn-results" --max-seconds 1400 "${autobahn_cases[@]}"
    stop_broker || row 'autobahn: broker ends' 0 1 0 0
}

# A line every 25 cases, every case that is not as it should be, and all of the final table.
autobahn_progress() {
    awk -v all="$AUTOBAHN_CASES" '
        / ms$/ && $1 ~ /^[0-9.]+$/ {
            n++
            if ($2 !~ /^(OK|INFORMATIONAL)$/ || $3 !~ /^(OK|INFORMATIONAL)$/) print "    " $0
            if (n % 25 == 0) print "  " n " of " all " cases"
            fflush()
            next
        }
        { print "    " $0; fflush() }
    '
}

suite_browser() {
    local began=$SECONDS
    if [[ ! -f tests/browser/page.mjs ]]; then
        skip browser 'tests/browser/page.mjs does not exist'
    elif ! page_ready; then
        skip browser 'no node, npm or chromium, or npm ci failed'
    else
        run_counted browser "$began" 600 indented node tests/browser/page.mjs
        began=$SECONDS
        run_counted 'browser followers' "$began" 300 indented node tests/browser/followers.mjs
        began=$SECONDS
        run_counted 'browser module' "$began" 300 indented node tests/browser/module.mjs
        began=$SECONDS
        run_counted 'browser cookies' "$began" 100 indented node tests/browser/cookies.mjs
        began=$SECONDS
        run_counted 'browser, refused' "$began" 900 indented node tests/browser/refused.mjs
    fi
}

# The examples as `cargo run --example` has them: the debug build.
suite_examples() {
    local began=$SECONDS
    if ! page_ready || ! node_modules_ready tests/clients; then
        skip examples 'no node, npm or chromium, or npm ci failed'
    elif ! run_logged "$scratch/examples-build.log" 900 rust_progress cargo build --examples; then
        sed 's/^/    /' "$scratch/examples-build.log"
        first_error 'examples (not built)' "$scratch/examples-build.log" >>"$failures"
        row 'examples (not built)' 0 1 0 $((SECONDS - began))
    else
        export EXAMPLES=${CARGO_TARGET_DIR:-$root/target}/debug/examples
        run_counted examples "$began" 600 indented node tests/browser/examples.mjs
    fi
}

# What it takes to drive pages.
page_ready() {
    have_or_install node nodejs && have_or_install npm npm && find_chromium && node_modules_ready tests/browser && export CHROMIUM
}

suite_clients() {
    local began=$SECONDS python
    if ! python=$(python_with_venv); then
        skip clients 'no Python 3.11 or newer with venv'
        return
    fi
    if ! clients_venv_ready "$python"; then
        skip clients 'could not make its Python environment'
        return
    fi
    if ! start_broker "${clients_flags[@]}"; then
        row clients 0 1 0 $((SECONDS - began))
        return
    fi
    run_counted 'clients python' "$began" 200 indented \
        "$tools/clients-venv/bin/python" tests/clients/clients.py "http://127.0.0.1:$broker_port"
    began=$SECONDS
    if ! have_or_install node nodejs || ! have_or_install npm npm; then
        skip 'clients node' 'no node or npm'
    elif ! node_modules_ready tests/clients; then
        skip 'clients node' 'npm ci failed'
    else
        run_counted 'clients node' "$began" 200 indented node tests/clients/clients.mjs "http://127.0.0.1:$broker_port"
        began=$SECONDS
        run_counted 'clients node, compressed' "$began" 400 indented \
            node tests/clients/deflate.mjs "http://127.0.0.1:$broker_port"
        began=$SECONDS
        run_counted 'clients of other protocols' "$began" 200 indented \
            node tests/clients/foreign.mjs "http://127.0.0.1:$broker_port" "$broker_log"
        began=$SECONDS
        run_counted 'clients node, resuming' "$began" 90 indented \
            node tests/clients/resume.mjs "http://127.0.0.1:$broker_port"
        began=$SECONDS
        run_counted 'clients node, refused' "$began" 900 indented \
            node tests/clients/refused.mjs "http://127.0.0.1:$broker_port"
        began=$SECONDS
        run_counted 'clients node, jose' "$began" 120 indented node tests/clients/jwks.mjs "$SLOTCAST_BIN"
    fi
    began=$SECONDS
    run_counted 'clients python, streams' "$began" 200 indented \
        "$tools/clients-venv/bin/python" tests/clients/streams.py "http://127.0.0.1:$broker_port"
    began=$SECONDS
    run_counted 'clients python, refused' "$began" 900 indented \
        "$tools/clients-venv/bin/python" tests/clients/refused.py "http://127.0.0.1:$broker_port"
    began=$SECONDS
    run_counted 'clients python, compressed' "$began" 200 indented \
        "$tools/clients-venv/bin/python" tests/clients/deflate.py "http://127.0.0.1:$broker_port"
    stop_broker || row 'clients: broker ends' 0 1 0 0
}

# Configured with the snippets of the documentation.
suite_proxies() {
    local began=$SECONDS python proxy found=()
    if ! python=$(python_with_venv) || ! clients_venv_ready "$python"; then
        skip proxies 'no Python 3.11 or newer with venv, or could not make its environment'
        return
    fi
    for proxy in nginx caddy haproxy; do
        if have_or_install "$proxy" "$proxy"; then
            found+=("$proxy")
        else
            skip "proxies: $proxy" "no $proxy"
        fi
    done
    ((${#found[@]} == 0)) || run_counted proxies "$began" 300 indented \
        "$tools/clients-venv/bin/python" tests/proxies/proxies.py "$SLOTCAST_BIN" "${found[@]}"
}

# The commands and programs of the documents, as they stand there.
suite_docs() {
    local began=$SECONDS
    if ! websocat_ready; then
        skip docs "could not install websocat $websocat_version"
    elif ! have_or_install curl curl || ! have_or_install systemd-analyze systemd || ! page_ready; then
        skip docs 'no curl, systemd-analyze, node, npm or chromium, or npm ci failed'
    else
        run_counted docs "$began" 600 indented node tests/docs/run.mjs
    fi
}

# ------------------------------------------------------------------ set-up

build_release() {
    [[ -z $SLOTCAST_BIN ]] || return 0
    SLOTCAST_BIN=${CARGO_TARGET_DIR:-$root/target}/release/slotcast
    echo '== release binary'
    run_logged "$scratch/release.log" 1200 rust_progress cargo build --release && return
    sed 's/^/    /' "$scratch/release.log"
    first_error 'release binary' "$scratch/release.log" >>"$failures"
    return 1
}

websocat_install=''
start_websocat_install() {
    [[ -z ${WEBSOCAT:-} ]] && ! websocat_installed || return 0
    echo "  installing websocat $websocat_version in the background"
    # no TLS: nothing here needs it, and it would need OpenSSL's headers
    CARGO_TARGET_DIR=$tools/websocat-build spawn nice cargo install --locked --root "$tools" --version "$websocat_version" \
        --no-default-features --features unix_stdio,signal_handler websocat >"$scratch/websocat.log" 2>&1
    websocat_install=$spawned
}

websocat_ready() {
    [[ -z ${WEBSOCAT:-} ]] || return 0
    if [[ -n $websocat_install ]]; then
        if ! wait_for 900 "$websocat_install" 'installing websocat'; then
            reap "$websocat_install"
            tail -n 30 "$scratch/websocat.log" | sed 's/^/    /'
        fi
        rm -rf "$tools/websocat-build"
    fi
    export WEBSOCAT=$tools/bin/websocat
    websocat_installed
}

websocat_installed() {
    "$tools/bin/websocat" --version 2>/dev/null | grep -qx "websocat $websocat_version"
}

python_with_venv() {
    local python
    for python in ${AUTOBAHN_PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv || continue
            echo "$python"
            return
        fi
    done
    return 1
}

clients_venv_ready() {
    local venv=$tools/clients-venv pins=tests/clients/pins.txt
    ! cmp -s "$pins" "$venv/pins.txt" || return 0
    echo '  making the Python environment of clients'
    run_logged "$scratch/clients-venv.log" 300 quiet make_venv "$1" "$venv" "$pins" && return
    tail -n 15 "$scratch/clients-venv.log" | sed 's/^/    /'
    return 1
}

# make_venv PYTHON VENV PINS
make_venv() {
    # --no-deps: the pins name everything
    rm -rf "$2" &&
        "$1" -m venv "$2" &&
        PIP_DISABLE_PIP_VERSION_CHECK=1 "$2/bin/python" -m pip install --quiet --no-deps -r "$3" &&
        cp "$3" "$2/pins.txt"
}

find_chromium() {
    local name
    for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable; do
        [[ -n $name ]] && CHROMIUM=$(command -v "$name") && return
    done
    apt_install chromium && CHROMIUM=$(command -v chromium)
}

have_or_install() {
    command -v "$1" >/dev/null || { apt_install "$2" && command -v "$1" >/dev/null; }
}

apt_install() {
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 1
    echo "  installing $1" >&2
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && without_services apt-get install -y "$1"; } >"$scratch/apt.log" 2>&1 && return
    tail -n 15 "$scratch/apt.log" | sed 's/^/    /' >&2
    return 1
}

# A server that is installed for a test is not to be started by its package.
without_services() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    "$@" || status=$?
    rm -f "$policy"
    return "$status"
}

node_modules_ready() {
    local here=$1
    [[ -f $here/package-lock.json ]] || return 0
    [[ $here/node_modules/.package-lock.json -nt $here/package-lock.json ]] && return
    # npm would empty the folder that a link leads to.
    [[ ! -L $here/node_modules ]] || rm "$here/node_modules"
    echo '  npm ci'
    PUPPETEER_SKIP_DOWNLOAD=1 PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 \
        run_logged "$scratch/npm.log" 300 quiet npm ci --prefix "$here" --no-audit --no-fund && return
    tail -n 30 "$scratch/npm.log" | sed 's/^/    /'
    return 1
}

# ------------------------------------------------------------------ running and counting

# run_logged LOG SECONDS FILTER COMMAND...: all output to LOG, and through FILTER to the terminal. The
# command's exit status, or 124 when it was ended after SECONDS.
run_logged() {
    local log=$1 limit=$2 filter=$3 status=0
    shift 3
    spawn through "$log" "$filter" "$@"
    local command=$spawned
    wait_for "$limit" "$command" "$*" || status=$?
    reap "$command"
    return "$status"
}

through() {
    local log=$1 filter=$2
    shift 2
    set +e
    "$@" 2>&1 | tee "$log" | "$filter"
    exit "${PIPESTATUS[0]}"
}

# wait_for SECONDS PID WHAT: the exit status of PID, or 124; a line every minute.
wait_for() {
    local began=$SECONDS next=60
    while kill -0 "$2" 2>/dev/null; do
        ((SECONDS - began < $1)) || return 124
        if ((SECONDS - began >= next)); then
            echo "  ... $3: $((SECONDS - began)) s"
            next=$((next + 60))
        fi
        sleep 0.1
    done
    wait "$2"
}

quiet() { cat >/dev/null; }
indented() { sed -u 's/^/    /'; }

# run_counted SUITE BEGAN SECONDS FILTER COMMAND...: a row from the command's last "N passed, N failed".
run_counted() {
    local suite=$1 began=$2 limit=$3 filter=$4 log=$scratch/$1.log status=0 passed=0 failed=0 skipped=0
    shift 4
    run_logged "$log" "$limit" "$filter" "$@" || status=$?
    if [[ $(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)? ]]; then
        passed=${BASH_REMATCH[1]} failed=${BASH_REMATCH[2]} skipped=${BASH_REMATCH[4]:-0}
    fi
    suite_failures "$suite" "$log" >>"$failures"
    ((status != 124)) || echo "FAILED $suite: not finished after $limit s"
    # a suite that breaks, or that says nothing, has failed, whatever it counted
    if ((status != 0 || passed == 0)) && ((failed == 0)); then
        echo "FAILED $suite: exit status $status"
        failed=1
    fi
    if ((failed > 0)) && ! is_told "$suite"; then
        last_lines "$suite: exit status $status" "$log" >>"$failures"
    fi
    row "$suite" "$passed" "$failed" "$skipped" $((SECONDS - began))
}

row() {
    rows+=("$(printf '%-40s %8s %8s %8s %9s' "$@")")
    total_passed=$((total_passed + $2)) total_failed=$((total_failed + $3)) total_skipped=$((total_skipped + $4))
    (($3 == 0)) || is_told "$1" || echo "FAILED $1" >>"$failures"
}

skip() {
    skips+=("SKIPPED $1: $2")
    echo "${skips[-1]}"
    if $ci; then
        echo "FAILED $1 (skipped): $2" >>"$failures"
        row "$1 (skipped)" 0 1 0 0
    else
        row "$1 (skipped)" 0 0 1 0
    fi
}

# ------------------------------------------------------------------ failures, once more at the end

# Each failure is a line "FAILED SUITE: TEST" and up to 11 indented ones. They are read from the logs.
is_told() { awk -v suite="FAILED $1" '$0 == suite || index($0, suite ":") == 1 { told = 1 } END { exit !told }' "$failures"; }

# cargo's output: each test that failed, without the backtrace, and each binary that died.
rust_failures() {
    awk '
        function tell(line) { if (lines < 11) { print "    " substr(line, 1, 300); lines++ } }
        function end() { is_one = is_trace = 0 }
        # A binary that began and printed no result.
        function died() { if (suite != "" && !results) { print "FAILED " suite ": it died"; for (i = 1; i <= kept; i++) print last[i] } }
        function begin(what) { end(); died(); suite = what; results = kept = 0 }
        /^ +Running / {
            what = $2 == "unittests" ? "unit " $3 : $2
            sub(/\.rs$/, "", what); sub(/^tests\//, "", what)
            begin("rust " what)
            next
        }
        /^ +Doc-tests / { begin("rust doc"); next }
        /^test result: / { results++; end(); next }
        /^---- .* ----$/ { end(); sub(/^---- /, ""); sub(/ stdout ----$/, ""); print "FAILED " suite ": " $0; is_one = 1; lines = 0; next }
        /^failures:$/ { end() }
        is_one && /^stack backtrace:/ { is_trace = 1 }
        is_one && is_trace && /^[^ ]/ && !/^stack backtrace:/ { is_trace = 0 }
        is_one && NF && !is_trace && !/^note: / { tell($0) }
        !is_one && NF && !/ \.\.\. ok$/ {
            if (kept == 11) for (i = 1; i < kept; i++) last[i] = last[i + 1]; else kept++
            last[kept] = "    " substr($0, 1, 300)
        }
        END { died() }
    ' "$1"
}

# The output of every other suite: lines that begin with FAIL or FAILED, or that say so of a figure or of a case of
# Autobahn, with what follows each until the next test.
suite_failures() {
    awk -v suite="$1" '
        /^[0-9]+ passed, [0-9]+ failed/ || /^(ok|skip|passed|SKIPPED)[ :]/ { is_one = 0; next }
        /^FAIL(ED)?[: ]/ || / FAILED: / || / behavior=[A-Z -]+ close=/ {
            is_one = 1; lines = 0
            line = $0
            sub(/^FAIL(ED)?[: ]+/, "", line); sub(/^ +/, "", line)
            print "FAILED " suite ": " substr(line, 1, 300)
            next
        }
        is_one && NF && lines < 11 { print "    " substr($0, 1, 300); lines++ }
    ' "$2"
}

# first_error WHAT LOG: what a compiler, a lint or rustfmt complains about first.
first_error() {
    echo "FAILED $1"
    awk '/^(error|warning|Diff in)/ { found = 1 } found && NF && lines < 11 { print "    " substr($0, 1, 300); lines++ }' "$2"
}

# last_lines WHAT LOG: where the log ends, if it does not say what has failed.
last_lines() {
    echo "FAILED $1"
    awk 'NF { print "    " substr($0, 1, 300) }' "$2" | tail -n 11
}

# The first of them, so that the end of the output stays short.
report_failures() {
    [[ -s $failures ]] || return 0
    awk '/^FAILED / { if (++told > 25) next } told <= 25 { print } END { if (told > 25) print "... and " told - 25 " more" }' "$failures"
}

report() {
    echo
    printf '%-40s %8s %8s %8s %9s\n' suite passed failed skipped seconds
    printf '%s\n' "${rows[@]}" '' "${skips[@]}"
    report_failures
    if ((total_skipped > 0)); then
        echo "$total_passed passed, $total_failed failed, $total_skipped skipped"
    else
        echo "$total_passed passed, $total_failed failed"
    fi
    ((total_failed == 0))
}

main "$@"
