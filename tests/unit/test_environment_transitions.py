"""The table of transitions, enumerated from the classes: each one is there, and no other."""

from __future__ import annotations

import typing
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from deployer.environment import (
    AnyEnvironment,
    Configuring,
    Created,
    Destroying,
    Environment,
    Failure,
    FinishedStep,
    Host,
    Provisioning,
    Resources,
    create,
)
from deployer.errors import FailureKind
from tests.steps import STATES

AT = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 12, 0, 30, tzinfo=UTC)
FAILURE = Failure(step="tofu_apply", kind=FailureKind.TOFU, cause="quota exceeded", at=LATER, log="/home/x/run.log")
WEB = {"web": Host(address="10.0.0.7", port=2222, user="deployer", ports=(), id=None, console=None)}

PROVISION = {"start_provision": "provisioning"}
CONFIGURE = {"start_configure": "configuring"}
DESTROY = {"start_destroy": "destroying"}

TABLE: dict[str, dict[str, str]] = {
    "created": PROVISION | DESTROY,
    "provisioning": PROVISION
    | DESTROY
    | dict.fromkeys(("begin", "end", "expect_resources", "confirm_resources", "found_hosts"), "provisioning")
    | {"succeed": "provisioned", "fail": "provision_failed"},
    "provisioned": PROVISION | CONFIGURE | DESTROY | {"moved": "provisioned"},
    "provision_failed": PROVISION | DESTROY,
    "configuring": PROVISION
    | CONFIGURE
    | DESTROY
    | dict.fromkeys(("begin", "end", "moved"), "configuring")
    | {"succeed": "configured", "fail": "configure_failed"},
    "configured": PROVISION | CONFIGURE | DESTROY | {"moved": "configured"},
    "configure_failed": PROVISION | CONFIGURE | DESTROY | {"moved": "configure_failed"},
    "destroying": DESTROY
    | dict.fromkeys(("begin", "end", "resources_gone"), "destroying")
    | {"succeed": "destroyed", "fail": "destroy_failed"},
    "destroyed": {},
    "destroy_failed": DESTROY,
}


def classes() -> dict[str, type[Environment]]:
    union = typing.get_args(AnyEnvironment)[0]
    return {cls.model_fields["state"].default: cls for cls in typing.get_args(union)}


def transitions(cls: type[Environment]) -> dict[str, str]:
    """Every public method that pydantic did not give, with the state it leads to."""
    names = {n for n in dir(cls) if not n.startswith("_") and n not in dir(BaseModel) and n not in cls.model_fields}
    found = {}
    for name in names:
        target = typing.get_type_hints(getattr(cls, name))["return"]
        found[name] = (cls if target is typing.Self else target).model_fields["state"].default
    return found


def test_the_union_has_every_state_and_no_other() -> None:
    assert set(classes()) == set(STATES) == set(TABLE)


@pytest.mark.parametrize("state", TABLE)
def test_a_state_has_its_own_transitions_and_no_other(state: str) -> None:
    assert transitions(classes()[state]) == TABLE[state]


@pytest.mark.parametrize("state", TABLE)
def test_nothing_can_be_assigned_added_or_left_out(state: str) -> None:
    cls = classes()[state]
    assert cls.model_config["frozen"]
    assert cls.model_config["extra"] == "forbid"
    fields: dict[str, Any] = {}
    fields.update(dict.fromkeys(cls.model_fields))
    with pytest.raises(ValidationError):
        cls(**fields)


def created() -> Created:
    return create("demo", {"hosts": {"web": {}}}, "/work", AT)


def test_fields_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        created().resources = Resources.PRESENT  # type: ignore[misc]


def test_a_run_remembers_its_steps_and_their_times() -> None:
    run = created().start_provision("r1", AT, spec={}, file="/d").begin("render_tofu", AT)
    assert (run.progress.command, run.progress.run_id, run.progress.step) == ("provision", "r1", "render_tofu")
    assert run.progress.step_started_at == AT
    run = run.end(LATER)
    assert run.progress.step is None
    assert run.progress.step_started_at is None
    done = FinishedStep(name="render_tofu", started_at=AT, ended_at=LATER)
    assert run.progress.finished == (done,)
    assert done.seconds == 30.0
    assert run.succeed(LATER).finished == (done,)
    assert run.changed_at == LATER
    assert run.created_at == AT


