"""Who a process is: its pid together with its start time, because the kernel gives pids out again. And its descendants,
in whatever sessions they are."""

import contextlib
import os
import signal
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
    """The identity of a running process; None where there is none (a zombie has ended, if its threads have)."""
    started = ""
    with contextlib.suppress(OSError, IndexError, subprocess.SubprocessError):  # it may end while it is looked at
        started = _started_linux(pid) if sys.platform == "linux" else _started_ps(pid)
    return ProcessIdentity(pid, started) if started else None


def own_identity() -> ProcessIdentity:
    return identity_of(os.getpid()) or ProcessIdentity(os.getpid(), "")


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; a later process with the same pid does not count.

    `identity` may be a record that says more of the process: what counts is who it is.
    """
    return identity_of(identity.pid) == ProcessIdentity(identity.pid, identity.started)


def end_trees(*roots: ProcessIdentity) -> None:
    """Kills those of `roots` that still live, and their descendants; never the caller, who may be one of `roots`.

    All are stopped first: none starts another meanwhile, or goes on because what it waited for has ended.
    """
    stopped: set[int] = set()
    while found := _families({root.pid for root in roots if is_alive(root)}) - stopped - {os.getpid()}:
        _signal(found, signal.SIGSTOP)
        stopped |= found
    _signal(stopped, signal.SIGKILL)


def children_of(parent: int) -> set[int]:
    return {pid for pid, its_parent in _parents().items() if its_parent == parent}


def still_in(groups: set[int]) -> set[ProcessIdentity]:
    """Who runs in the process groups of these numbers, whoever their parents are by now. Takes out of `groups` the
    numbers that are free again: somebody else may get them."""
    found: dict[ProcessIdentity, int] = {}
    for pid in _parents() if groups else ():
        with contextlib.suppress(OSError):
            if (group := os.getpgid(pid)) in groups and (identity := identity_of(pid)):
                found[identity] = group
    groups &= {*found.values()}
    return {*found}


def _signal(pids: set[int], signum: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def _families(roots: set[int]) -> set[int]:
    parents = _parents() if roots else {}
    found = {*roots}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _parents() -> dict[int, int]:
    if sys.platform != "linux":
        return {int(pid): int(parent) for pid, parent in map(str.split, _ps("-A", "-o", "pid=,ppid=").splitlines())}
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    return parents


def _started_linux(pid: int) -> str:
    fields = _stat(pid)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    # Of proc(5): state is field 3, num_threads 20, starttime 22, in clock ticks since boot. A process that is killed is
    # a zombie while its other threads still end, and holds its files and locks until the last of them has.
    return "" if fields[0] in "ZX" and int(fields[17]) <= 1 else f"{boot[:8]}:{fields[19]}"


def _stat(pid: int) -> list[str]:
    # The command's name is in parentheses and may hold spaces and parentheses of its own: count from the last one.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _started_ps(pid: int) -> str:
    state, _, started = _ps("-o", "state=,lstart=", "-p", str(pid)).strip().partition(" ")
    return "" if state.startswith("Z") else started.strip()


def _ps(*argv: str) -> str:
    same = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}  # whoever asks reads the same times
    return subprocess.run(["ps", *argv], env=same, capture_output=True, text=True, timeout=10, check=True).stdout
