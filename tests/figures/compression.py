#!/usr/bin/env python3
"""The cost of a compressed delivery: compression.py BINARY, or compression.py --port PORT --pid PID for another server
that sends to all what one client sends. Standard library and /proc only.

1,000 subscribers agree to compression and get messages of 4 KiB of JSON; then 1,000 others get as many messages of the
compressed length, not compressed. Server CPU per delivery, several rounds, one after the other.
"""

import argparse
import json
import os
import random
import select
import socket
import statistics
import struct
import sys

from figures import Broker

SUBSCRIBERS, MESSAGES, ROUNDS, LIMIT = 1000, 150, 5, 1.3
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
HEAD = ("GET /%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n")
BUFFER = bytearray(1 << 16)


def document(dice):
    """About 4 KiB of JSON as an application sends it: the same keys, other values."""
    rows = [{"id": dice.randrange(10**6), "name": dice.choice(("Ann", "Bob", "Eve")), "price": round(dice.random() * 100, 2),
             "time": 1767225600000 + dice.randrange(10**9), "open": dice.random() < 0.5} for _ in range(52)]
    return json.dumps(rows).encode()[:4096]


def frame(payload):
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else struct.pack("!BH", 0xFE, len(payload))
    return b"\x81" + length + b"\0\0\0\0" + payload


class Crowd:
    def __init__(self, port, channel, offer):
        self.epoll, self.sockets, self.agreed = select.epoll(), {}, 0
        for number in range(SUBSCRIBERS):
            it = socket.create_connection(("127.0.0.1", port))
            it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            it.sendall((HEAD % (channel, port, offer)).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += it.recv(1)
            assert b" 101 " in head, head
            self.agreed += b"permessage-deflate" in head
            if number == 0:
                self.probe = it
                continue
            it.setblocking(False)
            self.sockets[it.fileno()] = it
            self.epoll.register(it, select.EPOLLIN)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.probe.recv(count - len(data))
            assert more, "closed"
            data += more
        return data

    def deliver(self, payload):
        """Sends a message to all, waits until all have it, and returns how long its payload was on the way."""
        self.probe.sendall(frame(payload))
        first, short = self.exactly(2)
        assert first & 0x0F == 1, first
        length, wide = (short, 0) if short < 126 else (struct.unpack("!H", self.exactly(2))[0], 2)
        self.exactly(length)
        left = (2 + wide + length) * len(self.sockets)
        while left > 0:
            for fd, _ in self.epoll.poll(10):
                left -= self.sockets[fd].recv_into(BUFFER)
        assert left == 0, left
        return length, bool(first & 0x40)

    def close(self):
        for it in [self.probe, *self.sockets.values()]:
            it.close()


def cpu_seconds(pid):
    return int(open(f"/proc/{pid}/schedstat").read().split()[0]) / 1e9


def round_of(port, pid, channel, offer, payloads):
    crowd = Crowd(port, channel, offer)
    crowd.deliver(payloads[0])
    before = cpu_seconds(pid)
    lengths = [crowd.deliver(payload) for payload in payloads]
    spent = cpu_seconds(pid) - before
    crowd.close()
    return 1e6 * spent / (SUBSCRIBERS * len(payloads)), lengths


def measure(port, pid):
    dice = random.Random(1)
    rows = []
    for number in range(ROUNDS):
        payloads = [document(dice) for _ in range(MESSAGES)]
        cost, lengths = round_of(port, pid, f"small{number}", OFFER, payloads)
        assert all(compressed for _, compressed in lengths), "not compressed"
        plain, told = round_of(port, pid, f"plain{number}", "", [b"x" * length for length, _ in lengths])
        assert not any(compressed for _, compressed in told)
        rows.append((cost, plain, statistics.mean(length for length, _ in lengths)))
        print("  4 KiB in %4.0f B: %.2f us CPU a delivery; %.2f us for as many bytes as they are; ratio %.2f"
              % (rows[-1][2], cost, plain, cost / plain), flush=True)
    ratio = statistics.median(cost / plain for cost, plain, _ in rows)
    print("median: %.2f us, %.2f us, ratio %.2f" % (statistics.median(row[0] for row in rows),
                                                  statistics.median(row[1] for row in rows), ratio))
    return ratio


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("binary", nargs="?")
    arguments.add_argument("--port", type=int)
    arguments.add_argument("--pid", type=int)
    chosen = arguments.parse_args()
    if chosen.port:
        measure(chosen.port, chosen.pid)
        return 0
    broker = Broker(chosen.binary, "--history-messages", "0", "--compress-min", "256")
    try:
        ratio = measure(broker.port, broker.process.pid)
    finally:
        broker.stop()
    print("%s compressed delivery against one of the same bytes: %.2f of at most %.2f" % ("ok    " if ratio <= LIMIT else "FAILED", ratio, LIMIT))
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
