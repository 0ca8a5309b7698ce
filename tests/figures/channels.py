#!/usr/bin/env python3
"""The memory of channels in one broker: channels.py BINARY [CHANNELS]. Each is published to once, by POST over kept
connections. With time only their positions are left, and then nothing. Standard library and /proc only.

Freed memory serves the next channels, and is not given back to the system: glibc gives back only the end of the heap.
So further rounds show that it is used again, and the cost of a position is measured in a fresh broker."""

import select
import socket
import sys
import time

from figures import MIB, Broker, settled, table

CONNECTIONS = 50
AT_ONCE = 40     # requests that are sent before an answer is read
PAYLOAD = 100    # bytes
AGE = 8          # seconds, of histories and then of positions: longer than publishing takes
COUNTED = 256 + 64 + PAYLOAD  # what a channel with one message counts for in --history-total
LIMITS = {  # figure: (limit, unit)
    "RSS per channel with one message": (COUNTED, "B"),
    "growth from the second round to the third": (2, "%"),
    "RSS per channel without history": (128, "B"),
}


def name(i):
    return "/c%08d" % i


def publish(port, count):
    """Publishes to every channel once; several requests at a time on each connection."""
    head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    batches = [range(at, min(at + AT_ONCE, count)) for at in range(0, count, AT_ONCE)]
    waiting, poll = {}, select.epoll()

    def send(s):
        if not batches:
            return False
        batch = batches.pop()
        s.sendall(b"".join(head % (name(i).encode(), PAYLOAD) + b"x" * PAYLOAD for i in batch))
        waiting[s.fileno()] = [s, len(batch), b""]
        return True

    for _ in range(CONNECTIONS):
        s = socket.create_connection(("127.0.0.1", port), timeout=20)
        if send(s):
            poll.register(s.fileno(), select.EPOLLIN)
    while waiting:
        ready = poll.poll(20)
        if not ready:
            raise SystemExit("the broker does not answer")
        for fd, _ in ready:
            state = waiting[fd]
            s, left, rest = state
            rest += s.recv(65536) or sys.exit("the broker closed a connection that is to be kept")
            answered = rest.count(b'"receivers":0}\n')
            state[1], state[2] = left - answered, rest[rest.rfind(b'"receivers":0}\n') + 1:]
            if state[1] == 0 and not send(s):
                poll.unregister(fd)
                del waiting[fd]
                s.close()


def ask(port, channel):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
        s.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" % channel.encode())
        answer = b""
        while chunk := s.recv(65536):
            answer += chunk
    return answer


def wait_until(port, channels, is_so, what):
    deadline = time.monotonic() + AGE + 15
    for channel in channels:
        while not is_so(ask(port, channel)):
            if time.monotonic() > deadline:
                raise SystemExit("%s: it is not so after %d s" % (what, AGE + 15))
            time.sleep(0.2)


def one_round(broker, count):
    begun = time.monotonic()
    publish(broker.port, count)
    took = time.monotonic() - begun
    if took > AGE * 0.8:
        raise SystemExit("publishing took %.1f s: too slow for ages of %d s" % (took, AGE))
    full = broker.rss()
    ends = [name(0), name(count // 2), name(count - 1)]
    wait_until(broker.port, ends, lambda answer: b'"messages":[{' in answer, "each has its message")
    wait_until(broker.port, ends, lambda answer: b'"messages":[]' in answer, "histories are too old")
    tombstones = settled(broker.rss)
    wait_until(broker.port, ends, lambda answer: b'"position":"0.0"' in answer, "positions are too old")
    empty = settled(broker.rss)
    print("  %d channels in %.1f s: RSS %.2f MiB with history, %.2f MiB as positions, %.2f MiB when all are gone" % (
        count, took, full / MIB, tombstones / MIB, empty / MIB), flush=True)
    return full


def measure_histories(binary, count, figures):
    broker = Broker(binary, "--history-age", "%ds" % AGE, "--position-age", "%ds" % AGE, "--max-channels", str(count))
    try:
        publish(broker.port, 1)
        rest = settled(broker.rss)
        print("  at rest: RSS %.2f MiB; the histories will count for %.2f MiB" % (rest / MIB, count * COUNTED / MIB))
        first = one_round(broker, count)
        second = one_round(broker, count)
        third = one_round(broker, count)
    finally:
        broker.stop()
    figures["RSS per channel with one message"] = (first - rest) / count
    figures["growth from the second round to the third"] = (third - second) / second * 100


def measure_positions(binary, count, figures):
    broker = Broker(binary, "--history-messages", "0", "--max-channels", str(count))
    try:
        publish(broker.port, 1)
        rest = settled(broker.rss)
        publish(broker.port, count)
        tombstones = settled(broker.rss)
        print("  %d channels without history: RSS %.2f MiB" % (count, tombstones / MIB), flush=True)
    finally:
        broker.stop()
    figures["RSS per channel without history"] = (tombstones - rest) / count


def main(binary, count):
    figures = {}
    try:
        measure_histories(binary, count, figures)
        measure_positions(binary, count, figures)
    except (SystemExit, OSError) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100_000))
