"""What keeps environments, as a protocol: any store that passes tests/contracts may stand behind the workflows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from deployer.environment import AnyEnvironment
from deployer.process import Interrupts, Register
from deployer.storage.lock import Record


class HeldEnvironment(Register, Protocol):
    """An environment whose lock is held. The only object that can save: writing without the lock cannot be said."""

    def load(self) -> AnyEnvironment | None:
        """The saved environment, None where there is none yet. Raises UnreadableState."""
        ...

    def save(self, environment: AnyEnvironment) -> None:
        """Makes `environment` the saved one, durably, or raises StorageFailed and leaves the old one."""
        ...

    def at_step(self, step: str) -> None:
        """Names the step in the lock's record."""
        ...


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
