"""The repository of JSON files in a home: one folder for each environment.

What `status` does not need, the lock and the processes behind it, is imported where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.environment import AnyEnvironment, NotAnEnvironment, encode, restore
from deployer.errors import InvalidInput, UnknownEnvironment, UnreadableState
from deployer.storage.atomic import write_atomically
from deployer.storage.folder import EnvironmentFolder, private_directory, storage_failed

if TYPE_CHECKING:
    from deployer.process import Interrupts
    from deployer.storage.lock import Lock
    from deployer.storage.record import Record

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_LARGEST = 16 * 1024 * 1024  # bytes; what is longer is no state of ours, nor JSON when it is cut off there


class FileRepository:
    """EnvironmentRepository over `HOME/environments/NAME/environment.json`."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def folder(self, name: str) -> EnvironmentFolder:
        """Where `name` lies, whether it exists or not. Raises InvalidInput for what cannot be a name."""
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name[:60]!r} is not a name of an environment",
                detail="a name has a-z, 0-9 and hyphens, at most 40, and begins and ends with a letter or a digit",
                help="deployer list",
            )
        return EnvironmentFolder(self.home / "environments" / name)

    def names(self) -> tuple[str, ...]:
        try:
            found = [p.name for p in (self.home / "environments").iterdir() if _NAME.fullmatch(p.name)]
            return tuple(sorted(name for name in found if self.folder(name).state.exists()))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise storage_failed("cannot read", self.home / "environments", error) from error

    def load(self, name: str) -> AnyEnvironment:
        environment = _read(self.folder(name))
        if environment is None:
            known = ", ".join(self.names()) or "none"
            raise UnknownEnvironment(
                f"there is no environment {name} in {self.home}",
                detail=f"environments here: {known}",
                help="deployer list",
            )
        return environment

    def holder(self, name: str) -> Record | None:
        from deployer.storage.record import read_record

        record = read_record(self.folder(name).lock)
        return record if record is not None and (record.alive is not False or record.living_children) else None

    @contextmanager
    def hold(
        self, name: str, command: str, *, timeout: float, interrupts: Interrupts, new: bool = False
    ) -> Iterator[HeldFiles]:
        from deployer.storage.lock import hold

        folder = self.folder(name)
        if new:
            private_directory(folder.root)
        else:
            self.load(name)
        with hold(folder.lock, name, command, timeout=timeout, interrupts=interrupts) as lock:
            yield HeldFiles(folder, lock)


class HeldFiles:
    """HeldEnvironment over one environment's files; the record is the lock's. Made by `FileRepository.hold` only."""

    def __init__(self, folder: EnvironmentFolder, lock: Lock) -> None:
        self.folder = folder
        self.at_step, self.child_started, self.child_ended = lock.at_step, lock.child_started, lock.child_ended

    def load(self) -> AnyEnvironment | None:
        return _read(self.folder)

    def save(self, environment: AnyEnvironment) -> None:
        try:
            write_atomically(self.folder.state, encode(environment).encode())
        except OSError as error:
            raise storage_failed("cannot save", self.folder.state, error) from error


def _read(folder: EnvironmentFolder) -> AnyEnvironment | None:
    path = folder.state
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(folder, storage_failed("cannot read", path, error).detail) from error
    if not data.strip():
        raise unreadable(folder, "it is empty")
    try:
        environment = restore(data)
    except NotAnEnvironment as error:
        raise unreadable(folder, str(error)) from None
    if environment.name != folder.name:
        raise unreadable(folder, f"field name: it is of environment {environment.name}")
    return environment


def unreadable(folder: EnvironmentFolder, problem: str) -> UnreadableState:
    return UnreadableState(
        f"the state file {folder.state} cannot be used",
        detail=problem,
        remains=f"It was left as it is, and so was everything else. What exists is known to OpenTofu in {folder.tofu}.",
        help=f"cd {folder.tofu} && tofu state list    # what exists; `tofu destroy` there takes it away",
    )
