"""One QEMU process: its command line, its start, how it is known again, and its end. Knows nothing of OpenTofu.

A process is known by the machine's unique id on its command line and by its start time, never by its pid alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import host
from host import ProviderError
from image import Image

START_SECONDS = 60
POWER_OFF_SECONDS = 30
# In the machine's folder, which is QEMU's working directory: the path of a Unix socket may have 108 bytes at most.
SOCKET = "qmp.sock"
SERIAL_LOG = "serial.log"
QEMU_LOG = "qemu.log"
PID_FILE = "qemu.pid"
STATES = "runstate_set"
FIRMWARE = (
    "/opt/homebrew/share/qemu/edk2-aarch64-code.fd",
    "/usr/local/share/qemu/edk2-aarch64-code.fd",
    "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
)


@dataclass(frozen=True)
class Settings:
    """All that QEMU is told. `forwards` are pairs of (port here, port of the machine)."""

    name: str
    identity: str
    cpus: int
    memory: int
    image: Image
    forwards: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Process:
    """A process, safe from the reuse of its pid."""

    pid: int
    started: str

    def lives(self) -> bool:
        return start_time(self.pid) == self.started

    def kill(self) -> None:
        if self.lives():
            os.kill(self.pid, signal.SIGKILL)


class Ended(Exception):
    """QEMU gave up while it was starting; the text is its own last words."""


def command(settings: Settings) -> list[str]:
    """The whole command line. It holds nothing secret: any user of this computer can read it."""
    kind = host.architecture()
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:{here}-:{there}" for here, there in settings.forwards)
    argv = [host.emulator(), "-name", settings.name, "-uuid", settings.identity, "-machine", kind.machine]
    argv += [*host.acceleration().arguments, "-smp", str(settings.cpus), "-m", str(settings.memory)]
    argv += ["-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-pidfile", PID_FILE, "-qmp", f"unix:{SOCKET},server=on,wait=off"]
    # QEMU pauses a guest that cannot write, as on a full disk, and its process lives on: main.tf reads it in the log.
    argv += ["-trace", STATES]
    # append: the log of a boot that failed is still there after the next one.
    argv += ["-chardev", f"file,id=serial,path={SERIAL_LOG},append=on", "-serial", "chardev:serial"]
    argv += ["-drive", "file=disk.qcow2,format=qcow2,if=virtio,discard=unmap"]
    # QEMU itself makes a disk out of the folder, so no tool to write one is needed.
    argv += ["-drive", "file.driver=vvfat,file.dir=seed,file.label=cidata,format=raw,if=virtio,readonly=on"]
    argv += ["-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"]
    if settings.image.kernel:
        argv += ["-kernel", str(settings.image.kernel), "-initrd", str(settings.image.initrd)]
        argv += ["-append", f"root=/dev/vda rw console={kind.console} quiet"]
    elif kind.debian == "arm64":
        firmware = next((path for path in FIRMWARE if os.path.exists(path)), "")
        if not firmware:
            fix = "sudo apt install qemu-efi-aarch64    # on Debian or Ubuntu"
            raise ProviderError("there is no UEFI firmware for QEMU", fix)
        argv += ["-bios", firmware]
    return argv


def launch(settings: Settings, folder: Path) -> Process:
    """Start QEMU on its own and return once it answers. Ended with its last words if it does not."""
    with open(folder / QEMU_LOG, "wb") as log:
        # Its own session and nothing of ours: it outlives the command, holds no lock or pipe, knows no secret.
        child = subprocess.Popen(
            command(settings),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
    process = Process(child.pid, start_time(child.pid) or "")
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        if _ask(folder, "query-status"):
            return process
        time.sleep(0.05)
    if child.poll() is None:
        child.kill()
        child.wait()
    words = (folder / QEMU_LOG).read_text(encoding="utf-8", errors="replace").split("\n")
    words = [line for line in words if line.strip() and "warning:" not in line and STATES not in line]
    said = [line.partition(": ")[2] or line for line in words]
    raise Ended(said[-1] if said else f"status {child.returncode}, after at most {START_SECONDS} s, without a word")


def find(identity: str) -> list[Process]:
    """Every QEMU of this machine, whether or not its start was ever recorded."""
    if os.path.isdir("/proc/self"):
        listed = ((int(path.name), _arguments(path)) for path in Path("/proc").glob("[0-9]*"))
    else:
        rows = subprocess.run(["ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True).stdout
        listed = ((int(row.split()[0]), row.split()[1:]) for row in rows.splitlines())
    pids = [pid for pid, argv in listed if identity in argv and os.path.basename(argv[0]).startswith("qemu-system")]
    return [Process(pid, started) for pid in pids for started in [start_time(pid)] if started]


def works_below(pid: int, folder: Path) -> bool:
    """Whether a process is a QEMU whose working directory is, or was, somewhere below `folder`."""
    process = Path(f"/proc/{pid}")
    try:
        # Where it was deleted, words follow its name.
        below = os.readlink(process / "cwd").startswith(f"{folder}/")
        # Of one that is ending the command line is gone before its ports are.
        return below and (process / "comm").read_text(encoding="utf-8", errors="replace").startswith("qemu-system")
    except OSError:
        return False


def stop(process: Process, folder: Path, *, cleanly: bool) -> None:
    """End QEMU: by the guest's own power-off within a limit if `cleanly`, then by force. Fine if it is gone already.

    ProviderError if even the kernel does not end it.
    """
    if cleanly:
        deadline = time.monotonic() + POWER_OFF_SECONDS
        # A guest that is paused hears nothing. Where there is room again, it first writes what it could not.
        hears = _ask(folder, "cont")
        while hears and process.lives() and time.monotonic() < deadline:
            # Again and again: a guest that is still booting does not hear the button.
            if not _ask(folder, "system_powerdown"):
                break
            _wait(process, min(2.0, deadline - time.monotonic()))
        _ask(folder, "quit")
        _wait(process, 2)
    process.kill()
    if not _wait(process, 10):
        raise ProviderError(f"QEMU (pid {process.pid}) does not end", f"look at it: ps -fp {process.pid}")


def start_time(pid: int) -> str | None:
    """When a process began, in words that only that process has; None if it is not there or is only a zombie."""
    try:
        if os.path.isdir("/proc/self"):
            # After the name, which may hold anything: state first, the number of threads eighteenth, the start in clock
            # ticks since boot twentieth. One that is killed holds its disk until the last of its threads has ended.
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if fields[0] in "ZX" and int(fields[17]) <= 1 else fields[19]
    except (OSError, IndexError):
        return None
    row = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = row.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()


def _arguments(process: Path) -> list[str]:
    try:
        return (process / "cmdline").read_bytes().decode("utf-8", errors="replace").split("\0")
    except OSError:
        return [""]


def _wait(process: Process, seconds: float) -> bool:
    """Whether the process has gone within the time."""
    deadline = time.monotonic() + seconds
    while process.lives():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _ask(folder: Path, order: str) -> bool:
    """Give QEMU an order; whether it took it. A QEMU that is gone, hung or not yet listening did not."""
    home = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(3)
            monitor.connect(SOCKET)
            with monitor.makefile("rw", encoding="utf-8") as lines:
                lines.readline()  # the greeting
                for execute in ("qmp_capabilities", order):
                    lines.write(json.dumps({"execute": execute}) + "\n")
                    lines.flush()
                    # Events may come in between.
                    for line in lines:
                        if "return" in line or "error" in line:
                            break
                    else:
                        return False
                return True
    except OSError:
        return False
    finally:
        os.fchdir(home)
        os.close(home)
