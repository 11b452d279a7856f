"""tofu/local by hand: the OpenTofu binary, real QEMU, no deployer. One machine is booted and shared; it ends last."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from deployer.process import identity_of, is_alive
from tests.watching import until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

CANARY = "canary-5f1c7f0e"
PROVIDER = Path(__file__).resolve().parents[2] / "tofu" / "local"
# Deeper than the path of a Unix socket may be.
DEEP = "/".join(["a-rather-long-directory-name"] * 4)


def tofu_binary() -> str:
    chosen = os.environ.get("DEPLOYER_TOFU", "tofu")
    found = shutil.which(chosen) or str(cache() / "bin" / "tofu")
    assert os.access(found, os.X_OK), f"no OpenTofu: {chosen}"
    return found


def cache() -> Path:
    chosen = os.environ.get("DEPLOYER_CACHE", "")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "deployer"


def lives(pid: int) -> bool:
    """Whether a process runs. A zombie does not: it waits for an init that may never ask."""
    return identity_of(pid) is not None


def argv_of(pid: int | str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Folder:
    """A copy of the provider with its variables, as deployer lays it out in an environment."""

    path: Path
    hosts: dict[str, dict[str, Any]]
    user_data: dict[str, str] = field(default_factory=dict[str, str])
    public_key: str = "ssh-ed25519 AAAA nobody"
    options: dict[str, str] = field(default_factory=dict[str, str])
    environment: dict[str, str] = field(default_factory=dict[str, str])
    engine: tuple[str, ...] = ()

    def write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        for file in PROVIDER.iterdir():
            if file.is_file():
                shutil.copy(file, self.path)
        variables = {
            "environment": "test",
            "hosts": self.hosts,
            "user_data": self.user_data,
            "ssh_public_key": self.public_key,
            **self.options,
        }
        (self.path / "terraform.tfvars.json").write_text(json.dumps(variables))

    def command(self, *arguments: str) -> list[str]:
        return [*(self.engine or (tofu_binary(),)), *arguments]

    def surroundings(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
        return {**kept, **self.environment}

    def run(self, *arguments: str, rc: int = 0, pass_fds: tuple[int, ...] = ()) -> str:
        ended = subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=self.surroundings(),
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert ended.returncode == rc, ended.stdout
        return ended.stdout

    def init(self) -> None:
        self.write()
        self.run("init", "-no-color")

    def apply(self, *, rc: int = 0, pass_fds: tuple[int, ...] = ()) -> str:
        return self.run("apply", "-auto-approve", "-no-color", rc=rc, pass_fds=pass_fds)

    def destroy(self) -> str:
        return self.run("destroy", "-auto-approve", "-no-color")

    def settled(self) -> bool:
        ended = subprocess.run(
            self.command("plan", "-detailed-exitcode", "-no-color"),
            cwd=self.path,
            env=self.surroundings(),
            capture_output=True,
            text=True,
        )
        assert ended.returncode in (0, 2), ended.stdout + ended.stderr
        return ended.returncode == 0

    def planned(self) -> dict[str, list[str]]:
        """What a plan would do, by resource."""
        self.run("plan", "-out=plan", "-no-color")
        plan = json.loads(self.run("show", "-json", "plan"))
        return {change["address"]: change["change"]["actions"] for change in plan["resource_changes"]}

    def outputs(self) -> dict[str, Any]:
        hosts: dict[str, Any] = json.loads(self.run("output", "-json", "hosts"))
        return hosts

    def machine(self, name: str) -> Path:
        return self.path / "machines" / name

    def forget_start(self, name: str = "*") -> None:
        """As if the start had not been recorded: then nobody waits for a guest too young to hear its power button."""
        for record in ("running.json", "ports.json"):
            for path in (self.path / "machines").glob(f"{name}/{record}"):
                path.unlink()

    def pid(self, name: str) -> int:
        return int(json.loads((self.machine(name) / "running.json").read_text())["pid"])

    def kill(self, name: str) -> None:
        """End a machine's QEMU, and wait until it has let go of its files: its command line is gone before that."""
        qemu = identity_of(self.pid(name))
        assert qemu
        os.kill(qemu.pid, signal.SIGKILL)
        until(lambda: not is_alive(qemu), 10, "the end of QEMU")

    def processes(self) -> list[int]:
        """Every QEMU whose working directory is, or was, in this folder."""
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*"):
            if os.path.basename(argv_of(entry.name)[:1][0] if argv_of(entry.name) else "").startswith("qemu-system"):
                try:
                    if os.readlink(entry / "cwd").startswith(str(self.path)):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def assert_nothing_left(self) -> None:
        assert self.processes() == []
        assert not (self.path / "machines").exists()


