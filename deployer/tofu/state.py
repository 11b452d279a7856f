"""What can be told of OpenTofu's local state without running it: is it there, whole, locked by whom."""

import fcntl
import json
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployer.events import printable

_NOTE = ".terraform.tfstate.lock.info"
PLAN, APPLYING = "deployer.tfplan", "deployer-applying.tfplan"  # what is to be applied, and while OpenTofu is at it

Condition = Literal["absent", "empty", "damaged", "whole", "remote", "encrypted"]


@dataclass(frozen=True)
class LocalState:
    """`absent`: no file; `empty`: zero bytes, as a kill can leave it; `remote`: the module keeps its state elsewhere;
    `encrypted`: here, and only OpenTofu can read it.

    `resources` are the addresses of what exists, each with the provider's own id.
    `interrupted` says that what an OpenTofu which no longer runs was making may not be in the state: it was killed, and
    left its lock's note (a `remote` one the plan that it applied), or there is an errored.tfstate of zero
    bytes: its disk was so full, or we took its note away, and no apply has come to a good end since.
    `errored` is the state that OpenTofu could not write to its place, to be pushed by hand.
    """

    condition: Condition
    resources: Mapping[str, str] = field(default_factory=dict[str, str])
    _: KW_ONLY
    interrupted: bool
    errored: Path | None


def look(folder: Path) -> LocalState:
    """Reads the files in `folder`; never raises: what cannot be read is damaged."""
    errored = folder / "errored.tfstate"
    size = _size(errored)
    condition, resources = _contents(folder)
    # An empty note is of an OpenTofu that had no room for it, and did nothing; and so did one that planned.
    noted = bool(_size(folder / _NOTE)) and "(OperationTypePlan," not in _note(folder)
    was_at_work = (folder / APPLYING).exists() if condition == "remote" else noted
    interrupted = size == 0 or (was_at_work and _lock_holder(folder) is None)
    return LocalState(condition, resources, interrupted=interrupted, errored=errored if size else None)


def _size(file: Path) -> int | None:
    with suppress(OSError):  # an OpenTofu that ends takes its note away
        return file.stat().st_size
    return None


def locked_by(folder: Path) -> str:
    """Who holds OpenTofu's state lock now: "process PID, Who (Operation, since Created)"; empty if nobody."""
    pid = _lock_holder(folder)
    return f"process {pid}, {_note(folder)}" if pid else ""


def _lock_holder(folder: Path) -> int | None:
    # OpenTofu locks its local state with fcntl(2), which can be asked who holds it without taking it.
    # struct flock: type, whence, start, len, pid; on macOS start, len, pid, type, whence.
    layout, kind, pid = ("hhqqi", 0, 4) if sys.platform == "linux" else ("qqihh", 3, 2)
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
        note = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
        return printable(f"{note['Who']} ({note['Operation']}, since {note['Created'][:19]}Z)")
    except (OSError, ValueError, TypeError, KeyError):
        return "which left no readable note"


def _contents(folder: Path) -> tuple[Condition, dict[str, str]]:
    try:
        if _is_elsewhere(folder):
            return "remote", {}
        text = (folder / "terraform.tfstate").read_text(encoding="utf-8")  # OpenTofu reads no other encoding
        if not text.strip():
            return "empty", {}
        state = json.loads(text)
        if "encrypted_data" in state:  # OpenTofu 1.7 and newer
            return "encrypted", {}
        managed = [r for r in state["resources"] if r["mode"] == "managed"]
        return "whole", {_address(r, i): _id(i) for r in managed for i in r["instances"]}
    except FileNotFoundError:
        return "absent", {}
    # With OSError it is a folder, or on a disk that does not give it out: nothing that OpenTofu could work with.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return "damaged", {}


def _is_elsewhere(folder: Path) -> bool:
    # OpenTofu notes a configured backend here at init; without one there is no such file.
    note = folder / ".terraform" / "terraform.tfstate"
    if not note.exists():
        return False
    backend = json.loads(note.read_text(encoding="utf-8")).get("backend")  # none where a backend was taken out again
    return bool(backend) and (backend["type"], backend["config"].get("path")) != ("local", None)


def _address(resource: dict[str, Any], instance: dict[str, Any]) -> str:
    inside = f"{resource['module']}." if "module" in resource else ""
    key = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return f"{inside}{resource['type']}.{resource['name']}{key}"


def _id(instance: dict[str, Any]) -> str:
    return str((instance.get("attributes") or {}).get("id", "unknown"))
