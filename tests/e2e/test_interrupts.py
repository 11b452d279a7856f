"""Ctrl+C and SIGTERM in the middle: once is enough, the state says where, and the same command goes on."""

from __future__ import annotations

import json
import signal

import pytest

from tests.e2e.project import NAME, VARIABLES, Project

pytestmark = pytest.mark.container


def assert_interrupted(project: Project, state: str, step: str) -> None:
    saved = project.state
    assert saved["state"] == state
    assert saved["progress"]["step"] == step
    shown = project.show
    assert shown["interrupted"] is True
    assert shown["step"] == step
    assert shown["busy"] is None
    assert "interrupted" in project.run("list").out
    text = project.run("show", NAME).out
    assert step in text
    assert "interrupted" in text
    assert (project.folder / "RECOVERY.md").is_file()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_during_an_apply(project: Project, signum: signal.Signals) -> None:
    project.write(provider=project.container(apply_delay=6))
    told = project.stopped("up", f"{NAME}.yml", when=lambda: machine_is_being_made(project), signum=signum)
    assert told.code == 128 + signum
    assert "asked tofu apply to stop" in told.err, told.err
    assert f"was interrupted by {signum.name} at tofu_apply" in told.err
    assert f"  next:  deployer up {project.path / NAME}.yml    # goes on from there" in told.err
    assert_interrupted(project, "provisioning", "tofu_apply")
    assert project.state["resources"] == "possible"
    # OpenTofu's state is whole, and nobody holds its lock.
    tofu_state = json.loads((project.folder / "tofu" / "terraform.tfstate").read_bytes())
    assert 'terraform_data.directory["web"]' in project.tofu("state", "list")
    assert tofu_state["version"] == 4
    assert not (project.folder / "tofu" / ".terraform.tfstate.lock.info").exists()
    assert [argv for argv in project.processes().values() if "tofu" in argv.split()[0]] == []
    # It goes on to the end.
    project.run("up", NAME)
    assert project.state["state"] == "configured"
    assert project.machines()["web"].process.alive


def machine_is_being_made(project: Project) -> bool:
    whole_lines = project.log_of_events().rpartition("\n")[0].splitlines()
    return any(
        e["kind"] == "resource" and "machine" in e["address"] and e["status"] == "start"
        for e in map(json.loads, whole_lines)
    )


def test_during_a_playbook_and_during_the_waiting(project: Project) -> None:
    # A machine that never answers: the waiting is interrupted.
    project.write(provider=project.container(ssh="silent", cloud_init="absent"))
    told = project.stopped("up", f"{NAME}.yml", when=lambda: project.in_flight("wait_ssh"))
    assert told.code == 130
    assert_interrupted(project, "provisioning", "wait_ssh")
    # One that does (of another size: a new one), and a playbook that takes its time.
    first = project.playbook("first", {"name": "Count", "shell": "echo once >> /tmp/first"})
    slow = project.playbook("slow", {"name": "Take your time", "command": "sleep 60"})
    project.write(hosts={"web": {"memory": 2048}}, configure={"playbooks": [first, slow]})
    told = project.stopped("up", f"{NAME}.yml", "--yes", when=lambda: task_has_begun(project, "Take your time"))
    assert told.code == 130, told
    assert "was interrupted by SIGINT at playbook:slow" in told.err
    assert_interrupted(project, "configuring", "playbook:slow")
    assert [argv for argv in project.processes().values() if "ansible" in argv] == []
    # The playbook mended, it goes on; the first one is not repeated.
    project.playbook("slow", {"name": "Be quick", "command": "true"})
    project.run("up", NAME)
    assert project.state["state"] == "configured"
    assert project.run("ssh", NAME, "--", "cat /tmp/first").out == "once\n"


def task_has_begun(project: Project, task: str) -> bool:
    return project.in_flight("playbook:slow") and task in project.log_of_events()


def test_during_a_destroy(project: Project) -> None:
    project.write(
        provider=project.module(
            """
            variable "environment" {}
            variable "hosts" {}
            variable "user_data" {}
            variable "ssh_public_key" {}
            resource "terraform_data" "kept" {}
            resource "terraform_data" "slow" {
              depends_on = [terraform_data.kept]
              provisioner "local-exec" {
                when    = destroy
                command = "while [ -e hold ]; do sleep 0.05; done"
              }
            }
            """
        )
    )
    project.run("up", f"{NAME}.yml", code=1)  # it has no hosts to give, which is another test's matter
    (project.folder / "tofu" / "hold").touch()
    told = project.stopped("destroy", NAME, "--yes", when=lambda: '"delete"' in project.log_of_events())
    assert told.code == 130
    assert_interrupted(project, "destroying", "tofu_destroy")
    assert project.state["resources"] == "present"
    assert "terraform_data.kept" in project.tofu("state", "list")
    # Forwards only.
    assert "must be finished" in project.run("up", NAME, code=3).err
    assert "must be finished" in project.run("provision", NAME, code=3).err
    (project.folder / "tofu" / "hold").unlink()
    project.run("destroy", NAME, "--yes")
    assert project.state["state"] == "destroyed"


def test_during_a_question(project: Project) -> None:
    """There is nothing to be mended then, and nothing has begun."""
    many = 'resource "terraform_data" "many" {\n  count = 3000\n}\n'  # so that planning takes a while
    project.write(provider=project.module(f"{VARIABLES}\n{many}"))
    project.run("create", "-f", f"{NAME}.yml")
    lock = project.folder / "environment.lock"
    told = project.stopped("plan", NAME, when=lambda: "tofu plan" in lock.read_text())
    assert told.code == 130
    assert "Nothing was changed" in told.err
    assert told.err.splitlines()[-1] == f"  next:  deployer plan {NAME}"
    assert project.state["state"] == "created"