SMALL: dict[str, Any] = {"cpus": 1, "memory": 128, "disk": 4}
REPLACE_ONE_STARTED = {
    'terraform_data.machine["web"]': ["no-op"],
    'terraform_data.running["web"]': ["delete", "create"],
}
REPLACE_ALL = {address: ["delete", "create"] for address in REPLACE_ONE_STARTED}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """A folder for one machine that nobody waits for: QEMU is what is tested, not the guest."""
    made = Folder(tmp_path / "tofu", {"web": dict(SMALL)})
    made.init()
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True)
class Booted:
    folder: Folder
    key: Path
    argv_seen: set[str]

    def ssh(self, command: str) -> subprocess.CompletedProcess[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=5", "LogLevel=ERROR")
        argv = ["ssh", "-i", str(self.key), "-p", str(self.folder.outputs()["web"]["port"])]
        argv += [word for option in options for word in ("-o", option)]
        return subprocess.run([*argv, "deployer@127.0.0.1", command], capture_output=True, text=True, timeout=200)

    def wait_for_ssh(self) -> None:
        until(lambda: self.ssh("true").returncode == 0, 240, "a login over SSH")


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    base = tmp_path_factory.mktemp("booted")
    key = base / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = key.with_suffix(".pub").read_text().strip()
    user = {"name": "deployer", "sudo": "ALL=(ALL) NOPASSWD:ALL", "ssh_authorized_keys": [public]}
    config = {"locale": False, "users": [user], "write_files": [{"path": "/etc/secret", "content": CANARY}]}
    made = Folder(
        base / DEEP / "tofu",
        {"web": {"cpus": 2, "memory": 1024, "disk": 6, "ports": [{"host": 0, "machine": 80}]}},
        {"web": "#cloud-config\n" + json.dumps(config)},
        public,
    )
    made.init()
    argv_seen: set[str] = set()
    # Every command line that is ever there while the machine is made.
    with subprocess.Popen(
        made.command("apply", "-auto-approve", "-no-color"),
        cwd=made.path,
        env=made.surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as applying:
        while applying.poll() is None:
            argv_seen.update(" ".join(argv_of(entry.name)) for entry in Path("/proc").glob("[0-9]*"))
        assert applying.stdout is not None
        told = applying.stdout.read()
    assert applying.returncode == 0, told
    assert "started (pid" in told  # The progress is readable although the user data is sensitive.
    assert CANARY not in told
    yield Booted(made, key, argv_seen)
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)


def test_the_machine_answers_where_the_output_says(booted: Booted) -> None:
    host = booted.folder.outputs()["web"]
    assert host["address"] == "127.0.0.1"
    assert [port["machine"] for port in host["ports"]] == [80]
    booted.wait_for_ssh()
    status = json.loads(booted.ssh("cloud-init status --wait >/dev/null; cloud-init status --format json").stdout)
    assert (status["status"], status["errors"]) == ("done", [])
    assert booted.ssh("sudo cat /etc/secret; echo; hostname").stdout.split() == [CANARY, "web"]
    # The file system fills the disk that was asked for, not the image's.
    assert int(booted.ssh("df --output=size -BG / | tail -1").stdout.strip("G \n")) in (5, 6)
    assert (booted.folder.machine("web") / "serial.log").stat().st_size > 1000


def test_an_application_port_is_forwarded(booted: Booted) -> None:
    booted.ssh("nohup sudo python3 -m http.server 80 --directory /etc/cloud >/dev/null 2>&1 </dev/null &")
    here = booted.folder.outputs()["web"]["ports"][0]["host"]

    def page() -> bool:
        ended = subprocess.run(["curl", "-fsS", "-m", "5", f"http://127.0.0.1:{here}/"], capture_output=True, text=True)
        return "cloud.cfg" in ended.stdout

    until(page, 30, "the page of the machine's own web server")


def test_a_settled_machine_has_an_empty_plan_every_time(booted: Booted) -> None:
    pid = booted.folder.pid("web")
    assert booted.folder.settled()
    assert "0 added, 0 changed, 0 destroyed" in booted.folder.apply()
    assert booted.folder.settled()
    assert (booted.folder.pid("web"), lives(pid)) == (pid, True)


def test_the_user_data_is_in_no_state_output_or_command_line(booted: Booted) -> None:
    for file in booted.folder.path.glob("*.tfstate*"):
        assert CANARY not in file.read_text()
    assert CANARY not in booted.folder.run("show", "-json")
    assert any("machine.py start" in line for line in booted.argv_seen)
    assert not any(CANARY in line for line in booted.argv_seen)
    surroundings = Path(f"/proc/{booted.folder.pid('web')}/environ").read_bytes()
    assert b"DEPLOYER" not in surroundings
    for path in [booted.folder.machine("web"), *booted.folder.machine("web").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_killed_machine_is_noticed_and_started_on_its_own_disk(folder: Folder) -> None:
    folder.hosts["web"]["ports"] = [{"host": 0, "machine": 80}]
    folder.write()
    folder.apply()
    before, disk = folder.outputs(), (folder.machine("web") / "disk.qcow2").stat().st_ino
    folder.kill("web")
    assert folder.planned() == REPLACE_ONE_STARTED
    folder.apply()
    assert folder.settled()
    assert folder.outputs() == before, "the ports that people have noted down are kept while they are free"
    assert (folder.machine("web") / "disk.qcow2").stat().st_ino == disk, "tests/e2e/test_vm.py reads what was on it"
    folder.forget_start()
    folder.destroy()


def test_destroy_leaves_nothing_and_may_be_repeated(booted: Booted) -> None:
    host = booted.folder.outputs()["web"]
    assert "powering off" in booted.folder.destroy()
    booted.folder.assert_nothing_left()
    assert not any(listens(port) for port in (host["port"], host["ports"][0]["host"]))
    assert "Destroy complete" in booted.folder.destroy()


def test_a_machine_keeps_nothing_of_the_command_that_made_it(folder: Folder, tmp_path: Path) -> None:
    with open(tmp_path / "lock", "w") as lock:
        folder.apply(pass_fds=(lock.fileno(),))
        pid = folder.pid("web")
        assert os.getsid(pid) == pid
        held = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        assert str(tmp_path / "lock") not in held
        assert not any(target.startswith("pipe:") for target in held)
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_hung_machine_is_removed(folder: Folder) -> None:
    folder.apply()
    os.kill(folder.pid("web"), signal.SIGSTOP)
    folder.destroy()
    folder.assert_nothing_left()


# A boot sector that writes 32 KiB of the first disk after the other: a BIOS extended write (0x43) of 64 sectors, by the
# packet at 0x7c20, whose sector number is then moved on.
WRITER = bytes.fromhex("31c08ed8 be207c b280 b80043 cd13 668306287c40 ebee").ljust(0x20, b"\0")
PACKET = bytes.fromhex("10004000 00800000 4000000000000000")


@pytest.mark.root
def test_a_machine_that_a_full_disk_has_paused_is_started_again_on_its_disk(folder: Folder, tmp_path: Path) -> None:
    image, disk = tmp_path / "writer.raw", folder.path / "machines"
    image.write_bytes((WRITER + PACKET).ljust(510, b"\0") + b"\x55\xaa" + bytes(1024))
    folder.options = {"image": str(image)}
    folder.write()
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", disk], check=True)

    def resize(more: int) -> bool:
        facts = os.statvfs(disk)
        size = (facts.f_blocks - facts.f_bfree) * facts.f_frsize + more
        return subprocess.run(["mount", "-o", f"remount,size={size}", disk], capture_output=True).returncode == 0

    try:
        folder.apply()
        until(lambda: resize(1 << 20), 30, "a disk that is almost full")
        until(lambda: "(io-error)" in (folder.machine("web") / "qemu.log").read_text(), 60, "the pause")
        paused = folder.pid("web")
        assert lives(paused)
        assert folder.planned() == REPLACE_ONE_STARTED
        folder.forget_start()
        assert "the machine's disk needs 0.1 GiB" in folder.apply(rc=1)
        assert resize(1 << 30)
        folder.apply()
        assert not lives(paused)
        assert folder.pid("web") in folder.processes()
        folder.forget_start()
        folder.destroy()
        assert folder.processes() == []
    finally:
        for pid in folder.processes():
            os.kill(pid, signal.SIGKILL)
        until(lambda: subprocess.run(["umount", disk]).returncode == 0, 30, "a disk that nobody uses")


def test_a_machine_that_is_gone_with_its_folder_is_noticed_and_destroy_succeeds(folder: Folder) -> None:
    folder.apply()
    pid = folder.pid("web")
    shutil.rmtree(folder.path / "machines")
    assert folder.planned() == REPLACE_ALL
    # Nothing but its id on the command line tells of the process now.
    folder.destroy()
    assert not lives(pid)
    folder.assert_nothing_left()


# A boot sector that asks to hear of the power button (port 0x602), waits for it (0x600), and powers off (0x604).
OBEDIENT = bytes.fromhex("ba0206 b80001 ef ba0006 ed f6c401 74fa ba0406 b80020 ef f4 ebfd")


def test_a_machine_that_is_up_is_powered_off_even_where_the_record_of_it_is_lost(folder: Folder) -> None:
    image = folder.path.with_name("obedient.raw")
    image.write_bytes(OBEDIENT.ljust(510, b"\0") + b"\x55\xaa")
    folder.options = {"image": str(image)}
    folder.write()
    folder.apply()
    (folder.machine("web") / "running.json").unlink()
    with open(folder.machine("web") / "qemu.log") as log:
        assert "30 s at most" in folder.destroy()
        assert "(shutdown)" in log.read()
    folder.assert_nothing_left()


def test_a_machine_whose_disk_is_lost_is_planned_to_be_made_afresh(folder: Folder) -> None:
    folder.apply()
    (folder.machine("web") / "disk.qcow2").unlink()
    assert folder.planned() == REPLACE_ALL


def test_a_copy_of_the_folder_leaves_the_machine_to_the_folder_it_works_in(folder: Folder, tmp_path: Path) -> None:
    folder.apply()
    pid = folder.pid("web")
    copy = replace(folder, path=tmp_path / "copy")
    subprocess.run(["cp", "-a", folder.path, copy.path], check=True)
    assert copy.planned() == REPLACE_ONE_STARTED
    refused = f"machine web: it runs already (pid {pid}), in {folder.machine('web')}, of which this folder is a copy"
    assert refused in copy.apply(rc=1)
    assert f"left alone: pid {pid}, which works in {folder.machine('web')}" in copy.destroy()
    copy.assert_nothing_left()
    assert (lives(pid), folder.settled()) == (True, True)


def test_a_machine_stays_in_a_folder_that_is_moved_or_called_by_another_name(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder.path)
    linked = replace(folder, path=tmp_path / "link", environment={"PWD": str(tmp_path / "link")})
    linked.apply()
    pid = folder.pid("web")
    assert linked.settled()
    assert folder.settled()
    moved = replace(folder, path=folder.path.rename(tmp_path / "moved"))
    assert moved.settled()
    moved.forget_start()
    moved.destroy()
    assert not lives(pid)
    moved.assert_nothing_left()


def test_another_process_with_the_same_pid_is_not_taken_for_the_machine(folder: Folder) -> None:
    folder.apply()
    record = folder.machine("web") / "running.json"
    folder.kill("web")
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": stranger.pid}))
        assert folder.planned() == REPLACE_ONE_STARTED
        folder.destroy()
        assert stranger.poll() is None
        stranger.kill()
    folder.assert_nothing_left()


def test_a_start_that_was_never_recorded_is_repeated_and_cleaned_up(folder: Folder) -> None:
    folder.apply()
    first = folder.pid("web")
    for record in ("running.json", "ports.json", "qemu.pid"):
        (folder.machine("web") / record).unlink()
    folder.apply()
    assert (lives(first), folder.settled()) == (False, True)
    assert len(folder.processes()) == 1
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_another_image_under_the_same_disk_is_refused(folder: Folder, tmp_path: Path) -> None:
    own = tmp_path / "own.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2", str(own), "1G"]
    subprocess.run(create, check=True)
    folder.options = {"image": str(own)}
    folder.write()
    folder.apply()
    folder.kill("web")
    subprocess.run(create, check=True)
    told = folder.apply(rc=1)
    assert f"machine web: the image under its disk, {own}, was removed or changed" in told
    afresh = f"cd {folder.path} && tofu apply -replace='terraform_data.machine[\"web\"]'"
    assert f"its disk is of no use without it; put it back, or make the machine afresh: {afresh}\n" in told
    folder.run("apply", "-auto-approve", "-no-color", shlex.split(afresh)[-1])
    assert folder.settled()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_lost_state_does_not_leave_a_second_machine(folder: Folder) -> None:
    folder.apply()
    first = folder.pid("web")
    (folder.path / "terraform.tfstate").unlink()
    folder.forget_start()
    folder.apply()
    assert not lives(first)
    assert len(folder.processes()) == 1
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_apply_goes_on_and_is_destroyed(folder: Folder, tmp_path: Path, sent: signal.Signals) -> None:
    """The interrupt comes when the machine's disk is being made."""
    reached, slow = tmp_path / "reached", tmp_path / "slow"
    slow.mkdir()
    (slow / "qemu-img").write_text(f'#!/bin/sh\n: > "{reached}"\nsleep 3\nexec {shutil.which("qemu-img")} "$@"\n')
    (slow / "qemu-img").chmod(0o755)
    folder.environment = {"PATH": f"{slow}:{os.environ['PATH']}"}
    with subprocess.Popen(
        folder.command("apply", "-auto-approve", "-no-color"),
        cwd=folder.path,
        env=folder.surroundings(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as applying:
        until(reached.exists, 60, "the disk being made")
        applying.send_signal(sent)
        applying.communicate()
        assert applying.returncode != 0
    folder.environment = {}
    folder.apply()
    assert folder.settled()
    assert len(folder.processes()) == 1
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_more_memory_or_disk_restarts_and_less_disk_makes_afresh(folder: Folder) -> None:
    folder.apply()
    first = folder.pid("web")
    folder.hosts["web"].update(memory=160, disk=5)
    folder.write()
    assert folder.planned() == REPLACE_ONE_STARTED
    folder.forget_start()
    folder.apply()
    assert (lives(first), folder.settled()) == (False, True)
    info = ["qemu-img", "info", "-U", "--output=json", str(folder.machine("web") / "disk.qcow2")]
    size = json.loads(subprocess.run(info, check=True, capture_output=True).stdout)["virtual-size"]
    assert size == 5 * 1024**3
    folder.hosts["web"].update(disk=4)
    folder.write()
    assert folder.planned() == REPLACE_ALL
    folder.hosts["web"].update(disk=5)
    folder.user_data = {"web": "#cloud-config\n{}"}
    folder.write()
    assert folder.planned() == REPLACE_ALL
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_disk_too_small_for_the_image_is_told_while_the_machine_is_still_there(folder: Folder) -> None:
    image = folder.path.with_name("two.raw")
    with open(image, "wb") as file:
        file.truncate((1 << 30) + 512)
    folder.options = {"image": str(image)}
    folder.write()
    folder.apply()
    pid = folder.pid("web")
    folder.hosts["web"].update(disk=1)
    folder.write()
    assert "a disk of 1 GiB is too small for the image of web: 2 or more" in folder.apply(rc=1)
    assert lives(pid)
    folder.hosts["web"].update(disk=2)
    folder.write()
    assert folder.planned() == REPLACE_ALL
    folder.hosts["web"].update(disk=1)
    folder.write()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_cloud_config_too_long_to_be_handed_over_is_told_by_the_plan(folder: Folder) -> None:
    folder.user_data = {"web": "#cloud-config\n# " + os.urandom(100_000).hex()}
    folder.write()
    told = folder.apply(rc=1)
    assert re.search(r"the cloud-config of web is too long: 1\d{5} bytes packed, at most 120000", told)
    assert "H4sI" not in told, "it may hold secrets, and so begins what is packed"
    folder.user_data = {"web": "#cloud-config\n# " + os.urandom(70_000).hex()}
    folder.write()
    folder.apply()


def test_a_port_that_is_taken_is_told_with_its_holder_and_mended(folder: Folder, tmp_path: Path) -> None:
    folder.environment["DEPLOYER_CACHE"] = str(tmp_path / "cache")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        folder.hosts["web"]["ports"] = [{"host": taken, "machine": 80}]
        folder.write()
        told = folder.apply(rc=1)
        assert "machine web: " in told
        assert f"port {taken} of this computer, wanted for the machine's port 80, is taken by" in told
        assert f"(pid {os.getpid()})" in told
        assert "Traceback" not in told
        assert folder.processes() == []
    assert not (tmp_path / "cache" / "images").exists(), "no image was brought in vain"
    assert folder.planned() == REPLACE_ONE_STARTED, "nothing was made that could be replaced"
    del folder.environment["DEPLOYER_CACHE"]
    folder.apply()
    assert folder.outputs()["web"]["ports"] == [{"host": taken, "machine": 80}]
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_machine_runs_on_where_a_port_that_it_is_newly_to_have_is_taken(folder: Folder) -> None:
    folder.apply()
    pid, own = folder.pid("web"), folder.outputs()["web"]["port"]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        folder.hosts["web"]["ports"] = [{"host": own, "machine": 80}, {"host": taken, "machine": 81}]
        folder.write()
        told = folder.apply(rc=1)
    assert f"port {taken} of this computer, wanted for the machine's port 81, is taken by" in told
    assert "powering off" not in told
    assert lives(pid)


def test_a_port_that_a_process_just_lets_go_of_is_waited_for(folder: Folder) -> None:
    """Of a process that is ending nobody can be seen for a while: its ports were called taken."""
    ending = (
        "import ctypes, os, socket, threading, time; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); "
        "threading.Thread(target=lambda: (time.sleep(3), os._exit(0))).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    with subprocess.Popen([sys.executable, "-c", ending], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        until(lambda: not os.path.exists(f"/proc/{process.pid}/exe"), 10, "the end of its leader")
        folder.hosts["web"]["ports"] = [{"host": port, "machine": 80}]
        folder.write()
        folder.apply()
        assert process.wait(1) == 0  # it was waited for
    assert folder.outputs()["web"]["ports"] == [{"host": port, "machine": 80}]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def test_machines_exchange_their_ports_and_hand_them_on_to_a_new_one(folder: Folder) -> None:
    first, second = free_ports(2)

    def hosts(**ports: int) -> None:
        folder.hosts = {name: {**SMALL, "ports": [{"host": port, "machine": 80}]} for name, port in ports.items()}
        folder.write()

    hosts(web=first, db=second)
    folder.apply()
    folder.forget_start("web")
    # This one has its port for some seconds more: until those in which it may answer are over.
    os.kill(folder.pid("db"), signal.SIGSTOP)
    hosts(web=second, db=first)
    assert "waiting for port" in folder.apply()
    assert folder.settled()
    # Nor does the old one take back the port that it had last time.
    hosts(web=0, db=first, new=second)
    folder.kill("web")
    folder.apply()
    assert folder.outputs()["new"]["ports"] == [{"host": second, "machine": 80}]
    assert folder.settled()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_a_fixed_and_a_free_port_may_lead_to_the_same_one(folder: Folder) -> None:
    """The free one took the number of the fixed one when the machine was started again, and QEMU refused both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        fixed = probe.getsockname()[1]
    folder.hosts["web"]["ports"] = [{"host": 0, "machine": 80}, {"host": fixed, "machine": 80}]
    folder.init()
    folder.apply()
    before = folder.outputs()
    folder.kill("web")
    folder.apply()
    assert folder.outputs() == before


def test_a_machine_may_be_told_the_port_that_its_ssh_server_happened_to_have(folder: Folder) -> None:
    folder.apply()
    port = folder.outputs()["web"]["port"]
    folder.hosts["web"]["ports"] = [{"host": port, "machine": 80}]
    folder.write()
    folder.kill("web")
    folder.apply()
    after = folder.outputs()["web"]
    assert after["ports"] == [{"host": port, "machine": 80}]
    assert after["port"] != port


def test_qemus_last_words_are_told_and_the_next_apply_goes_on(folder: Folder, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("qemu-system-x86_64", "qemu-system-aarch64"):
        (broken / name).write_text('#!/bin/sh\necho "$0: cannot set up guest memory" >&2\nexit 1\n')
        (broken / name).chmod(0o755)
    folder.environment = {"PATH": f"{broken}:{os.environ['PATH']}", "DEPLOYER_CACHE": str(cache())}
    told = folder.apply(rc=1)
    assert "machine web: QEMU did not start: cannot set up guest memory" in told
    folder.environment = {}
    folder.apply()
    assert folder.settled()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()


def test_without_qemu_the_package_is_named_and_destroy_cleans_up(folder: Folder, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "python3").symlink_to(sys.executable)
    (bare / "sh").symlink_to("/bin/sh")
    folder.environment = {"PATH": str(bare)}
    told = folder.apply(rc=1)
    assert "machine web: qemu-system-" in told
    # What is typed here: of another system there is no word in it, or it could not be pasted.
    assert ("brew install qemu" in told) == (sys.platform == "darwin")
    assert ("sudo apt install qemu-system-" in told) == (sys.platform != "darwin")
    assert folder.planned() == REPLACE_ONE_STARTED
    folder.destroy()
    folder.assert_nothing_left()


def test_two_machines_side_by_side(folder: Folder) -> None:
    folder.hosts = {"web": {**SMALL, "ports": [{"host": 0, "machine": 80}]}, "db": dict(SMALL)}
    folder.write()
    folder.apply()
    hosts = folder.outputs()
    ports = [hosts["web"]["port"], hosts["db"]["port"], hosts["web"]["ports"][0]["host"]]
    assert len(set(ports)) == 3
    assert all(listens(port) for port in ports)
    assert folder.settled()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()
    assert not any(listens(port) for port in ports)


@pytest.fixture
def open_folder() -> Iterator[Folder]:
    """As `folder`, where every user may enter: pytest closes its own directories whenever another pytest starts."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        Path(directory).chmod(0o755)
        made = Folder(Path(directory) / "tofu", {"web": dict(SMALL)})
        made.init()
        yield made
        for pid in made.processes():
            os.kill(pid, signal.SIGKILL)


def test_without_root(open_folder: Folder) -> None:
    """As root, the same as an unprivileged user; otherwise the whole file has shown it already."""
    folder, base = open_folder, open_folder.path.parent
    if os.getuid() == 0:
        prepared = cache()
        subprocess.run([sys.executable, "-B", str(PROVIDER / "machine.py"), "image"], check=True, capture_output=True)
        home = base / "home"
        for image in (prepared / "images").glob("debian-12-*"):
            (home / "images" / image.name).mkdir(parents=True)
            for name in ("disk.qcow2", "vmlinuz", "initrd"):
                if (image / name).exists():
                    shutil.copy(image / name, home / "images" / image.name)
        subprocess.run(["chown", "-R", "65534:65534", str(home), str(folder.path)], check=True)
        tofu = Path(shutil.copy(tofu_binary(), base / "tofu-binary"))
        tofu.chmod(0o755)
        folder.engine = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(tofu))
        folder.environment = {"HOME": str(home), "DEPLOYER_CACHE": str(home), "PATH": "/usr/bin:/bin:/usr/sbin"}
    folder.apply()
    pid = folder.pid("web")
    assert os.stat(f"/proc/{pid}").st_uid in (os.getuid(), 65534)
    assert folder.settled()
    folder.forget_start()
    folder.destroy()
    folder.assert_nothing_left()
