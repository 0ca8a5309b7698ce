#!/usr/bin/env python3
"""How much peers can make the broker hold, against its budgets: budgets.py BINARY [CONNECTIONS].

Every attack runs against a broker of its own with small budgets: 2 MiB inbound, 16 MiB outbound, 4 MiB of history.
RSS above rest, without what the connections cost at rest, must stay within the sum of the budgets and a tenth."""

import resource
import socket
import sys
import threading
import time
import urllib.request

from figures import Broker, MIB

BUDGETS = {"inbound": 2 * MIB, "outbound": 16 * MIB, "history": 4 * MIB}
FLAGS = ["--max-inbound-total", "2MiB", "--max-outbound-total", "16MiB", "--history-total", "4MiB", "--max-head", "65535",
         "--handshake-timeout", "120s", "--write-timeout", "120s", "--max-connections", "10000"]
EACH = 1024           # bytes that a connection at rest may cost, with its place in every list
CHANNEL = 1024        # bytes that a channel with the longest name may cost
UPGRADE = ("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n")


def padding(length):
    """Header fields of this many bytes in all."""
    return "".join("X-%d: %s\r\n" % (i, "x" * 7990) for i in range(length // 8000))


def frame(opcode, payload):
    length = len(payload)
    head = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([opcode]) + head + bytes(4) + payload


def each(count, what):
    """Opens this many connections from several addresses, each with its first bytes."""
    def attack(port):
        held = []
        for i in range(count):
            s = socket.socket()
            s.bind(("127.0.0.%d" % (1 + i % 8), 0))
            s.connect(("127.0.0.1", port))
            s.setblocking(False)
            try:
                s.send(what(i))
            except OSError:
                pass
            held.append(s)
        return held
    return attack


def deaf(count, target, publish):
    """WebSockets that are opened and read nothing, while something is published."""
    def attack(port):
        held = []
        for i in range(count):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            s.connect(("127.0.0.1", port))
            s.sendall((UPGRADE % (target, "")).encode())
            held.append(s)
        with socket.create_connection(("127.0.0.1", port)) as s:
            s.sendall((UPGRADE % (target + "-by", "Sec-WebSocket-Protocol: v1.slotcast.json\r\n")).encode())
            s.recv(4096)
        publish(port, target)
        return held
    return attack


def post(port, target, body, times):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(60)
        for _ in range(times):
            s.sendall(b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % (target.encode(), len(body)) + body)
            s.recv(65536)


def histories(port):
    with socket.create_connection(("127.0.0.1", port)) as s:
        for i in range(20000):
            s.sendall(b"POST /%d/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n" % (i, b"n" * 200) + b"h" * 1000)
            s.recv(65536)
    return []


def attacks(count):
    get = "GET /a?wait=100 HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"
    return [
        ("heads that are not complete", each(count, lambda i: (get % padding(56000))[:-2].encode())),
        ("heads that wait for their body", each(count, lambda i: (
            "POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n%s\r\n" % padding(56000)).encode())),
        ("bodies that are not complete", each(count, lambda i: b"POST /a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\n" + b"b" * 60000)),
        ("polls that are held", each(count, lambda i: (get % padding(56000)).encode())),
        ("messages that are not complete", each(count, lambda i: (UPGRADE % ("/a", "")).encode() + frame(2, b"m" * 60000))),
        ("members of many channels", each(count // 5, lambda i: (
            UPGRADE % ("/a", "Sec-WebSocket-Protocol: %s\r\n" % PROTOCOL)).encode() + b"".join(
            frame(0x81, b'{"type":"subscribe","channel":"/%d/%d/%s"}' % (i, j, b"c" * 80)) for j in range(100)))),
        ("places in queues", deaf(count // 25, "/q", lambda port, target: (
            post(port, target, b"x" * 100000, 60), post(port, target, b"x", 12000)))),
        ("messages that are not sent", deaf(count // 5, "/q", lambda port, target: post(port, target, b"x" * 40000, 1200))),
        ("histories", histories),
    ]


PROTOCOL = "v1.slotcast.json"


def metrics(port):
    text = urllib.request.urlopen("http://127.0.0.1:%d/-/metrics" % port, timeout=60).read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    names = ("inbound_bytes", "outbound_bytes", "history_bytes", "channel_bytes", "connections", "channels")
    return {name: int(values["slotcast_" + name]) for name in names}


def main():
    binary, count = sys.argv[1], int((sys.argv[2:] or ["5000"])[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    failed = passed = 0
    print("%-34s %9s %9s %9s %9s %9s %9s %6s" % ("MiB", "peak", "may be", "inbound", "outbound", "history", "channels", "conns") + "   RSS now / counted + 1 KiB a connection")
    for name, attack in attacks(count):
        broker = Broker(binary, *FLAGS)
        try:
            broker.greet()
            rest, most, seen, done = broker.rss(), 0, {}, threading.Event()

            def watch():
                nonlocal most
                while not done.wait(0.02):
                    most = max(most, broker.rss())
            watcher = threading.Thread(target=watch)
            watcher.start()
            held = attack(broker.port)
            seen = metrics(broker.port)
            done.set()
            watcher.join()
            above = max(most, broker.rss()) - rest
            room = sum(BUDGETS.values()) * 1.1 + len(held) * EACH + seen["channels"] * CHANNEL
            counted = sum(seen[n + "_bytes"] for n in ("inbound", "outbound", "history", "channel"))
            now = broker.rss() - rest
            ok = above <= room
            passed, failed = passed + ok, failed + (not ok)
            mib = [above, room] + [seen[n + "_bytes"] for n in ("inbound", "outbound", "history", "channel")]
            print("%-34s" % name, *("%9.2f" % (value / MIB) for value in mib), "%6d" % seen["connections"],
                  "%7.2f / %.2f" % (now / MIB, (counted + seen["connections"] * EACH) / MIB),
                  "" if ok else "  too much")
            for s in held:
                s.close()
        finally:
            broker.stop()
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
