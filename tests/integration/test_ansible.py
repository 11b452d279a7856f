"""Real Ansible against real sshd on loopback: what a playbook's end is told as, and what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from deployer.ansible.inventory import InventoryEnvironment, write_inventory
from deployer.ansible.playbook import PlaybookRun, kept_connections, run_playbook
from deployer.environment import Host
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Event, Notice, Output, TaskProgress
from deployer.files import write_private
from deployer.process import Context, Interrupts, ProcessIdentity, is_alive
from tests.machines.fleet import Fleet, FleetHost
from tests.machines.keys import KeyPair, make_key_pair
from tests.watching import command_lines, until

pytestmark = pytest.mark.root

VARIABLE = "canary-in-a-variable"
VAULTED = "canary-in-a-vault"
ENVIRONMENT = "canary-in-the-environment"


@dataclass
class Recorder:
    """Stands where the lock's record and the log are: remembers everything it is told."""

    events: list[Event] = field(default_factory=list)
    children: dict[str, ProcessIdentity] = field(default_factory=dict)
    ended: set[ProcessIdentity] = field(default_factory=set)

    def child_started(self, child: ProcessIdentity, doing: str) -> None:
        self.children[doing] = child

    def child_ended(self, child: ProcessIdentity) -> None:
        self.ended.add(child)

    def report(self, event: Event) -> None:
        self.events.append(event)

    def statuses(self, task: str) -> list[str]:
        return [event.status for event in self.events if isinstance(event, TaskProgress) and event.task == task]

    @property
    def output(self) -> str:
        return "\n".join(event.line for event in self.events if isinstance(event, Output))


@dataclass
class Site:
    """A project folder, an inventory of the fleet, and a workspace as a command has one."""

    base: Path
    hosts: dict[str, FleetHost]
    keys: KeyPair
    sockets: Path
    recorder: Recorder = field(default_factory=Recorder)
    interrupts: Interrupts = field(default_factory=Interrupts)
    timeout: float = 120

    def __post_init__(self) -> None:
        self.project = self.base / 'a "deep" project, 100%' / ("d" * 120)  # no Unix socket fits in there
        self.project.mkdir(parents=True)
        self.workspace = self.project / "run"
        self.workspace.mkdir(mode=0o700)
        self.known_hosts = self.project / "known_hosts"
        self.known_hosts.write_text("".join(f"[{h.address}]:{h.port} {h.host_key}\n" for h in self.hosts.values()))
        private = self.project / "id"
        private.write_text(self.keys.private.read_text())
        private.chmod(0o600)
        found = {
            name: Host(address=h.address, port=h.port, user=h.user, ports=(), id=None, console=None)
            for name, h in self.hosts.items()
        }
        demo = InventoryEnvironment(
            name="demo",
            hosts=found,
            ssh_key=private,
            known_hosts=self.known_hosts,
            ports={},
            groups={name: ["everyone"] for name in found},
        )
        write_inventory(self.project / "hosts.json", demo)
        write_private(self.project / "variables.json", {"password": VARIABLE, "place": str(self.base)})

    def request(self, playbook: Path) -> PlaybookRun:
        return PlaybookRun(
            step=f"playbook:{playbook.stem}",
            playbook=playbook,
            inventory=self.project / "hosts.json",
            variables=self.project / "variables.json",
            workspace=self.workspace,
            project=self.project,
            vault_password_file=None,
            timeout=self.timeout,
            sockets=self.sockets,
        )

    def playbook(self, tasks: str, head: str = "hosts: all\n  gather_facts: false", name: str = "site") -> PlaybookRun:
        path = self.project / f"{name}.yml"
        path.write_text(f"- {head}\n  tasks:\n{tasks}")
        return self.request(path)

    def run(self, request: PlaybookRun, **environ: str) -> str:
        context = Context({**os.environ, **environ}, self.interrupts, self.recorder.report, self.recorder)
        return run_playbook(request, context)

    def fail(self, request: PlaybookRun) -> StepFailed:
        with pytest.raises(StepFailed) as caught:
            self.run(request)
        return caught.value

    def processes(self) -> set[int]:
        """Whatever was started from here for this site; what runs on the machines has an environment of theirs."""
        found = set[int]()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                masters = os.fsencode(self.sockets) in (path / "cmdline").read_bytes()  # written over their environment
                if masters or os.fsencode(self.project) in (path / "environ").read_bytes():
                    found.add(int(path.name))
        return found

    def end_commands(self) -> None:
        """The machines' own ends of what a test broke off: ssh does not end them, as no ssh without a terminal does."""
        for path in self.base.glob("asleep-*"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, keys: KeyPair) -> Iterator[dict[str, FleetHost]]:
    with Fleet(tmp_path_factory.mktemp("fleet"), keys.public_text).running(2, first=30) as running:
        yield running


