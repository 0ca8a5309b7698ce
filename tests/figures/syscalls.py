#!/usr/bin/env python3
"""Counts the system calls of a burst: syscalls.py BINARY. K messages published in one turn to N subscribers must be N
calls of the kernel, not K x N. Subscribers are WebSockets, or followers of a stream, whose chunks may add up to 8 bytes
a message. Needs strace, and the right to trace; without these it says so and ends well."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from figures import AT_ONCE, Broker, HEAD

SUBSCRIBERS = 1_000
CHUNK = 8
BURSTS = (1, 16, 64)
CALLS = "sendto,sendmsg,write,writev"


def join(port, path):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    s.sendall((HEAD % port).replace("/idle", path, 1).encode())
    return s


def read_head(s):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += s.recv(1) or sys.exit("the broker closed after %r" % head)
    if not head.startswith(b"HTTP/1.1 101 "):
        sys.exit("handshake: %r" % head)


def read_exactly(s, count):
    got = b""
    while len(got) < count:
        got += s.recv(count - len(got)) or sys.exit("the broker closed")
    return got


def follow(port, path):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    s.sendall(("GET %s HTTP/1.1\r\nHost: localhost:%d\r\nAccept: text/event-stream\r\n\r\n" % (path, port)).encode())
    return s


def read_answer(s):
    """The head of a stream, and its beginning: up to the first event's end."""
    begun = b""
    while b"\r\n\r\n" not in begun or not begun.partition(b"\r\n\r\n")[2].endswith(b"\n\n\r\n"):
        begun += s.recv(1) or sys.exit("the broker closed after %r" % begun)
    if not begun.startswith(b"HTTP/1.1 200 ") or b"Transfer-Encoding: chunked" not in begun:
        sys.exit("stream: %r" % begun)


def told(s, count):
    """Reads `count` events, one a chunk. Returns the most bytes that a chunk has besides the event."""
    file = s.makefile("rb")
    most = 0
    number = 0
    while number < count:
        size = file.readline()
        event = file.read(int(size, 16))
        end = file.read(2)
        if event.startswith(b"event: join\n"):
            continue  # a notice about members
        if b"data: %06d\n" % number not in event or not event.endswith(b"\n\n") or end != b"\r\n":
            sys.exit("a follower got %r %r %r" % (size, event, end))
        most = max(most, len(size) + len(end))
        number += 1
    return most


def followed(publisher, followers, count):
    publisher.sendall(b"".join(map(masked, (b"%06d" % i for i in range(count)))))
    most = max(told(s, count) for s in followers)
    if most > CHUNK:
        sys.exit("a chunk adds %d bytes, EXPECTED at most %d" % (most, CHUNK))


def masked(payload):
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def burst(publisher, subscribers, count):
    """Publishes in one segment, so that the broker reads it in one turn; returns when everybody has all of it."""
    messages = [b"%06d" % i for i in range(count)]
    publisher.sendall(b"".join(map(masked, messages)))
    expected = b"".join(bytes([0x81, len(m)]) + m for m in messages)
    for s in subscribers:
        if read_exactly(s, len(expected)) != expected:
            sys.exit("a subscriber got something else")


def traced(pid, do):
    """The process's system calls while `do` runs, by strace's count; None if it cannot be traced."""
    with tempfile.NamedTemporaryFile("r") as out:
        strace = subprocess.Popen(["strace", "-f", "-c", "-e", "trace=" + CALLS, "-o", out.name, "-p", str(pid)],
                                  stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while "TracerPid:\t0\n" in open("/proc/%d/status" % pid).read():
            if strace.poll() is not None:
                return None
            time.sleep(0.01)
        do()
        strace.send_signal(signal.SIGINT)
        strace.wait(20)
        rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$", out.read(), re.M)
        return sum(int(count) for count, name in rows if name in CALLS.split(","))


def main(binary):
    if not shutil.which("strace"):
        print("SKIPPED: the count of system calls needs strace (apt-get install strace)")
        return 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    broker = Broker(binary, "--ping-interval", "1h", "--max-presence", "5000")
    failed = 0
    try:
        for kind, path, begin, begun, do in (
            ("subscribers", "/burst", join, read_head, burst),
            ("followers of a stream", "/stream", follow, read_answer, followed),
        ):
            # It gets none of its own messages, so no call is for it.
            publisher = join(broker.port, path + "?echo=0")
            publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            read_head(publisher)
            members = []
            while len(members) < SUBSCRIBERS:
                some = [begin(broker.port, path) for _ in range(AT_ONCE)]
                for s in some:
                    begun(s)
                members += some
            do(publisher, members, 1)  # after this no notices about members are due
            for count in BURSTS:
                # On a busy machine a turn may end before it has read all of it.
                for _ in range(3):
                    calls = traced(broker.process.pid, lambda: do(publisher, members, count))
                    if calls is None or calls == SUBSCRIBERS:
                        break
                if calls is None:
                    print("SKIPPED: strace may not attach to the broker here (see ptrace_scope, CAP_SYS_PTRACE)")
                    return 0
                bad = calls != SUBSCRIBERS
                failed += bad
                print("%2d messages in one turn to %d %s: %d calls%s" % (
                    count, SUBSCRIBERS, kind, calls, ", EXPECTED %d" % SUBSCRIBERS if bad else ""), flush=True)
    finally:
        broker.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
