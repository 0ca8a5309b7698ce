#!/usr/bin/env python3
"""How the cost of a broadcast grows with subscribers, size and burst: curves.py writes bench/curves.svg (5 minutes).

Slotcast and both floors, interleaved, REPEATS times (3): medians of CPU-us a delivery. Builds nothing: `make bench` has.
"""

import json
import math
import os
import resource
import statistics
import sys

import compare

REPEATS = int(os.environ.get("REPEATS", "3"))
SECONDS = 1.0
SERVERS = [("slotcast", "#1f6feb", ""), ("floor-batch", "#bc4c00", "6 3"), ("floor", "#8c8c8c", "2 3")]
SWEEPS = [
    ("subscribers", "subscribers (512 B, one message in flight)", [10, 100, 1000, 10000], lambda x: (x, 512, 1)),
    ("size", "bytes (1,000 subscribers, one message in flight)", [32, 512, 4096, 16384, 65536], lambda x: (1000, x, 1)),
    ("burst", "messages in flight (1,000 subscribers, 512 B)", [1, 4, 16, 64, 256], lambda x: (1000, 512, x)),
]
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 300, 220, 46, 34, 46


def measure():
    """Sweep -> server -> [(x, CPU-us a delivery)]."""
    there, _ = compare.servers()
    compare.hurry()
    allowed = sorted(os.sched_getaffinity(0))
    cores = (allowed[0], allowed[-1])
    curves = {}
    for sweep, _, places, load_at in SWEEPS:
        for x in places:
            subscribers, size, burst = load_at(x)
            load = compare.broadcast("%s %d" % (sweep, x), subscribers, str(size), burst, None)
            values = {}
            for repeat in range(REPEATS):
                for name, _, _ in SERVERS[repeat % 3:] + SERVERS[:repeat % 3]:
                    result = compare.run(there[name], load, cores, SECONDS)
                    value = compare.figure(load, result)
                    if value is not None:
                        values.setdefault(name, []).append(value)
            for name, every in values.items():
                curves.setdefault(sweep, {}).setdefault(name, []).append((x, statistics.median(every)))
            print("%-12s %6d  %s" % (sweep, x, "  ".join("%s %.3f" % (n, statistics.median(v)) for n, v in values.items())), flush=True)
    return curves


def shown(x):
    for unit, name in ((1 << 10, "Ki"),):
        if x >= unit and x % unit == 0:
            return "%d %s" % (x // unit, name)
    return "{:,}".format(x)


def panel(title, curves, places, at):
    """One plot, logarithmic both ways."""
    values = [value for curve in curves.values() for _, value in curve]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    across = lambda x: at + LEFT + (math.log(x) - math.log(places[0])) / (math.log(places[-1]) - math.log(places[0])) * (WIDTH - LEFT - 16)
    up = lambda value: TOP + (high - math.log10(value)) / (high - low) * (HEIGHT - TOP - BOTTOM)
    parts = ['<text x="%.0f" y="%d" class="name">%s</text>' % (at + LEFT, HEIGHT - 8, title)]
    for power in range(low, high + 1):
        y = up(10 ** power)
        parts.append('<path d="M%.1f %.1fH%.1f" class="grid"/>' % (at + LEFT, y, at + WIDTH - 16))
        parts.append('<text x="%.1f" y="%.1f" text-anchor="end">%g</text>' % (at + LEFT - 5, y + 4, 10 ** power))
    for x in places:
        parts.append('<text x="%.1f" y="%d" text-anchor="middle">%s</text>' % (across(x), HEIGHT - BOTTOM + 15, shown(x)))
    for name, colour, dashes in SERVERS:
        line = " ".join("%.1f,%.1f" % (across(x), up(value)) for x, value in curves.get(name, []))
        parts.append('<polyline points="%s" stroke="%s" stroke-dasharray="%s"/>' % (line, colour, dashes))
        parts += ['<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>' % (across(x), up(value), colour) for x, value in curves.get(name, [])]
    return parts


def draw(curves):
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="10">' % (3 * WIDTH, HEIGHT),
             "<style>polyline{fill:none;stroke-width:1.6}.grid{stroke:#ddd}.name{font-size:11px}</style>",
             '<rect width="100%" height="100%" fill="#fff"/>']
    for place, (name, colour, dashes) in enumerate(SERVERS):
        x = LEFT + 250 * place
        parts.append('<path d="M%d 14h26" stroke="%s" stroke-width="1.6" stroke-dasharray="%s"/>' % (x, colour, dashes))
        told = {"slotcast": "slotcast, CPU-µs a delivery", "floor": "floor, one send a delivery", "floor-batch": "floor, one send a turn"}[name]
        parts.append('<text x="%d" y="18" class="name">%s</text>' % (x + 32, told))
    for place, (sweep, title, places, _) in enumerate(SWEEPS):
        parts += panel(title, curves[sweep], places, place * WIDTH)
    return "\n".join(parts + ["</svg>"]) + "\n"


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = os.path.join(compare.TARGET, "bench", "curves.json")
    if "--draw" in sys.argv:
        curves = json.load(open(kept))
    else:
        curves = measure()
        os.makedirs(os.path.dirname(kept), exist_ok=True)
        with open(kept, "w") as f:
            json.dump(curves, f, indent=1)
    with open(os.path.join(compare.ROOT, "bench", "curves.svg"), "w") as f:
        f.write(draw(curves))
    print("written to bench/curves.svg")


if __name__ == "__main__":
    main()
