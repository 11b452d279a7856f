"""All attacks, and the book kept of them."""

from __future__ import annotations

import argparse
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.torture import (
    by_hand,
    contention,
    damage,
    destroying,
    disks,
    interrupts,
    kills,
    life,
    orphans,
    secrets,
    timing,
)
from tests.torture.arena import Arena, Attack, arena, perform

ATTACKS: tuple[Attack, ...] = tuple(
    sorted(
        (
            attack
            for module in (
                kills,
                orphans,
                interrupts,
                contention,
                disks,
                damage,
                destroying,
                by_hand,
                secrets,
                timing,
                life,
            )
            for attack in module.ATTACKS
        ),
        key=lambda attack: attack.point,
    )
)

# What attacks have brought to light since they exist. All of it is mended, and held down by a test of its own.
FOUND = {
    "kills.provision": "no host key could be pinned with a key of the user's own",
    "interrupts.boundary": "Ctrl+C during ssh-keygen was told as a useless key, a version check as a missing tool",
    "interrupts.signals": "a closed terminal made 120 of exit code 129",
    "disks.provision": "a tool that could not be started was told without the next command",
    "disks.configure": "a refused first save did not say what exists",
    "damage.tofu_state": "a folder in place of the state was an internal error; UTF-16 was taken for whole",
    "damage.errored": "`provision` planned over a state that was not pushed",
    "destroying.hurried": "a destroy that doubted barred the way out that it advised",
    "destroying.broken": "a change that cannot be read blocked destroy even when it was mended",
    "by_hand.recovery": "commands for a folder that was never made; modules left out of addresses",
    "secrets.modes": "copied modules kept their modes; two folders followed the umask",
    "life.machine": "a refused unlock was an internal error of a command that had succeeded",
}


@dataclass
class Book:
    """What was done how often, and what came of it."""

    seed: int
    trials: Counter[str] = field(default_factory=Counter)
    losses: dict[str, list[str]] = field(default_factory=dict)

    def trial(self, attack: Attack, where: Arena, number: int) -> bool:
        """Makes one trial and notes how it ended; True where nothing was lost."""
        self.trials[attack.name] += 1
        try:
            perform(attack, where, self.seed, number)
        except Exception as error:
            at = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)[-5:]))
            again = f"python -m tests.torture --seed {self.seed} --only {attack.name} --trial {number}"
            self.losses.setdefault(attack.name, []).append(f"{again}\n{at}\n{type(error).__name__}: {error}")
            return False
        return True

    def add(self, other: Book) -> None:
        """What another process has seen of the same campaign."""
        self.trials.update(other.trials)
        for name, losses in other.losses.items():
            self.losses.setdefault(name, []).extend(losses)

    def table(self, attacks: Sequence[Attack] = ATTACKS) -> str:
        """The table of docs/reliability.md."""
        lines = ["| Point | Fault | How it is injected | Times | Found |", "|---|---|---|---|---|"]
        for attack in attacks:
            if self.trials[attack.name]:
                lost = len(self.losses.get(attack.name, ()))
                found = (f"**{lost} lost now**; " if lost else "") + FOUND.get(attack.name, "nothing")
                lines.append(
                    f"| {attack.point} | {attack.fault} | {attack.how} | {self.trials[attack.name]} | {found} |"
                )
        return "\n".join(lines)


@dataclass(frozen=True)
class Share:
    """The `part`-th of `parts` equal ones (from 0): the trials with these numbers are made by one process."""

    part: int = 0
    parts: int = 1


def chosen(beginning: str) -> list[Attack]:
    """The attacks whose names begin so."""
    return [attack for attack in ATTACKS if attack.name.startswith(beginning)]


def work(engine: str, options: argparse.Namespace, share: Share) -> tuple[Book, Counter[str]]:
    """A process's share of what the command line asks for, in an arena of its own."""
    attacks, book = chosen(options.only), Book(options.seed)
    with arena(engine, long=not options.short) as where:
        if options.trial is not None:
            numbered = iter([(attack, int(options.trial)) for attack in attacks])
        elif options.every:
            numbered = _each_boundary(where, attacks, share)
        else:
            numbered = _rounds(attacks, time.monotonic() + options.minutes * 60, share)
        for attack, number in numbered:
            _trial(where, book, attack, number)
        return book, where.counts


def _rounds(attacks: Sequence[Attack], end: float, share: Share) -> Iterator[tuple[Attack, int]]:
    """Round after round: of each attack as many trials as its slice has, with numbers that go on, until time is up."""
    made: Counter[str] = Counter()
    while True:
        for attack in attacks:
            for _ in range(attack.slice):
                if time.monotonic() >= end:
                    return
                yield attack, made[attack.name] * share.parts + share.part
                made[attack.name] += 1


def _each_boundary(where: Arena, attacks: Sequence[Attack], share: Share) -> Iterator[tuple[Attack, int]]:
    """Attacks that go through the boundaries of a command meet each, those of mere logs left out; others a slice."""
    for attack in attacks:
        boundaries = [b for b in where.clean(attack.command) if not b.is_log] if attack.command else []
        for number in range(share.part, len(boundaries) * attack.each or attack.slice, share.parts):
            yield attack, number


def _trial(where: Arena, book: Book, attack: Attack, number: int) -> None:
    began = time.monotonic()
    fine = book.trial(attack, where, number)
    took = time.monotonic() - began
    print(f"{attack.name:22} {number:5} {took:6.1f} s  {'held' if fine else 'LOST'}", flush=True)
    if not fine:
        print(book.losses[attack.name][-1], flush=True)
