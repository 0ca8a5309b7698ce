"""permessage-deflate with Python's websockets, in several ways that it can be asked for, against the real broker.

    python deflate.py http://127.0.0.1:8080        the broker lets a few keep their window (--client-takeover 4)

MESSAGES messages (default 1,000) of 0 B to 1 MiB go there and back, text and bytes, and are compared. SEED=n
repeats a run. The last line is "N passed, N failed".
"""

import os
import random
import sys
import zlib

from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

MESSAGES = int(os.environ.get("MESSAGES", "1000"))
MOST = 1 << 20
WORDS = ["broker", "channel", "ß", "🦀", " ", "\n", '{"x":', "0", "1", "2"]
ALONE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


# Empty messages in forms that no library writes but RFC 7692 §7.2 allows: without a byte, and with last blocks.
NOTHING = [b"", b"\0", b"\1", b"\3\0", b"\3\0\0", b"\1\0\0\xff\xff\0"]


class Oddly(Deflate):
    """Rewrites empty messages into these forms. Where each message is for itself, others become whole streams."""

    def process_response_params(self, params, accepted):
        extension = super().process_response_params(params, accepted)
        encode, dice = extension.encode, random.Random(1)

        def oddly(frame):
            if frame.opcode not in (Opcode.TEXT, Opcode.BINARY):
                return encode(frame)
            if not frame.data:
                return Frame(frame.opcode, dice.choice(NOTHING), rsv1=True)
            if not extension.local_no_context_takeover or dice.randrange(3):
                return encode(frame)
            compress = zlib.compressobj(wbits=-15)
            data = compress.compress(frame.data) + compress.flush() + bytes(dice.randrange(2))
            return Frame(frame.opcode, data, rsv1=True)

        extension.encode = oddly
        return extension


def message(dice):
    length = dice.randrange(MOST + 1) if dice.randrange(20) == 0 else dice.randrange(dice.choice((2, 300, 5000, 20000)))
    if dice.randrange(3) == 0:
        return dice.randbytes(min(length, 4000))
    text = "".join(dice.choices(WORDS, k=length // 8))
    return text if dice.randrange(2) else text.encode()


def run(url, dice, extensions, agreed):
    with connect(url, compression=None, extensions=extensions, proxy=None, max_size=MOST) as socket:
        told = socket.response.headers.get("Sec-WebSocket-Extensions", "")
        assert told == agreed, f"agreed to {told}"
        for number in range(MESSAGES):
            sent = message(dice)
            socket.send(sent)
            assert socket.recv(timeout=30) == sent, f"message {number} differs"


def main():
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SEED={seed}")
    dice = random.Random(seed)
    url = sys.argv[1].rstrip("/").replace("http", "ws", 1) + "/python-deflate"
    cases = (
        ("a window of 9 bits", [Deflate(server_max_window_bits=9, client_max_window_bits=9, client_no_context_takeover=True)], f"{ALONE}; server_max_window_bits=9"),
        ("a window of 15 bits", [Deflate(server_max_window_bits=15, client_no_context_takeover=True)], f"{ALONE}; server_max_window_bits=15"),
        ("takeover refused", [Deflate(server_no_context_takeover=True, client_no_context_takeover=True)], ALONE),
        ("takeover asked", [Deflate()], "permessage-deflate; server_no_context_takeover"),
        ("takeover asked, with last blocks", [Oddly()], "permessage-deflate; server_no_context_takeover"),
        ("takeover refused, with last blocks", [Oddly(client_no_context_takeover=True)], ALONE),
        ("none", None, ""),
    )
    passed = failed = 0
    for name, extensions, agreed in cases:
        try:
            run(url, dice, extensions, agreed)
            passed += 1
            print(f"ok     {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
