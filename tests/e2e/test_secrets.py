"""A canary in every place that may hold a secret: it reaches the tools, and no argv, log, event or screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.project import NAME, Project
from tests.machines import FleetHost
from tests.watching import command_lines

pytestmark = pytest.mark.container

CANARY = "canary-9d41f0aa"
OPTION, VARIABLE, CREDENTIAL = f"{CANARY}-option", f"{CANARY}-variable", f"{CANARY}-credential"

MODULE = """
variable "environment" {}
variable "hosts" {}
variable "user_data" {}
variable "ssh_public_key" {}
variable "addresses" {}
variable "fails" { default = false }
variable "token" { sensitive = true }

resource "terraform_data" "paper" {
  triggers_replace = [var.fails]
  provisioner "local-exec" {
    command     = "printf '%s %s' \\"$TOKEN\\" \\"$CLOUD_CREDENTIAL\\" > used; ${var.fails ? "exit 1" : "true"}"
    environment = { TOKEN = var.token }
  }
}

output "hosts" {
  value = { for name, host in var.addresses : name => { address = host.address, port = host.port, user = "root" } }
}
"""


def everything_said(project: Project) -> str:
    """All that is there to be read by people: logs, events, pages, the lock's record."""
    folder = project.folder
    paths = [*folder.glob("logs/*"), folder / "events.jsonl", folder / "RECOVERY.md", folder / "environment.lock"]
    return "\n".join(path.read_text(errors="replace") for path in paths if path.exists())


def test_secrets_stay_where_they_belong(project: Project, fleet: Callable[[int], dict[str, FleetHost]]) -> None:
    hosts = fleet(1)
    kept = project.path / "kept"
    site = project.playbook(
        "site",
        {"name": "Use it", "copy": {"content": "{{ password }}", "dest": str(kept), "mode": "0600"}},
        {"name": "Fail with it", "fail": {"msg": "no"}, "when": "password is not defined"},
    )
    addresses = {name: {"address": host.address, "port": host.port} for name, host in hosts.items()}

    def write(**more: Any) -> None:
        options = {"token": OPTION, "addresses": addresses, **more.pop("options", {})}
        project.write(
            provider={**project.module(MODULE), "options": options},
            hosts={name: {} for name in hosts},
            ssh={"user": "root", "private_key": "./key"},
            cloud_init=False,
            configure={"playbooks": [site], "variables": {"password": VARIABLE, **more}},
        )

    write()
    project.environ["CLOUD_CREDENTIAL"] = CREDENTIAL
    said: list[str] = []
    with command_lines() as lines:
        for arguments in (
            ["up", f"{NAME}.yml", "--verbose"],
            ["show", NAME, "--output", "json"],
            ["inventory", NAME],
            ["configure", NAME, "--from-start", "--progress", "json", "--verbose"],
            ["show", NAME, "--refresh"],
        ):
            told = project.run(*arguments)
            said += [told.out, told.err]
        # It was used.
        assert (project.folder / "tofu" / "used").read_text() == f"{OPTION} {CREDENTIAL}"
        assert kept.read_text() == VARIABLE
        # A change of it is shown as a change, and no more.
        write(password="another secret", options={"token": f"{OPTION}-2"})
        told = project.run("up", f"{NAME}.yml", code=2)
        assert "configure.variables.password" in told.err
        assert "another secret" not in told.err
        said.append(told.err)
        # Nor is it in what goes wrong.
        write(options={"fails": True})
        told = project.run("up", f"{NAME}.yml", "--yes", "--verbose", code=1)
        assert "tofu_apply failed" in told.err
        said.append(told.err)
        said.append(project.run("show", NAME).out)
        everything = everything_said(project)
        said.append(project.run("destroy", NAME, "--yes", "--verbose").err)
    seen = {line.decode(errors="replace") for line in lines}
    assert any("tofu" in argv and "apply" in argv for argv in seen)
    assert any("ansible" in argv for argv in seen)
    for text in (*said, everything, everything_said(project), *seen):
        for line in text.splitlines():
            assert CANARY not in line
    assert CREDENTIAL not in json.dumps(project.state)


def test_what_may_hold_a_secret_is_private(project: Project, fleet: Callable[[int], dict[str, FleetHost]]) -> None:
    hosts = fleet(1)
    project.write(
        provider="existing",
        hosts={name: {"address": host.address, "port": host.port} for name, host in hosts.items()},
        ssh={"user": "root", "private_key": "./key"},
        cloud_init=False,
        configure={"playbooks": [project.playbook("site", {"ping": {}})], "variables": {"password": VARIABLE}},
    )
    project.run("up", f"{NAME}.yml")
    holders = [p for p in project.folder.rglob("*") if p.is_file() and VARIABLE.encode() in p.read_bytes()]
    assert {path.name for path in holders} <= {"environment.json", "variables.json"}
    for path in holders:
        assert path.stat().st_mode & 0o077 == 0, path
    for path in (project.home, *project.home.rglob("*")):
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0 or path.is_relative_to(project.folder / "tofu"), path
    assert project.run("destroy", NAME, "--yes").code == 0
    assert next(iter(hosts.values())).pid is not None
