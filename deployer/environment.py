"""The environment and its states: frozen values, legal transitions, encoding. Refuses to know disks and tools.

One frozen class for each state; the legal transitions are methods of the class that has them, and nowhere else. The
union of all states is the type-erased environment: its encoding to JSON is exact, and leads back to the very class.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, JsonValue, TypeAdapter, ValidationError

from deployer.errors import FailureKind
from deployer.events import printable


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
    user: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9._@-]*$", max_length=64)
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


class Failure(Value, frozen=True):
    """The failed step, why in one word and in one line, when, and where the whole story is."""

    step: StepName
    kind: FailureKind
    cause: Line
    at: AwareDatetime
    log: Line


class Environment(Value, frozen=True):
    """What every state knows. `spec` is the accepted configuration as JSON, opaque here; `file` is where it stands."""

    name: EnvironmentName
    spec: Specification = Field(repr=False)  # it may hold secrets
    file: Line
    created_at: AwareDatetime
    changed_at: AwareDatetime
    resources: Resources
    hosts: dict[HostName, Host]


E_co = TypeVar("E_co", bound=Environment)


def _next(cls: type[E_co], before: Environment, at: datetime, **changes: Any) -> E_co:
    # The constructor validates every field; no transition goes around it.
    facts: dict[str, Any] = {**dict(before), "changed_at": at, **changes}
    return cls(**{name: facts[name] for name in cls.model_fields if name != "state"})


def _begun(command: Command, run_id: str, done: tuple[FinishedStep, ...]) -> Progress:
    return Progress(command=command, run_id=run_id, step=None, step_started_at=None, finished=done)


class _InProgress(Environment, frozen=True):
    """A command is at work, or was when it was interrupted."""

    progress: Progress

    def begin(self, step: str, at: datetime) -> Self:
        """The same state with `step` in flight. Saved before the step starts. ValueError where one is in flight."""
        if self.progress.step is not None:
            raise ValueError(f"step {self.progress.step} has not ended")
        return self._progressed(at, step=step, step_started_at=at)

    def end(self, at: datetime) -> Self:
        """The same state with the step in flight among the finished. ValueError where none is in flight."""
        step, started_at = self.progress.step, self.progress.step_started_at
        if step is None or started_at is None:
            raise ValueError("no step is in flight")
        finished = (*self.progress.finished, FinishedStep(name=step, started_at=started_at, ended_at=at))
        return self._progressed(at, step=None, step_started_at=None, finished=finished)

    def _progressed(self, at: datetime, **changes: Any) -> Self:
        return _next(type(self), self, at, progress=Progress(**dict(self.progress) | changes))


class _Ended(Environment, frozen=True):
    """A command is over; `finished` are the steps it did, with their times."""

    finished: tuple[FinishedStep, ...]


class Provisionable(Environment, frozen=True):
    def start_provision(
        self, run_id: str, at: datetime, *, spec: Specification, file: str, done: tuple[FinishedStep, ...] = ()
    ) -> Provisioning:
        """A run of provision begins, by the specification it is given; `done` are steps it need not repeat."""
        return _next(Provisioning, self, at, spec=spec, file=file, progress=_begun("provision", run_id, done))


class Configurable(Environment, frozen=True):
    """Provisioning is over: what is left to do is Ansible's, unless the file or OpenTofu says otherwise."""

    def start_configure(self, run_id: str, at: datetime, *, done: tuple[FinishedStep, ...] = ()) -> Configuring:
        """A run of configure begins; `done` are the playbooks it need not repeat."""
        return _next(Configuring, self, at, progress=_begun("configure", run_id, done))

    def moved(self, file: str, at: datetime) -> Self:
        """The same, whose specification is now to be found in another place."""
        return _next(type(self), self, at, file=file)


class _Destroyable(Environment, frozen=True):
    def start_destroy(self, run_id: str, at: datetime) -> Destroying:
        """A run of destroy begins. What exists stays on record until OpenTofu has said that it is gone."""
        return _next(Destroying, self, at, progress=_begun("destroy", run_id, ()))


class Created(Provisionable, _Destroyable, frozen=True):
    """The specification is accepted; nothing exists yet, unless an earlier state was lost."""

    state: Literal["created"] = "created"


class Provisioning(Provisionable, _Destroyable, _InProgress, frozen=True):
    state: Literal["provisioning"] = "provisioning"

    def expect_resources(self, at: datetime) -> Provisioning:
        """Saved before apply: from now on something may exist. What was known to exist stays known."""
        known = self.resources if self.resources is Resources.PRESENT else Resources.POSSIBLE
        return _next(Provisioning, self, at, resources=known)

    def confirm_resources(self, at: datetime, *, exist: bool) -> Provisioning:
        """Saved after an apply that came to a good end; a module may have no resources of its own."""
        return _next(Provisioning, self, at, resources=Resources.PRESENT if exist else Resources.NONE)

    def found_hosts(self, hosts: dict[str, Host], at: datetime) -> Provisioning:
        """Saved as soon as OpenTofu gives the addresses."""
        return _next(Provisioning, self, at, hosts=hosts)

    def succeed(self, at: datetime) -> Provisioned:
        return _next(Provisioned, self, at, finished=self.progress.finished)

    def fail(self, failure: Failure) -> ProvisionFailed:
        return _next(ProvisionFailed, self, failure.at, failure=failure, finished=self.progress.finished)


