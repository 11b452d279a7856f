"""The main job on a container: from a file to a configured machine with its page, again, and back to nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.e2e.project import NAME, PROGRAM, Project, plain, watched
from tests.steps import DESTROY, PROVISION

pytestmark = pytest.mark.container

CONFIGURE = ["render_inventory", "playbook:web", "playbook:site"]


def assert_steps_seen(texts: list[str], steps: Sequence[str], *, quick: set[str]) -> None:
    """All steps were in the state file, in order. `quick` ones last milliseconds: an onlooker may miss those."""
    found = [step for text in texts if (step := json.loads(text).get("progress", {}).get("step"))]
    seen = list(dict.fromkeys(found))
    assert seen == [step for step in steps if step in seen]
    assert set(steps) - quick <= set(seen)


def test_from_a_file_to_a_page_and_back_to_nothing(project: Project, checkout: Path) -> None:
    site = project.playbook("site", {"name": "Say it", "debug": {"msg": "{{ greeting }}"}})
    project.write(
        hosts={"web": {"ports": {0: 80}}},
        configure={"playbooks": ["web", site], "variables": {"greeting": "Good day"}},
    )

    # Up, and every step is found in the state file while it runs.
    with watched(project.state_file) as texts:
        up = project.run("up", f"{NAME}.yml", "--progress", "json")
    assert plain(up.out).startswith(f"{NAME}: configured, in ")
    states = [json.loads(text)["state"] for text in texts]
    assert list(dict.fromkeys(states)) == ["created", "provisioning", "provisioned", "configuring", "configured"]
    assert_steps_seen(texts, [*PROVISION, *CONFIGURE], quick={"render_tofu", "read_outputs", "render_inventory"})
    said = [json.loads(line) for line in up.err.splitlines()]
    assert [e["step"] for e in said if e["kind"] == "step_started"] == [*PROVISION, *CONFIGURE]
    assert [(e["outcome"], e["state"]) for e in said if e["kind"] == "run_finished"] == [
        ("done", "provisioned"),
        ("done", "configured"),
    ]
    transitions = [e for e in project.events if e["kind"] == "transition"]
    assert all(
        {"environment", "run_id", "from_state", "to_state", "step", "pid", "at"} >= e.keys() - {"kind"}
        for e in transitions
    )
    assert transitions[-1]["to_state"] == "configured"

    # The page, through the forwarded port.
    machine = project.machines()["web"]
    overview = project.show
    assert overview["hosts"]["web"]["ports"] == [{"host": machine.ports["80"], "machine": 80}]
    page = project.page(machine.ports["80"])
    assert "Good day" in page
    assert NAME in page

    # Where it stands, in each form.
    assert project.run("status", NAME).out == "configured\n"
    assert overview["state"] == "configured"
    assert overview["resources"] == "present"
    assert project.run("list", "--output", "json").data[0]["state"] == "configured"
    assert project.run("ssh", NAME, "--", "echo $((6 * 7)); id -un").out == "42\ndeployer\n"
    assert project.run("ssh", NAME, "web", "--", "exit 9", code=9).out == ""
    refreshed = project.run("show", NAME, "--refresh", "--output", "json").data["reality"]
    assert [line.partition(":")[0] for line in refreshed] == ["same", "same"]
    for path in project.folder.rglob("*"):
        if path.is_dir() and path.parent == project.folder:
            assert path.stat().st_mode & 0o077 == 0, path
    for private in (
        "environment.json",
        "environment.lock",
        "events.jsonl",
        "ssh/id_ed25519",
        "tofu/terraform.tfvars.json",
    ):
        assert (project.folder / private).stat().st_mode & 0o077 == 0, private

    # The same again changes nothing.
    before = project.state_file.read_bytes()
    for argument in (f"{NAME}.yml", NAME):
        again = project.run("up", argument)
        assert "nothing to do" in again.err
        assert plain(again.out).startswith(f"{NAME}: configured")
    assert "nothing to do" in project.run("provision", NAME).err
    assert project.run("plan", NAME, "--output", "json").data == {
        "name": NAME,
        "empty": True,
        "summary": "nothing to do",
        "file_changes": [],
        "changes": [],
    }
    assert project.state_file.read_bytes() == before
    assert project.machines()["web"] == machine

    # Configure again: all done, nothing changed.
    project.run("configure", NAME)
    notes = [e["note"] for e in project.events if e["kind"] == "step_finished" and e["step"].startswith("playbook:")]
    assert [note.partition("changed=")[2] for note in notes] == ["4", "0", "0", "0"]

    # Other programs' Ansible works with it as it is, lock or no lock.
    other_peoples_ansible(project, checkout)

    # Back to nothing.
    with watched(project.state_file) as texts:
        project.run("destroy", NAME, "--yes")
    assert_steps_seen(texts, DESTROY, quick={"clean_up"})
    assert not machine.process.alive
    assert not machine.network.alive
    assert project.processes() == {}
    assert project.run("status", NAME).out == "destroyed\n"
    assert project.state["hosts"] == {}
    assert project.state["resources"] == "none"
    before = project.state_file.read_bytes()
    assert "destroyed already" in project.run("destroy", NAME, "--yes").err
    assert project.state_file.read_bytes() == before


def other_peoples_ansible(project: Project, checkout: Path) -> None:
    inventory = str(checkout / "inventory" / "deployer")
    ping = project.playbook("other", {"name": "Reach it", "ping": {}}, hosts="all")
    # Another process holds the lock meanwhile.
    holder = subprocess.Popen(
        ["flock", str(project.folder / "environment.lock"), "sh", "-c", "echo held; read line"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert project.run("destroy", NAME, "--yes", code=4).out == ""
        listed = json.loads(ansible(project, "ansible-inventory", "-i", inventory, "--list"))
        (host,) = listed["_meta"]["hostvars"]
        assert listed["_meta"]["hostvars"][host]["ansible_host"] == "127.0.0.1"
        assert '"ping": "pong"' in ansible(project, "ansible", "-i", inventory, "all", "-m", "ping")
        assert "changed=0" in ansible(project, "ansible-playbook", "-i", inventory, ping)
        assert project.run("inventory", NAME, "--host", host).data["ansible_user"] == "deployer"
        holder.communicate("\n")


def ansible(project: Project, program: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(PROGRAM.parent / program), *arguments],
        cwd=project.path,
        env=project.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done
    return done.stdout


def test_with_each_engine(project: Project, any_engine: Path) -> None:
    project.environ["DEPLOYER_TOFU"] = str(any_engine)
    project.write(configure={"playbooks": [project.playbook("site", {"ping": {}})]})

    def state(*arguments: str) -> str:
        """The result as JSON: one object, whatever the command."""
        found = project.run(*arguments, "--output", "json").data
        assert found["name"] == NAME
        return str(found["state"])

    assert state("create", "-f", f"{NAME}.yml") == "created"
    assert state("provision", NAME) == "provisioned"
    assert state("configure", NAME) == "configured"
    assert state("up", NAME, "--progress", "json") == "configured"
    assert state("show", NAME, "--refresh") == "configured"
    machine = project.machines()["web"]
    assert state("destroy", NAME, "--yes") == "destroyed"
    assert not machine.process.alive
    assert project.processes() == {}
