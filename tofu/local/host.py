"""What this computer offers: cache, tools, space, acceleration, ports. Knows nothing of images or machines."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]

GIB = 1024**3
PROBE_SECONDS = 5
TAKEN = "is taken"  # by whom cannot be seen
# As /proc/net has them: 127.0.0.1, 0.0.0.0, the same as mapped addresses, and at last ::, which may leave IPv4 alone.
MAPPED = "0000000000000000FFFF0000"
IN_THE_WAY = ("0100007F", "00000000", f"{MAPPED}0100007F", f"{MAPPED}00000000", "0" * 32)


class ProviderError(Exception):
    """A failure the user can act on: the cause, and what to do about it."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix


@dataclass(frozen=True)
class Architecture:
    """The guest is always of the host's own kind; these are QEMU's and Debian's words for it."""

    debian: str
    emulator: str
    emulator_package: str
    machine: str
    console: str


@dataclass(frozen=True)
class Acceleration:
    """How guests run here: QEMU's arguments for it, and why."""

    arguments: tuple[str, ...]
    reason: str


def architecture() -> Architecture:
    """The architecture of this computer. ProviderError where no Debian machine can be run."""
    kind = platform.machine().lower()
    if kind in ("x86_64", "amd64"):
        return Architecture("amd64", "qemu-system-x86_64", "qemu-system-x86", "q35", "ttyS0")
    if kind in ("arm64", "aarch64"):
        return Architecture("arm64", "qemu-system-aarch64", "qemu-system-arm", "virt", "ttyAMA0")
    raise ProviderError(f"the local provider knows no machines for {kind}", "use another provider on this computer")


def cache_directory() -> Path:
    """The root of deployer's caches, made if need be: $DEPLOYER_CACHE, else deployer/ in the user's cache."""
    chosen = os.environ.get("DEPLOYER_CACHE", "")
    path = expanded(chosen or f"{os.environ.get('XDG_CACHE_HOME', '') or '~/.cache'}/deployer", "set DEPLOYER_CACHE")
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ProviderError(f"cannot make the cache {path}: {error.strerror}", "set DEPLOYER_CACHE") from error
    return path.resolve()


def expanded(path: str, instead: str) -> Path:
    """The path with the user's home for a ~ at its beginning. ProviderError, with what to do, where that is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ProviderError(f"HOME is not set, so {path} is nowhere", f"set HOME, or {instead}") from error


def tool(name: str, package: str) -> str:
    """The path of a program. ProviderError naming the package to install."""
    found = shutil.which(name)
    if not found:
        fix = f"sudo apt install {package}    # on Debian or Ubuntu"
        if sys.platform == "darwin":
            fix = "brew install qemu" if name.startswith("qemu") else f"{name} is not available on macOS"
        raise ProviderError(f"{name} is not installed", fix)
    return found


def emulator() -> str:
    kind = architecture()
    return tool(kind.emulator, kind.emulator_package)


def qemu_img() -> str:
    return tool("qemu-img", "qemu-utils")


def need_space(path: Path, gib: float, purpose: str) -> None:
    """ProviderError unless `gib` GiB are free where `path` is."""
    free = shutil.disk_usage(path).free / GIB
    if free < gib:
        raise ProviderError(
            f"{purpose} needs {gib:.1f} GiB, and {path} has {free:.1f} GiB free",
            "free some space there, or set DEPLOYER_CACHE and the deployer home to a larger disk",
        )


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` whole: a reader sees the old text or the new one."""
    # Of each process its own: machines that are started side by side write the same record of the cache.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def acceleration() -> Acceleration:
    """KVM or HVF where a probe shows that it runs a guest, software emulation otherwise; asked once for each boot."""
    software = ("-accel", "tcg,thread=multi", "-cpu", "max")
    name = "hvf" if sys.platform == "darwin" else "kvm"
    if name == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
        there = "not allowed for this user" if os.path.exists("/dev/kvm") else "not there"
        return Acceleration(software, f"software emulation (slow): /dev/kvm is {there}")
    remembered = cache_directory() / "acceleration.json"
    boot = _boot()
    try:
        record = json.loads(remembered.read_text(encoding="utf-8"))
        works = bool(record["works"]) if record["boot"] == boot else None
    except (OSError, ValueError, KeyError, TypeError):
        works = None
    if works is None:
        works = _runs_a_guest(name)
        write_atomically(remembered, json.dumps({"boot": boot, "works": works}))
    if works:
        return Acceleration(("-accel", name, "-cpu", "host"), f"{name} runs guests")
    return Acceleration(software, f"software emulation (slow): {name} does not run a guest here")


def _boot() -> str:
    """What stays the same until this computer, its kernel or its QEMU changes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        command = ["sysctl", "-n", "kern.bootsessionuuid"]
        boot = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{boot} {os.path.getmtime(emulator())}"


def _runs_a_guest(accelerator: str) -> bool:
    """Run a guest of a few instructions that ends QEMU by itself: a device node alone promises nothing."""
    kind = architecture()
    with tempfile.TemporaryDirectory() as directory:
        guest = Path(directory, "guest")
        if kind.debian == "amd64":
            # mov dx, 0xf4; mov al, 0x10; out dx, al; hlt: the exit device makes it status 0x10 * 2 + 1.
            guest.write_bytes(bytes.fromhex("baf400b010eef4").ljust(510, b"\0") + b"\x55\xaa")
            boot = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
            boot += ["-drive", f"file={guest},format=raw,if=floppy,readonly=on"]
            expected = 33
        else:
            # mov w0, PSCI SYSTEM_OFF; hvc #0; b .
            guest.write_bytes(bytes.fromhex("000180520080b072020000d400000014"))
            boot, expected = ["-kernel", str(guest)], 0
        command = [emulator(), "-machine", kind.machine, "-accel", accelerator, "-cpu", "host", "-m", "64"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", *boot]
        try:
            ended = subprocess.run(
                command, capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return False
    return ended.returncode == expected


def port_problem(port: int) -> str | None:
    """Why nobody can listen on 127.0.0.1:port now, or None."""
    with socket.socket() as probe:
        # As QEMU does it: a connection that is only ending does not take the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except PermissionError:
            return "is reserved for root (choose one from 1024 up)"
        except OSError:
            pid = listener(port)
            return f"{TAKEN} by {_name(pid)} (pid {pid})" if pid else TAKEN
    return None


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def listener(port: int) -> int | None:
    """The process that listens on 127.0.0.1:port, or on all addresses, where the kernel lets us see it."""
    try:
        rows = [
            line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]
        ]
    except OSError:
        return None
    listening = {row[1]: f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    socket_ = next((listening[at] for address in IN_THE_WAY if (at := f"{address}:{port:04X}") in listening), "")
    for pid in filter(str.isdigit, os.listdir("/proc") if socket_ else ()):
        # It may be another user's, or end meanwhile.
        with suppress(OSError):
            for descriptor in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(descriptor) == socket_:
                        return int(pid)
    return None


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "a process that has just ended"
