"""Where things of an environment lie on disk, and where the home is. Paths only: makes folders, reads no file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import StorageFailed

HOME_NAME = ".deployer"


@dataclass(frozen=True)
class EnvironmentFolder:
    """The files of one environment (docs/architecture.md lists them)."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def state(self) -> Path:
        return self.root / "environment.json"

    @property
    def lock(self) -> Path:
        return self.root / "environment.lock"

    @property
    def tofu(self) -> Path:
        return self.root / "tofu"

    @property
    def ansible(self) -> Path:
        return self.root / "ansible"

    @property
    def private_key(self) -> Path:
        return self.root / "ssh" / "id_ed25519"

    @property
    def public_key(self) -> Path:
        return self.root / "ssh" / "id_ed25519.pub"

    @property
    def known_hosts(self) -> Path:
        return self.root / "ssh" / "known_hosts"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def recovery(self) -> Path:
        return self.root / "RECOVERY.md"


def find_home(cwd: Path, environ: Mapping[str, str]) -> Path:
    """DEPLOYER_HOME, else the nearest `.deployer` from `cwd` upwards, else `.deployer` in `cwd` (perhaps not there)."""
    if named := environ.get("DEPLOYER_HOME"):
        return (cwd / named).absolute()
    for folder in (cwd, *cwd.parents):
        if (folder / HOME_NAME).is_dir():
            return folder / HOME_NAME
    return cwd / HOME_NAME


def private_directory(path: Path) -> Path:
    """`path` as a directory that only we may enter, made with its parents where it is missing. Raises StorageFailed."""
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
        if not path.is_dir():
            raise NotADirectoryError(20, "is not a directory", str(path))
    except OSError as error:
        raise storage_failed("cannot make", path, error) from error
    return path


def storage_failed(doing: str, path: Path, error: OSError) -> StorageFailed:
    """An operating system's refusal, as our error: what could not be done to which file, and why."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageFailed(
        f"{doing} {path}",
        detail=reason,
        remains="Nothing was changed there.",
        help=f"df -h {path.parent}; ls -ld {path.parent}",
    )
