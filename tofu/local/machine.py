"""The commands behind main.tf: a machine's folder and what is in it, from nothing to running and back.

start, remove       read the machine from $DEPLOYER_MACHINE (JSON); the folder is machines/NAME beside this file
image               make the cached base image ahead of time
check               what this computer has and lacks, as JSON
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host
import image
import qemu
from host import ProviderError

MACHINES = Path(__file__).resolve().parent / "machines"
PORT_ATTEMPTS = 5
ENDING_SECONDS = 5
EXAMPLE_PORT = 8080  # of the file that `deployer init` writes
BEGUN = "begun"  # the mark of a machine that has no record yet


@dataclass(frozen=True)
class Machine:
    """A machine as main.tf asks for it: `called` is its folder, as OpenTofu was led there.

    `identity` is OpenTofu's own id of it, new for each machine made; `promised` are the ports of all the environment.
    """

    name: str
    called: str
    identity: str
    environment: str
    cpus: int
    memory: int
    disk: int
    ports: tuple[tuple[int, int], ...]
    image: str
    born: str
    started: str
    promised: tuple[int, ...]

    @property
    def folder(self) -> Path:
        return MACHINES / self.name


def start(machine: Machine, user_data: str) -> None:
    """Bring the machine up on its disk, made if need be, whatever an earlier try has left. ProviderError if not."""
    parent = os.getppid()
    with _held(machine.folder):
        _begin(machine)
    host.emulator()
    _refuse_in_vain(machine)  # before an image is brought, which may take minutes
    base = _base_image(machine)
    with _held(machine.folder):
        if os.getppid() != parent:
            # OpenTofu was killed meanwhile: a machine made now would be in nobody's state.
            (machine.folder / BEGUN).unlink(missing_ok=True)
            _remove_if_empty(machine.folder)
            raise ProviderError("OpenTofu has gone", "run the command again")
        _refuse_in_vain(machine)
        before = _read(machine.folder / "machine.json").get("id")
        for known in {machine.identity, before or machine.identity}:
            _stop(known, machine.folder)
        if before != machine.identity:
            # Half of a machine, or one that OpenTofu did not live to write down.
            _empty(machine.folder)
            _begin(machine)
        facts = _disk_facts(base.disk)
        least = -(-facts["virtual-size"] // host.GIB)
        _make_disk(machine, base, facts["format"], least)
        _write_seed(machine, user_data)
        record = {"id": machine.identity, "born": machine.born, "disk": machine.disk, "base": _as_record(base)}
        record |= {"image": machine.image, "least": least}
        host.write_atomically(machine.folder / "machine.json", json.dumps(record))
        (machine.folder / BEGUN).unlink(missing_ok=True)
        process, forwards = _launch(machine, base)
        ports = [{"host": here, "machine": there} for here, there in forwards[1:]]
        reached = {"address": "127.0.0.1", "port": forwards[0][0], "ports": ports}
        host.write_atomically(machine.folder / "ports.json", json.dumps(reached))
        # Last: from now on main.tf takes the machine for running.
        running = {"pid": process.pid, "started": machine.started}
        running |= {"folder": str(machine.folder.resolve()), "called": machine.called}
        host.write_atomically(machine.folder / "running.json", json.dumps(running))
    _say(f"started (pid {process.pid}), SSH on 127.0.0.1:{forwards[0][0]}")


def remove(name: str, identity: str) -> None:
    """End the machine and delete its folder, whatever is left of either. ProviderError if something stays.

    A machine that works in another folder, of which this one is a copy, is left alone.
    """
    folder = MACHINES / name
    with _held(folder):
        for known in {identity, str(_read(folder / "machine.json").get("id", identity))}:
            _stop(known, folder)
        _empty(folder)
        _remove_if_empty(folder)
    _say("removed")


def check() -> list[dict[str, Any]]:
    """What a machine needs, each with what was found and how to mend it. Quick, and makes nothing."""
    return [
        _checked("qemu-system", host.emulator),
        _checked("qemu-img", host.qemu_img),
        _checked("image", _image_outlook),
        _checked("acceleration", lambda: host.acceleration().reason),
        _checked("disk space", _space_outlook),
        _checked("ports", _port_outlook),
    ]


def _begin(machine: Machine) -> None:
    """Keeps the mark of a machine that is yet to be made: by it main.tf knows, where that fails, that none is there."""
    if _read(machine.folder / "machine.json").get("id") != machine.identity:
        host.write_atomically(machine.folder / BEGUN, machine.born)


def _launch(machine: Machine, base: image.Image) -> tuple[qemu.Process, tuple[tuple[int, int], ...]]:
    """Start QEMU on ports that are free, the ones of last time if they still are."""
    last = _read(machine.folder / "ports.json")
    pairs = [(0, last.get("port", 0)), *((each["machine"], each["host"]) for each in last.get("ports", []))]
    again = {there: here for there, here in pairs if here not in machine.promised}
    _await_ports(machine)
    _say(f"starting QEMU, {host.acceleration().reason}: {machine.cpus} CPUs, {machine.memory} MiB, {machine.disk} GiB")
    for attempt in range(1, PORT_ATTEMPTS + 1):
        spare = iter(set(host.free_ports(len(machine.ports) + 1 + len(machine.promised))) - set(machine.promised))
        forwards = []
        for asked, there in ((0, 0), *machine.ports):
            old = again.get(there, 0)
            here = asked or (old if old and not host.port_problem(old) else next(spare))
            forwards.append((here, there or 22))
        settings = qemu.Settings(
            f"{machine.environment}-{machine.name}",
            machine.identity,
            machine.cpus,
            machine.memory,
            base,
            tuple(forwards),
        )
        try:
            return qemu.launch(settings, machine.folder), tuple(forwards)
        except qemu.Ended as error:
            for here, there in machine.ports:
                _refuse_taken(here, there)
            # Somebody may take a free port between our look and QEMU's; any other cause will not go away.
            if attempt == PORT_ATTEMPTS or not any(host.port_problem(here) for here, _ in forwards):
                log = machine.folder / qemu.QEMU_LOG
                raise ProviderError(f"QEMU did not start: {error}", f"see {log}, then run the command again") from error
    raise AssertionError("the last attempt returns or raises")


def _refuse_in_vain(machine: Machine) -> None:
    """While the machine still runs: a port that cannot be had is no reason to switch it off."""
    _refuse_twin(machine)
    for here, there in machine.ports:
        if not _held_by_us(here):
            _refuse_taken(here, there)


def _refuse_taken(here: int, there: int) -> None:
    # A process that is just ending cannot be seen any more, and lets go of its ports in a moment.
    deadline = time.monotonic() + ENDING_SECONDS
    while (problem := host.port_problem(here) if here else None) == host.TAKEN and time.monotonic() < deadline:
        time.sleep(0.1)
    if problem:
        fix = "free it, or choose another port in the environment's file (0: any free one)"
        raise ProviderError(f"port {here} of this computer, wanted for the machine's port {there}, {problem}", fix)


def _await_ports(machine: Machine) -> None:
    """Returns once the asked ports are free. ProviderError where they are not, and nobody is about to let go of them.

    The machines of one apply are started side by side, so a port may move from one that still powers off. This one
    was switched off before it waits: of two that exchange their ports, neither waits for the other in vain.
    """
    deadline = time.monotonic() + qemu.POWER_OFF_SECONDS + 5
    for here, there in machine.ports:
        told = False
        while here and host.port_problem(here) and _held_by_us(here, machine.folder) and time.monotonic() < deadline:
            if not told:
                _say(f"waiting for port {here}, which another machine of this environment still has")
                told = True
            time.sleep(0.2)
        _refuse_taken(here, there)


def _held_by_us(port: int, stopped: Path | None = None) -> bool:
    """Whether a machine below MACHINES has the port now, and so may be about to let go of it; not the `stopped` one."""
    holder = host.listener(port)
    if holder:
        return qemu.works_below(holder, MACHINES)
    # Nobody that can be seen: on macOS, or where it is just ending. What the machines were last given has to do.
    given = (_read(record) for record in MACHINES.glob("*/ports.json") if record.parent != stopped)
    return any(port in (each.get("port"), *(one["host"] for one in each.get("ports", []))) for each in given)


def _base_image(machine: Machine) -> image.Image:
    """The image under the machine's disk if it has one, otherwise the one to make it of.

    Another image under the same disk, even another build of the same one, would be a broken file system.
    """
    record = _read(machine.folder / "machine.json")
    if record.get("id") != machine.identity:
        return image.base_image(machine.image, _say)
    disk, *boot = (Path(each) if each else None for each in record["base"]["files"])
    base = image.Image(disk or Path(), *boot)
    if not base.disk.exists() or _as_record(base) != record["base"]:
        afresh = f"cd {shlex.quote(str(MACHINES.parent))} && tofu apply -replace="
        afresh += shlex.quote(f'terraform_data.machine["{machine.name}"]')
        fix = f"its disk is of no use without it; put it back, or make the machine afresh: {afresh}"
        raise ProviderError(f"the image under its disk, {base.disk}, was removed or changed", fix)
    return base


def _as_record(base: image.Image) -> dict[str, Any]:
    facts = base.disk.stat()
    files = [str(each) if each else "" for each in (base.disk, base.kernel, base.initrd)]
    return {"files": files, "size": facts.st_size, "changed": facts.st_mtime_ns}


def _make_disk(machine: Machine, base: image.Image, kind: str, least: int) -> None:
    """The overlay on the base image; a disk that is there is kept, and grown if it should be bigger."""
    disk = machine.folder / "disk.qcow2"
    wanted = int(machine.disk * host.GIB)
    host.need_space(machine.folder, 0.1 if disk.exists() else 1.0, "the machine's disk")
    if disk.exists():
        if _disk_facts(disk)["virtual-size"] < wanted:
            _qemu_img("resize", "-q", str(disk), str(wanted))
        return
    if least > machine.disk:
        raise ProviderError(f"a disk of {machine.disk} GiB is too small for the image", f"make it {least} or more")
    part = machine.folder / "disk.qcow2.part"
    _qemu_img("create", "-q", "-f", "qcow2", "-b", str(base.disk), "-F", kind, str(part), str(wanted))
    os.replace(part, disk)


def _write_seed(machine: Machine, user_data: str) -> None:
    seed = machine.folder / "seed"
    seed.mkdir(exist_ok=True)
    host.write_atomically(seed / "user-data", user_data)
    meta = {"instance-id": machine.identity, "local-hostname": machine.name}
    host.write_atomically(seed / "meta-data", json.dumps(meta))


def _refuse_twin(machine: Machine) -> None:
    """ProviderError where the machine runs already, in another folder: this one is a copy of that."""
    for process in qemu.find(machine.identity):
        home = _home_elsewhere(process, machine.identity, machine.folder)
        if home:
            cause = f"it runs already (pid {process.pid}), in {home}, of which this folder is a copy"
            fix = "destroy that one first, or this copy: they would be two machines with one identity"
            raise ProviderError(cause, fix)


def _home_elsewhere(process: qemu.Process, identity: str, folder: Path) -> Path | None:
    """The folder that a QEMU works in, if that is there and another one's machine: the one that `folder` is a copy of.

    None where it was deleted, or cannot be told (macOS): then the QEMU is ours by its id.
    """
    here = Path(f"/proc/{process.pid}/cwd")
    try:
        if here.samefile(folder) or _read(here / "machine.json").get("id") != identity:
            return None
        return Path(os.readlink(here))
    except OSError:
        return None


def _stop(identity: str, folder: Path) -> None:
    """End this machine's QEMU. One whose start was never recorded is seconds old: nothing to lose, nobody to ask."""
    recorded = _read(folder / "running.json").get("pid")
    # With that record lost, the ports still tell of a machine that may have been up for long.
    was_up = recorded is None and (folder / "ports.json").exists()
    for process in qemu.find(identity):
        home = _home_elsewhere(process, identity, folder)
        if home:
            _say(f"left alone: pid {process.pid}, which works in {home}")
            continue
        cleanly = was_up or process.pid == recorded
        _say(f"powering off (pid {process.pid}, {qemu.POWER_OFF_SECONDS if cleanly else 0} s at most)")
        qemu.stop(process, folder, cleanly=cleanly)
    for leftover in ("running.json", qemu.PID_FILE, qemu.SOCKET):
        (folder / leftover).unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
        MACHINES.rmdir()  # Unless other machines live there.


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the machine's folder, made if need be, against another command on the same machine."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # It was removed in between.
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            # The one who held it may have removed it: then ours is the lock of a folder that is no more.
            if folder.exists() and os.stat(folder).st_ino == os.fstat(handle).st_ino:
                yield
                return
        finally:
            os.close(handle)


