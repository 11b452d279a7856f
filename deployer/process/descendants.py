"""Ends a process together with all its descendants, in whatever sessions they are. Knows no tool."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from deployer.process.identity import ProcessIdentity, is_alive


def end_tree(root: ProcessIdentity) -> None:
    """Kills `root`, where it still lives, and its descendants; never the caller, who may give itself as `root`.

    All are stopped first: none starts another meanwhile.
    """
    stopped: set[int] = set()
    while is_alive(root) and (found := _family(root.pid) - stopped - {os.getpid()}):
        _signal(found, signal.SIGSTOP)
        stopped |= found
    _signal(stopped, signal.SIGKILL)


def _signal(pids: set[int], signum: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _family(root: int) -> set[int]:
    parents = _parents()
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _parents() -> dict[int, int]:
    if sys.platform != "linux":
        ps = ["ps", "-A", "-o", "pid=,ppid="]
        shown = subprocess.run(ps, capture_output=True, text=True, timeout=10, check=True).stdout
        return {int(pid): int(parent) for pid, parent in map(str.split, shown.splitlines())}
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything: state and parent follow the last one.
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
    return parents
