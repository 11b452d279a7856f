"""Readiness against real sshd: each rung of the ladder, the time limits, the interrupts, and cloud-init."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from deployer.errors import FailureKind, Interrupted, StepFailed, ToolMissing
from deployer.events import Event, HostProgress, Notice
from deployer.process import Context, Deadline, Interrupts
from deployer.remote.cloud_init import CloudInit, CloudInitOutcome
from deployer.remote.readiness import Host, Rung, wait_cloud_init, wait_ssh
from deployer.remote.ssh import CALL, Target, read_keys, who_answers
from tests.machines import ContainerMachine, Fleet, FleetHost, KeyPair, make_key_pair
from tests.watching import until

pytestmark = pytest.mark.root

T = TypeVar("T")


@dataclass
class World:
    """The hosts, and what was reported while waiting for them."""

    directory: Path
    keys: KeyPair
    hosts: dict[str, FleetHost]
    events: list[Event] = field(default_factory=list)
    interrupts: Interrupts = field(default_factory=Interrupts)

    def target(self, name: str = "host1", *, port: int = 0) -> Target:
        host, console = self.hosts[name], self.directory / "console"
        console.write_text(f"\x1b[1mconsole of {name}\r\r\nlogin: ")
        return Target(
            name=name,
            address=host.address,
            port=port or host.port,
            user=host.user,
            private_key=self.keys.private,
            known_hosts=self.directory / "known_hosts",
            console=console,
        )

    @property
    def context(self) -> Context:
        return Context(os.environ, self.interrupts, self.events.append)

    def wait(self, *targets: Target, limit: float = 20, context: Context | None = None) -> None:
        wait_ssh(targets or (self.target(),), limit, context or self.context)

    def cloud_init(self, *, limit: float = 30, strict: bool = False, required: bool = True) -> CloudInit:
        found = wait_cloud_init(
            [self.target()],
            limit,
            self.context,
            strict=strict,
            required=required,
        )
        return found["host1"]

    def heard(self, rung: str) -> list[str]:
        return [e.answer for e in self.events if isinstance(e, HostProgress) and e.rung == rung]

    @property
    def notices(self) -> list[tuple[str, str]]:
        return [(e.level, e.message) for e in self.events if isinstance(e, Notice)]

    def until_heard(self, rung: str) -> None:
        until(lambda: bool(self.heard(rung)))

    def while_waiting(self, wait: Callable[[], T], *changes: tuple[str, Callable[[], object]]) -> T:
        """What `wait` gave, having done each change once its rung had been reported.

        The wait is in the other thread: a machine started by a thread ends with that thread.
        """
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(wait)
            for rung, change in changes:
                self.until_heard(rung)
                change()
            return waiting.result()


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    keys = make_key_pair(tmp_path)
    with Fleet(tmp_path / "fleet", keys.public_text).running(1) as hosts:
        yield World(tmp_path, keys, hosts)


def failure(world: World, *targets: Target, limit: float) -> StepFailed:
    with pytest.raises(StepFailed) as caught:
        world.wait(*targets, limit=limit)
    return caught.value


def test_a_host_that_is_up_takes_a_moment_and_its_key_is_pinned(world: World) -> None:
    began = time.monotonic()
    world.wait()
    assert time.monotonic() - began < 5
    assert world.heard("authenticate") == ["logged in"]
    assert read_keys(world.target().known_hosts, world.target().known_as) == {world.hosts["host1"].host_key}
    world.wait()  # against the pinned key
    assert len(world.target().known_hosts.read_text().splitlines()) == 1


def test_a_port_that_opens_late(world: World) -> None:
    host = world.hosts["host1"]
    host.stop()
    world.while_waiting(world.wait, ("connect", host.start))
    assert world.heard("connect") == ["Connection refused"]
    assert world.heard("authenticate") == ["logged in"]


def test_a_port_that_never_opens_is_named_with_the_end_of_the_console(world: World) -> None:
    world.hosts["host1"].stop()
    failed = failure(world, limit=1)
    assert failed.kind is FailureKind.UNREACHABLE
    assert failed.message == f"host1 does not accept connections at 127.0.0.2:{world.target().port}"
    assert re.fullmatch(r"at connect for \d+ s, limit 1 s; last answer: Connection refused", failed.detail)
    assert failed.excerpt == "[1mconsole of host1\nlogin:"


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 \x1b[2JBad\r\n"], ids=["silent", "another protocol"])
def test_a_port_that_is_not_ssh(world: World, greeting: bytes) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        held: list[socket.socket] = []

        def greet() -> None:
            while True:
                try:
                    held.append(listener.accept()[0])
                except OSError:
                    return
                held[-1].sendall(greeting)

        threading.Thread(target=greet, daemon=True).start()
        target = replace(world.target(), address="127.0.0.1", port=listener.getsockname()[1])
        failed = failure(world, target, limit=2)
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
    assert failed.kind is FailureKind.UNREACHABLE
    assert "does not answer as an SSH server" in failed.message
    assert failed.detail.startswith("at banner for ")
    assert "timed out during banner exchange" in failed.detail


@pytest.mark.parametrize("address", ["no.such.name.invalid", "a..b", "-oProxyCommand=false"])
def test_an_address_that_is_none(world: World, address: str) -> None:
    failed = failure(world, replace(world.target(), address=address), limit=0.5)
    assert failed.kind is FailureKind.UNREACHABLE
    assert "does not accept connections" in failed.message


def test_a_user_who_is_let_in_late(world: World) -> None:
    keys = world.hosts["host1"].directory / "authorized_keys"
    allowed = keys.read_text()
    keys.write_text("")
    world.while_waiting(world.wait, ("authenticate", lambda: keys.write_text(allowed)))
    refusal, success = world.heard("authenticate")
    assert "Permission denied (publickey)" in refusal
    assert success == "logged in"


def test_a_user_who_is_never_let_in_is_a_matter_of_authentication(world: World) -> None:
    (world.hosts["host1"].directory / "authorized_keys").write_text("")
    for known in (False, True):  # a pinned host is told from a changed one
        if known:
            with world.hosts["host1"].away():
                pass  # or OpenSSH 10 would count the failures of the first round, too
            world.target().known_hosts.write_text(
                f"[127.0.0.2]:{world.target().port} {world.hosts['host1'].host_key}\n"
            )
        failed = failure(world, limit=4)
        assert failed.kind is FailureKind.AUTHENTICATION
        assert failed.message.endswith("does not let root in")
        assert failed.detail.startswith("at authenticate for ")
        assert "Permission denied" in failed.detail
        assert f"'root' must exist and accept {world.keys.public}" in failed.detail
        assert not failed.help, "the command to go on with is put in where it is known"
        assert world.target().known_hosts.exists() == known  # nobody is pinned who never let us in


def test_who_was_refused_and_is_shut_out_then_is_still_a_matter_of_authentication(world: World) -> None:
    """As sshd does since OpenSSH 9.8, for a while, with who has failed too often (PerSourcePenalties)."""
    host = world.hosts["host1"]
    (host.directory / "authorized_keys").write_text("")
    with ExitStack() as over:

        def shut_out() -> None:
            host.stop()
            listener = over.enter_context(socket.create_server((host.address, host.port)))

            def hang_up() -> None:
                with suppress(OSError):
                    while True:
                        listener.accept()[0].close()

            threading.Thread(target=hang_up, daemon=True).start()
            over.callback(listener.shutdown, socket.SHUT_RDWR)

        failed = world.while_waiting(lambda: failure(world, limit=8), ("authenticate", shut_out))
    assert failed.kind is FailureKind.AUTHENTICATION
    assert "Permission denied" in failed.detail
    assert world.heard("banner") == []


def test_a_login_without_a_shell_is_told(world: World) -> None:
    keys = world.hosts["host1"].directory / "authorized_keys"
    keys.write_text('command="echo no account >&2; exit 1" ' + keys.read_text())
    failed = failure(world, limit=5)
    assert failed.kind is FailureKind.AUTHENTICATION
    assert "; last answer: exit 1 no account; " in failed.detail


def test_ssh_is_looked_for_where_the_environment_says(world: World) -> None:
    elsewhere = replace(world.context, environ={"PATH": str(world.directory)})
    with pytest.raises(ToolMissing, match="ssh was not found"):
        world.wait(context=elsewhere)


def test_answers_that_come_in_turn_are_told_once(world: World) -> None:
    """A machine that boots closes a connection or resets it, and a line for each change would tell nothing."""
    host = Host(world.target(), Deadline(60), threading.Semaphore(), world.context)
    turns: list[tuple[Rung, str]] = [("banner", "reset"), ("banner", "closed"), ("banner", "reset"), ("connect", "")]
    for rung, answer in (*turns, turns[0]):
        host.tell(rung, answer)
    assert world.heard("banner") == ["reset", "closed", "reset"]


def test_another_machine_at_the_address_is_told_from_ours(world: World) -> None:
    def who() -> str:
        return who_answers(world.target(), world.context)[0]

    until(lambda: who() == "ours")  # as nothing is pinned yet, it may be
    world.wait()
    assert who() == "ours"
    host = world.hosts["host1"]
    host.stop()
    assert who() == "nobody"
    host.new_host_key()
    host.start()
    until(lambda: who() == "another")


def test_a_changed_host_key_is_final(world: World) -> None:
    world.wait()
    host = world.hosts["host1"]
    host.stop()
    host.new_host_key()
    host.start()
    before = world.target().known_hosts.read_text()
    began = time.monotonic()
    failed = failure(world, limit=60)
    assert time.monotonic() - began < 10
    assert failed.kind is FailureKind.AUTHENTICATION
    assert "another host key" in failed.message
    command, mark, _ = failed.help.partition("    # ")
    assert (shlex.split(command)[:3], bool(mark)) == (["ssh-keygen", "-R", f"[127.0.0.2]:{host.port}"], True)
    assert world.target().known_hosts.read_text() == before


@pytest.mark.parametrize("fault", ["missing", "directory"])
def test_a_private_key_that_cannot_be_used_is_final(world: World, fault: str) -> None:
    key = world.keys.private
    key.unlink()
    if fault == "directory":
        key.mkdir()
    began = time.monotonic()
    failed = failure(world, limit=60)
    assert time.monotonic() - began < 5
    assert failed.kind is FailureKind.INPUT
    assert failed.detail.startswith(f"{key}: ")


def test_many_hosts_take_the_time_of_the_slowest(tmp_path: Path) -> None:
    keys = make_key_pair(tmp_path)
    with Fleet(tmp_path / "fleet", keys.public_text).running(5) as hosts:
        world = World(tmp_path, keys, hosts)
        slow = hosts["host3"]
        slow.stop()
        targets = [world.target(name) for name in hosts]

        def the_others_are_in() -> bool:
            return world.heard("authenticate").count("logged in") == len(hosts) - 1

        world.while_waiting(
            lambda: world.wait(*targets),
            ("connect", lambda: until(the_others_are_in)),
            ("connect", slow.start),
        )
        assert world.heard("authenticate") == ["logged in"] * len(hosts)
        assert len(world.target().known_hosts.read_text().splitlines()) == len(hosts)
        slow.stop()  # one that fails is told, and nobody waits for the rest
        assert failure(world, *targets, limit=5).message.startswith("host3 does not accept")


def test_more_hosts_than_we_may_have_files_open_are_asked_in_turns(
    world: World, tmp_path: Path, checkout: Path
) -> None:
    """All of them at once: "Too many open files", and folders that stayed in /tmp."""
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin" / "ssh"
    slow.write_text("#!/bin/sh\nexec sleep 0.3\n")
    slow.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    waiting = f"""
