#!/usr/bin/env python3
"""A crate outside of this one that embeds the broker: outside.py. Builds the first example of the crate's documentation,
unchanged, from nothing, without default features; counts the crates and the seconds."""

import os
import re
import subprocess
import sys
import tempfile
import time

from figures import table

LIMITS = {  # figure: (limit, unit)
    "crates": (28, ""),
    "seconds from an empty target": (20, "s"),
}
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def first_example():
    with open(os.path.join(ROOT, "src", "lib.rs")) as f:
        documentation = "".join(re.sub(r"^//! ?", "", line) for line in f if line.startswith("//!"))
    return re.search(r"```no_run\n(.*?)```", documentation, re.S)[1]


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(os.path.join(folder, "src"))
        with open(os.path.join(folder, "src", "main.rs"), "w") as f:
            f.write(first_example())
        with open(os.path.join(folder, "Cargo.toml"), "w") as f:
            f.write('[package]\nname = "outside"\nversion = "0.1.0"\nedition = "2024"\n\n[dependencies]\n'
                    'slotcast = { path = "%s", default-features = false }\n' % ROOT)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_", "RUST"))}
        environment["CARGO_TARGET_DIR"] = os.path.join(folder, "target")

        def cargo(*words):
            return subprocess.run(["cargo", *words], cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

        cargo("fetch", "--quiet")
        crates = set(line.split()[0] for line in cargo("tree", "--edges", "normal", "--prefix", "none").splitlines() if line)
        begun = time.monotonic()
        cargo("build", "--quiet")
        took = time.monotonic() - begun
    return table(LIMITS, {"crates": len(crates - {"outside"}), "seconds from an empty target": took})


if __name__ == "__main__":
    sys.exit(main())
