"""The workflows' judgements, without a machine: what a module gave, whose keys are forgotten, what is repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest

from deployer.config.model import Spec
from deployer.environment import FinishedStep, Host, create
from deployer.errors import StepFailed
from deployer.process import Context, Deadline
from deployer.remote import readiness
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.stream import Change
from deployer.workflows import configure, provision
from deployer.workflows.hosts import forget_replaced, read_hosts, targets
from tests.steps import PROVISION

AT = datetime(2026, 1, 2, tzinfo=UTC)


def spec(*hosts: str, **more: Any) -> Spec:
    return Spec.model_validate(
        {"name": "demo", "hosts": {name: {} for name in hosts or ("web",)}, **more}, strict=False
    )


def steps(*names: str) -> tuple[FinishedStep, ...]:
    return tuple(FinishedStep(name=name, started_at=AT, ended_at=AT + timedelta(seconds=1)) for name in names)


def host(address: str = "192.0.2.1", port: int = 22, id: str | None = None) -> Host:
    return Host(address=address, port=port, user="me", ports=(), id=id, console=None)


# -- what a module gave out -------------------------------------------------------------------------------------------


def test_hosts_as_the_contract_says() -> None:
    given = {
        "web": {"address": "192.0.2.1", "port": 2222, "user": "admin", "extra": [1]},
        "db": {"address": "::1", "port": "22", "user": None, "ports": [{"host": 8080, "machine": 80}], "id": "i-1"},
        "stranger": {"address": "192.0.2.9"},
    }
    found = read_hosts({"hosts": given}, spec("db", "web"))
    assert list(found) == ["db", "web"]
    assert found["web"] == Host(address="192.0.2.1", port=2222, user="admin", ports=(), id=None, console=None)
    assert (found["db"].port, found["db"].user, found["db"].ports[0].machine) == (22, "deployer", 80)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ({}, "no output `hosts` that is a map"),
        ({"hosts": None}, "no output `hosts` that is a map"),
        ({"hosts": ["web"]}, "no output `hosts` that is a map"),
        ({"hosts": {}}, "does not have web"),
        ({"hosts": {"web": "192.0.2.1"}}, "does not have web"),
        ({"hosts": {"web": {}}}, "hosts.web.address"),
        ({"hosts": {"web": {"address": ""}}}, "hosts.web.address"),
        ({"hosts": {"web": {"address": "-oProxyCommand=evil"}}}, "hosts.web.address"),
        ({"hosts": {"web": {"address": "a b"}}}, "hosts.web.address"),
        ({"hosts": {"web": {"address": "a\nb"}}}, "hosts.web.address"),
        ({"hosts": {"web": {"address": "a", "port": 0}}}, "hosts.web.port"),
        ({"hosts": {"web": {"address": "a", "port": "ssh"}}}, "hosts.web.port"),
        ({"hosts": {"web": {"address": "a", "user": "-l"}}}, "hosts.web.user"),
        ({"hosts": {"web": {"address": "a", "ports": [{"host": 1}]}}}, "hosts.web.ports.0.machine"),
    ],
)
def test_hosts_as_they_must_not_be(outputs: dict[str, Any], words: str) -> None:
    with pytest.raises(StepFailed) as caught:
        read_hosts(outputs, spec())
    assert words in str(caught.value)
    assert "docs/providers.md" in caught.value.detail
    assert caught.value.kind == "input"


def test_the_end_of_a_console_is_at_hand(tmp_path: Path) -> None:
    folder = EnvironmentFolder(tmp_path)
    folder.tofu.mkdir()
    (folder.tofu / "console.log").write_bytes(b"x" * 10_000 + b"\x1b[31mpanic\xff\n")
    hosts = {
        name: host().model_copy(update={"console": c}) for name, c in (("a", "console.log"), ("b", "no"), ("c", None))
    }
    environment = create("demo", {}, str(tmp_path), AT).model_copy(update={"hosts": hosts})
    alone, asked = Semaphore(), targets(environment, spec(), folder)
    waits = [readiness.Host(target, Deadline(1), alone, Context({})) for target in asked]
    said = [wait.last_words() for wait in waits]
    assert said[0].endswith("[31mpanic\ufffd")
    assert "\x1b" not in said[0]
    assert len(said[0]) <= 4096
    assert said[1:] == ["", ""]


# -- whose keys are forgotten -----------------------------------------------------------------------------------------


def kept(tmp_path: Path, before: dict[str, Host], now: dict[str, Host], replaced: set[str]) -> list[str]:
    known = tmp_path / "known_hosts"
    known.write_text("192.0.2.1 ssh-ed25519 A\n[192.0.2.1]:2222 ssh-ed25519 B\n192.0.2.2 ssh-ed25519 C\n")
    forget_replaced(before, now, replaced, known)
    return [line.split()[-1] for line in known.read_text().splitlines()]


def test_a_machine_that_stayed_keeps_its_key(tmp_path: Path) -> None:
    assert kept(tmp_path, {"web": host(id="1")}, {"web": host(id="1")}, {"web"}) == ["A", "B", "C"]
    assert kept(tmp_path, {"web": host()}, {"web": host()}, set()) == ["A", "B", "C"]


def test_a_machine_that_was_replaced_gets_a_new_one(tmp_path: Path) -> None:
    assert kept(tmp_path, {"web": host(id="1")}, {"web": host(id="2")}, set()) == ["B", "C"]
    assert kept(tmp_path, {"web": host()}, {"web": host()}, {"web"}) == ["B", "C"]
    assert kept(tmp_path, {"web": host(port=2222)}, {"web": host("192.0.2.2")}, {"web"}) == ["A"]
    assert kept(tmp_path, {}, {"web": host()}, {"web"}) == ["B", "C"], "a new machine at an old address"


def test_without_known_hosts_there_is_nothing_to_forget(tmp_path: Path) -> None:
    forget_replaced({}, {"web": host()}, {"web"}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("done", "made"),
    [
        ([], set()),
        ([("m.x", "update")], set()),
        ([('m.x["web"]', "create")], {"web"}),
        ([('m.x["web"]', "delete"), ('m.x["db"]', "create")], {"db"}),
        ([('module.a["web"].m.x["disk"]', "create")], {"web"}),
        ([("m.x", "create")], {"web", "db"}),
        ([('m.x["other"]', "create")], {"web", "db"}),
        ([("m.x[0]", "create")], {"web", "db"}),
        ([("m.key", "create"), ('m.x["web"]', "create")], {"web"}),
    ],
)
def test_which_machines_are_new(done: list[tuple[str, str]], made: set[str]) -> None:
    assert provision.named([Change(*change) for change in done], "create", ("web", "db")) == made


# -- what is to be repeated -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", PROVISION)
def test_going_on_with_provision(failed: str) -> None:
    finished = steps(*PROVISION[: PROVISION.index(failed)])
    waits = failed in ("wait_ssh", "wait_cloud_init")
    assert provision.steps_to_keep(finished) == (finished if waits else ())


def test_going_on_with_configure() -> None:
    finished = steps("render_inventory", "playbook:base", "playbook:web")
    assert [step.name for step in configure.steps_to_keep(finished)] == ["playbook:base", "playbook:web"]


def test_the_playbooks_as_steps() -> None:
    mine = spec(configure={"playbooks": ["base", "web", "/elsewhere/web.yml"]})
    entries = {"playbook:base": "base", "playbook:web": "web", "playbook:web-2": "/elsewhere/web.yml"}
    assert mine.playbook_steps == entries
    assert all(len(step) < 220 for step in spec(configure={"playbooks": [f"/{'x' * 251}.yml"] * 2}).playbook_steps)
    often = spec(configure={"playbooks": [*["web"] * 99, "/elsewhere/web-2.yml"]}).playbook_steps
    assert len(often) == 100, "each is a step of its own"
    assert max(map(len, often)) < 30
