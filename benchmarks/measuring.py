"""Two things measured side by side: in turns, so that a busy machine is busy for both. Knows nothing of deployer."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """Seconds on the clock, and seconds of processor (this process's and its children's)."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Comparison:
    """Medians of all rounds; the ratios are medians of each round's own ratio."""

    ours: Sample
    theirs: Sample
    ratio: Sample


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Comparison:
    """Runs both in turns, and who is first changes with each round. One round before, to warm up, is not counted."""
    measured: list[tuple[Sample, Sample]] = []
    for number in range(rounds + 1):
        if number % 2:
            first = sample(ours)
            pair = first, sample(theirs)
        else:
            second = sample(theirs)
            pair = sample(ours), second
        if number:
            measured.append(pair)
    return Comparison(
        ours=median([mine for mine, _ in measured]),
        theirs=median([other for _, other in measured]),
        ratio=median([Sample(m.wall / o.wall, m.cpu / max(o.cpu, 1e-6)) for m, o in measured]),
    )


def sample(action: Callable[[], object]) -> Sample:
    before, started = processor(), time.perf_counter()
    action()
    return Sample(time.perf_counter() - started, processor() - before)


def processor() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def median(samples: Sequence[Sample]) -> Sample:
    return Sample(statistics.median(s.wall for s in samples), statistics.median(s.cpu for s in samples))


def program(*argv: str, environ: dict[str, str] | None = None) -> Callable[[], None]:
    """A program to be run to its end, its output thrown away. Raises RuntimeError where it fails."""
    silent = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]

    def spawn() -> None:
        pid = os.posix_spawnp(argv[0], argv, {**os.environ, **(environ or {})}, file_actions=silent)
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError(f"{' '.join(argv)} ended with {code}")

    return spawn
