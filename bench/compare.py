#!/usr/bin/env python3
"""slotcast, the floor and its peers under the same loads, interleaved: compare.py (see `make bench`).

Every load runs against every server REPEATS times (3), one server after the other, so that a disturbance of the
machine disturbs all. The floor runs twice each time; the difference of the two is the spread that any claim must exceed.
Server and generator have a core each. Prints one table of medians and writes it to bench/RESULTS.md.

Environment: REPEATS=N       how often (3)
             QUICK=1         four loads, short, the floor and slotcast only; bench/RESULTS.md stays as it is
             LOADS=REGEX     only the loads whose names match
             SERVERS=A,B     only these besides the floor
             SLOTCAST_BIN    a slotcast to measure instead of target/release/slotcast
"""

import json
import os
import platform
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import textwrap
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
TOOLS = os.path.join(ROOT, ".tools", "peers")
BUILT = os.environ.get("SLOTCAST_BIN") or os.path.join(TARGET, "release", "slotcast")
# A copy, since a build during the run would put another binary in its place.
SLOTCAST = os.path.join(TARGET, "bench", "slotcast")
SENDS_BACK = os.path.join(TARGET, "bench", "send_back")
PEERS = os.path.join(TARGET, "peers", "release")
QUICK = os.environ.get("QUICK") == "1"
REPEATS = int(os.environ.get("REPEATS", "3"))
BUDGET = 25 * 60      # seconds: past it peers are left out, and the table says so
DISTURBED = 0.25      # of a core, by others: such a run is noted
SLOW = {"websockets", "tornado"}


class Load:
    def __init__(self, name, flags, yardstick="floor", target=None, mode="broadcast", quick=False, peers=True, most=None, p99=None):
        self.name, self.flags, self.yardstick, self.target = name, flags, yardstick, target
        # Besides the ratio: the most that the figure itself may be, and the latency, in ms.
        self.most, self.p99 = most, p99
        self.mode, self.quick, self.peers = mode, quick, peers

    def suits(self, server):
        """Whether this server can be measured with this load in reasonable time."""
        if server in (BARE, EMBEDDED):
            return self.mode == "echo"
        return not (server in SLOW and "10000" in self.flags) and (self.peers or server in OURS)


def broadcast(name, subscribers, size, in_flight, target, **more):
    flags = "--subscribers %d --size %s --in-flight %d" % (subscribers, size, in_flight)
    return Load(name, flags, "floor-batch" if in_flight > 1 else "floor", target, **more)


def echo(name, connections, size, target, **more):
    return Load(name, "--mode echo --subscribers %d --size %s" % (connections, size), "floor", target, mode="echo", **more)


# A broadcast's history is one message for all. Where every connection is alone in a channel it is one message each, and
# the floor does not pay for that.
BARE = "slotcast, no history"
# A program of six lines on the crate, without a channel: others call it an echo server.
EMBEDDED = "slotcast, embedded"
OURS = ("slotcast", BARE, EMBEDDED, "floor", "floor-batch")
LOADS = [
    broadcast("100 : 32 : 1", 100, "32", 1, 1.05),
    broadcast("100 : 512 : 1", 100, "512", 1, 1.05, peers=False),
    broadcast("1,000 : 32 : 1", 1000, "32", 1, 1.05, peers=False),
    broadcast("1,000 : 512 : 1", 1000, "512", 1, 1.05, quick=True),
    broadcast("10,000 : 32 : 1", 10000, "32", 1, 1.08, peers=False),
    broadcast("10,000 : 512 : 1", 10000, "512", 1, 1.08),
    broadcast("1,000 : 16 KiB : 1", 1000, "16KiB", 1, 1.05),
    broadcast("1,000 : 512 : 16", 1000, "512", 16, 1.10),
    broadcast("1,000 : 32 : 64", 1000, "32", 64, 1.15, quick=True),
    broadcast("1,000 : 512 : 64", 1000, "512", 64, 1.15, peers=False),
    broadcast("1,000 : 16 KiB : 16", 1000, "16KiB", 16, 1.10),
    Load("1,000 publishers, 1,000,000/s", "--subscribers 1000 --publishers 1000 --size 64 --rate 1000", "floor-batch", 1.15,
         p99=25),
    echo("echo 1,000 : 32", 1000, "32", 1.02, quick=True),
    echo("echo 100 : 16 KiB", 100, "16KiB", 1.02, peers=False),
    echo("echo 100 : 1 MiB", 100, "1MiB", 0.95),
    Load("handshakes", "--mode connect --in-flight 16", "floor", 1.10, mode="connect", quick=True),
    Load("10,000 idle", "--mode idle --subscribers 10000", "floor", None, mode="idle", most=350),
]


