"""Frozen records of what happened during a run, and the callback that receives them. Refuses to know who listens."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import ClassVar


def utc_now() -> datetime:
    return datetime.now(UTC)


def printable(text: str) -> str:
    """`text` without control characters but newline and tab: a child's words cannot paint or command a terminal."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn"))


def one_line(text: str, longest: int = 600) -> str:
    """`text` on one line of at most `longest` characters, without anything that commands a terminal."""
    flat = " ".join(printable(text[: 20 * longest]).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened, at a UTC instant, to one environment (empty where none is concerned), in one run."""

    kind: ClassVar[str] = "event"
    environment: str = ""
    run_id: str = ""
    at: datetime = field(default_factory=utc_now)

    def as_dict(self) -> dict[str, object]:
        """JSON-ready data: `at` as ISO 8601 in UTC, `kind` first; empty fields are left out."""
        data = {key: value for key, value in asdict(self).items() if value not in ("", None, ())}
        return {"kind": self.kind, **data, "at": self.at.isoformat(timespec="milliseconds")}


Report = Callable[[Event], None]


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A command began to work on an environment; `steps` are those it will do, `log` is the run's readable log."""

    kind = "run_started"
    command: str
    pid: int
    log: str
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The command is over. `outcome` is done, failed or interrupted; `seconds` is its whole duration."""

    kind = "run_finished"
    command: str
    outcome: str
    state: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Transition(Event):
    """A transition or a step boundary that has been saved."""

    kind = "transition"
    from_state: str
    to_state: str
    step: str
    pid: int


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    kind = "step_started"
    step: str
    number: int
    total: int


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    kind = "step_finished"
    step: str
    seconds: float
    note: str = ""  # what came of it, in a few words: "2 to add", "changed=4"


@dataclass(frozen=True, kw_only=True)
class StepFailedEvent(Event):
    kind = "step_failed"
    step: str
    seconds: float
    failure: str  # FailureKind
    cause: str
    log: str


@dataclass(frozen=True, kw_only=True)
class ResourceProgress(Event):
    """OpenTofu works on a resource: `action` is create, update, delete, read.

    `status` is start, progress, says, done, failed; `message` is what a provisioner of the resource said (says).
    """

    kind = "resource"
    address: str
    action: str
    status: str
    seconds: float = 0.0
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class TaskProgress(Event):
    """Ansible works on a task. `status` is start (without `host`), ok, changed, skipped, failed, unreachable."""

    kind = "task"
    playbook: str
    task: str
    status: str
    host: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class HostProgress(Event):
    """A host on its way to readiness. `rung` is connect, banner, authenticate, cloud_init; `answer` the last one."""

    kind = "host"
    host: str
    rung: str
    answer: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """A sentence for the user. `level` is info, warning or error."""

    kind = "notice"
    message: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Output(Event):
    """A line a child printed; kept in the run's log, shown only when asked for."""

    kind = "output"
    source: str
    line: str


def ignore(event: Event) -> None:
    """The report that nobody reads."""
