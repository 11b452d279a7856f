"""Is everything here that a run needs? A check for each tool and circumstance, with what to type if it is missing."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from deployer.ansible import ansible_playbook
from deployer.bundled import bundled
from deployer.errors import DeployerError
from deployer.events import Notice, Report, printable
from deployer.process import Interrupts, Request, capture
from deployer.tofu.binary import cache_directory, find_engine

_PROVIDER_CHECK = 120.0  # seconds; it may boot a guest to see whether acceleration works


@dataclass(frozen=True, kw_only=True)
class Check:
    """`detail` says what was found, `fix` what to type where `ok` is false."""

    name: str
    ok: bool
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def examine(
    home: Path,
    environ: Mapping[str, str],
    interrupts: Interrupts,
    report: Report,
    *,
    install: bool,
    cwd: Path,
) -> tuple[Check, ...]:
    """All checks. With `install`, OpenTofu is brought into the user's cache first where it is missing."""
    if install:
        from deployer.tofu.install import install_tofu

        install_tofu(cache_directory(environ), lambda line: report(Notice(message=line)))
    checks = [
        Check(name="python", ok=sys.version_info >= (3, 11), detail=sys.version.split()[0], fix="install Python 3.11"),
        _tofu(environ, interrupts),
        _ansible(),
        *(_program(name, environ) for name in ("ssh", "ssh-keygen")),
        _home(home, environ, interrupts),
        *_local_provider(environ, interrupts),
    ]
    return tuple(checks)


def _tofu(environ: Mapping[str, str], interrupts: Interrupts) -> Check:
    try:
        engine = find_engine(environ, interrupts=interrupts)
    except DeployerError as error:
        return Check(name="tofu", ok=False, detail=str(error), fix=error.help)
    return Check(name="tofu", ok=True, detail=f"{engine.version} at {engine.path}")


def _ansible() -> Check:
    try:
        return Check(name="ansible-playbook", ok=True, detail=str(ansible_playbook()))
    except DeployerError as error:
        return Check(name="ansible-playbook", ok=False, detail=str(error), fix="pip install ansible-core")


def _program(name: str, environ: Mapping[str, str]) -> Check:
    found = shutil.which(name, path=environ.get("PATH"))
    return Check(
        name=name, ok=bool(found), detail=found or "not found", fix="" if found else "apt install openssh-client"
    )


def _home(home: Path, environ: Mapping[str, str], interrupts: Interrupts) -> Check:
    from deployer.storage.lock import hold

    try:
        # Looking makes no home: where there is none yet, what it would be made in is tried.
        probe = next(p for p in (home, *home.parents) if p.is_dir()) / ".deployer-doctor.lock"
        with hold(probe, "doctor", "doctor", timeout=5, interrupts=interrupts):
            pass
        probe.unlink(missing_ok=True)
    except DeployerError as error:
        return Check(name="home", ok=False, detail=str(error), fix=error.help)
    return Check(name="home", ok=True, detail=f"{home} can be written and locked")


def _local_provider(environ: Mapping[str, str], interrupts: Interrupts) -> Iterator[Check]:
    """The local provider knows best what it needs: its helper answers in JSON."""
    helper = bundled("tofu") / "local" / "machine.py"
    request = Request(
        argv=(sys.executable, "-B", str(helper), "check", "--json"),
        doing="local provider check",
        cwd=Path("/"),
        env=environ,
        timeout=_PROVIDER_CHECK,
    )
    outcome, text = capture(request, interrupts=interrupts)
    try:
        for item in json.loads(text):
            yield Check(
                name=f"local: {item['name']}",
                ok=bool(item["ok"]),
                detail=printable(str(item["detail"])),
                fix=printable(str(item.get("fix") or "")),
            )
    except (ValueError, TypeError, KeyError):
        yield Check(name="local", ok=False, detail=" ".join(outcome.tail) or "its helper said nothing usable")