@pytest.fixture
def site(tmp_path: Path, hosts: dict[str, FleetHost], keys: KeyPair) -> Iterator[Site]:
    with kept_connections(os.environ) as sockets:
        made = Site(tmp_path, hosts, keys, sockets)
        yield made
    made.end_commands()
    until(lambda: not made.processes(), 5)


WRITE = """
    - name: Write
      copy: {content: "{{ password }}", dest: "{{ place }}/{{ inventory_hostname }}"}
"""


def test_a_playbook_does_its_work_and_the_second_time_none(site: Site) -> None:
    request = site.playbook(WRITE)
    first, second = site.run(request), site.run(request)
    assert (first, second) == ("ok=2 changed=2", "ok=2 changed=0")
    assert (site.base / "host1").read_text() == VARIABLE
    assert site.recorder.statuses("Write") == ["start", "changed", "changed", "start", "ok", "ok"]
    assert "changed: [host1]" in site.recorder.output
    assert "PLAY RECAP" in site.recorder.output
    assert set(site.recorder.children) == {"playbook:site", "ansible-playbook for playbook:site"}
    assert site.recorder.ended >= set(site.recorder.children.values())


def test_a_play_on_a_group_of_the_users(site: Site) -> None:
    assert site.run(site.playbook(WRITE, head="hosts: everyone:!host2\n  gather_facts: false")).startswith("ok=1 ")


def test_connections_are_kept_between_playbooks_and_closed_at_the_end(site: Site) -> None:
    with kept_connections(os.environ) as site.sockets:
        assert site.sockets.stat().st_mode & 0o777 == 0o700
        site.run(site.playbook(WRITE))
        assert len(list(site.sockets.iterdir())) == 2
        assert site.processes()
    until(lambda: not site.processes(), 5)
    assert not site.sockets.exists()


def test_the_users_ssh_args_count_and_the_sockets_are_ours(site: Site) -> None:
    elsewhere = f"{site.base}/%%C"
    ssh_args = f"-o Compression=yes -o ControlMaster=auto -o ControlPersist=1h -o ControlPath={elsewhere}"
    (site.project / "ansible.cfg").write_text(f"[ssh_connection]\nssh_args = {ssh_args}\ncontrol_path = {elsewhere}\n")
    with kept_connections(os.environ) as site.sockets:
        with command_lines() as seen:
            site.run(site.playbook(WRITE))
        assert any(b"Compression=yes" in words for words in seen)
        assert len(list(site.sockets.iterdir())) == 2
    until(lambda: not site.processes(), 5)
    assert not [path for path in site.base.iterdir() if path.is_socket()]


def test_each_play_has_the_facts_that_it_has_by_hand(site: Site) -> None:
    """Facts were kept, and a play that gathers a few of them first took the others from all that came later."""
    few = "- hosts: all\n  gather_subset: ['!all']\n  tasks: []\n"
    all_of_them = '- hosts: all\n  tasks: [{name: Use, debug: {msg: "{{ ansible_facts.memtotal_mb }}"}}]\n'
    for number, text in enumerate((few + all_of_them, all_of_them)):
        (site.project / f"{number}.yml").write_text(text)
        site.run(site.request(site.project / f"{number}.yml"))
    assert site.recorder.statuses("Use").count("ok") == 4


