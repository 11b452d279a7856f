"""Which OpenTofu is used, and whether it is new enough."""

import json
import shlex
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import ToolMissing
from deployer.process import Context, capture

_OLDEST = (1, 6)


@dataclass(frozen=True)
class Engine:
    """An OpenTofu (or, where the user names it, Terraform) binary and its version."""

    path: Path
    version: str


def cache_directory(environ: Mapping[str, str]) -> Path:
    """The user's cache of this program: DEPLOYER_CACHE, else `deployer` in XDG_CACHE_HOME or ~/.cache."""
    named = environ.get("DEPLOYER_CACHE")
    try:
        folder = Path(named or environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute()
    except RuntimeError as error:
        problem, way_out = "there is no home directory", "export DEPLOYER_CACHE=/a/folder"
        raise ToolMissing(problem, detail=str(error), help=way_out) from None
    return folder if named else folder / "deployer"


def find_engine(context: Context) -> Engine:
    """DEPLOYER_TOFU, else `tofu` on PATH, else the one that `deployer doctor --install` put into the cache.

    Raises ToolMissing where there is none that works, or where it is older than 1.6.
    """
    named = context.environ.get("DEPLOYER_TOFU")
    missing = f"{named} (named by DEPLOYER_TOFU) was not found" if named else "OpenTofu is not installed"
    complaint = _unusable(missing, context)
    for path in _candidates(context.environ).values():
        try:
            return _engine(path, context)
        except ToolMissing as error:  # an old or broken one on PATH does not hide a good one in the cache
            complaint = error
    raise complaint


def typed(environ: Mapping[str, str]) -> str:
    """What a person types for OpenTofu in any folder: its name where PATH has it, or where it is not found, else its
    path."""
    name, path = "tofu", Path()
    with suppress(ToolMissing):  # without a home directory there is no cache to look into
        name, path = next(iter(_candidates(environ).items()), (name, path))
    return shlex.quote(str(path) if "/" in name else name)


def _candidates(environ: Mapping[str, str]) -> dict[str, Path]:
    named = environ.get("DEPLOYER_TOFU")
    names = [named] if named else ["tofu", str(cache_directory(environ) / "bin" / "tofu")]
    return {name: Path(path).absolute() for name in names if (path := shutil.which(name, path=environ.get("PATH")))}


def _engine(path: Path, context: Context) -> Engine:
    try:
        # Terraform would ask a server of its own for newer versions.
        _, text = capture((str(path), "version", "-json"), "tofu version", 30, context, CHECKPOINT_DISABLE="1")
        version = str(json.loads(text)["terraform_version"])  # OpenTofu kept the key's name
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(f"`{path} version -json` says no version", context) from error
    if tuple(int(part) for part in version.partition("-")[0].split(".")[:2] if part.isdigit()) < _OLDEST:
        raise _unusable(f"{path} is version {version}, which is too old", context)
    return Engine(path, version)


def _unusable(problem: str, context: Context) -> ToolMissing:
    # Where one is named, what --install brings would not be looked at.
    named = "unset DEPLOYER_TOFU    # or make it name an OpenTofu that works"
    way_out = named if context.environ.get("DEPLOYER_TOFU") else "deployer doctor --install"
    return ToolMissing(problem, detail="deployer needs OpenTofu 1.6 or newer", help=way_out)
