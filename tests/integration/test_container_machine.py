"""The machines that other tests stand on: they are what they claim to be, fail when told to, and leave nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.machines import MODULE, ContainerMachine, Fleet, KeyPair, make_key_pair, reap
from tests.machines.container.machine import CGROUPS, MACHINES, Record

pytestmark = [pytest.mark.container, pytest.mark.timeout(180)]

SEARCH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # `make setup` puts tofu beside our Python
FOUND = [shutil.which(name, path=SEARCH) for name in ("tofu", "terraform")]
ENGINES = [engine for engine in FOUND if engine] or ["tofu"]  # without any the tests shall fail, not vanish

FAILING = """\
#cloud-config
locale: false
users:
  - name: deployer
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    ssh_authorized_keys: ["{key}"]
runcmd:
  - [sh, -c, "echo the disk is on fire >&2; exit 3"]
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return make_key_pair(tmp_path_factory.mktemp("key"))


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the wait is over"
        time.sleep(0.05)


def answers(port: int) -> bytes | None:
    """What is said first on that port: None where nobody listens, b"" where it is closed again."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(3)
            return connection.recv(100)
    except ConnectionRefusedError:
        return None
    except ConnectionResetError:
        return b""


def nothing_is_left(directory: Path, record: Record) -> bool:
    groups = [tree / f"deployer-test-{directory.name}" for tree in CGROUPS]
    return not (
        directory.exists()
        or record.process.alive
        or record.network.alive
        or any(group.exists() for group in groups)
        or str(directory) in Path("/proc/self/mounts").read_text()
        or answers(record.port) is not None
    )


def test_it_is_a_machine_and_leaves_nothing(key: KeyPair) -> None:
    with ContainerMachine(key.public_text, key.private, name="web1") as machine:
        status = json.loads(machine.ssh("cloud-init status --format json").stdout)
        assert (status["status"], status["errors"]) == ("done", [])
        assert machine.ssh("hostname; sudo id -u; cat /proc/1/comm").stdout.split() == ["web1", "0", "systemd"]
        assert "Reached target" in machine.console
        record = machine.record
    assert nothing_is_left(machine.directory, record)
    machine.stop()  # once more is as good


def test_a_failing_cloud_init_is_a_real_one(key: KeyPair) -> None:
    with ContainerMachine(key.public_text, key.private, user_data=FAILING.format(key=key.public_text)) as machine:
        status = machine.ssh("cloud-init status --format json")
        assert json.loads(status.stdout)["status"] == "error"
        assert "the disk is on fire" in machine.ssh("sudo tail /var/log/cloud-init-output.log").stdout


def test_it_reboots(key: KeyPair) -> None:
    with ContainerMachine(key.public_text, key.private) as machine:
        boot = machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout
        machine.ssh("touch kept; sudo systemd-run --quiet --on-active=0.1s systemctl reboot")
        wait_for(lambda: machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout not in {"", boot})
        assert machine.ssh("ls").stdout == "kept\n"


def test_a_power_cut_leaves_no_process(key: KeyPair) -> None:
    with ContainerMachine(key.public_text, key.private) as machine:
        record = machine.record
        inside = str(machine.directory)
        os.kill(record.process.pid, signal.SIGKILL)
        wait_for(partial(is_gone, record))
        assert answers(record.port) is None
        assert inside not in Path("/proc/self/mounts").read_text()
    assert nothing_is_left(machine.directory, record)


def test_two_have_their_own_networks_and_services(key: KeyPair) -> None:
    one = ContainerMachine(key.public_text, key.private, name="one", forward={80: 0})
    two = ContainerMachine(key.public_text, key.private, name="two", forward={80: 0})
    with one, two:
        for machine in (one, two):
            machine.ssh("sudo systemd-run --quiet --unit=page sh -c 'cd /etc && exec python3 -m http.server 80'")
        for machine in (one, two):
            url = f"http://127.0.0.1:{machine.ports[80]}/hostname"
            command = ["curl", "-sS", "--retry", "20", "--retry-all-errors", "--retry-delay", "1", url]
            assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == machine.name
        one.ssh("sudo systemctl stop page")
        assert two.ssh("systemctl is-active page").stdout.strip() == "active"


@pytest.mark.parametrize(("mode", "said"), [("closed", b""), ("silent", None)])
def test_ssh_fails_as_told(key: KeyPair, mode: str, said: bytes | None) -> None:
    machine = ContainerMachine(key.public_text, key.private, ssh_mode=mode)
    machine.start()
    try:
        wait_for(lambda: "Reached target cloud-init.target" in plain(machine.console))
        if said is None:
            with pytest.raises(TimeoutError):
                answers(machine.port)
        else:
            assert answers(machine.port) == said
    finally:
        machine.stop()


def plain(console: str) -> str:
    return console.replace("\x1b[0m", "").replace("\x1b[0;1;39m", "")


@pytest.mark.parametrize("how", ["disabled", "absent"])
def test_without_cloud_init_the_user_is_there(key: KeyPair, how: str) -> None:
    with ContainerMachine(key.public_text, key.private, cloud_init=how) as machine:
        assert machine.ssh("sudo -n true").returncode == 0
        status = machine.ssh("cloud-init status --format json")
        if how == "disabled":
            assert json.loads(status.stdout)["status"] == "disabled"
        else:
            assert status.returncode == 127


def test_a_port_that_is_taken_is_told_and_nothing_is_left(key: KeyPair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        machine = ContainerMachine(key.public_text, key.private, forward={80: port})
        with pytest.raises(RuntimeError, match=str(port)):
            machine.start()
    assert not machine.directory.exists()


def test_the_next_run_removes_what_a_killed_one_left(key: KeyPair) -> None:
    program = (
        "import os, pathlib, sys; from tests.machines import ContainerMachine\n"
        "machine = ContainerMachine(sys.argv[1], pathlib.Path(sys.argv[2])); machine.start()\n"
        "print(machine.directory, flush=True); os.kill(os.getpid(), 9)"
    )
    root = MODULE.parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", program, key.public_text, str(key.private)], cwd=root, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    directory = Path(killed.stdout.strip())

    # Unless another test process that started a machine meanwhile has done it.
    record = Record.read(directory)
    reap()

    wait_for(lambda: not directory.exists())
    assert record is None or nothing_is_left(directory, record)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: Path(engine).name)
def test_the_module_keeps_the_provider_contract(key: KeyPair, tmp_path: Path, engine: str) -> None:
    root = Root(tmp_path / "tofu", engine, key)
    root.tofu("init")
    try:
        root.tofu("apply", "-auto-approve")
        hosts = json.loads(root.tofu("output", "-json", "hosts").stdout)
        assert set(hosts) == {"web", "db"}
        assert hosts["web"]["address"] == "127.0.0.1"
        assert hosts["web"]["user"] == "deployer"
        for name, host in hosts.items():
            wait_for(partial(answers_as, key, host, name))
        assert root.tofu("plan", "-detailed-exitcode").returncode == 0
        records = root.records()
        assert len(records) == 2

        root.tofu("destroy", "-auto-approve")

        assert all(nothing_is_left(directory, record) for directory, record in records.items())
    finally:
        root.tofu("destroy", "-auto-approve")


def test_the_module_destroys_what_is_gone_already(key: KeyPair, tmp_path: Path) -> None:
    root = Root(tmp_path / "tofu", ENGINES[0], key)
    root.tofu("init")
    root.tofu("apply", "-auto-approve")
    for directory, record in root.records().items():
        os.kill(record.process.pid, signal.SIGKILL)
        wait_for(partial(is_gone, record))
        subprocess.run([sys.executable, str(MODULE / "machine.py"), "stop", str(directory)], check=True)

    assert root.tofu("destroy", "-auto-approve").returncode == 0


def test_the_module_fails_as_told_and_is_mended_or_destroyed(key: KeyPair, tmp_path: Path) -> None:
    root = Root(tmp_path / "tofu", ENGINES[0], key)
    root.tofu("init")
    root.variables["apply_fails"] = ["web"]
    assert root.tofu("apply", "-auto-approve", check=False).returncode == 1
    assert [record.name for record in root.records().values()] == ["db"]

    root.variables["apply_fails"] = []
    root.tofu("apply", "-auto-approve")
    records = root.records()
    assert sorted(record.name for record in records.values()) == ["db", "web"]

    root.tofu("destroy", "-auto-approve")
    assert all(nothing_is_left(directory, record) for directory, record in records.items())


def answers_as(key: KeyPair, host: dict[str, str], name: str) -> bool:
    return ssh(key, host, "hostname") == name


def is_gone(record: Record) -> bool:
    return not (record.process.alive or record.network.alive)


def ssh(key: KeyPair, host: dict[str, str], command: str) -> str:
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
    target = ["-i", str(key.private), "-p", str(host["port"]), f"{host['user']}@{host['address']}"]
    return subprocess.run(["ssh", *options, *target, command], capture_output=True, text=True).stdout.strip()


class Root:
    """A copy of the module as an environment has it, and the engine run in it by hand."""

    def __init__(self, directory: Path, engine: str, key: KeyPair) -> None:
        shutil.copytree(MODULE, directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.directory = directory
        self.engine = engine
        config = FAILING.format(key=key.public_text).partition("runcmd")[0]
        self.variables: dict[str, object] = {
            "environment": f"test{os.getpid()}",
            "hosts": {"web": {"cpus": 1, "memory": 512, "ports": [{"host": 0, "machine": 80}]}, "db": {"cpus": 1}},
            "user_data": {"web": config, "db": config},
            "ssh_public_key": key.public_text,
            "owner": os.getpid(),
        }

    def tofu(self, verb: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        (self.directory / "terraform.tfvars.json").write_text(json.dumps(self.variables))
        command = [self.engine, verb, *([] if verb == "output" else ["-input=false"]), "-no-color", *arguments]
        done = subprocess.run(command, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def records(self) -> dict[Path, Record]:
        found = {path: Record.read(path) for path in MACHINES.glob(f"{self.variables['environment']}-*")}
        home = str(self.directory)
        return {path: record for path, record in found.items() if record and record.home == home}


def test_a_fleet_is_many_hosts(key: KeyPair, tmp_path: Path) -> None:
    with Fleet(tmp_path, key.public_text).running(3) as hosts:
        assert len({host.address for host in hosts.values()}) == 3
        for host in hosts.values():
            target = {"port": str(host.port), "user": host.user, "address": host.address}
            assert ssh(key, target, "echo $SSH_CONNECTION").split()[2:] == [host.address, str(host.port)]

        one = hosts["host1"]
        old = one.host_key
        one.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((one.address, one.port), 5)
        one.new_host_key()
        one.start()
        scanned = subprocess.run(
            ["ssh-keyscan", "-t", "ed25519", "-p", str(one.port), one.address], capture_output=True, text=True
        ).stdout
        assert one.host_key in scanned
        assert old not in scanned
    for host in hosts.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host.address, host.port), 5)
