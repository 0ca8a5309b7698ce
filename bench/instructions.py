#!/usr/bin/env python3
"""Instructions a delivery, by callgrind, against the figures that are committed: `make bench-check`.

A count does not depend on what else the machine does, so a change that makes the path longer is seen wherever it is
tested. Each load (bench/turns.rs) runs twice, with few and with many turns; the difference is the turns' own. More than
10 % above the committed figure fails; more than 10 % below asks for the new figure to be committed.

    bench/instructions.py            compares
    bench/instructions.py --write    writes the figures into bench/instructions.txt
    bench/instructions.py --where    also says which functions the instructions are in

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
TOLERANCE = 0.10
FEW, MANY = 10, 60


def build():
    """The path of bench/turns.rs, built."""
    command = ["cargo", "bench", "--bench", "turns", "--no-run", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("FAILED: bench/turns.rs does not build")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "turns":
            return message["executable"]
    sys.exit("FAILED: cargo names no executable for bench/turns.rs")


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
    """Of the turns alone: inclusive, with what each function calls."""
    with tempfile.NamedTemporaryFile() as out:
        # the last file named is the one written
        flags = ["--callgrind-out-file=" + out.name, "--toggle-collect=*Rig::broadcast*", "--toggle-collect=*Rig::echo*"]
        _, deliveries = count(binary, load, FEW, flags)
        command = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", out.name]
        text = subprocess.run(command, capture_output=True, text=True).stdout
    # three more turns warm up, in which nothing is different
    turns = (FEW + 3) / FEW
    for row in re.findall(r"^ *([\d,]+) \(.*?\) +\S*?([^/:]+(?::(?!:)|$).*)", text, re.M)[:40]:
        print("    %9.1f  %s" % (int(row[0].replace(",", "")) / deliveries / turns, re.sub(r" \[.*| .x.*", "", row[1])[:140]))


def main():
    if not shutil.which("valgrind"):
        print("SKIPPED: no valgrind (apt-get install valgrind)")
        return 77
    with open(FIGURES) as f:
        committed = dict(re.findall(r"^(\w+) +([\d.]+)", f.read(), re.M))
    binary, passed, failed, lines = build(), 0, 0, []
    for load in committed:
        now, before = each(binary, load), float(committed[load])
        lines.append("%-10s %8.2f" % (load, now))
        if now > before * (1 + TOLERANCE):
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
