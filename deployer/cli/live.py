"""Progress in a terminal: finished steps stay as lines, below them one line is drawn anew. Nothing else is painted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from deployer.cli.activity import Activity
from deployer.cli.progress import lines_of, ticking, write
from deployer.cli.text import BOLD, DIM, GREEN, RED, YELLOW, clip, duration, may_colour, paint, whole
from deployer.events import Event, Notice, RunFinished, RunStarted, StepFailedEvent, StepFinished, TaskProgress

_ERASE = "\r\x1b[2K"
_INTERVAL = 0.2
_SPINNER = "|/-\\"


class Live:
    """Draws from the events it is given; the line is always shorter than the terminal, whatever that has become."""

    def __init__(self, stream: IO[str], *, verbose: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._verbose = verbose
        self._clock = clock
        self._colour = may_colour(stream)
        self._activity = Activity()
        self._lock = threading.Lock()
        self._drawn = False
        self._running = False
        self._paused = False
        self._turn = 0

    @contextmanager
    def drawing(self) -> Iterator[Live]:
        """The line is drawn while the block runs, and gone after it, however it ends."""
        try:
            with ticking(_INTERVAL, self.tick):
                yield self
        finally:
            self._erase()

    def __call__(self, event: Event) -> None:
        with self._lock:
            place = self._activity.place
            self._activity.apply(event, self._clock())
            self._running = not isinstance(event, RunFinished) and (self._running or isinstance(event, RunStarted))
            lines = self._lines(event, place)
            if lines:
                self._erase()
                write(self._stream, "".join(line + "\n" for line in lines))

    def tick(self) -> None:
        """Draws the line anew."""
        with self._lock:
            if not self._running or self._paused:
                return
            now = self._clock()
            self._turn += 1
            text = f"{_SPINNER[self._turn % len(_SPINNER)]} "
            if self._activity.step:
                text += f"{self._activity.place} {whole(self._activity.seconds(now))}"
                doing = self._activity.doing(now)
                text += f"  {doing}" if doing else ""
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

    def _lines(self, event: Event, place: str) -> list[str]:
        match event:
            case RunStarted():
                return [self._paint(clip(f"{event.environment}: {event.command}", self._columns()), BOLD)]
            case StepFinished():
                return [self._step("ok", GREEN, place or event.step, duration(event.seconds), event.note)]
            case StepFailedEvent():
                return [self._step("!!", RED, place or event.step, duration(event.seconds), event.failure)]
            case RunFinished():
                text = f"{event.command} {event.outcome}, {duration(event.seconds)}"
                return [self._paint(clip(text, self._columns()), DIM)]
            case TaskProgress(status="changed") if not self._verbose:
                return []
            case _:
                code = YELLOW if isinstance(event, Notice) and event.level != "info" else DIM
                lines = lines_of(event, verbose=self._verbose)
                return [self._paint("   " + clip(line, 1000), code) for line in lines]

    def _step(self, mark: str, code: str, place: str, took: str, note: str) -> str:
        text = clip(f"{place:<30} {took:>11}  {note}".rstrip(), self._columns() - 3)
        return f"{self._paint(mark, code)} {text}"

    def _paint(self, text: str, code: str) -> str:
        return paint(text, code, colour=self._colour)

    def _erase(self) -> None:
        if self._drawn:
            write(self._stream, _ERASE)
            self._drawn = False

    def _columns(self) -> int:
        try:
            return max(10, os.get_terminal_size(self._stream.fileno()).columns or 80)
        except (OSError, ValueError):
            return 80
