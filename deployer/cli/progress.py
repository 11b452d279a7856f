"""Events to stderr as a run goes on: a line drawn anew for a terminal, lines for a pipe, one JSON object a line, or
nothing.

A listener may close its end or the disk may be full: that never stops the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

from deployer import events
from deployer.cli.activity import Activity, place, rung
from deployer.cli.choices import Options
from deployer.cli.text import clip, duration, is_terminal, may_colour, paint, whole, write

BEAT = 10.0  # seconds of silence after which a pipe is told that we live
_INTERVAL = 0.2
_LONGEST = 500
_TOLD = ("changed", "failed", "unreachable")  # of a task
_ERASE = "\r\x1b[2K"
_SPINNER = "|/-\\"


class Renderer:
    """Hears events from any thread. This one shows nothing, as `--progress none` asks; the others say what they do."""

    def __init__(self, stream: IO[str], *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._activity = Activity()
        self._lock = threading.Lock()

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            line = self._line(event)  # before the activity forgets the step that has ended
            self._activity.apply(event, self._clock())
            if line:
                self._say(line)

    def tick(self) -> None:
        """Shows that time passes; called several times a second."""

    def paused(self) -> AbstractContextManager[None]:
        """While it lasts the terminal belongs to a question."""
        return contextlib.nullcontext()

    def _line(self, event: events.Event) -> str:
        return ""

    def _say(self, line: str) -> None:
        write(self._stream, line + "\n")


@contextmanager
def progress(options: Options, stream: IO[str]) -> Iterator[Renderer]:
    """The renderer that the options and the stream ask for, until the block ends."""
    kinds: dict[str, type[Renderer]] = {"none": Renderer, "json": _JsonLines}
    kinds["auto"] = Live if is_terminal(stream) else Plain
    renderer = kinds.get(options.progress, Plain)(stream, verbose=options.verbose)
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
        with renderer.paused():
            pass  # a line that is drawn goes with the run


def line_of(event: events.Event, *, verbose: bool) -> str:
    """What is worth a lasting line in an event, for a pipe and for a terminal alike; often nothing."""
    match event:
        case events.Notice():
            return f"{'note' if event.level == 'info' else event.level}: {event.message}"
        case events.TaskProgress() if event.status in _TOLD or (verbose and event.status != "start"):
            return f"{event.host}: {event.status}: {event.task}" + (f": {event.message}" if event.message else "")
        case events.ResourceProgress(status="done" | "failed"):
            return f"{event.address}: {event.action} {event.status}, {duration(event.seconds)}"
        case events.Output() if verbose:
            return f"{event.source} | {event.line}"
        case events.Transition() if verbose:
            facts = " ".join(f"{key}={value}" for key, value in event.as_dict().items() if key not in ("kind", "at"))
            return f"{event.at.isoformat(timespec='milliseconds')} {facts}"
        case _:
            return ""


class Plain(Renderer):
    """Lines that can be searched: `[3/8] tofu_plan: done in 1.2 s (2 to add)`. A beat after ten seconds of silence."""

    _last = 0.0  # when something was said; a step begins with a line

    def tick(self) -> None:
        with self._lock:
            now = self._clock()
            if self._activity.place and now - self._last >= BEAT:
                parts = (self._activity.place, duration(now - self._activity.since), self._activity.doing(now))
                self._say(": ".join(filter(None, parts)))

    def _line(self, event: events.Event) -> str:  # noqa: PLR0911 - a table of cases
        at = self._activity.place or getattr(event, "step", "")
        match event:
            case events.RunStarted():
                return f"{event.environment}: {event.command}, {len(event.steps)} steps, log {event.log}"
            case events.RunFinished():
                took = duration(event.seconds)
                return f"{event.environment}: {event.command} {event.outcome} in {took}, state {event.state}"
            case events.StepStarted():
                return f"{place(event)}: started"
            case events.StepFinished():
                return f"{at}: done in {duration(event.seconds)}" + (f" ({event.note})" if event.note else "")
            case events.StepFailedEvent():
                return f"{at}: failed after {duration(event.seconds)} ({event.failure})"
            case events.HostProgress() if self._activity.text_of(event.host) != rung(event):
                return f"  {rung(event)}"
            case events.ResourceProgress(status="start"):
                return f"  {event.address}: {event.action} started"
            case events.ResourceProgress(status="says"):
                return f"  {event.address}: {event.message}"
            case events.TaskProgress(status="start"):
                return f"  task: {event.task}"
            case _:
                line = line_of(event, verbose=self._verbose)
                return f"  {line}" if line else ""

    def _say(self, line: str) -> None:
        self._last = self._clock()
        super()._say(clip(line.rstrip(), _LONGEST))


class _JsonLines(Renderer):
    def _line(self, event: events.Event) -> str:
        shown = self._verbose or not isinstance(event, events.Output)
        return json.dumps(event.as_dict(), default=str) if shown else ""


class Live(Renderer):
    """For a terminal: finished steps stay as lines, below them one line is drawn anew, always
    shorter than the terminal, whatever that has become."""

    _drawn = False
    _paused = False
    _turn = 0

    def tick(self) -> None:
        """Draws the line anew."""
        with self._lock:
            if not self._activity.place or self._paused:
                return
            now = self._clock()
            self._turn += 1
            since = whole(now - self._activity.since)
            text = f"{_SPINNER[self._turn % 4]} {self._activity.place} {since}  {self._activity.doing(now)}".rstrip()
            write(self._stream, _ERASE + clip(text, self._columns() - 1))
            self._drawn = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            self._paused = True
            self._erase()
        try:
            yield
        finally:
            self._paused = False

    def _line(self, event: events.Event) -> str:
        match event:
            case events.RunStarted():
                return self._paint(clip(f"{event.environment}: {event.command}", self._columns()), "bold")
            case events.StepFinished():
                return self._step("ok", "green", event, event.note)
            case events.StepFailedEvent():
                return self._step("!!", "red", event, event.failure)
            case events.RunFinished():
                text = f"{event.command} {event.outcome}, {duration(event.seconds)}"
                return self._paint(clip(text, self._columns()), "dim")
            case events.TaskProgress(status="changed") if not self._verbose:
                return ""
            case _:
                line = line_of(event, verbose=self._verbose)
                look = "yellow" if isinstance(event, events.Notice) and event.level != "info" else "dim"
                return self._paint("   " + clip(line, 1000), look) if line else ""

    def _step(self, mark: str, look: str, event: events.StepFinished | events.StepFailedEvent, note: str) -> str:
        text = f"{self._activity.place or event.step:<30} {duration(event.seconds):>11}  {note}".rstrip()
        return f"{self._paint(mark, look)} {clip(text, self._columns() - 3)}"

    def _paint(self, text: str, look: str) -> str:
        return paint(text, look, colour=may_colour(self._stream))

    def _say(self, line: str) -> None:
        self._erase()
        super()._say(line)

    def _erase(self) -> None:
        if self._drawn:
            write(self._stream, _ERASE)
            self._drawn = False

    def _columns(self) -> int:
        try:
            return max(10, os.get_terminal_size(self._stream.fileno()).columns or 80)
        except (OSError, ValueError):
            return 80