import os, resource, sys
from pathlib import Path
from deployer.process import Context, Interrupts
from deployer.remote.readiness import wait_ssh
from deployer.remote.ssh import Target

resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
key, known_hosts = Path({str(world.keys.private)!r}), Path({str(tmp_path / "known_hosts")!r})
at = {{"address": "127.0.0.1", "port": 9, "user": "u", "private_key": key, "known_hosts": known_hosts}}
wait_ssh([Target(name=f"host{{n}}", console=None, **at) for n in range(60)], 60, Context(os.environ, Interrupts()))
"""
    environ = {"PATH": f"{slow.parent}:/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(checkout)}
    argv = [sys.executable, "-c", waiting]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("rung", ["connect", "banner"])
def test_an_interrupt_is_answered_within_a_second(world: World, rung: str) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        if rung == "connect":
            silent.close()
        target = replace(world.target(), address="127.0.0.1", port=port)
        asked: list[float] = []

        def interrupt() -> None:
            time.sleep(0.5)  # somewhere in the middle of a wait
            asked.append(time.monotonic())
            world.interrupts.request()

        asking = threading.Thread(target=interrupt)
        asking.start()
        with pytest.raises(Interrupted, match="waiting for SSH"):
            world.wait(target, limit=60)
        assert time.monotonic() - asked[0] < 1.5
        asking.join()
    assert not [t for t in threading.enumerate() if t.name.startswith("wait-")]


# cloud-init: real sshd and ssh; cloud-init itself is a script that gives one answer after the other.

CLOUD_INIT = """#!/bin/sh
cd {directory} || exit 9
n=$(cat count 2>/dev/null || echo 0); n=$((n + 1)); echo $n > count
while [ ! -e answer.$n ]; do n=$((n - 1)); done
exec sh ./answer.$n "$@"
"""
TAIL = "#!/bin/sh\necho 'the end of cloud-init-output.log'\n"
RUNNING = {"status": "running", "extended_status": "running", "stage": "init"}
DONE = {"status": "done", "extended_status": "done", "errors": [], "recoverable_errors": {}}
ERROR = {"status": "error", "extended_status": "error - done", "errors": ["('locale',\n X('update-locale'))"]}
DEGRADED = {**DONE, "extended_status": "degraded done", "recoverable_errors": {"DEPRECATED": ["key is old"]}}


@dataclass(frozen=True)
class CloudInitScript:
    """Answers in turn, the last one for ever. An answer is JSON, or shell."""

    directory: Path

    def answers(self, *answers: Mapping[str, object] | str) -> None:
        for number, answer in enumerate(answers, 1):
            text = answer if isinstance(answer, str) else f"cat <<'END'\n{json.dumps(answer, indent=1)}\nEND\n"
            (self.directory / f"answer.{number}").write_text(text)


@pytest.fixture
def cloud_init(world: World) -> CloudInitScript:
    directory = world.directory / "cloud-init"
    directory.mkdir()
    for name, script in (("cloud-init", CLOUD_INIT), ("tail", TAIL)):
        (directory / name).write_text(script.format(directory=directory))
        (directory / name).chmod(0o755)
    _commands_from(world, f"PATH={directory}:$PATH")
    return CloudInitScript(directory)


def _commands_from(world: World, path: str) -> None:
    allowed = world.hosts["host1"].directory / "authorized_keys"
    allowed.write_text(
        f'command="{path}; export PATH; echo hello; eval $SSH_ORIGINAL_COMMAND" {world.keys.public_text}\n'
    )


def test_cloud_init_is_followed_to_its_end(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers({"status": "not started"}, RUNNING, {**RUNNING, "stage": "modules-final"}, DONE)
    assert world.cloud_init().outcome is CloudInitOutcome.DONE
    assert world.heard("cloud_init") == ["not started", "running (init)", "running (modules-final)", "done"]
    assert world.notices == []


def test_an_error_is_awaited_to_its_end_and_told_by_its_cause(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers({**ERROR, "extended_status": "error - running"}, ERROR)
    with pytest.raises(StepFailed) as caught:
        world.cloud_init()
    failed = caught.value
    assert (failed.kind, failed.message) == (FailureKind.CLOUD_INIT, "cloud-init failed on host1")
    assert failed.detail == "('locale', X('update-locale'))"
    assert failed.excerpt.endswith("the end of cloud-init-output.log")
    assert world.heard("cloud_init") == ["error - running", "error - done"]


def test_a_degraded_end_warns_or_fails_where_strict(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers(DEGRADED)
    assert world.cloud_init().causes == ("DEPRECATED: key is old",)
    assert world.notices == [("warning", "cloud-init on host1 is done, but degraded: DEPRECATED: key is old")]
    with pytest.raises(StepFailed, match="ended degraded on host1: DEPRECATED: key is old"):
        world.cloud_init(strict=True)


def test_disabled_and_absent_are_no_success(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers({"status": "disabled", "extended_status": "disabled"})
    for what in ("is disabled", "is not installed"):
        with pytest.raises(StepFailed, match=what) as caught:
            world.cloud_init()
        assert caught.value.kind is FailureKind.CLOUD_INIT
        world.events.clear()
        found = world.cloud_init(required=False)
        assert found.outcome in (CloudInitOutcome.DISABLED, CloudInitOutcome.ABSENT)
        assert world.notices == [("info", f"cloud-init is {found.outcome} on host1: skipped")]
        (cloud_init.directory / "cloud-init").unlink(missing_ok=True)


def test_an_old_version_is_told_and_a_status_that_dies_is_survived(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers("echo usage >&2; exit 2", "exit 1", DONE)
    assert world.cloud_init().outcome is CloudInitOutcome.DONE
    assert world.heard("cloud_init") == ["too old, no JSON", "done"]


def test_a_dropped_session_and_a_reboot_are_survived(world: World, cloud_init: CloudInitScript) -> None:
    host = world.hosts["host1"]
    # The session dies with the answer half given, as when the machine goes down.
    cloud_init.answers(RUNNING, "echo '{'; kill -9 $(ps -o ppid= -p $PPID)", RUNNING, DONE)
    world.wait()

    found = world.while_waiting(world.cloud_init, ("cloud_init", host.stop), ("connect", host.start))
    assert found.outcome is CloudInitOutcome.DONE


def test_one_that_is_never_over_is_told_by_its_last_answer(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers(RUNNING)
    with pytest.raises(StepFailed) as caught:
        world.cloud_init(limit=4)
    assert caught.value.kind is FailureKind.TIMEOUT
    assert re.fullmatch(r"at cloud_init for \d+ s, limit 4 s; last answer: running \(init\)", caught.value.detail)
    assert caught.value.excerpt.endswith("the end of cloud-init-output.log")


def test_a_status_that_hangs_is_bounded(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers("exec sleep 300")
    began = time.monotonic()
    with pytest.raises(StepFailed) as caught:
        world.cloud_init(limit=2)
    assert time.monotonic() - began < 30
    assert "last answer: no answer within" in caught.value.detail


def test_a_machine_that_is_very_slow_gets_the_time_it_needs(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers(f"sleep {CALL + 2:.0f}; echo '{json.dumps(DONE)}'")
    assert world.cloud_init(limit=120).outcome is CloudInitOutcome.DONE
    assert world.heard("cloud_init") == ["no answer within 20 s", "done"]


def test_a_machine_that_floods_us_is_survived(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers("head -c 3000000 /dev/zero | tr '\\0' 'x\\033'; echo", DONE)
    assert world.cloud_init().outcome is CloudInitOutcome.DONE
    assert all(len(answer) < 200 for answer in world.heard("cloud_init"))


def test_an_interrupt_leaves_no_ssh_behind(world: World, cloud_init: CloudInitScript) -> None:
    cloud_init.answers("exec sleep 300")
    asked: list[float] = []

    def interrupt() -> None:
        until((cloud_init.directory / "count").exists)
        asked.append(time.monotonic())
        world.interrupts.request()

    asking = threading.Thread(target=interrupt)
    asking.start()
    with pytest.raises(Interrupted, match="waiting for cloud-init"):
        world.cloud_init(limit=60)
    assert time.monotonic() - asked[0] < 1.5
    asking.join()
    assert not [t for t in threading.enumerate() if t.name.startswith("wait-")]
    assert not _ssh_clients_to(world.target().port)


def _ssh_clients_to(port: int) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == b"ssh" and str(port).encode() in words:
            found.append(directory.name)
    return found


# Real cloud-init, in containers.


def _machine(world: World, **settings: str) -> ContainerMachine:
    return ContainerMachine(world.keys.public_text, world.keys.private, **settings)  # type: ignore[arg-type]


def _target(world: World, machine: ContainerMachine) -> Target:
    return Target(
        name="machine",
        address=machine.address,
        port=machine.port,
        user=machine.user,
        private_key=world.keys.private,
        known_hosts=world.directory / "known_hosts",
        console=machine.directory / "console.log",
    )


def _ready(world: World, machine: ContainerMachine, *, required: bool = True) -> CloudInit:
    target = _target(world, machine)
    wait_ssh([target], 90, world.context)
    found = wait_cloud_init([target], 90, world.context, strict=False, required=required)
    return found["machine"]


USER_DATA = """#cloud-config
{more}
users:
  - {{name: deployer, shell: /bin/bash, sudo: "ALL=(ALL) NOPASSWD:ALL", ssh_authorized_keys: ["{key}"]}}
