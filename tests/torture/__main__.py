"""The long campaign: `python -m tests.torture --minutes 30`, and any trial of it again by its seed and number."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from deployer.process import Context
from deployer.tofu.binary import find_engine
from tests.torture.campaign import Book, Share, chosen, work

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- counts: begin -->", "<!-- counts: end -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", default="", help="attacks whose name begins so: kills, disks.full, ...")
    parser.add_argument("--every", action="store_true", help="each boundary once, however long that takes")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the trials")
    parser.add_argument("--trial", type=int, help="this trial alone")
    parser.add_argument("--short", action="store_true", help="crowds and lives of the size that the quick suite has")
    parser.add_argument("--write", action="store_true", help="put the counts into docs/reliability.md")
    options = parser.parse_args()
    attacks = chosen(options.only)
    if not attacks or os.geteuid() != 0 or sys.platform != "linux":
        print(
            "no such attack" if not attacks else "this needs root on Linux: it mounts disks and starts an sshd",
            file=sys.stderr,
        )
        return 2
    # Under nohup or in the background of a script these are ignored, and so by all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    engine = find_engine(Context(os.environ))
    book = Book(options.seed)
    print(f"seed {options.seed}, engine {engine.path} {engine.version}", flush=True)
    began = time.monotonic()
    counts: Counter[str] = Counter()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        shares = [Share(part, options.jobs) for part in range(options.jobs)]
        for found, inside in pool.map(partial(work, str(engine.path), options), shares):
            book.add(found)
            counts.update(inside)
    minutes = (time.monotonic() - began) / 60
    for attack in attacks:
        for loss in book.losses.get(attack.name, ()):
            print(f"\nLOST {attack.name}\n{loss}", flush=True)
    print(f"\n{book.table(attacks)}\n")
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if name not in book.trials))
    if options.write:
        _write(book, engine.version, minutes, counts)
    return 1 if book.losses else 0


def _write(book: Book, version: str, minutes: float, counts: dict[str, int]) -> None:
    git = shutil.which("git")
    head = (
        subprocess.run([git, "rev-parse", "--short", "HEAD"], cwd=PAGE.parent, capture_output=True, text=True)
        if git
        else None
    )
    at = f" at {head.stdout.strip()}" if head and head.returncode == 0 else ""
    details = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if name not in book.trials)
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{sum(book.trials.values())} trials in {minutes:.0f} minutes"
    said = f"The last run{at}: {made}, seed {book.seed}, OpenTofu {version}."
    PAGE.write_text(f"{before}{BEGIN}\n{said}\n\n{book.table()}\n\nInside them: {details}.\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
