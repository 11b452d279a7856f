"""What goes wrong on the way, on real machines: the state left, the cause told, and going on from there."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import NAME, VARIABLES, Project

pytestmark = pytest.mark.container

BROKEN_LOCALE = {"locale": "xx_XX.UTF-8", "locale_configfile": "/nowhere/locale"}


def assert_failed(project: Project, state: str, step: str, kind: str, *words: str) -> dict[str, Any]:
    """The environment is in that failed state, and the state file and `show` say why."""
    saved = project.state
    assert saved["state"] == state
    assert saved["failure"]["step"] == step
    assert saved["failure"]["kind"] == kind, saved["failure"]
    shown = project.show
    assert shown["failure"]["step"] == step
    for word in words:
        assert word in shown["failure"]["cause"], shown["failure"]
    assert Path(shown["failure"]["log"]).is_file()
    assert "\n" not in saved["failure"]["cause"]
    text = project.run("show", NAME).out
    assert step in text
    assert saved["failure"]["cause"].split()[0] in text
    assert (project.folder / "RECOVERY.md").is_file()
    return saved


def steps_of_last_run(project: Project) -> list[str]:
    last = project.events[-1]["run_id"]
    return [e["step"] for e in project.events if e["kind"] == "step_started" and e["run_id"] == last]


def test_cloud_init_that_fails(project: Project) -> None:
    project.write(cloud_init={"runcmd": [["sh", "-c", "echo it broke >&2; exit 3"]], **BROKEN_LOCALE})
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "wait_cloud_init failed" in told.err
    saved = assert_failed(project, "provision_failed", "wait_cloud_init", "cloud_init", "web")
    assert saved["resources"] == "present"
    assert saved["hosts"]["web"]["port"] == project.machines()["web"].port
    assert f"  next:  deployer up {project.path / NAME}.yml" in told.err
    # The end of cloud-init's own log is shown once, and not kept.
    assert "cloud-init" in told.err
    # Nothing is repaired behind the user's back: again, the same.
    again = project.run("up", NAME, code=1)
    assert "wait_cloud_init failed" in again.err
    assert steps_of_last_run(project) == ["wait_cloud_init"]
    # Mended in the file, it goes on: the machine is replaced.
    before = project.machines()["web"]
    project.write()
    declined = project.run("up", f"{NAME}.yml", code=2)
    assert "cloud_init" in declined.err
    assert project.state["state"] == "provision_failed"
    project.run("up", f"{NAME}.yml", "--yes")
    assert project.state["state"] == "configured"
    after = project.machines()["web"]
    assert after.process != before.process
    assert not before.process.alive


def test_cloud_init_that_never_ran(project: Project) -> None:
    project.write(provider=project.container(cloud_init="disabled"))
    told = project.run("up", f"{NAME}.yml", "--output", "json", code=1)
    error = told.data["error"]
    assert (error["code"], error["step"], error["exit_code"]) == ("step_failed", "wait_cloud_init", 1)
    assert_failed(project, "provision_failed", "wait_cloud_init", "cloud_init", "disabled")


def test_machines_without_cloud_init_where_the_file_says_so(project: Project) -> None:
    project.write(provider=project.container(cloud_init="absent"), cloud_init=False)
    project.run("up", f"{NAME}.yml")
    notes = {e["step"]: e.get("note", "") for e in project.events if e["kind"] == "step_finished"}
    assert notes["wait_cloud_init"].startswith("skipped")


def test_a_playbook_that_fails_and_is_mended(project: Project) -> None:
    count = {"name": "Count", "shell": "echo once >> /tmp/first"}
    first = project.playbook("first", count)
    project.playbook("second", {"name": "Look for the file", "command": "cat /etc/not-there"})
    project.write(configure={"playbooks": [first, "./second.yml", project.playbook("third", {"ping": {}})]})
    told = project.run("up", f"{NAME}.yml", code=1)
    assert f"environment {NAME}: playbook:second failed" in told.err
    assert_failed(project, "configure_failed", "playbook:second", "playbook", "web", "Look for the file", "not-there")
    assert f"  next:  deployer configure {NAME}" in told.err
    log = Path(project.state["failure"]["log"]).read_text()
    assert "/etc/not-there" in log
    # Mended, it goes on from there: the first playbook is not repeated.
    project.playbook("second", {"name": "Look for the file", "command": "cat /etc/hostname"})
    project.run("configure", NAME)
    assert project.state["state"] == "configured"
    assert steps_of_last_run(project) == ["render_inventory", "playbook:second", "playbook:third"]
    assert [s["name"] for s in project.state["finished"]] == [
        "playbook:first",
        "render_inventory",
        "playbook:second",
        "playbook:third",
    ]
    assert project.run("ssh", NAME, "--", "cat /tmp/first").out == "once\n"
    assert not (project.folder / "RECOVERY.md").exists(), "nothing is left to recover from"
    # From the start, all of it is done again.
    project.run("configure", NAME, "--from-start")
    assert project.run("ssh", NAME, "--", "cat /tmp/first").out == "once\nonce\n"
    # A playbook that is gone, as it is for a name where the project has moved.
    (project.path / "second.yml").unlink()
    (project.path / f"{NAME}.yml").rename(project.path / "moved.yml")
    told = project.run("configure", NAME, "--from-start", code=1)
    assert_failed(project, "configure_failed", "playbook:second", "input", "second.yml", "not there")
    assert project.state["failure"]["cause"] == f"the playbook {project.path / 'second.yml'} is not there"
    assert "  next:  deployer up FILE    # its file, where it is now, if the project has moved" in told.err


def test_up_sees_to_the_machines_first(project: Project) -> None:
    """From `configure_failed` it ran the playbooks on machines that OpenTofu knew to be gone."""
    playbooks = {"playbooks": [project.playbook("site", {"command": "cat /etc/not-there"})]}
    project.write(configure=playbooks, timeouts={"ssh": 40, "cloud_init": 180})
    project.run("up", f"{NAME}.yml", code=1)
    machine = project.machines()["web"]
    machine.process.end(signal.SIGKILL, 10)
    told = project.run("configure", NAME, code=1)
    assert_failed(project, "configure_failed", "playbook:site", "unreachable", "web")
    assert f"  next:  deployer up {project.path / NAME}.yml" in told.err
    told = project.run("up", NAME, code=1)
    assert f"environment {NAME}: web does not" in told.err
    assert "  now:   Its state stays configure_failed, and OpenTofu has nothing to do." in told.err
    assert f"  next:  deployer show {NAME} --refresh    # lost for good: cd {project.folder / 'tofu'} && " in told.err
    assert "tofu taint ADDRESS" in told.err
    reality = project.run("show", NAME, "--refresh").out
    assert "differs: web does not answer" in reality
    assert f"  next       deployer up {project.path / NAME}.yml\n" in reality, "which says how it is made anew"
    project.tofu("taint", 'terraform_data.machine["web"]')
    project.playbook("site", {"ping": {}})
    assert "replace  terraform_data.machine" in project.run("up", NAME, code=2).err
    assert project.state["state"] == "configure_failed"
    project.run("up", NAME, "--yes")
    assert project.state["state"] == "configured"
    assert project.machines()["web"].process != machine.process


def test_a_machine_that_cannot_be_made(project: Project) -> None:
    hosts: dict[str, Any] = {"web": {}, "db": {}}
    project.write(hosts=hosts, provider=project.container(apply_fails=["db"]))
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "db was told to fail" in told.err
    address = 'terraform_data.machine["db"]'
    saved = assert_failed(project, "provision_failed", "tofu_apply", "tofu", address, "db was told to fail")
    assert saved["resources"] == "possible"
    assert saved["hosts"] == {}
    web = project.machines()["web"]
    # Mended, it goes on; the machine that stood is kept.
    project.write(hosts=hosts)
    told = project.run("up", f"{NAME}.yml", code=2)
    assert "provider.options.apply_fails" in told.err
    assert "terraform_data.machine" in told.err
    project.run("up", f"{NAME}.yml", "--yes")
    assert project.state["state"] == "configured"
    assert project.machines()["web"].process == web.process
    assert set(project.state["hosts"]) == {"web", "db"}
    # One of several hosts must be named.
    assert "several hosts" in project.run("ssh", NAME, "--", "true", code=2).err
    assert project.run("ssh", NAME, "db", "--", "hostname").out == "db\n"


@pytest.mark.parametrize("mode", ["closed", "silent"])
def test_a_machine_that_never_lets_us_in(project: Project, mode: str) -> None:
    project.write(provider=project.container(ssh=mode, cloud_init="absent"), timeouts={"ssh": 4})
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "wait_ssh failed" in told.err
    assert "does not answer as an SSH server: at banner for " in told.err
    saved = project.state
    assert saved["failure"]["step"] == "wait_ssh"
    assert saved["failure"]["kind"] in ("timeout", "unreachable")
    assert "web" in saved["failure"]["cause"]
    assert "4 s" in saved["failure"]["cause"] or "5 s" in saved["failure"]["cause"], saved["failure"]["cause"]
    assert saved["hosts"]["web"]["port"] == project.machines()["web"].port, "the address is known when it is known"
    project.run("destroy", NAME, "--yes")
    assert project.processes() == {}


def test_a_changed_file_is_shown_before_it_is_done(project: Project) -> None:
    project.write()
    project.run("up", f"{NAME}.yml")
    before, machine = project.state_file.read_bytes(), project.machines()["web"]
    first_key = (project.folder / "ssh" / "known_hosts").read_text()
    project.write(hosts={"web": {"memory": 2048}, "db": {}})
    for command in (["up", f"{NAME}.yml"], ["provision", "-f", f"{NAME}.yml"]):
        told = project.run(*command, code=2)
        assert "hosts.web.memory: 1024 -> 2048" in told.err
        assert "hosts.db" in told.err
        assert 'replace  terraform_data.machine["web"]' in told.err
        assert 'create  terraform_data.machine["db"]' in told.err
        assert "--yes" in told.err
        assert project.state_file.read_bytes() == before
    assert project.machines()["web"] == machine
    # The same without being asked, and the state is as it was.
    planned = project.run("plan", f"{NAME}.yml")
    assert planned.out.strip() in told.err.replace("\n         ", "\n"), "what up asks is what plan shows"
    assert 'replace  terraform_data.machine["web"]' in planned.out
    assert "hosts.web.memory: 1024 -> 2048" in planned.out
    assert project.state_file.read_bytes() == before
    # A question was asked, no more: the accepted file and the tofu folder still agree.
    assert "nothing to do" in project.run("up", NAME).err
    assert project.state_file.read_bytes() == before
    project.run("up", f"{NAME}.yml", "--yes")
    state = project.state
    assert state["state"] == "configured"
    assert state["spec"]["hosts"]["web"]["memory"] == 2048
    assert project.machines()["web"].process != machine.process
    assert not machine.process.alive
    # The replaced machine has another host key, and is trusted anew; both are pinned.
    pinned = (project.folder / "ssh" / "known_hosts").read_text()
    assert first_key.split()[-1] not in pinned
    for host in ("web", "db"):
        assert project.run("ssh", NAME, host, "--", "hostname").out == f"{host}\n"
    typed = f"deployer ssh {NAME} d"
    completed = project.run(_DEPLOYER_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD="3")
    assert completed.out == "plain,db\n"
    # Only what Ansible does has changed: no machine is touched.
    machines = project.machines()
    project.write(
        hosts={"web": {"memory": 2048}, "db": {}}, configure={"playbooks": [project.playbook("site", {"ping": {}})]}
    )
    told = project.run("up", f"{NAME}.yml", code=2)
    assert "configure.playbooks" in told.err
    assert "no changes to the machines" in told.err
    project.run("up", f"{NAME}.yml", "--yes")
    assert project.machines() == machines
    assert "playbook:site" in [s["name"] for s in project.state["finished"]]


def test_a_machine_that_is_killed_behind_our_back(project: Project) -> None:
    project.write()
    project.run("up", f"{NAME}.yml")
    machine = project.machines()["web"]
    machine.process.end(signal.SIGKILL, 10)
    told = project.run("show", NAME, "--refresh", "--output", "json").data["reality"]
    assert [line for line in told if line.startswith("differs: web does not answer")], told
    assert project.state["state"] == "configured", "nobody repairs it unasked"
    assert project.run("destroy", NAME, "--yes").code == 0
    assert project.processes() == {}


MADE_ANEW = """
resource "terraform_data" "machine" {
  for_each         = var.hosts
  triggers_replace = "%s"
}
resource "terraform_data" "neighbour" {
  depends_on = [terraform_data.machine]
  provisioner "local-exec" {
    command = "%s"
  }
}
output "hosts" {
  value = { for name, _ in var.hosts : name => { address = "127.0.0.1", port = 9 } }
}
"""


def test_a_machine_made_anew_beside_one_that_fails_shows_a_new_host_key(project: Project) -> None:
    """Without an id of the machine only that very apply knows of it, and it came to no good end."""
    project.write(provider=project.module(VARIABLES + MADE_ANEW % ("one", "true")), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    known_hosts = project.folder / "ssh" / "known_hosts"
    pinned = ["[127.0.0.1]:9 ssh-ed25519 AAAA", "192.0.2.1 ssh-ed25519 BBBB"]
    known_hosts.write_text("\n".join(pinned) + "\n")
    project.module(VARIABLES + MADE_ANEW % ("two", "false"))
    project.tofu("taint", "terraform_data.neighbour")
    project.run("provision", NAME, "--from-start", "--yes", code=1)
    assert project.state["failure"]["step"] == "tofu_apply"
    assert known_hosts.read_text().splitlines() == pinned[1:]
