#!/usr/bin/env bash
# Peers whose network is gone while messages flow, in networks of the test's own.
#
#   unshare -n tests/ghosts.sh SLOTCAST
#
# The broker is here, its followers in a second network; then their address vanishes. The broker is to notice, long before the
# system gives the connections up, which takes it a quarter of an hour. Exit status: 0 if it has.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }

base=http://10.98.76.1:8080
children=()
trap 'kill "${children[@]}" 2>/dev/null || true' EXIT

# until_received_by COUNT SECONDS APART: publishes, APART seconds apart, until that many receive it.
until_received_by() {
    local deadline=$((SECONDS + $2)) told=''
    until [[ $told == *"\"receivers\":$1}"* ]]; do
        ((SECONDS < deadline)) || { echo "not received by $1 after $2 s: $told"; exit 1; }
        told=$(curl -s -d 'a message' "$base/ghosts") || true
        sleep "$3"
    done
}

timeout 200 unshare -n sleep 200 &
children+=($!)
# The one that `timeout` runs is in the other network as soon as it is not in this one.
until there=$(pgrep -P "${children[0]}") && [[ $(readlink "/proc/$there/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do
    sleep 0.02
done
ip link set lo up
ip link add here type veth peer name there netns "$there"
ip addr add 10.98.76.1/30 dev here
ip link set here up
nsenter -t "$there" -n ip addr add 10.98.76.2/30 dev there
nsenter -t "$there" -n ip link set there up

timeout 200 "$1" --listen 10.98.76.1:8080 --host 10.98.76.1 --write-timeout 2s --ping-interval 1s --pong-timeout 1s &
children+=($!)
until_received_by 0 30 0.05
for accept in text/event-stream application/x-ndjson; do
    timeout 200 nsenter -t "$there" -n curl -sN -H "Accept: $accept" "$base/ghosts" >/dev/null &
    children+=($!)
done
until_received_by 2 30 0.05
nsenter -t "$there" -n ip addr flush dev there
# It takes 2 s and a beat; the rest is for a slow machine. No more is published than fits the kernel's buffer: past that it would
# be noticed anyway.
until_received_by 0 60 0.5
echo "gone after $SECONDS s in all"
