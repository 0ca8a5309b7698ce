#!/usr/bin/env python3
"""A server in another program's loop, examples/own_loop.rs: own_loop.py BINARY. How soon the host's own UDP socket
answers while a thousand connections get messages, and the cost when nothing happens."""

import multiprocessing
import os
import resource
import select
import socket
import subprocess
import sys
import time

from figures import Broker, table

CONNECTIONS = 1000
RATE = 20       # messages a second, each to all connections
PINGS = 2000
PING_RATE = 200 # a second
REST = 5        # seconds
LIMITS = {  # figure: (limit, unit)
    "until a datagram is answered, median": (5, "ms"),
    "until a datagram is answered, p99": (5, "ms"),
    "CPU at rest": (1, "%"),
}
HEAD = ("GET /chat HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
MESSAGE = b"\x81\xa0\x00\x00\x00\x00" + b"x" * 32
FRAME = 2 + 32


class Example(Broker):
    """The example prints its address to standard output."""

    def __init__(self, binary):
        self.process = subprocess.Popen([binary, "127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        line = self.process.stdout.readline().decode()
        self.port = int(line.split("://", 1)[1].split("/", 1)[0].rsplit(":", 1)[1])

    def cpu(self):
        with open("/proc/%d/stat" % self.process.pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def join(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall((HEAD % port).encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += s.recv(1)
    if b" 101 " not in head:
        raise SystemExit("no 101: %r" % head)
    s.setblocking(False)
    return s


class Crowd:
    """Reads in a process of its own: a thread would hold up the measuring."""

    def __init__(self, port):
        self.sockets = [join(port) for _ in range(CONNECTIONS)]
        self.bytes = multiprocessing.RawValue("q", 0)
        self.process = multiprocessing.get_context("fork").Process(target=self.read, daemon=True)
        self.process.start()

    def read(self):
        # It shares a core with the measuring process, and gives way to it.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        epoll = select.epoll()
        by_descriptor = {s.fileno(): s for s in self.sockets}
        for descriptor in by_descriptor:
            epoll.register(descriptor, select.EPOLLIN)
        while True:
            for descriptor, _ in epoll.poll():
                self.bytes.value += len(by_descriptor[descriptor].recv(65536))

    @property
    def heard(self):
        return self.bytes.value

    def stop(self):
        self.process.kill()
        self.process.join()
        for s in self.sockets:
            s.close()


def measure(binary, figures):
    example = Example(binary)
    crowd = None
    first, *others = sorted(os.sched_getaffinity(0))
    if others:
        os.sched_setaffinity(example.process.pid, {first})
        os.sched_setaffinity(0, others)
    try:
        crowd = Crowd(example.port)
        time.sleep(1)
        before = example.cpu()
        time.sleep(REST)
        figures["CPU at rest"] = (example.cpu() - before) / REST * 100
        pings = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        pings.settimeout(2)
        begun, sent, took = time.monotonic(), 0, []
        for number in range(PINGS):
            if time.monotonic() - begun >= sent / RATE:
                crowd.sockets[0].send(MESSAGE)
                sent += 1
            asked = time.monotonic()
            pings.sendto(b"ping", ("127.0.0.1", example.port))
            pings.recvfrom(100)
            took.append((time.monotonic() - asked) * 1000)
            time.sleep(max(0, begun + (number + 1) / PING_RATE - time.monotonic()))
        deadline = time.monotonic() + 10
        while crowd.heard < sent * CONNECTIONS * FRAME and time.monotonic() < deadline:
            time.sleep(0.02)
        if crowd.heard != sent * CONNECTIONS * FRAME:
            raise SystemExit("%d bytes were heard of %d" % (crowd.heard, sent * CONNECTIONS * FRAME))
        print("  %d messages to %d connections, all delivered, while %d datagrams were answered" % (sent, CONNECTIONS, PINGS))
        took.sort()
        figures["until a datagram is answered, median"] = took[len(took) // 2]
        figures["until a datagram is answered, p99"] = took[len(took) * 99 // 100]
    finally:
        if crowd:
            crowd.stop()
        example.stop()


def main(binary):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {}
    try:
        measure(binary, figures)
    except (SystemExit, OSError) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