# ------------------------------------------------------------------- servers

def servers():
    """Name -> command, of the servers that are installed. {} is the port."""
    if not os.path.exists(BUILT):
        sys.exit("compare.py: slotcast is not built")
    os.makedirs(os.path.dirname(SLOTCAST), exist_ok=True)
    shutil.copy2(BUILT, SLOTCAST)
    if os.path.exists(os.path.join(TARGET, "release", "examples", "send_back")):
        shutil.copy2(os.path.join(TARGET, "release", "examples", "send_back"), SENDS_BACK)
    python = os.path.join(TOOLS, "python", "bin", "python")
    here = os.path.join(ROOT, "bench", "peers")
    known = {
        "slotcast": [SLOTCAST, "--listen", "127.0.0.1:{}", "--log", "warn"],
        EMBEDDED: [SENDS_BACK, "127.0.0.1:{}"],
        BARE: [SLOTCAST, "--listen", "127.0.0.1:{}", "--log", "warn", "--history-messages", "0"],
        "floor": [os.path.join(PEERS, "floor"), "{}"],
        "floor-batch": [os.path.join(PEERS, "floor-batch"), "{}"],
        "tokio-tungstenite": [os.path.join(PEERS, "peer-tokio-tungstenite"), "{}"],
        "fastwebsockets": [os.path.join(PEERS, "peer-fastwebsockets"), "{}"],
        "ws-rs": [os.path.join(PEERS, "peer-ws-rs"), "{}"],
        "node ws": ["node", os.path.join(TOOLS, "node", "server.mjs"), "{}"],
        "websockets": [python, os.path.join(here, "python", "websockets_server.py"), "{}"],
        "tornado": [python, os.path.join(here, "python", "tornado_server.py"), "{}"],
        "nginx nchan": [os.path.join(TOOLS, "nchan", "usr", "sbin", "nginx"), "-p", "{prefix}", "-c", "{prefix}/nginx.conf"],
    }
    wanted = os.environ.get("SERVERS")
    wanted = set(wanted.split(",")) | set(OURS) if wanted else None
    there, missing = {}, []
    for name, command in known.items():
        if wanted is not None and name not in wanted or QUICK and name not in OURS:
            continue
        parts = [part for part in command[:2] if os.path.isabs(part)]
        if all(os.path.exists(part) for part in parts):
            there[name] = command
        else:
            missing.append(name)
            print("SKIPPED %s: not installed (bench/peers/install.sh)" % name, flush=True)
    for name in ("slotcast", "floor", "floor-batch"):
        if name in missing:
            sys.exit("compare.py: %s is not built" % name)
    return there, missing


