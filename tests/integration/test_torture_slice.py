"""A slice of the long campaign (`make torture`), always the same: each attack, some trials, one seed.

A failure prints how to make that one trial again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deployer.process import Context
from deployer.tofu.binary import find_engine
from tests.torture.arena import Arena, Attack, arena
from tests.torture.campaign import ATTACKS, Book

SEED = 1
pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def where() -> Iterator[Arena]:
    engine = find_engine(Context(os.environ))
    with arena(str(engine.path)) as made:
        yield made


@pytest.fixture(scope="module")
def book(where: Arena) -> Iterator[Book]:
    made = Book(SEED)
    yield made
    print(f"\n{made.table()}")


@pytest.mark.parametrize(
    ("attack", "number"), [(attack, number) for attack in ATTACKS for number in range(attack.slice)], ids=str
)
def test_nothing_is_lost(where: Arena, book: Book, attack: Attack, number: int) -> None:
    assert book.trial(attack, where, number), "\n".join(book.losses[attack.name][-1:])


def test_every_promise_is_attacked() -> None:
    """The points of `What must hold` in docs/reliability.md."""
    assert {attack.point for attack in ATTACKS} == set(range(1, 12))