class Provisioned(_Ended, Provisionable, Configurable, _Destroyable, frozen=True):
    """The machines exist, let us in, and have finished cloud-init."""

    state: Literal["provisioned"] = "provisioned"


class ProvisionFailed(_Ended, Provisionable, _Destroyable, frozen=True):
    state: Literal["provision_failed"] = "provision_failed"
    failure: Failure


class Configuring(Provisionable, Configurable, _Destroyable, _InProgress, frozen=True):
    state: Literal["configuring"] = "configuring"

    def succeed(self, at: datetime) -> Configured:
        return _next(Configured, self, at, finished=self.progress.finished)

    def fail(self, failure: Failure) -> ConfigureFailed:
        return _next(ConfigureFailed, self, failure.at, failure=failure, finished=self.progress.finished)


class Configured(_Ended, Provisionable, Configurable, _Destroyable, frozen=True):
    """All playbooks ran through on all hosts."""

    state: Literal["configured"] = "configured"


class ConfigureFailed(_Ended, Provisionable, Configurable, _Destroyable, frozen=True):
    state: Literal["configure_failed"] = "configure_failed"
    failure: Failure


class Destroying(_Destroyable, _InProgress, frozen=True):
    state: Literal["destroying"] = "destroying"

    def resources_gone(self, at: datetime) -> Destroying:
        """Saved when OpenTofu has said that everything is destroyed, and not before."""
        return _next(Destroying, self, at, resources=Resources.NONE, hosts={})

    def succeed(self, at: datetime) -> Destroyed:
        """Destroyed. ValueError while resources are not known to be gone, or hosts are on record."""
        if self.resources is not Resources.NONE or self.hosts:
            raise ValueError("resources may still exist")
        return _next(Destroyed, self, at, finished=self.progress.finished)

    def fail(self, failure: Failure) -> DestroyFailed:
        return _next(DestroyFailed, self, failure.at, failure=failure, finished=self.progress.finished)


class Destroyed(_Ended, frozen=True):
    """Nothing exists any more; `create` may use the name again."""

    state: Literal["destroyed"] = "destroyed"


class DestroyFailed(_Ended, _Destroyable, frozen=True):
    state: Literal["destroy_failed"] = "destroy_failed"
    failure: Failure


InProgress = Provisioning | Configuring | Destroying
Failed = ProvisionFailed | ConfigureFailed | DestroyFailed
AnyProvisionable = Created | Provisioning | Provisioned | ProvisionFailed | Configuring | Configured | ConfigureFailed
AnyEnvironment = Annotated[
    Created | Provisioned | Configured | Destroyed | InProgress | Failed, Field(discriminator="state")
]


def finished_steps(environment: AnyEnvironment) -> tuple[FinishedStep, ...]:
    """The steps of the command that is at work, or was the last one."""
    progress = environment.progress if isinstance(environment, InProgress) else environment
    return getattr(progress, "finished", ())


def create(
    name: str, spec: dict[str, JsonValue], file: str, at: datetime, resources: Resources = Resources.NONE
) -> Created:
    """The first state of a new environment; something may exist where an earlier state was lost."""
    return Created(name=name, spec=spec, file=file, created_at=at, changed_at=at, resources=resources, hosts={})


_ANY: TypeAdapter[AnyEnvironment] = TypeAdapter(AnyEnvironment)


class NotAnEnvironment(ValueError):
    """A text is no environment; the message names the field, if it is one, and says what is wrong there."""


def encode(environment: Environment) -> str:
    """The environment as JSON, complete: `restore` gives back an equal object of the same class."""
    return environment.model_dump_json(indent=2) + "\n"


def restore(text: bytes | str) -> AnyEnvironment:
    """The environment that `encode` wrote, in its very class.

    Raises NotAnEnvironment for anything else: unknown states, unknown or missing fields, wrong types, broken JSON.
    """
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The first part is the state by which the class was chosen; where that fails there is none.
        field, problem = ".".join(map(str, first["loc"][1:])), printable(first["msg"])[:500]
        if first["type"].startswith("union_tag"):
            tag = first.get("ctx", {}).get("tag")
            field, problem = "state", f"{str(tag)[:60]!r} is no state" if tag else "is missing, or no text"
        raise NotAnEnvironment(f"field {field}: {problem}" if field else problem) from None
