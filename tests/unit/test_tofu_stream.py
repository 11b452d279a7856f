"""OpenTofu's `-json` lines, as recorded from 1.6 and newer, and as nobody should ever send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.errors import StepFailed
from deployer.events import Event, Notice, Output, ResourceProgress, ignore
from deployer.tofu.stream import Change, Decoder, Diagnostic, Plan
from deployer.veil import veil

RESOURCE = {"addr": 'terraform_data.machine["web"]', "module": "", "resource_type": "terraform_data"}


def line(kind: str, message: str = "said", **more: Any) -> str:
    return json.dumps(
        {"@level": "info", "@message": message, "@module": "tofu.ui", "@timestamp": "t", "type": kind, **more}
    )


def hook(kind: str, **more: Any) -> str:
    return line(kind, hook={"resource": RESOURCE, **more})


def decode(*lines: str) -> tuple[Decoder, list[Event]]:
    events: list[Event] = []
    decoder = Decoder(events.append)
    for text in lines:
        decoder.line(text)
    return decoder, events


def facts(events: list[Event]) -> list[dict[str, object]]:
    return [{k: v for k, v in e.as_dict().items() if k != "at"} for e in events if not isinstance(e, Output)]


def test_an_apply_as_it_was_recorded() -> None:
    decoder, events = decode(
        '{"@level":"info","@message":"OpenTofu 1.6.2","@module":"tofu.ui","tofu":"1.6.2","type":"version","ui":"1.2"}',
        line("planned_change", change={"resource": RESOURCE, "action": "create"}),
        line("change_summary", changes={"add": 1, "change": 0, "import": 0, "remove": 0, "operation": "plan"}),
        line("outputs", outputs={"x": {"sensitive": True, "action": "create"}}),
        hook("apply_start", action="create"),
        hook("provision_start", provisioner="local-exec"),
        hook("provision_progress", provisioner="local-exec", output='Executing: ["/bin/sh" "-c" "echo hello"]'),
        hook("provision_progress", provisioner="local-exec", output="hello"),
        hook("provision_complete", provisioner="local-exec"),
        hook("apply_progress", action="create", elapsed_seconds=10),
        hook("apply_complete", action="create", id_key="id", id_value="1", elapsed_seconds=12),
        line("change_summary", changes={"add": 1, "change": 0, "import": 0, "remove": 0, "operation": "apply"}),
    )
    machine = RESOURCE["addr"]
    assert decoder.planned == [Change(machine, "create")]
    assert decoder.applied == [Change(machine, "create")]
    assert facts(events) == [
        {"kind": "resource", "address": machine, "action": "create", "status": "start", "seconds": 0.0},
        {"kind": "resource", "address": machine, "status": "says", "message": "hello", "seconds": 0.0},
        {"kind": "resource", "address": machine, "action": "create", "status": "progress", "seconds": 10.0},
        {"kind": "resource", "address": machine, "action": "create", "status": "done", "seconds": 12.0},
    ]
    assert len([e for e in events if isinstance(e, Output)]) == 12, "every line is in the log"


def test_what_a_plan_would_do_and_what_reality_did() -> None:
    decoder, _ = decode(
        line("resource_drift", change={"resource": RESOURCE, "action": "delete"}),
        line("planned_change", change={"resource": RESOURCE, "action": "noop"}),
        line("planned_change", change={"resource": RESOURCE, "action": "replace", "reason": "tainted"}),
        line("planned_change", change={"resource": {**RESOURCE, "addr": "b.b"}, "action": "create"}),
        line("planned_change", change={"resource": {**RESOURCE, "addr": "c.c"}, "action": "create"}),
    )
    assert decoder.drift == [Change(RESOURCE["addr"], "delete")]
    plan = Plan(tuple(decoder.planned))
    assert [change.action for change in plan.changes] == ["replace", "create", "create"]
    assert plan.summary == "2 to create, 1 to replace"
    assert not plan.empty
    assert Plan().empty
    assert Plan().summary == "nothing to do"


@pytest.mark.parametrize(
    "kind", ["log", "ephemeral_op_start", "init_output", "test_run", "refresh_complete", "action_start"]
)
def test_types_of_newer_releases_are_shown_as_text(kind: str) -> None:
    decoder, events = decode(
        line(kind, "doing something new", hook={"lifecycle": [1]}, change={"x": {}}, whatever={"deep": [1]})
    )
    assert [type(e) for e in events] == [Output]
    assert isinstance(events[0], Output)
    assert events[0].line == "doing something new"
    assert (decoder.planned, decoder.applied, decoder.errors) == ([], [], [])


@pytest.mark.parametrize("ui", ["1.0", "1.2", "1.99"])
def test_minors_of_the_format_are_understood(ui: str) -> None:
    decode(line("version", ui=ui))


@pytest.mark.parametrize("ui", ["2.0", "0.1", "", "x"])
def test_another_major_of_the_format_is_refused(ui: str) -> None:
    with pytest.raises(StepFailed, match="speaks an unknown format") as caught:
        decode(line("version", ui=ui))
    assert caught.value.kind == "tool"


@pytest.mark.parametrize(
    "text", ["", "   ", "plain words", "{", "[]", "[1, 2]", "null", '"text"', "12", "{" * 5000, "9" * 5000, "\x00\xff"]
)
def test_what_is_no_message_is_passed_on_as_text(text: str) -> None:
    _, events = decode(text)
    assert all(isinstance(e, Output) for e in events)
    assert bool(events) == bool(text.strip())


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KINDS = ["planned_change", "resource_drift", "apply_start", "apply_complete", "provision_progress", "diagnostic", "log"]


@given(st.sampled_from(KINDS) | hostile, hostile, hostile, hostile)
def test_no_shape_breaks_it(kind: object, resource: object, inner: object, outer: object) -> None:
    table = {"resource": resource, "action": inner, "elapsed_seconds": inner, "output": inner, "addr": inner}
    shapes: list[object] = [outer, table, {"resource": table}, {"severity": inner, "range": table, "detail": inner}]
    for shape in shapes:
        message = {"type": kind, "@message": inner, "hook": shape, "change": shape, "diagnostic": shape}
        decoder, events = decode(json.dumps(message))
        for event in events:
            json.dumps(event.as_dict(), allow_nan=False)
        for change in (*decoder.planned, *decoder.applied, *decoder.drift):
            assert isinstance(change.address, str)


@pytest.mark.parametrize(
    "text", [hook("apply_complete", elapsed_seconds=10**400), hook("apply_start", elapsed_seconds="x"), '{"type": 1}']
)
def test_what_has_another_shape_is_passed_on_as_text(text: str) -> None:
    _, events = decode(text)
    assert [(type(e), e.as_dict()["line"]) for e in events] == [(Output, text)]


def test_a_machines_words_cannot_command_a_terminal() -> None:
    evil = "\x1b]0;owned\x07\x1b[2Jred\u202e\x9b31m"
    decoder, events = decode(
        evil,
        line("log", evil),
        line("apply_start", evil, hook={"resource": {"addr": evil}, "action": "create"}),
        line("provision_progress", evil, hook={"resource": {"addr": evil}, "output": evil}),
        line("diagnostic", evil, diagnostic={"severity": "warning", "summary": evil, "detail": evil, "address": evil}),
        line("diagnostic", evil, diagnostic={"severity": "error", "summary": evil, "range": {"filename": evil}}),
    )
    error = decoder.failure("apply", evil)
    said = [str(value) for event in events for value in event.as_dict().values()]
    for text in (*said, str(error), Decoder(ignore).failure("apply", evil).detail):
        assert not set(text) & set("\x1b\x07\x9b\u202e"), text
    assert "red" in str(error)


def test_the_cause_of_a_failed_provisioner_is_in_its_programs_own_words() -> None:
    decoder, _ = decode(
        hook("provision_start"),
        hook("provision_progress", output="Executing: [secret command]"),
        *(hook("provision_progress", output=f"line {number}") for number in range(9)),
        hook("provision_errored"),
        hook("apply_errored", action="create", elapsed_seconds=1),
        line(
            "diagnostic",
            diagnostic={
                "severity": "error",
                "summary": "local-exec provisioner error",
                "detail": "Error running command 'secret command': exit status 3. Output: line 8\n",
                "address": RESOURCE["addr"],
                "range": {"filename": "main.tf", "start": {"line": 7, "column": 30}},
            },
        ),
        line("diagnostic", diagnostic={"severity": "error", "summary": "another", "detail": ""}),
    )
    error = decoder.failure("apply", "fallback")
    assert str(error) == (
        'OpenTofu failed to apply at terraform_data.machine["web"]: line 6 / line 7 / line 8 (main.tf:7)'
        " (and 1 more, see the log)"
    )
    assert error.kind == "tofu"


def test_secrets_are_veiled_in_what_is_said_and_nowhere_else() -> None:
    events: list[Event] = []
    decoder = Decoder(events.append, veil({"apikey": "s3cret-canary", "token": "change"}, secrets_alone=True))
    diagnostic = {"severity": "error", "summary": "local-exec", "detail": "running 'test s3cret-canary': exit status 1"}
    decoder.line(line("diagnostic", "s3cret-canary", diagnostic=diagnostic))
    decoder.line("s3cret-canary, and no JSON")
    decoder.line(json.dumps({"type": "planned_change", "@message": "plan: s3cret-canary",
                             "change": {"resource": {"addr": "x.change"}, "action": "create"}}))  # fmt: skip
    assert decoder.planned == [Change("x.change", "create")]
    assert "{{ apikey }}" in str(decoder.failure("apply", ""))
    assert "s3cret-canary" not in repr(events) + str(decoder.failure("apply", ""))


def test_an_error_without_a_resource_keeps_file_and_line() -> None:
    decoder, _ = decode(
        line("diagnostic", diagnostic={"severity": "warning", "summary": "old syntax", "detail": ""}),
        line(
            "diagnostic",
            diagnostic={
                "severity": "error",
                "summary": "Unsupported argument",
                "detail": 'An argument named\n"foo" is not\nexpected here.',
                "range": {"filename": "main.tf", "start": {"line": 3}},
            },
        ),
    )
    expected = (
        'OpenTofu failed to plan: Unsupported argument: An argument named "foo" is not expected here. (main.tf:3)'
    )
    assert str(decoder.failure("plan", "fallback")) == expected


def test_without_an_error_the_last_words_are_the_cause() -> None:
    decoder, events = decode(line("diagnostic", diagnostic={"severity": "warning", "summary": "old", "detail": "way"}))
    assert str(decoder.failure("apply", "killed\nby signal 9")) == "OpenTofu failed to apply: killed by signal 9"
    assert [(e.level, e.message) for e in events if isinstance(e, Notice)] == [("warning", "OpenTofu warns: old: way")]


def test_the_place_of_a_diagnostic() -> None:
    found = Diagnostic.model_validate({"severity": "error", "summary": "s", "range": None})
    assert (found.text, found.place) == ("s", "")


def test_a_long_cause_is_cut() -> None:
    found = Diagnostic.model_validate({"severity": "error", "summary": "x " * 5000})
    assert len(found.text) == 600
    assert isinstance(ResourceProgress(address="", action="", status=""), Event)
