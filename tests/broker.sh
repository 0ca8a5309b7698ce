# shellcheck shell=bash
# For sourcing: starts and stops children that are certain to end with the script.
#
#   spawn COMMAND...         in the background, in a process group of its own; sets $spawned
#   reap PID                 ends such a group and forgets it
#   start_broker [FLAG...]   runs $SLOTCAST_BIN on a free port; sets $broker, $broker_port, $broker_log
#   stop_broker              SIGTERM; true if it drained and exited with 0 in time
#   wait_until SECONDS COMMAND...   polls a condition until it holds or the time is over

exec </dev/null
children=()
spawned=''
broker='' broker_port='' broker_log=''
scratch=$(mktemp -d "${TMPDIR:-/tmp}/slotcast-test.XXXXXX")
trap 'end_children; rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

spawn() {
    set -m
    "$@" &
    spawned=$!
    set +m
    children+=("$spawned")
}

end_children() {
    local pid
    for pid in "${children[@]}"; do
        kill -TERM -- "-$pid" 2>/dev/null || true
    done
    for pid in "${children[@]}"; do
        wait_until 15 gone "$pid" || kill -KILL -- "-$pid" 2>/dev/null || true
    done
    children=()
}

reap() {
    local pid rest=()
    kill -TERM -- "-$1" 2>/dev/null || true
    wait_until 15 gone "$1" || kill -KILL -- "-$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
    for pid in "${children[@]}"; do
        [[ $pid == "$1" ]] || rest+=("$pid")
    done
    children=("${rest[@]}")
}

gone() {
    ! kill -0 -- "-$1" 2>/dev/null
}

wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS <= deadline)) || return 1
        sleep 0.02
    done
}

start_broker() {
    broker_log=$scratch/broker-$RANDOM.log
    : >"$broker_log"
    spawn "$SLOTCAST_BIN" --listen 127.0.0.1:0 "$@" 2>"$broker_log"
    broker=$spawned
    if ! wait_until 10 broker_listens_or_ended || [[ -z $broker_port ]]; then
        echo "the broker does not listen; it said:" >&2
        cat "$broker_log" >&2
        return 1
    fi
}

broker_listens_or_ended() {
    broker_port=$(sed -n 's|.*listening on http://[^ ]*:\([0-9][0-9]*\).*|\1|p' "$broker_log" | sed 1q)
    [[ -n $broker_port ]] || gone "$broker"
}

stop_broker() {
    local status=0
    kill -TERM "$broker" 2>/dev/null || true
    wait_until 15 gone "$broker" || { echo "the broker did not end within 15 s of SIGTERM" >&2; status=1; }
    if ((status == 0)); then
        wait "$broker" || status=$?
        ((status == 0)) || { echo "the broker exited with $status; it said:" >&2; tail -n 20 "$broker_log" >&2; }
    fi
    reap "$broker"
    broker=''
    return "$status"
}