@pytest.mark.parametrize(
    ("tasks", "cause"),
    [
        ("command: ls /not-there", "ls: cannot access '/not-there': No such file or directory"),
        ("fail: {msg: no such luck}", "no such luck"),
        ("command: ls /not-there/{{ item }}\n      loop: [x]", "cannot access '/not-there/x'"),
        ("command: ls {{ password }}\n      no_log: true", "hidden, because the task has no_log"),
        ("command: ls {{ password }}", "ls: cannot access '{{ password }}'"),
        ("command: ls {{ nowhere }}", "'nowhere' is undefined"),
        ("assert: {that: 1 == 2}", "Assertion failed: 1 == 2"),
        ("include_role: {name: nowhere}", "he role 'nowhere' was not found in"),
        ("apt: {nonsense: 1}", "Unsupported parameters"),
    ],
)  # fmt: skip
def test_a_failing_task_is_told_in_one_line(site: Site, tasks: str, cause: str) -> None:
    error = site.fail(site.playbook(f"    - name: Break\n      {tasks}\n", head="hosts: host2\n  gather_facts: false"))
    assert error.kind is FailureKind.PLAYBOOK
    assert str(error).startswith("failed on host2: task 'Break': ")
    assert cause in error.detail
    assert "\n" not in error.detail
    assert VARIABLE not in json.dumps(error.as_dict()) + site.recorder.output


def test_rescued_and_ignored_failures_are_none(site: Site) -> None:
    tasks = """
    - name: Ignored
      command: "false"
      ignore_errors: true
    - block: [{name: Broken, command: "false"}]
      rescue: [{name: Mended, debug: {msg: fine}}]
"""
    assert site.run(site.playbook(tasks)) == "ok=4 changed=2"
    assert site.recorder.statuses("Ignored") == ["start", "ok", "ok"]


def test_an_unreachable_host_is_a_kind_of_its_own(site: Site, hosts: dict[str, FleetHost]) -> None:
    inventory = json.loads((site.project / "hosts.json").read_text())
    variables = inventory["all"]["children"]["env_demo"]["hosts"]["host1"]
    variables["ansible_port"] = 1
    (site.project / "hosts.json").write_text(json.dumps(inventory))
    error = site.fail(site.playbook(WRITE))
    assert error.kind is FailureKind.UNREACHABLE
    assert str(error).startswith("host1 could not be reached: task 'Write': ")
    assert "refused" in error.detail
    assert site.recorder.statuses("Write").count("changed") == 1


@pytest.mark.parametrize("setting", ["", "[ssh_connection]\nssh_args = {}\n"])
def test_a_changed_host_key_is_refused(site: Site, setting: str) -> None:
    """Whatever the user's ansible.cfg says: ssh takes the first value it is given, and ssh_args come first."""
    unsafe = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    (site.project / "ansible.cfg").write_text(setting.format(unsafe))
    lines = site.known_hosts.read_text().splitlines()
    swapped = lines[0].split()[0] + " " + " ".join(lines[1].split()[1:])
    site.known_hosts.write_text("\n".join([swapped, lines[1]]) + "\n")
    error = site.fail(site.playbook(WRITE))
    assert error.kind is FailureKind.UNREACHABLE
    assert "host1" in str(error)
    assert "Host key verification failed" in error.detail


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("- hosts: all\n  tasks:\n    - comand: ls\n", "couldn't resolve module/action 'comand'"),
        ("- hosts: all\n  roles: [nowhere]\n", "he role 'nowhere' was not found"),
        ("- hosts: [\n", "YAML parsing failed"),
        ("nothing: here\n", "list of plays"),
        ("- import_playbook: no-site.yml\n", "no-site.yml' on the Ansible Controller"),
    ],
)  # fmt: skip
def test_a_playbook_that_cannot_be_used_names_the_place(site: Site, text: str, cause: str) -> None:
    path = site.project / "site.yml"
    path.write_text(text)
    error = site.fail(site.request(path))
    assert error.kind is FailureKind.INPUT
    assert cause in error.detail
    assert "site.yml" in error.detail
    assert "process:" not in error.excerpt, "that line is for us"


def test_a_play_that_matches_no_host_is_told(site: Site) -> None:
    site.run(site.playbook(WRITE, head="hosts: database"))
    (notice,) = [event for event in site.recorder.events if isinstance(event, Notice)]
    assert (notice.level, "no host matched" in notice.message) == ("warning", True)


def test_nothing_waits_for_an_answer(site: Site) -> None:
    head = "hosts: host1\n  gather_facts: false\n  vars_prompt: [{name: answer, default: none given}]"
    site.run(site.playbook('\n    - debug: {msg: "{{ answer }}"}\n    - pause: {prompt: Really?}\n', head=head))
    assert "none given" in site.recorder.output


