"""Events to stderr as a run goes on: lines for a pipe, one JSON object a line, or nothing. A terminal's is in `live`.

A listener may close its end or the disk may be full: that never stops the run.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO

from deployer import events
from deployer.cli.activity import Activity, place, rung
from deployer.cli.choices import Options
from deployer.cli.text import clip, duration, is_terminal, write

BEAT = 10.0  # seconds of silence after which a pipe is told that we live
_INTERVAL = 0.2
_LONGEST = 500
_TOLD = ("changed", "failed", "unreachable")  # of a task


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
    renderer = _renderer(options, stream)
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


def _renderer(options: Options, stream: IO[str]) -> Renderer:
    kind: type[Renderer] = {"none": Renderer, "json": _JsonLines}.get(options.progress, Plain)
    if options.progress == "auto" and is_terminal(stream):
        from deployer.cli.live import Live

        kind = Live
    return kind(stream, verbose=options.verbose)


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
