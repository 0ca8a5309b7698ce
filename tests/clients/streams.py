"""Python's readers of streams get each message at once: requests and sseclient-py, from streams of both kinds.

    python streams.py http://127.0.0.1:8080

A stream without chunks they would read in blocks of 128 or 512 bytes, so that a message waits for the next ones. Here
the next message is only published when a reader has seen the last, so a reader that waits for more waits for ever. The
last line is "N passed, N failed".
"""

import json
import queue
import sys
import threading

import requests
import sseclient

MESSAGES = 20
SECONDS = 30


def by_lines(base):
    with session().get(base, headers={"Accept": "text/event-stream"}, stream=True, timeout=SECONDS) as answer:
        yield None
        for line in answer.iter_lines(decode_unicode=True):
            if line.startswith("data: message"):
                yield line.removeprefix("data: ")


def by_ndjson_lines(base):
    with session().get(base, headers={"Accept": "application/x-ndjson"}, stream=True, timeout=SECONDS) as answer:
        yield None
        for line in answer.iter_lines():
            told = json.loads(line)
            if told["type"] == "message":
                yield told["data"]


def by_sseclient(base):
    with session().get(base, headers={"Accept": "text/event-stream"}, stream=True, timeout=SECONDS) as answer:
        yield None
        for event in sseclient.SSEClient(answer).events():
            if event.event == "message":
                yield event.data


def session():
    session = requests.Session()
    session.trust_env = False
    return session


def follow(reader, base, seen):
    try:
        for text in reader(base):
            seen.put(text)
            if text == f"message {MESSAGES - 1}":
                return
    except Exception as error:  # told by the main thread
        seen.put(error)


def run(reader, base):
    seen = queue.Queue()
    threading.Thread(target=follow, args=(reader, base, seen), daemon=True).start()
    first = seen.get(timeout=SECONDS)
    assert first is None, first
    for number in range(MESSAGES):
        text = f"message {number}"
        answer = session().post(base, data=text, timeout=SECONDS)
        assert answer.json()["receivers"] == 1, answer.text
        told = seen.get(timeout=SECONDS)
        assert told == text, told


def main():
    base = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080").rstrip("/")
    passed = failed = 0
    for reader in (by_lines, by_ndjson_lines, by_sseclient):
        try:
            run(reader, f"{base}/streams/{reader.__name__}")
            error = ""
        except queue.Empty:
            error = ": a message waits for more"
        except Exception as problem:
            error = f": {problem!r}"
        passed, failed = passed + (not error), failed + bool(error)
        print(f"{'FAILED' if error else 'ok    '} {reader.__name__}: {MESSAGES} messages, each seen before the next is sent{error}",
              flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
