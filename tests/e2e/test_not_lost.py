"""Nothing that was made is lost: whoever is killed, whatever becomes of the module, and whoever types tofu by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployer import Deployer
from deployer.errors import Interrupted, StepFailed
from deployer.events import Event, StepStarted
from deployer.process import Interrupts
from deployer.workflows.review import Changes
from tests.e2e.project import NAME, VARIABLES, Project, Result
from tests.machines import FleetHost
from tests.watching import until

FleetOf = Callable[[int], dict[str, FleetHost]]

# A machine is a file; making it takes as long as there is another one beside it.
MODULE = """
resource "terraform_data" "%(resource)s" {
  for_each = var.hosts
  input    = "%(things)s/${each.key}"
  provisioner "local-exec" {
    command = "[ ! -e $THING.bad ] || exit 1; touch $THING; while [ -e $THING.slow ]; do sleep 0.05; done"
    environment = { THING = self.input }
  }
  provisioner "local-exec" {
    when    = destroy
    command = "rm -f ${self.input}"
  }
}
output "hosts" {
  value = { for name, _ in var.hosts : name => { address = "127.0.0.1", port = %(port)s } }
}
"""
NOBODY_ANSWERS: dict[str, Any] = {"timeouts": {"ssh": 1}, "cloud_init": False, "configure": {}}
LETS_US_IN: dict[str, Any] = {  # a machine of the fleet
    "ssh": {"user": "root", "private_key": "./key"},
    "cloud_init": False,
    "configure": {},
}
PAPER = 'resource "terraform_data" "paper" {}'
MANY = 'resource "terraform_data" "many" {\n  count = 3000\n}\n'  # so that planning takes a while


@pytest.fixture
def things(project: Project) -> Path:
    (project.path / "things").mkdir()
    return project.path / "things"


def module(project: Project, more: str = "", *, resource: str = "machine", port: str = "9") -> dict[str, Any]:
    filled = MODULE % {"resource": resource, "things": project.path / "things", "port": port}
    return project.module(f"{VARIABLES}\n{filled}\n{more}")


def made(project: Project, *hosts: str, provider: dict[str, Any] | None = None) -> None:
    """The machines are there, although nobody answers."""
    project.write(
        provider=provider or module(project),
        hosts={host: {} for host in hosts},
        **NOBODY_ANSWERS,
    )
    project.run("up", f"{NAME}.yml", "--yes", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"


def outputs(address: str, port: str) -> str:
    return f'output "hosts" {{\n  value = {{ web = {{ address = {address}, port = {port} }} }}\n}}\n'


def names(things: Path) -> set[str]:
    return {path.name for path in things.iterdir()}


def killed_at(project: Project, thing: Path, *arguments: str) -> Result:
    """OpenTofu is killed while it makes that one, and what it had started ends later."""
    slow = thing.with_name(thing.name + ".slow")
    slow.touch()
    process = project.start(*arguments)
    until(thing.exists, 60, "the machine to be begun")
    for pid, argv in project.processes().items():
        if " apply " in argv and "tofu" in argv.split()[0]:
            os.kill(pid, signal.SIGKILL)
    done = project.finish(process)
    slow.unlink()
    return done


def refused(project: Project, *words: str) -> Result:
    before = project.state
    told = project.run("destroy", NAME, "--yes", code=1)
    for word in words:
        assert word in told.err
    assert project.state == before
    return told


def gone(project: Project, things: Path) -> None:
    project.run("destroy", NAME, "--yes")
    assert project.state["state"] == "destroyed"
    assert names(things) == set()


def test_opentofu_killed_while_it_adds_a_machine(project: Project, things: Path) -> None:
    made(project, "one")
    project.write(provider=module(project), hosts={"one": {}, "two": {}}, **NOBODY_ANSWERS)
    killed_at(project, things / "two", "up", f"{NAME}.yml", "--yes")
    assert project.state["resources"] == "present"
    told = refused(project, "OpenTofu was cut short", f"deployer provision {NAME} --from-start")
    assert "--abandon" not in told.err
    # Neither a plan nor an apply that fails takes the doubt away.
    bad = things / "two.bad"
    bad.touch()
    project.run("provision", NAME, "--from-start", code=1)
    assert project.state["failure"]["step"] == "tofu_apply"
    refused(project, "OpenTofu was cut short")
    bad.unlink()
    project.run("provision", NAME, "--from-start", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    gone(project, things)


def test_opentofu_killed_where_its_state_is_elsewhere(project: Project, things: Path) -> None:
    backend = f'terraform {{\n  backend "local" {{ path = "{project.path}/elsewhere.tfstate" }}\n}}\n'
    project.write(provider=module(project, backend), **NOBODY_ANSWERS)
    killed_at(project, things / "web", "up", f"{NAME}.yml")
    assert project.state["resources"] == "possible"
    refused(project, "OpenTofu was cut short", f"deployer provision {NAME} --from-start")
    project.run("provision", NAME, "--from-start", code=1)
    assert not (project.folder / "tofu" / "deployer-applying.tfplan").exists()
    gone(project, things)


def test_a_state_in_the_folder_by_way_of_a_backend_is_looked_at(project: Project, things: Path) -> None:
    made(project, "web", provider=module(project, 'terraform {\n  backend "local" {}\n}\n'))
    state = project.folder / "tofu" / "terraform.tfstate"
    whole = state.read_bytes()
    state.write_bytes(b"")
    refused(project, "is empty")
    for command in (("plan", NAME), ("up", NAME)):
        assert "is empty" in project.run(*command, code=1).err
    state.write_bytes(whole)
    gone(project, things)


def test_a_question_that_is_killed_leaves_the_module_that_counts(project: Project, things: Path) -> None:
    """What is not in the new module would go without its destroy-time provisioner."""
    made(project, "web")
    module(project, MANY, resource="server")
    process = project.start("plan", NAME)
    copy = project.folder / "tofu" / "main.tf"
    until(lambda: '"server"' in copy.read_text() and bool(project.processes()), 60, "the question")
    process.kill()
    project.finish(process)
    until(lambda: not project.processes(), 60, "what it had started")
    project.run("plan", NAME)
    assert '"machine"' in copy.read_text()
    gone(project, things)


def test_what_went_wrong_half_way_is_not_replaced_unasked(project: Project, things: Path) -> None:
    made(project, "web")
    module(project, resource="server")
    told = project.run("up", f"{NAME}.yml", code=2)
    assert 'delete  terraform_data.machine["web"]' in told.err
    assert project.state["failure"]["step"] == "wait_ssh"
    gone(project, things)


def test_what_was_never_whole_is_made_anew_unasked(project: Project, things: Path) -> None:
    failing = 'resource "terraform_data" "late" {\n  provisioner "local-exec" {\n    command = "false"\n  }\n}\n'
    project.write(provider=module(project, failing), **NOBODY_ANSWERS)
    project.run("up", f"{NAME}.yml", code=1)
    assert project.state["failure"]["step"] == "tofu_apply"
    module(project, failing.replace("false", "true"))
    project.run("up", f"{NAME}.yml", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    gone(project, things)


def test_a_mended_destruction_is_taken_over_where_nothing_else_is_to_do(project: Project, things: Path) -> None:
    made(project, "web")
    main = project.path / "infra" / "main.tf"
    main.write_text(main.read_text().replace("rm -f", "rm -f -v"))
    project.run("up", NAME, code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    assert "rm -f -v" in (project.folder / "tofu" / "main.tf").read_text()
    gone(project, things)


def test_a_confirmed_module_that_was_not_applied_does_not_count(project: Project, things: Path) -> None:
    made(project, "web")
    module(project, resource="server")
    interrupts = Interrupts()

    def report(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "tofu_validate":
            interrupts.request()

    with pytest.raises(Interrupted):
        Deployer(project.home, cwd=project.path, interrupts=interrupts, report=report).up(f"{NAME}.yml")
    assert project.state["progress"]["step"] == "tofu_validate"
    gone(project, things)


def test_what_was_confirmed_is_done_and_nothing_else(project: Project, things: Path) -> None:
    """The module is changed while it is asked: that is for the next time."""
    made(project, "one")
    project.write(provider=module(project), hosts={"one": {}, "two": {}}, **NOBODY_ANSWERS)
    shown: list[Changes] = []

    def confirm(changes: Changes) -> bool:
        shown.append(changes)
        module(project, resource="server")
        return True

    with pytest.raises(StepFailed):
        Deployer(project.home, cwd=project.path).up(f"{NAME}.yml", confirm=confirm)
    assert [change.action for change in shown[0].plan.changes] == ["create"]
    assert names(things) == {"one", "two"}
    assert project.state["failure"]["step"] == "wait_ssh"
    assert '"machine"' in (project.folder / "tofu" / "main.tf").read_text()
    gone(project, things)


def test_what_was_confirmed_is_not_done_over_what_somebody_else_has_done_meanwhile(
    project: Project, things: Path
) -> None:
    made(project, "one")
    project.write(provider=module(project), hosts={"one": {}, "two": {}}, **NOBODY_ANSWERS)

    def confirm(changes: Changes) -> bool:
        project.tofu("apply", "-auto-approve")
        return True

    with pytest.raises(StepFailed, match="Saved plan is stale"):
        Deployer(project.home, cwd=project.path).up(f"{NAME}.yml", confirm=confirm)
    assert project.state["failure"]["step"] == "tofu_apply"
    project.run("up", f"{NAME}.yml", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    gone(project, things)


def test_a_destroy_that_cannot_begin_keeps_the_module_that_counts(project: Project, things: Path) -> None:
    made(project, "web")
    module(project, resource="server")
    offline, wrapper = project.path / "offline", project.path / "tofu"
    engine = project.environ["DEPLOYER_TOFU"]
    words = f'case $1 in init|validate) [ ! -e "{offline}" ] || {{ echo "Error: no way out" >&2; exit 1; }} ;; esac'
    wrapper.write_text(f'#!/bin/sh\n{words}\nexec "{engine}" "$@"\n')
    wrapper.chmod(0o755)
    offline.touch()
    told = project.run("destroy", NAME, "--yes", code=1, DEPLOYER_TOFU=str(wrapper))
    assert "no way out" in told.err
    assert names(things) == {"web"}
    offline.unlink()
    gone(project, things)


def test_a_machine_that_opentofu_has_forgotten_and_that_answers(project: Project, things: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as machine:
        port = f'name == "one" ? {machine.getsockname()[1]} : 9'
        made(project, "one", "two", provider=module(project, port=port))
        project.tofu("state", "rm", 'terraform_data.machine["one"]')
        told = project.run("destroy", NAME, "--yes", code=1)
        assert "one still answers at 127.0.0.1 port" in told.err
        assert project.state["state"] == "destroy_failed"
        assert "before this run they were one" in told.err, "two is gone"
    project.run("destroy", NAME, "--yes")


def test_what_was_applied_by_hand_is_learned(project: Project, fleet: FleetOf) -> None:
    where = project.path / "where"
    one, two = fleet(2).values()
    where.write_text(f"{one.address} {one.port}")
    read = f'split(" ", file("{where}"))'
    output = outputs(f"{read}[0]", f"tonumber({read}[1])")
    project.write(
        provider=project.module(f"{VARIABLES}\n{PAPER}\n{output}"),
        **LETS_US_IN,
    )
    project.run("up", f"{NAME}.yml")
    where.write_text(f"{two.address} {two.port}")
    project.tofu("apply", "-auto-approve")
    shown = project.run("show", NAME, "--refresh")
    assert "differs: OpenTofu would hand out other addresses" in shown.out
    assert f"  next       deployer up {project.path / NAME}.yml" in shown.out
    project.run("up", NAME)
    assert project.state["hosts"]["web"]["address"] == two.address
    assert project.state["state"] == "configured"
    assert "nothing to do" in project.run("up", NAME).err
    project.run("destroy", NAME, "--yes")


@pytest.mark.parametrize("way", ["mended meanwhile", "second destroy"])
def test_a_machine_that_the_state_has_lost_is_not_forgotten_by_a_later_destroy(
    project: Project, fleet: FleetOf, way: str
) -> None:
    where = {
        name: {"address": m.address, "port": m.port} for name, m in zip(("web", "db"), fleet(2).values(), strict=True)
    }
    text = f"{VARIABLES}\n{PAPER}\n" + 'resource "terraform_data" "machine" {\n  for_each = var.hosts\n}\n'
    text += f'output "hosts" {{\n  value = jsondecode({json.dumps(json.dumps(where))})\n}}\n'
    project.write(provider=project.module(text), hosts={"web": {}, "db": {}}, **LETS_US_IN)
    project.run("up", f"{NAME}.yml")
    project.tofu("state", "rm", 'terraform_data.machine["db"]')
    copy = project.folder / "tofu" / "main.tf"
    copy.write_text(text + "\nnonsense {")
    if way == "second destroy":
        project.module(text + "\nnonsense {")
        project.run("destroy", NAME, "--yes", code=1)
        copy.write_text(text)
    told = project.run("destroy", NAME, "--yes", code=1)
    assert "db still answers" in told.err
    assert project.state["state"] == "destroy_failed"
    project.run("destroy", NAME, "--abandon", "--yes")


def test_what_was_made_by_hand_alone_is_not_changed_unasked(project: Project, things: Path) -> None:
    project.write(provider=module(project), hosts={"web": {}}, **NOBODY_ANSWERS)
    project.run("create", f"{NAME}.yml")
    project.run("plan", NAME)
    for command in ("init", "apply"):
        project.tofu(command, "-input=false", *(["-auto-approve"] if command == "apply" else []))
    project.write(provider=module(project, resource="other"), hosts={"web": {}}, **NOBODY_ANSWERS)
    assert "delete  terraform_data.machine" in project.run("up", f"{NAME}.yml", code=2).err
    assert names(things) == {"web"}
    project.run("destroy", NAME, "--yes")
    assert names(things) == set()


def test_a_look_that_fails_names_its_log(project: Project, things: Path) -> None:
    made(project, "web")
    module(project, "output a { value = var.nothing }\noutput b { value = local.nowhere }")
    for command in ("plan", "up"):
        told = project.run(command, NAME, code=1)
        (log,) = (line.partition("log:   ")[2] for line in told.err.splitlines() if line.startswith("  log:   "))
        assert "nowhere" in Path(log).read_text()
    assert project.run("logs", NAME).out.count(" run_started ") == 1, "of the last run that had steps"
    project.run("destroy", NAME, "--yes")


@pytest.mark.parametrize("command", ["plan", "up"])
def test_what_init_brought_and_somebody_cleared_is_brought_again(project: Project, command: str) -> None:
    inner = 'module "inner" {\n  source = "./inner"\n}\n'
    provider = project.module(f"{VARIABLES}\n{PAPER}\n{inner}\n" + outputs('"127.0.0.1"', "9"))
    (project.path / "infra" / "inner").mkdir()
    (project.path / "infra" / "inner" / "main.tf").write_text('output "x" {\n  value = 1\n}\n')
    made(project, "web", provider=provider)
    shutil.rmtree(project.folder / "tofu" / ".terraform" / "modules")
    told = project.run(command, NAME, code=1 if command == "up" else 0)
    assert "not installed" not in told.err.lower()


def test_outputs_that_are_too_long_are_no_defect(project: Project) -> None:
    long = 'output "image" {\n  value = join("", [for i in range(1000) : format("%02048d", i)])\n}\n'
    project.write(provider=project.module(f"{VARIABLES}\n{PAPER}\n{long}" + outputs('"127.0.0.1"', "9")))
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "cause: OpenTofu's outputs cannot be read: what it printed is no JSON, or longer than 1 MiB" in told.err
    assert project.state["failure"]["kind"] == "input"
    project.run("destroy", NAME, "--yes")


def test_what_was_applied_by_hand_is_learned_half_way(project: Project, fleet: FleetOf) -> None:
    where = project.path / "where"
    where.write_text("9")
    (host,) = fleet(1).values()
    output = outputs(f'"{host.address}"', f'tonumber(file("{where}"))')
    provider = project.module(f"{VARIABLES}\n{PAPER}\n{output}")
    project.write(provider=provider, timeouts={"ssh": 5}, **LETS_US_IN)
    project.run("up", f"{NAME}.yml", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    where.write_text(str(host.port))
    project.tofu("apply", "-auto-approve")
    project.run("up", NAME)
    assert project.state["state"] == "configured"
    project.run("destroy", NAME, "--yes")


@pytest.mark.parametrize("state", ["in its folder", "in a backend"])
def test_what_the_module_takes_over_and_what_nobody_asked_for(project: Project, state: str) -> None:
    """A module may import what is there; and hosts of its own are told, as nobody would look after them."""
    text = """
