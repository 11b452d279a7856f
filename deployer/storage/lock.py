"""The lock of an environment: the kernel's, held for a whole command, and in its file the record of who holds it, for
what, and which children work for the holder."""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from deployer.errors import Locked, StorageFailed
from deployer.events import utc_now
from deployer.process import Interrupts, ProcessIdentity, is_alive, own_identity
from deployer.storage.folder import EnvironmentFolder, storage_failed

_LONGEST = 256 * 1024  # bytes


@dataclass(frozen=True)
class Child(ProcessIdentity):
    """A process that works for the holder: at what, since when."""

    doing: str
    since: str


@dataclass(frozen=True)
class Record(ProcessIdentity):
    """The holder of an environment: process, computer, user, command, step, since when (ISO 8601, UTC)."""

    host: str
    user: str
    command: str
    step: str
    since: str
    children: tuple[Child, ...] = ()

    @property
    def alive(self) -> bool | None:
        """Whether the holder still runs; None where that cannot be known from this computer."""
        return is_alive(self) or (False if self.host == socket.gethostname() else None)

    @property
    def living_children(self) -> tuple[Child, ...]:
        """The children that run on this computer. Its name is not asked: laptops change theirs with the network."""
        return tuple(c for c in self.children if is_alive(c))

    def with_child(self, identity: ProcessIdentity, doing: str) -> Record:
        return replace(self, children=(*self.children, Child(identity.pid, identity.started, doing, _now())))

    def without_child(self, identity: ProcessIdentity) -> Record:
        return replace(self, children=tuple(c for c in self.children if c.pid != identity.pid))

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "alive": self.alive}


def own_record(command: str) -> Record:
    me, user = own_identity(), str(os.getuid())
    with contextlib.suppress(KeyError, OSError):  # it has no name
        user = getpass.getuser()
    return Record(me.pid, me.started, socket.gethostname(), user, command, "", _now())


def _now() -> str:
    return f"{utc_now():%Y-%m-%dT%H:%M:%SZ}"


def write_record(descriptor: int, record: Record | None) -> None:
    """Makes the record, or None, the first line of the open lock file. Raises OSError.

    One write, with a checksum for readers who see half of it. The file never shrinks: on a full disk there is room.
    """
    line = b"\n"
    if record is not None:
        text = json.dumps(asdict(record), ensure_ascii=False).encode(errors="replace")  # a user's name may be no text
        line = b"%08x %b\n" % (zlib.crc32(text), text)
    if os.pwrite(descriptor, line, 0) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_record(path: Path) -> Record | None:
    """The record in a lock file; None where there is none, or none that can be trusted."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        line = file.readline(_LONGEST).strip()  # behind it there may be the end of a longer, older record
        checksum, _, text = line.partition(b" ")
        if text and int(checksum, 16) == zlib.crc32(text):
            return TypeAdapter(Record).validate_json(text, strict=True)  # made here: slow, and most often there is none
    return None


@contextlib.contextmanager
def locked(folder: EnvironmentFolder, *, timeout: float, interrupts: Interrupts) -> Iterator[int]:
    """Holds the environment's lock while the block runs, and gives its open file; waits `timeout` seconds for it.

    Raises Locked where another process holds it, or where a child of a dead holder still works; StorageFailed where the
    file cannot be made or the filesystem has no flock; Interrupted while waiting.
    """
    from filelock import FileLock, Timeout  # slow, and those who only read a record do without

    end = time.monotonic() + timeout
    opened: list[int] = []
    lock = FileLock(folder.lock, mode=0o600, thread_local=False, fallback_to_soft=False, on_acquired=opened.append)
    while True:
        left = max(0.0, end - time.monotonic())
        try:
            lock.acquire(timeout=left, poll_interval=0.05, cancel_check=lambda: interrupts.count > 0)
        except Timeout:
            interrupts.check(f"waiting for the lock of {folder.name}")
            raise _locked_by_holder(folder) from None
        except OSError as error:
            raise _no_lock(folder.lock, error) from error
        # A record that still stands was left by a holder who was killed. Its children may be at work yet.
        former = read_record(folder.lock)
        orphan = next(iter(former.living_children), None) if former else None
        if former is None or orphan is None:
            break
        lock.release()
        if time.monotonic() >= end:
            raise _locked_by_orphan(folder, former, orphan)
        interrupts.sleep(0.2, f"waiting for process {orphan.pid} ({orphan.doing})")
    try:
        yield opened[-1]
    finally:
        # What the command achieved must not be lost for a refused unlock; the kernel frees the lock with our process.
        with contextlib.suppress(OSError):
            lock.release()


def _no_lock(path: Path, error: OSError) -> StorageFailed:
    failed = storage_failed("cannot lock", path, error)
    if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
        failed.detail = "this filesystem does not support flock, so two commands could work on one environment at once"
        failed.help = "deployer --home /a/directory/on/a/local/disk ..."
    return failed


def _locked_by_holder(folder: EnvironmentFolder) -> Locked:
    message = f"environment {folder.name} is in use"
    look = f"deployer show {folder.name}    # to wait instead: the same command with --lock-timeout 600"
    record = None
    for _ in range(20):
        # The winner writes its record right after it got the lock; give it a moment to say who it is.
        record = read_record(folder.lock)
        if record is not None and record.alive is not False:
            break
        time.sleep(0.025)
    if record is None:
        return Locked(message, detail="by a process that has not said who it is yet", help=look)
    life = {True: "it is running", False: "it has just ended", None: f"on {record.host}, so not visible from here"}
    at = f", at step {record.step}" if record.step else ""
    detail = f"process {record.pid} of {record.user}@{record.host} runs `deployer {record.command}`{at}, "
    detail += f"since {record.since}; {life[record.alive]}"
    return Locked(message, holder=record.as_dict(), detail=detail, help=look)


def _locked_by_orphan(folder: EnvironmentFolder, former: Record, child: Child) -> Locked:
    return Locked(
        f"environment {folder.name} is still being worked on",
        holder={**former.as_dict(), "orphan": {"pid": child.pid, "doing": child.doing, "since": child.since}},
        detail=f"process {child.pid} ({child.doing}, since {child.since}) goes on although the "
        f"`deployer {former.command}` that started it (process {former.pid}) is gone",
        remains="Nothing was changed by this command; when that process ends, the environment is free by itself.",
        help=f"ps -fp {child.pid}    # to end it in good order: kill -INT {child.pid}; to wait: --lock-timeout 600",
    )
