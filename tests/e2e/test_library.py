"""`from deployer import Deployer`: the whole round in a program of one's own, with every boundary looked at."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer import Deployer
from deployer.errors import Declined, InvalidSpec, StepFailed, StorageFailed, WrongState
from deployer.events import Event, Notice, Output, StepFinished, StepStarted, Transition
from deployer.workflows.review import Changes
from tests import steps
from tests.e2e.project import NAME, Project
from tests.machines import FleetHost

pytestmark = pytest.mark.container

STEPS = [*steps.PROVISION, "render_inventory", "playbook:one", "playbook:two", *steps.DESTROY]
IN_PROGRESS = {"provisioning", "configuring", "destroying"}


def on_fleet(project: Project, hosts: dict[str, FleetHost], **spec: Any) -> None:
    """The file of an environment on machines that exist already."""
    given = {name: {"address": host.address, "port": host.port} for name, host in hosts.items()}
    project.write(
        provider="existing",
        hosts=given,
        ssh={"user": "root", "private_key": "./key"},
        cloud_init=False,
        **spec,
    )


def test_the_whole_round_prints_nothing_and_saves_every_boundary(
    project: Project,
    fleet: Callable[[int], dict[str, FleetHost]],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    hosts = fleet(3)
    one, two = (project.playbook(name, {"name": "Reach it", "ping": {}}) for name in ("one", "two"))
    on_fleet(project, hosts, configure={"playbooks": [one, two]})
    capfd.readouterr()
    caplog.set_level(logging.INFO, "deployer")
    events: list[Event] = []
    at_start: list[str] = []
    at_end: list[tuple[str, list[str]]] = []
    during: set[tuple[str, str]] = set()

    def report(event: Event) -> None:
        events.append(event)
        state = project.state
        progress = state.get("progress", {})
        if isinstance(event, StepStarted):  # nothing of the step has been done yet, and it is on disk
            assert progress["step"] == event.step
            assert state["state"] in IN_PROGRESS
            at_start.append(event.step)
        if isinstance(event, StepFinished):  # and so is its end, before anything else begins
            assert progress["step"] is None
            at_end.append((event.step, [step["name"] for step in progress["finished"]]))
        if isinstance(event, Output) and progress.get("step"):  # a tool is at work
            during.add((event.source, progress["step"]))

    deployer = Deployer(report=report, cwd=project.path, environ=project.environ)
    assert deployer.home == project.home
    assert deployer.up(f"{NAME}.yml").state == "configured"
    assert deployer.up(NAME).state == "configured"
    assert set(deployer.show(NAME).hosts) == set(hosts)
    assert {host.name for host in hosts.values()} <= set(str(deployer.inventory()).replace("'", " ").split())
    assert deployer.destroy(NAME).state == "destroyed"

    assert at_start == STEPS
    assert [step for step, _ in at_end] == STEPS
    assert all(finished[-1] == step for step, finished in at_end)
    assert {step for source, step in during if source == "tofu"} >= {"tofu_init", "tofu_plan", "tofu_apply"}
    assert all(host.pid for host in hosts.values()), "machines that are not ours stay"
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")

    # Every transition and boundary is logged at info, with its fields, after it was saved.
    told = [e for e in events if isinstance(e, Transition)]
    records = [r for r in caplog.records if r.name == "deployer" and r.levelno == logging.INFO]
    assert len(records) == len(told)
    for record, event in zip(records, told, strict=True):
        fields = {
            key: getattr(record, key) for key in ("environment", "from_state", "to_state", "step", "run_id", "pid")
        }
        expected = {key: getattr(event, key) for key in fields}
        assert fields == expected
        assert record.getMessage().split(" ")[0].endswith("+00:00"), "a UTC timestamp"
    path = list(dict.fromkeys(event.to_state for event in told))
    assert path == [
        *("created", "provisioning", "provisioned", "configuring", "configured", "destroying", "destroyed"),
    ]
    written = [json.loads(line) for line in (project.folder / "events.jsonl").read_text().splitlines()]
    assert len(written) == len([e for e in events if not isinstance(e, Output) and e.run_id])


def test_commands_one_by_one(project: Project, fleet: Callable[[int], dict[str, FleetHost]]) -> None:
    hosts = fleet(2)
    on_fleet(project, hosts)
    deployer = Deployer(cwd=project.path, environ=project.environ)
    created = deployer.create(Path(f"{NAME}.yml"))
    assert created.state == "created"
    with pytest.raises(WrongState):
        deployer.create(Path(f"{NAME}.yml"))
    with pytest.raises(WrongState):
        deployer.configure(NAME)
    assert deployer.plan(NAME).plan.summary == "outputs alone"
    assert deployer.status(NAME) == "created"
    assert deployer.provision(NAME).state == "provisioned"
    assert deployer.provision(NAME).state == "provisioned"
    assert deployer.configure(NAME).state == "configured"
    # A no is a no.
    on_fleet(project, dict(list(hosts.items())[:1]))
    before = project.state_file.read_bytes()
    asked: list[Changes] = []
    begun: list[Event] = []

    def no(changes: Changes) -> bool:
        assert not any(isinstance(event, StepStarted) for event in begun), "nothing is drawn beside the question"
        asked.append(changes)
        return False

    with pytest.raises(Declined):
        Deployer(report=begun.append, cwd=project.path, environ=project.environ).up(f"{NAME}.yml", confirm=no)
    assert begun
    assert project.state_file.read_bytes() == before
    assert any("host2" in line for line in asked[0].spec)
    assert deployer.up(f"{NAME}.yml").state == "configured"
    assert list(project.state["hosts"]) == ["host1"]
    assert deployer.destroy(NAME).state == "destroyed"
    assert deployer.create(Path(f"{NAME}.yml")).state == "created"


def test_errors_are_raised_and_not_printed(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.write(provider=project.module("output {\n"))
    (project.path / "bad.yml").write_text("name: bad\n")
    deployer = Deployer(cwd=project.path, environ=project.environ)
    with pytest.raises(InvalidSpec):
        deployer.validate(Path("bad.yml"))
    with pytest.raises(StepFailed) as caught:
        deployer.up(f"{NAME}.yml")
    error = caught.value
    assert (error.step, error.exit_code) == ("tofu_init", 1)
    assert error.message
    assert "main.tf line 1" in error.detail
    assert "provision_failed" in error.remains
    assert error.help.startswith(f"deployer up {project.path / NAME}.yml ")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


def test_a_host_that_is_reached_by_nobody(project: Project, fleet: Callable[[int], dict[str, FleetHost]]) -> None:
    hosts = fleet(2)
    hosts["host2"].stop()
    on_fleet(project, hosts, timeouts={"ssh": 2})
    deployer = Deployer(cwd=project.path, environ=project.environ)
    with pytest.raises(StepFailed, match="wait_ssh failed") as caught:
        deployer.up(f"{NAME}.yml")
    assert "host2" in caught.value.detail
    assert "host1" not in caught.value.detail
    hosts["host2"].start()
    assert deployer.up(NAME).state == "configured"


def test_to_have_nothing_to_do_is_not_to_have_machines_that_answer(
    project: Project, fleet: Callable[[int], dict[str, FleetHost]]
) -> None:
    hosts = fleet(2)
    on_fleet(project, hosts, timeouts={"ssh": 4})
    told: list[Event] = []
    deployer = Deployer(report=told.append, cwd=project.path, environ=project.environ)
    deployer.create(f"{NAME}.yml")
    deployer.provision(NAME)
    before = project.state_file.read_bytes()
    assert deployer.provision(NAME).state == "provisioned"
    assert isinstance(told[-1], Notice)
    assert told[-1].message == "OpenTofu has nothing to do, and every host lets us in"
    told.clear()
    keys = hosts["host1"].directory / "authorized_keys"
    known = keys.read_text()
    keys.write_text("")
    with pytest.raises(StepFailed, match=r"host1 answers at .* but does not let root in: .*Permission denied"):
        deployer.provision(NAME)
    keys.write_text(known)
    with hosts["host1"].away():
        pass  # or OpenSSH 10 would shut us out for a while
    hosts["host2"].stop()
    with pytest.raises(StepFailed, match=r"host2 does not accept connections at .*Connection refused") as caught:
        deployer.provision(NAME)
    assert caught.value.remains == "Its state stays provisioned, and OpenTofu has nothing to do."
    assert caught.value.help == f"deployer show {NAME} --refresh"
    assert not [event for event in told if isinstance(event, Notice)], "that there is nothing to do is not said before"
    assert [line.split()[0] for line in deployer.show(NAME, refresh=True).reality[-2:]] == ["same:", "differs:"]
    hosts["host2"].start()
    # The key that somebody has unpinned, as the error says, is pinned by the first login.
    pinned = project.folder / "ssh" / "known_hosts"
    all_pinned = pinned.read_text()
    pinned.write_text("")
    deployer.provision(NAME)
    assert sorted(pinned.read_text().split()) == sorted(all_pinned.split())
    pinned.write_text(all_pinned.replace("AAAA", "AAAB"))
    with pytest.raises(StepFailed, match="another host key") as caught:
        deployer.provision(NAME)
    assert caught.value.help.startswith("ssh-keygen -R ")
    assert project.state_file.read_bytes() == before, "the state is as it was, whatever is in the way"
    pinned.write_text(all_pinned)
    # A step that the disk or somebody's file refuses has failed, as any other.
    (project.folder / "ansible").write_text("no folder")
    with pytest.raises(StorageFailed, match="cannot make"):
        deployer.configure(NAME)
    assert project.state["failure"]["kind"] == "storage"
    assert project.state["state"] == "configure_failed"


def test_a_machine_with_another_host_key(project: Project, fleet: Callable[[int], dict[str, FleetHost]]) -> None:
    hosts = fleet(1)
    on_fleet(project, hosts, configure={"playbooks": [project.playbook("one", {"ping": {}})]}, timeouts={"ssh": 3})
    deployer = Deployer(cwd=project.path, environ=project.environ)
    deployer.up(f"{NAME}.yml")
    hosts["host1"].stop()
    hosts["host1"].new_host_key()
    hosts["host1"].start()
    # The same machine as far as OpenTofu knows, with another key: not to be trusted until the user says so.
    with pytest.raises(StepFailed):
        deployer.configure(NAME, from_start=True)
    with pytest.raises(StepFailed) as caught:
        deployer.provision(NAME, from_start=True)
    assert caught.value.kind == "authentication"
    assert "host key" in caught.value.detail


def test_a_report_that_fails_and_a_key_that_is_gone(
    project: Project, fleet: Callable[[int], dict[str, FleetHost]], caplog: pytest.LogCaptureFixture
) -> None:
    def report(event: Event) -> None:
        raise RuntimeError(event.kind)

    on_fleet(project, fleet(1), configure={"playbooks": [project.playbook("one", {"ping": {}})]})
    deployer = Deployer(report=report, cwd=project.path, environ=project.environ)
    assert deployer.up(f"{NAME}.yml").state == "configured"
    assert "the report of the event run_finished failed" in caplog.text
    (project.path / "key").unlink()
    with pytest.raises(StepFailed) as caught:
        deployer.configure(NAME, from_start=True)
    assert f"the private key {project.path / 'key'} is not there" in caught.value.detail
    assert deployer.destroy(NAME).state == "destroyed", "nothing of ours needs the key for it"