import {
  to = terraform_data.old
  id = "known-before"
}
resource "terraform_data" "old" {
  input = "taken over"
}
output "hosts" {
  value = { for name in ["web", "other"] : name => { address = "127.0.0.1", port = 9 } }
}
"""
    if state == "in a backend":
        text += f'terraform {{\n  backend "local" {{\n    path = "{project.path}/kept.tfstate"\n  }}\n}}\n'
    project.write(provider=project.module(VARIABLES + text), **NOBODY_ANSWERS)
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "1 to import" in told.err
    assert "the module also has hosts that are not in the file, and so are not managed: other" in told.err
    assert project.state["failure"]["step"] == "wait_ssh"
    project.run("destroy", NAME, "--yes")


CHECK = """
check "health" {
  data "terraform_remote_state" "x" {
    backend = "local"
    config  = { path = "%s" }
  }
  assert {
    condition     = data.terraform_remote_state.x.outputs == {}
    error_message = "it is not well"
  }
}
"""


def test_what_is_only_read_is_no_change(project: Project, fleet: FleetOf) -> None:
    """Data in a check is read at each plan."""
    other = project.path / "other.tfstate"
    other.write_text(
        '{"version": 4, "terraform_version": "1.6.2", "serial": 1, "lineage": "x", "outputs": {}, "resources": []}'
    )
    (host,) = fleet(1).values()
    output = outputs(f'"{host.address}"', str(host.port))
    project.write(
        provider=project.module(f"{VARIABLES}\n{PAPER}\n{output}\n{CHECK % other}"),
        **LETS_US_IN,
    )
    project.run("up", f"{NAME}.yml")
    assert "nothing to do" in project.run("up", f"{NAME}.yml").err
    assert "same: OpenTofu finds everything as it was made" in project.run("show", NAME, "--refresh").out
    project.run("destroy", NAME, "--yes")


def test_a_secret_that_was_exchanged_is_veiled_too(project: Project) -> None:
    text = """
