"""Waiting for several hosts side by side: threads, one time limit, progress. Knows not what is waited for."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from deployer.errors import Interrupted, StepFailed
from deployer.events import HostProgress, Notice, Report, utc_now
from deployer.process import Deadline, Interrupts
from deployer.remote.ssh import Target
from deployer.remote.words import one_line

T = TypeVar("T")

_TICK = 0.1
_BEAT = 10.0
_TOGETHER = 1.0  # seconds for other hosts to fail along with the first, and for threads to leave


Said = queue.SimpleQueue[HostProgress | Notice | None]  # None: something may have ended


class Watch:
    """One host's wait, as its thread sees it. `halt` asks the thread to leave; `told` reaches the waiting thread."""

    def __init__(self, target: Target, deadline: Deadline, halt: Interrupts, said: Said) -> None:
        self.target, self.halt = target, halt
        self._deadline, self._said = deadline, said

    @property
    def limit(self) -> float:
        return self._deadline.seconds

    @property
    def spent(self) -> float:
        """Seconds since the wait began; only the waiting thread moves the clock, which is not made for many threads."""
        return self._deadline.spent

    @property
    def left(self) -> float:
        return self.limit - self.spent

    def tell(self, rung: str, answer: str) -> None:
        seconds = round(self.spent, 1)
        self._said.put(HostProgress(host=self.target.name, rung=rung, answer=answer, seconds=seconds))

    def notice(self, message: str, level: str = "info") -> None:
        self._said.put(Notice(message=one_line(message, 600), level=level))


def side_by_side(
    targets: Sequence[Target],
    work: Callable[[Watch], T],
    *,
    limit: float,
    doing: str,
    interrupts: Interrupts,
    report: Report,
) -> dict[str, T]:
    """Runs `work` for each target in a thread of its own and returns the results by name.

    Events are reported from the calling thread, on each change and at least every ten seconds. The first failure ends
    all the waiting and is raised, naming the hosts that failed with it. Raises Interrupted on a request to stop.
    """
    deadline, halt = Deadline(limit), Interrupts()
    said: Said = queue.SimpleQueue()
    results: dict[str, T] = {}
    failures: dict[str, BaseException] = {}

    def live(target: Target) -> None:
        try:
            results[target.name] = work(Watch(target, deadline, halt, said))
        except Interrupted:
            pass  # by `halt`: the waiting thread knows why
        except BaseException as failure:  # noqa: BLE001 - raised by the waiting thread
            failures[target.name] = failure
        finally:
            said.put(None)

    threads = [threading.Thread(target=live, args=(t,), name=f"wait-{t.name}", daemon=True) for t in targets]
    progress = _Progress(deadline, report)
    try:
        for thread in threads:
            thread.start()
        together = 0.0
        while any(thread.is_alive() for thread in threads) or not said.empty():
            interrupts.check(doing)
            progress.next(said)
            # Hosts that run out of time in the same moment are told together.
            together = together or (time.monotonic() + _TOGETHER if failures else 0.0)
            if together and time.monotonic() > together:
                break
    finally:
        halt.request()
        end = time.monotonic() + _TOGETHER
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
    if failures:
        raise _first([t.name for t in targets], failures)
    return results


class _Progress:
    """Passes on what was said, if it is new; repeats it where a host says nothing new for long."""

    def __init__(self, deadline: Deadline, report: Report) -> None:
        self._deadline, self._report = deadline, report
        self._last: dict[str, HostProgress] = {}

    def next(self, said: Said) -> None:
        word: HostProgress | Notice | None = None
        with contextlib.suppress(queue.Empty):
            word = said.get(timeout=_TICK)
        spent = round(self._deadline.seconds - self._deadline.left, 1)
        if isinstance(word, Notice):
            self._report(word)
        elif word is not None:
            last = self._last.get(word.host)
            if last is None or (last.rung, last.answer) != (word.rung, word.answer):
                self._tell(word)
        for last in list(self._last.values()):
            if spent - last.seconds >= _BEAT:
                self._tell(replace(last, seconds=spent, at=utc_now()))

    def _tell(self, word: HostProgress) -> None:
        self._last[word.host] = word
        self._report(word)


def _first(order: Sequence[str], failures: dict[str, BaseException]) -> BaseException:
    failed = [name for name in order if name in failures]
    first = next((f for f in failures.values() if not isinstance(f, StepFailed)), failures[failed[0]])
    if not isinstance(first, StepFailed) or len(failed) == 1:
        return first
    also = f"{first.detail}; failed with it: {', '.join(failed[1:])}"
    return StepFailed(
        first.message, kind=first.kind, detail=also, remains=first.remains, help=first.help, excerpt=first.excerpt
    )
