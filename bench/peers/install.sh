#!/usr/bin/env bash
# Builds the floor and installs the peers that slotcast is compared with: into target/peers and .tools/peers, which git
# ignores. What cannot be installed is skipped, loudly, and `make bench` does without it; only the floor is a must.
#
#   bench/peers/install.sh [NAME...]     floor tokio-tungstenite fastwebsockets ws-rs node python nchan; default: all
#
# Everything has a pinned version (lock files, pins), but nginx with nchan, which is the distribution's.
set -euo pipefail
[[ ${1:-} != -h && ${1:-} != --help ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit; }
cd "$(dirname "${BASH_SOURCE[0]}")"
peers=$PWD root=$PWD/../..
tools=$root/.tools/peers
mkdir -p "$tools"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/peers
log=$(mktemp)
trap 'rm -f "$log"' EXIT

main() {
    (($#)) || set -- floor tokio-tungstenite fastwebsockets ws-rs node python nchan
    local name
    for name in "$@"; do
        if "install_${name//-/_}" >"$log" 2>&1; then
            echo "  $name is there"
        elif [[ $name == floor ]]; then
            cat "$log" >&2
            echo "FAILED: the floor does not build" >&2
            exit 1
        else
            tail -n 5 "$log" | sed 's/^/    /'
            echo "SKIPPED $name: could not be installed"
        fi
    done
}

install_floor() { crate floor; }
install_tokio_tungstenite() { crate peer-tokio-tungstenite; }
install_fastwebsockets() { crate peer-fastwebsockets; }
install_ws_rs() { crate peer-ws-rs; }

crate() {
    cargo build --release --locked --package "$1"
}

install_node() {
    node --version && npm --version || return 1
    mkdir -p "$tools/node"
    # ws is found from beside the script
    cp -p node/package.json node/package-lock.json node/.npmrc node/server.mjs "$tools/node"
    [[ $tools/node/node_modules/.package-lock.json -nt node/package-lock.json ]] && return
    npm ci --prefix "$tools/node" --no-audit --no-fund
}

install_python() {
    ! cmp -s python/pins.txt "$tools/python/pins.txt" || return 0
    rm -rf "$tools/python"
    python3 -m venv "$tools/python" &&
        PIP_DISABLE_PIP_VERSION_CHECK=1 "$tools/python/bin/python" -m pip install --quiet --no-deps -r python/pins.txt &&
        cp python/pins.txt "$tools/python"
}

# The distribution's packages, unpacked beside everything else: nothing is installed into the system.
install_nchan() {
    [[ ! -f $tools/nchan/usr/lib/nginx/modules/ngx_nchan_module.so ]] || return 0
    command -v apt-get && command -v dpkg || return 1
    local unpacked=$tools/nchan.new
    rm -rf "$unpacked" "$tools/nchan"
    mkdir -p "$unpacked"
    (
        cd "$unpacked"
        apt-get download nginx libnginx-mod-nchan || { apt-get update && apt-get download nginx libnginx-mod-nchan; }
        for package in ./*.deb; do dpkg -x "$package" .; done
        rm -f ./*.deb
    ) || return 1
    LD_BIND_NOW=1 "$unpacked/usr/sbin/nginx" -v && mv "$unpacked" "$tools/nchan"
}

main "$@"
