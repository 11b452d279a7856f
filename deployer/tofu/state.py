"""What can be told of OpenTofu's local state without running it: is it there, whole, locked by whom."""

from __future__ import annotations

import fcntl
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deployer.events import printable

_NOTE = ".terraform.tfstate.lock.info"

Condition = Literal["absent", "empty", "damaged", "whole", "remote"]


@dataclass(frozen=True)
class LocalState:
    """`absent`: no file; `empty`: zero bytes, as a kill can leave it; `remote`: the module keeps its state elsewhere.

    `interrupted` says that an OpenTofu which no longer runs left its lock's note: it was killed, and what it was making
    may not be in the state.
    `errored` is the state that OpenTofu could not write to its place, to be pushed by hand.
    """

    condition: Condition
    resources: tuple[str, ...]
    interrupted: bool
    errored: Path | None


def look(folder: Path) -> LocalState:
    """Reads the files in `folder`; never raises: what cannot be read is damaged."""
    errored = folder / "errored.tfstate"
    condition, resources = _condition(folder)
    interrupted = (folder / _NOTE).exists() and _lock_holder(folder) is None
    return LocalState(condition, resources, interrupted, errored if errored.exists() else None)


def locked_by(folder: Path) -> str:
    """Who holds OpenTofu's state lock now: "process PID, Who (Operation, since Created)"; empty if nobody."""
    pid = _lock_holder(folder)
    return f"process {pid}, {_note(folder)}" if pid else ""


def _lock_holder(folder: Path) -> int | None:
    # OpenTofu locks its local state with fcntl(2), which can be asked who holds it without taking it.
    linux = sys.platform == "linux"
    layout = "hhqqi" if linux else "qqihh"  # struct flock: type, whence, start, len, pid; on macOS the other way round
    ask = (fcntl.F_WRLCK, 0, 0, 0, 0) if linux else (0, 0, 0, fcntl.F_WRLCK, 0)
    try:
        with (folder / "terraform.tfstate").open("rb") as file:
            answer = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *ask)))
    except OSError:
        return None
    kind, pid = (answer[0], answer[4]) if linux else (answer[3], answer[2])
    return None if kind == fcntl.F_UNLCK else int(pid)


def _note(folder: Path) -> str:
    # Only a note: it may stay after a kill, and says nothing of whether the lock is held.
    try:
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        return printable(f"{note['Who']} ({note['Operation']}, since {note['Created'][:19]}Z)")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "which left no readable note"


def _condition(folder: Path) -> tuple[Condition, tuple[str, ...]]:
    if _has_backend(folder):
        return "remote", ()
    try:
        data = (folder / "terraform.tfstate").read_bytes()
    except FileNotFoundError:
        return "absent", ()
    except OSError:  # a folder, or a disk that does not give it out: nothing that OpenTofu could work with
        return "damaged", ()
    if not data.strip():
        return "empty", ()
    try:
        state = json.loads(data.decode("utf-8"))  # OpenTofu reads no other encoding, and json guesses some
        addresses = tuple(
            f"{r['type']}.{r['name']}{_index(i)}"
            for r in state["resources"]
            if r.get("mode") == "managed"
            for i in r.get("instances", [])
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "damaged", ()
    return "whole", addresses


def _index(instance: dict[str, object]) -> str:
    key = instance.get("index_key")
    return "" if key is None else f"[{json.dumps(key)}]"


def _has_backend(folder: Path) -> bool:
    # OpenTofu notes a configured backend here at init; without one there is no such file.
    try:
        noted = json.loads((folder / ".terraform" / "terraform.tfstate").read_text(encoding="utf-8"))
        return bool(noted.get("backend", {}).get("type"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
