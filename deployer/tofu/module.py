"""The root module of an environment: a provider's files copied into its tofu folder, input variables beside them."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deployer.errors import FailureKind, StepFailed

VARIABLES = "terraform.tfvars.json"
_MANIFEST = ".deployer-module.json"
_NEVER_COPIED = shutil.ignore_patterns(
    ".terraform",
    ".git",
    "__pycache__",
    "*.tfstate",
    "*.tfstate.*",
    ".terraform.tfstate.lock.info",
    ".*_cache",
    ".deployer",
)
_DECLARED = re.compile(r'^\s*variable\s+"?([A-Za-z0-9_-]+)"?\s*\{', re.MULTILINE)


def copy_module(source: Path, folder: Path) -> bool:
    """Makes `folder` hold the module in `source`; whether it held another one before. State, machines and whatever else
    lies there stay as they are.

    Files that an earlier copy brought and the module no longer has are removed. Raises OSError, and StepFailed where
    the module is not there, or brings a terraform.tfvars.json of its own, which ours would replace.
    """
    if not source.is_dir():
        raise StepFailed(
            f"the module {source} is not there", kind=FailureKind.INPUT, detail="provider.path names that folder"
        )
    if (source / VARIABLES).exists():
        raise StepFailed(
            f"the module {source} has a {VARIABLES}",
            kind=FailureKind.INPUT,
            detail="deployer writes that file; give your values as provider.options, or in a file *.auto.tfvars",
        )
    if not module_differs(source, folder):
        return False
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before, now = _manifest(folder), _files(source, folder)
    shutil.copytree(source, folder, ignore=_ignored(folder), dirs_exist_ok=True)
    _make_private(folder, now)
    for stale in before - now:
        (folder / stale).unlink(missing_ok=True)
    (folder / _MANIFEST).touch(mode=0o600)
    (folder / _MANIFEST).write_text(json.dumps(sorted(now)), encoding="utf-8")
    return True


def _make_private(folder: Path, names: set[str]) -> None:
    """Takes the source's modes away: what others may read is not ours, and what is read-only cannot be copied over."""
    folder.chmod(0o700)
    for file in (folder / name for name in names):
        file.chmod(0o700 if file.stat().st_mode & 0o100 else 0o600)
        for parent in file.relative_to(folder).parents:
            (folder / parent).chmod(0o700)


def module_differs(source: Path, folder: Path) -> bool:
    """Whether the module in `source` is another than the one `folder` holds. Raises OSError."""
    files = _files(source, folder)
    return files != _manifest(folder) or any(
        not (folder / name).exists() or not filecmp.cmp(source / name, folder / name, shallow=False) for name in files
    )


def write_variables(folder: Path, required: Mapping[str, Any], optional: Mapping[str, Any]) -> None:
    """Writes the input variables, mode 0600 because they may hold secrets; `optional` ones only where the module
    declares them, since OpenTofu warns of values that nobody asked for. Raises OSError."""
    text = "\n".join(p.read_text(encoding="utf-8", errors="replace") for p in folder.glob("*.t[of]*") if p.is_file())
    declared = set(_DECLARED.findall(text))
    data = {**required, **{k: v for k, v in optional.items() if k in declared}}
    new = folder / f".{VARIABLES}.new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
    new.replace(folder / VARIABLES)


def _ignored(folder: Path) -> Callable[[str, list[str]], set[str]]:
    """What is never copied: other people's state and caches, and, where it lies inside the module, our own home."""

    def ignored(directory: str, names: list[str]) -> set[str]:
        ours = {name for name in names if (path := Path(directory, name)) == folder or path in folder.parents}
        return ours | _NEVER_COPIED(directory, names)

    return ignored


def _files(source: Path, folder: Path) -> set[str]:
    found: set[str] = set()
    ignored = _ignored(folder)
    for directory, folders, files in os.walk(source, followlinks=True):
        left_out = ignored(directory, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        found |= {os.path.relpath(Path(directory, name), source) for name in files if name not in left_out}
    return found


def _manifest(folder: Path) -> set[str]:
    try:
        names = {str(name) for name in json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))} - {VARIABLES}
        return {name for name in names if not os.path.isabs(name) and ".." not in Path(name).parts}
    except (OSError, ValueError, TypeError):
        return set()
