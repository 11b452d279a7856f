"""What keeps environments, as a protocol, and the store of ours: JSON files in a home, one folder for each environment.

Any store that passes tests/contracts may stand behind the workflows.
"""

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Protocol

from deployer.environment import AnyEnvironment, NotAnEnvironment, encode, restore
from deployer.errors import InvalidInput, StorageFailed, UnknownEnvironment, UnreadableState
from deployer.files import write_atomically
from deployer.process import Interrupts, ProcessIdentity, Register
from deployer.storage.folder import EnvironmentFolder, private_directory, storage_failed
from deployer.storage.lock import Record, locked, own_record, read_record, write_record

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_LARGEST = 16 * 1024 * 1024  # bytes; what is longer is no state of ours, nor JSON when it is cut off there


class HeldEnvironment(Register, Protocol):
    """An environment whose lock is held. The only object that can save: writing without the lock cannot be said."""

    def load(self) -> AnyEnvironment | None:
        """The saved environment, None where there is none yet. Raises UnreadableState."""

    def save(self, environment: AnyEnvironment) -> None:
        """Makes `environment` the saved one, durably, or raises StorageFailed and leaves the old one."""

    def at_step(self, step: str) -> None:
        """Names the step in the lock's record."""


class EnvironmentRepository(Protocol):
    """All environments of a home. Reading needs no lock and never blocks."""

    def names(self) -> tuple[str, ...]:
        """The names that have a saved environment, sorted."""
        ...

    def load(self, name: str) -> AnyEnvironment:
        """Raises UnknownEnvironment, UnreadableState."""
        ...

    def holder(self, name: str) -> Record | None:
        """Who works on the environment now, as far as its record tells."""
        ...

    def hold(
        self, name: str, command: str, *, timeout: float, interrupts: Interrupts, new: bool = False
    ) -> AbstractContextManager[HeldEnvironment]:
        """The lock, for a whole command; `new` where the environment need not exist. Raises Locked, StorageFailed, and
        what `load` raises where it must exist."""
        ...


class HeldFiles:
    """HeldEnvironment over one environment's files, the lock's among them. Made by `FileRepository.hold` only."""

    def __init__(self, folder: EnvironmentFolder, lock: int, record: Record) -> None:
        self.folder = folder
        self._lock = lock
        self._put(record)

    def load(self) -> AnyEnvironment | None:
        return _read(self.folder)

    def save(self, environment: AnyEnvironment) -> None:
        try:
            write_atomically(self.folder.state, encode(environment).encode())
        except OSError as error:
            raise storage_failed("cannot save", self.folder.state, error) from error

    def at_step(self, step: str) -> None:
        """Never raises: the run's story is in the state, and a record that names an older step harms nobody."""
        with suppress(StorageFailed):
            self._put(replace(self._record, step=step))

    def child_started(self, child: ProcessIdentity, doing: str) -> None:
        """Raises StorageFailed; the child must not begin then."""
        self._put(self._record.with_child(child, doing))

    def child_ended(self, child: ProcessIdentity) -> None:
        """Never raises: what the child achieved must not be lost for a record, and a dead child in it blocks nobody."""
        with suppress(StorageFailed):
            self._put(self._record.without_child(child))

    def close(self) -> None:
        """Takes the record away."""
        # A child that outlives the command (its end was not awaited) must be found by the next one.
        if not self._record.living_children:
            with suppress(OSError):
                write_record(self._lock, None)

    def _put(self, record: Record) -> None:
        self._record = record
        try:
            write_record(self._lock, record)
        except OSError as error:
            raise storage_failed("cannot write", self.folder.lock, error) from error


class FileRepository:
    """EnvironmentRepository over `HOME/environments/NAME/environment.json`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def folder(self, name: str) -> EnvironmentFolder:
        """Where `name` lies, whether it exists or not. Raises InvalidInput for what cannot be a name."""
        if not _NAME.fullmatch(name):
            detail = "the name in a file has a-z, 0-9 and hyphens, at most 40, with a letter or digit at both ends"
            raise InvalidInput(f"{name[:60]!r} is not a name of an environment", detail=detail, help="deployer list")
        return EnvironmentFolder(self.home / "environments" / name)

    def names(self) -> tuple[str, ...]:
        try:
            found = [p.name for p in (self.home / "environments").iterdir() if _NAME.fullmatch(p.name)]
            return tuple(sorted(name for name in found if _begun(self.folder(name))))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_failed("cannot read", self.home / "environments", error) from error

    def load(self, name: str) -> AnyEnvironment:
        environment = _read(self.folder(name))
        if environment is None:
            if _begun(self.folder(name)):
                raise unreadable(self.folder(name), "it is not there any more")
            problem, known = f"there is no environment {name} in {self.home}", ", ".join(self.names()) or "none"
            nowhere = "no such folder: a home is the nearest .deployer upwards, or what --home or DEPLOYER_HOME name"
            detail = f"environments here: {known}" if self.home.is_dir() else nowhere
            raise UnknownEnvironment(problem, detail=detail, help="deployer list")
        return environment

    def holder(self, name: str) -> Record | None:
        record = read_record(self.folder(name).lock)
        return record if record is not None and (record.alive is not False or record.living_children) else None

    @contextmanager
    def hold(
        self, name: str, command: str, *, timeout: float, interrupts: Interrupts, new: bool = False
    ) -> Iterator[HeldFiles]:
        folder = self.folder(name)
        private_directory(folder.root) if new else self.load(name)
        with (
            locked(folder, timeout=timeout, interrupts=interrupts) as lock,
            closing(HeldFiles(folder, lock, own_record(command))) as held,
        ):
            yield held


def _begun(folder: EnvironmentFolder) -> bool:
    return folder.state.exists() or folder.tofu.exists()  # the latter is made after the first state, and goes before it


def _read(folder: EnvironmentFolder) -> AnyEnvironment | None:
    try:
        with folder.state.open("rb") as file:
            data = file.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(folder, str(error.strerror)) from error
    if not data.strip():
        raise unreadable(folder, "it is empty")
    try:
        environment = restore(data)
    except NotAnEnvironment as error:
        raise unreadable(folder, f"{error} (or has another version of deployer written it?)") from None
    if environment.name != folder.name:
        raise unreadable(folder, f"field name: it is of environment {environment.name}")
    return environment


def unreadable(folder: EnvironmentFolder, problem: str) -> UnreadableState:
    known = f"What exists is known to OpenTofu in {folder.tofu}."
    look = f"{folder.enter_tofu} && tofu state list    # what exists; `tofu destroy` there takes it away"
    if os.access(folder.root, os.X_OK) and not folder.tofu.exists():
        known = "OpenTofu has no folder beside it, as before anything is made and after all is destroyed."
        look = f"rm -r {quote(str(folder.state))}    # then the name is free"
    remains = f"It was left as it is, and so was everything else. {known}"
    message = f"the state file {folder.state} cannot be used"
    return UnreadableState(message, detail=problem, remains=remains, help=look)
