"""Python's clients read why they are refused, however much they have on its way: urllib, http.client, websockets.

    python refused.py http://127.0.0.1:8080        the broker takes messages of 1 MiB at the most

TRIES (default 3) messages of each client and size, of 1.1 to 64 MiB, plain and compressed. The last line is
"N passed, N failed".
"""

import http.client
import os
import random
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

TRIES = int(os.environ.get("TRIES", "3"))
MIB = 1 << 20
SIZES = [MIB + MIB // 10, 2 * MIB, 8 * MIB, 10 * MIB, 64 * MIB]
SECONDS = 60
# Noise does not shrink, so that a compressed message is as long on its way.
NOISE = random.Random(1).randbytes(64 * MIB)


def by_urllib(base, body):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(base + "/refused", data=body, method="POST"), timeout=SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def by_http_client(base, body):
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=SECONDS)
    connection.request("POST", "/refused", body)
    return connection.getresponse().status


def chunked(base, body):
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=SECONDS)
    blocks = (body[at : at + 65536] for at in range(0, len(body), 65536))
    connection.request("POST", "/refused", blocks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    return connection.getresponse().status


def by_websockets(base, body, compression=None):
    with connect(base.replace("http", "ws", 1) + "/refused", compression=compression, proxy=None) as socket:
        try:
            socket.send(body)
            socket.recv(timeout=SECONDS)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else str(closed)


def compressed(base, body):
    return by_websockets(base, body, "deflate")


def main():
    base = (sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080").rstrip("/")
    passed = failed = 0
    kinds = [(by_urllib, 413), (by_http_client, 413), (chunked, 413), (by_websockets, 1009), (compressed, 1009)]
    for client, expected in kinds:
        for size in SIZES:
            others = []
            for _ in range(TRIES):
                try:
                    told = client(base, NOISE[:size])
                except OSError as error:
                    told = repr(error)
                if told != expected:
                    others.append(told)
            ok = not others
            passed, failed = passed + ok, failed + (not ok)
            print(f"{'ok    ' if ok else 'FAILED'} {client.__name__}, {size / MIB:.1f} MiB: {TRIES - len(others)} of {TRIES}"
                  + (f" see {expected}, not {others[0]}" if others else f" see {expected}"), flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
