"""The real nginx, Caddy and HAProxy before the real broker, configured with the very snippets of the documentation.

    python proxies.py slotcast [nginx] [caddy] [haproxy]      the first is the broker's binary

Only addresses and ports are put in. The last line is "N passed, N failed".
"""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import requests
import websockets

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECONDS = 20
MIB = 1 << 20


# ------------------------------------------------------------------ what is configured


def snippet(language, number=0):
    """The n-th block of this language in the documentation, by default the first."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.M | re.S)
    found = [block for page in pages for block in fence.findall(page.read_text())]
    assert len(found) > number, f"the documentation has {len(found)} blocks of {language}"
    return found[number]


def replaced(text, *pairs):
    for old, new in pairs:
        assert old in text, f"the snippet has no {old!r}:\n{text}"
        text = text.replace(old, new)
    return text


def nginx(folder, port, broker, auth=None):
    text = replaced(snippet("nginx"), ("listen 80;", f"listen 127.0.0.1:{port};"), ("127.0.0.1:8080", f"127.0.0.1:{broker}"))
    main = [line.removeprefix("# ") for line in text.splitlines() if re.match("# (events|worker_rlimit)", line)]
    if auth:
        rules = replaced(
            snippet("nginx", 1), ("127.0.0.1:8080", f"127.0.0.1:{broker}"), ("127.0.0.1:3000", f"127.0.0.1:{auth}")
        )
        fields = "\n".join(line for line in text.splitlines() if re.match(" +proxy_(set_header|http_version|read)", line))
        rules = replaced(rules, ("        # and all the other lines", fields + "\n        # and all the other lines"))
        end = text.rindex("}")
        text = text[:end] + rules + text[end:]
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Smaller numbers than in the snippet: the tests run with few descriptors.
    main = "\n".join(main).replace("40000", "4000").replace("20000", "2000")
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr;\n{main}\nhttp {{\naccess_log off;\n{temporary}{text}\n}}\n"
    )
    return ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf")]


def caddy(folder, port, broker):
    text = replaced(snippet("caddy"), ("example.com", f"http://127.0.0.1:{port}"), ("127.0.0.1:8080", f"127.0.0.1:{broker}"))
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def haproxy(folder, port, broker, check="option httpchk GET /-/health"):
    text = replaced(
        snippet("haproxy"),
        ("bind :80\n", f"bind 127.0.0.1:{port}\n"),
        ("127.0.0.1:8080 check", f"127.0.0.1:{broker} check inter 1s rise 1"),
        ("maxconn 20000", "maxconn 2000"),
        ("option httpchk GET /-/health", check),
    )
    text = text.replace("global\n", f"global\n    stats socket {folder}/stats\n", 1)
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


# ------------------------------------------------------------------ processes


def free_ports(count):
    """Ports that are all different."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@contextlib.contextmanager
