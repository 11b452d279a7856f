"""What a run is doing now, gathered from its events: the step, and the resources, hosts and tasks in it.

Draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from deployer import events
from deployer.cli.text import whole

_RUNGS = {"connect": "waiting for the port", "banner": "waiting for SSH", "authenticate": "logging in"}


@dataclass
class _Doing:
    text: str
    since: float
    answer: str = ""


class Activity:
    """The picture that a line of progress is drawn from. `now` is a monotonic clock in seconds.

    `place` is `[3/8] tofu_plan`, or nothing between two steps; `since` is when that step began.
    """

    def __init__(self) -> None:
        self.place = ""
        self.since = 0.0
        self._doing: dict[str, _Doing] = {}

    def apply(self, event: events.Event, now: float) -> None:
        match event:
            case events.StepStarted():
                self.place, self.since = place(event), now
                self._doing.clear()
            case events.StepFinished() | events.StepFailedEvent() | events.RunFinished():
                self.place = ""
                self._doing.clear()
            case events.ResourceProgress(status="done" | "failed"):
                self._doing.pop(event.address, None)
            case events.ResourceProgress():
                text = self.text_of(event.address) or f"{event.action} {event.address}".strip()
                self._now_doing(event.address, text, now, event.message)
            case events.HostProgress():
                self._now_doing(event.host, rung(event), now, event.answer)
            case events.TaskProgress(status="start"):
                self._doing.clear()
                self._now_doing("task", event.task, now)
            case events.TaskProgress() if "task" in self._doing:
                self._doing["task"].answer = f"{event.host} {event.status}"
            case _:
                pass

    def text_of(self, key: str) -> str:
        """What that resource or host is at; nothing where it is not known."""
        return self._doing[key].text if key in self._doing else ""

    def doing(self, now: float) -> str:
        """What the tools are at, the newest first: `create machine.web 12 s; web: waiting for SSH (no answer)`."""
        parts: list[str] = []
        for doing in reversed(self._doing.values()):
            answer = f" ({doing.answer})" if doing.answer else ""
            spent = now - doing.since
            parts.append(doing.text + answer + (f" {whole(spent)}" if spent >= 1 else ""))
        return "; ".join(parts)

    def _now_doing(self, key: str, text: str, now: float, answer: str = "") -> None:
        if self.text_of(key) == text:
            self._doing[key].answer = answer or self._doing[key].answer
        else:
            self._doing.pop(key, None)  # what is new comes last
            self._doing[key] = _Doing(text, now, answer)


def place(event: events.StepStarted) -> str:
    return f"[{event.number}/{event.total}] {event.step}"


def rung(event: events.HostProgress) -> str:
    """The rung of readiness that a host is on, in words."""
    return f"{event.host}: {_RUNGS.get(event.rung, event.rung.replace('_', '-'))}"
