"""Who a process is: its pid together with its start time, because the kernel gives pids out again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A pid and an opaque mark of when that process started, equal only for the same process on the same boot."""

    pid: int
    started: str


def identity_of(pid: int) -> ProcessIdentity | None:
    """The identity of a running process; None where there is none (a zombie has ended)."""
    started = _started_linux(pid) if sys.platform == "linux" else _started_ps(pid)
    return ProcessIdentity(pid, started) if started else None


def own_identity() -> ProcessIdentity:
    return identity_of(os.getpid()) or ProcessIdentity(os.getpid(), "")


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; a later process with the same pid does not count."""
    return identity_of(identity.pid) == identity


def _started_linux(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    # The command's name is in parentheses and may hold spaces and parentheses of its own: count from the last one.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in "ZX":
        return ""
    return f"{boot[:8]}:{fields[19]}"  # starttime is field 22 of proc(5), in clock ticks since boot


def _started_ps(pid: int) -> str:
    try:
        shown = subprocess.run(
            ["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if shown.startswith("Z") else shown.partition(" ")[2].strip()
