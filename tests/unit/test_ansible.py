"""What needs no Ansible: results into messages, verdicts, inventories, quoting, the environment."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployer.ansible.inventory import InventoryEnvironment, inventory_data, write_inventory
from deployer.ansible.playbook import playbook_environment
from deployer.ansible.results import Findings, message_of, records_of
from deployer.environment import Host, PortForward
from deployer.errors import FailureKind, StepFailed
from deployer.events import Event, Report, TaskProgress, ignore
from deployer.files import write_private
from deployer.veil import veil


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"msg": "No package matching 'ngin'"}, "No package matching 'ngin'"),
        ({"msg": "two\n  lines"}, "two lines"),
        ({"msg": "non-zero return code", "stderr": "a\nls: no\n\n"}, "non-zero return code: ls: no"),
        ({"msg": "non-zero return code", "stdout": "said here"}, "non-zero return code: said here"),
        ({"msg": "m", "stderr": "Shared connection to 127.0.0.1 closed.\r\n", "stdout": "said here"}, "m: said here"),
        ({"msg": "MODULE FAILURE\nSee stdout", "module_stderr": "sudo: x"}, "MODULE FAILURE See stdout: sudo: x"),
        ({"msg": "Assertion failed", "assertion": "1 == 2"}, "Assertion failed: 1 == 2"),
        ({"stderr": "only this"}, "only this"),
        ({"changed": False, "reason": "the role 'x' was not found"}, "the role 'x' was not found"),
        ({"msg": ["a", 1]}, '["a", 1]'),
        ({}, "no message"),
        ({"censored": "hidden", "msg": "secret"}, "hidden, because the task has no_log"),
        (
            {"msg": "One or more items failed", "results": [{"msg": "fine"}, {"failed": True, "msg": "item broke"}]},
            "item broke",
        ),
        (  # as ansible-core 2.21 has it
            {
                "msg": "One or more items failed",
                "results": [{"msg": "fine"}, {"exception": "", "msg": "It broke.", "stderr": "why"}],
            },
            "It broke: why",
        ),
        ({"results": [{"failed": True, "censored": "x"}]}, "hidden, because the task has no_log"),
        ({"msg": "x", "failed_modules": {"setup": {"failed": True, "msg": "no python"}}}, "no python"),
        ({"msg": "m", "invocation": {"module_args": {"password": "hunter2"}}}, "m"),
        ({"msg": "m", "results": 3, "failed_modules": ["setup"]}, "m"),
    ],
)  # fmt: skip
def test_why_a_task_failed(result: dict[str, Any], message: str) -> None:
    assert message_of(result) == message


def records(kind: str, **data: Any) -> list[dict[str, Any]]:
    return list(records_of({"event": kind, "event_data": data}))


def test_an_ignored_failure_is_none() -> None:
    (record,) = records("runner_on_failed", host="web", task="Try", ignore_errors=True, res={"msg": "no"})
    assert (record["status"], record["message"]) == ("ok", "ignored: no")


def test_a_result_that_is_left_out_is_told_as_that() -> None:
    (record,) = records("runner_on_failed", host="web", task="Try", res={})
    assert record["message"] == "its result is too long to be told; the log has its beginning"


def test_a_record_is_short_enough_to_arrive_whole() -> None:
    long = "\U0001f4a5" * 1_000_000
    (record,) = records("runner_on_failed", host="web", role=long, task=long, res={"msg": long})
    assert len(json.dumps(record)) < 1024 * 1024
    (record,) = records_of({"event": "verbose", "stdout": long})
    assert len(json.dumps(record)) < 1024 * 1024


def test_a_task_in_a_role_is_named_with_it() -> None:
    (record,) = records("runner_on_ok", host="web", role="nginx", task="Install", res={"changed": True})
    assert (record["status"], record["task"], record["host"]) == ("changed", "nginx : Install", "web")


@pytest.mark.parametrize("name", [None, "warning", "new_in_2_30", "runner_on_start", "runner_retry"])
def test_unknown_events_are_passed_over(name: str | None) -> None:
    assert list(records_of({"event": name, "event_data": {"task": "T", "host": "web", "res": None}})) == []
    assert list(records_of({"event": name})) == []


def test_printed_lines_are_kept() -> None:
    event = {"event": "verbose", "stdout": "\r\nPLAY [all] ***"}
    assert [record["text"] for record in records_of(event)] == ["", "PLAY [all] ***"]


def test_values_of_variables_give_way_to_their_names() -> None:
    veiled = veil({
        "greeting": "hello world",
        "db": {"password": 'p"w1', "user": "app"},
        "certificate": "-----BEGIN\nMIIBIjANBg\n-----END",
        "list": ["first-value", "yes"],
    })  # fmt: skip
    assert veiled("say hello world to app") == "say {{ greeting }} to app"
    assert veiled('{"cmd": "p\\"w1"} p"w1') == '{"cmd": "{{ db.password }}"} {{ db.password }}'
    assert veiled("a first-value, yes") == "a {{ list.0 }}, yes"
    assert "MIIB" not in veiled("grep MIIBIjANBg")
    assert veil({})("as it is") == "as it is"


def test_numbers_and_letters_of_any_language_are_veiled(tmp_path: Path) -> None:
    passphrase = 'schlüs"sel\\wort'
    veiled = veil({"db_password": 83746510, "pin_token": 4711, "share": 0.123456789, "passphrase": passphrase,
                   "port": 8080, "private": True})  # fmt: skip
    assert veiled("login 83746510 4711, 0.123456789") == "login {{ db_password }} {{ pin_token }}, {{ share }}"
    for ensure_ascii in (True, False):
        assert veiled(json.dumps({"cmd": passphrase}, ensure_ascii=ensure_ascii)) == '{"cmd": "{{ passphrase }}"}'
    assert veiled("port 8080, True, true") == "port 8080, True, true"


def findings(*shown: dict[str, Any], report: Report = ignore) -> Findings:
    found = Findings("playbook:web", veil=veil({"password": "canary-secret"}), report=report)
    for record in shown:
        found.add(record)
    return found


def recap(*failed: str, unreachable: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "recap", "ok": 4, "changed": 2, "failed": failed, "unreachable": unreachable}


def task(status: str, host: str, message: str) -> dict[str, Any]:
    return {"type": "task", "status": status, "task": "T", "host": host, "message": message}


def line(text: str) -> dict[str, Any]:
    return {"type": "line", "text": text}


def end(code: int) -> dict[str, Any]:
    return {"type": "end", "rc": code}


def test_success_by_code_and_recap() -> None:
    assert findings(recap(), end(0)).success == "ok=4 changed=2"


def test_a_recap_adds_up_and_names_who_failed() -> None:
    stats = {"ok": {"a": 1, "b": 3}, "changed": {"a": 2}, "failures": {"a": 0, "b": 1}, "processed": {"a": 1, "b": 1}}
    (record,) = records("playbook_on_stats", **stats)
    assert record == {"type": "recap", "ok": 4, "changed": 2, "failed": ["b"], "unreachable": []}


def test_a_lost_exit_code_is_no_failure() -> None:
    assert findings(recap(), line("pexpect.TIMEOUT: Timeout exceeded.")).success
    assert not findings(line("pexpect.TIMEOUT: Timeout exceeded.")).success
    assert not findings(recap("a")).success


def test_a_playbook_without_plays_succeeds() -> None:
    assert findings(end(0)).success == "ok=0 changed=0"


def test_a_rescued_failure_is_not_the_cause() -> None:
    error = findings(
        task("failed", "a", "rescued"), task("failed", "b", "rescued"), task("failed", "b", "the real one"),
        recap("b"), end(2),
    ).failure  # fmt: skip
    assert error.kind is FailureKind.PLAYBOOK
    assert error.detail == "task 'T': the real one"


def test_the_first_failing_host_is_told_and_the_others_named() -> None:
    error = findings(
        task("unreachable", "c", "no route"), task("failed", "b", "broke"), task("failed", "a", "broke too"),
        recap("a", "b", unreachable=("c",)), end(2),
    ).failure  # fmt: skip
    assert (error.kind, error.detail) == (FailureKind.PLAYBOOK, "task 'T': broke; also failed: a; unreachable: c")


@pytest.mark.parametrize("before", [0, 592, 100_000])
def test_a_message_is_bounded_and_nothing_of_a_secret_is_left_at_the_cut(before: int) -> None:
    events: list[Event] = []
    said = task("failed", "a", "x" * before + "canary-secret" + "x" * 100_000)
    error = findings(said, recap("a"), end(2), report=events.append).failure
    (event,) = events
    assert isinstance(event, TaskProgress)
    assert len(event.message) == 600
    assert error.detail == f"task 'T': {event.message}"
    assert "canary" not in error.detail


def test_unreachable_is_a_kind_of_its_own() -> None:
    error = findings(task("unreachable", "a", "no route"), recap(unreachable=("a",)), end(4)).failure
    assert (error.kind, error.detail) == (FailureKind.UNREACHABLE, "task 'T': no route")
    error = findings(task("unreachable", "b", "no route"), recap(unreachable=("a", "b")), end(4)).failure
    assert (error.message, error.detail) == ("b could not be reached", "task 'T': no route; unreachable: a")


def test_a_playbook_that_cannot_start_names_file_and_line() -> None:
    shown = [line(text) for text in ("[ERROR]: no role 'x'", "Origin: /p/site.yml:2:11", "", "  ^ column 11")]
    error = findings(*shown, end(1)).failure
    assert (error.kind, error.detail) == (FailureKind.INPUT, "no role 'x' (/p/site.yml:2:11)")
    assert "column 11" in error.excerpt


def test_what_fails_on_the_way_did_not_fail_at_the_beginning() -> None:
    begun = {**task("start", "", ""), "task": "Try"}
    error = findings(begun, line("[ERROR]: strategy"), end(1)).failure
    assert error.message == "Ansible gave up"


def test_an_error_goes_on_in_the_next_line() -> None:
    shown = ("[ERROR]: Unable to retrieve file contents.", "Could not find or access '/p/no.yml'.", "If you are")
    assert findings(*map(line, shown), end(1)).failure.detail == f"{shown[0][9:]} {shown[1]}"
    shown = ("ERROR! no role 'x'", "", "The error appears to be in")
    assert findings(*map(line, shown), end(1)).failure.detail == "no role 'x'"


def test_a_child_that_died_is_a_tool_that_failed() -> None:
    assert findings(recap()).failure.kind is FailureKind.TOOL
    assert findings(line("x"), end(250)).failure.kind is FailureKind.TOOL


def test_a_death_has_no_cause_in_what_was_ignored_before() -> None:
    ignored = (line("[ERROR]: Task failed: no"), line("...ignoring"))
    assert "ended by a signal" in findings(*ignored, {"type": "end", "rc": None}).failure.detail
    assert findings(*ignored, line("pexpect.TIMEOUT"), line("")).failure.detail == "pexpect.TIMEOUT"
    assert findings(*ignored, line("[ERROR]: Unexpected"), line("x"), end(250)).failure.detail == "Unexpected x"


def inventory(
    tmp_path: Path, name: str = "demo", groups: dict[str, list[str]] | None = None, **hosts: Host
) -> InventoryEnvironment:
    return InventoryEnvironment(
        name=name,
        hosts=hosts or {"web": host()},
        ssh_key=tmp_path / "id",
        known_hosts=tmp_path / "known",
        ports={"web": (443, 80)},
        groups=groups or {},
    )


def host(address: str = "127.0.0.1", user: str = "deployer") -> Host:
    return Host(
        address=address,
        port=2222,
        user=user,
        ports=(PortForward(host=8080, machine=80),),
        id=None,
        console=None,
    )


def group(*hosts: str) -> dict[str, object]:
    """Of all hosts, it is ours alone that have the system's Python: others stand beside them in a user's inventory."""
    return {"hosts": [*hosts], "vars": {"ansible_python_interpreter": "/usr/bin/python3"}}


def test_host_variables(tmp_path: Path) -> None:
    data: Any = inventory_data([inventory(tmp_path)])
    assert data["env_demo"] == group("web")
    assert data["all"]["children"] == ["env_demo"]
    variables = data["_meta"]["hostvars"]["web"]
    assert variables["deployer_ports"] == [80, 443]
    assert variables["deployer_forwards"] == [{"host": 8080, "machine": 80}]
    assert variables["deployer_environment"] == "demo"
    assert (variables["ansible_host"], variables["ansible_port"], variables["ansible_user"]) == (
        "127.0.0.1", 2222, "deployer",
    )  # fmt: skip


def test_hosts_and_groups_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    data: Any = inventory_data([
        inventory(tmp_path, "my-shop", web=host(), db=host()), inventory(tmp_path, "db", web=host()),
        inventory(tmp_path, "3", cache=host()), inventory(tmp_path, "env-3", queue=host()),
        inventory(tmp_path, "env-shop", store=host()), inventory(tmp_path, "shop", shop=host()),
    ])  # fmt: skip
    assert data["env_my_shop"] == group("web.my-shop", "db")
    assert data["env_db"] == group("web.db")
    assert (data["env_3"], data["env_env_3"]) == (group("cache"), group("queue"))
    assert (data["env_env_shop"], data["env_shop"]) == (group("store"), group("shop"))
    assert set(data["_meta"]["hostvars"]) == {"web.my-shop", "db", "web.db", "cache", "queue", "store", "shop"}


def test_a_group_has_one_name_whatever_else_there_is(tmp_path: Path) -> None:
    alone: Any = inventory_data([inventory(tmp_path, "web", one=host())])
    among: Any = inventory_data([inventory(tmp_path, "web", one=host()), inventory(tmp_path, "other", web=host())])
    write_inventory(tmp_path / "hosts.json", inventory(tmp_path, "web", web=host()))
    assert alone["env_web"] == among["env_web"] == group("one")
    assert [*json.loads((tmp_path / "hosts.json").read_text())["all"]["children"]] == ["env_web"]


def test_the_users_own_groups(tmp_path: Path) -> None:
    """A host of the file that is not made yet is in none."""
    shop = inventory(
        tmp_path, "shop", {"one": ["web", "all_of_it"], "two": ["web"], "three": ["web"]}, one=host(), two=host()
    )
    test = inventory(tmp_path, "test", {"one": ["web"]}, one=host())
    data: Any = inventory_data([shop, test])
    assert data["web"] == {"hosts": ["one.shop", "two", "one.test"]}
    assert data["all_of_it"] == {"hosts": ["one.shop"]}
    assert data["all"]["children"] == ["env_shop", "web", "all_of_it", "env_test"]
    write_inventory(tmp_path / "hosts.json", shop)
    children = json.loads((tmp_path / "hosts.json").read_text())["all"]["children"]
    assert children["web"] == {"hosts": {"one": {}, "two": {}}}
    assert [*children["env_shop"]["hosts"]] == ["one", "two"]


def test_a_host_that_is_called_as_a_group_elsewhere(tmp_path: Path) -> None:
    """To Ansible `hosts: web` would be either."""
    shop = inventory(tmp_path, "shop", web=host())
    test = inventory(tmp_path, "test", {"one": ["web"]}, one=host())
    data: Any = inventory_data([shop, test])
    assert data["web"] == {"hosts": ["one"]}
    assert data["env_shop"]["hosts"] == [*data["_meta"]["hostvars"]][:1] == ["web.shop"]


@pytest.mark.parametrize("address", ["127.0.0.1", "web.example.com", "::1", "fe80::1%eth0", "2001:db8::7"])
def test_usual_addresses_are_taken(tmp_path: Path, address: str) -> None:
    assert inventory_data([inventory(tmp_path, web=host(address=address))])


def test_a_path_with_template_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="braces"):
        inventory_data([inventory(tmp_path / "{{ x }}")])


@pytest.mark.parametrize("directory", ["plain", "with space", "a'b", 'a"b', "100%", "back\\slash", "%h", "$HOME"])
def test_ssh_reads_our_paths_as_they_are(tmp_path: Path, directory: str) -> None:
    """The two readers a path passes: Ansible's shlex and ssh's own option parser, asked by `ssh -G`."""
    place = tmp_path / directory
    place.mkdir()
    data: Any = inventory_data([inventory(place)])
    variables = data["_meta"]["hostvars"]["web"]
    arguments = shlex.split(variables["ansible_ssh_common_args"])
    key = ["-o", f'IdentityFile="{variables["ansible_ssh_private_key_file"]}"']  # as Ansible's ssh plugin writes it
    shown = subprocess.run(
        ["ssh", "-F", "none", "-G", *key, *arguments, "127.0.0.1"], capture_output=True, text=True, timeout=20
    )
    assert shown.returncode == 0, shown.stderr
    options = dict(one.split(" ", 1) for one in shown.stdout.splitlines() if " " in one)
    # ssh -G shows percent signs before it expands them.
    assert options["userknownhostsfile"].replace("%%", "%") == str(place / "known")
    assert options["identityfile"].replace("%%", "%") == str(place / "id")
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert options["batchmode"] == "yes"


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_inventory(tmp_path / "a" / "hosts.json", inventory(tmp_path))
        write_private(tmp_path / "a" / "variables.json", {"secret": "x"})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert json.loads((tmp_path / "a" / "variables.json").read_text()) == {"secret": "x"}


def test_the_environment_is_an_allow_list(tmp_path: Path) -> None:
    inherited = {
        "PATH": "/bin", "HOME": str(tmp_path), "AWS_SECRET_ACCESS_KEY": "canary", "ANSIBLE_BECOME_PASSWORD": "canary",
        "https_proxy": "http://user:canary@proxy", "http_proxy": "http://proxy:3128", "LC_ALL": "xx_XX",
    }  # fmt: skip
    ours = playbook_environment(inherited, project=None, scratch=tmp_path, sockets=tmp_path)
    theirs = playbook_environment(inherited, project=tmp_path, scratch=tmp_path, sockets=tmp_path)
    for env in (ours, theirs):
        assert "canary" not in str(env)
        assert env["http_proxy"] == "http://proxy:3128"
        assert env["ANSIBLE_HOST_KEY_CHECKING"] == "True"
        assert env["ANSIBLE_PIPELINING"] == "yes"


def test_the_users_ansible_cfg_says_everything_but_to_ask(tmp_path: Path) -> None:
    (tmp_path / "ansible.cfg").touch()
    theirs = playbook_environment({}, project=tmp_path, scratch=tmp_path, sockets=tmp_path)
    assert not {"ANSIBLE_FORKS", "ANSIBLE_ROLES_PATH", "ANSIBLE_PIPELINING"} & set(theirs)
    assert {theirs[f"ANSIBLE_{what}"] for what in ("ASK_PASS", "ASK_VAULT_PASS", "BECOME_ASK_PASS")} == {"False"}
    ours = playbook_environment({}, project=None, scratch=tmp_path, sockets=tmp_path)
    assert ours["ANSIBLE_PIPELINING"] == "yes"


def test_the_users_paths_start_where_deployer_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    inherited = {"ANSIBLE_CONFIG": "ansible/ansible.cfg", "ANSIBLE_ROLES_PATH": "roles:~/roles"}
    project = tmp_path / "environments"
    theirs = playbook_environment(inherited, project=project, scratch=tmp_path, sockets=tmp_path)
    assert theirs["ANSIBLE_CONFIG"] == str(tmp_path / "ansible" / "ansible.cfg")
    assert theirs["ANSIBLE_ROLES_PATH"] == f"{tmp_path / 'roles'}:{Path.home() / 'roles'}"
    assert "ANSIBLE_CONFIG" not in playbook_environment(inherited, project=None, scratch=tmp_path, sockets=tmp_path)


@pytest.mark.parametrize("place", ["shell", "folder", "project", "home"])
def test_the_ssh_args_are_of_the_ansible_cfg_that_rules(tmp_path: Path, place: str) -> None:
    places = {name: tmp_path / name / "ansible.cfg" for name in ("shell", "folder", "project")}
    places["home"] = tmp_path / "home" / ".ansible.cfg"
    said = dict(zip(places, ("-o Port=1", "-o Port=2", "-o User=%r  ; mine", "-4"), strict=True))
    for name, path in [*places.items()][[*places].index(place) :]:
        path.parent.mkdir()
        path.write_text(f"[ssh_connection]\nssh_args = {said[name]}\n")
    named = {"shell": str(places["shell"]), "folder": str(tmp_path / "folder")}.get(place, str(tmp_path / "nowhere"))
    inherited = {"HOME": str(tmp_path / "home"), "ANSIBLE_CONFIG": named}
    env = playbook_environment(inherited, project=tmp_path / "project", scratch=tmp_path, sockets=Path("/s"))
    assert env["ANSIBLE_SSH_ARGS"] == "-o ControlPath=/s/%C " + said[place].partition("  ;")[0]


@pytest.mark.parametrize("text", ["", "[ssh_connection]\n", "no ini\n", "\xff"])
def test_without_ssh_args_of_the_users_connections_are_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "ansible.cfg").write_text(text, encoding="latin-1")
    env = playbook_environment({}, project=tmp_path, scratch=tmp_path, sockets=tmp_path)
    assert env["ANSIBLE_SSH_ARGS"].endswith(" -C -o ControlMaster=auto -o ControlPersist=60s")


@pytest.mark.parametrize("module", ["playbook", "child"])
def test_ansible_runner_and_what_else_is_slow_is_not_imported(module: str) -> None:
    slow = ("ansible_runner", "pydantic", "yaml")
    code = f"import sys, deployer.ansible.{module}; print([m for m in {slow} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.strip() == "[]"