variable "db_password" {}
resource "terraform_data" "database" {
  input            = var.db_password
  triggers_replace = var.db_password
  provisioner "local-exec" {
    when    = destroy
    command = "echo farewell ${self.input}"
  }
}
output "hosts" {
  value = { web = { address = "127.0.0.1", port = 9 } }
}
"""
    old, new = "canary-of-yesterday", "canary-of-today"
    for secret in (old, new):
        provider = {**project.module(VARIABLES + text), "options": {"db_password": secret}}
        project.write(provider=provider, **NOBODY_ANSWERS)
        told = project.run("up", f"{NAME}.yml", "--yes", "--verbose", code=1)
    assert "farewell {{ before.0.provider.db_password }}" in told.err
    for text in (told.err, project.log, project.log_of_events()):
        assert old not in text
    project.run("destroy", NAME, "--yes")


def test_what_lies_beside_the_module_is_in_the_folder_too(project: Project, things: Path) -> None:
    """Modules that several root modules share; and by hand all goes away although they have gone."""
    shared = project.path / "shared" / "machines"
    shared.mkdir(parents=True)
    filled = MODULE % {"resource": "machine", "things": things, "port": "9"}
    (shared / "main.tf").write_text(f'variable "hosts" {{ type = any }}\n{filled}')
    call = 'module "machines" {\n  source = "../shared/machines"\n  hosts  = var.hosts\n}\n'
    output = 'output "hosts" {\n  value = module.machines.hosts\n}\n'
    made(project, "web", provider=project.module(f"{VARIABLES}\n{call}\n{output}"))
    assert names(things) == {"web"}
    (shared / "main.tf").write_text((shared / "main.tf").read_text() + PAPER)
    assert "create  module.machines.terraform_data.paper" in project.run("plan", NAME).out
    shutil.rmtree(shared)
    project.tofu("init", "-input=false")
    project.tofu("destroy", "-auto-approve")
    assert names(things) == set()
    project.run("destroy", NAME, "--yes")
