"""Environments in memory: a store for tests that need no disk. It passes the same contract as the files."""

from __future__ import annotations

import difflib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from deployer.environment import AnyEnvironment, NotAnEnvironment, encode, restore
from deployer.errors import InvalidInput, Locked, UnknownEnvironment, UnreadableState
from deployer.process import Interrupts, ProcessIdentity
from deployer.storage.lock import Record, own_record


@dataclass
class Slot:
    """What a folder is for the files: the text, the lock, the record of its holder."""

    name: str
    text: str | None = None
    record: Record | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self) -> AnyEnvironment | None:
        if self.text is None:
            return None
        try:
            environment = restore(self.text)
        except NotAnEnvironment as error:
            raise UnreadableState(f"the state of {self.name} cannot be used", detail=str(error)) from None
        if environment.name != self.name:
            raise UnreadableState(f"the state of {self.name} cannot be used", detail=f"it is of {environment.name}")
        return environment


class MemoryRepository:
    """EnvironmentRepository over a dictionary; its locks are of this process."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(name for name, slot in self.slots.items() if slot.text is not None))

    def load(self, name: str) -> AnyEnvironment:
        environment = self._slot(name).load()
        if environment is None:
            raise self._unknown(name)
        return environment

    def holder(self, name: str) -> Record | None:
        return self._slot(name).record

    @contextmanager
    def hold(
        self, name: str, command: str, *, timeout: float, interrupts: Interrupts, new: bool = False
    ) -> Iterator[HeldSlot]:
        slot = self._slot(name)
        if slot.text is None and not new:
            raise self._unknown(name)
        end = time.monotonic() + timeout
        while not slot.lock.acquire(blocking=False):
            interrupts.check(f"waiting for the lock of {name}")
            if time.monotonic() >= end:
                holder = slot.record.as_dict() if slot.record else {}
                raise Locked(f"environment {name} is in use", holder=holder, detail=str(holder))
            time.sleep(0.01)
        slot.record = own_record(command)
        try:
            yield HeldSlot(slot)
        finally:
            slot.record = None
            slot.lock.release()

    def _slot(self, name: str) -> Slot:
        if not name or set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-") or name.strip("-") != name:
            raise InvalidInput(f"{name[:60]!r} is not a name of an environment")
        if len(name) > 40:
            raise InvalidInput(f"{name[:60]!r} is too long for a name")
        return self.slots.setdefault(name, Slot(name))

    def _unknown(self, name: str) -> UnknownEnvironment:
        close = difflib.get_close_matches(name, self.names(), n=1)
        return UnknownEnvironment(
            f"there is no environment {name}", detail=f"did you mean {close[0]}?" if close else ""
        )


class HeldSlot:
    """HeldEnvironment of a slot."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def load(self) -> AnyEnvironment | None:
        return self._slot.load()

    def save(self, environment: AnyEnvironment) -> None:
        self._slot.text = encode(environment)

    def at_step(self, step: str) -> None:
        self._slot.record = replace(self._record, step=step)

    def child_started(self, child: ProcessIdentity, doing: str) -> None:
        self._slot.record = self._record.with_child(child, doing)

    def child_ended(self, child: ProcessIdentity) -> None:
        self._slot.record = self._record.without_child(child)

    @property
    def _record(self) -> Record:
        assert self._slot.record is not None
        return self._slot.record
