"""Errors as people and programs get them: four parts, word for word; and nothing else, whatever was raised."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import click
import pytest

from deployer.cli.main import as_error, as_json, render, tell
from deployer.cli.program import Options
from deployer.errors import DeployerError, FailureKind, Interrupted, InvalidSpec, Locked, StepFailed


def raised(error: BaseException) -> BaseException:
    """The error with a traceback, as it reaches the entry."""
    try:
        raise error
    except BaseException as caught:
        return caught


def test_who_is_interrupted_early_is_told_what_to_type_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(Interrupted("interrupted by SIGINT at up"), Options(), again="deployer up 'my file.yml'") == 130
    assert "  next:  deployer up 'my file.yml'\n" in capsys.readouterr().err
    tell(Interrupted("interrupted", help="deployer up demo    # goes on from there"), Options(), again="deployer")
    assert "  next:  deployer up demo    # goes on from there\n" in capsys.readouterr().err
    tell(StepFailed("failed", kind=FailureKind.TOOL), Options(), again="deployer up demo")
    assert "next:" not in capsys.readouterr().err


def test_four_parts() -> None:
    error = StepFailed(
        "environment demo: wait_ssh failed",
        kind=FailureKind.UNREACHABLE,
        detail="host web did not answer\nwithin 600 s",
        remains="Its state is provision_failed.",
        help="deployer up demo",
        excerpt="[ 1.0] booting\n[ 2.0] \x1b[2Jpanic\n",
    )
    error.log = "/logs/x.log"
    assert render(error, colour=False) == (
        "deployer: environment demo: wait_ssh failed\n"
        "  | [ 1.0] booting\n"
        "  | [ 2.0] [2Jpanic\n"
        "  cause: host web did not answer\n"
        "         within 600 s\n"
        "  now:   Its state is provision_failed.\n"
        "  log:   /logs/x.log\n"
        "  next:  deployer up demo"
    )


def test_parts_that_are_not_there_leave_no_line() -> None:
    assert render(DeployerError("it broke"), colour=False) == "deployer: it broke"
    assert render(DeployerError("it broke"), colour=True) == "\x1b[31mdeployer: \x1b[0m\x1b[1mit broke\x1b[0m"


def test_complaints_stand_below_each_other() -> None:
    error = InvalidSpec("demo.yml cannot be used", complaints=["demo.yml:1: a: x", "demo.yml:2: b: y"])
    assert render(error, colour=False).splitlines()[1:3] == ["  cause: demo.yml:1: a: x", "         demo.yml:2: b: y"]


def test_json_has_the_facts_of_the_error() -> None:
    told = json.loads(as_json(Locked("demo is locked", holder={"pid": 12}, help="wait")))
    assert told["error"]["code"] == "locked"
    assert told["error"]["exit_code"] == 4
    assert told["error"]["holder"] == {"pid": 12}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (click.UsageError("No such option: --x"), 2, "no such option: --x"),
        (click.FileError("x.yml", "denied"), 2, "could not open file 'x.yml': denied"),
        (KeyboardInterrupt(), 130, "interrupted by SIGINT"),
        (OSError(28, "No space left on device"), 1, "the result could not be written"),
    ],
)
def test_what_is_not_ours_becomes_ours(error: BaseException, code: int, message: str) -> None:
    told = as_error(raised(error))
    assert told.exit_code == code
    assert told.message == message


def test_a_defect_is_told_in_four_parts_and_its_traceback_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = as_error(raised(ZeroDivisionError("secret")))
    (file,) = tmp_path.glob("deployer-error-*.log")
    assert "ZeroDivisionError" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    shown = render(told, colour=False)
    assert str(file) in shown
    assert "Traceback" not in shown
    assert "secret" not in shown
    assert told.exit_code == 1


def test_a_defect_whose_traceback_cannot_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert "could not be written" in as_error(raised(ZeroDivisionError())).detail
