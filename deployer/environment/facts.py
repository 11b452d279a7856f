"""What an environment's file holds beside its state: hosts, resources, progress, failure. Plain frozen values."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, JsonValue

from deployer.errors import FailureKind


def _finite(data: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(data, allow_nan=False)  # ValueError: from JSON, 1e999 comes through as infinity
    return data


Specification = Annotated[dict[str, JsonValue], AfterValidator(_finite)]
Command = Literal["provision", "configure", "destroy"]
Line = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
EnvironmentName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$", max_length=253)]
StepName = Annotated[str, Field(pattern=r"^[a-z_]+(:[A-Za-z0-9._-]+)?$", max_length=300)]


class Resources(StrEnum):
    """What may exist in the provider's hands: `possible` is saved before apply, `present` after it."""

    NONE = "none"
    POSSIBLE = "possible"
    PRESENT = "present"


class Value(BaseModel, frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True):
    """A closed, strictly typed part of an environment. Built on first use: `status` needs few of them.

    Fields have no defaults: a file that has lost its `resources` must not read `none`.
    `frozen` stands again in every class line below it: pyright does not inherit it.
    """


class PortForward(Value, frozen=True):
    """A port of this computer (`host`) that leads to the machine's port (`machine`)."""

    host: int = Field(ge=1, le=65535)
    machine: int = Field(ge=1, le=65535)


class Host(Value, frozen=True):
    """A machine as the provider gave it out."""

    address: str = Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9._:%-]*$", max_length=253)
    port: int = Field(ge=1, le=65535)
    user: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$", max_length=64)
    ports: tuple[PortForward, ...]
    id: Line | None  # the provider's mark of this very machine: where it changes, the machine is another one
    console: Line | None  # a file with what the machine printed on its console


class FinishedStep(Value, frozen=True):
    name: StepName
    started_at: AwareDatetime
    ended_at: AwareDatetime

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.started_at).total_seconds()


class Progress(Value, frozen=True):
    """How far a command is: the step in flight (None between two steps) and the finished ones, in order."""

    command: Command
    run_id: Line
    step: StepName | None
    step_started_at: AwareDatetime | None
    finished: tuple[FinishedStep, ...]

    @property
    def finished_names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.finished)


class Failure(Value, frozen=True):
    """The failed step, why in one word and in one line, when, and where the whole story is."""

    step: StepName
    kind: FailureKind
    cause: Line
    at: AwareDatetime
    log: Line
