"""What can be told of OpenTofu's local state without running it: is it there, whole, locked by whom."""

from __future__ import annotations

import fcntl
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
    ids: tuple[str, ...] = ()  # the provider's own, of `resources` in the same order


def look(folder: Path) -> LocalState:
    """Reads the files in `folder`; never raises: what cannot be read is damaged."""
    interrupted = (folder / _NOTE).exists() and _lock_holder(folder) is None
    errored = folder / "errored.tfstate"
    condition, resources, ids = _condition(folder)
    return LocalState(condition, resources, interrupted, errored if errored.exists() else None, ids)


def locked_by(folder: Path) -> str:
    """Who holds OpenTofu's state lock now: "process PID, Who (Operation, since Created)"; empty if nobody."""
    pid = _lock_holder(folder)
    return f"process {pid}, {_note(folder)}" if pid else ""


def _lock_holder(folder: Path) -> int | None:
    # OpenTofu locks its local state with fcntl(2), which can be asked who holds it without taking it.
    linux = sys.platform == "linux"
    # struct flock: type, whence, start, len, pid; on macOS start, len, pid, type, whence.
    layout, kind, pid = ("hhqqi", 0, 4) if linux else ("qqihh", 3, 2)
    ask = [0] * 5
    ask[kind] = fcntl.F_WRLCK
    try:
        with (folder / "terraform.tfstate").open("rb") as file:
            answer = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, struct.pack(layout, *ask)))
    except OSError:
        return None
    return None if answer[kind] == fcntl.F_UNLCK else int(answer[pid])


def _note(folder: Path) -> str:
    # Only a note: it may stay after a kill, and says nothing of whether the lock is held.
    try:
        note = _json(folder / _NOTE)
        return printable(f"{note['Who']} ({note['Operation']}, since {note['Created'][:19]}Z)")
    except (TypeError, KeyError):
        return "which left no readable note"


def _condition(folder: Path) -> tuple[Condition, tuple[str, ...], tuple[str, ...]]:
    # OpenTofu notes a configured backend here at init; without one there is no such file.
    match _json(folder / ".terraform" / "terraform.tfstate"):
        case {"backend": {"type": str(kind)}} if kind:
            return "remote", (), ()
        case _:
            pass
    try:
        text = (folder / "terraform.tfstate").read_text(encoding="utf-8")  # OpenTofu reads no other encoding
        if not text.strip():
            return "empty", (), ()
        managed = [r for r in json.loads(text)["resources"] if r.get("mode") == "managed"]
        found = [(_address(r, i), _id(i)) for r in managed for i in r.get("instances", [])]
        return "whole", tuple(address for address, _ in found), tuple(id_ for _, id_ in found)
    except FileNotFoundError:
        return "absent", (), ()
    # With OSError it is a folder, or on a disk that does not give it out: nothing that OpenTofu could work with.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "damaged", (), ()


def _address(resource: dict[str, object], instance: dict[str, object]) -> str:
    key, module = instance.get("index_key"), resource.get("module")
    inside = f"{module}." if module else ""
    name = f"{inside}{resource['type']}.{resource['name']}"
    return name + ("" if key is None else f"[{json.dumps(key)}]")


def _id(instance: dict[str, object]) -> str:
    attributes = instance.get("attributes")
    return str(attributes.get("id", "unknown")) if isinstance(attributes, dict) else "unknown"


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