def process(command, log, port):
    """A child that listens to this port, until it is no longer needed."""
    with open(log, "wb") as out:
        # Caddy keeps files in its home; SLOTCAST_* would configure the broker.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLOTCAST_", "XDG_"))}
        home = {**inherited, "HOME": str(pathlib.Path(log).parent)}
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=home)
    try:
        until(f"{command[0]} listens", lambda: listens(port, child, log))
        yield child
    finally:
        child.terminate()
        try:
            child.wait(SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def listens(port, child, log):
    assert child.poll() is None, f"{child.args[0]} ended:\n{pathlib.Path(log).read_text()}"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def until(what, condition):
    """Polls a condition."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited {SECONDS} s until {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def site(binary, proxy, *flags, **options):
    """A broker, and a proxy before it. Gives the proxy's port, the broker's, its process, and their folder."""
    with tempfile.TemporaryDirectory(prefix="slotcast-proxies-") as name:
        folder, (broker, port) = pathlib.Path(name), free_ports(2)
        # A worker of nginx may be another user, and has temporary files there.
        folder.chmod(0o755)
        command = [binary, "--listen", f"127.0.0.1:{broker}", *flags]
        with process(command, folder / "broker.log", broker) as child:
            with process(proxy(folder, port, broker, **options), folder / "proxy.log", port):
                yield Site(port, broker, child, folder)


class Site:
    def __init__(self, port, broker, child, folder):
        self.port, self.broker, self.child, self.folder = port, broker, child, folder
        self.http = f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.session.trust_env = False
        until("the proxy finds the broker", lambda: self.ask("GET", "/-/health").status_code == 200)

    def ask(self, method, path, **options):
        return self.session.request(method, self.http + path, timeout=SECONDS, **options)

    def websocket(self, path, **options):
        return websockets.connect(f"ws://127.0.0.1:{self.port}{path}", proxy=None, open_timeout=SECONDS, **options)


async def within(future):
    return await asyncio.wait_for(future, SECONDS)


# ------------------------------------------------------------------ what must work through each of them


def a_websocket_and_a_post(site):
    async def talk():
        async with site.websocket("/room") as one, site.websocket("/room", subprotocols=["v1.slotcast.json"]) as other:
            welcome = json.loads(await within(other.recv()))
            assert welcome["type"] == "welcome", welcome
            await one.send("from a socket")
            assert (await told(other, "message"))["data"] == "from a socket"
            answer = await asyncio.to_thread(site.ask, "POST", "/room", data="posted")
            assert answer.status_code == 200 and answer.json()["receivers"] == 2, answer.text
            # A raw member gets its own message, too.
            heard = [await within(one.recv()), await within(one.recv())]
            assert heard == ["from a socket", "posted"], heard
            assert (await told(other, "message"))["data"] == "posted"

    asyncio.run(talk())


async def told(socket, kind):
    """The next message of this type; notices about members may come before it."""
    while True:
        event = json.loads(await within(socket.recv()))
        if event["type"] == kind:
            return event


def streams_are_not_held_back(site):
    """Publishes the next message when the last has come: a message that the proxy holds back would never come."""
    for accept, begins in (("text/event-stream", "data: one "), ("application/x-ndjson", "one ")):
        answer = site.ask("GET", "/stream", headers={"Accept": accept}, stream=True)
        assert answer.status_code == 200 and answer.headers["Content-Type"].startswith(accept), answer.headers
        lines = (line.decode() for line in answer.iter_lines())
        for number in range(5):
            site.ask("POST", "/stream", data=f"one {number}")
            wanted = begins.removeprefix("data: ") + str(number)
            assert any(wanted in line for line in lines), f"{accept}: the stream ends before {wanted}"
        answer.close()


def a_poll_is_held_and_answered(site):
    before = site.ask("POST", "/poll", data="first").json()
    held = []
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        session.trust_env = False
        url = f"{site.http}/poll?since={before['position']}&wait=15"
        ask = threading.Thread(target=lambda: held.append(session.get(url, timeout=SECONDS)))
        ask.start()
        # It asks for what follows the first, so it makes no difference which came first.
        site.ask("POST", "/poll", data="second")
        ask.join(SECONDS)
    assert held and "second" in held[0].text, held and held[0].text


def bodies_up_to_the_limit(site):
    answer = site.ask("POST", "/large", data=b"x" * MIB)
    assert answer.status_code == 200, (answer.status_code, answer.text)
    answer = site.ask("POST", "/large", data=b"x" * (MIB + 1))
    assert answer.status_code == 413, (answer.status_code, answer.text)


def addresses_are_those_of_the_peers(site):
    """With --trusted-proxy the connection limit counts for each peer, and not for the proxy."""

    async def fill():
        opened = []
        try:
            for number in range(3):
                says = {"X-Forwarded-For": f"192.0.2.{number}"}
                opened.append(await site.websocket("/full", additional_headers=says, local_addr=("127.0.0.2", 0)))
        except websockets.InvalidStatus as error:
            return len(opened), error.response.status_code
        finally:
            for socket in opened:
                await socket.close()
        return len(opened), None

    # The address that a peer claims does not count: the proxy adds the one that it sees.
    assert asyncio.run(fill()) == (2, 503)


def a_shutdown_says_goodbye(site):
    async def wait():
        async with site.websocket("/goodbye") as socket:
            site.child.terminate()
            with contextlib.suppress(websockets.ConnectionClosed):
                await within(socket.recv())
            return socket.close_code

    code = asyncio.run(wait())
    assert code == 1001, code
    assert site.child.wait(SECONDS) == 0


EACH = [
    a_websocket_and_a_post,
    streams_are_not_held_back,
    a_poll_is_held_and_answered,
    bodies_up_to_the_limit,
    a_shutdown_says_goodbye,
]


# ------------------------------------------------------------------ what is said of one of them


def haproxy_finds_it_up(binary, check):
    """HAProxy's default check, without a path and with HTTP/1.0, and the documented one."""
    with site(binary, haproxy, check=check) as here:
        # Until the first check has ended, HAProxy takes the broker to be up.
        until("a check has ended", lambda: checked(here)["check_status"] not in ("UNK", "INI"))
        row = checked(here)
        assert (row["status"], row["check_status"]) == ("UP", "L7OK"), (row["status"], row["check_status"], row["check_code"])


def checked(here):
    """HAProxy's state of the broker."""
    with socket.socket(socket.AF_UNIX) as stats:
        stats.connect(str(here.folder / "stats"))
        stats.sendall(b"show stat\n")
        rows = [line.split(",") for line in stats.makefile().read().splitlines()]
    names = [name.lstrip("# ") for name in rows[0]]
    row = next(dict(zip(names, row)) for row in rows if row[:2] == ["slotcast", "slotcast"])
    # While the next check is under way, a star stands before the last result.
    row["check_status"] = row["check_status"].removeprefix("* ")
    return row


def nginx_asks_before_it_lets_in(binary):
    """The lines for /private/: a peer that is refused there cannot get there by another URL."""
    (auth,) = free_ports(1)
    server = (
        "import http.server, sys\n"
        "class Auth(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        allowed = self.headers['Cookie'] == 'user=ann' and self.headers['X-Original-URI'].startswith('/private/')\n"
        "        self.send_response(204 if allowed else 401)\n"
        "        self.end_headers()\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Auth).serve_forever()\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        with process([sys.executable, "-c", server, str(auth)], pathlib.Path(folder) / "log", auth):
            with site(binary, nginx, "--single-channel", auth=auth) as here:
                ann = {"Cookie": "user=ann"}
                for spelling in ("/private/x", "/%70rivate/x", "//private/x", "/public/../private/x"):
                    status = raw_status(here.port, spelling)
                    assert status in (400, 401, 404), (spelling, status)
                assert here.ask("POST", "/private/x", data="secret", headers=ann).status_code == 200
                assert here.ask("GET", "/-/channels").status_code == 404
                asyncio.run(by_another_url(here))
                asyncio.run(by_its_own(here, ann))


def raw_status(port, target):
    with socket.create_connection(("127.0.0.1", port), SECONDS) as peer:
        peer.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        return int(peer.makefile("rb").readline().split()[1])


async def by_another_url(here):
    async with here.websocket("/public", subprotocols=["v1.slotcast.json"]) as socket:
        await socket.send(json.dumps({"type": "subscribe", "channel": "/private/x", "since": "all"}))
        refused = await told(socket, "error")
        assert refused["code"] == "single_channel", refused
    try:
        async with here.websocket("/private/x"):
            raise AssertionError("a stranger is let in")
    except websockets.InvalidStatus as error:
        assert error.response.status_code == 401, error


async def by_its_own(here, ann):
    async with here.websocket("/private/x?last=1", additional_headers=ann) as socket:
        assert await within(socket.recv()) == "secret"


# ------------------------------------------------------------------ the rules of the broker, behind one of them


def rules(*words):
    """The configuration of docs/security.md: its first key, and the blocks of rules with these words."""
    page = (ROOT / "docs/security.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    key = next(block for block in blocks if block.startswith("[[key]]")).split("\n\n")[0]
    return "\n".join([key, *(next(block for block in blocks if word in block) for word in words)])


def jwt(secret, seconds=600, **claims):
    """A token (RFC 7515 section 3.1) with HS256."""
    now = int(time.time())
    payload = {"sub": "42", "iat": now - 600, "exp": now + seconds, **claims}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256"}, payload)]
    signature = hmac.digest(secret, b".".join(parts), "sha256")
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


KEY, ANOTHER = b"the secret of the backend, and of nobody else", b"another secret, that is as long as the first one"
TOKENS = {
    "none": None,
    "user": jwt(KEY),
    "backend": jwt(KEY, sub="backend", slotcast={"publish": ["/news"]}),
    "wrong key": jwt(ANOTHER, slotcast={"publish": ["/news"]}),
    "expired": jwt(KEY, -300, slotcast={"publish": ["/news"]}),
    "no token": "letmein",
}
MISSING, INVALID, EXPIRED = (401, "token_missing"), (401, "token_invalid"), (401, "token_expired")

# The two questions of docs/security.md. By channel: the answer to who joins, by any door, and to who publishes. No
# answer stands for all that is let in.
IN = (200, None)
QUESTIONS = [
    ("/private", "none", MISSING, MISSING),
    ("/private/room", "none", MISSING, MISSING),
    ("/private/room", "user", IN, IN),
    ("/private/room", "backend", IN, IN),
    ("/private/room", "wrong key", INVALID, INVALID),
    ("/private/room", "expired", EXPIRED, EXPIRED),
    ("/private/room", "no token", INVALID, INVALID),
    ("/privately", "user", (403, "forbidden"), (403, "forbidden")),
    ("/news", "none", IN, MISSING),
    ("/news", "user", IN, (403, "forbidden")),
    ("/news", "backend", IN, IN),
    ("/news", "wrong key", INVALID, INVALID),
    ("/news", "expired", EXPIRED, EXPIRED),
    ("/news/today", "backend", (403, "forbidden"), (403, "forbidden")),
]


def the_two_questions_of_operators(binary):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "token.key").write_bytes(KEY)
        (folder / "slotcast.toml").write_text(rules('match = "/private/**"', 'match = "/news"'))
        with site(binary, nginx, "--config", str(folder / "slotcast.toml"), "--history-messages", "0") as here:
            for channel, who, joins, publishes in QUESTIONS:
                for door in (by_websocket, by_subprotocol, by_stream, by_poll):
                    told_so = door(here, channel, TOKENS[who])
                    assert told_so == joins, (door.__name__, channel, who, told_so)
                told_so = by_post(here, channel, TOKENS[who])
                assert told_so == publishes, ("POST", channel, who, told_so)
            asyncio.run(what_is_sent_in_a_websocket(here))
            asyncio.run(what_the_backend_says_is_heard(here))


def answer_of(answer):
    """The status, and the code of a refusal."""
    return answer.status_code, None if answer.ok else answer.json()["code"]


def bearer(token):
    return {"Authorization": f"Bearer {token}"} if token else {}


def by_websocket(here, channel, token, **options):
    async def join():
        try:
            async with here.websocket(channel, additional_headers=bearer(token), **options):
                return IN
        except websockets.InvalidStatus as error:
            return error.response.status_code, json.loads(error.response.body)["code"]

    return asyncio.run(join())


def by_subprotocol(here, channel, token):
    """As a browser shows it."""
    carried = [f"slotcast.token.{token}"] if token else []
    return by_websocket(here, channel, None, subprotocols=["v1.slotcast.json", *carried])


def by_stream(here, channel, token):
    with here.ask("GET", channel, headers={"Accept": "text/event-stream", **bearer(token)}, stream=True) as answer:
        return answer_of(answer)


def by_poll(here, channel, token):
    """With the token in the query."""
    return answer_of(here.ask("GET", channel, params={"token": token} if token else {}))


def by_post(here, channel, token):
    return answer_of(here.ask("POST", channel, data="posted", headers=bearer(token)))


async def what_is_sent_in_a_websocket(here):
    """nginx sees nothing of it: the broker alone can judge it."""
    async with here.websocket("/news", subprotocols=["v1.slotcast.json"]) as socket:
        for command, code in (
            ({"type": "subscribe", "channel": "/private/room"}, "token_missing"),
            ({"type": "members", "channel": "/private/room"}, "token_missing"),
            ({"type": "publish", "channel": "/private/room", "data": "x"}, "token_missing"),
            ({"type": "publish", "channel": "/news", "data": "x"}, "token_missing"),
        ):
            await socket.send(json.dumps(command))
            assert (await told(socket, "error"))["code"] == code, command
    async with here.websocket("/news", additional_headers=bearer(TOKENS["user"])) as socket:
        await socket.send("raw")
        with contextlib.suppress(websockets.ConnectionClosed):
            await within(socket.recv())
        assert (socket.close_code, socket.close_reason) == (1008, "forbidden: you may not publish here")


async def what_the_backend_says_is_heard(here):
    async with here.websocket("/news") as reader:
        answer = await asyncio.to_thread(by_post, here, "/news", TOKENS["backend"])
        assert answer == IN and await within(reader.recv()) == "posted"
    ann = {"additional_headers": bearer(TOKENS["user"])}
    async with here.websocket("/private/room", **ann) as one, here.websocket("/private/room", **ann) as other:
        await one.send("between us")
        assert await within(other.recv()) == "between us"


# ------------------------------------------------------------------ all of it


def cases(binary, wanted):
    for proxy in (nginx, caddy, haproxy):
        name = proxy.__name__
        if name not in wanted:
            continue
        for check in EACH:
            yield f"{name}: {check.__name__}", lambda: run(binary, proxy, check)
        limited = ["--trusted-proxy", "127.0.0.1", "--max-connections-per-ip", "2"]
        check = addresses_are_those_of_the_peers
        yield f"{name}: {check.__name__}", lambda: run(binary, proxy, check, *limited)
    if "haproxy" in wanted:
        for check in ("option httpchk GET /-/health", "option httpchk OPTIONS /-/health", "option httpchk"):
            yield f"haproxy finds it up with `{check}`", lambda: haproxy_finds_it_up(binary, check)
    if "nginx" in wanted:
        yield "nginx asks before it lets in", lambda: nginx_asks_before_it_lets_in(binary)
        yield "nginx: the two questions of operators", lambda: the_two_questions_of_operators(binary)


def run(binary, proxy, check, *flags):
    with site(binary, proxy, *flags) as here:
        check(here)


def main():
    binary, *wanted = sys.argv[1:]
    passed = failed = 0
    for name, case in cases(binary, wanted or ["nginx", "caddy", "haproxy"]):
        try:
            case()
        except Exception as error:
            print(f"FAILED {name}: {error!r}", flush=True)
            traceback.print_exc()
            failed += 1
        else:
            print(f"ok     {name}", flush=True)
            passed += 1
    print(f"{passed} passed, {failed} failed")
    return bool(failed)


sys.exit(main())