def test_nobody_is_asked_for_a_password(site: Site) -> None:
    asking = "[defaults]\nask_pass = True\nask_vault_pass = True\n[privilege_escalation]\nbecome_ask_pass = True\n"
    (site.project / "ansible.cfg").write_text(asking)
    site.timeout = 30
    assert site.run(site.playbook(WRITE)) == "ok=2 changed=2"
    tool, password, vault = Path(sys.executable).with_name("ansible-vault"), site.project / "pw", site.project / "v.yml"
    password.write_text("opens the vault")
    vault.write_text("vaulted: x\n")
    subprocess.run([tool, "encrypt", "--vault-password-file", password, vault], check=True, capture_output=True)
    error = site.fail(site.playbook(WRITE, head="hosts: all\n  gather_facts: false\n  vars_files: [v.yml]"))
    assert error.kind is FailureKind.INPUT
    assert "no vault secrets found" in error.detail


def test_an_error_is_told_in_no_colours(site: Site) -> None:
    (site.project / "ansible.cfg").write_text("[defaults]\nforce_color = True\nverbosity = 2\n")
    error = site.fail(site.playbook("    - no.such.module: {}\n"))
    assert "couldn't resolve module/action 'no.such.module'" in error.detail
    assert "[0;3" not in site.recorder.output


def test_the_projects_own_settings_count_for_its_playbooks(site: Site) -> None:
    (site.project / "ansible.cfg").write_text("[defaults]\nfilter_plugins = ./filters\n")
    (site.project / "filters").mkdir()
    plugin = "class FilterModule:\n    def filters(self):\n        return {'twice': lambda x: x * 2}\n"
    (site.project / "filters" / "twice.py").write_text(plugin)
    below = site.project / "playbooks"
    (below / "group_vars").mkdir(parents=True)
    (below / "group_vars" / "env_demo.yml").write_text("word: from-group-vars-\n")
    (below / "roles" / "say" / "tasks").mkdir(parents=True)
    (below / "roles" / "say" / "tasks" / "main.yml").write_text('- debug: {msg: "{{ word | twice }}"}\n')
    (below / "site.yml").write_text("- hosts: all\n  gather_facts: false\n  roles: [say]\n")
    site.run(site.request(below / "site.yml"))
    assert "from-group-vars-from-group-vars-" in site.recorder.output


@pytest.mark.parametrize(
    "setting",
    [
        "[inventory]\nenable_plugins = script, amazon.aws.aws_ec2",
        "[inventory]\nenable_plugins = script, ini",
        "[defaults]\nyaml_valid_extensions = .yml",
        "[inventory_plugin_yaml]\nyaml_valid_extensions = .yaml",
    ],
)
def test_the_machines_are_found_whatever_inventories_the_user_has(site: Site, setting: str) -> None:
    """They were passed over, with a warning that no host matched, and all was called configured."""
    (site.project / "ansible.cfg").write_text(f"{setting}\n")
    (site.project / "group_vars").mkdir()
    (site.project / "group_vars" / "env_demo.yml").write_text("mine: counts-too\n")
    assert site.run(site.playbook('    - debug: {msg: "{{ mine }}"}\n')) == "ok=2 changed=0"
    assert "counts-too" in site.recorder.output


def test_ansible_runs_in_the_environment_it_is_given(site: Site) -> None:
    playbook = site.playbook("    - debug: {msg: \"zone {{ lookup('env', 'TZ') }}\"}\n")
    site.run(playbook, TZ="Pacific/Chatham")
    assert "zone Pacific/Chatham" in site.recorder.output


