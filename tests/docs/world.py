"""An environment that can be brought into trouble: the providers page's module, with knobs to make it hang and fail."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.docs.pages import CHECKOUT, read_page
from tests.docs.shell import Shell, free_port, left_running, stand_in

_SETTINGS = """\
name: {name}
provider: {{path: infra}}
hosts:
  web: {{ports: {{{port}: 80}}}}
cloud_init: false
configure:
  playbooks: [./before.yml, ./site.yml]
timeouts: {{ssh: 60}}
"""
_PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: {task}
      ansible.builtin.raw: "if [ -e {knob} ]; then . {knob}; fi"
      changed_when: false
"""


class World:
    """One project with one environment. A knob is a piece of shell that runs at some place, until it is taken away.

    `create`, `destroy` and `playbook` are such places; `hold` hangs one, `fail` makes one fail.
    """

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.name = f"demo-{secrets.token_hex(3)}"
        self.port = free_port()
        shell.renamed = {r"\bdemo\b(?!-)": self.name, r"\b8080\b": str(self.port)}
        self.project = shell.directory
        self.home = self.project / ".deployer" / "environments" / self.name
        self.tofu = self.home / "tofu"
        self.knobs = self.project / "knobs"
        self.knobs.mkdir()
        self.running: list[subprocess.Popen[bytes]] = []
        for block in read_page(CHECKOUT / "docs" / "providers.md").blocks:
            if block.file.startswith("infra/"):
                self._write(block.file, block.text)
        self.write_module()
        self._write(f"{self.name}.yml", _SETTINGS.format(name=self.name, port=self.port))
        for name in ("before", "site"):
            knob = self.knobs / ("playbook" if name == "site" else "before")
            self._write(f"{name}.yml", _PLAYBOOK.format(task=f"Do what {name} does", knob=knob))

    @property
    def file(self) -> Path:
        return self.project / f"{self.name}.yml"

    def write_module(self) -> None:
        """The module of the providers page, with the knobs, and with the process's number where `local` has it."""
        for file in ("start.sh", "stop.sh"):
            text = (self.project / "infra" / file).read_text()
            self._write(f"infra/{file}", text.replace("$FOLDER/pid", "$FOLDER/qemu.pid"))
        source = (self.project / "infra" / "start.sh").read_text()
        knob = f"if [ -e {self.knobs}/create ]; then . {self.knobs}/create; fi\n"
        self._write("infra/start.sh", source.replace("sshd=$(", knob + "sshd=$("))
        destroy = f"if [ -e {self.knobs}/destroy ]; then . {self.knobs}/destroy; fi; "
        module = (self.project / "infra" / "main.tf").read_text()
        self._write("infra/main.tf", module.replace('"sh -eu', f'"{destroy}sh -eu'))

    def hold(self, knob: str) -> None:
        (self.knobs / knob).write_text(
            f"touch {self.knobs}/reached; while [ -e {self.knobs}/{knob} ]; do sleep 0.1; done\n"
        )

    def fail(self, knob: str) -> None:
        (self.knobs / knob).write_text("echo 'there is no room' >&2; exit 1\n")

    def release(self) -> None:
        for knob in self.knobs.iterdir():
            knob.unlink()

    def run(self, command: str, *, code: int = 0) -> str:
        return self.shell.type(command if code == 0 else f"{command}    # exit code {code}")

    def until_held(self, command: str) -> subprocess.Popen[bytes]:
        """Starts a command and returns when it hangs at a knob."""
        child = self.start(command)
        self.wait(lambda: (self.knobs / "reached").exists(), child)
        return child

    def start(self, command: str) -> subprocess.Popen[bytes]:
        child = self.shell.start(command, self.project / "output")
        self.running.append(child)
        return child

    def output(self) -> str:
        return (self.project / "output").read_text(errors="replace")

    def wait(
        self, condition: Callable[[], object], child: subprocess.Popen[bytes] | None = None, *, limit: float = 120
    ) -> None:
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, self.output()
            assert child is None or child.poll() is None, self.output()
            time.sleep(0.05)

    def interrupt(self, child: subprocess.Popen[bytes]) -> None:
        """One Ctrl+C, and its end awaited."""
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130, self.output()
        self.release()

    def children(self) -> list[int]:
        """The tools at work, from the lock's record: what a killed deployer leaves behind."""
        line = (self.home / "environment.lock").read_bytes().split(b"\n")[0]
        return [int(child["pid"]) for child in json.loads(line.partition(b" ")[2])["children"]]

    def power_cut(self, child: subprocess.Popen[bytes]) -> None:
        """deployer, its tool and the tool's children end at the same instant, none with a last word."""
        groups = self.children()
        child.kill()
        for group in groups:
            os.killpg(group, signal.SIGKILL)
        child.wait()
        self.wait(lambda: not any(_alive(group) for group in groups))
        self.release()

    def state(self) -> str:
        return self.run("deployer status demo").strip()

    def facts(self) -> dict[str, object]:
        data: dict[str, object] = json.loads(self.run("deployer show demo --output json"))
        return data

    def servers(self) -> list[str]:
        """The environment's machines that run, whatever any file says."""
        containers = left_running(f"deployer-test-machines/{self.name}-")
        return [argv for argv in left_running(str(self.project)) if "sshd" in argv] + [
            argv for argv in containers if argv.startswith("systemd-nspawn")
        ]

    def in_containers(self, cloud_init: str) -> None:
        """From now on the machines are systemd containers with cloud-init."""
        text = self.file.read_text().replace("provider: {path: infra}", "provider: local")
        self.file.write_text(text.replace("cloud_init: false", f"cloud_init: {cloud_init}"))
        stand_in(self.shell)

    def close(self) -> None:
        self.release()
        for child in self.running:
            if child.poll() is None:
                child.kill()
                child.wait()

    def _write(self, name: str, text: str) -> None:
        path = self.project / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
