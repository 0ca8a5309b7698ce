#!/usr/bin/env python3
"""When readers of one stream have each message, beside curl: streams.py BINARY. Needs curl, and the packages of
tests/clients/pins.txt (make test puts them into .tools/clients-venv).

The last line is "N passed, N failed"."""

import shutil
import statistics
import subprocess
import sys
import threading
import time

try:
    import requests
    import sseclient
except ImportError as missing:
    print("SKIPPED: %s; run it with .tools/clients-venv/bin/python" % missing)
    sys.exit(0)

from figures import Broker

MESSAGES = 200
APART = 0.01
LATEST = 0.020


def by_curl(url):
    child = subprocess.Popen(["curl", "-sN", "-H", "Accept: text/event-stream", url], stdout=subprocess.PIPE, bufsize=0)
    for line in iter(child.stdout.readline, b""):
        yield line.decode().rstrip("\n")


def by_requests(url):
    for line in opened(url).iter_lines():
        yield line.decode()


def by_sseclient(url):
    for event in sseclient.SSEClient(opened(url)).events():
        yield "data: " + event.data


def opened(url):
    session = requests.Session()
    session.trust_env = False
    return session.get(url, headers={"Accept": "text/event-stream"}, stream=True, timeout=60)


def follow(reader, url, seen):
    for line in reader(url):
        if line.startswith("data: message "):
            seen.append(time.monotonic())
        if len(seen) == MESSAGES:
            return


def main(binary):
    if not shutil.which("curl"):
        print("SKIPPED: needs curl")
        return 0
    broker = Broker(binary)
    try:
        url = "http://127.0.0.1:%d/times" % broker.port
        readers = [by_curl, by_requests, by_sseclient]
        seen = {reader: [] for reader in readers}
        threads = [threading.Thread(target=follow, args=(reader, url, seen[reader]), daemon=True) for reader in readers]
        for thread in threads:
            thread.start()
        session = requests.Session()
        session.trust_env = False
        while session.get(url.replace("/times", "/-/channels/times")).json().get("members", 0) < len(readers):
            time.sleep(0.01)
        for number in range(MESSAGES):
            session.post(url, data="message %d" % number)
            time.sleep(APART)
        for thread in threads:
            thread.join(60)
    finally:
        broker.stop()
    failed = 0
    for reader in readers[1:]:
        later = [mine - curl for mine, curl in zip(seen[reader], seen[by_curl])]
        bad = len(later) < MESSAGES or max(later) > LATEST
        failed += bad
        print("%s: %d of %d messages, after curl by %.2f ms in the median, %.2f ms at most%s" % (
            reader.__name__.removeprefix("by_"), len(later), MESSAGES, 1e3 * statistics.median(later), 1e3 * max(later, default=0),
            ", EXPECTED at most %.0f ms" % (1e3 * LATEST) if bad else ""))
    print("%d passed, %d failed" % (len(readers) - 1 - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
