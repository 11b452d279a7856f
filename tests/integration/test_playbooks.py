"""Each bundled playbook, run by the real ansible-playbook on a real machine: it works, and a second run is idle.

The machine is a container. Not covered here: that Docker starts a container (this container may not make control
groups), and that a firewall holds on another kernel than ours.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.machines import ContainerMachine, make_key_pair

pytestmark = [pytest.mark.container, pytest.mark.network, pytest.mark.timeout(240)]

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
DECLARED, UNDECLARED = 8080, 9999


@dataclass(frozen=True)
class Run:
    """What ansible-playbook said of the one host."""

    code: int
    changed: int
    output: str


@dataclass(frozen=True)
class Operator:
    """Somebody with ansible-playbook, an inventory and one machine."""

    machine: ContainerMachine
    directory: Path

    def play(self, name: str, **variables: object) -> Run:
        inventory = self.directory / "inventory.json"
        host = {
            "ansible_host": self.machine.address,
            "ansible_port": self.machine.port,
            "ansible_user": self.machine.user,
            "ansible_ssh_common_args": " ".join(self.machine.ssh_options),
            "ansible_pipelining": True,
            "ansible_python_interpreter": "/usr/bin/python3",
            # As inventory variables: a playbook's defaults must not win over them.
            **variables,
        }
        inventory.write_text(json.dumps({"all": {"hosts": {self.machine.name: host}}}))
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, PLAYBOOKS / f"{name}.yml"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCAL_TEMP": str(self.directory / "ansible")},
            text=True,
        )
        changed = re.search(r"changed=(\d+)", done.stdout)
        return Run(done.returncode, int(changed[1]) if changed else -1, done.stdout)

    def settle(self, name: str, **variables: object) -> None:
        """The playbook changes something, and then nothing more."""
        first = self.play(name, **variables)
        assert first.code == 0, first.output
        assert first.changed > 0, first.output
        second = self.play(name, **variables)
        assert (second.code, second.changed) == (0, 0), second.output

    def succeed(self, command: str) -> str:
        done = self.machine.ssh(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def page(self, machine_port: int) -> str | None:
        """What an HTTP server on the machine answers to us out here; None where nothing comes."""
        url = f"http://127.0.0.1:{self.machine.ports[machine_port]}/"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return None


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    directory = tmp_path_factory.mktemp("operator")
    key = make_key_pair(directory)
    forward = {80: 0, DECLARED: 0, UNDECLARED: 0}
    with ContainerMachine(key.public_text, key.private, name="web1", forward=forward) as machine:
        yield Operator(machine, directory)


@pytest.fixture(autouse=True)
def open_again(operator: Operator) -> Iterator[None]:
    """No test finds the firewall of another."""
    yield
    operator.machine.ssh("sudo systemctl stop deployer-firewall.service")


@pytest.fixture
def without_lists(operator: Operator) -> None:
    """As a minimal image is: no package lists, in a directory that looks as fresh as can be."""
    operator.succeed("sudo rm -rf /var/lib/apt/lists && sudo mkdir /var/lib/apt/lists")


@pytest.mark.usefixtures("without_lists")
def test_base_installs_its_tools(operator: Operator) -> None:
    operator.settle("base")
    operator.succeed("curl --version && htop --version && nano --version")


@pytest.mark.usefixtures("without_lists")
def test_base_installs_what_it_is_told(operator: Operator) -> None:
    operator.settle("base", base_packages=["tree"])
    operator.succeed("tree --version")


@pytest.mark.usefixtures("without_lists")
def test_security_updates_are_on(operator: Operator) -> None:
    operator.settle("security_updates", security_updates_reboot=True, security_updates_reboot_time="04:30")

    settings = operator.succeed("apt-config dump")
    assert 'APT::Periodic::Update-Package-Lists "1";' in settings
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:30";' in settings
    operator.succeed("systemctl is-active apt-daily.timer apt-daily-upgrade.timer")
    operator.succeed("sudo unattended-upgrade --dry-run")  # it can read all that


def test_security_updates_are_switched_on_again(operator: Operator) -> None:
    operator.succeed("sudo systemctl disable --now apt-daily-upgrade.timer")

    operator.settle("security_updates")

    operator.succeed("systemctl is-enabled apt-daily-upgrade.timer && systemctl is-active apt-daily-upgrade.timer")


@pytest.mark.usefixtures("without_lists")
def test_docker_runs(operator: Operator) -> None:
    operator.settle("docker")

    operator.succeed("systemctl is-enabled docker.service && systemctl is-active docker.service")
    operator.succeed("tar -C /etc -c hostname | sudo docker import - pages && sudo docker image inspect pages")
    operator.succeed("sudo docker-compose version")


@pytest.mark.usefixtures("without_lists")
def test_web_serves_the_page(operator: Operator) -> None:
    operator.settle("web", greeting="Grüße & <hello>", deployer_environment="demo")
    page = operator.page(80)
    assert page is not None
    assert "Grüße &amp; &lt;hello&gt;" in page
    assert "web1" in page
    assert "demo" in page

    operator.settle("web")  # the greeting is gone: its default is back

    page = operator.page(80)
    assert page is not None
    assert "Hello" in page
    assert "demo" not in page


def test_web_comes_back_when_it_was_stopped(operator: Operator) -> None:
    operator.play("web")
    operator.succeed("sudo systemctl disable --now deployer-web.service")
    assert operator.page(80) is None

    operator.settle("web")

    assert operator.page(80) is not None


@pytest.fixture
def listeners(operator: Operator) -> Iterator[None]:
    """Something answers on both ports, and nothing stands in front of it."""
    for port in (DECLARED, UNDECLARED):
        operator.succeed(
            f"sudo systemd-run --quiet --unit=listener{port} python3 -m http.server --directory /srv {port}"
        )
    deadline = time.monotonic() + 20
    while not (operator.page(DECLARED) and operator.page(UNDECLARED)):
        assert time.monotonic() < deadline, "the listeners do not answer"
        time.sleep(0.1)
    yield
    operator.machine.ssh(f"sudo systemctl stop listener{DECLARED} listener{UNDECLARED}")  # gone after a reboot


@pytest.mark.usefixtures("without_lists", "listeners")
def test_firewall_closes_what_is_not_declared(operator: Operator) -> None:
    operator.settle("firewall", deployer_ports=[80, DECLARED])

    assert operator.page(DECLARED) is not None
    assert operator.page(UNDECLARED) is None
    assert "tcp dport { 22, 80, 8080 } accept" in operator.succeed("sudo nft list table inet deployer")

    boot = operator.succeed("cat /proc/sys/kernel/random/boot_id")
    operator.machine.ssh("sudo systemd-run --quiet --on-active=0.1s systemctl reboot")
    deadline = time.monotonic() + 60
    while operator.machine.ssh("cat /proc/sys/kernel/random/boot_id").stdout in {"", boot}:
        assert time.monotonic() < deadline, "the machine did not come back"
        time.sleep(0.2)
    assert "tcp dport { 22, 80, 8080 } accept" in operator.succeed("sudo nft list table inet deployer")


@pytest.mark.usefixtures("listeners")
def test_firewall_keeps_open_connections_and_other_tables(operator: Operator) -> None:
    operator.succeed("sudo apt-get install -qq -y nftables >/dev/null && sudo nft add table ip somebodys")
    ssh = ["ssh", *operator.machine.ssh_options, "-p", str(operator.machine.port)]
    session = subprocess.Popen(
        [*ssh, f"{operator.machine.user}@{operator.machine.address}", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        session.stdin.write("before\n")
        assert session.stdout.readline() == "before\n"

        assert operator.play("firewall").code == 0

        session.stdin.write("after\n")
        assert session.stdout.readline() == "after\n"
        assert operator.page(DECLARED) is None
        assert "table ip somebodys" in operator.succeed("sudo nft list tables")
    finally:
        session.kill()
        session.communicate()


def test_firewall_does_not_lock_us_out_by_a_wrong_ssh_port(operator: Operator) -> None:
    done = operator.play("firewall", deployer_ssh_port=2222)
    assert done.code == 0, done.output
    assert "tcp dport { 22, 2222 } accept" in operator.succeed("sudo nft list table inet deployer")


def test_firewall_refuses_an_impossible_port_and_leaves_the_rules(operator: Operator) -> None:
    operator.play("firewall", deployer_ports=[DECLARED])
    before = operator.succeed("sudo nft --stateless list ruleset")

    failed = operator.play("firewall", deployer_ports=[99999])

    assert failed.code == 2, failed.output
    assert operator.succeed("sudo nft --stateless list ruleset") == before


def test_firewall_is_put_back_when_somebody_removed_it(operator: Operator) -> None:
    operator.play("firewall", deployer_ports=[DECLARED])
    operator.succeed("sudo nft flush ruleset")

    operator.settle("firewall", deployer_ports=[DECLARED])

    assert "tcp dport { 22, 8080 } accept" in operator.succeed("sudo nft list table inet deployer")
