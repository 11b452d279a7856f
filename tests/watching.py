"""Waiting for a condition, and watching what all processes of this computer have on their command lines."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def until(condition: Callable[[], object], seconds: float = 60, what: str = "what is waited for") -> None:
    """Returns when the condition holds; AssertionError, naming what was waited for, where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@contextmanager
def meanwhile(look: Callable[[], None]) -> Iterator[None]:
    """Looks again and again, in a thread of its own, until the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """All command lines of all processes meanwhile, as /proc has them."""
    seen: set[bytes] = set()

    def look() -> None:
        # Not glob: it looks at each path itself, and a process that ends meanwhile ends the watch.
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                seen.add(Path("/proc", process, "cmdline").read_bytes())
            except OSError:
                continue

    with meanwhile(look):
        yield seen
