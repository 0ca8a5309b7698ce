#!/usr/bin/env python3
"""Ten thousand connections that come back at once: rejoin.py BINARY CROWD [COUNT]. Each wants the last 100 messages,
256 KiB, and then gets a live one. To compare, in turns: the same bytes by plain sends to the same reader, from
`CROWD serve`."""

import http.client
import os
import re
import resource
import statistics
import subprocess
import sys

from figures import MIB, Broker, settled, table

ROUNDS = 3
PATIENCE = 120  # seconds for one round
LIMITS = {  # figure: (limit, unit)
    "until all have all, over plain sends": (1.5, "x"),
    "CPU of the broker, over plain sends": (2, "x"),
    "RSS at the peak, beyond the broker at rest": (24, "MiB"),
    "messages encoded": (1_000, ""),
    "longest wait of one in another channel": (250, "ms"),
}


def cpu(pid):
    """CPU seconds of a process so far, those in the kernel included."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(pid):
    with open("/proc/%d/status" % pid) as f:
        return int(re.search(r"VmHWM:\s+(\d+) kB", f.read())[1]) * 1024


def crowd(binary, *words):
    """The measurements of a crowd, by name."""
    done = subprocess.run([binary, *map(str, words)], capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode != 0:
        raise SystemExit("%s: %s" % (" ".join(map(str, words)), done.stderr.strip()))
    return {name: float(value) for name, value in (line.split() for line in done.stdout.splitlines())}


def encoded(port):
    # urllib.request sends Connection: close, and the broker would take it for a proxy.
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    asking.request("GET", "/-/metrics")
    with asking.getresponse() as answer:
        return int(re.search(rb"^slotcast_messages_encoded_total (\d+)$", answer.read(), re.M)[1])


def by_broker(binary, client, count):
    broker = Broker(binary, "--max-connections", str(count + 100), "--ping-interval", "1h")
    try:
        rest = settled(broker.rss)
        found = crowd(client, "rejoin", broker.port, count)
        # The other connection's messages are encoded too, one for each round trip.
        found["encoded"] = encoded(broker.port) - found["other_count"]
        found["cpu"], found["peak"] = cpu(broker.process.pid), peak(broker.process.pid) - rest
    finally:
        broker.stop()
    return found


def by_plain_sends(client, count):
    server = subprocess.Popen([client, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        found = crowd(client, "rejoin", server.stdout.readline().split()[1], count, "plain")
        found["cpu"] = cpu(server.pid)
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    return found


def measure(binary, client, count, figures):
    ours, plain = [], []
    for number in range(ROUNDS):
        plain.append(by_plain_sends(client, count))
        ours.append(by_broker(binary, client, count))
        print("  round %d: %d x %.0f KiB in %.2f s, %.2f s of CPU, by plain sends %.2f s, %.2f s; a live message to all %.0f ms" % (
            number + 1, count, ours[-1]["bytes"] / count / 1024, ours[-1]["seconds"], ours[-1]["cpu"],
            plain[-1]["seconds"], plain[-1]["cpu"], ours[-1]["live_ms"]), flush=True)
    median = lambda rounds, name: statistics.median(found[name] for found in rounds)
    figures["until all have all, over plain sends"] = median(ours, "seconds") / median(plain, "seconds")
    figures["CPU of the broker, over plain sends"] = median(ours, "cpu") / median(plain, "cpu")
    figures["RSS at the peak, beyond the broker at rest"] = max(found["peak"] for found in ours) / MIB
    figures["messages encoded"] = max(found["encoded"] for found in ours)
    figures["longest wait of one in another channel"] = median(ours, "other_ms")


def main(binary, client, count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {}
    try:
        measure(binary, client, min(count, hard - 200), figures)
    except (SystemExit, OSError, subprocess.TimeoutExpired) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10_000))
