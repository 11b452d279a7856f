"""The root module of an environment: a provider's files copied into its tofu folder, input variables beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.errors import FailureKind, StepFailed

VARIABLES = "terraform.tfvars.json"
_MANIFEST = ".deployer-module.json"
_NEVER_COPIED = shutil.ignore_patterns(
    ".terraform", ".git", "__pycache__", "*.tfstate", "*.tfstate.*", ".terraform.tfstate.lock.info", ".*_cache"
)
_DECLARED = re.compile(r'^\s*variable\s+"?([A-Za-z0-9_-]+)"?\s*\{', re.MULTILINE)


def copy_module(source: Path, folder: Path) -> None:
    """Makes `folder` hold the module in `source`. State, machines and whatever else lies there stay as they are.

    Files that an earlier copy brought and the module no longer has are removed. Raises OSError, and StepFailed where
    the module brings a terraform.tfvars.json of its own, which ours would replace.
    """
    if (source / VARIABLES).exists():
        raise StepFailed(
            f"the module {source} has a {VARIABLES}",
            kind=FailureKind.INPUT,
            detail="deployer writes that file; give your values as provider.options, or in a file *.auto.tfvars",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    before = _manifest(folder)
    shutil.copytree(source, folder, ignore=_NEVER_COPIED, dirs_exist_ok=True)
    folder.chmod(0o700)  # copytree gives it the source's mode, and secrets will lie in it
    now = {
        str(p.relative_to(source))
        for p in source.rglob("*")
        if p.is_file() and (folder / p.relative_to(source)).exists()
    }
    for stale in before - now:
        (folder / stale).unlink(missing_ok=True)
    (folder / _MANIFEST).write_text(json.dumps(sorted(now)), encoding="utf-8")


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


def _manifest(folder: Path) -> set[str]:
    try:
        names = {str(name) for name in json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))} - {VARIABLES}
        return {name for name in names if not os.path.isabs(name) and ".." not in Path(name).parts}
    except (OSError, ValueError, TypeError):
        return set()