class Server:
    def __init__(self, command, core):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        prefix = os.path.join(TARGET, "bench", "nginx")
        if "{prefix}" in command:
            nginx_folder(prefix, self.port)
        command = [part.replace("{prefix}", prefix).replace("{}", str(self.port)) for part in command]
        self.process = subprocess.Popen(["taskset", "-c", str(core)] + command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise

    def wait(self):
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("it does not listen")
            time.sleep(0.02)

    def stop(self):
        self.process.kill()
        self.process.wait()


def nginx_folder(prefix, port):
    os.makedirs(os.path.join(prefix, "tmp"), exist_ok=True)
    with open(os.path.join(ROOT, "bench", "peers", "nginx", "nginx.conf")) as f:
        text = f.read()
    module = os.path.join(TOOLS, "nchan", "usr", "lib", "nginx", "modules", "ngx_nchan_module.so")
    with open(os.path.join(prefix, "nginx.conf"), "w") as f:
        f.write(re.sub(r"^#.*\n", "", text, flags=re.M).replace("PORT", str(port)).replace("MODULE", module))


# ------------------------------------------------------------------- one run

def hurry():
    """Goes before other work of the machine, if allowed: a generator that waits looks like a slow server."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    except OSError:
        pass


def busy():
    """Seconds that all cores were busy so far, for any process."""
    with open("/proc/stat") as f:
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def run(command, load, cores, seconds):
    server = Server(command, cores[0])
    try:
        time.sleep(0.1)
        path = "echo" if load.mode == "echo" else "load"
        bench = ["taskset", "-c", str(cores[1]), SLOTCAST, "bench", "ws://127.0.0.1:%d/%s" % (server.port, path), "--json",
                 "--server-pid", str(server.process.pid), "--duration", "%dms" % (seconds * 1000),
                 "--warmup", "%dms" % (seconds * 250)] + load.flags.split()
        before, begun = busy(), time.monotonic()
        done = subprocess.run(bench, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        spent, took = busy() - before, time.monotonic() - begun
    except subprocess.TimeoutExpired:
        return {"failed": "not finished after 120 s"}
    finally:
        server.stop()
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return {"failed": done.stderr.strip() or "no report"}
    if not result["clean"]:
        faults = ["%d %s" % (result[key], key) for key in ("lost", "doubled", "disordered", "wrong", "closed") if result[key]]
        result["failed"] = ", ".join(faults) + (" (%s)" % result["why"] if result["why"] else "")
    own = sum(result[who]["cpu_s"] for who in ("server", "generator") if result[who])
    # The load outside of the measured part is unknown.
    share = result["seconds"] / took
    result["others"] = max(0.0, (spent * share - own) / result["seconds"])
    return result


def figure(load, result):
    """The figure of the load: CPU-us each, or bytes a connection."""
    if "failed" in result and not result.get("deliveries"):
        return None
    if load.mode == "idle":
        return result.get("rss_per_connection")
    return result["server"] and result["server"]["cpu_us_each"]


# ------------------------------------------------------------------- all runs

def measure(loads, there, cores, deadline):
    """(load, server) -> its results; the floor's second run is `again`."""
    results = {}
    for number, load in enumerate(loads):
        print("%s  (%d of %d)" % (load.name, number + 1, len(loads)), flush=True)
        order = [name for name in there if load.suits(name)]
        if load.yardstick == "floor":
            order = [name for name in order if name != "floor-batch"]
        order = [load.yardstick] + [name for name in order if name != load.yardstick] + ["again"]
        for repeat in range(REPEATS):
            # The order rotates with each repeat, so that it is not always the same server that runs first.
            turned = order[repeat % len(order):] + order[:repeat % len(order)]
            for name in turned:
                is_peer = name not in OURS and name != "again"
                if is_peer and time.monotonic() > deadline:
                    continue
                seconds = 1.0 if QUICK or is_peer else 2.0
                command = there[load.yardstick if name == "again" else name]
                try:
                    result = run(command, load, cores, seconds)
                except (RuntimeError, OSError) as e:
                    result = {"failed": str(e)}
                results.setdefault((load.name, name), []).append(result)
                value = figure(load, result)
                print("  %-18s %10s  others %3.0f %%  %s" % (
                    name if name != "again" else load.yardstick + " again", "-" if value is None else "%.3f" % value,
                    100 * result.get("others", 0), result.get("failed", "")), flush=True)
    return results


class Row:
    """The medians of one server under one load."""

    def __init__(self, load, name, results, base):
        self.name, self.runs = name, results
        pairs = [(figure(load, ours), figure(load, floor)) for ours, floor in zip(results, base)]
        self.ratio = median(ours / floor for ours, floor in pairs if ours is not None and floor)
        self.value = median(figure(load, result) for result in results)
        self.p50, self.p99 = (median(r.get("latency_us", {}).get(q) for r in results) for q in ("p50", "p99"))
        self.rate = median(r["deliveries"] / r["seconds"] for r in results if r.get("deliveries"))
        self.rss = median(r.get("rss") for r in results)
        self.generator = median(r["generator"]["cpu_us_each"] for r in results if r.get("generator"))
        self.others = median(r.get("others") for r in results)
        self.failed = next((r["failed"] for r in results if "failed" in r), None)


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def rows(load, results):
    base = results[(load.name, load.yardstick)]
    again = results[(load.name, "again")]
    pairs = [(figure(load, a), figure(load, b)) for a, b in zip(again, base)]
    spread = max((abs(a / b - 1) for a, b in pairs if a is not None and b), default=None)
    names = [name for (of, name) in results if of == load.name and name != "again"]
    return [Row(load, name, results[(load.name, name)], base) for name in names], spread


# ------------------------------------------------------------------- the table

def shown(value, form="%.2f", unit=1.0):
    return "–" if value is None else form % (value / unit)


def verdict(load, row, spread):
    """How slotcast does against the target; a difference smaller than the spread says nothing."""
    absolute = [(row.value, load.most, "%.0f B"), (row.p99 and row.p99 / 1e3, load.p99, "p99 %.0f ms")]
    said = ["≤ %s: %s" % (form % most, "yes" if value <= most else "no") for value, most, form in absolute if most and value]
    return "; ".join(([ratio_verdict(load, row, spread)] if load.target else []) + said)


def ratio_verdict(load, row, spread):
    if load.target is None or row.ratio is None or spread is None:
        return ""
    if row.ratio <= load.target:
        return "≤ %.2f: yes" % load.target
    if row.ratio - load.target <= spread * row.ratio:
        return "≤ %.2f: within the spread" % load.target
    return "≤ %.2f: no, %.0f %% more" % (load.target, (row.ratio / load.target - 1) * 100)


def table(loads, results):
    lines = ["| load | server | CPU-µs each | × floor | p50, ms | p99, ms | each/s | RSS, MiB | generator, CPU-µs | |",
             "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --- |"]
    for load in loads:
        these, spread = rows(load, results)
        for row in sorted(these, key=lambda row: (row.name != load.yardstick, row.name not in OURS, row.value or 1e9)):
            is_floor = row.name == load.yardstick
            if is_floor:
                note = "± %s %%: the spread" % shown(spread, "%.0f", 0.01)
            elif row.name in ("slotcast", BARE, EMBEDDED):
                note = verdict(load, row, spread)
            else:
                note = ""
            if row.failed:
                note = (note + "; " if note else "") + row.failed
            if load.mode == "idle":
                value = shown(row.value, "%.0f B a connection")
            else:
                value = shown(row.value, "%.3f" if (row.value or 0) < 10 else "%.1f")
            equal = not is_floor and spread is not None and row.ratio is not None and abs(row.ratio - 1) <= spread
            ratio = "1" if is_floor else shown(row.ratio) + (" (equal)" if equal else "")
            lines.append("| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |" % (
                load.name if is_floor else "", row.name, value, ratio, shown(row.p50, "%.2f", 1e3),
                shown(row.p99, "%.2f", 1e3), shown(row.rate, "%.0f"), shown(row.rss, "%.1f", 1 << 20),
                "–" if load.mode == "idle" else shown(row.generator, "%.3f"), note))
    return lines


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
        return (done.stdout or done.stderr).strip()
    except OSError:
        return ""


def machine():
    with open("/proc/cpuinfo") as f:
        model = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return "%s, %d cores, %d GiB, Linux %s" % (model, os.cpu_count(), memory, platform.release())


def versions(there):
    lock = open(os.path.join(ROOT, "bench", "peers", "Cargo.lock")).read()
    crate = lambda name: (re.search(r'name = "%s"\nversion = "([^"]+)"' % name, lock) or [None, "?"])[1]
    pins = dict(re.findall(r"^(\w+)==(\S+)", open(os.path.join(ROOT, "bench", "peers", "python", "pins.txt")).read(), re.M))
    package = json.load(open(os.path.join(ROOT, "bench", "peers", "node", "package.json")))
    python = output(os.path.join(TOOLS, "python", "bin", "python"), "--version")
    nginx = output(os.path.join(TOOLS, "nchan", "usr", "sbin", "nginx"), "-v").rpartition("/")[2]
    every = {
        "slotcast": "%s at %s" % (output(SLOTCAST, "--version"), output("git", "describe", "--always", "--dirty") or "?"),
        "floor": output("rustc", "--version"),
        "tokio-tungstenite": "tokio-tungstenite %s, tokio %s" % (crate("tokio-tungstenite"), crate("tokio")),
        "fastwebsockets": "fastwebsockets %s" % crate("fastwebsockets"),
        "ws-rs": "ws %s" % crate("ws"),
        "node ws": "ws %s, Node %s" % (package["dependencies"]["ws"], output("node", "--version")),
        "websockets": "websockets %s, uvloop %s, %s" % (pins.get("websockets"), pins.get("uvloop"), python),
        "tornado": "tornado %s, uvloop %s" % (pins.get("tornado"), pins.get("uvloop")),
        "nginx nchan": "nginx %s with the distribution's nchan" % nginx,
    }
    return [every[name] for name in every if name in there]


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hurry()
    allowed = sorted(os.sched_getaffinity(0))
    cores = (allowed[0], allowed[-1])
    if len(allowed) < 2:
        print("WARNING: one core for server and generator: nothing but the ratios means anything", flush=True)
    loads = [load for load in LOADS if (load.quick or not QUICK) and re.search(os.environ.get("LOADS", ""), load.name)]
    there, missing = servers()
    measured = versions(there)
    begun = time.monotonic()
    results = measure(loads, there, cores, begun + BUDGET)
    lines = table(loads, results)
    took = (time.monotonic() - begun) / 60
    others = median(result.get("others") for runs in results.values() for result in runs) or 0
    disturbed = sum(result.get("others", 0) > DISTURBED for runs in results.values() for result in runs)
    every = sum(map(len, results.values()))
    about = ["Machine: %s. Server on core %d, generator on core %d." % (machine(), *cores),
             "Medians of %d runs, interleaved, %.0f minutes in all. Others on the machine took %.0f %% of a core "
             "(median); %d of %d runs had more than %.0f %% taken." % (
                 REPEATS, took, others * 100, disturbed, every, DISTURBED * 100),
             "Versions: %s." % "; ".join(measured)]
    if missing:
        about.append("Not installed, and not measured: %s." % ", ".join(missing))
    print("\n" + "\n".join(lines) + "\n\n" + "\n".join(about))
    os.makedirs(os.path.join(TARGET, "bench"), exist_ok=True)
    with open(os.path.join(TARGET, "bench", "runs.json"), "w") as f:
        json.dump([{"load": load, "server": name, "runs": runs} for (load, name), runs in results.items()], f, indent=1)
    if not QUICK and "LOADS" not in os.environ and "SERVERS" not in os.environ:
        with open(os.path.join(ROOT, "bench", "RESULTS.md"), "w") as f:
            f.write("# Results\n\nWritten by `make bench`; bench/README.md says how to read it.\n\n")
            prose = "\n\n".join(textwrap.fill(part, 100, break_long_words=False, break_on_hyphens=False) for part in about)
            f.write(prose + "\n\n" + "\n".join(lines) + "\n")
        print("\nwritten to bench/RESULTS.md")


if __name__ == "__main__":
    main()
