#!/usr/bin/env bash
# The real websocat against the real broker.
#
#   tests/websocat/run.sh [BROKER-FLAG...]
#
# Environment: SLOTCAST_BIN  the broker (target/release/slotcast)
#              WEBSOCAT      the websocat (.tools/bin/websocat)
#
# The last line is "N passed, N failed". Exit status: 0 if nothing failed.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
SLOTCAST_BIN=${SLOTCAST_BIN:-$root/target/release/slotcast}
WEBSOCAT=${WEBSOCAT:-$root/.tools/bin/websocat}
# shellcheck source=tests/broker.sh
source "$here/../broker.sh"

passed=0 failed=0 members=0
declare -A in=() out=() pid=() mark=()

main() {
    start_broker "$@"
    check a_line_reaches_everybody_in_the_channel_and_nobody_else
    check binary_stays_binary_and_byte_exact
    check text_stays_text
    check echo_0_keeps_my_own_messages_from_me
    check two_hundred_lines_keep_their_order
    check sigterm_ends_the_members_and_then_the_broker
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

# ------------------------------------------------------------------ tests

a_line_reaches_everybody_in_the_channel_and_nobody_else() {
    join ann /chat && join ben /chat && join eve /other &&
        meet ann ben && meet eve &&
        say ann 'a line' &&
        hears ann 'a line' && hears ben 'a line' &&
        say eve 'fence' && hears eve 'fence' &&
        heard eve 'fence' &&
        heard ann 'a line' &&
        heard ben 'a line'
}

binary_stays_binary_and_byte_exact() {
    local blob=$scratch/blob
    head -c 100000 /dev/urandom >"$blob"
    # kim sees frames as lines: T:text or B:base64
    join ann /blob --binary && join ben /blob --binary && join kim /blob --text --buffer-size 1000000 --base64 --binary-prefix B: --text-prefix T: &&
        mark[kim]=T: && meet ann ben kim &&
        timeout 20 cat "$blob" >&"${in[ann]}" &&
        wait_until 20 same "${out[ann]}" "$blob" && wait_until 20 same "${out[ben]}" "$blob" &&
        wait_until 20 kim_decoded "$blob" &&
        ! grep -v '^B:' "${out[kim]}"
}

kim_decoded() {
    sed 's/^B://' "${out[kim]}" | while IFS= read -r line; do base64 -d <<<"$line" || true; done >"$scratch/decoded" 2>/dev/null
    cmp -s "$scratch/decoded" "$1"
}

text_stays_text() {
    join ann /text && join kim /text --text --binary-prefix B: --text-prefix T: &&
        mark[kim]=T: && meet ann kim &&
        say ann 'Grüße, 世界 🎈  two spaces, a tab	and a \ backslash ' &&
        hears kim 'T:Grüße, 世界 🎈  two spaces, a tab	and a \ backslash '
}

echo_0_keeps_my_own_messages_from_me() {
    join ben /quiet && meet ben &&
        join ann '/quiet?echo=0' && say ann 'ann is here' && hears ben 'ann is here' &&
        say ann 'mine' && hears ben 'mine' &&
        say ben 'fence' && hears ann 'fence' && hears ben 'fence' &&
        heard ann 'fence' &&
        heard ben 'ann is here' 'mine' 'fence'
}

two_hundred_lines_keep_their_order() {
    join ann /order && join ben /order && meet ann ben &&
        seq -f 'line %g' 200 >"$scratch/lines" &&
        timeout 20 cat "$scratch/lines" >&"${in[ann]}" &&
        wait_until 20 same "${out[ben]}" "$scratch/lines" && wait_until 20 same "${out[ann]}" "$scratch/lines"
}

sigterm_ends_the_members_and_then_the_broker() {
    join ann /end --exit-on-eof && join ben /end --exit-on-eof && meet ann ben &&
        stop_broker &&
        wait_until 10 gone "${pid[ann]}" && wait_until 10 gone "${pid[ben]}"
}

# ------------------------------------------------------------------ members

# join NAME PATH [OPTION...]: a websocat with a pipe to speak into and a file of what it heard.
join() {
    local name=$1 path=$2 pipe file fd
    shift 2
    members=$((members + 1))
    pipe=$scratch/$members.in file=$scratch/$members.out
    mkfifo "$pipe"
    # open at both ends, so that neither side waits for the other, and websocat sees no end of input
    exec {fd}<>"$pipe"
    in[$name]=$fd out[$name]=$file mark[$name]=''
    spawn "$WEBSOCAT" "$@" "ws://127.0.0.1:$broker_port$path" <"$pipe" >>"$file" 2>"$scratch/$members.err"
    pid[$name]=$spawned
}

# meet NAME...: one after the other says that it is here, and hears so itself, as do those before it: then all
# of them are members, nothing is under way, and what was heard is forgotten.
meet() {
    local name other met=()
    for name; do
        say "$name" "$name is here"
        met+=("$name")
        for other in "${met[@]}"; do
            hears "$other" "${mark[$other]}$name is here" || return
        done
    done
    for name; do
        : >"${out[$name]}"
    done
}

say() { printf '%s\n' "$2" >&"${in[$1]}"; }

hears() {
    wait_until 10 grep -qxF -- "$2" "${out[$1]}" || {
        echo "  $1 did not hear '$2' but:"
        tail -n 5 "${out[$1]}" | cut -c 1-200 | sed 's/^/    /'
        return 1
    }
}

# heard NAME LINE...: these and nothing else.
heard() {
    local name=$1
    shift
    printf '%s\n' "$@" | diff - "${out[$name]}" || { echo "  $name heard other things than expected (<)"; return 1; }
}

same() { cmp -s "$1" "$2"; }

# ------------------------------------------------------------------ counting

check() {
    if "$1"; then
        passed=$((passed + 1))
        echo "ok     ${1//_/ }"
    else
        failed=$((failed + 1))
        echo "FAILED ${1//_/ }"
        tail -n 5 "$scratch"/*.err | grep -v '^$' | sed 's/^/    /' || true
    fi
    leave_all
}

leave_all() {
    local name fd
    for name in "${!pid[@]}"; do
        reap "${pid[$name]}"
        fd=${in[$name]}
        exec {fd}>&-
    done
    in=() out=() pid=() mark=()
    rm -f "$scratch"/*.in "$scratch"/*.out "$scratch"/*.err
}

main "$@"
