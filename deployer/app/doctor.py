"""Is everything here that a run needs? A check for each thing, with what to type where it is missing."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from deployer.ansible.playbook import ansible_playbook
from deployer.bundled import bundled
from deployer.errors import DeployerError
from deployer.events import Notice
from deployer.process import Context, capture
from deployer.tofu.binary import cache_directory, find_engine

_PROVIDER_CHECK = 120.0  # seconds; it may boot a guest to see whether acceleration works


@dataclass(frozen=True, kw_only=True)
class Check:
    """`detail` says what was found, `fix` what to type where `ok` is false."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def examine(context: Context, *, install: bool) -> tuple[Check, ...]:
    """All checks. With `install`, OpenTofu is brought into the user's cache first where it is missing."""
    if install:
        from deployer.tofu.install import usable_tofu

        usable_tofu(context.environ, lambda line: context.report(Notice(message=line)))

    def tofu() -> str:
        engine = find_engine(context)
        return f"{engine.version} at {engine.path}"

    return (
        _check("tofu", tofu),
        _check("ansible-playbook", lambda: ansible_playbook(context.environ)),
        *(_ssh(name, context.environ) for name in ("ssh", "ssh-keygen")),
        *_local_provider(context),
    )


def _ssh(name: str, environ: Mapping[str, str]) -> Check:
    found = shutil.which(name, path=environ.get("PATH"))
    fix = "" if found else "sudo apt install openssh-client"
    return Check(name=name, ok=found is not None, detail=found or "not found", fix=fix)


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name=name, ok=True, detail=look())
    except DeployerError as error:
        return Check(name=name, ok=False, detail=str(error), fix=error.help)


def _local_provider(context: Context) -> Iterator[Check]:
    """The local provider knows best what it needs: its helper answers in JSON."""
    argv = (sys.executable, "-B", str(bundled("tofu") / "local" / "machine.py"), "check")
    cache = str(cache_directory(context.environ))  # in full, as a run gives it
    outcome, text = capture(argv, "local provider check", _PROVIDER_CHECK, context, DEPLOYER_CACHE=cache)
    try:
        for item in json.loads(text):
            detail, fix = str(item["detail"]), str(item.get("fix") or "")
            yield Check(name=f"local: {item['name']}", ok=bool(item["ok"]), detail=detail, fix=fix)
    except (ValueError, TypeError, KeyError):
        yield Check(name="local", ok=False, detail=" ".join(outcome.tail) or "its helper said nothing usable")
