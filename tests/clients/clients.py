"""Python's clients against the real broker: httpx-sse, httpx and websockets on one channel.

    python clients.py http://127.0.0.1:8080        the broker must keep 500 messages and 8 MiB of them

500 messages of random text and random bytes are published, some by WebSocket, some by POST. Three followers must get
all of them, in that order: a WebSocket, Server-Sent Events that hang up now and then and resume with Last-Event-ID,
and a loop of long polls. SEED=n repeats a run. The last line is "N passed, N failed".
"""

import base64
import os
import random
import re
import sys
import threading
import time

import httpx
from httpx_sse import connect_sse
from websockets.sync.client import connect

MESSAGES = 500
SECONDS = 60
LINE_END = re.compile("\r\n|\r|\n")
# Line ends of every kind, also those that only Python's splitlines() knows, and characters that JSON and SSE must
# escape.
ALPHABET = "abc :\"\\/<&\t\r\n\0\x0b\x0c\x1e\x85\u2028\u2029\ufeffäß世界🦀"


def random_message(dice):
    length = dice.choice((0, 1, dice.randrange(50), dice.randrange(3000)))
    if dice.random() < 0.5:
        return dice.randbytes(length)
    return "".join(dice.choices(ALPHABET, k=length))


class Follower(threading.Thread):
    """Gets messages in a thread of its own until it has all, or has failed."""

    def __init__(self, name, body, *arguments):
        super().__init__(name=name, daemon=True)
        self.body, self.arguments = body, arguments
        self.got, self.rounds, self.error = [], 0, None
        self.ready = threading.Event()
        self.start()

    def run(self):
        try:
            self.body(self, *self.arguments)
        except Exception as error:  # told by the main thread
            self.error = error
        self.ready.set()


def client():
    return httpx.Client(trust_env=False, timeout=SECONDS)


def follow_events(self, channel, dice):
    """Every round hangs up after some messages; the next resumes after the last."""
    position = None
    with client() as http:
        while len(self.got) < MESSAGES:
            self.rounds += 1
            headers = {"Last-Event-ID": position} if position else {}
            enough = len(self.got) + dice.randrange(1, 60)
            with connect_sse(http, "GET", channel, headers=headers) as source:
                assert source.response.status_code == 200, source.response
                self.ready.set()
                for event in source.iter_sse():
                    if event.event in ("join", "leave"):
                        continue
                    assert event.event in ("message", "binary"), event
                    position = event.id
                    # httpx-sse also hands out the opening, which has no data; a browser would not.
                    if event.retry is not None:
                        continue
                    self.got.append(base64.b64decode(event.data) if event.event == "binary" else event.data)
                    if len(self.got) in (enough, MESSAGES):
                        break


def follow_polls(self, channel):
    with client() as http:
        since = http.get(channel).json()["position"]
        self.ready.set()
        while len(self.got) < MESSAGES:
            self.rounds += 1
            answer = http.get(channel, params={"since": since, "wait": 10})
            assert answer.status_code == 200, answer
            told = answer.json()
            assert not told["lost"], told["lost"]
            since = told["position"]
            for it in told["messages"]:
                self.got.append(base64.b64decode(it["data_base64"]) if "data_base64" in it else it["data"])


def publish(channel, dice):
    """Sends all, one after the other; returns what was sent and what a WebSocket of the channel got."""
    sent, got = [], []
    with client() as http, connect(channel.replace("http", "ws", 1), proxy=None, max_size=None) as socket:
        for _ in range(MESSAGES):
            message = random_message(dice)
            if dice.random() < 0.5:
                socket.send(message)
            else:
                kind = "text/plain; charset=utf-8" if isinstance(message, str) else "application/octet-stream"
                body = message.encode() if isinstance(message, str) else message
                answer = http.post(channel, content=body, headers={"Content-Type": kind})
                assert answer.status_code == 200, answer.text
            sent.append(message)
            # When its own copy has come, the message has its place, and the next one may be sent.
            got.append(socket.recv(timeout=SECONDS))
    return sent, got


def compare(follower, got, expected, error=None):
    """None if both are the same, else what is wrong."""
    if error is not None:
        return f"{type(error).__name__}: {error}"
    for index, (one, other) in enumerate(zip(got, expected)):
        if one != other:
            return f"message {index} is {one!r:.200}, not {other!r:.200}"
    if len(got) != len(expected):
        return f"{follower} got {len(got)} of {len(expected)} messages"
    return None


def main():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    channel = sys.argv[1].rstrip("/") + "/clients"
    polls = Follower("long polls", follow_polls, channel)
    events = Follower("events", follow_events, channel, random.Random(seed + 1))
    followers = (events, polls)
    for follower in followers:
        assert follower.ready.wait(SECONDS), f"{follower.name} cannot begin"
    sent, got = publish(channel, dice)
    end = time.monotonic() + SECONDS
    for follower in followers:
        follower.join(max(0, end - time.monotonic()))

    # An event stream has lines, not line ends.
    lines = [LINE_END.sub("\n", it) if isinstance(it, str) else it for it in sent]
    results = {
        "websockets gets every message as it was sent": compare("it", got, sent),
        "httpx-sse resumes without a gap and without a double": compare("it", events.got, lines, events.error),
        "httpx-sse has hung up in between": None if events.rounds > 5 else f"{events.rounds} rounds",
        "long polls get every message as it was sent": compare("it", polls.got, sent, polls.error),
        "long polls were answered more than once": None if polls.rounds > 5 else f"{polls.rounds} rounds",
    }
    for name, wrong in results.items():
        print(f"FAILED {name}: {wrong}" if wrong else f"ok     {name}")
    failed = sum(wrong is not None for wrong in results.values())
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
