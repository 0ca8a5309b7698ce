#!/usr/bin/env python3
"""Long polls that one POST answers: polls.py BINARY CROWD [COUNT]. The time from the POST's first byte to
the last byte of each answer, over kept connections that ask again each round."""

import resource
import statistics
import subprocess
import sys

from figures import Broker, settled, table

ROUNDS = 15
PATIENCE = 120  # seconds for all rounds
LIMITS = {  # figure: (limit, unit)
    "RSS per waiting poll, its connection included": (1024, "B"),
    "until half of them are answered": (100, "ms"),
    "until 99 % of them are answered": (100, "ms"),
}


def measure(binary, client, count, figures):
    broker = Broker(binary, "--max-connections", str(count + 100))
    crowd = None
    try:
        broker.greet()
        rest = settled(broker.rss)
        crowd = subprocess.Popen([client, "poll", str(broker.port), str(count), str(ROUNDS)], text=True,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if not crowd.stdout.readline().startswith("held "):
            raise SystemExit("the crowd has failed")
        figures["RSS per waiting poll, its connection included"] = (settled(broker.rss) - rest) / count
        said, _ = crowd.communicate("\n", PATIENCE)
        if crowd.returncode != 0:
            raise SystemExit("the crowd has failed")
    finally:
        if crowd and crowd.poll() is None:
            crowd.kill()
            crowd.wait()
        broker.stop()
    times = {"p50_ms": [], "p99_ms": []}
    for line in said.splitlines():
        name, value = line.split()
        times[name].append(float(value))
    for name, found in times.items():
        print("  %d polls, %d rounds: %s from %.1f to %.1f" % (count, len(found), name, min(found), max(found)), flush=True)
    figures["until half of them are answered"] = statistics.median(times["p50_ms"])
    figures["until 99 % of them are answered"] = statistics.median(times["p99_ms"])


def main(binary, client, count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = {}
    try:
        measure(binary, client, count, figures)
    except (SystemExit, OSError, subprocess.TimeoutExpired) as e:
        print("FAILED: %s" % e)
    return table(LIMITS, figures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 5_000))
