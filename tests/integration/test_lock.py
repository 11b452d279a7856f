"""The lock between real processes: one holder, who is named; a killed one holds nothing; an orphan of it does."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from deployer.environment import create
from deployer.errors import Interrupted, Locked, StorageFailed
from deployer.process import Interrupts, ProcessIdentity, identity_of, is_alive
from deployer.storage.lock import Child, Record, own_record, read_record, write_record
from deployer.storage.repository import FileRepository
from tests.watching import until

AT = datetime(2026, 1, 1, tzinfo=UTC)
PRELUDE = """
import os, signal, subprocess, sys, time
from pathlib import Path
from deployer.errors import DeployerError, Locked
from deployer.process import Context, Interrupts, Request, own_identity, run
from deployer.storage.repository import FileRepository
home = Path(sys.argv[1])
repository = FileRepository(home)
def hold(timeout=0.0, command="provision demo"):
    return repository.hold("demo", command, timeout=timeout, interrupts=Interrupts())
def request(*argv):
    return Request(argv=argv, doing="a long apply", cwd=home, timeout=300)
"""


class Processes:
    """Python programs over one home; those that still run are killed at the end."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[str]] = []
        self._orphans: list[ProcessIdentity] = []

    def start(self, program: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(program), str(self.home), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        self._started.append(process)
        return process

    def holder(self, program: str = "") -> subprocess.Popen[str]:
        """A process that holds the lock until it is killed."""
        process = self.start(f"with hold() as held:\n{textwrap.indent(textwrap.dedent(program), '    ')}\n"
                             "    print('held', flush=True)\n    time.sleep(600)\n")  # fmt: skip
        assert self.line(process) == "held"
        return process

    def line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        if not said and process.stderr is not None:
            raise AssertionError(process.stderr.read())
        return said

    def orphan(self, pid: int) -> ProcessIdentity:
        """Remembers a grandchild, to end it."""
        identity = identity_of(pid)
        assert identity is not None
        self._orphans.append(identity)
        return identity

    def kill(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.wait(30)

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=30)
        for identity in self._orphans:
            if is_alive(identity):
                os.kill(identity.pid, signal.SIGKILL)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    repository = FileRepository(tmp_path / "home")
    with repository.hold("demo", "create", timeout=0, interrupts=Interrupts(), new=True) as held:
        held.save(create("demo", {}, "/work", AT))
    return repository.home


@pytest.fixture
def processes(home: Path) -> Iterator[Processes]:
    started = Processes(home)
    try:
        yield started
    finally:
        started.end()


@pytest.fixture
def repository(home: Path) -> FileRepository:
    return FileRepository(home)


def lock_once(repository: FileRepository, timeout: float = 0.0) -> None:
    with repository.hold("demo", "configure demo", timeout=timeout, interrupts=Interrupts()):
        pass


def locked(repository: FileRepository) -> Locked:
    with pytest.raises(Locked) as caught:
        lock_once(repository)
    return caught.value


def test_the_loser_is_told_who_holds_it(repository: FileRepository, processes: Processes) -> None:
    holder = processes.holder("held.at_step('tofu_apply')")
    error = locked(repository)
    assert error.exit_code == 4
    told = error.holder
    assert told["pid"] == holder.pid
    assert told["command"] == "provision demo"
    assert told["step"] == "tofu_apply"
    assert told["alive"] is True
    age = datetime.now(UTC) - datetime.fromisoformat(str(told["since"]))
    assert 0 <= age.total_seconds() < 60
    for word in (str(holder.pid), "provision demo", "tofu_apply", str(told["since"]), "it is running"):
        assert word in error.detail
    assert "--lock-timeout" in error.help
    json.dumps(error.as_dict())


def test_a_killed_holder_holds_nothing(repository: FileRepository, processes: Processes) -> None:
    holder = processes.holder()
    processes.kill(holder)
    assert repository.holder("demo") is None, "its record stands, but it is dead"
    lock_once(repository)
    assert read_record(repository.folder("demo").lock) is None


def test_waiting_wins_when_the_holder_goes(repository: FileRepository, processes: Processes) -> None:
    holder = processes.holder()
    waiter = processes.start("""
        print("waiting", flush=True)
        with hold(timeout=60):
            print("won", flush=True)
    """)
    assert processes.line(waiter) == "waiting"
    with pytest.raises(Locked):
        lock_once(repository, timeout=0.3)
    processes.kill(holder)
    assert processes.line(waiter) == "won"
    assert waiter.wait(30) == 0


ORPHANED = """
def told(stream, line):
    print(line, flush=True)
run(request("sh", "-c", "echo child $$; exec sleep 600"), Context(os.environ, register=held), told)
"""


def with_orphan(processes: Processes) -> tuple[int, ProcessIdentity]:
    """A holder that is killed while its child works: the holder's pid, and the child that goes on."""
    program = f"with hold() as held:\n{textwrap.indent(ORPHANED, '    ')}"
    holder = processes.start(program)
    word, pid = processes.line(holder).split()
    assert word == "child"
    orphan = processes.orphan(int(pid))
    processes.kill(holder)
    assert is_alive(orphan), "the child goes on to its good end"
    return holder.pid, orphan


def test_an_orphan_keeps_the_environment_until_it_ends(repository: FileRepository, processes: Processes) -> None:
    holder, orphan = with_orphan(processes)
    for _ in range(2):
        error = locked(repository)
        told = error.holder["orphan"]
        assert isinstance(told, dict)
        assert (told["pid"], told["doing"]) == (orphan.pid, "a long apply")
        assert told["since"]
        assert error.holder["pid"] == holder
        assert error.holder["alive"] is False
        for word in (str(orphan.pid), "a long apply", str(holder), "provision demo"):
            assert word in error.detail
        assert f"kill -INT {orphan.pid}" in error.help
    record = repository.holder("demo")
    assert record is not None
    assert record.living_children[0].pid == orphan.pid
    assert repository.load("demo").state == "created"
    waiter = processes.start("""
        print("waiting", flush=True)
        with hold(timeout=60):
            print("won", flush=True)
    """)
    assert processes.line(waiter) == "waiting"
    os.kill(orphan.pid, signal.SIGINT)
    assert processes.line(waiter) == "won"
    waiter.wait(30)
    lock_once(repository)
    assert repository.holder("demo") is None


def test_waiting_for_an_orphan_can_be_interrupted(repository: FileRepository, processes: Processes) -> None:
    _, orphan = with_orphan(processes)
    interrupts = Interrupts()
    interrupts.request(signal.SIGTERM)
    with (
        pytest.raises(Interrupted, match=str(orphan.pid)) as caught,
        repository.hold("demo", "destroy", timeout=60, interrupts=interrupts),
    ):
        pass
    assert caught.value.exit_code == 143
    assert locked(repository).holder["orphan"], "the record of the orphan stands"


def test_the_name_of_the_computer_does_not_hide_an_orphan(repository: FileRepository, processes: Processes) -> None:
    """Laptops are called otherwise in another network; the boot and the start time tell whether it is that process."""
    _, orphan = with_orphan(processes)
    path = repository.folder("demo").lock
    record = read_record(path)
    assert record is not None
    put(path, replace(record, host="another-name"))
    assert locked(repository).holder["orphan"]
    assert is_alive(orphan)


def put(path: Path, record: Record | None) -> None:
    with path.open("r+b") as file:
        write_record(file.fileno(), record)


def test_a_reused_pid_does_not_fool(repository: FileRepository, processes: Processes) -> None:
    """The record of a dead holder and its dead child, whose pids now belong to living processes of another start."""
    me = own_record("provision demo")
    other = replace(me, started=me.started + "0", children=(Child(me.pid, me.started + "0", "tofu apply", me.since),))
    put(repository.folder("demo").lock, other)
    assert repository.holder("demo") is None
    lock_once(repository)
    put(repository.folder("demo").lock, replace(me, children=()))
    assert repository.holder("demo") == replace(me, children=())


def test_a_record_of_another_boot_is_of_the_dead(repository: FileRepository) -> None:
    me = own_record("provision demo")
    boot, _, ticks = me.started.partition(":")
    child = Child(me.pid, f"{boot[::-1]}x:{ticks}", "tofu apply", me.since)
    put(repository.folder("demo").lock, replace(me, started=child.started, children=(child,)))
    assert repository.holder("demo") is None
    lock_once(repository)


def test_a_holder_on_another_computer_is_not_presumed_dead(repository: FileRepository) -> None:
    me = own_record("provision demo")
    put(repository.folder("demo").lock, replace(me, host="elsewhere", started="x"))
    record = repository.holder("demo")
    assert record is not None
    assert record.alive is None


def damaged_records() -> list[bytes]:
    rng = random.Random(7)
    record = own_record("provision demo")
    whole = json.dumps(asdict(record)).encode()

    def signed(text: bytes) -> bytes:
        return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"

    good = signed(whole)
    broken = [
        b"",
        b"\x00" * 4096,
        b" " * 9000,
        b"\n",
        b"{}",
        b"zzzzzzzz {}",
        good[:40],
        good[9:],
        good[::-1],
        b"\xff" * 300,
    ]
    broken += [signed(text) for text in (
        b"null", b"[]", b"1", b"{}", b'"x"', b"[" * 5000, b'{"children": null}', b'{"children": [1]}',
        whole[:-1] + b', "more": 1}', json.dumps({**asdict(record), "children": [{"pid": 1}]}).encode(),
        json.dumps({**asdict(record), "children": {"a": 1}}).encode(), whole.decode().encode("utf-16"),
        json.dumps({**asdict(record), "pid": "1"}).encode(), json.dumps({**asdict(record), "pid": None}).encode(),
        json.dumps({**asdict(record), "pid": 10**30}).encode(), json.dumps({**asdict(record), "pid": -1}).encode(),
        json.dumps({**asdict(record), "host": None, "started": []}).encode(),
        json.dumps({**asdict(record), "pid": []}).encode(),
        json.dumps({**asdict(record), "pid": "/../../x\x00", "command": None, "since": {}}).encode(),
        json.dumps({**asdict(record), "children": [{"pid": "a\x00b", "started": "1"}]}).encode(),
    )]  # fmt: skip
    for _ in range(300):
        flipped = bytearray(good)
        for _ in range(rng.choice([1, 2, 40])):
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        broken.append(bytes(flipped))
    broken += [rng.randbytes(rng.randrange(300)) for _ in range(50)]
    return broken


def test_a_damaged_record_stops_nobody_and_names_nobody(repository: FileRepository, processes: Processes) -> None:
    path = repository.folder("demo").lock
    for content in damaged_records():
        path.write_bytes(content)
        repository.holder("demo")
        lock_once(repository)
    processes.holder()
    for content in damaged_records()[::50]:
        path.write_bytes(content)
        error = locked(repository)
        assert error.detail
        json.dumps(error.as_dict())


def test_a_long_record_gives_way_to_a_short_one(repository: FileRepository) -> None:
    with repository.hold("demo", "provision", timeout=0, interrupts=Interrupts()) as held:
        children = [ProcessIdentity(10**6 + n, "x") for n in range(60)]
        for child in children:
            held.child_started(child, "wait for a host with a rather long name")
        record = repository.holder("demo")
        assert record is not None
        assert len(record.children) == 60
        for child in children:
            held.child_ended(child)
            assert repository.holder("demo") is not None
    lock_once(repository)


def test_readers_never_block(repository: FileRepository, processes: Processes) -> None:
    processes.holder("held.at_step('tofu_apply')")
    started = time.monotonic()
    for _ in range(200):
        assert repository.load("demo").state == "created"
        assert repository.names() == ("demo",)
        assert repository.holder("demo") is not None
    assert time.monotonic() - started < 20


def test_killed_before_the_gate_opened_no_tool_runs(processes: Processes, home: Path) -> None:
    """The child is on record and waits; its parent dies in exactly that instant."""
    holder = processes.start("""
        class DiesHere:
            def child_started(self, child, doing):
                held.child_started(child, doing)
                print(child.pid, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
            def child_ended(self, child): ...
        with hold() as held:
            run(request("sh", "-c", f"touch {home}/ran"), Context(os.environ, register=DiesHere()), print)
    """)
    child = identity_of(int(processes.line(holder)))
    holder.wait(30)
    assert holder.returncode == -signal.SIGKILL
    until(lambda: child is None or not is_alive(child), 30)
    assert not (home / "ran").exists()
    lock_once(FileRepository(home))


def test_a_record_that_cannot_be_written_starts_no_tool(processes: Processes, home: Path) -> None:
    process = processes.start("""
        class Refuses:
            def child_started(self, child, doing):
                raise OSError(28, "No space left on device")
            def child_ended(self, child): ...
        try:
            run(request("sh", "-c", f"touch {home}/ran"), Context(os.environ, register=Refuses()), print)
        except OSError as error:
            print("refused", error.errno, flush=True)
    """)
    assert processes.line(process) == "refused 28"
    assert process.wait(30) == 0
    assert not (home / "ran").exists()


def test_children_do_not_inherit_the_lock(repository: FileRepository, processes: Processes) -> None:
    """A daemon that a tool leaves behind (a machine) must not hold the lock after everything else has gone."""
    holder = processes.start("""
        daemon = "import os, time; os.setsid(); print('daemon', os.getpid(), flush=True); time.sleep(600)"
        tool = ("import subprocess, sys\\n"
                "daemon = subprocess.Popen([sys.executable, '-c', sys.argv[1]], close_fds=False, stdout=-1)\\n"
                "print(daemon.stdout.readline().decode(), end='', flush=True)")
        with hold() as held:
            run(request(sys.executable, "-c", tool, daemon), Context(os.environ, register=held),
                lambda s, line: print(line, flush=True))
            print("done", flush=True)
    """)
    word, pid = processes.line(holder).split()
    assert word == "daemon"
    daemon = processes.orphan(int(pid))
    assert processes.line(holder) == "done"
    holder.wait(30)
    assert is_alive(daemon)
    lock = str(repository.folder("demo").lock)
    held = [os.readlink(entry) for entry in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    assert lock not in held
    lock_once(repository)


def test_a_child_that_is_not_awaited_stays_on_record(repository: FileRepository, processes: Processes) -> None:
    """The command ends (a second Ctrl+C in a library's hands), its child does not: the next command must know."""
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        identity = identity_of(sleeper.pid)
        assert identity is not None
        with repository.hold("demo", "provision", timeout=0, interrupts=Interrupts()) as held:
            held.child_started(identity, "tofu apply")
        assert locked(repository).holder["orphan"]
    finally:
        sleeper.kill()
        sleeper.wait()
    lock_once(repository)


# A seccomp filter: the kernel itself answers this process's flock as such filesystems do (NFS without lockd, old FUSE).
WITHOUT_FLOCK = """
import ctypes, struct
number = {"x86_64": 73, "aarch64": 32}[os.uname().machine]
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | int(sys.argv[2])), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
libc = ctypes.CDLL(None, use_errno=True)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0, os.strerror(ctypes.get_errno())
try:
    with hold():
        print("held")
except DeployerError as error:
    print(error.code, error.exit_code, error.detail, error.help, flush=True)
"""


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_filesystem_without_flock_is_refused(processes: Processes, number: int) -> None:
    said = processes.line(processes.start(WITHOUT_FLOCK, str(number)))
    assert said.startswith("storage_failed 1 this filesystem does not support flock")
    assert "--home" in said


@pytest.mark.root
@pytest.mark.parametrize("make", ["directory", "link", "nothing may be made"])
def test_a_lock_that_cannot_be_opened_is_told(repository: FileRepository, make: str) -> None:
    path = repository.folder("demo").lock
    path.unlink()
    if make == "directory":
        path.mkdir()
    elif make == "link":
        path.symlink_to("/etc/passwd")
    else:
        subprocess.run(["chattr", "+i", path.parent], check=True)
    try:
        with pytest.raises(StorageFailed, match="cannot lock") as caught:
            lock_once(repository)
        assert caught.value.detail
    finally:
        if make == "nothing may be made":
            subprocess.run(["chattr", "-i", path.parent], check=True)
    assert Path("/etc/passwd").stat().st_size > 0


def test_the_lock_file_is_ours_alone(repository: FileRepository) -> None:
    path = repository.folder("demo").lock
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


RACE = """
import random
from deployer.process import identity_of
rng = random.Random(int(sys.argv[2]))
marker, me = home / "inside", str(os.getpid())
won = 0
while won < 4:
    time.sleep(rng.random() / 20)
    try:
        with hold(timeout=rng.choice([0.0, 0.1, 1.0]), command=f"provision {sys.argv[2]}") as held:
            other = marker.read_text() if marker.exists() else ""
            assert not other or identity_of(int(other)) is None, f"{other} is inside, too"
            marker.write_text(me)
            before = held.load()
            held.at_step("tofu_apply")
            time.sleep(rng.random() / 100)
            after = before.model_copy(update={"spec": {"count": before.spec.get("count", 0) + 1}})
            assert held.load() == before
            held.save(after)
            with open(home / f"won.{me}", "a") as log:
                log.write("x")
            assert held.load() == after
            assert marker.read_text() == me, "somebody else was inside"
            marker.unlink()
        won += 1
    except Locked as error:
        assert not error.holder or error.holder["command"].startswith("provision "), error.holder
    repository.load("demo")
"""


def winners(home: Path, at_least: int) -> bool:
    return len(list(home.glob("won.*"))) >= at_least


def test_twenty_processes_race(repository: FileRepository, processes: Processes, home: Path) -> None:
    """Never two holders, never a torn read, never a lost transition, never a deadlock; five are killed meanwhile."""
    racers = [processes.start(RACE, str(number)) for number in range(20)]
    rng = random.Random(3)
    victims = rng.sample(racers, 5)
    for number, victim in enumerate(victims, start=1):
        until(partial(winners, home, number), 120)
        processes.kill(victim)
    for racer in racers:
        if racer not in victims:
            _, complaint = racer.communicate(timeout=200)
            assert racer.returncode == 0, complaint
    wins = sum(len(path.read_text()) for path in home.glob("won.*"))
    count = repository.load("demo").model_dump()["spec"]["count"]
    assert wins >= 15 * 4
    assert wins <= count <= wins + len(victims), "a save was lost, or one was made without the lock"
    lock_once(repository)
    assert repository.holder("demo") is None
