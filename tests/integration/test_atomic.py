"""A state file is the old one or the new one, whole, whatever happens: readers, kills, full and refusing disks."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployer.environment import create
from deployer.errors import StorageFailed, UnreadableState
from deployer.files import write_atomically
from deployer.process import Interrupts
from deployer.storage.folder import private_directory
from deployer.storage.repository import FileRepository, HeldFiles

AT = datetime(2026, 1, 1, tzinfo=UTC)

# Texts of very different lengths, each of one letter: a mixture would show.
WRITER = """
import sys
from pathlib import Path
from deployer.files import write_atomically
path, number = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for count in range(number):
    letter = b"abcdefghij"[count % 10 : count % 10 + 1]
    write_atomically(path, letter * (1 + (count * 7919) % 50_000))
print("done", flush=True)
"""


@contextmanager
def writing(path: Path, number: int) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", WRITER, str(path), str(number)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def assert_whole(data: bytes) -> None:
    assert data
    assert data == data[:1] * len(data)


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where an fsync takes no time."""
    with mounted(tmp_path / "fast", "size=16m") as directory:
        yield directory


@contextmanager
def mounted(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


@pytest.mark.root
def test_a_reader_sees_only_whole_files_during_thousands_of_writes(fast: Path) -> None:
    path = fast / "environment.json"
    write_atomically(path, b"a")
    seen = set()
    with writing(path, 5000) as process:
        while process.poll() is None:
            data = path.read_bytes()
            assert_whole(data)
            seen.add((data[:1], len(data)))
        assert process.returncode == 0
    assert len(seen) > 20
    assert sorted(p.name for p in fast.iterdir()) == ["environment.json"]


@pytest.mark.root
def test_a_writer_killed_at_any_instant_leaves_the_old_or_the_new(tmp_path: Path, fast: Path) -> None:
    rng = random.Random(11)
    for folder, kills in ((fast, 25), (tmp_path, 10)):
        path = folder / "environment.json"
        write_atomically(path, b"a" * 1000)
        left_over = 0
        for _ in range(kills):
            with writing(path, 10**9) as process:
                time.sleep(rng.random() / 20)
                process.send_signal(signal.SIGKILL)
                process.wait(30)
            assert_whole(path.read_bytes())
            left_over += path.with_name(".environment.json.new").exists()
            assert {p.name for p in folder.iterdir()} <= {"environment.json", ".environment.json.new", "fast"}
        write_atomically(path, b"z")
        assert path.read_bytes() == b"z"
        assert not path.with_name(".environment.json.new").exists()


@pytest.mark.parametrize("content", [b"", b"half of a", b"x" * 100_000])
def test_a_leftover_is_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "environment.json"
    leftover = tmp_path / ".environment.json.new"
    leftover.write_bytes(content)
    leftover.chmod(0o666)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not leftover.exists()


def test_a_leftover_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "environment.json"
    path.with_name(".environment.json.new").symlink_to(victim)
    with pytest.raises(OSError):
        write_atomically(path, b"new")
    write_atomically(path, b"new")
    assert victim.read_text() == "precious"
    assert path.read_bytes() == b"new"


def test_the_mode_is_ours_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = private_directory(tmp_path / "home" / "environments" / "demo")
        write_atomically(folder / "environment.json", b"x")
    finally:
        os.umask(before)
    for directory in (folder, folder.parent, folder.parent.parent):
        assert directory.stat().st_mode & 0o777 == 0o700
    assert (folder / "environment.json").stat().st_mode & 0o777 == 0o600


class Store:
    """A saved environment whose disk can be made to refuse."""

    def __init__(self, home: Path) -> None:
        self.repository = FileRepository(home)
        self.old = create("demo", {"padding": ""}, "/work", AT)
        self.new = create("demo", {"padding": "x" * 100_000}, "/work", AT)
        with self.hold(new=True) as held:
            held.save(self.old)

    def hold(self, *, new: bool = False) -> AbstractContextManager[HeldFiles]:
        return self.repository.hold("demo", "provision", timeout=0, interrupts=Interrupts(), new=new)

    def refuses(self, reason: str) -> None:
        """A save under the lock fails as ours, and the old state stands."""
        with self.hold() as held:
            with pytest.raises(StorageFailed, match="cannot save") as caught:
                held.save(self.new)
            assert caught.value.detail == reason
            assert str(self.repository.folder("demo").state) in caught.value.message
            assert held.load() == self.old
        assert self.repository.load("demo") == self.old

    def saves(self) -> None:
        with self.hold() as held:
            held.save(self.new)
        assert self.repository.load("demo") == self.new


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=128k") as disk:
        store = Store(disk / "home")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            file.write(b"x" * 65536)
        store.refuses("No space left on device")
        assert not [p for p in store.repository.folder("demo").root.iterdir() if p.name.endswith(".new")]
        filler.unlink()
        store.saves()


@pytest.mark.root
def test_a_disk_without_inodes(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=10m,nr_inodes=8") as disk:
        store = Store(disk / "home")
        for number in range(10):
            with contextlib.suppress(OSError):
                (disk / f"filler{number}").touch()
        store.refuses("No space left on device")
        (disk / "filler0").unlink()
        store.saves()


@pytest.mark.root
def test_a_home_that_became_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=10m") as disk:
        store = Store(disk / "home")
        with store.hold() as held:
            subprocess.run(["mount", "--bind", disk, disk], check=True)
            try:
                subprocess.run(["mount", "-o", "remount,bind,ro", disk], check=True)
                with pytest.raises(StorageFailed) as caught:
                    held.save(store.new)
                assert caught.value.detail == "Read-only file system"
                held.at_step("tofu_apply")
                assert store.repository.load("demo") == store.old
                with pytest.raises(StorageFailed, match="cannot make"):
                    FileRepository(disk / "other").hold(
                        "demo", "create", timeout=0, interrupts=Interrupts(), new=True
                    ).__enter__()
            finally:
                subprocess.run(["umount", "-l", disk], check=True)  # the bind mount


@pytest.mark.root
@pytest.mark.parametrize("target", ["folder", "state"])
def test_a_file_or_a_folder_that_may_not_be_changed(tmp_path: Path, target: str) -> None:
    store = Store(tmp_path / "home")
    folder = store.repository.folder("demo")
    fixed = folder.root if target == "folder" else folder.state
    subprocess.run(["chattr", "+i", fixed], check=True)
    try:
        store.refuses("Operation not permitted")
    finally:
        subprocess.run(["chattr", "-i", fixed], check=True)
    store.saves()


@pytest.mark.root
def test_a_home_of_somebody_else(tmp_path: Path) -> None:
    """As an unprivileged user: what may not be read or written is told as such, with no traceback."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    store = Store(tmp_path / "home")
    program = """
import os, sys
from pathlib import Path
import filelock
from deployer.errors import DeployerError
from deployer.process import Interrupts
from deployer.storage.repository import FileRepository
os.setgid(65534); os.setuid(65534)
repository = FileRepository(Path(sys.argv[1]))
hold = lambda **new: repository.hold("demo", "x", timeout=0, interrupts=Interrupts(), **new).__enter__()
for attempt in (repository.names, lambda: repository.load("demo"), lambda: repository.holder("demo"),
                hold, lambda: hold(new=True)):
    try:
        print("done", attempt())
    except DeployerError as error:
        assert error.remains and error.help
        print(error.code, error.detail)
"""
    home = store.repository.home
    denied, unreadable = "storage_failed Permission denied", "unreadable_state Permission denied"
    for opened in ((), (home, home / "environments")):
        for directory in opened:
            directory.chmod(0o755)
        argv = [sys.executable, "-c", program, str(home)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        expected = [denied, unreadable, "done None", unreadable, denied]
        assert done.stdout.splitlines() == expected, done.stderr
    assert store.repository.load("demo") == store.old


def test_a_home_that_disappears(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    with store.hold() as held:
        store.repository.home.rename(tmp_path / "elsewhere")
        with pytest.raises(StorageFailed) as caught:
            held.save(store.new)
        assert caught.value.detail == "No such file or directory"
        held.at_step("tofu_apply")
    assert FileRepository(tmp_path / "elsewhere").load("demo") == store.old
    assert store.repository.names() == ()


@pytest.mark.parametrize("kind", ["directory", "empty", "zeroes", "huge", "spaces"])
def test_a_state_that_is_no_state_file(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "home")
    path = store.repository.folder("demo").state
    path.unlink()
    if kind == "directory":
        path.mkdir()
    else:
        path.touch()
        contents = {"zeroes": b"\x00" * 4096, "spaces": b"  \n", "huge": b" " * 20}
        path.write_bytes(contents.get(kind, b""))
        if kind == "huge":
            os.truncate(path, 2 * 1024**3)
    before = path.stat()
    with pytest.raises(UnreadableState) as caught:
        store.repository.load("demo")
    assert caught.value.exit_code == 5
    assert caught.value.detail
    assert caught.value.help == f"rm -r {path}    # then the name is free"
    (path.parent / "tofu").mkdir()
    with pytest.raises(UnreadableState, match="cannot be used") as caught:
        store.repository.load("demo")
    assert "tofu state list" in caught.value.help
    with pytest.raises(UnreadableState), store.hold() as held:
        held.load()
    assert store.repository.names() == ("demo",)
    assert (path.stat().st_ino, path.stat().st_size, path.stat().st_mtime_ns) == (
        before.st_ino, before.st_size, before.st_mtime_ns,
    )  # fmt: skip