"""


# Tells that it was called. A machine that lost its power half a minute after it was ready had empty host keys: what the
# kernel had not written to the disk yet was gone, and sshd did not start any more.
SYNC = json.dumps(
    {"path": "/usr/local/bin/sync", "permissions": "0755", "content": "#!/bin/sh\ntouch /tmp/synced; exec /bin/sync\n"}
)


@pytest.mark.container
@pytest.mark.parametrize("case", ["done", "locale", "reboot", "absent", "disabled"])
def test_a_real_machine(world: World, case: str) -> None:
    more = {
        "done": f"locale: false\nwrite_files: [{SYNC}]",
        "locale": "locale: xx_XX.UTF-8",  # Debian from packages has no locale: update-locale fails
        "reboot": "locale: false\npower_state: {mode: reboot, delay: now}",
    }.get(case, "locale: false")
    machine = _machine(
        world,
        user_data=USER_DATA.format(more=more, key=world.keys.public_text),
        cloud_init=case if case in ("absent", "disabled") else "enabled",
    )
    machine.start()
    try:
        if case == "locale":
            with pytest.raises(StepFailed) as caught:
                _ready(world, machine)
            assert caught.value.kind is FailureKind.CLOUD_INIT
            assert "locale" in caught.value.detail
            assert "locale" in caught.value.excerpt
        elif case in ("absent", "disabled"):
            assert _ready(world, machine, required=False).outcome == case
        else:
            assert _ready(world, machine).outcome is CloudInitOutcome.DONE
        if case == "done":
            assert machine.ssh("test -e /tmp/synced").returncode == 0
        if case == "reboot":
            # The first boot's cloud-init was done as well; had that been called done, there would be one end only.
            ends = machine.ssh("sudo grep -c 'Cloud-init .* finished at' /var/log/cloud-init-output.log").stdout
            assert ends.strip() == "2"
    finally:
        machine.stop()
