"""What an event says to a person: a line, the same for a pipe and for a terminal. Draws nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from deployer import events
from deployer.cli.text import duration
from deployer.storage.journal import readable

_RUNGS = {"connect": "waiting for the port", "banner": "waiting for SSH", "authenticate": "logging in"}


class Weight(IntEnum):
    """How long a line is worth looking at."""

    DETAIL = 0  # for --verbose only
    PASSING = 1  # until the next one about the same: a terminal draws it, and keeps it no longer
    LASTING = 2


_TASKS = {"changed": Weight.PASSING, "failed": Weight.LASTING, "unreachable": Weight.LASTING}


@dataclass(frozen=True)
class Line:
    """`about` is the resource or host that the line speaks of; `look` is for a terminal with colours."""

    text: str
    weight: Weight = Weight.LASTING
    about: str = ""
    look: str = "dim"


def line_of(event: events.Event, place: str) -> Line:  # noqa: PLR0911 - a table of cases
    """The event in words. `place` is `[3/8] tofu_plan`, the step at work."""
    match event:
        case events.RunStarted():
            return Line(f"{event.environment}: {event.command}", look="bold")
        case events.RunFinished():
            return Line(f"{event.command} {event.outcome}, {duration(event.seconds)}")
        case events.StepStarted():
            return Line(f"   {place_of(event)}: started", Weight.PASSING)
        case events.StepFinished():
            return Line(f"ok {place:<30} {duration(event.seconds):>11}  {event.note}", look="green")
        case events.StepFailedEvent():
            return Line(f"!! {place:<30} {duration(event.seconds):>11}  {event.failure}", look="red")
        case events.ResourceProgress(status="start" | "says"):
            return Line(f"   {event.address}: {event.message or event.action}", Weight.PASSING, event.address)
        case events.ResourceProgress(status="done" | "failed"):
            text = f"   {event.address}: {event.action} {event.status}, {duration(event.seconds)}"
            return Line(text, about=event.address)
        case events.HostProgress():
            rung = _RUNGS.get(event.rung, event.rung.replace("_", "-"))
            answer = f" ({event.answer})" if event.answer else ""
            return Line(f"   {event.host}: {rung}{answer}", Weight.PASSING, event.host)
        case events.TaskProgress(status="start"):
            return Line(f"   task: {event.task}", Weight.PASSING, "task")
        case events.TaskProgress():
            message = f": {event.message}" if event.message else ""
            weight = _TASKS.get(event.status, Weight.DETAIL)
            return Line(f"   {event.host}: {event.status}: {event.task}{message}", weight, "task")
        case events.Notice():
            level, look = ("note", "dim") if event.level == "info" else (event.level, "yellow")
            return Line(f"   {level}: {event.message}", look=look)
        case _:
            return Line(f"   {readable(event)}", Weight.DETAIL)


def place_of(event: events.StepStarted) -> str:
    return f"[{event.number}/{event.total}] {event.step}"
