"""The record inside the lock file: who holds it, for what, and which children work for the holder."""

from __future__ import annotations

import getpass
import json
import os
import socket
import zlib
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from deployer.process import ProcessIdentity, is_alive, own_identity

_LONGEST = 256 * 1024  # bytes


@dataclass(frozen=True)
class Child:
    """A process that works for the holder: at what, since when."""

    pid: int
    started: str
    doing: str
    since: str

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.started)


@dataclass(frozen=True)
class Record:
    """The holder of an environment: process, computer, user, command, step, since when (ISO 8601, UTC)."""

    pid: int
    started: str
    host: str
    user: str
    command: str
    step: str
    since: str
    children: tuple[Child, ...] = ()

    @property
    def alive(self) -> bool | None:
        """Whether the holder still runs; None where that cannot be known from this computer."""
        if is_alive(ProcessIdentity(self.pid, self.started)):
            return True
        return False if self.host == socket.gethostname() else None

    @property
    def living_children(self) -> tuple[Child, ...]:
        """The children that run on this computer. Its name is not asked: laptops change theirs with the network."""
        return tuple(c for c in self.children if is_alive(c.identity))

    def with_child(self, identity: ProcessIdentity, doing: str) -> Record:
        child = Child(identity.pid, identity.started, doing, _now())
        return replace(self, children=(*self.children, child))

    def without_child(self, identity: ProcessIdentity) -> Record:
        return replace(self, children=tuple(c for c in self.children if c.identity != identity))

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "alive": self.alive}


def own_record(command: str) -> Record:
    me = own_identity()
    return Record(me.pid, me.started, socket.gethostname(), _user(), command, "", _now())


def write_record(descriptor: int, record: Record | None) -> None:
    """Makes the record, or None, the first line of the open lock file. Raises OSError.

    One write, with a checksum for readers who see half of it. The file never shrinks: on a full disk there is room.
    """
    line = b"\n"
    if record is not None:
        text = json.dumps(asdict(record), ensure_ascii=False).encode(errors="replace")  # a user's name may be no text
        line = b"%08x %b\n" % (zlib.crc32(text), text)
    os.pwrite(descriptor, line, 0)


def read_record(path: Path) -> Record | None:
    """The record in a lock file; None where there is none, or none that can be trusted."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST).strip()  # behind it there may be the end of a longer, older record
        checksum, _, text = line.partition(b" ")
        if not text or int(checksum, 16) != zlib.crc32(text):
            return None
        from pydantic import TypeAdapter  # slow, and most often there is no record

        return TypeAdapter(Record).validate_json(text, strict=True)
    except (OSError, ValueError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
