"""Events to stderr as a run goes on: lines for a pipe, one JSON object a line, or nothing. A terminal's is in `live`.

A listener may close its end or the disk may be full: that never stops the run.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol

from deployer.cli.activity import Activity, rung
from deployer.cli.choices import Options
from deployer.cli.text import clip, duration, is_terminal
from deployer.events import (
    Event,
    HostProgress,
    Notice,
    Output,
    ResourceProgress,
    RunFinished,
    RunStarted,
    StepFailedEvent,
    StepFinished,
    StepStarted,
    TaskProgress,
    Transition,
    ignore,
)

BEAT = 10.0  # seconds of silence after which a pipe is told that we live
_LONGEST = 500


class Renderer(Protocol):
    def __call__(self, event: Event) -> None:
        """Shows an event; called from any thread."""
        ...

    def paused(self) -> contextlib.AbstractContextManager[None]:
        """While it lasts the terminal belongs to a question."""
        ...


@contextmanager
def progress(options: Options, stream: IO[str]) -> Iterator[Renderer]:
    """The renderer that the options and the stream ask for, until the block ends."""
    if options.progress == "none":
        yield _Silent()
    elif options.progress == "json":
        yield _JsonLines(stream, verbose=options.verbose)
    elif options.progress == "auto" and is_terminal(stream):
        from deployer.cli.live import Live

        with Live(stream, verbose=options.verbose).drawing() as live:
            yield live
    else:
        plain = Plain(stream, verbose=options.verbose)
        with ticking(1.0, plain.beat):
            yield plain


def lines_of(event: Event, *, verbose: bool) -> list[str]:  # noqa: PLR0911 - a table of cases
    """What is worth a lasting line in an event, for a pipe and for a terminal alike."""
    match event:
        case Notice(level="info"):
            return [f"note: {event.message}"]
        case Notice():
            return [f"{event.level}: {event.message}"]
        case TaskProgress(status="failed" | "unreachable"):
            return [f"{event.host}: {event.status}: {event.task}" + (f": {event.message}" if event.message else "")]
        case TaskProgress(status="changed"):
            return [f"{event.host}: changed: {event.task}"]
        case TaskProgress(status=status) if verbose and status != "start":
            return [f"{event.host}: {event.status}: {event.task}"]
        case ResourceProgress(status="done" | "failed"):
            return [f"{event.address}: {event.action} {event.status}, {duration(event.seconds)}"]
        case Output() if verbose:
            return [f"{event.source} | {event.line}"]
        case Transition() if verbose:
            at = event.at.isoformat(timespec="milliseconds")
            words = f"from_state={event.from_state} to_state={event.to_state} step={event.step} pid={event.pid}"
            return [f"{at} environment={event.environment} {words} run_id={event.run_id}"]
        case _:
            return []


class Plain:
    """Lines that can be searched: `[3/8] tofu_plan: done in 1.2 s (2 to add)`. A beat after ten seconds of silence."""

    def __init__(self, stream: IO[str], *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._activity = Activity()
        self._lock = threading.Lock()
        self._last = clock()
        self._rungs: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            place = self._activity.place
            self._activity.apply(event, self._clock())
            for line in self._lines(event, place):
                self._write(line)

    def beat(self) -> None:
        """Says what is being waited for where nothing was said for long. Called every now and then."""
        with self._lock:
            now = self._clock()
            if self._activity.step and now - self._last >= BEAT:
                doing = self._activity.doing(now)
                waiting = f"{self._activity.place}: {duration(self._activity.seconds(now))}"
                self._write(f"{waiting}: {doing}" if doing else waiting)

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield

    def _lines(self, event: Event, place: str) -> list[str]:  # noqa: PLR0911 - a table of cases
        match event:
            case RunStarted():
                return [f"{event.environment}: {event.command}, {len(event.steps)} steps, log {event.log}"]
            case RunFinished():
                took = duration(event.seconds)
                return [f"{event.environment}: {event.command} {event.outcome} in {took}, state {event.state}"]
            case StepStarted():
                self._rungs.clear()
                return [f"{self._activity.place}: started"]
            case StepFinished():
                note = f" ({event.note})" if event.note else ""
                return [f"{place or event.step}: done in {duration(event.seconds)}{note}"]
            case StepFailedEvent():
                return [f"{place or event.step}: failed after {duration(event.seconds)} ({event.failure})"]
            case HostProgress() if self._rungs.get(event.host) != event.rung:
                self._rungs[event.host] = event.rung
                return [f"  {event.host}: {rung(event)}"]
            case ResourceProgress(status="start"):
                return [f"  {event.address}: {event.action} started"]
            case ResourceProgress(status="says"):
                return [f"  {event.address}: {event.message}"]
            case TaskProgress(status="start"):
                return [f"  task: {event.task}"]
            case _:
                return ["  " + line for line in lines_of(event, verbose=self._verbose)]

    def _write(self, line: str) -> None:
        self._last = self._clock()
        write(self._stream, f"{line[: len(line) - len(line.lstrip())]}{clip(line.strip(), _LONGEST)}\n")


class _JsonLines:
    def __init__(self, stream: IO[str], *, verbose: bool) -> None:
        self._stream = stream
        self._verbose = verbose
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        if self._verbose or not isinstance(event, Output):
            with self._lock:
                write(self._stream, json.dumps(event.as_dict(), default=str) + "\n")

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield


class _Silent:
    def __call__(self, event: Event) -> None:
        ignore(event)

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield


def write(stream: IO[str], text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


@contextmanager
def ticking(interval: float, tick: Callable[[], None]) -> Iterator[None]:
    """Calls `tick` every so many seconds, in a thread, while the block runs."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(interval):
            tick()

    thread = threading.Thread(target=loop, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
