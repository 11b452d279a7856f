"""The exception tree is data: codes and exit codes are a contract with scripts."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import signal

import pytest

from deployer import errors
from deployer.errors import (
    Declined,
    DeployerError,
    FailureKind,
    Interrupted,
    InvalidInput,
    InvalidSpec,
    Locked,
    StepFailed,
    StorageFailed,
    ToolMissing,
    UnknownEnvironment,
    UnreadableState,
    WrongState,
)

TREE = {
    DeployerError: ("error", 1),
    InvalidInput: ("invalid_input", 2),
    InvalidSpec: ("invalid_spec", 2),
    UnknownEnvironment: ("unknown_environment", 2),
    Declined: ("declined", 2),
    WrongState: ("wrong_state", 3),
    Locked: ("locked", 4),
    UnreadableState: ("unreadable_state", 5),
    ToolMissing: ("tool_missing", 6),
    StepFailed: ("step_failed", 1),
    StorageFailed: ("storage_failed", 1),
    Interrupted: ("interrupted", 130),
}


def made(cls: type[DeployerError]) -> DeployerError:
    if cls is InvalidSpec:
        return InvalidSpec("message", complaints=["demo.yml:3: x", "demo.yml:4: y"], remains="remains", help="help")
    if cls is StepFailed:
        return StepFailed("message", kind=FailureKind.TOFU, detail="detail", remains="remains", help="help")
    return cls("message", detail="detail", remains="remains", help="help")


def test_every_error_is_in_the_table_and_in_the_tree_of_the_docstring() -> None:
    defined = {c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, DeployerError)}
    assert defined == set(TREE)
    assert errors.__doc__ is not None
    for cls in TREE:
        assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize("cls", TREE)
def test_codes_and_exit_codes(cls: type[DeployerError]) -> None:
    error = made(cls)
    code, exit_code = TREE[cls]
    assert (error.code, error.exit_code) == (code, exit_code)
    data = error.as_dict()
    assert json.loads(json.dumps(data)) == data
    assert (data["code"], data["exit_code"]) == (code, exit_code)
    assert data.keys() >= {"message", "detail", "remains", "help"}
    assert (data["message"], data["remains"], data["help"]) == ("message", "remains", "help")


def test_codes_are_unique() -> None:
    assert len({code for code, _ in TREE.values()}) == len(TREE)


def test_as_text_the_cause_follows_what_happened() -> None:
    assert str(DeployerError("it broke")) == "it broke"
    assert str(DeployerError("it broke", detail="no space")) == "it broke: no space"


def test_an_invalid_file_has_a_line_for_each_complaint() -> None:
    error = made(InvalidSpec)
    assert isinstance(error, InvalidInput)
    assert error.detail == "demo.yml:3: x\ndemo.yml:4: y"
    assert error.as_dict()["complaints"] == ["demo.yml:3: x", "demo.yml:4: y"]


def test_locked_says_by_whom() -> None:
    assert Locked("in use", holder={"pid": 1}).as_dict()["holder"] == {"pid": 1}
    assert Locked("in use").holder == {}


def test_a_failed_step_has_kind_step_and_log() -> None:
    error = StepFailed("x", kind=FailureKind.CLOUD_INIT, excerpt="a secret line?")
    error.step, error.log = "wait_cloud_init", "/log"
    data = error.as_dict()
    assert (data["kind"], data["step"], data["log"]) == ("cloud_init", "wait_cloud_init", "/log")
    assert "excerpt" not in data, "shown once, to a person"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_interrupted_exits_as_a_shell_would_say(signum: signal.Signals, code: int) -> None:
    error = Interrupted("x", signum=signum)
    assert error.exit_code == error.as_dict()["exit_code"] == code
    assert error.signum is signal.Signals(signum)
    assert Interrupted("x").exit_code == 130, "one error's code is not another's"


def test_kinds_are_words_that_stay() -> None:
    """They are persisted in failed states: a renamed one makes those unreadable."""
    assert {str(kind) for kind in FailureKind} >= {
        "input", "tool", "tofu", "unreachable", "authentication", "cloud_init", "playbook", "timeout", "storage",
        "internal",
    }  # fmt: skip


@pytest.mark.parametrize(
    "error",
    [
        StepFailed("it broke", kind=FailureKind.TOFU, detail="why", excerpt="the log"),
        InvalidSpec("x cannot be used", complaints=["x:1: name: no"]),
        Interrupted("stopped", signum=signal.SIGTERM),
        Locked("in use", holder={"pid": 1}),
    ],
)
def test_an_error_comes_whole_out_of_another_process(error: DeployerError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert (again.as_dict(), str(again), again.exit_code) == (error.as_dict(), str(error), error.exit_code)
