"""Events as data: JSON-ready, in UTC, without what could paint a terminal."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from deployer import events
from deployer.events import Event, Notice, Output, RunStarted, StepFinished, TaskProgress, Transition, ignore, printable

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def kinds() -> list[type[Event]]:
    return [c for _, c in inspect.getmembers(events, inspect.isclass) if issubclass(c, Event) and c is not Event]


def made(cls: type[Event]) -> Event:
    values: dict[Any, Any] = {str: "word", int: 7, float: 1.5, tuple[str, ...]: ("a", "b"), datetime: AT}
    fields: dict[str, Any] = {f.name: values[f.type] for f in dataclasses.fields(cls)}
    return cls(**fields)


def test_each_kind_has_a_word_of_its_own() -> None:
    words = [cls.kind for cls in kinds()]
    assert len(set(words)) == len(words) >= 10
    assert all(re.fullmatch(r"[a-z_]+", word) for word in words)


@pytest.mark.parametrize("cls", kinds())
def test_as_data(cls: type[Event]) -> None:
    event = made(cls)
    data = event.as_dict()
    again = json.loads(json.dumps(data))
    assert list(again)[0] == "kind"  # noqa: RUF015
    assert again["kind"] == cls.kind
    assert again["at"] == "2026-01-02T03:04:05.678+00:00"
    assert again.keys() == {"kind"} | {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize("cls", kinds())
def test_events_are_facts(cls: type[Event]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        made(cls).environment = "other"  # type: ignore[misc]


def test_empty_fields_are_left_out_and_zero_is_not_empty() -> None:
    data = StepFinished(step="tofu_init", seconds=0.0, at=AT).as_dict()
    assert data == {"kind": "step_finished", "step": "tofu_init", "seconds": 0.0, "at": "2026-01-02T03:04:05.678+00:00"}
    assert "steps" not in RunStarted(command="provision", pid=1, log="/l").as_dict()
    assert "host" not in TaskProgress(playbook="web", task="x", status="start").as_dict()


def test_an_event_knows_when_it_happened() -> None:
    before = datetime.now(UTC)
    event = Notice(message="x")
    assert before <= event.at <= datetime.now(UTC)
    assert event.at.tzinfo is UTC


def test_transition_has_the_fields_of_the_log() -> None:
    event = Transition(environment="demo", run_id="r1", from_state="created", to_state="provisioning", step="", pid=1)
    data = event.as_dict()
    assert {key: data[key] for key in ("environment", "run_id", "from_state", "to_state", "pid")} == {
        "environment": "demo", "run_id": "r1", "from_state": "created", "to_state": "provisioning", "pid": 1,
    }  # fmt: skip


def test_nobody_needs_to_listen() -> None:
    ignore(Output(source="tofu", line="x"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä € 𝄞 日本\n\tx", "plain ä € 𝄞 日本\n\tx"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07", "]0;title"),
        ("a\rb\x08c\x00d\x7fe\x9bf", "abcdef"),
        ("\u202eevil\u200b\ufeff", "evil"),
        ("\ud800\ue000\U000fffff", ""),
    ],
)
def test_printable_keeps_words_and_drops_commands(text: str, shown: str) -> None:
    assert printable(text) == shown
