"""What a run is doing now, gathered from its events: the step, and the resources, hosts and tasks in it.

Draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployer.cli.text import whole
from deployer.events import (
    Event,
    HostProgress,
    ResourceProgress,
    RunFinished,
    StepFailedEvent,
    StepFinished,
    StepStarted,
    TaskProgress,
)

_RUNGS = {
    "connect": "waiting for the port",
    "banner": "waiting for SSH",
    "authenticate": "logging in",
    "cloud_init": "cloud-init",
}


@dataclass
class _Doing:
    text: str
    since: float
    answer: str = ""


class Activity:
    """The picture that a line of progress is drawn from. `now` is a monotonic clock in seconds."""

    def __init__(self) -> None:
        self.step = ""
        self.number = 0
        self.total = 0
        self._since = 0.0
        self._doing: dict[str, _Doing] = {}

    def apply(self, event: Event, now: float) -> None:
        match event:
            case StepStarted():
                self.step, self.number, self.total, self._since = event.step, event.number, event.total, now
                self._doing.clear()
            case StepFinished() | StepFailedEvent() | RunFinished():
                self.step = ""
                self._doing.clear()
            case ResourceProgress(status="done" | "failed"):
                self._doing.pop(event.address, None)
            case ResourceProgress():
                before = self._doing.get(event.address)
                text = before.text if before else f"{event.action} {event.address}".strip()
                self._now_doing(event.address, text, now, event.message)
            case HostProgress():
                self._now_doing(event.host, f"{event.host}: {rung(event)}", now, event.answer)
            case TaskProgress(status="start"):
                self._doing.clear()
                self._now_doing("task", event.task, now)
            case TaskProgress() if "task" in self._doing:
                self._doing["task"].answer = f"{event.host} {event.status}"
            case _:
                pass

    @property
    def place(self) -> str:
        """`[3/8] tofu_plan`, or nothing between two steps."""
        return f"[{self.number}/{self.total}] {self.step}" if self.step else ""

    def seconds(self, now: float) -> float:
        return now - self._since

    def doing(self, now: float) -> str:
        """What the tools are at, the newest first: `create machine.web 12 s; web: waiting for SSH (no answer)`."""
        parts: list[str] = []
        for doing in reversed(self._doing.values()):
            answer = f" ({doing.answer})" if doing.answer else ""
            spent = now - doing.since
            parts.append(doing.text + answer + (f" {whole(spent)}" if spent >= 1 else ""))
        return "; ".join(parts)

    def _now_doing(self, key: str, text: str, now: float, answer: str = "") -> None:
        before = self._doing.get(key)
        if before is None or before.text != text:
            self._doing.pop(key, None)
            self._doing[key] = _Doing(text, now, answer)
        else:
            before.answer = answer or before.answer


def rung(event: HostProgress) -> str:
    """The rung of readiness that a host is on, in words."""
    return _RUNGS.get(event.rung, event.rung)
