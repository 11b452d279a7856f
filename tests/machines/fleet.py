"""Several real sshd on loopback addresses of this computer: many hosts for the price of a few processes.

Whoever logs in is root on this computer, not in a machine: for reaching and waiting, not for configuring.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """\
ListenAddress {address}:{port}
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""


@dataclass
class FleetHost:
    """One sshd. Address and port outlive `stop`, `new_host_key` (a rebuilt machine) and `start`."""

    name: str
    address: str
    port: int
    directory: Path
    user: str = "root"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def host_key(self) -> str:
        """The public host key as a known_hosts line has it: type and text."""
        kind, key = (self.directory / "host_key.pub").read_text().split()[:2]
        return f"{kind} {key}"

    @property
    def log(self) -> str:
        return (self.directory / "sshd.log").read_text(errors="replace")

    def new_host_key(self) -> None:
        (self.directory / "host_key").unlink(missing_ok=True)
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / "host_key")]
        subprocess.run(command, check=True)

    def start(self, seconds: float = 10) -> None:
        """Returns when the port answers; RuntimeError with sshd's words where it does not."""
        config = self.directory / "sshd_config"
        config.write_text(CONFIG.format(address=self.address, port=self.port, directory=self.directory))
        with (self.directory / "sshd.log").open("ab") as log:
            # Dies with the test process, however that ends. The path must be absolute for sshd.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "/usr/sbin/sshd", "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), 1):
                return
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"sshd of {self.name} does not answer: {self.log}")

    @contextlib.contextmanager
    def away(self) -> Generator[None]:
        """Nobody answers meanwhile."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def another(self) -> Generator[None]:
        """Another machine answers meanwhile, by its host key."""
        files = [self.directory / "host_key", self.directory / "host_key.pub"]
        before = [file.read_bytes() for file in files]
        self.stop()
        self.new_host_key()
        self.start()
        try:
            yield
        finally:
            self.stop()
            for file, data in zip(files, before, strict=True):
                file.write_bytes(data)
            self.start()

    def stop(self) -> None:
        """Ends the listener; sessions that are open stay open."""
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._process = None


@dataclass(frozen=True)
class Fleet:
    """`with Fleet(directory, public_key).running(5) as hosts:` gives five of them, `host1` to `host5`."""

    directory: Path
    public_key: str

    @contextlib.contextmanager
    def running(self, count: int, *, first: int = 2) -> Generator[dict[str, FleetHost]]:
        """`count` answering hosts on 127.0.0.`first` and the next ones, each with its own port and host key."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd shuts its unprivileged half in
        hosts: dict[str, FleetHost] = {}
        try:
            for index in range(count):
                host = self._host(f"host{index + 1}", f"127.0.0.{first + index}")
                hosts[host.name] = host
                host.start()
            yield hosts
        finally:
            for host in hosts.values():
                host.stop()

    def _host(self, name: str, address: str) -> FleetHost:
        directory = self.directory / name
        directory.mkdir(mode=0o700, parents=True)
        (directory / "authorized_keys").write_text(self.public_key.strip() + "\n")
        with socket.socket() as probe:
            probe.bind((address, 0))
            port = int(probe.getsockname()[1])
        host = FleetHost(name, address, port, directory)
        host.new_host_key()
        return host
