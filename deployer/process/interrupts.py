"""Requests to stop: how often and by which signal. Waits ask here; nothing is raised from a signal handler."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deployer.errors import Interrupted


class Interrupts:
    """Counts requests to stop. The first asks for an orderly end, the second for an end at once."""

    def __init__(self) -> None:
        self.count = 0
        self.signum = signal.SIGINT

    def request(self, signum: int = signal.SIGINT) -> None:
        if self.count == 0:
            self.signum = signal.Signals(signum)
        self.count += 1

    def check(self, doing: str, detail: str = "") -> None:
        """Raises Interrupted where a stop was requested; `doing` says what is left undone."""
        if self.count:
            raise Interrupted(f"interrupted by {self.signum.name} at {doing}", signum=self.signum, detail=detail)

    def sleep(self, seconds: float, doing: str) -> None:
        """Waits, in slices short enough that a stop is noticed within 0.2 s. Raises Interrupted then."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check(doing)
            time.sleep(min(0.2, left))
        self.check(doing)

    @contextmanager
    def listening(self) -> Iterator[Interrupts]:
        """SIGINT, SIGTERM, SIGHUP are counted here while the block runs. For the main thread."""
        wanted = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            wanted.append(signal.SIGHUP)  # under nohup, the user wants the run to outlive the terminal
        before = {s: signal.signal(s, lambda signum, frame: self.request(signum)) for s in wanted}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


class Deadline:
    """A time limit in seconds that does not count time this process could not run (SIGSTOP, a suspended laptop).

    Ask `expired` or `left` at least every few seconds: a longer gap between two questions counts as `stride`.
    """

    def __init__(self, seconds: float, *, stride: float = 20.0) -> None:
        self.seconds = seconds
        self._stride = stride
        self.spent = 0.0
        self._last = time.monotonic()

    @property
    def left(self) -> float:
        now = time.monotonic()
        self.spent += min(now - self._last, self._stride)
        self._last = now
        return self.seconds - self.spent

    @property
    def expired(self) -> bool:
        return self.left <= 0
