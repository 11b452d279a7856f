"""Frozen records of what happened during a run, and the callback that receives them. Refuses to know who listens."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, dataclass_transform


def utc_now() -> datetime:
    return datetime.now(UTC)


def printable(text: str) -> str:
    """`text` without control characters but newline and tab: a child's words cannot paint or command a terminal."""
    if text.isprintable():  # nearly always, and much quicker
        return text
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def one_line(text: str, longest: int = 600) -> str:
    """`text` on one line of at most `longest` characters, without anything that commands a terminal."""
    flat = " ".join(printable(text[: 20 * longest]).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


@dataclass_transform(kw_only_default=True, frozen_default=True)
@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, at a UTC instant, to one environment (empty where none is concerned), in one run.

    What happened is a subclass: a frozen record, too, with the `kind` that its class line says.
    """

    kind: ClassVar[str]
    environment: str = ""
    run_id: str = ""
    at: datetime = field(default_factory=utc_now)

    def __init_subclass__(cls, *, kind: str) -> None:
        cls.kind = kind
        dataclass(frozen=True, kw_only=True)(cls)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready data: `at` as ISO 8601 in UTC, `kind` first; empty fields are left out."""
        data = {key: value for key, value in vars(self).items() if value not in ("", None, ())}
        return {"kind": self.kind, **data, "at": self.at.isoformat(timespec="milliseconds")}


Report = Callable[[Event], None]


class RunStarted(Event, kind="run_started"):
    """A command began to work on an environment; `steps` are those it will do, `log` is the run's readable log."""

    command: str
    pid: int
    log: str
    steps: tuple[str, ...] = ()


class RunFinished(Event, kind="run_finished"):
    """The command is over. `outcome` is done, failed or interrupted; `seconds` is its whole duration."""

    command: str
    outcome: str
    state: str
    seconds: float


class Transition(Event, kind="transition"):
    """A transition or a step boundary that has been saved."""

    from_state: str
    to_state: str
    step: str
    pid: int


class StepStarted(Event, kind="step_started"):
    step: str
    number: int
    total: int


class StepFinished(Event, kind="step_finished"):
    step: str
    seconds: float
    note: str = ""  # what came of it, in a few words: "2 to add", "changed=4"


class StepFailedEvent(Event, kind="step_failed"):
    step: str
    seconds: float
    failure: str  # FailureKind
    cause: str
    log: str


class ResourceProgress(Event, kind="resource"):
    """OpenTofu works on a resource: `action` is create, update, delete, read.

    `status` is start, progress, says, done, failed; `message` is what a provisioner of the resource said (says).
    """

    address: str
    action: str
    status: str
    seconds: float = 0.0
    message: str = ""


class TaskProgress(Event, kind="task"):
    """Ansible works on a task. `status` is start (without `host`), ok, changed, skipped, failed, unreachable."""

    playbook: str
    task: str
    status: str
    host: str = ""
    message: str = ""


class HostProgress(Event, kind="host"):
    """A host on its way to readiness. `rung` is connect, banner, authenticate, cloud_init; `answer` the last one."""

    host: str
    rung: str
    answer: str = ""
    seconds: float = 0.0


class Notice(Event, kind="notice"):
    """A sentence for the user. `level` is info, warning or error."""

    message: str
    level: str = "info"


class Output(Event, kind="output"):
    """A line a child printed; kept in the run's log, shown only when asked for."""

    source: str
    line: str


def ignore(event: Event) -> None:
    """The report that nobody reads."""
