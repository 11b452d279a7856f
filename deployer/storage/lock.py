"""The lock of an environment: the kernel's, held for a whole command, with a record of its holder inside."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from deployer.errors import Locked, StorageFailed
from deployer.process import Interrupts, ProcessIdentity
from deployer.storage.folder import storage_failed
from deployer.storage.record import Child, Record, own_record, read_record, write_record


class Lock:
    """The held lock. Children of the holder are put on record here before they begin (deployer.process.Register)."""

    def __init__(self, path: Path, descriptor: int, record: Record) -> None:
        self._path = path
        self._descriptor = descriptor
        self._put(record)

    def _put(self, record: Record) -> None:
        self._record = record
        try:
            write_record(self._descriptor, record)
        except OSError as error:
            raise storage_failed("cannot write", self._path, error) from error

    def at_step(self, step: str) -> None:
        """Never raises: the run's story is in the state, and a record that names an older step harms nobody."""
        with contextlib.suppress(StorageFailed):
            self._put(replace(self._record, step=step))

    def child_started(self, child: ProcessIdentity, doing: str) -> None:
        """Raises StorageFailed; the child must not begin then."""
        self._put(self._record.with_child(child, doing))

    def child_ended(self, child: ProcessIdentity) -> None:
        """Never raises: what the child achieved must not be lost for a record, and a dead child in it blocks nobody."""
        with contextlib.suppress(StorageFailed):
            self._put(self._record.without_child(child))

    def clear(self) -> None:
        # A child that outlives the command (its end was not awaited) must be found by the next one.
        if not self._record.living_children:
            with contextlib.suppress(OSError):
                write_record(self._descriptor, None)


@contextmanager
def hold(path: Path, name: str, command: str, *, timeout: float, interrupts: Interrupts) -> Iterator[Lock]:
    """Holds the lock at `path` while the block runs; waits `timeout` seconds for it.

    Raises Locked where another process holds it, or where a child of a dead holder still works; StorageFailed where the
    file cannot be made or the filesystem has no flock; Interrupted while waiting.
    """
    end = time.monotonic() + timeout
    descriptor: list[int] = []
    lock = FileLock(str(path), mode=0o600, thread_local=False, fallback_to_soft=False, on_acquired=descriptor.append)
    while True:
        left = max(0.0, end - time.monotonic())
        try:
            lock.acquire(timeout=left, poll_interval=0.05, cancel_check=lambda: interrupts.count > 0)
        except Timeout:
            interrupts.check(f"waiting for the lock of {name}")
            raise _locked_by_holder(path, name) from None
        except OSError as error:
            raise _no_lock(path, error) from error
        # A record that still stands was left by a holder who was killed. Its children may be at work yet.
        former = read_record(path)
        orphan = next(iter(former.living_children), None) if former else None
        if former is None or orphan is None:
            break
        lock.release()
        if time.monotonic() >= end:
            raise _locked_by_orphan(name, former, orphan)
        interrupts.sleep(0.2, f"waiting for process {orphan.pid} ({orphan.doing})")
    try:
        held = Lock(path, descriptor[-1], own_record(command))
        try:
            yield held
        finally:
            held.clear()
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


def _locked_by_holder(path: Path, name: str) -> Locked:
    record = None
    for _ in range(20):
        # The winner writes its record right after it got the lock; give it a moment to say who it is.
        record = read_record(path)
        if record is not None and record.alive is not False:
            break
        time.sleep(0.025)
    message = f"environment {name} is in use"
    if record is None:
        detail = "by a process that has not said who it is yet"
        return Locked(message, detail=detail, help="type the command again, or add --lock-timeout 600 to wait")
    life = {True: "it is running", False: "it has just ended", None: f"on {record.host}, so not visible from here"}
    at = f", at step {record.step}" if record.step else ""
    detail = f"process {record.pid} of {record.user}@{record.host} runs `deployer {record.command}`{at}, "
    detail += f"since {record.since}; {life[record.alive]}"
    look = f"wait with --lock-timeout 600, or look: deployer show {name}; ps -fp {record.pid}"
    return Locked(message, holder=record.as_dict(), detail=detail, help=look)


def _locked_by_orphan(name: str, former: Record, child: Child) -> Locked:
    return Locked(
        f"environment {name} is still being worked on",
        holder={**former.as_dict(), "orphan": {"pid": child.pid, "doing": child.doing, "since": child.since}},
        detail=f"process {child.pid} ({child.doing}, since {child.since}) goes on although the "
        f"`deployer {former.command}` that started it (process {former.pid}) is gone",
        remains="Nothing was changed by this command; when that process ends, the environment is free by itself.",
        help=f"wait with --lock-timeout 600, look with: ps -fp {child.pid}, "
        f"or end it in good order with: kill -INT {child.pid}",
    )
