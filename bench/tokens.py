#!/usr/bin/env python3
"""What tokens and rules cost, and what a reload under load loses: `make tokens`.

    bench/tokens.py                     all three
    bench/tokens.py herd memory reload  only these
    ROUNDS=9 bench/tokens.py herd       more rounds than 5

herd    10,000 WebSockets come at once, three times, and go in between. One daemon has neither rules nor tokens. At the
        other each shows a token of its own: new ones, then the same again, which are remembered, then new ones again,
        in place of the oldest. The daemon's CPU time a handshake, as a ratio to the same wave without tokens: the two
        daemons take turns, and the median of the rounds counts.
memory  RSS for each of 10,000 idle WebSockets: without rules, without a token where a rule lets anyone in, and with
        10,000 different tokens. What the verifier remembers counts as well, and is then told apart by a reload, which
        forgets it.
reload  1,000 WebSockets in two channels, each with a token. To the 900 of one go 1,000 messages a second, and meanwhile
        SIGHUP comes three times: with a broken file, with one that takes the right to the other channel away, and with
        other limits. The 900 must get each message once and in order, and exactly the 100 must end.

Tokens are HS256 with a `sub` of 36 bytes and two patterns, in `Authorization`. Daemon and clients have a core
each, where there are two. Linux only: CPU time and RSS are those of /proc.

Environment: SLOTCAST_BIN  a broker to measure instead of the one built here
             ROUNDS        how often each wave (5); memory is measured 3 times

The last line is "N passed, N failed". Exit status: 0 if nothing failed.
"""

import base64
import errno
import hmac
import http.client
import json
import os
import re
import resource
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
COUNT = 10_000       # connections of a wave, and idle ones
ROUNDS = int(os.environ.get("ROUNDS", "5"))
MEMORY_ROUNDS = 3
PATIENCE = 60        # seconds for a wave, a reload, or all messages
REMEMBERED, NEW = 1.1, 1.3     # most CPU of a handshake with a token, over one without
AUTHORIZED, NOTHING = 320, 16  # most bytes more of a connection with a token, and of one without where there are rules
STAY, LEAVE = 900, 100         # members of the channel that stays, and of the one that is taken away
READ_AT_ONCE = 50              # members that are read between two looks at the time
RATE, SECONDS = 1_000, 6       # messages a second, and for how long
PER_SOURCE = 5_000             # connections from one of 127.0.0.1, 127.0.0.2, ...
IP_BIND_ADDRESS_NO_PORT = 24   # choose the port at connect, by the whole four-tuple
KEY = base64.b64encode(bytes(range(48)))
CORES = sorted(os.sched_getaffinity(0))
FORBIDDEN = b"\x88\x0b" + struct.pack(">H", 1008) + b"forbidden"
HEAD = ("GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n")
COMMON = "listen = '127.0.0.1:0'\nmax-connections = %d\nping-interval = '1h'\n" % (COUNT + 100)
KEYED = "[[key]]\nid = 'backend'\nalg = 'HS256'\nfile = 'token.key'\n"
RULE = "[[channel]]\nmatch = '%s'\nsubscribe = '%s'\npublish = '%s'\n"


def busy():
    """Seconds of all cores so far for others than this process and the daemons that have ended."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    own = sum(os.times()[:4])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK") - own


def hurry():
    """Goes before other work of the machine, if allowed, and so do the daemons."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    except OSError:
        pass


# ------------------------------------------------------------------- tokens and requests

