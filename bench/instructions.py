#!/usr/bin/env python3
"""Instructions a delivery, by callgrind, against the figures that are committed: `make bench-check`.

A count does not depend on other work of the machine, so a change that makes the path longer is seen wherever it is
tested. Each load (bench/turns.rs) runs twice, with few and with many turns; the difference is the turns' own. More than
1 % above the committed figure fails; more than 1 % below asks for the new figure to be committed.

    bench/instructions.py            compares
    bench/instructions.py --write    writes the figures into bench/instructions.txt
    bench/instructions.py --where    also says which functions the instructions are in
    bench/instructions.py --steps [NAME...]    instead: each step of a turn (bench/steps.rs) with its worst input, in
                                     instructions and in the units of src/broker/cost.rs: `make steps`. Fails if one takes
                                     longer than 5 ms, or if its cost is not within a factor of 2

    bench/instructions.py --access   instead: what rules and tokens add to a message and to a handshake (bench/access.rs).
                                     Fails if they add more than 3 % to a message. valgrind has no SHA instructions, so
                                     a handshake's hash of its token counts for about ten times what it takes

The last line is "N passed, N failed". Exit status: 0 if nothing failed, 77 if valgrind is missing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FIGURES = os.path.join(ROOT, "bench", "instructions.txt")
TOLERANCE = 0.01
FEW, MANY = 10, 60
LOADS = ["broadcast", "burst", "echo", "schedule", "visits"]
# The instructions that a slow machine does in a nanosecond, and the longest that a step may take, in milliseconds.
INSTRUCTIONS, LONGEST = 3, 5
# Steps that are known to take longer, in milliseconds: see "What a step costs" in docs/internals.md.
LONGER = {"publish_lines": 6.5}
# The costs of src/broker/cost.rs are right within this factor, for steps that take more than this many milliseconds.
# Exceptions are steps that are mostly the kernel's work, which is not counted here, plain copies, and work of another
# broker than the bench's.
FACTOR, LITTLE = 2, 0.05
UNPRICED = {"walk", "walk_blocked", "polls", "polls_at_once", "shed", "message_plain", "channels_page"}
# Loads of bench/access.rs: without rules, and what is compared with that. The most that may be added.
ACCESS = {
    "published": ["published_by_rule", "published_by_token"],
    "joined": ["joined_by_rule", "joined_by_token", "joined_by_new_token"],
}
MOST_ADDED = {"published": 0.03}
# The C library copies long blocks by one instruction, which counts once for each byte; this makes it count for each 32.
COPIES = "glibc.cpu.x86_rep_movsb_threshold=1000000000:glibc.cpu.x86_rep_stosb_threshold=1000000000"


def build(name, *flags):
    """The path of a bench, after it was built."""
    command = ["cargo", "bench", "--bench", name, "--no-run", "--message-format", "json", *flags]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("FAILED: bench/%s.rs does not build" % name)
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == name:
            return message["executable"]
    sys.exit("FAILED: cargo names no executable for bench/%s.rs" % name)


def count(binary, load, turns, flags=()):
    """(instructions, deliveries) of a whole run."""
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out.name, *flags, binary, load, str(turns)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    collected = re.search(r"Collected : (\d+)", done.stderr)
    deliveries = re.search(r"(\d+) deliveries", done.stdout)
    if done.returncode or not collected or not deliveries:
        sys.exit("FAILED: %s: %s" % (load, done.stderr.strip()[-500:]))
    return int(collected[1]), int(deliveries[1])


def each(binary, load):
    """Instructions a delivery."""
    few, many = count(binary, load, FEW), count(binary, load, MANY)
    return (many[0] - few[0]) / (many[1] - few[1])


def show_where(binary, load):
    """Instructions of the turns alone: inclusive, with what each function calls."""
    with tempfile.NamedTemporaryFile() as out:
        # The last file named is the one that was written.
        flags = ["--callgrind-out-file=" + out.name, "--toggle-collect=*Rig::broadcast*", "--toggle-collect=*Rig::echo*",
                 "--toggle-collect=*Rig::scheduled*"]
        _, deliveries = count(binary, load, FEW, flags)
        command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out.name]
        text = subprocess.run(command, capture_output=True, text=True).stdout
    # Three more turns warm up; they are like the others.
    turns = (FEW + 3) / FEW
    for row in re.findall(r"^ *([\d,]+) \(.*?\) +\S*?([^/:]+(?::(?!:)|$).*)", text, re.M)[:40]:
        print("    %9.1f  %s" % (int(row[0].replace(",", "")) / deliveries / turns, re.sub(r" \[.*| .x.*", "", row[1])[:140]))


def steps(names):
    """The instructions of each step: within its limit, and as many as its cost says."""
    binary, long, wrong = build("steps"), 0, 0
    environment = dict(os.environ, GLIBC_TUNABLES=COPIES)
    every = [line.split() for line in subprocess.run([binary], capture_output=True, text=True, check=True).stdout.splitlines()]
    print("%-22s %13s %9s %9s %6s" % ("step", "instructions", "ms", "by cost", "ratio"))
    for name, units, *_ in every:
        if names and name not in names:
            continue
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*steps::measured*"]
        done = subprocess.run([*command, binary, name], capture_output=True, text=True, timeout=600, env=environment)
        collected = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode or not collected:
            sys.exit("FAILED: %s: %s" % (name, done.stderr.strip()[-500:]))
        took, cost = int(collected[1]) / INSTRUCTIONS / 1e6, int(units) / 1e6
        ratio, most = cost / took if took else 0, LONGER.get(name, LONGEST)
        is_long = took > most
        is_wrong = name not in UNPRICED and took > LITTLE and not 1 / FACTOR <= ratio <= FACTOR
        long, wrong = long + is_long, wrong + is_wrong
        faults = ["more than %g ms" % most] * is_long + ["the cost is not within a factor of %d" % FACTOR] * is_wrong
        print("%-22s %13s %9.3f %9.3f %6.2f  %s" % (
            name, "{:,}".format(int(collected[1])), took, cost, ratio, ", ".join(faults)), flush=True)
    print("%d steps take longer than they may, at %d instructions a nanosecond, and %d cost something else" % (
        long, INSTRUCTIONS, wrong))
    return 1 if long or wrong else 0


def access():
    """What rules and tokens add, against the same without them."""
    binary, passed, failed = build("access", "--features", "testing"), 0, 0
    for plain, others in ACCESS.items():
        figures = {}
        for load in [plain, *others]:
            few, many = (count(binary, load, turns, ["--toggle-collect=*Rig::run*"]) for turns in (FEW, MANY))
            figures[load] = (many[0] - few[0]) / (many[1] - few[1])
            added = figures[load] / figures[plain] - 1
            is_failed = plain in MOST_ADDED and added > MOST_ADDED[plain]
            passed, failed = passed + (not is_failed), failed + is_failed
            verdict = "FAILED: more than %d %%" % (MOST_ADDED[plain] * 100) if is_failed else "ok"
            print("%-22s %9.1f instructions (%+5.1f %%)  %s" % (load, figures[load], added * 100, verdict), flush=True)
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


def main():
    if not shutil.which("valgrind"):
        print("SKIPPED: no valgrind (apt-get install valgrind)")
        return 77
    if "--access" in sys.argv:
        return access()
    if "--steps" in sys.argv:
        return steps(sys.argv[sys.argv.index("--steps") + 1:])
    with open(FIGURES) as f:
        committed = dict(re.findall(r"^(\w+) +([\d.]+)", f.read(), re.M))
    binary, passed, failed, lines = build("turns"), 0, 0, []
    for load in LOADS:
        now, before = each(binary, load), float(committed.get(load, "nan"))
        lines.append("%-10s %8.2f" % (load, now))
        if load not in committed:
            verdict = "FAILED: no figure is committed, see --write"
            failed += 1
        elif now > before * (1 + TOLERANCE):
            verdict = "FAILED: more than %d %% above" % (TOLERANCE * 100)
            failed += 1
        else:
            verdict = "ok" if now >= before * (1 - TOLERANCE) else "ok, and better: commit bench/instructions.py --write"
            passed += 1
        print("%-10s %8.2f instructions a delivery, committed %8.2f (%+5.1f %%)  %s" % (
            load, now, before, (now / before - 1) * 100, verdict), flush=True)
        if "--where" in sys.argv:
            show_where(binary, load)
    if "--write" in sys.argv:
        with open(FIGURES, "w") as f:
            f.write("# Instructions a delivery, by bench/instructions.py, which writes this file; x86-64.\n")
            f.write("\n".join(lines) + "\n")
        return 0
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
