"""Progress in a terminal: finished steps stay as lines, below them one line is drawn anew. Nothing else is painted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from deployer import events
from deployer.cli.progress import Renderer, line_of
from deployer.cli.text import BOLD, DIM, GREEN, RED, YELLOW, clip, duration, may_colour, paint, whole, write

_ERASE = "\r\x1b[2K"
_SPINNER = "|/-\\"


class Live(Renderer):
    """Draws from the events it is given; the line is always shorter than the terminal, whatever that has become."""

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
                return self._paint(clip(f"{event.environment}: {event.command}", self._columns()), BOLD)
            case events.StepFinished():
                return self._step("ok", GREEN, event, event.note)
            case events.StepFailedEvent():
                return self._step("!!", RED, event, event.failure)
            case events.RunFinished():
                text = f"{event.command} {event.outcome}, {duration(event.seconds)}"
                return self._paint(clip(text, self._columns()), DIM)
            case events.TaskProgress(status="changed") if not self._verbose:
                return ""
            case _:
                line = line_of(event, verbose=self._verbose)
                code = YELLOW if isinstance(event, events.Notice) and event.level != "info" else DIM
                return self._paint("   " + clip(line, 1000), code) if line else ""

    def _step(self, mark: str, code: str, event: events.StepFinished | events.StepFailedEvent, note: str) -> str:
        text = f"{self._activity.place or event.step:<30} {duration(event.seconds):>11}  {note}".rstrip()
        return f"{self._paint(mark, code)} {clip(text, self._columns() - 3)}"

    def _paint(self, text: str, code: str) -> str:
        return paint(text, code, colour=may_colour(self._stream))

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