def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(room):
    """A new token of a user of its own, for this room."""
    now = int(time.time())
    grants = {"subscribe": ["/rooms/%s/**" % room], "publish": ["/rooms/%s/*" % room]}
    claims = {"sub": str(uuid.uuid4()), "iat": now, "exp": now + 3600, "slotcast": grants}
    parts = ({"alg": "HS256", "typ": "JWT"}, claims)
    signed = b".".join(base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return (signed + b"." + base64url(hmac.digest(KEY, signed, "sha256"))).decode()


def bearer(shown):
    return "Authorization: Bearer %s\r\n" % shown


def requests(has_tokens):
    """Handshakes for a hundred rooms."""
    rooms = [number % 100 for number in range(COUNT)]
    return [(HEAD % ("/rooms/%d/chat" % room, bearer(token(room)) if has_tokens else "")).encode() for room in rooms]


# ------------------------------------------------------------------- the daemon

def binary():
    if os.environ.get("SLOTCAST_BIN"):
        return os.environ["SLOTCAST_BIN"]
    if subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT).returncode:
        sys.exit("FAILED: slotcast does not build")
    return os.path.join(TARGET, "release", "slotcast")


class Daemon:
    """A daemon with a configuration file of its own. `log` has its lines, each with when it came."""

    def __init__(self, command, config):
        self.folder = tempfile.TemporaryDirectory(prefix="slotcast-tokens-")
        self.config = os.path.join(self.folder.name, "slotcast.toml")
        secret = os.path.join(self.folder.name, "token.key")
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            f.write(KEY + b"\n")
        self.write(config)
        clean = {name: value for name, value in os.environ.items() if not re.match("SLOTCAST_|PORT$|RUST_LOG$", name)}
        self.process = subprocess.Popen([command, "--config", self.config], stdin=subprocess.DEVNULL, env=clean,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(self.process.pid, CORES[:1])
        self.log, self.news = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.port = int(self.line(r"listening on http://\S*?:(\d+)\b")[1])
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def write(self, config):
        with open(self.config, "w") as f:
            f.write(config)

    def _read(self):
        for line in self.process.stderr:
            with self.news:
                self.log.append((time.monotonic(), line.rstrip("\n")))
                self.news.notify_all()

    def found(self, pattern, since=0):
        """The first line since that many that has this, if there is one."""
        return next(filter(None, (re.search(pattern, line) for _, line in self.log[since:])), None)

    def line(self, pattern, since=0):
        with self.news:
            self.news.wait_for(lambda: self.found(pattern, since) or self.process.poll() is not None, PATIENCE)
            found = self.found(pattern, since)
        if not found:
            sys.exit("FAILED: the daemon never said %r, but: %s" % (pattern, [line for _, line in self.log[-5:]]))
        return found

    def reload(self):
        """Waits until the files were read again."""
        since = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        self.line("reloaded", since)

    def cpu(self):
        """Seconds of CPU of all threads so far, those in the kernel included."""
        threads, spent = "/proc/%d/task" % self.process.pid, 0
        for thread in os.listdir(threads):
            with open("%s/%s/schedstat" % (threads, thread)) as f:
                spent += int(f.read().split()[0])
        return spent / 1e9

    def rss(self):
        """Bytes, exactly: `VmRSS` and `statm` are late by some pages for each core."""
        with open("/proc/%d/smaps_rollup" % self.process.pid) as f:
            return int(re.search(r"^Rss:\s+(\d+) kB", f.read(), re.M)[1]) * 1024

    def settled(self, descriptors=None):
        """The RSS, once the number of descriptors is as before and the RSS stays as it is."""
        deadline, last = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            time.sleep(0.3)
            now = self.rss()
            if now == last and descriptors in (None, self.descriptors()):
                return now
            last = now
        sys.exit("FAILED: %d descriptors, and not %s" % (self.descriptors(), descriptors))

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()


# ------------------------------------------------------------------- connections

def come(port, heads):
    """Connections that come at once with these requests, when all have the answer 101."""
    waiting, done, poll = {}, [], select.epoll()

    def step(timeout):
        for number, _ in poll.poll(timeout):
            connection, head, sent = waiting[number]
            if not sent:
                failed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if failed or connection.send(head) != len(head):
                    sys.exit("FAILED: a connection of a wave: %s" % os.strerror(failed))
                waiting[number] = connection, b"", True
                poll.modify(number, select.EPOLLIN)
                continue
            answer = head + connection.recv(4096)
            if not answer.startswith(b"HTTP/1.1 101 "[:len(answer)]) or answer == head:
                sys.exit("FAILED: a handshake is answered by %r" % answer[:400])
            waiting[number] = connection, answer, True
            if b"\r\n\r\n" in answer:
                poll.unregister(number)
                done.append(waiting.pop(number)[0])

    for number, head in enumerate(heads):
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind(("127.0.0.%d" % (1 + number // PER_SOURCE), 0))
        failed = connection.connect_ex(("127.0.0.1", port))
        if failed not in (0, errno.EINPROGRESS):
            sys.exit("FAILED: connect: %s" % os.strerror(failed))
        waiting[connection.fileno()] = connection, head, False
        poll.register(connection, select.EPOLLOUT)
        if number % 64 == 63:
            step(0)
    deadline = time.monotonic() + PATIENCE
    while waiting:
        if time.monotonic() > deadline:
            sys.exit("FAILED: %d of %d handshakes have no answer after %d s" % (len(waiting), len(heads), PATIENCE))
        step(1)
    poll.close()
    return done


def go(connections):
    """All end at once, by a reset: no port is left waiting."""
    for connection in connections:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


# ------------------------------------------------------------------- herd

def waves(command, config, sets):
    """CPU-µs of a handshake, in each of these waves one after the other."""
    spent = []
    with Daemon(command, config) as daemon:
        descriptors = daemon.descriptors()
        for heads in sets:
            before = daemon.cpu()
            connections = come(daemon.port, heads)
            spent.append((daemon.cpu() - before) / COUNT * 1e6)
            go(connections)
            daemon.settled(descriptors)
    return spent


def herd(command, verdict):
    plain, granted = COMMON, COMMON + KEYED + RULE % ("/rooms/**", "granted", "granted")
    bare, first, third = requests(False), requests(True), requests(True)
    print("herd: a request has %d bytes, and %d with a token" % (len(bare[-1]), len(first[-1])), flush=True)
    without, withal = [], []
    shown = lambda each: " ".join("%.1f" % one for one in each)
    for number in range(ROUNDS):
        turns = [(without, plain, [bare] * 3), (withal, granted, [first, first, third])]
        # Each goes first in every other round.
        for into, config, sets in turns if number % 2 == 0 else turns[::-1]:
            into.append(waves(command, config, sets))
        print("  round %d, CPU-us a handshake: without %s; with tokens %s" % (
            number + 1, shown(without[-1]), shown(withal[-1])), flush=True)
    for wave, (name, most) in enumerate([("new tokens, the first that come", NEW), ("remembered tokens", REMEMBERED),
                                         ("new tokens, in place of older ones", NEW)]):
        ratios = sorted(b[wave] / a[wave] for a, b in zip(without, withal))
        verdict("%s: %.1f us a handshake, without tokens %.1f; x %.3f (%.3f to %.3f), at most x %g" % (
            name, statistics.median(b[wave] for b in withal), statistics.median(a[wave] for a in without),
            statistics.median(ratios), ratios[0], ratios[-1], most), statistics.median(ratios) <= most)


# ------------------------------------------------------------------- memory

def held(command, config, heads):
    """Bytes of an idle connection; the same when the daemon has read its files again and remembers no token; and what
    stays, for each, when all have gone."""
    with Daemon(command, config) as daemon:
        descriptors = daemon.descriptors()
        # The code of all this, and buffers that all share, are in memory before.
        go(come(daemon.port, heads[-16:]))
        daemon.reload()
        before = daemon.settled(descriptors)
        connections = come(daemon.port, heads)
        open_ones = daemon.settled()
        daemon.reload()
        forgotten = daemon.settled()
        go(connections)
        gone = daemon.settled(descriptors)
    return [(now - before) / COUNT for now in (open_ones, forgotten, gone)]


def memory(command, verdict):
    bare, shown = requests(False), requests(True)
    kinds = {
        "no rules": (COMMON, bare),
        "rules, no token": (COMMON + KEYED + RULE % ("/**", "anyone", "anyone"), bare),
        "rules, a token": (COMMON + KEYED + RULE % ("/rooms/**", "granted", "granted"), shown),
    }
    found = {name: [held(command, *kind) for _ in range(MEMORY_ROUNDS)] for name, kind in kinds.items()}
    print("memory: B a connection, medians of %d: idle (+- spread), after a reload, when all have gone" % MEMORY_ROUNDS)
    medians = {}
    for name, rounds in found.items():
        medians[name] = [statistics.median(each) for each in zip(*rounds)]
        idle = [each[0] for each in rounds]
        now, later, gone = medians[name]
        spread = (max(idle) - min(idle)) / 2
        print("  %-16s %6.1f (+- %.1f) %6.1f %6.1f" % (name, now, spread, later, gone), flush=True)
    base, anyone, authorized = (medians[name] for name in kinds)
    verdict("without a token, where there are rules: %+.1f B a connection, at most %d (noise of pages)" % (
        anyone[0] - base[0], NOTHING), anyone[0] - base[0] <= NOTHING)
    verdict("with a token of its own: %+.1f B a connection, at most %d; %+.1f without what is remembered beside it" % (
        authorized[0] - base[0], AUTHORIZED, authorized[1] - base[1]), authorized[0] - base[0] <= AUTHORIZED)


# ------------------------------------------------------------------- reload

class Member:
    """Compares what it gets with what it should get, byte for byte."""

    def __init__(self, connection, expected):
        self.connection, self.expected, self.got, self.fault, self.at = connection, expected, 0, None, None

    def read(self):
        if self.fault:
            return
        try:
            chunk = self.connection.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as e:
            chunk = str(e).encode()
        end = self.got + len(chunk)
        # The end of the stream comes after Close and never before.
        is_early = not chunk and not (self.has_all() and self.expected.endswith(FORBIDDEN))
        if is_early or self.expected[self.got:end] != chunk:
            self.fault = "after %d bytes %r" % (self.got, chunk[:40])
        elif chunk:
            self.got, self.at = end, time.monotonic()

    def has_all(self):
        return self.got == len(self.expected)


def frame(text, mask=b""):
    return bytes([0x81, (0x80 if mask else 0) | len(text)]) + mask + text


def post(port, path, text):
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    asking.request("POST", path, text, {"Authorization": "Bearer " + token(1), "Content-Type": "text/plain"})
    with asking.getresponse() as answer:
        if answer.status != 200:
            sys.exit("FAILED: POST %s: %d %r" % (path, answer.status, answer.read()))
    asking.close()


def reload_under_load(command, verdict):
    def config(limits="", right="authenticated"):
        return COMMON + limits + KEYED + RULE % ("/a", *["authenticated"] * 2) + RULE % ("/b", right, "authenticated")

    def come_to(path, count):
        return come(daemon.port, [(HEAD % (path, bearer(token(1)))).encode() for _ in range(count)])

    total = RATE * SECONDS
    texts = [b"%08d" % number for number in range(total)]
    masked = [frame(text, b"\0\0\0\0") for text in texts]
    stream, ending = b"".join(map(frame, texts)), frame(b"still here") + FORBIDDEN
    with Daemon(command, config()) as daemon:
        stay = [Member(each, stream) for each in come_to("/a", STAY)]
        leave = [Member(each, ending) for each in come_to("/b", LEAVE)]
        publisher, = come_to("/a?echo=0", 1)
        publisher.setblocking(True)
        marks = {}

        def reread(name, text):
            daemon.write(text)
            marks[name] = len(daemon.log), time.monotonic()
            daemon.process.send_signal(signal.SIGHUP)

        other_limits = "max-message = '64KiB'\nhistory-messages = 7\n"
        # When, in seconds from the beginning, and what then.
        events = [
            (SECONDS * 0.2, lambda: reread("broken", config("max-message = 'much'\n"))),
            (SECONDS * 0.4, lambda: post(daemon.port, "/b", b"still here")),
            (SECONDS * 0.5, lambda: reread("right", config(right="nobody"))),
            (SECONDS * 0.7, lambda: reread("limits", config(other_limits, "nobody"))),
        ]
        everyone, sent, turn, took, most = stay + leave, 0, 0, 0, 0
        cpu, begun = daemon.cpu(), time.monotonic()
        while time.monotonic() < begun + SECONDS + PATIENCE:
            now = time.monotonic() - begun
            due = min(total, int(now * RATE) + 1)
            if due > sent:
                publisher.sendall(b"".join(masked[sent:due]))
                sent, took, most = due, time.monotonic() - begun, max(most, due - sent)
            if events and now >= events[0][0]:
                events.pop(0)[1]()
            # Some members in each round, so that the messages come evenly.
            for member in everyone[turn:turn + READ_AT_ONCE]:
                member.read()
            turn = (turn + READ_AT_ONCE) % len(everyone)
            if sent == total and all(member.fault or member.has_all() for member in everyone):
                break
            time.sleep(0.0005)
        cpu, lasted = daemon.cpu() - cpu, time.monotonic() - begun
        time.sleep(0.2)
        for member in everyone:
            member.read()
        lines = [line for _, line in daemon.log]

    broken, right, limits = (lines[marks[a][0]:marks[b][0] if b else None]
                             for a, b in (("broken", "right"), ("right", "limits"), ("limits", None)))
    faults = ["%s: %s" % (member.connection.getsockname()[1], member.fault) for member in everyone if member.fault]
    faults += ["%d of %d bytes" % (member.got, len(member.expected)) for member in everyone if not member.has_all()]
    print("reload: %d messages to %d members in %.1f s, %.2f s of the daemon's CPU" % (total, STAY, lasted, cpu))
    for line in broken + right + limits:
        if " ended: " not in line:
            print("  log: " + line)
    for fault in faults[:5]:
        print("  " + fault)
    verdict("%d of %d members have each of %d messages once and in order" % (
        sum(member.has_all() and not member.fault for member in stay), STAY, total),
        all(member.has_all() and not member.fault for member in stay))
    rate = total / took
    verdict("%d messages a second were published, at most %d at once" % (rate, most), rate > 0.95 * RATE)
    verdict("the broken file changes nothing and says why in one line",
            len(broken) == 1 and bool(re.search(r"not reloaded.*slotcast\.toml:\d+:\d+: max-message", broken[0])))
    ended = [member.at - marks["right"][1] for member in leave if member.has_all() and not member.fault]
    verdict("%d of %d members end with 1008 forbidden as their right is taken, %s ms after SIGHUP" % (
        len(ended), LEAVE, "%.0f to %.0f" % (min(ended) * 1e3, max(ended) * 1e3) if ended else "no"),
        len(ended) == LEAVE and any(re.search(r"memberships that ended.*: %d$" % LEAVE, line.rstrip()) for line in right))
    verdict("other limits hold", any("changed --max-message, --history-messages" in line for line in limits))


# ------------------------------------------------------------------- all

def main():
    kinds = {"herd": herd, "memory": memory, "reload": reload_under_load}
    wanted = sys.argv[1:] or list(kinds)
    if not set(wanted) <= set(kinds):
        print(__doc__.strip())
        return 0 if set(wanted) & {"-h", "--help"} else 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A daemon has the same limit, and needs 128 descriptors for itself.
    if hard < COUNT + 300:
        print("FAILED: ulimit -Hn is %d, and %d connections need more" % (hard, COUNT))
        return 1
    command, results = binary(), []
    os.sched_setaffinity(0, CORES[-1:])
    hurry()

    def verdict(what, holds):
        print("%s  %s" % ("ok    " if holds else "FAILED", what), flush=True)
        results.append(holds)

    for name in wanted:
        begun, before = time.monotonic(), busy()
        kinds[name](command, verdict)
        took = time.monotonic() - begun
        others = (busy() - before) / took * 100
        print("  %s took %.0f s; others on the machine took %.0f %% of a core" % (name, took, others), flush=True)
    print("%d passed, %d failed" % (sum(results), len(results) - sum(results)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