def _read(path: Path) -> dict[str, Any]:
    """One of our records; empty where it is missing or torn."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _disk_facts(disk: Path) -> dict[str, Any]:
    # -U: the image may be in use, and only its header is read.
    facts: dict[str, Any] = json.loads(_qemu_img("info", "-U", "--output=json", str(disk)))
    return facts


def _qemu_img(*arguments: str) -> str:
    ended = subprocess.run([host.qemu_img(), *arguments], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise ProviderError(
            f"qemu-img {arguments[0]} failed: {ended.stderr.strip()}", "mend what it names, and try again"
        )
    return ended.stdout


def _checked(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "detail": look(), "fix": ""}
    except ProviderError as error:
        return {"name": name, "ok": False, "detail": error.cause, "fix": error.fix}


def _image_outlook() -> str:
    found = image.cached_image()
    if found:
        return f"cached: {found.disk}"
    if image.official_sums() is not None:
        return "Debian's official image will be downloaded for the first machine"
    image.need_tools_to_build()
    return "will be built with mmdebstrap for the first machine (about a minute)"


def _space_outlook() -> str:
    cache = host.cache_directory()
    host.need_space(cache, 1.0 if image.cached_image() else 2.5, "the local provider")
    return f"{shutil.disk_usage(cache).free // host.GIB} GiB free in {cache}"


def _port_outlook() -> str:
    try:
        host.free_ports(1)
    except OSError as error:
        raise ProviderError(f"none can be had on 127.0.0.1: {error}", "ip link set lo up") from error
    problem = host.port_problem(EXAMPLE_PORT)
    return "free ones can be had" + (f"; but {EXAMPLE_PORT}, which the example asks for, {problem}" if problem else "")


def _asked() -> dict[str, Any]:
    asked: dict[str, Any] = json.loads(os.environ["DEPLOYER_MACHINE"])
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", asked["name"]):
        raise ProviderError(f"{asked['name']!r} is no name for a machine", "use a-z, 0-9 and hyphens")
    return asked


def _say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    os.umask(0o077)
    who = ""
    try:
        if arguments == ["start"]:
            asked = _asked()
            who = f"machine {asked['name']}: "
            ports = tuple((each["host"], each["machine"]) for each in asked.pop("ports"))
            user_data = zlib.decompress(base64.b64decode(os.environ["DEPLOYER_USER_DATA"]), wbits=31).decode()
            promised = tuple(asked.pop("promised"))
            start(Machine(identity=asked.pop("id"), ports=ports, promised=promised, **asked), user_data)
        elif arguments == ["remove"]:
            asked = _asked()
            who = f"machine {asked['name']}: "
            remove(asked["name"], asked["id"])
        elif arguments == ["image"]:
            _say(str(image.base_image("", _say).disk))
        elif arguments == ["check"]:
            _say(json.dumps(check()))
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except ProviderError as error:
        print(f"{who}{error.cause}\n{error.fix}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{who}{error}\nmend what it names (space, permissions), and run the command again", file=sys.stderr)
        return 1
    except (KeyError, TypeError, ValueError) as error:
        print(f"{who}a record of it is damaged: {error!r}\nmake it afresh: destroy, then apply", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
