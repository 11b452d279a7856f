"""Which OpenTofu is used, and whether it is new enough."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import ToolMissing
from deployer.process import Interrupts, Request, capture

OLDEST = (1, 6)


@dataclass(frozen=True)
class Engine:
    """An OpenTofu (or, where the user names it, Terraform) binary and its version."""

    path: Path
    version: str


def cache_directory(environ: Mapping[str, str]) -> Path:
    """The user's cache of this program: DEPLOYER_CACHE, else `deployer` in XDG_CACHE_HOME or ~/.cache."""
    if named := environ.get("DEPLOYER_CACHE"):
        return Path(named).expanduser().absolute()
    return Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "deployer"


def find_engine(environ: Mapping[str, str], *, interrupts: Interrupts) -> Engine:
    """DEPLOYER_TOFU, else `tofu` on PATH, else the one that `deployer doctor --install` put into the cache.

    Raises ToolMissing where there is none, or where it is older than 1.6.
    """
    named = environ.get("DEPLOYER_TOFU")
    candidates = [named] if named else ["tofu", str(cache_directory(environ) / "bin" / "tofu")]
    found = [Path(path) for c in candidates if (path := shutil.which(c, path=environ.get("PATH")))]
    if not found:
        raise ToolMissing(
            f"{named} (named by DEPLOYER_TOFU) was not found" if named else "OpenTofu is not installed",
            detail="deployer makes machines with OpenTofu 1.6 or newer",
            help="deployer doctor --install",
        )
    complaint = ToolMissing("OpenTofu cannot be used")
    for binary in found:  # an old or broken one on PATH does not hide a good one in the cache
        try:
            version = engine_version(binary, interrupts=interrupts)
        except ToolMissing as error:
            complaint = error
            continue
        if _parts(version) >= OLDEST:
            return Engine(binary.absolute(), version)
        complaint = ToolMissing(
            f"{binary} is version {version}, which is too old",
            detail="deployer needs OpenTofu 1.6 or newer",
            help="deployer doctor --install",
        )
    raise complaint


def engine_version(path: Path, *, interrupts: Interrupts) -> str:
    """What `version -json` says. Raises ToolMissing where the program cannot be run or says nothing usable."""
    env = {**os.environ, "CHECKPOINT_DISABLE": "1"}  # Terraform would ask a server of its own for newer versions
    request = Request(argv=(str(path), "version", "-json"), doing="tofu version", cwd=Path("/"), env=env, timeout=30)
    try:
        _, text = capture(request, interrupts=interrupts)
        return str(json.loads(text)["terraform_version"])  # OpenTofu kept the key's name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolMissing(
            f"{path} does not say its version",
            detail=f"`{path.name} version -json` gave nothing usable ({type(error).__name__})",
            help="deployer doctor --install",
        ) from error


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2] if part.isdigit())