def test_secrets_are_in_no_argument_artifact_or_event(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_TEST_TOKEN", ENVIRONMENT)
    password = site.project / "vault-password"
    password.write_text("opens the vault")
    vault = site.project / "vaulted.yml"
    vault.write_text(f"vaulted: {VAULTED}\n")
    tool = Path(sys.executable).with_name("ansible-vault")
    subprocess.run([tool, "encrypt", "--vault-password-file", password, vault], check=True, capture_output=True)
    tasks = """
    - name: Use both
      shell: cat > "$TARGET"; sleep 1
      args: {stdin: "{{ password }} {{ vaulted }}"}
      environment: {TARGET: "{{ place }}/used"}
    - name: Fail quietly
      command: "cat /{{ vaulted }}"
      no_log: true
"""
    head = "hosts: host1\n  gather_facts: false\n  vars_files: [vaulted.yml]"
    request = replace(site.playbook(tasks, head=head), vault_password_file=password)
    with command_lines() as seen:
        error = site.fail(request)
    assert (site.base / "used").read_text() == f"{VARIABLE} {VAULTED}\n"
    assert any(b"ansible-playbook" in words for words in seen)
    written = [path for path in site.workspace.rglob("*") if path.is_file()]
    assert any(path.name == "command" for path in written)
    everything = {
        "arguments": b"\0".join(words for words in seen if b"/bin/cat" not in words).decode(errors="replace"),
        "artifacts": "".join(path.read_text() for path in written if path != request.variables),
        "events": json.dumps([event.as_dict() for event in site.recorder.events]),
        "error": json.dumps(error.as_dict()) + error.excerpt,
    }
    # The failing command is `cat /SECRET` on the machine itself: that argument is the playbook's, not ours.
    everything["arguments"] = everything["arguments"].replace(f"cat\0/{VAULTED}", "")
    for where, text in everything.items():
        assert not [canary for canary in (VARIABLE, VAULTED, ENVIRONMENT) if canary in text], where
    assert {path.stat().st_mode & 0o077 for path in site.workspace.rglob("*") if not path.is_symlink()} == {0}


SLEEP = '\n    - name: Sleep\n      shell: "echo $$ > {{ place }}/asleep-{{ inventory_hostname }}; exec sleep 300"\n'


def asleep(site: Site) -> bool:
    return len(list(site.base.glob("asleep-*"))) == 2


@pytest.mark.parametrize("where", ["on the machines", "here"])
def test_a_stop_ends_ansible_and_all_its_own_within_seconds(site: Site, where: str) -> None:
    head = "hosts: all\n  gather_facts: false" + ("\n  connection: local" if where == "here" else "")
    stopped: list[float] = []

    def stop() -> None:
        until(lambda: asleep(site))
        stopped.append(time.monotonic())
        site.interrupts.request(signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with kept_connections(os.environ) as site.sockets, pytest.raises(Interrupted) as caught:
        site.run(site.playbook(SLEEP, head=head))
    took = time.monotonic() - stopped[0]
    thread.join()
    assert caught.value.exit_code == 143
    assert took < 5
    assert not any(map(is_alive, site.recorder.children.values()))
    until(lambda: not site.processes(), 5)


# A command here that finishes what it has begun, whether or not somebody reads what it says.
HEED = """
    - name: Heed
      shell: |
        trap '' PIPE
        trap 'echo stopping; touch "{{ place }}/asked"; sleep SECONDS; touch "{{ place }}/in-order"; exit' INT
        echo $$ > "{{ place }}/asleep-here"
        while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("by", ["the user", "the time limit"])
def test_what_a_playbook_runs_here_comes_to_an_orderly_end(site: Site, by: str) -> None:
    """It was killed at once: of a `tofu apply` a state without a byte was left."""
    site.timeout = 12 if by == "the time limit" else 60

    def stop() -> None:
        until(lambda: (site.base / "asleep-here").exists())
        if by == "the user":
            site.interrupts.request()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted if by == "the user" else StepFailed):
        site.run(site.playbook(HEED.replace("SECONDS", "1"), head="hosts: localhost\n  gather_facts: false"))
    thread.join()
    assert (site.base / "in-order").exists()
    until(lambda: not site.processes(), 5)


def outlived_by_a_command(site: Site, then: Callable[[ProcessIdentity], None]) -> None:
    """A playbook whose command here goes on when Ansible has ended at a first request; `then` is given our child."""

    def stop() -> None:
        until(lambda: (site.base / "asleep-here").exists())
        site.interrupts.request()
        until(lambda: (site.base / "asked").exists())
        playbook, child = (site.recorder.children[f"{who}playbook:site"] for who in ("ansible-playbook for ", ""))
        until(lambda: not is_alive(playbook))
        then(child)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupted):
        site.run(site.playbook(HEED.replace("SECONDS", "300"), head="hosts: localhost\n  gather_facts: false"))
    thread.join()
    assert not (site.base / "in-order").exists()


def test_a_second_request_ends_at_once_what_has_outlived_ansible(site: Site) -> None:
    ended: list[bool] = []

    def then(child: ProcessIdentity) -> None:
        time.sleep(0.5)
        ended.append(not is_alive(child))
        site.interrupts.request()

    outlived_by_a_command(site, then)
    assert ended == [False], "it is waited for until then"
    until(lambda: not site.processes(), 2)


@pytest.mark.parametrize("how", ["killed", "asked twice more"])
def test_what_has_outlived_ansible_ends_with_our_child(site: Site, how: str) -> None:
    """Only the child knew its process groups, and ansible-playbook was gone: it went on, on no record."""

    def then(child: ProcessIdentity) -> None:
        if how == "killed":
            os.kill(child.pid, signal.SIGKILL)
        else:
            site.interrupts.request()
            site.interrupts.request()

    outlived_by_a_command(site, then)
    until(lambda: not site.processes(), 30)
    assert not (site.base / "in-order").exists()


def test_a_time_limit_names_the_task(site: Site) -> None:
    site.timeout = 12  # a busy computer takes some seconds to the first task
    error = site.fail(site.playbook(SLEEP))
    assert error.kind is FailureKind.TIMEOUT
    assert "'Sleep'" in error.detail
    assert not any(map(is_alive, site.recorder.children.values()))


def killed_when_asleep(site: Site, doing: str) -> threading.Thread:
    def kill() -> None:
        until(lambda: asleep(site))
        os.kill(site.recorder.children[doing].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_killed_ansible_is_told_as_that(site: Site) -> None:
    thread = killed_when_asleep(site, "ansible-playbook for playbook:site")
    error = site.fail(site.playbook('\n    - command: "false"\n      ignore_errors: true\n' + SLEEP))
    thread.join()
    assert (error.kind, error.message) == (FailureKind.TOOL, "Ansible died")
    assert "ended by a signal" in error.detail


def test_a_killed_child_leaves_no_ansible_behind(site: Site) -> None:
    thread = killed_when_asleep(site, "playbook:site")
    error = site.fail(site.playbook(SLEEP))
    thread.join()
    assert error.kind is FailureKind.TOOL
    until(lambda: not any(map(is_alive, site.recorder.children.values())), 5)


def test_the_playbook_goes_on_when_its_parent_is_killed(site: Site) -> None:
    """A forked parent, so that it has the fixture; killed in the middle of a playbook of several tasks."""
    tasks = """
    - name: First
      shell: "touch {{ place }}/asleep-{{ inventory_hostname }}; sleep 3"
    - name: Say much
      debug: {msg: "{{ 'x' * 100000 }}"}
    - name: Last
      copy: {content: done, dest: "{{ place }}/last-{{ inventory_hostname }}"}
"""
    request = site.playbook(tasks)
    pid = os.fork()
    if pid == 0:
        try:
            site.run(request)
        finally:
            os._exit(0)
    until(lambda: asleep(site))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert site.processes()
    until(lambda: len(list(site.base.glob("last-*"))) == 2)
    until(lambda: list(site.workspace.glob("*/artifacts/run/rc")))
    (code,) = site.workspace.glob("*/artifacts/run/rc")
    until(lambda: code.read_text() == "0")


def test_many_hosts_and_items_leave_little_on_disk(tmp_path: Path, keys: KeyPair) -> None:
    with Fleet(tmp_path / "fleet", keys.public_text).running(20, first=60) as hosts:
        tasks = '\n    - name: Much\n      debug: {msg: "{{ item }}"}\n      loop: "{{ range(100) | list }}"\n'
        with kept_connections(os.environ) as sockets:
            site = Site(tmp_path, hosts, keys, sockets)
            recap = site.run(site.playbook(tasks + "    - name: There\n      ping:\n"))
    assert recap == "ok=40 changed=0"
    # Since ansible-core 2.20 there is a file of facts for each host, even where there are none.
    files = [path for path in site.workspace.rglob("*") if path.is_file() and path.parent.name != "fact_cache"]
    assert len(files) < 20
    assert sum(path.stat().st_size for path in files) < 50_000
