"""A container as a test sees it: a context manager with an SSH address. How it is run is in `machine`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from tests.machines.container.image import ensure_image
from tests.machines.container.machine import MACHINES, Process, Record, reap

MODULE = Path(__file__).resolve().parent
"""The OpenTofu root module that makes such machines: a provider for `provider: {path: ...}`."""

__all__ = ["MODULE", "ContainerMachine", "reap"]

CLOUD_CONFIG = """\
#cloud-config
locale: false
users:
  - name: {user}
    shell: /bin/bash
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    ssh_authorized_keys: ["{key}"]
"""


@dataclass(frozen=True)
class ContainerMachine:
    """A systemd container with real cloud-init and sshd on a forwarded port of 127.0.0.1.

    `with ContainerMachine(public_key, private_key) as machine:` gives one that has finished cloud-init, and
    removes it afterwards. `start` and `stop` are for tests that look at it on the way.
    """

    public_key: str
    private_key: Path
    name: str = "machine"
    user: str = "deployer"
    user_data: str | None = None  # a whole cloud-config in place of ours
    forward: Mapping[int, int] = field(default_factory=dict)  # the machine's port: ours, 0 being any free one
    cloud_init: str = "enabled"  # disabled, absent
    ssh_mode: str = "works"  # closed, silent
    directory: Path = field(default_factory=lambda: MACHINES / uuid.uuid4().hex[:12])

    def start(self) -> None:
        """Switches it on and returns at once; machines that killed runs have left are removed first."""
        reap()
        key = self.public_key.strip()
        spec = {
            "image": str(ensure_image()),
            "name": self.name,
            "user_data": self.user_data or CLOUD_CONFIG.format(user=self.user, key=key),
            "ssh_public_key": key,
            "user": self.user,
            "forward": [{"host": ours, "machine": theirs} for theirs, ours in self.forward.items()],
            "cloud_init": self.cloud_init,
            "ssh": self.ssh_mode,
            "owner": os.getpid(),
        }
        # A process of its own, so that the machine is nobody's child here and no zombie stays.
        self._run("start", stdin=json.dumps(spec))

    def stop(self) -> None:
        self._run("stop")

    def wait(self, seconds: float = 60) -> None:
        """Returns once cloud-init has ended, well or badly; RuntimeError where SSH does not let us in."""
        deadline = time.monotonic() + seconds
        while True:
            done = self.ssh("cloud-init status --wait >/dev/null 2>&1; true")
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no SSH in {seconds:.0f} s: {done.stderr}\n{self.console[-2000:]}")
            time.sleep(0.2)

    def ssh(self, command: str, *, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """A shell command run on the machine, as the user (who has sudo); 255 where SSH itself failed."""
        return subprocess.run(
            ["ssh", *self.ssh_options, "-p", str(self.port), f"{self.user}@{self.address}", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @property
    def ssh_options(self) -> list[str]:
        """For ssh and for Ansible; the host key is not checked, which is for others to test."""
        options = {
            "IdentityFile": self.private_key,
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": 5,
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
            "LogLevel": "ERROR",
        }
        return [part for name, value in options.items() for part in ("-o", f"{name}={value}")]

    @property
    def record(self) -> Record:
        record = Record.read(self.directory)
        if record is None:
            raise RuntimeError(f"{self.name} is not running")
        return record

    @property
    def address(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The port of 127.0.0.1 that is the machine's SSH."""
        return self.record.port

    @property
    def ports(self) -> dict[int, int]:
        """The machine's forwarded ports and ours."""
        return {int(theirs): ours for theirs, ours in self.record.ports.items()}

    @property
    def process(self) -> Process:
        """The machine itself: SIGKILL to its pid is a power cut."""
        return self.record.process

    @property
    def console(self) -> str:
        """All it has written on its console so far, cloud-init's output among it."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _run(self, verb: str, *, stdin: str = "") -> None:
        done = subprocess.run(
            [sys.executable, str(MODULE / "machine.py"), verb, str(self.directory)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"machine {self.name}: {verb} failed: {done.stderr.strip()}")

    def __enter__(self) -> ContainerMachine:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
