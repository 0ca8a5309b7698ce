#!/usr/bin/env python3
"""Measure one slotcast binary: figures.py BINARY CONNECTIONS (see run.sh). Standard library and /proc only."""

import os
import re
import resource
import select
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

MIB = 1024 * 1024
LIMITS = {  # figure: (limit, unit)
    "size of the stripped binary": (4, "MiB"),
    "start until listening, median of 20": (20, "ms"),
    "RSS at rest": (6, "MiB"),
    "RSS per idle connection": (600, "B"),
    "growth over three more rounds": (3, "%"),
    "descriptors left over": (0, ""),
}
STARTS = 20
PER_SOURCE = 5_000  # connections from one of 127.0.0.1, 127.0.0.2, ...
AT_ONCE = 50        # opened together, well below any backlog
HEAD = ("GET /idle HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # code 1000, masking key 0
IP_BIND_ADDRESS_NO_PORT = 24                 # choose the port at connect, by the whole four-tuple


# ------------------------------------------------------------------- the broker

class Broker:
    def __init__(self, binary, *flags):
        begun = time.monotonic()
        self.process = subprocess.Popen([binary, "--listen", "127.0.0.1:0", *flags], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.said = b""
        try:
            self.port = self._port(begun + 10)
        except BaseException:
            self.stop()
            raise
        self.start_ms = (time.monotonic() - begun) * 1000
        # Nobody reads the broker's log, and it would stop at a full pipe.
        threading.Thread(target=lambda: shutil.copyfileobj(self.process.stderr, open(os.devnull, "wb")), daemon=True).start()

    def _port(self, deadline):
        while True:
            found = re.search(rb"listening on http://\S*?:(\d+)[ /\n]", self.said)
            if found:
                return int(found[1])
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stderr], [], [], left)[0]:
                raise SystemExit("the broker does not listen; it said: %r" % self.said)
            chunk = os.read(self.process.stderr.fileno(), 65536)
            if not chunk:
                raise SystemExit("the broker ended at once; it said: %r" % self.said)
            self.said += chunk

    def rss(self):
        with open("/proc/%d/status" % self.process.pid) as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) * 1024

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def greet(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
            s.sendall(b"GET /-/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = s.recv(4096)
        if not answer.startswith(b"HTTP/1.1 "):
            raise SystemExit("the broker listens, but answers %r" % answer)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


# ------------------------------------------------- the child that holds connections

def hold(port):
    """Runs the commands on stdin, `open N` and `close`, and answers each with one line."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held, opened = [], 0
    for line in sys.stdin:
        word, *count = line.split()
        if word == "open":
            wanted = int(count[0])
            while len(held) < wanted:
                held += open_some(port, opened, min(AT_ONCE, wanted - len(held)))
                opened = opened + AT_ONCE
        else:
            close_all(held)
            held = []
        print(word, len(held), flush=True)


def open_some(port, already, count):
    some = []
    source = "127.0.0.%d" % (1 + already // PER_SOURCE % 200)
    for _ in range(count):
        s = socket.socket()
        s.settimeout(20)
        s.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        s.bind((source, 0))
        s.connect(("127.0.0.1", port))
        s.sendall((HEAD % port).encode())
        some.append(s)
    for s in some:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            chunk = s.recv(4096)
            if not chunk:
                raise SystemExit("handshake %d: the broker closed after %r" % (already, head))
            head += chunk
        if not head.startswith(b"HTTP/1.1 101 "):
            raise SystemExit("handshake %d: %r" % (already, head))
    return some


def close_all(held):
    """Does the closing handshake, like a browser: Close, the broker's Close, end of stream."""
    for s in held:
        s.sendall(CLOSE)
    for s in held:
        while s.recv(4096):
            pass
        s.close()


class Holder:
    def __init__(self, port):
        self.process = subprocess.Popen([sys.executable, __file__, "--hold", str(port)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], 180)[0]:
            raise SystemExit("`%s` takes more than 180 s" % line)
        if not self.process.stdout.readline():
            raise SystemExit("`%s` failed" % line)

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


# ------------------------------------------------------------------ the figures

def settled(read, tries=50):
    """A value once it has been the same for half a second, or the last one after ten seconds."""
    last, same = read(), 0
    for _ in range(tries):
        time.sleep(0.1)
        now = read()
        same = same + 1 if now == last else 0
        last = now
        if same == 5:
            break
    return last


def measure_starts(binary):
    times = []
    for _ in range(STARTS):
        broker = Broker(binary)
        times.append(broker.start_ms)
        broker.stop()
    return statistics.median(times)


def measure_connections(binary, count, figures):
    # Nobody answers pings here, and no connection may time out on a slow machine.
    broker = Broker(binary, "--max-connections", str(count + 100), "--ping-interval", "1h")
    holder = None
    try:
        broker.greet()
        rest = settled(broker.rss)
        descriptors = settled(broker.descriptors)
        figures["RSS at rest"] = rest / MIB
        holder = Holder(broker.port)
        rounds = []
        for number in range(1, 9):
            holder.ask("open %d" % count)
            rounds.append(settled(broker.rss))
            print("  round %d: %d connections, RSS %.2f MiB, %d descriptors" % (
                number, count, rounds[-1] / MIB, broker.descriptors()), flush=True)
            holder.ask("close")
            deadline = time.monotonic() + 20
            while broker.descriptors() > descriptors and time.monotonic() < deadline:
                time.sleep(0.05)
        figures["RSS per idle connection"] = (rounds[0] - rest) / count
        # Later rounds find the pages of the first in another order, and the amount that the C library keeps at the end
        # of the heap differs by up to 128 KiB. A leak grows with each round.
        before, after = max(rounds[3:5]), min(rounds[6:8])
        figures["growth over three more rounds"] = (after - before) / before * 100
        figures["descriptors left over"] = broker.descriptors() - descriptors
        print("  afterwards: RSS %.2f MiB, %d descriptors" % (broker.rss() / MIB, broker.descriptors()))
    finally:
        if holder:
            holder.stop()
        broker.stop()


def table(limits, figures):
    """Prints figures with their limits; returns the exit status."""
    print()
    print("%-48s %12s %12s" % ("figure", "value", "limit"))
    failed = 0
    for name, (limit, unit) in limits.items():
        value = figures.get(name)
        bad = value is None or value > limit
        failed += bad
        shown = "none" if value is None else "%.2f %s" % (value, unit)
        print("%-48s %12s %12s%s" % (name, shown, "%g %s" % (limit, unit), "   EXCEEDED" if bad else ""))
    print("\n%d passed, %d failed" % (len(limits) - failed, failed), flush=True)
    return 1 if failed else 0


def main(binary, count):
    figures = {"size of the stripped binary": os.path.getsize(binary) / MIB}
    try:
        figures["start until listening, median of 20"] = measure_starts(binary)
        measure_connections(binary, count, figures)
    except (SystemExit, OSError) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--hold"]:
        hold(int(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1], int(sys.argv[2])))
