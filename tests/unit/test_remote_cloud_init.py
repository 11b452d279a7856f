"""What cloud-init's reports mean: a table of reports as versions from 22.4 to 25 give them."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployer.remote.cloud_init import REPORT_COMMAND, CloudInitOutcome, decide, read_report

O = CloudInitOutcome  # noqa: E741 - a table of outcomes is read by its column
DEPRECATED = {"DEPRECATED": ["Config key 'system_info' is deprecated in 23.4."]}

REPORTS: list[tuple[str, object, CloudInitOutcome, tuple[str, ...]]] = [
    ("22.4 done", {"status": "done", "errors": [], "detail": "DataSourceNoCloud [seed=/dev/sr0]"}, O.DONE, ()),
    ("22.4 running", {"status": "running", "errors": [], "stage": "init"}, O.RUNNING, ()),
    ("22.4 not run", {"status": "not run", "errors": [], "last_update": ""}, O.RUNNING, ()),
    ("22.4 error", {"status": "error", "errors": ["('locale', X())"], "stage": None}, O.ERROR, ("('locale', X())",)),
    ("22.4 error, still in a stage", {"status": "error", "errors": ["x"], "stage": "modules-final"}, O.RUNNING, ("x",)),
    ("22.4 disabled", {"status": "disabled", "detail": "Cloud-init disabled by kernel"}, O.DISABLED, ()),
    ("23.4 done", {"status": "done", "extended_status": "done", "recoverable_errors": {}}, O.DONE, ()),
    (
        "23.4 degraded by a deprecation",
        {"status": "done", "extended_status": "degraded done", "errors": [], "recoverable_errors": DEPRECATED},
        O.DEGRADED,
        ("DEPRECATED: Config key 'system_info' is deprecated in 23.4.",),
    ),
    ("23.4 degraded as status", {"status": "degraded done"}, O.DEGRADED, ("cloud-init does not say why",)),
    ("done with a warning", {"status": "done", "recoverable_errors": {"WARNING": ["w"]}}, O.DEGRADED, ("WARNING: w",)),
    ("24.1 not started", {"status": "not started", "extended_status": "not started"}, O.RUNNING, ()),
    ("24.1 degraded running", {"status": "running", "extended_status": "degraded running"}, O.RUNNING, ()),
    (
        "24.1 error - running",
        {"status": "error", "extended_status": "error - running", "errors": ["first"], "stage": "init"},
        O.RUNNING,
        ("first",),
    ),
    ("24.1 error - not started", {"status": "error", "extended_status": "error - not started"}, O.RUNNING, ()),
    (
        "24.1 error - done",
        {"status": "error", "extended_status": "error - done", "errors": ["a", "a", "b"], "stage": None},
        O.ERROR,
        ("a", "b"),
    ),
    (
        "24.4 error without errors",
        {"status": "error", "extended_status": "error - done", "errors": [], "recoverable_errors": {}},
        O.ERROR,
        ("cloud-init reports an error and names none",),
    ),
    (
        "25.1 error told as recoverable only",
        {"status": "error", "extended_status": "error - done", "recoverable_errors": {"ERROR": ["r"], **DEPRECATED}},
        O.ERROR,
        ("ERROR: r",),
    ),
    ("25.1 disabled", {"status": "disabled", "extended_status": "disabled", "errors": []}, O.DISABLED, ()),
    ("a state of the future", {"status": "resting", "extended_status": "resting"}, O.RUNNING, ()),
    ("wrong types", {"status": 1, "extended_status": ["x"], "errors": "no", "recoverable_errors": [1]}, O.RUNNING, ()),
    ("18 text done", "status: done", O.RUNNING, ()),
    ("0.7 has no such command", "usage: cloud-init [-h] {init,modules}\nerror: invalid choice", O.RUNNING, ()),
    ("JSON that is torn", '{"status": "done", "err', O.RUNNING, ()),
    ("JSON behind a warning", 'WARNING: no root\n{"status": "done"}\n', O.DONE, ()),
    ("nothing", "", O.RUNNING, ()),
]


@pytest.mark.parametrize(("report", "outcome", "causes"), [row[1:] for row in REPORTS], ids=[row[0] for row in REPORTS])
def test_a_report_has_one_meaning(report: object, outcome: CloudInitOutcome, causes: tuple[str, ...]) -> None:
    decided = decide(report if isinstance(report, str) else json.dumps(report, indent=2))
    assert decided.outcome is outcome
    if outcome is not O.RUNNING or causes:
        assert decided.causes == causes


def test_a_running_one_is_told_with_its_stage() -> None:
    assert decide('{"status": "running", "stage": "modules-final"}').answer == "running (modules-final)"


def test_the_report_is_found_behind_what_a_login_shell_prints() -> None:
    noise = 'Welcome {"status": "error"}\n'
    report = read_report(f'{noise}\ndeployer-report too old, no JSON\n{{"status": "done"}}\nbye')
    assert report.outcome is O.DONE


@pytest.mark.parametrize(
    ("output", "outcome"),
    [
        ("deployer-report absent", O.ABSENT),
        ("deployer-report going down", O.RUNNING),
        ("deployer-report too old, no JSON", O.RUNNING),
        ("", O.RUNNING),
    ],
)
def test_a_machine_without_a_status(output: str, outcome: CloudInitOutcome) -> None:
    assert read_report(output).outcome is outcome


def test_a_version_without_json_is_told_to_be_too_old() -> None:
    assert read_report("deployer-report too old, no JSON\nstatus: done").answer == "too old, no JSON"


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
@example("[" * 5_000)
@example('{"a":' * 5_000)
@example('{"status": ' + "9" * 5000 + "}")
@example('{"status": "error", "errors": ["\x1b]0;owned\x07\u202e"]}')
def test_no_text_raises_and_none_of_it_commands_a_terminal(text: str) -> None:
    for found in (decide(text), read_report("deployer-report too old, no JSON\n" + text), read_report(text)):
        for shown in (found.answer, *found.causes):
            assert len(shown) <= 400
            assert not set(shown) & set("\n\r\x1b\x07\u202e\x9b")


def test_the_remote_command_means_the_same_in_every_login_shell() -> None:
    body = REPORT_COMMAND.removeprefix("exec sh -c '").removesuffix("'")
    assert not set(body) & set("'!\\\n")
