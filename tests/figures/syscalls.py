#!/usr/bin/env python3
"""Count what a burst costs the broker: syscalls.py BINARY. K messages published in one turn to N subscribers are N calls
of the kernel, not K x N. Needs strace, and the right to trace; says so and ends well where that is missing."""

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


def masked(payload):
    return bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload


def burst(publisher, subscribers, count):
    """In one segment, so that the broker reads it in one turn; returns when everybody has all of it."""
    messages = [b"%06d" % i for i in range(count)]
    publisher.sendall(b"".join(map(masked, messages)))
    expected = b"".join(bytes([0x81, len(m)]) + m for m in messages)
    for s in subscribers:
        if read_exactly(s, len(expected)) != expected:
            sys.exit("a subscriber got something else")


def traced(pid, do):
    """Calls of the process while `do` runs, by strace's own count; None if it cannot be traced."""
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
    broker = Broker(binary, "--ping-interval", "1h")
    failed = 0
    try:
        subscribers = []
        while len(subscribers) < SUBSCRIBERS:
            some = [join(broker.port, "/burst") for _ in range(AT_ONCE)]
            for s in some:
                read_head(s)
            subscribers += some
        # hears nothing of its own, so that no call is for it
        publisher = join(broker.port, "/burst?echo=0")
        publisher.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_head(publisher)
        for count in BURSTS:
            calls = traced(broker.process.pid, lambda: burst(publisher, subscribers, count))
            if calls is None:
                print("SKIPPED: strace may not attach to the broker here (see ptrace_scope, CAP_SYS_PTRACE)")
                return 0
            bad = calls != SUBSCRIBERS
            failed += bad
            print("%2d messages in one turn to %d subscribers: %d calls%s" % (
                count, SUBSCRIBERS, calls, ", EXPECTED %d" % SUBSCRIBERS if bad else ""), flush=True)
    finally:
        broker.stop()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
