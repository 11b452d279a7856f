"""What `show`, `up` and a question say of an environment."""

from __future__ import annotations

from typing import Any

from deployer.cli.commands import changes_text
from deployer.cli.text import finished_text, show_text
from deployer.tofu.stream import Change, Plan
from deployer.workflows.review import Changes

OVERVIEW: dict[str, Any] = {
    "name": "demo",
    "state": "configured",
    "interrupted": False,
    "busy": None,
    "step": "",
    "failure": None,
    "resources": "present",
    "hosts": {
        "web": {
            "address": "127.0.0.1",
            "port": 2222,
            "user": "deployer",
            "ports": [{"host": 8080, "machine": 80}, {"host": 5432, "machine": 5432}],
        },
        "db": {"address": "10.0.0.2", "port": 22, "user": "root", "ports": []},
    },
    "created_at": "2020-01-01T00:00:00Z",
    "changed_at": "2020-01-01T00:00:00Z",
    "steps": [{"name": "tofu_init", "seconds": 1.2}, {"name": "tofu_apply", "seconds": 61.0}],
    "log": "/home/logs/1.log",
    "tofu_directory": "/home/tofu",
    "next_commands": ["deployer ssh demo", "deployer destroy demo"],
    "file": "/home/demo.yml",
    "playbooks": ["base", "web"],
    "provider": "local",
    "reality": [],
}


def test_the_end_of_up_says_how_to_reach_and_how_to_destroy() -> None:
    assert finished_text(OVERVIEW, 52.0) == (
        "demo: configured, in 52 s\n"
        "  host       web  deployer@127.0.0.1 port 2222  http://127.0.0.1:8080  127.0.0.1:5432 -> 5432\n"
        "             db  root@10.0.0.2 port 22\n"
        "  next       deployer ssh demo\n"
        "             deployer destroy demo"
    )


def test_ports_are_where_the_machine_is() -> None:
    ports = [{"host": 80, "machine": 80}, {"host": 22, "machine": 22}]
    hosts = {"a": {"address": "192.0.2.1", "port": 22, "user": "me", "ports": ports}}
    hosts["b"] = {**hosts["a"], "address": "2001:db8::1", "ports": ports[:1]}
    text = show_text({**OVERVIEW, "hosts": hosts})
    assert "a  me@192.0.2.1 port 22  http://192.0.2.1:80  192.0.2.1:22 -> 22" in text
    assert "b  me@2001:db8::1 port 22  http://[2001:db8::1]:80" in text


def test_show_has_everything() -> None:
    text = show_text(OVERVIEW)
    for line in (
        "  state      configured",
        "  changed    2020-01-01 00:00:00 UTC (",
        "  file       /home/demo.yml",
        "  playbooks  base, web",
        "  done       tofu_init  1.2 s",
        "             tofu_apply  1 min 01 s",
        "  by hand    cd /home/tofu && tofu destroy",
        "             deployer destroy demo",
    ):
        assert line in text


def test_show_says_what_was_interrupted_and_what_failed() -> None:
    interrupted = {**OVERVIEW, "state": "provisioning", "interrupted": True, "step": "tofu_apply"}
    assert "  state      provisioning, interrupted at tofu_apply" in show_text(interrupted)
    failure = {"step": "wait_ssh", "kind": "unreachable", "cause": "no answer\x1b[2J", "log": "/l"}
    failed = show_text({**OVERVIEW, "state": "provision_failed", "failure": failure})
    assert "  failed at  wait_ssh (unreachable)" in failed
    assert "  cause      no answer[2J" in failed


def test_show_says_who_is_at_work_and_which_tool_works_for_it() -> None:
    child = {"pid": 8, "started": "0", "doing": "tofu apply", "since": "2020-01-01T00:01:00Z"}
    holder: dict[str, Any] = {"pid": 7, "command": "up", "step": "tofu_apply", "since": "2020-01-01T00:00:00Z"}
    lines = show_text({**OVERVIEW, "state": "provisioning", "busy": {**holder, "children": [child]}}).splitlines()
    assert lines[1] == "  state      provisioning"
    assert lines[2] == "  busy       up at tofu_apply, pid 7, since 2020-01-01T00:00:00Z"
    assert lines[3] == "             tofu apply, pid 8, since 2020-01-01T00:01:00Z"
    between = show_text({**OVERVIEW, "busy": {**holder, "step": "", "children": []}})
    assert "  busy       up, pid 7, since " in between


def test_changes_show_the_file_and_the_plan() -> None:
    plan = Plan(changes=(Change(address="machine.web", action="update"),))
    assert changes_text(Changes("demo", ("hosts.web.memory: 1024 -> 2048",), plan)) == (
        "The configuration file has changed:\n"
        "  hosts.web.memory: 1024 -> 2048\n"
        "OpenTofu's plan:\n"
        "  update  machine.web\n"
        f"  {plan.summary}"
    )
    assert "no changes to the machines" in changes_text(Changes("demo", (), Plan(changes=())))
