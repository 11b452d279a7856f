"""Ends a process together with all its descendants, in whatever sessions they are. Knows no tool.

Ansible's workers and their ssh have sessions of their own (ansible-core 2.19): killing the process group misses them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from deployer.process import Interrupts, ProcessIdentity, Request, capture, is_alive


def end_tree(root: ProcessIdentity) -> None:
    """Kills `root` and its descendants. Each is stopped first, so that none can start another behind our back."""
    if not is_alive(root):
        return
    stopped: set[int] = set()
    while found := _descendants(root.pid) - stopped:
        for pid in found:
            _signal(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _descendants(root: int) -> set[int]:
    """`root` and all below it."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found, waiting = set[int](), [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += [child for child in children.get(pid, ()) if child not in found]
    return found


def _parents() -> list[tuple[int, int]]:
    """Each running process with its parent."""
    if sys.platform != "linux":
        request = Request(
            argv=("/bin/ps", "-A", "-o", "pid=,ppid="), doing="list processes", cwd=Path("/"), env={}, timeout=10
        )
        _, shown = capture(request, interrupts=Interrupts())
        return [(int(pid), int(parent)) for pid, parent in (line.split() for line in shown.splitlines())]
    pairs: list[tuple[int, int]] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in parentheses may hold anything: state and parent follow the last one.
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] not in "ZX":
                pairs.append((int(path.parent.name), int(fields[1])))
    return pairs