def test_two_steps_are_never_in_flight() -> None:
    run = created().start_provision("r1", AT, spec={}, file="/d")
    with pytest.raises(ValueError, match="no step is in flight"):
        run.end(AT)
    with pytest.raises(ValueError, match="tofu_init has not ended"):
        run.begin("tofu_init", AT).begin("tofu_plan", AT)


def test_what_is_learned_is_kept_whatever_comes() -> None:
    run = created().start_provision("r1", AT, spec={}, file="/d")
    assert run.resources is Resources.NONE
    run = run.expect_resources(AT)
    assert run.resources is Resources.POSSIBLE
    assert run.fail(FAILURE).resources is Resources.POSSIBLE
    run = run.confirm_resources(AT, exist=True).found_hosts(WEB, AT)
    assert (run.resources, run.hosts) == (Resources.PRESENT, WEB)
    assert run.expect_resources(LATER).resources is Resources.PRESENT, "known to exist is more than possible"
    again = run.fail(FAILURE).start_provision("r2", LATER, spec={}, file="/d")
    assert (again.resources, again.hosts) == (Resources.PRESENT, WEB)


def test_a_failure_keeps_what_was_done_and_when_it_failed() -> None:
    run = created().start_provision("r1", AT, spec={}, file="/d")
    failed = run.begin("render_tofu", AT).end(AT).begin("tofu_apply", AT).fail(FAILURE)
    assert failed.failure == FAILURE
    assert [step.name for step in failed.finished] == ["render_tofu"]
    assert failed.changed_at == FAILURE.at


def test_a_new_specification_comes_in_with_a_run() -> None:
    run = created().start_provision("r1", AT, spec={"new": True}, file="/elsewhere")
    assert (run.spec, run.file) == ({"new": True}, "/elsewhere")
    ready = run.succeed(LATER).start_configure("r2", LATER)
    assert (ready.spec, ready.file) == ({"new": True}, "/elsewhere")
    again = ready.start_provision("r3", LATER, spec={}, file="/there")
    assert (again.spec, again.file) == ({}, "/there"), "an empty one is one, too"


def test_steps_already_done_are_handed_to_the_next_run() -> None:
    done = (FinishedStep(name="tofu_apply", started_at=AT, ended_at=LATER),)
    run = created().start_provision("r1", AT, spec={}, file="/d", done=done)
    assert run.progress.finished == done
    assert run.succeed(AT).start_configure("r2", AT).progress.finished == ()
    assert run.succeed(AT).start_configure("r2", AT, done=done).progress.finished == done


def test_destroyed_only_when_openTofu_said_so() -> None:  # noqa: N802
    run = (
        created()
        .start_provision("r1", AT, spec={}, file="/d")
        .confirm_resources(AT, exist=True)
        .found_hosts(WEB, AT)
        .start_destroy("r2", AT)
    )
    assert (run.resources, run.hosts) == (Resources.PRESENT, WEB)
    with pytest.raises(ValueError, match="may still exist"):
        run.succeed(AT)
    handed_through = created().start_provision("r1", AT, spec={}, file="/d").found_hosts(WEB, AT)
    with pytest.raises(ValueError, match="may still exist"):
        handed_through.start_destroy("r2", AT).succeed(AT)
    gone = run.resources_gone(LATER)
    assert (gone.resources, gone.hosts) == (Resources.NONE, {})
    assert gone.succeed(LATER).state == "destroyed"


@pytest.mark.parametrize("run", [Provisioning, Configuring, Destroying])
def test_progress_is_no_option(run: type[Environment]) -> None:
    facts = created().model_dump(exclude={"state"})
    with pytest.raises(ValidationError, match="progress"):
        run(**facts)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "UPPER", "-a", "a-", "a" * 41, "a\n", "ä", "a.b"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        create(name, {}, "/d", AT)


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 0])  # noqa: DTZ001
def test_times_are_aware(at: datetime) -> None:
    with pytest.raises(ValidationError):
        create("demo", {}, "/d", at)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_specification_holds_what_json_can_hold(number: float) -> None:
    """Such a state could be written and never be read again."""
    with pytest.raises(ValidationError, match="finite"):
        create("demo", {"variables": {"list": [{"x": number}]}}, "/d", AT)


@pytest.mark.parametrize("cause", ["two\nlines", "\x1b[31mred", "nul\x00"])
def test_a_cause_is_one_line_that_paints_nothing(cause: str) -> None:
    with pytest.raises(ValidationError):
        Failure(step="tofu_apply", kind=FailureKind.TOFU, cause=cause, at=AT, log="/log")
