"""Events to stderr as a run goes on: a line drawn anew for a terminal, lines for a pipe, one JSON object a line, or
nothing.

A listener may close its end or the disk may be full: that never stops the run.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from typing import IO, NamedTuple

from deployer import events
from deployer.cli.program import Options
from deployer.cli.text import clip, duration, is_terminal, may_colour, paint, write
from deployer.storage.journal import readable

BEAT = 10.0  # seconds of silence after which a pipe is told that we live
_INTERVAL = 0.2
_LONGEST = 500
_ERASE = "\r\x1b[2K"
_RUNGS = {"connect": "waiting for the port", "banner": "waiting for SSH", "authenticate": "login"}


class Weight(IntEnum):
    """How long a line is worth looking at."""

    DETAIL = 0  # for --verbose only
    PASSING = 1  # until the next one about the same: a terminal draws it, and keeps it no longer
    LASTING = 2


_TASKS = {"changed": Weight.PASSING, "failed": Weight.LASTING, "unreachable": Weight.LASTING}


class Line(NamedTuple):
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
            return Line(f"   {place}: started", Weight.PASSING)
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


@contextmanager
def progress(options: Options, stream: IO[str]) -> Iterator[events.Report]:
    """Shows what happens in the form that the options and the stream ask for, until the block ends."""
    lock = threading.Lock()

    def as_json(event: events.Event) -> None:
        """From any thread, as the others."""
        if options.verbose or not isinstance(event, events.Output):
            with lock:
                write(stream, json.dumps(event.as_dict(), default=str) + "\n")

    if options.progress in ("json", "none"):
        yield as_json if options.progress == "json" else events.ignore
        return
    live = options.progress == "auto" and is_terminal(stream)
    renderer = Lines(stream, live=live, verbose=options.verbose)
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_INTERVAL):
            renderer.tick()

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield renderer
    finally:
        over.set()
        thread.join()
        renderer.erase()


class Lines:
    """Lines that can be searched: `ok [3/8] tofu_plan  1.2 s  2 to create`. A beat after ten seconds of silence.

    `live` is for a terminal: what lasts stays as lines, below them one line is drawn anew, always shorter than the
    terminal, whatever that has become. Hears events from any thread.
    """

    _place = ""  # the step at work; nothing between two
    _since = 0.0  # when it began
    _last = 0.0  # when something was said; a step begins with a line
    _drawn = False
    _doing: dict[str, str]

    def __init__(
        self, stream: IO[str], *, live: bool, verbose: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._live = live
        self._verbose = verbose
        self._clock = clock
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            if isinstance(event, events.StepStarted):
                self._place, self._since = f"[{event.number}/{event.total}] {event.step}", self._clock()
                self._doing = {}
            line = line_of(event, self._place)
            if isinstance(event, events.StepFinished | events.StepFailedEvent | events.RunFinished):
                self._place = ""
            elif self._place and line.about and line.weight > Weight.DETAIL:
                self._doing.pop(line.about, None)  # what is new comes last
                if line.weight is Weight.PASSING:
                    self._doing[line.about] = line.text.strip()
            if self._verbose or line.weight >= (Weight.LASTING if self._live else Weight.PASSING):
                self._say(line)

    def tick(self) -> None:
        """Shows that time passes; called several times a second."""
        with self._lock:
            if self._place and self._live:
                write(self._stream, _ERASE + clip(self._now(), self._columns() - 1))
                self._drawn = True
            elif self._place and self._clock() - self._last >= BEAT:
                self._say(Line(self._now()))

    def erase(self) -> None:
        """Takes away what is drawn for the time being."""
        if self._drawn:
            write(self._stream, _ERASE)
            self._drawn = False

    def _now(self) -> str:
        """The step at work, for how long, and what the tools are at, the newest first."""
        doing = "; ".join(reversed(self._doing.values()))
        return f"   {self._place} {duration(self._clock() - self._since)}  {doing}"

    def _say(self, line: Line) -> None:
        self.erase()
        self._last = self._clock()
        text = paint(clip(line.text, _LONGEST), line.look, colour=self._live and may_colour(self._stream))
        write(self._stream, text + "\n")

    def _columns(self) -> int:
        with suppress(OSError, ValueError):
            return max(10, os.get_terminal_size(self._stream.fileno()).columns or 80)
        return 80
