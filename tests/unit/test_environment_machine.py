"""Any sequence of legal moves and reloads: encoding is exact, and what may exist is never forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from deployer.environment import (
    AnyEnvironment,
    Destroyed,
    Destroying,
    Failure,
    FinishedStep,
    Host,
    PortForward,
    Provisioning,
    Resources,
    create,
    encode,
    restore,
)
from deployer.errors import FailureKind
from tests.unit.test_environment_transitions import TABLE

LINES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=9, minutes=30))])
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=ZONES)  # noqa: DTZ001
STEPS = st.from_regex(r"[a-z_]+(:[A-Za-z0-9._-]+)?", fullmatch=True).filter(lambda s: len(s) < 300)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LINES, inner, max_size=3),
    max_leaves=8,
)
SPECS = st.dictionaries(LINES, JSON, max_size=3)
PORTS = st.integers(1, 65535)
HOSTS = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True),
    st.builds(
        Host,
        address=st.sampled_from(["10.0.0.7", "web.example", "fe80::1%eth0", "::1"]),
        port=PORTS,
        user=st.sampled_from(["root", "deployer", "_x.y-z"]),
        ports=st.lists(st.builds(PortForward, host=PORTS, machine=PORTS), max_size=2).map(tuple),
        id=st.none() | LINES,
        console=st.none() | LINES,
    ),
    max_size=2,
)
FAILURES = st.builds(Failure, step=STEPS, kind=st.sampled_from(FailureKind), cause=LINES, at=TIMES, log=LINES)
DONE = st.lists(st.builds(FinishedStep, name=STEPS, started_at=TIMES, ended_at=TIMES), max_size=2).map(tuple)


def has(transition: str) -> Callable[[EnvironmentMachine], bool]:
    return lambda machine: transition in TABLE[machine.environment.state]


class EnvironmentMachine(RuleBasedStateMachine):
    environment: AnyEnvironment

    @initialize(spec=SPECS, file=LINES, at=TIMES)
    def created(self, spec: dict[str, Any], file: str, at: datetime) -> None:
        self.environment = create("demo", spec, file, at)

    def move(self, transition: str, *arguments: object, **named: object) -> None:
        before = self.environment
        after = cast("AnyEnvironment", getattr(before, transition)(*arguments, **named))
        assert after.state == TABLE[before.state][transition]
        assert after.created_at == before.created_at
        if before.resources is not Resources.NONE and after.resources is Resources.NONE:
            assert isinstance(before, Destroying)
            assert transition == "resources_gone"
        if before.hosts and not after.hosts:
            assert transition in ("resources_gone", "found_hosts")
        assert before == restore(encode(before)), "a move changed the environment it started from"
        self.environment = after

    @precondition(has("start_provision"))
    @rule(run=LINES, at=TIMES, spec=SPECS, file=LINES, done=DONE)
    def start_provision(self, run: str, at: datetime, spec: object, file: object, done: object) -> None:
        self.move("start_provision", run, at, spec=spec, file=file, done=done)

    @precondition(has("start_configure"))
    @rule(run=LINES, at=TIMES, done=DONE)
    def start_configure(self, run: str, at: datetime, done: object) -> None:
        self.move("start_configure", run, at, done=done)

    @precondition(has("start_destroy"))
    @rule(run=LINES, at=TIMES)
    def start_destroy(self, run: str, at: datetime) -> None:
        self.move("start_destroy", run, at)

    @precondition(has("begin"))
    @rule(step=STEPS, at=TIMES)
    def begin_or_end(self, step: str, at: datetime) -> None:
        assert not isinstance(self.environment, Destroyed)
        in_flight = encode(self.environment).count('"step": null') == 0
        self.move("end", at) if in_flight else self.move("begin", step, at)

    @precondition(has("moved"))
    @rule(at=TIMES, file=LINES)
    def moved(self, at: datetime, file: str) -> None:
        self.move("moved", file, at)
        assert self.environment.file == file

    @precondition(has("expect_resources"))
    @rule(at=TIMES)
    def expect_resources(self, at: datetime) -> None:
        self.move("expect_resources", at)
        assert self.environment.resources is not Resources.NONE

    @precondition(has("confirm_resources"))
    @rule(at=TIMES, exist=st.booleans())
    def confirm_resources(self, at: datetime, exist: bool) -> None:
        assert isinstance(self.environment, Provisioning)
        self.environment = self.environment.confirm_resources(at, exist=exist)
        assert self.environment.resources is (Resources.PRESENT if exist else Resources.NONE)

    @precondition(has("found_hosts"))
    @rule(hosts=HOSTS, at=TIMES)
    def found_hosts(self, hosts: dict[str, Host], at: datetime) -> None:
        self.move("found_hosts", hosts, at)
        assert isinstance(self.environment, Provisioning)
        assert self.environment.hosts == hosts

    @precondition(has("resources_gone"))
    @rule(at=TIMES)
    def resources_gone(self, at: datetime) -> None:
        self.move("resources_gone", at)

    @precondition(has("fail"))
    @rule(failure=FAILURES)
    def fail(self, failure: Failure) -> None:
        self.move("fail", failure)

    @precondition(has("succeed"))
    @rule(at=TIMES)
    def succeed(self, at: datetime) -> None:
        known = self.environment.resources is not Resources.NONE or self.environment.hosts
        if isinstance(self.environment, Destroying) and known:
            with pytest.raises(ValueError, match="may still exist"):
                self.environment.succeed(at)
            return
        self.move("succeed", at)

    @rule(as_bytes=st.booleans())
    def reload(self, as_bytes: bool) -> None:
        text = encode(self.environment)
        self.environment = restore(text.encode() if as_bytes else text)

    @precondition(lambda machine: machine.environment.state == "destroyed")
    @rule(spec=SPECS, at=TIMES)
    def create_again(self, spec: dict[str, Any], at: datetime) -> None:
        self.environment = create("demo", spec, "/d", at)

    @invariant()
    def encoding_is_exact(self) -> None:
        text = encode(self.environment)
        back = restore(text)
        assert type(back) is type(self.environment)
        assert back == self.environment
        assert encode(back) == text

    @invariant()
    def no_other_move_exists(self) -> None:
        every = {transition for moves in TABLE.values() for transition in moves}
        for transition in every - TABLE[self.environment.state].keys():
            assert not hasattr(self.environment, transition)

    @invariant()
    def destroyed_means_gone(self) -> None:
        if self.environment.state in ("created", "destroyed"):
            assert self.environment.resources is Resources.NONE
            assert not self.environment.hosts


EnvironmentMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestEnvironmentMachine = EnvironmentMachine.TestCase
